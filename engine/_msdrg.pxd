# The MS-DRG grouper over the arrays of a pack of kind "msdrg" (written by engine/compile_msdrg.py).
#
# `group` is a pure function of (tables, one claim): no Python object, no allocation, no global state. Several
# threads may group from one Tables, each with its own Scratch. Every index in the tables was verified when
# the pack was opened, so nothing here checks bounds.

from libc.stdint cimport int8_t, int16_t, int32_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    WORDS = 8               # 64-bit words of an atom mask: 512 atoms
    MAX_STEPS = 64          # steps of one compiled formula
    MAX_HACS = 4            # hospital-acquired conditions one diagnosis code may belong to
    MAX_COUNTERS = 16
    N_LISTS = 64            # MDC numbers below this can have a formula list
    NO_BIT = 0xFFFF
    STEP_TRUE = 0xFFFE
    STEP_FALSE = 0xFFFF

# Enumerations below have the numbers of proto/codeset/v1 (zero is "unspecified" there).
cdef enum:
    MED_SURG_NONE = 1
    MED_SURG_MEDICAL = 2
    MED_SURG_SURGICAL = 3

cdef enum:
    SEVERITY_NONE = 1
    SEVERITY_NON_CC = 2
    SEVERITY_CC = 3
    SEVERITY_MCC = 4

cdef enum:
    RETURN_OK = 1
    RETURN_DX_CANNOT_BE_PDX = 2
    RETURN_INVALID_SEX = 3
    RETURN_INVALID_DISCHARGE_STATUS = 4
    RETURN_INVALID_PDX = 5
    RETURN_HAC_MISSING_ONE_POA = 6
    RETURN_HAC_POA_N_OR_U = 7
    RETURN_HAC_POA_INVALID_OR_1 = 8
    RETURN_HAC_MULTIPLE = 9
    RETURN_GROUPING_FAILED = 255    # no row applies: an error of the claim, not a CMS return code

cdef enum:
    HAC_STATUS_NOT_APPLICABLE = 1
    HAC_STATUS_FINAL_DRG_NO_CHANGE = 2
    HAC_STATUS_FINAL_DRG_CHANGES = 3
    HAC_STATUS_FINAL_DRG_UNGROUPABLE = 4

cdef enum:
    ADMIT_NOT_GIVEN = 1
    ADMIT_VALID = 2
    ADMIT_INVALID = 3

cdef enum:
    USAGE_NEITHER = 1
    USAGE_CC = 2
    USAGE_MCC = 3
    USAGE_CC_EXCLUDED = 4
    USAGE_MCC_EXCLUDED = 5
    USAGE_CC_EXCLUDED_BY_DRG_LOGIC = 6
    USAGE_MCC_EXCLUDED_BY_DRG_LOGIC = 7

cdef enum:
    AFFECTS_NONE = 1
    AFFECTS_INITIAL = 2
    AFFECTS_FINAL = 3
    AFFECTS_BOTH = 4

cdef enum:
    POA_ERROR_NOT_CHECKED = 1
    POA_ERROR_NOT_RECOGNIZED = 2
    POA_ERROR_NOT_POA = 3
    POA_ERROR_YES_POA = 4
    POA_ERROR_HOSPITAL_EXEMPT = 5

cdef enum:
    HAC_NOT_ON_LIST = 1
    HAC_MET = 2
    HAC_NOT_MET = 3
    HAC_EXCLUSION = 4
    HAC_EXEMPT = 5

cdef enum:
    SEX_MALE = 1
    SEX_FEMALE = 2
    SEX_UNKNOWN = 3

cdef enum:
    HOSPITAL_NOT_EXEMPT = 1
    HOSPITAL_EXEMPT = 2
    HOSPITAL_UNKNOWN = 3

cdef enum:
    OPTION_DETAIL = 1       # fill the per-code output; without it only `Result` is
    OPTION_CODE_ORDER = 2   # tie breaker CODE_ORDER instead of CLINICAL_SIGNIFICANCE
    OPTION_NO_AFFECT = 4    # do not compute which codes affected the DRG


cdef packed struct Slot:        # one code of the open-addressing tables; key 0 is an empty slot
    uint64_t key                # up to 8 ASCII characters, big-endian
    uint16_t attributes         # diagnosis: row of scheme; procedure: row of pattern; 0: not in the table
    uint16_t group              # diagnosis: row of exclusion as principal, 0: excludes nothing
    uint32_t member             # diagnosis: column of exclusion, 0: none; procedure: row of use_start

