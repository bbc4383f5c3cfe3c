# Claims as Python gives them, checked: what their readers share. Each function raises InvalidFieldError naming the
# field.

from libc.stdint cimport uint8_t

from ._proto cimport Buffer


cdef enum:                      # who reads a claim
    GROUPER = 1
    EDITOR = 2


# Fields of one claim, None where it has none. What only one reader takes is None to the other.
cdef class ClaimFields:
    cdef object discharge_date, sex, discharge_status, admit_diagnosis, diagnoses, procedures
    cdef object version, hospital_status, poa               # the grouper's
    cdef object age, length_of_stay, icd_version            # the editor's
    cdef object _kind           # type of the last object, and whether it says what it has
    cdef bint _has_presence

    cdef int take(self, object claim, int readers) except -1


# Claims, checked and laid out as structs for one reader. What is wrong with a claim is kept in ``errors`` and keeps
# nothing else from being read.
cdef class Layout:
    cdef int reader
    cdef readonly object claims
    cdef readonly dict errors   # CodesetError by position
    cdef Py_ssize_t n           # claims read
    cdef Buffer rows            # one a claim
    cdef Buffer dx              # what the reader keeps of each diagnosis, claim after claim
    cdef Buffer px

    # For subclasses to call: with the size of a row and of a code.
    cdef int begin(self, int reader, object claims, Py_ssize_t row, Py_ssize_t dx, Py_ssize_t px) except -1
    cdef int read(self) except -1
    cdef int read_one(self, Py_ssize_t i, ClaimFields fields, bint taken) except -1
    # For them to have: lay out claim i; note that it could not be, with nothing of its codes kept.
    cdef int lay_out(self, Py_ssize_t i, ClaimFields fields) except -1
    cdef void fail(self, Py_ssize_t i) noexcept


# Read the same claims for two readers at once.
cdef int read_together(Layout first, Layout second) except -1

cdef const char* ascii_of(object value, str field, Py_ssize_t* length) except? NULL
cdef uint8_t one_of(dict values, object value, str field) except 0
cdef list codes_of(object codes, str field)
# None is 0, which is not less than least.
cdef long number_of(object value, str field, str what, long least) except? -1
