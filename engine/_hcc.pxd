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


cdef void score(
    const Tables* tables, const Member* member, const Factors* factors,
    Result* result, int32_t* raw, int32_t* normalized, int32_t* payment,
) noexcept nogil


cdef class Scorer:
    cdef Tables tables
    cdef readonly object pack
    cdef readonly dict arrays   # by name; keeps the mappings alive

    cdef const void* _pointer(self, str name) except? NULL
