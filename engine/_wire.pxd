# Requests of the batch methods as they come off the wire, in plain structs. Every Text points into the request's own
# bytes, which its request object keeps.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

from ._proto cimport Buffer, Text


cdef struct Choice:         # what claims name their grouper with; equal ones are mostly found to be one
    Text version            # empty: by date
    int32_t date            # CCYYMMDD, 0: none; of no meaning beside a version


cdef struct WireClaim:
    Text whole              # the claim's message
    Text claim_id
    Text admit
    Py_ssize_t dx           # position of its first diagnosis
    Py_ssize_t px           # position of its first procedure
    uint32_t n_dx
    uint32_t n_px
    uint32_t choice
    uint8_t sex             # SEX_* of the grouper
    uint8_t hospital_status     # HOSPITAL_*
    uint8_t discharge_status    # 0: none, or a number that is no discharge status
    uint8_t plain           # 0: something about it is not as it should be, and the reader of messages has to say what


cdef struct Span:           # bytes of something of an EncodedVersion
    Py_ssize_t start
    Py_ssize_t size


cdef Buffer take_spare() noexcept
cdef void leave_spare(Buffer buffer) noexcept
