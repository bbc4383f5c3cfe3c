# The Medicare Code Editor over the arrays of a pack of kind "mce" (written by engine/compile_mce.py).
#
# `edit` is a pure function of (tables, one claim): no Python object, no allocation, no global state. Several
# threads may edit from one Tables, each with its own room for procedures. Every index in the tables was
# verified when the pack was opened, so nothing here checks bounds.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:                      # bits of a flag set: the order of compile_mce.FLAGS
    FEMALE, MALE, NONSPECIFIC, NCOV_D, NCOV_E, NCOV_G, NCOV2, NCOV3,
    PEDIATRIC, NEWBORN, MATERNITY, ADULT,
    CLINTRIAL, DELOUT, ECODEPDX, NCOV_B, QADM, REQSDX, UNACCEPTABLE, WRNGPROC, UNSPECIFIED,
    MSP, MDC08, MANIF, NCOV4, NCOV5, NCOV2AGELT78, NCOV2AGELT64, NCOV89,
    COV_Z006A, COV_Z006B, CSECT, VAGDEL, LCOV, LOS, NCOV_A, NCOV_B_KXP, NCOV_B_PXP,
    NCOV_F, BIOPSY, BILATERAL, OR_INDC, NCOV8, NCOV9, NCOV13A, NCOV13B,
    LCOV_LVRS, LCOV_LUNGXP, LCOV_HEARTLUNGXP, LCOV_HEARTXP, LCOV_HEARTSYS, LCOV_INTXP, LCOV_LIVERXP,
    LCOV_KIDNEYXP, LCOV_PANCREASXP, LCOV_ARTHEARTXP

cdef enum:                      # bits of a set of edits: the ordinals of CMS. 30, 31 and 36 on are never raised
    EDIT_INVALID_CODE = 0
    EDIT_SEX_CONFLICT = 1
    EDIT_AGE_CONFLICT = 2
    EDIT_QUESTIONABLE_ADMISSION = 3
    EDIT_MANIFESTATION_AS_PDX = 4
    EDIT_NONSPECIFIC_PDX = 5
    EDIT_E_CODE_AS_PDX = 6
    EDIT_UNACCEPTABLE_PDX = 7
    EDIT_DUPLICATE_OF_PDX = 8
    EDIT_MEDICARE_IS_SECONDARY_PAYER = 9
    EDIT_REQUIRES_SDX = 10
    EDIT_NONSPECIFIC_OR = 11
    EDIT_OPEN_BIOPSY = 12
    EDIT_NON_COVERED = 13
    EDIT_BILATERAL = 14
    EDIT_LIMITED_COVERAGE_LVRS = 15
    EDIT_LIMITED_COVERAGE = 16
    EDIT_LIMITED_COVERAGE_LUNG = 17
    EDIT_QUESTIONABLE_OBSTETRIC = 18
    EDIT_LIMITED_COVERAGE_HEART_LUNG = 19
    EDIT_LIMITED_COVERAGE_HEART = 20
    EDIT_LIMITED_COVERAGE_HEART_IMPLANT = 21
    EDIT_LIMITED_COVERAGE_INTESTINE = 22
    EDIT_LIMITED_COVERAGE_LIVER = 23
    EDIT_INVALID_ADMIT_DX = 24
    EDIT_INVALID_AGE = 25
    EDIT_INVALID_SEX = 26
    EDIT_INVALID_DISCHARGE_STATUS = 27
    EDIT_LIMITED_COVERAGE_KIDNEY = 28
    EDIT_LIMITED_COVERAGE_PANCREAS = 29
    EDIT_LIMITED_COVERAGE_ARTIFICIAL_HEART = 32
    EDIT_WRONG_PROCEDURE = 33
    EDIT_INCONSISTENT_LENGTH_OF_STAY = 34
    EDIT_UNSPECIFIED = 35
    # Not an edit: in the set of a diagnosis, where the number of its age conflict (1 to 4) begins.
    AGE_CONFLICT_SHIFT = 60

# Enumerations below have the numbers of proto/codeset/v1 (zero is "unspecified" there).
cdef enum:
    EDIT_TYPE_NONE = 1
    EDIT_TYPE_PREPAYMENT = 2
    EDIT_TYPE_POSTPAYMENT = 3
    EDIT_TYPE_BOTH = 4
    EDIT_TYPE_INVALID_DISCHARGE_DATE = 5

