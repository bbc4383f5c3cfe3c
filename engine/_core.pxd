# The typed face of the core: plain structs and nogil free functions, for the groupers, the wire room and
# outside Cython code (`from engine._core cimport ...`).
#
# No function here allocates, raises or touches a Python object. Every pointer is into an array of an opened
# pack whose indices were verified when it was opened; it stays valid as long as the CodeIndex it came from is
# referenced. The arrays are described in engine/compile_codes.py.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef enum:
    # Status of a code on a day; the numbers of engine.codes.Status and of the protobuf enum CodeStatus.
    STATUS_VALID = 1        # one of its spells contains the day
    STATUS_HEADER = 2       # in the release's tree, needs more characters
    STATUS_NOT_YET = 3      # its first spell begins after the day
    STATUS_EXPIRED = 4      # a spell ended before the day and none contains it
    STATUS_UNKNOWN = 5      # well-formed, in no spell and no header
    STATUS_MALFORMED = 6    # cannot be a code of any system


cdef enum:
    # Added to the place of the dot: one character later in codes that begin with E (ICD-9-CM: 800.1, E800.1).
    DOT_LATER_AFTER_E = 8
    PRINTED = 9             # characters of a printed code at most
    OPEN_END = 99991231     # engine.tables.OPEN_END


cdef struct Slot:
    uint64_t key            # 0: empty
    uint16_t first          # days since 1970-01-01, inclusive; > last: the key has no spell
    uint16_t last           # likewise; 65535: open
    uint32_t ref            # SLOT_SEVERAL | SLOT_HEADER | index: a code of the history, or history + node


cdef struct CodeTable:
    const Slot* slots               # [2 ** (64 - shift) + overflow + 1], the last one empty
    int shift                       # home of a key = key * HASH_FACTOR >> shift
    uint32_t codes                  # h: codes of the history
    uint32_t nodes                  # n: nodes of the tree
    const uint64_t* code_key        # [h], ascending
    const uint32_t* code_spell      # [h + 1], into spell_*
    const int32_t* spell_first      # CCYYMMDD, inclusive, ascending within a code
    const int32_t* spell_last       # CCYYMMDD, inclusive
    const int32_t* code_node        # [h], -1: not in this release's tree
    const uint64_t* node_key        # [n]
    const uint32_t* node_exit       # [n], one past the last descendant
    const int32_t* node_parent      # [n], -1: root
    const uint8_t* node_depth       # [n], 0: root
    const uint8_t* node_kind        # [n], index into compile_codes.KINDS
    const uint8_t* node_billable    # [n], 0 or 1
    const int32_t* key_node         # [n], nodes ordered by (key, kind)


cdef struct Day:
    int32_t date            # CCYYMMDD
    uint16_t number         # days since 1970-01-01, cut to 1 .. 65534 (2149-06-05)


cdef struct Found:
    int32_t code            # index in the history, -1: never valid
    int32_t node            # node of this release's tree, -1: not in it
    bint header             # in the tree as a code that needs more characters


cdef struct Range:
    uint32_t begin
    uint32_t end            # exclusive


cdef struct Spell:
    int32_t first           # CCYYMMDD, 0: no spell
    int32_t last            # CCYYMMDD, 0: no spell


cdef struct Columns:
    uint8_t* status         # STATUS_*
    uint8_t* billable       # 1: a complete code, on its days or not
    int32_t* first          # CCYYMMDD of the spell that the status speaks of, 0: none
    int32_t* last           # likewise; 0: none or open


# Key of a code as people write it: upper-cased, without dots and blanks, up to 8 ASCII characters big-endian,
# so that numeric order is lexicographic order. 0: malformed.
cdef uint64_t key_of(const char* text, Py_ssize_t length) noexcept nogil
# The characters of a key into text (8 bytes, not terminated); returns how many.
cdef int text_of(uint64_t key, char* text) noexcept nogil
# The code as the book prints it into text (PRINTED bytes, not terminated); returns how many. dot: that of a CodeIndex.
cdef int print_key(uint64_t key, int dot, char* text) noexcept nogil
# Likewise the code of a node.
cdef int print_node(const CodeTable* table, int dot, int32_t node, char* text) noexcept nogil

