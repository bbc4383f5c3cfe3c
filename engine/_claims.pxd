# Fields of claims as Python gives them, checked: what every reader of claims needs. Each function raises
# InvalidFieldError naming the field.

from libc.stdint cimport uint8_t


cdef const char* ascii_of(object value, str field, Py_ssize_t* length) except? NULL
cdef uint8_t one_of(dict values, object value, str field) except 0
cdef int check_id(object value) except -1
