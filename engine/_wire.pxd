# Requests of the batch methods as they come off the wire, in plain structs. Every Text points into the request's own
# bytes, which its request object keeps.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from . cimport _msdrg
from ._proto cimport Buffer, Text


cdef struct Choice:         # what items name their tables with; equal ones are mostly found to be one
    Text name               # version of a grouper, empty: by date; risk adjustment model
    int32_t number          # CCYYMMDD, 0: none, or beside a version; payment year


cdef struct WireClaim:
    Text whole              # the claim's message
    Text claim_id
    Text admit
    Py_ssize_t dx           # position of its first diagnosis
    Py_ssize_t px           # position of its first procedure
    uint32_t n_dx
    uint32_t n_px
    uint32_t choice
    uint8_t sex             # as on the wire
    uint8_t hospital_status     # HOSPITAL_*
    uint8_t discharge_status    # 0: none, or a number that is no discharge status
    uint8_t plain           # 0: something about it is not as it should be, and the reader of messages has to say what
    # What only the code editor looks at, as on the wire.
    int32_t date            # CCYYMMDD, 0: none
    int32_t age             # years
    int32_t status          # discharge status
    int32_t length_of_stay  # days
    int32_t edition         # of ICD
    uint8_t given           # GIVEN_*
    uint8_t plain_to_edit   # likewise, to the editor, codes not yet looked at

cdef enum:                  # fields of a claim that may be absent
    GIVEN_AGE = 1
    GIVEN_DISCHARGE_STATUS = 2
    GIVEN_LENGTH_OF_STAY = 4


cdef struct Span:           # bytes of something of an EncodedVersion
    Py_ssize_t start
    Py_ssize_t size


cdef struct Version:        # an EncodedVersion
    const _msdrg.Tables* grouper
    Text name               # the version, "43.1"
    const uint8_t* text     # what the spans are of
    const Span* drg         # [n_drgs] fields of a Grouping that the DRG decides, encoded
    const Span* mdc         # [n_mdcs] fields of a Grouping that the MDC decides, encoded
    const Span* hac         # [256 * HAC_STATUSES] Hac fields of a DiagnosisResult by display and status, encoded
    const uint16_t* hac_rank    # likewise: their order
    int n_drgs
    int n_mdcs
    Py_ssize_t most_grouping    # bytes of the longest drg and mdc together
    Py_ssize_t most_hac
    Text failed             # fields of a DrgResult that no row applies to, encoded


cdef struct Room:           # what claims are grouped in
    _msdrg.Scratch scratch
    uint64_t* key               # [most_dx + most_px]
    _msdrg.DiagnosisResult* dx  # [most_dx]
    _msdrg.ProcedureResult* px  # [most_px]
    Py_ssize_t most_dx
    Py_ssize_t most_px


cdef enum:
    CHOICES = 64            # choices remembered while a request is read
    BRIEF = 4096            # bytes of a request that is answered with the GIL held: it takes longer to get it back


cdef class EncodedVersion:
    cdef Version version
    cdef readonly str release
    cdef list _kept

    cdef int check(self) except -1


cdef class Request:
    cdef bytes raw
    cdef Buffer choice          # Choice
    cdef uint32_t[CHOICES] recent       # choice + 1 by hash, 0: none
    cdef bint brief

    cdef int begin(self, bytes raw) except -1
    # Read a message of the subclass's kind. 1: read; 0: not protobuf; -1: no memory.
    cdef int read(self, Text whole) noexcept nogil


cdef class InpatientRequest(Request):
    cdef Buffer claims          # WireClaim
    cdef Buffer dx_text         # Text
    cdef Buffer dx_poa          # uint8_t, POA_* of each diagnosis
    cdef Buffer px_text
    cdef uint32_t most_dx, most_px
    cdef readonly int32_t tie_breaker
    cdef readonly int32_t affect_flags
    cdef readonly int32_t detail

    # As ``read``.
    cdef int read_claim(self, Text message) noexcept nogil
    cdef bint read_options(self, Text message) noexcept nogil
    cdef EncodedVersion group_one(self, Buffer* out, uint32_t field, known, flags)
    cdef tuple group_into(self, Buffer* out, uint32_t field, versions, unsigned int options, other)
    cdef bint group(
        self, const WireClaim* claims, Py_ssize_t n, Version** chosen, const Text* made, uint8_t* used,
        Room* room, uint32_t options, uint32_t field, Buffer* out, Py_ssize_t* failed
    ) noexcept nogil


# Append a Text; False if there is no memory.
cdef bint add_code(Buffer* texts, Text text) noexcept nogil
# Number the choice of an item; False if there is no memory. ``recent``: [CHOICES] choice + 1 by hash, 0: none.
cdef bint choose(Buffer* choices, uint32_t* recent, Text name, int32_t number, uint32_t* choice) noexcept nogil
# Ask ``other`` for the results of the items whose bytes are ``others``: the i of the n whose made[i].size is negative.
# Points made[i] at them; returns what keeps them.
cdef list results_of(object other, list others, Text* made, Py_ssize_t n)
# Append the values of ``data`` to ``chunks``; return the Span of each of ``count`` numbers, empty where it has none.
cdef bytearray spans_of(list chunks, Py_ssize_t count, dict data)

cdef Buffer take_small() noexcept
cdef void leave_small(Buffer buffer) noexcept
cdef Buffer take_spare() noexcept
cdef void leave_spare(Buffer buffer) noexcept