# Days since 1970-01-01 of a date CCYYMMDD; INT32_MIN: no such day in the calendar.
cdef int32_t day_number_of(int32_t date) noexcept nogil
# For a real date only (day_number_of is not INT32_MIN).
cdef Day day_of(int32_t date) noexcept nogil

# The slot of a key, NULL: none.
cdef const Slot* find_slot(const CodeTable* table, uint64_t key) noexcept nogil
cdef Found find(const CodeTable* table, uint64_t key) noexcept nogil
# Ask memory for what find, status_of and look_up will read first.
cdef void fetch(const CodeTable* table, uint64_t key) noexcept nogil
# status_of and find at once.
cdef uint8_t look_up(const CodeTable* table, uint64_t key, Day day, Found* found) noexcept nogil
# Status of a key on a day; key 0 is STATUS_MALFORMED.
cdef uint8_t status_of(const CodeTable* table, uint64_t key, Day day) noexcept nogil
# The spell of a code of the history that its status on the day speaks of: the one that contains the day, else
# the last one that ended before it, else the first.
cdef Spell spell_on(const CodeTable* table, int32_t code, int32_t date) noexcept nogil
# True for a status that is said of complete codes only: VALID, NOT_YET, EXPIRED.
cdef bint is_complete(uint8_t status) noexcept nogil
# Status of n codes of itemsize bytes each, NUL-padded, one after the other.
cdef void status_packed(
    const CodeTable* table, const char* codes, Py_ssize_t n, Py_ssize_t itemsize, Day day, uint8_t* status
) noexcept nogil

# Tree, by node. -1 in, -1 or an empty range out.
cdef int32_t parent_of(const CodeTable* table, int32_t node) noexcept nogil
# The children of a node are first_child, next_sibling, …; -1 ends.
cdef int32_t first_child(const CodeTable* table, int32_t node) noexcept nogil
cdef int32_t next_sibling(const CodeTable* table, int32_t node) noexcept nogil
# Descendants are the nodes of this range, in the book's order; the node itself is not one.
cdef Range descendants_of(const CodeTable* table, int32_t node) noexcept nogil
# True if ancestor is above node or is node.
cdef bint subsumes(const CodeTable* table, int32_t ancestor, int32_t node) noexcept nogil
# Positions in key_node of all nodes whose key begins with that of prefix.
cdef Range prefix_range(const CodeTable* table, uint64_t prefix) noexcept nogil


cdef class CodeIndex:
    cdef CodeTable table
    cdef readonly str system
    cdef readonly str release
    cdef int kinds                  # of nodes
    cdef int dot                    # characters before the dot of a printed code, 0: none; DOT_LATER_AFTER_E
    cdef tuple statuses             # what status() returns, by number
    cdef type answer_type
    cdef dict arrays                # keeps the mappings alive
    cdef const uint64_t* rep_key    # [r], ascending
    cdef const int32_t* rep_date    # [r], CCYYMMDD
    cdef const uint64_t* rep_new    # [r]
    cdef Py_ssize_t replacements    # r
    cdef const uint32_t* node_title     # [n + 1], into title_text
    cdef const uint8_t* title_text      # UTF-8 if its compiler wrote it: unverified
    cdef const uint64_t* axis_key   # [a], ascending
    cdef Py_ssize_t axes            # a

    cdef int run(self, object codes, object date, Columns out) except -1
    cdef int check(self, int32_t node) except -1
    cdef str label(self, int32_t node)
    cdef object text(self, str offsets, str data, Py_ssize_t index)


cdef class Answer:
    cdef readonly CodeIndex index
    cdef readonly object code       # as given
    cdef readonly int date          # CCYYMMDD
    cdef uint64_t key               # 0: malformed
    cdef uint8_t number             # status

    cdef Spell spell(self)
    cdef CodeIndex owner(self)
