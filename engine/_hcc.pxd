# Risk scores over the arrays of a pack of kind "hcc" (written by engine/compile_hcc.py).
#
# `score` is a pure function of (tables, one member): no Python object, no allocation, no global state. Several threads
# may score from one Tables. Every index in the tables was verified when the pack was opened, so nothing here checks
# bounds. Which variables a member has, and what they weigh, is all in the tables: nothing here knows a model.

from libc.stdint cimport int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    CC_WORDS = 4            # 256 condition categories
    VARIABLE_WORDS = 8      # 512 variables
    COLUMNS = 16            # segment columns
    OUTPUTS = 32
    AGES = 128
    NO_VARIABLE = 0xFFFF
    NO_SCORE = -0x7FFFFFFF  # no normalization factor is known for the model and year

cdef packed struct Slot:    # one code of the open-addressing table; key 0 is an empty slot
    uint64_t key            # up to 8 ASCII characters, big-endian
    uint32_t row            # of rule_start
    uint32_t pad

cdef packed struct Rule:
    uint64_t classes        # bit c: applies to members of class c
    uint16_t cc             # bit of the condition category
    uint16_t pad[3]

cdef packed struct PreRule:     # takes a category away before hierarchies
    uint16_t cc
    uint16_t pad[3]
    uint64_t unless[4]      # [CC_WORDS] categories of which any one keeps it

cdef packed struct Pair:        # a variable that is the conjunction of two
    uint16_t variable
    uint16_t a
    uint16_t b
    uint16_t pad

cdef packed struct Person:      # a variable of members of one sex and age
    uint16_t variable
    uint8_t all             # flags it needs
    uint8_t none            # flags that exclude it
    uint8_t orec            # bit o: OREC o has it
    uint8_t pad

cdef packed struct Output:
    int16_t column          # -1: none
    uint16_t divisor        # thousandths, 0: none

cdef packed struct AddOn:       # a value added to one output, for some members of one age
    int32_t value           # thousandths
    uint16_t output
    uint16_t name           # row of addon_name
    uint8_t orec            # bits as in Person
    uint8_t all
    uint8_t none
    uint8_t pad

cdef struct Tables:
    const Slot* slot                # last one empty
    int shift                       # home = key * HASH >> shift
    const uint32_t* rule_start
    const Rule* rule
    const uint8_t* age_class        # [MCE off][sex][AGES], below 64
    bint age_64_is_65               # with OREC 0, for every purpose
    uint32_t n_ccs
    const uint64_t* secondary       # [n_ccs][CC_WORDS] what an HCC suppresses
    const PreRule* pre_rule
    uint32_t n_pre_rules
    const uint64_t* implies         # [n_ccs][VARIABLE_WORDS] variables an HCC sets
    const Pair* interaction
    uint32_t n_interactions
    const uint16_t* count_variable  # [64 * CC_WORDS + 1]
    const uint32_t* person_start    # [2 * AGES + 1]
    const Person* person
    const int32_t* coefficient      # [variables][COLUMNS] thousandths
    const Output* output
    uint32_t n_outputs
    const uint32_t* addon_start     # [AGES + 1]
    const AddOn* addon
    const uint32_t* applicable_start    # [AGES + 1]
    const AddOn* applicable

cdef struct Factors:            # payment factors of one model and year
    int32_t normalization[32]   # [OUTPUTS] thousandths, 0: not known
    int32_t kept[32]            # [OUTPUTS] thousandths of the normalized score that the coding adjustment leaves

cdef struct Member:
    const uint64_t* dx          # [n_dx] keys; 0: cannot be a code
    uint32_t n_dx
    uint8_t age                 # years on 1 February of the payment year, below AGES
    uint8_t sex                 # 0 male, 1 female
    uint8_t orec                # 0 to 3
    uint8_t mce_off
    uint8_t flags               # bits of compile_hcc.FLAGS

cdef struct Result:
    uint64_t ccs[4]             # [CC_WORDS] categories of the diagnoses
    uint64_t hccs[4]            # [CC_WORDS] after rules and hierarchies
    uint64_t variables[8]       # [VARIABLE_WORDS]
    uint64_t applicable         # bit i: output i is one for the member (models whose outputs depend on it)


cdef enum:
    # What a model's segments are told by (section 10).
    PART_C = 0
    PART_C_V24 = 1
    ESRD = 2
    ESRD_V21 = 3
    RXHCC = 4

    DUAL_UNKNOWN = 0
    DUAL_FULL = 1
    DUAL_PARTIAL = 2
    DUAL_NOT = 3

    # Bits of Member.flags that are asked for by name.
    FBDUAL = 3
    PBDUAL = 4
    LTI = 5

    LARGEST_AGE = 125
    MAX_DIAGNOSES = 65535   # of one member

    LOW_INCOME_UNKNOWN = 2
    SEGMENT_ROOM = 32       # no segment's name is longer

    NO_DAY = -1             # of the calendar
    AFTER_THE_YEAR = -2

cdef struct Situation:          # what beside Member tells the member's segment (section 10)
    uint8_t new_enrollee
    uint8_t snp
    uint8_t institutional
    uint8_t dialysis
    uint8_t dual            # DUAL_*
    uint8_t low_income      # 0, 1, LOW_INCOME_UNKNOWN
    int32_t months          # since the kidney transplant; below 1: no graft


cdef void score(
    const Tables* tables, const Member* member, const Factors* factors,
    Result* result, int32_t* raw, int32_t* normalized, int32_t* payment,
) noexcept nogil
# Whole years on 1 February of a year, 0 for who is born after (section 2); NO_DAY, AFTER_THE_YEAR.
cdef int age_in(int32_t born, int32_t year) noexcept nogil
cdef uint8_t dual_of(const char* code, Py_ssize_t length) noexcept nogil
# The name of the member's segment into text (SEGMENT_ROOM bytes, not terminated); its length, 0: cannot be told.
cdef int segment_of(int kind, const Member* member, const Situation* situation, char* text) noexcept nogil


cdef extern from *:
    """
    #define lowest_bit(x) __builtin_ctzll(x)
    """
    int lowest_bit(uint64_t x) noexcept nogil


cdef inline bint has_bit(const uint64_t* words, uint32_t bit) noexcept nogil:
    return (words[bit >> 6] >> (bit & 63)) & 1


cdef inline void set_bit(uint64_t* words, uint32_t bit) noexcept nogil:
    words[bit >> 6] |= (<uint64_t>1) << (bit & 63)


cdef inline const Slot* find_slot(const Tables* t, uint64_t key) noexcept nogil:
    """The slot of ``key``; the empty slot that ended the probe when it is not there. Key 0 finds an empty slot."""
    cdef const Slot* slot = t.slot + ((key * <uint64_t>0x9E3779B97F4A7C15U) >> t.shift)
    while slot.key != key and slot.key != 0:
        slot += 1
    return slot


cdef inline bint admits(const AddOn* addon, const Member* m) noexcept nogil:
    return (addon.orec >> m.orec) & 1 and (m.flags & addon.all) == addon.all and not m.flags & addon.none


cdef inline uint8_t effective_age(const Tables* t, const Member* m) noexcept nogil:
    """V24 takes age 64 with OREC 0 for 65 in everything (D1)."""
    return 65 if t.age_64_is_65 and m.age == 64 and m.orec == 0 else m.age


cdef class Scorer:
    cdef Tables tables
    cdef readonly object pack
    cdef readonly dict arrays   # by name; keeps the mappings alive

    cdef const void* _pointer(self, str name) except? NULL