cdef enum:
    AGE_CONFLICT_NEWBORN = 1    # CMS numbers; those of the API are one more
    AGE_CONFLICT_PEDIATRIC = 2
    AGE_CONFLICT_MATERNITY = 3
    AGE_CONFLICT_ADULT = 4

cdef enum:
    SEX_MALE = 1
    SEX_FEMALE = 2
    SEX_UNKNOWN = 3
    SEX_MISSING = 4

cdef enum:                      # fields without which CMS cannot edit (section 9)
    MISSING_NOTHING = 0
    MISSING_AGE = 1
    MISSING_SEX = 2
    MISSING_DISCHARGE_STATUS = 3
    MISSING_LENGTH_OF_STAY = 4


cdef packed struct Slot:        # one row of a code master; key 0 is an empty slot
    uint64_t key                # up to 8 ASCII characters, big-endian
    uint16_t first              # days since 1970-01-01, inclusive
    uint16_t last               # likewise
    uint16_t flags              # row of flag_set
    uint16_t pad

cdef struct Master:
    const Slot* slot            # last one empty; the rows of a code are consecutive
    int shift                   # home = key * HASH >> shift

cdef packed struct AgeRange:
    int32_t first_age           # years, inclusive
    int32_t last_age
    uint16_t first              # days since 1970-01-01, inclusive
    uint16_t last
    uint8_t group               # row of compile_mce.AGE_GROUPS
    uint8_t pad[3]

cdef packed struct StatusRow:
    uint16_t first              # days since 1970-01-01, inclusive
    uint16_t last

cdef struct Tables:
    Master dx[2]                # [0] ICD-10, [1] ICD-9
    Master px[2]
    const uint64_t* flag_set
    const AgeRange* age_range
    Py_ssize_t n_age_ranges
    const uint32_t* status_start        # [257] into status_row, by discharge status
    const StatusRow* status_row
    uint16_t first_day          # first and last discharge date
    uint16_t last_day

cdef struct Code:
    uint64_t key                # as in the tables: upper case; 0: cannot be in one
    uint64_t text               # equal for codes that are the same text, dots aside
    uint8_t silent              # blank, or nothing but zeros: not an invalid code unless it is the principal

cdef enum:
    GIVEN_AGE = 1
    GIVEN_DISCHARGE_STATUS = 2
    GIVEN_LENGTH_OF_STAY = 4
    GIVEN_ADMIT = 8

cdef struct Claim:
    const Code* dx              # [n_dx], the principal first
    const Code* px              # [n_px]
    Code admit
    uint32_t n_dx
    uint32_t n_px
    int32_t age                 # years
    int32_t length_of_stay      # days
    int32_t discharge_status
    uint16_t day                # of discharge, days since 1970-01-01; 0: no date
    uint8_t sex                 # SEX_*
    uint8_t given               # GIVEN_*
    uint8_t icd9                # 1: the codes are ICD-9-CM

cdef struct Suppressed:         # edits not to be raised on a code of the sort; the admitting diagnosis is an sdx
    uint64_t pdx
    uint64_t sdx
    uint64_t px

cdef struct Result:
    uint64_t edits              # set of the edits whose count is positive
    uint64_t admit              # edits of the admitting diagnosis, and its age conflict
    uint8_t edit_type           # EDIT_TYPE_*; 0 when a field is missing
    uint8_t missing             # MISSING_*
    uint8_t pad[6]


cdef void edit(
    const Tables* tables, const Claim* claim, const Suppressed* suppressed, uint64_t* flags,
    Result* result, uint64_t* dx, uint64_t* px,
) noexcept nogil

# Read a code of ASCII characters as it is on a claim. False if its text does not fit in a number.
cdef bint read_code(const char* text, Py_ssize_t length, Code* code) noexcept nogil

# Days since 1970-01-01 of a discharge date (CCYYMMDD), 0 for what is no date between 1970 and 2149. A day beyond the
# end of its month is moved back to the last one, as CMS does (4.1).
cdef uint16_t day_of_number(int32_t date) noexcept nogil


cdef class Editor:
    cdef Tables tables
    cdef readonly object pack
    cdef readonly str release
    cdef readonly int version
    cdef dict _arrays           # keeps the mappings alive

    cdef int _master(self, str name, Py_ssize_t sets, Master* master) except -1
    cdef const void* _pointer(self, str name) except? NULL