cdef packed struct Scheme:      # what diagnoses with equal attributes share
    int16_t mdc_male
    int16_t mdc_female          # also used for an unknown sex
    uint8_t severity            # 0 non-CC, 1 CC, 2 MCC
    uint8_t flags               # SCHEME_*
    uint8_t trauma              # bit i: has the i-th significant-trauma name
    uint8_t n_hacs
    uint8_t hac_number[4]       # ascending
    uint8_t hac_display[4]      # row of compile_msdrg.HAC_DISPLAYS
    uint16_t content            # equal for schemes that differ in the MDC only
    uint16_t pad[3]
    uint64_t suppression        # bit s: has a name of suppression set s: no severity there

cdef enum:
    SCHEME_GENDERED = 1         # the MDC depends on sex
    SCHEME_MCCALIVE = 2         # counts as MCC only if the patient was discharged alive
    SCHEME_INCIDENT = 4
    SCHEME_ON_SHOW_LIST = 8     # has hac06_show
    SCHEME_HAC11_PDX = 16

cdef packed struct Pattern:     # what procedures with equal names share
    uint8_t flags               # PATTERN_*
    uint8_t hac_usage           # bit i: has a name of HAC 8, 10, 11, 12, 13, 14
    uint8_t bilateral           # bit i: has the i-th joint name
    uint8_t pad

cdef enum:
    PATTERN_OPERATING_ROOM = 1
    PATTERN_NAMED = 2           # known to the grouper

cdef packed struct Row:         # one formula
    uint32_t program            # first step
    int16_t drg                 # 0: reroutes, or cannot be true
    int16_t base_drg
    int8_t reroute              # MDC number of the list to go to, 0: none
    uint8_t med_surg
    uint8_t suppression         # set of names whose diagnoses do not count towards severity, 0: none
    uint8_t pad
    int32_t source_rank

cdef packed struct List:
    uint32_t row                # first row
    uint16_t count
    uint8_t last_suppression    # suppression set of the last row, in force when no row is true
    uint8_t pad

cdef packed struct Step:
    uint16_t bit
    uint16_t if_true            # step relative to the program, STEP_TRUE or STEP_FALSE
    uint16_t if_false
    uint16_t pad

cdef packed struct Cluster:
    uint64_t suppressed         # bit m: its members' own names are not seen in list m
    uint32_t all_choices        # bits of all choices
    uint16_t pattern            # names of the cluster itself
    uint16_t pad

cdef packed struct ClusterUse:
    uint16_t cluster
    uint16_t choice

cdef packed struct Counter:     # an atom that is true when names occur often enough on the claim's procedures
    uint16_t bit
    uint8_t threshold
    uint8_t n_names
    uint16_t name_bit[4]
    uint8_t weight[4]
    uint16_t companion          # only procedures that have this name too count; NO_BIT: all
    uint8_t both_kinds          # every name must occur
    uint8_t flag                # FLAG_* put on the procedures that count

cdef struct KnownBits:          # atoms the code itself sets or asks for, NO_BIT: none in this version
    uint16_t mcc, cc, non_cc
    uint16_t invalid_pdx, pdx_ecode, invalid_dstat, invalid_sex, incident, multst, bilateral, mdc_20
    uint16_t alive, ama, died, xfrnba, anydx
    uint16_t arterial, drug_stent, plain_stent, revision
    uint16_t stent[4]
    uint16_t vessel[4]
    uint16_t trauma[8]
    uint16_t joint[6]

