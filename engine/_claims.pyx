"""Fields of claims as Python gives them, checked. See the .pxd; nothing here is of use to Python code."""

from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_Check

from .errors import InvalidFieldError

cdef extern from *:
    int PyUnicode_IS_COMPACT_ASCII(object o) noexcept
    const char* PyUnicode_1BYTE_DATA(object o) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(object o) noexcept


cdef const char* ascii_of(object value, str field, Py_ssize_t* length) except? NULL:
    """The characters of a string, NULL where they are not all ASCII."""
    if not PyUnicode_Check(value):
        raise InvalidFieldError(f"{field}: expected a string, got {type(value).__name__}", field=field)
    length[0] = PyUnicode_GET_LENGTH(value)
    if not PyUnicode_IS_COMPACT_ASCII(value):
        return NULL
    return PyUnicode_1BYTE_DATA(value)


cdef uint8_t one_of(dict values, object value, str field) except 0:
    cdef PyObject* found = NULL
    if not isinstance(value, bool) and isinstance(value, (int, str, type(None))):
        found = PyDict_GetItem(values, value)
    if found == NULL:
        names = ", ".join(sorted(name for name in values if isinstance(name, str)))
        raise InvalidFieldError(
            f"{field}: expected one of {names} or its number, got another {type(value).__name__}",
            field=field,
        )
    return <object>found


cdef int check_id(object value) except -1:
    if value is not None and not isinstance(value, str):
        raise InvalidFieldError(f"claim_id: expected a string, got {type(value).__name__}", field="claim_id")
    return 0