cdef struct Tables:
    int version                 # 431 for 43.1
    KnownBits known
    const Slot* dx_slot         # last one empty
    int dx_shift                # home = key * HASH >> shift
    const Slot* px_slot
    int px_shift
    const Scheme* scheme        # [0] is the unknown code
    const uint64_t* scheme_sdx  # [schemes][WORDS] atoms set as secondary diagnosis
    const uint64_t* scheme_pdx  # [schemes][WORDS] atoms set as principal diagnosis
    const uint64_t* mark_sdx    # [schemes][WORDS] matched atoms a secondary diagnosis accounts for
    const uint64_t* mark_pdx    # [schemes][WORDS] matched atoms the principal diagnosis accounts for
    const Pattern* pattern      # [0] is the unknown procedure
    const uint64_t* pattern_words       # [patterns][WORDS]
    const uint8_t* exclusion    # [groups + 1][exclusion_stride] bits
    Py_ssize_t exclusion_stride
    const uint32_t* use_start
    const ClusterUse* use
    const Cluster* cluster
    Py_ssize_t n_clusters
    const int16_t* list_index   # [N_LISTS], -1: no list
    const List* lists
    const Row* row
    const Step* step
    int row_words               # 64-bit words of a set of rows
    const uint64_t* always_rows         # [lists][row_words] rows without an anchor
    const uint64_t* list_anchors        # [lists][WORDS] atoms that are anchors in the list
    const int32_t* anchor_index         # [lists][64 * WORDS] row of anchor_rows, -1: none
    const uint64_t* anchor_rows         # [anchors][row_words]
    const uint32_t* hac_start   # [17] into hac_program
    const uint32_t* hac_program
    const Step* hac_step
    const Counter* counter
    int n_counters
    uint64_t unprefixed[WORDS]          # atoms of procedures and of the claim, severity aside
    uint64_t counted[WORDS]             # names of all counters
    uint64_t trauma_atoms[WORDS]

cdef struct Claim:
    const uint64_t* dx          # [n_dx] keys, the principal first; 0: cannot be a code
    const uint8_t* poa          # [n_dx] POA_*
    const uint64_t* px          # [n_px]
    uint64_t admit              # key of the admitting diagnosis
    uint32_t n_dx
    uint32_t n_px
    uint8_t admit_given
    uint8_t sex
    uint8_t hospital_status
    uint8_t discharge_status    # 0: none, or a number that is no discharge status

cdef enum:
    POA_Y = 0
    POA_W = 1
    POA_N = 2
    POA_U = 3
    POA_BAD = 4                 # 1, E, blank or no indicator at all

cdef struct Grouping:
    int16_t mdc                 # 0 when ungroupable
    int16_t drg                 # 999 when ungroupable
    int16_t base_drg
    uint8_t med_surg
    uint8_t severity            # highest severity on the claim, for the row that won
    uint8_t sdx_severity        # severity that the row asked for
    uint8_t return_code

cdef struct Result:
    Grouping initial
    Grouping final
    uint8_t hac_status
    uint8_t hac_categories
    uint8_t admit_flag
    uint8_t error               # RETURN_GROUPING_FAILED or 0

cdef struct DiagnosisResult:
    uint8_t recognized
    uint8_t initial_usage
    uint8_t final_usage
    uint8_t affects
    uint8_t poa_error
    uint8_t n_hacs
    uint8_t hac_display[4]      # row of compile_msdrg.HAC_DISPLAYS, 255: none ("null")
    uint8_t hac_status[4]

cdef struct ProcedureResult:
    uint8_t recognized
    uint8_t operating_room
    uint8_t affects
    uint8_t hac_usage           # bit i: HAC 8, 10, 11, 12, 13, 14

cdef struct Diagnosis:          # working data
    uint64_t key
    uint32_t member             # column of exclusion, 0: none
    uint16_t scheme
    uint8_t severity            # 0 non-CC, 1 CC, 2 MCC
    uint8_t poa
    uint8_t flags               # DX_*
    uint8_t impact              # AFFECTS_*
    uint8_t initial_usage
    uint8_t final_usage
    uint8_t poa_error
    uint16_t marked_for         # last matched atom this diagnosis accounted for, + 1; 0: none
    uint8_t n_hacs
    uint8_t hac_status[4]
    uint8_t hac_out             # bit i: entry i is in the output

cdef enum:
    DX_VALID = 1
    DX_EXCLUDED = 2
    DX_DEATH = 4
    DX_DOWNGRADED = 8
    DX_TRAUMA = 16
    DX_NOT_INCIDENT = 32
    DX_HAC_MET = 64             # out of the severity pool of the final pass

cdef struct Procedure:
    uint64_t key
    uint64_t suppressed         # bit m: names not seen in list m
    uint16_t pattern
    uint16_t first_same         # position (in order) of the first procedure with this key
    uint32_t uses               # row of use_start, 0: in no cluster
    uint8_t flags               # PX_*
    uint8_t impact
    uint8_t hac_usage
    uint8_t marked              # marked in the current marking pass

cdef enum:
    PX_FUSION = 1               # equal to compile_msdrg.FLAG_*
    PX_STENT = 2
    PX_VESSEL = 4
    PX_FIRST = 8
    PX_CONTRIBUTES = 16         # while a counter is being evaluated

cdef struct Satisfied:          # a cluster whose choices are all on the claim
    uint32_t cluster
    uint32_t stop               # position of the procedure that completed it

cdef struct Outcome:            # one pass over the formula lists
    int32_t row                 # winner, -1: none
    int32_t pre                 # winner of the pre-MDC list, -1: none
    int16_t mdc
    uint8_t severity            # 0 non-CC, 1 CC, 2 MCC
    uint8_t suppression
    uint8_t return_code
    uint8_t n_matched
    uint8_t n_pre_matched
    uint16_t matched[MAX_STEPS]         # atoms found true on the way through the winner
    uint16_t pre_matched[MAX_STEPS]

cdef struct Visit:              # one look at a formula list, recorded for explanations
    int32_t row                 # winner, -1: none
    int16_t mdc
    uint64_t mask[WORDS]        # atoms as the list saw them, severity aside
    uint64_t suppressed_mcc     # as in Scratch
    uint64_t suppressed_cc

cdef enum:
    MAX_VISITS = 16

cdef struct Trace:
    int n_visits
    int n_initial               # how many of them belong to the initial pass
    Visit visits[MAX_VISITS]

cdef struct Scratch:            # room for the working data of one claim; one per thread
    Diagnosis* dx               # [max_dx] input order
    Procedure* px               # [max_px] input order
    uint32_t* dx_order          # [max_dx] secondary diagnoses in the order the rules walk them
    uint32_t* px_order          # [max_px]
    uint32_t* seen              # [n_clusters] choices met
    uint32_t* stamp             # [n_clusters] claim number that wrote `seen`; not set while `now` is 0
    Satisfied* satisfied        # [n_clusters]
    uint32_t now
    Py_ssize_t n_clusters
    Py_ssize_t n_satisfied
    uint32_t n_dx
    uint32_t n_px
    uint32_t options
    const Claim* claim
    int16_t pdx_mdc
    uint8_t sex_conflict
    uint64_t base[WORDS]        # atoms of diagnoses and of the claim itself
    uint64_t full[WORDS]        # with all procedures and clusters, unsuppressed
    uint64_t mask[WORDS]        # as seen by the current list
    uint64_t suppressed_mcc     # bit s: no MCC counts under suppression set s
    uint64_t suppressed_cc
    uint64_t counter_true       # bit i: counter i
    int32_t trauma[2]           # the two diagnoses of MULTST
    uint16_t trauma_bit[2]
    uint16_t joint_bit[2]
    uint8_t flagged             # an atom put a flag on a code
    uint8_t n_matched
    uint16_t matched[MAX_STEPS]
    uint8_t list_suppression    # of the last formula looked at
    uint8_t list_severity
    uint8_t hac_met             # some entry is HAC_MET
    Trace* trace                # NULL: nothing is recorded


cdef int group(
    const Tables* tables, Scratch* scratch, const Claim* claim, uint32_t options,
    Result* result, DiagnosisResult* dx, ProcedureResult* px,
) noexcept nogil

# Room for claims of up to that many diagnoses and procedures, and versions of up to that many clusters; give_back
# ends it.
cdef int make_room(Scratch* s, Py_ssize_t dx, Py_ssize_t px, Py_ssize_t clusters) except -1 nogil
cdef void give_back(Scratch* s) noexcept nogil

# Key of a code on a claim, as Slot has it; 0: cannot be a code. UTF-8 does as well as ASCII.
cdef uint64_t key_of(const char* text, Py_ssize_t length) noexcept nogil
# POA_* of each of count characters; NULL: there are none, or some are not ASCII.
cdef void poa_of(const char* text, Py_ssize_t count, uint8_t* poa) noexcept nogil


cdef class Grouper:
    cdef Tables tables
    cdef readonly object pack
    cdef readonly str version
    cdef dict _arrays           # keeps the mappings alive

    cdef int _slots(
        self, str name, Py_ssize_t attributes, Py_ssize_t groups, Py_ssize_t members, int* shift
    ) except -1
    cdef int _attributes(self, const Slot* slots, int shift, str code) except -1
    cdef const void* _pointer(self, str name) except? NULL
