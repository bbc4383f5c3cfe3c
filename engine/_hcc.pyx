# cython: language_level=3
"""CMS risk scores: condition categories, hierarchies and every segment's score in one pass.

Sections named here are those of ``docs/hcc.md``. See the .pxd for the contract.
"""

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.mem cimport PyMem_Free, PyMem_Malloc, PyMem_Realloc
from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset, strlen

import numpy as np

from ._claims cimport ascii_of
from ._core cimport day_number_of, key_of

from . import compile_hcc as layout
from .errors import CodesetError, InvalidDateError, InvalidFieldError

cdef extern from *:
    """
    #define bit_count(x) __builtin_popcountll(x)
    """
    int bit_count(uint64_t x) noexcept nogil
    enum:
        INT32_MIN

# --- one member -----------------------------------------------------------------------------------------------------

cdef inline int32_t divided(int32_t value, int32_t by) noexcept nogil:
    """``value`` over ``by`` thousandths, to thousandths, a half to the even side (section 11)."""
    cdef int64_t numerator = <int64_t>value * 1000
    cdef int64_t quotient = numerator // by
    cdef int64_t rest = 2 * (numerator - quotient * by)
    if rest > by or (rest == by and quotient & 1):
        quotient += 1
    return <int32_t>quotient


cdef inline int32_t half_up(int64_t numerator, int64_t denominator) noexcept nogil:
    # Scores are sums of relative factors, which are not negative; a negative one still rounds away from zero.
    if 0 <= numerator < 1 << 30 and denominator < 1 << 30:
        # Nearly every score: a division of 32 bits takes a third of the time.
        return <int32_t>((2 * <uint32_t>numerator + <uint32_t>denominator) // (2 * <uint32_t>denominator))
    if numerator < 0:
        return <int32_t>(-((-2 * numerator + denominator) // (2 * denominator)))
    return <int32_t>((2 * numerator + denominator) // (2 * denominator))


def half_up_of(int64_t numerator, int64_t denominator):
    """Return the quotient of two whole numbers, the second positive, a half rounded up: as payment scores are."""
    return half_up(numerator, denominator)


cdef void score(
    const Tables* t, const Member* m, const Factors* factors,
    Result* result, int32_t* raw, int32_t* normalized, int32_t* payment,
) noexcept nogil:
    """Score one member: ``raw``, ``normalized`` and ``payment`` have one element an output, in thousandths."""
    cdef uint8_t age = effective_age(t, m)
    cdef uint64_t member_class = t.age_class[(m.mce_off * 2 + m.sex) * AGES + age]
    cdef uint64_t* ccs = result.ccs
    cdef uint64_t* hccs = result.hccs
    cdef uint64_t* variables = result.variables
    cdef int32_t sums[COLUMNS]
    cdef const int32_t* row
    cdef const uint64_t* words
    cdef const Slot* slot
    cdef const Rule* rule
    cdef const Person* person
    cdef const Pair* pair
    cdef uint64_t left
    cdef uint64_t kept
    cdef uint64_t before[CC_WORDS]
    cdef uint32_t i, w, k, bit, count = 0
    cdef int32_t value

    # Diagnoses to categories (section 4).
    memset(result, 0, sizeof(Result))
    for i in range(m.n_dx):
        slot = find_slot(t, m.dx[i])
        if slot.key == 0:
            continue
        for k in range(t.rule_start[slot.row], t.rule_start[slot.row + 1]):
            rule = t.rule + k
            if (rule.classes >> member_class) & 1:
                set_bit(ccs, rule.cc)

    # Categories to HCCs (section 5): what suppresses is the set before any was suppressed.
    for w in range(CC_WORDS):
        hccs[w] = ccs[w]
    for i in range(t.n_pre_rules):
        bit = t.pre_rule[i].cc
        kept = 0
        for w in range(CC_WORDS):
            kept |= t.pre_rule[i].unless[w] & ccs[w]
        if not kept:
            hccs[bit >> 6] &= ~((<uint64_t>1) << (bit & 63))
    for w in range(CC_WORDS):
        before[w] = hccs[w]
    for w in range(CC_WORDS):
        left = before[w]
        while left:
            words = t.secondary + (64 * w + lowest_bit(left)) * CC_WORDS
            left &= left - 1
            for k in range(CC_WORDS):
                hccs[k] &= ~words[k]

    # Variables: HCCs with their diagnosis categories, the member's own, the count, interactions (sections 3, 6, 7).
    for w in range(CC_WORDS):
        left = hccs[w]
        count += bit_count(left)
        while left:
            words = t.implies + (64 * w + lowest_bit(left)) * VARIABLE_WORDS
            left &= left - 1
            for k in range(VARIABLE_WORDS):
                variables[k] |= words[k]
    for i in range(t.person_start[m.sex * AGES + age], t.person_start[m.sex * AGES + age + 1]):
        person = t.person + i
        if (person.orec >> m.orec) & 1 and (m.flags & person.all) == person.all and not m.flags & person.none:
            set_bit(variables, person.variable)
    if t.count_variable[count] != NO_VARIABLE:
        set_bit(variables, t.count_variable[count])
    for i in range(t.n_interactions):
        pair = t.interaction + i
        if has_bit(variables, pair.a) and has_bit(variables, pair.b):
            set_bit(variables, pair.variable)

    # Scores (sections 8, 9, 11).
    memset(sums, 0, sizeof(sums))
    for w in range(VARIABLE_WORDS):
        left = variables[w]
        while left:
            row = t.coefficient + (64 * w + lowest_bit(left)) * COLUMNS
            left &= left - 1
            for k in range(COLUMNS):
                sums[k] += row[k]
    for i in range(t.n_outputs):
        raw[i] = sums[t.output[i].column] if t.output[i].column >= 0 else 0
    for i in range(t.addon_start[age], t.addon_start[age + 1]):
        if admits(t.addon + i, m):
            raw[t.addon[i].output] += t.addon[i].value
    for i in range(t.applicable_start[age], t.applicable_start[age + 1]):
        if admits(t.applicable + i, m):
            result.applicable |= (<uint64_t>1) << t.applicable[i].output
    for i in range(t.n_outputs):
        if t.output[i].divisor:
            raw[i] = divided(raw[i], t.output[i].divisor)
        if factors.normalization[i] == 0:
            normalized[i] = payment[i] = NO_SCORE
            continue
        value = half_up(<int64_t>raw[i] * 1000, factors.normalization[i])
        normalized[i] = value
        payment[i] = half_up(<int64_t>value * factors.kept[i], 1000)


cdef int age_in(int32_t born, int32_t year) noexcept nogil:
    if day_number_of(born) == INT32_MIN:
        return NO_DAY
    if born // 10000 > year:
        return AFTER_THE_YEAR
    return max(year - born // 10000 - (born % 10000 > 201), 0)


# --- which segment is the member's (section 10) -----------------------------------------------------------------------

cdef uint8_t dual_of(const char* code, Py_ssize_t length) noexcept nogil:
    if length == 0:
        return DUAL_UNKNOWN
    if length == 2 and code[0] == c'0':
        if code[1] == c'2' or code[1] == c'4' or code[1] == c'8':
            return DUAL_FULL
        if code[1] == c'1' or code[1] == c'3' or code[1] == c'5' or code[1] == c'6':
            return DUAL_PARTIAL
    return DUAL_NOT


cdef inline char* put(char* to, const char* text) noexcept nogil:
    cdef size_t length = strlen(text)
    memcpy(to, text, length)
    return to + length


cdef int segment_of(int kind, const Member* m, const Situation* s, char* text) noexcept nogil:
    cdef char* to = text
    cdef bint aged = m.age >= 65
    if kind == RXHCC:
        if s.institutional:
            to = put(to, b"NE_LTI" if s.new_enrollee else b"CE_LTI")
        elif s.low_income != LOW_INCOME_UNKNOWN:
            to = put(to, b"NE_" if s.new_enrollee else b"CE_")
            to = put(to, b"Low" if s.low_income else b"NonLow")
            to = put(to, b"_Community" if s.new_enrollee else b"_Aged" if aged else b"_NonAged")
    elif kind == ESRD or kind == ESRD_V21:
        to = put_esrd_segment(kind, m, s, to)
    elif s.new_enrollee:
        to = put(to, b"NE_SNP" if s.snp else b"NE")
    elif s.institutional:
        to = put(to, b"INSTITUTIONAL")
    elif s.dual != DUAL_UNKNOWN:
        to = put(to, b"COMMUNITY_")
        to = put(to, b"FB" if s.dual == DUAL_FULL else b"PB" if s.dual == DUAL_PARTIAL else b"N")
        # V24 takes 64 for 65 in everything.
        to = put(to, b"A" if aged or (kind == PART_C_V24 and m.age == 64 and m.orec == 0) else b"D")
    return <int>(to - text)


cdef char* put_esrd_segment(int kind, const Member* m, const Situation* s, char* to) noexcept nogil:
    cdef bint institutional = s.institutional or (m.flags >> LTI) & 1
    cdef const char* duration
    cdef const char* age
    cdef const char* dual
    if s.dialysis:
        return put(to, b"DIAL_NE" if s.new_enrollee else b"DIAL")
    if s.months < 1:
        return to
    if s.months <= 3:
        to = put(to, b"TRANSPLANT_KIDNEY_ONLY_")
        to[0] = <char>(c'0' + s.months)
        return put(to + 1, b"M")
    duration = b"DUR4_9" if s.months <= 9 else b"DUR10PL"
    age = b"GE65" if m.age >= 65 or (s.new_enrollee and m.age == 64 and m.orec == 0) else b"LT65"
    if kind == ESRD_V21:
        to = put(to, b"GRAFT_NE_" if s.new_enrollee else b"GRAFT_INST_" if institutional else b"GRAFT_COMM_")
        return put(put(put(to, duration), b"_"), age)
    dual = b"FBD" if (m.flags >> FBDUAL) & 1 else b"ND_PBD"
    if s.new_enrollee:
        to = put(put(put(to, b"GRAFT_NE_"), age), b"_")
        return put(put(put(to, duration), b"_"), dual)
    to = put(put(put(to, b"GRAFT_INST_" if institutional else b"G_COMM_"), dual), b"_")
    return put(put(put(to, age), b"_"), duration)


def kind_of(str model not None):
    """Return the number of what the segments of ``model`` are told by."""
    if model.startswith("RXHCC"):
        return RXHCC
    if model.startswith("ESRD"):
        return ESRD_V21 if model == "ESRD_V21" else ESRD
    return PART_C_V24 if model == "V24" else PART_C


def segment(
    int kind, int age, int orec, int flags, *, bint new_enrollee, bint snp, bint institutional, bint dialysis,
    str dual_status_code, low_income, int months,
):
    """Return the name of a member's segment, "" where it cannot be told. ``low_income``: None if not known;
    ``months`` since the kidney transplant, below 1: no graft.
    """
    cdef Member member
    cdef Situation situation
    cdef char[SEGMENT_ROOM] text
    cdef bytes code = dual_status_code.encode("utf-8", "replace")
    memset(&member, 0, sizeof(member))
    member.age, member.orec, member.flags = <uint8_t>age, <uint8_t>orec, <uint8_t>flags
    situation.new_enrollee, situation.snp = new_enrollee, snp
    situation.institutional, situation.dialysis = institutional, dialysis
    situation.dual = dual_of(code, len(code))
    situation.low_income = LOW_INCOME_UNKNOWN if low_income is None else bool(low_income)
    situation.months = months
    return text[:segment_of(kind, &member, &situation, text)].decode()


# --- tables of one model and year -----------------------------------------------------------------------------------

cdef class Scorer:
    """The verified tables of one model and payment year. Immutable; any number of threads may score from it.

    ``pack`` is an opened ``engine.pack.Pack`` of kind "hcc". Raises PackCorruptError if an index in it points outside
    its array.
    """

    def __cinit__(self, pack):
        self.pack = pack
        self.arrays = {}
        self._open()

    def __reduce__(self):
        raise TypeError("a Scorer holds mappings and cannot be pickled; open the library again in the other process")

    def _open(self):
        cdef Tables* t = &self.tables
        numbers = self._array("cc_number", "<u2", (None,))
        n = len(numbers)
        self._check("cc_number", 0 < n <= 64 * CC_WORDS)
        t.n_ccs = n
        rules = self._array("rule", layout.RULE, (None,))
        self._check("rule", rules["cc"] < n)
        t.rule = <const Rule*>self._pointer("rule")
        start = self._array("rule_start", "<u4", (None,))
        self._offsets("rule_start", start, len(rules))
        t.rule_start = <const uint32_t*>self._pointer("rule_start")
        slots = self._array("dx_slot", layout.SLOT, (None,))
        self._check("dx_slot", len(slots) >= 17)
        self._check("dx_slot", slots["key"][len(slots) - 1] == 0)
        self._check("dx_slot", (slots["row"] < len(start) - 1) | (slots["key"] == 0))
        t.shift = 64 - ((len(slots) - 1).bit_length() - 1)
        t.slot = <const Slot*>self._pointer("dx_slot")
        self._check("age_class", self._array("age_class", "u1", (2, 2, AGES)) < 64)
        t.age_class = <const uint8_t*>self._pointer("age_class")
        t.age_64_is_65 = bool(self._array("age_64_is_65", "u1", (1,))[0])
        self._array("secondary", "<u8", (n, CC_WORDS))
        t.secondary = <const uint64_t*>self._pointer("secondary")
        pre = self._array("pre_rule", layout.PRE_RULE, (None,))
        self._check("pre_rule", pre["cc"] < n)
        self._beyond("pre_rule", pre["unless"], n)
        t.pre_rule = <const PreRule*>self._pointer("pre_rule")
        t.n_pre_rules = len(pre)

        given = self._array("given", "<u2", (None,))
        n_variables = len(given)
        self._check("given", 0 < n_variables <= 64 * VARIABLE_WORDS)
        values = self._array("coefficient", "<i4", (n_variables, COLUMNS))
        # The sum of all variables then fits 32 bits, and so does everything made of it.
        self._check("coefficient", (values <= 1_000_000) & (values >= -1_000_000))
        t.coefficient = <const int32_t*>self._pointer("coefficient")
        implies = self._array("implies", "<u8", (n, VARIABLE_WORDS))
        self._beyond("implies", implies, n_variables)
        t.implies = <const uint64_t*>self._pointer("implies")
        pairs = self._array("interaction", layout.PAIR, (None,))
        for name in ("variable", "a", "b"):
            self._check("interaction", pairs[name] < n_variables)
        t.interaction = <const Pair*>self._pointer("interaction")
        t.n_interactions = len(pairs)
        counts = self._array("count_variable", "<u2", (64 * CC_WORDS + 1,))
        self._check("count_variable", (counts < n_variables) | (counts == NO_VARIABLE))
        t.count_variable = <const uint16_t*>self._pointer("count_variable")
        people = self._array("person", layout.PERSON, (None,))
        self._check("person", people["variable"] < n_variables)
        t.person = <const Person*>self._pointer("person")
        start = self._array("person_start", "<u4", (2 * AGES + 1,))
        self._offsets("person_start", start, len(people))
        t.person_start = <const uint32_t*>self._pointer("person_start")

        outputs = self._array("output", layout.OUTPUT, (None,))
        self._check("output", 0 < len(outputs) <= OUTPUTS)
        self._check("output", (outputs["column"] >= -1) & (outputs["column"] < COLUMNS))
        t.output = <const Output*>self._pointer("output")
        t.n_outputs = len(outputs)
        names = self._array("addon_name_start", "<u4", (None,))
        self._check("addon_name_start", len(names) > 0)
        for name in ("addon", "applicable"):
            addons = self._array(name, layout.ADDON, (None,))
            self._check(name, addons["output"] < len(outputs))
            self._check(name, (addons["value"] <= 1_000_000) & (addons["value"] >= -1_000_000))
            start = self._array(f"{name}_start", "<u4", (AGES + 1,))
            self._offsets(f"{name}_start", start, len(addons))
            # So many of the largest value still fit the sum of an output.
            self._check(f"{name}_start", np.diff(start) <= 1024)
        self._check("addon", self.arrays["addon"]["name"] < len(names) - 1)
        t.addon_start = <const uint32_t*>self._pointer("addon_start")
        t.addon = <const AddOn*>self._pointer("addon")
        t.applicable_start = <const uint32_t*>self._pointer("applicable_start")
        t.applicable = <const AddOn*>self._pointer("applicable")

    def _array(self, name, dtype, shape):
        array = self.pack.array(name, dtype, len(shape))
        if any(want is not None and got != want for got, want in zip(array.shape, shape, strict=True)):
            raise self.pack.corrupt(f"{name}.npy", f"its shape is {array.shape}, expected {shape}")
        self.arrays[name] = array
        return array

    def _check(self, name, condition):
        if not np.all(condition):
            raise self.pack.corrupt(f"{name}.npy", "it holds an index or a number out of range")

    def _offsets(self, name, offsets, end):
        self._check(name, len(offsets) > 0)
        self._check(name, np.diff(offsets.astype("i8")) >= 0)
        self._check(name, offsets[len(offsets) - 1] == end)

    def _beyond(self, name, words, n):
        """No bit from ``n`` on may be set."""
        if len(words):
            bits = np.unpackbits(np.ascontiguousarray(words).view("u1"), axis=-1, bitorder="little")
            self._check(name, bits[:, n:] == 0)

    cdef const void* _pointer(self, str name) except? NULL:
        cdef const unsigned char[::1] view
        array = self.arrays[name]
        if array.size == 0:
            # Never read: the counts say so.
            return NULL
        view = array.reshape(-1).view("u1")
        return &view[0]

    def rules(self, str code):
        """Return [(bit of the category, mask of classes)] that ``code`` has, [] if the model does not map it."""
        cdef Py_ssize_t length
        cdef const char* text = ascii_of(code, "diagnoses", &length)
        cdef uint64_t key = key_of(text, length) if text != NULL else 0
        cdef const Slot* slot = find_slot(&self.tables, key)
        if key == 0 or slot.key == 0:
            return []
        return [
            (self.tables.rule[k].cc, self.tables.rule[k].classes)
            for k in range(self.tables.rule_start[slot.row], self.tables.rule_start[slot.row + 1])
        ]

    def effective_age(self, int age, int orec):
        """Return the age the model scores with."""
        return 65 if self.tables.age_64_is_65 and age == 64 and orec == 0 else age

    def class_of(self, int age, int sex, int orec, bint mce_off):
        """Return the number of the class of members of ``age`` and ``sex`` (0 male, 1 female)."""
        if not (0 <= age < AGES and 0 <= sex <= 1 and 0 <= orec <= 3):
            raise ValueError((age, sex, orec))
        return self.tables.age_class[(mce_off * 2 + sex) * AGES + self.effective_age(age, orec)]


# --- members from Python --------------------------------------------------------------------------------------------

cdef struct MemberRow:
    uint32_t dx
    uint32_t n_dx
    int16_t scorer              # -1: the member has an error
    int16_t partner             # scorer of the other model of a blend, -1: none
    uint8_t age
    uint8_t sex
    uint8_t orec
    uint8_t mce_off
    uint8_t flags

OLDEST = LARGEST_AGE
SEXES = {1: 1, 2: 2, "SEX_MALE": 1, "SEX_FEMALE": 2, "MALE": 1, "FEMALE": 2}
RESULT_DTYPE = np.dtype(
    [("ccs", "<u8", (CC_WORDS,)), ("hccs", "<u8", (CC_WORDS,)), ("variables", "<u8", (VARIABLE_WORDS,)),
     ("applicable", "<u8")]
)
MEMBER_DTYPE = np.dtype(
    [("scorer", "<i2"), ("partner", "<i2"), ("age", "u1"), ("sex", "u1"), ("orec", "u1"), ("mce_off", "u1"),
     ("flags", "u1")]
)
NONE = NO_SCORE
assert RESULT_DTYPE.itemsize == sizeof(Result)

cdef tuple FIELDS = (
    "member_id", "model", "payment_year", "birth_date", "age", "sex", "orec", "skip_mce_edits", "diagnoses",
)
cdef tuple FLAG_NAMES = layout.FLAGS
assert FLAG_NAMES.index("fbdual") == FBDUAL and FLAG_NAMES.index("pbdual") == PBDUAL and FLAG_NAMES.index("lti") == LTI


@cython.final
cdef class MemberBatch:
    """Members, checked and laid out for scoring.

    ``members`` is a sequence of mappings or of objects with attributes of the same names; ``resolve(model,
    payment_year)`` returns the numbers of the scorer and of the other model's scorer where the year blends two (-1:
    none), or raises CodesetError. What is wrong with a member is kept in ``errors`` (by position) and keeps nothing
    else from being scored.
    """

    cdef MemberRow* rows
    cdef Py_ssize_t n
    cdef uint64_t* dx
    cdef Py_ssize_t n_dx, room
    cdef readonly dict errors
    cdef readonly object members
    cdef dict _resolved
    cdef object _resolve

    def __cinit__(self, members, resolve):
        cdef Py_ssize_t i, dx
        self.errors = {}
        self._resolved = {}
        self.members = members if isinstance(members, (list, tuple)) else list(members)
        self._resolve = resolve
        self.n = len(self.members)
        self.rows = <MemberRow*>PyMem_Malloc(max(self.n, 1) * sizeof(MemberRow))
        if self.rows == NULL:
            raise MemoryError
        memset(self.rows, 0, max(self.n, 1) * sizeof(MemberRow))
        self.room = 12 * self.n + 64
        self.dx = <uint64_t*>PyMem_Malloc(self.room * sizeof(uint64_t))
        if self.dx == NULL:
            raise MemoryError
        for i in range(self.n):
            dx = self.n_dx
            try:
                self.read(self.members[i], self.rows + i)
            except CodesetError as error:
                # Codes read before the error was met are forgotten.
                self.n_dx = dx
                memset(self.rows + i, 0, sizeof(MemberRow))
                self.rows[i].scorer = self.rows[i].partner = -1
                self.errors[i] = error

    def __dealloc__(self):
        PyMem_Free(self.rows)
        PyMem_Free(self.dx)

    def __reduce__(self):
        raise TypeError("a MemberBatch cannot be pickled; pickle the members")

    def __len__(self):
        return self.n

    def table(self):
        """Return what was read of each member, an array of MEMBER_DTYPE."""
        cdef Py_ssize_t i
        found = np.zeros(self.n, MEMBER_DTYPE)
        columns = [np.zeros(self.n, np.int16) for _ in range(7)]
        cdef int16_t[::1] scorer = columns[0], partner = columns[1], age = columns[2], sex = columns[3]
        cdef int16_t[::1] orec = columns[4], mce_off = columns[5], flags = columns[6]
        for i in range(self.n):
            scorer[i] = self.rows[i].scorer
            partner[i] = self.rows[i].partner
            age[i] = self.rows[i].age
            sex[i] = self.rows[i].sex
            orec[i] = self.rows[i].orec
            mce_off[i] = self.rows[i].mce_off
            flags[i] = self.rows[i].flags
        for name, column in zip(MEMBER_DTYPE.names, columns, strict=True):
            found[name] = column
        return found

    cdef int read(self, object member, MemberRow* row) except -1:
        cdef PyObject* field[9]
        cdef PyObject* flag[7]
        cdef object kept = None         # keeps attribute values alive while the borrowed pointers are used
        cdef object value
        cdef int i
        cdef int32_t year
        if isinstance(member, dict):
            for i in range(9):
                field[i] = PyDict_GetItem(member, FIELDS[i])
            for i in range(7):
                flag[i] = PyDict_GetItem(member, FLAG_NAMES[i])
        else:
            kept = values_of(member)
            for i in range(9):
                field[i] = <PyObject*>kept[i]
            for i in range(7):
                flag[i] = <PyObject*>kept[9 + i]
        value = item(field[0])
        if value is not None and not isinstance(value, str):
            raise wrong("member_id", "a string", value)
        value = item(field[2])
        if type(value) is not int or not 1 <= value <= 9999:
            raise wrong("payment_year", "a year like 2026", value)
        year = value
        self.resolve(item(field[1]), value, row)
        row.age = self.age_of(item(field[3]), item(field[4]), year)
        value = item(field[5])
        if isinstance(value, bool) or not isinstance(value, (int, str)) or value not in SEXES:
            raise wrong("sex", "SEX_MALE or SEX_FEMALE, or its number 1 or 2", value)
        row.sex = SEXES[value] - 1
        value = item(field[6])
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 3:
            raise wrong("orec", "the original reason for entitlement, 0 to 3", value)
        row.orec = value
        row.mce_off = truth(item(field[7]), "skip_mce_edits")
        row.flags = 0
        for i in range(7):
            if flag[i] != NULL and <object>flag[i] is not None:
                row.flags |= truth(<object>flag[i], FLAG_NAMES[i]) << i
        if (row.flags >> FBDUAL) & (row.flags >> PBDUAL) & 1:
            raise InvalidFieldError(
                "pbdual: fbdual and pbdual are both set; a member is a full or a partial benefit dual, not both",
                field="pbdual",
            )
        row.dx = <uint32_t>self.n_dx
        row.n_dx = <uint32_t>self.add(item(field[8]))
        return 0

    cdef int resolve(self, object model, object year, MemberRow* row) except -1:
        cdef PyObject* years
        cdef PyObject* found = NULL
        if type(model) is not str or not model:
            raise wrong("model", "a risk adjustment model like 'V28'", model)
        years = PyDict_GetItem(self._resolved, model)
        if years != NULL:
            found = PyDict_GetItem(<object>years, year)
        else:
            self._resolved[model] = {}
        if found != NULL:
            answer = <object>found
        else:
            try:
                answer = self._resolve(model, year)
            except CodesetError as error:
                answer = error
            self._resolved[model][year] = answer
        if isinstance(answer, CodesetError):
            # A fresh one each time: an exception carries the traceback of its last raise.
            raise type(answer)(*answer.args, field=answer.field)
        row.scorer = answer[0]
        row.partner = answer[1]
        return 0

    cdef int age_of(self, object born, object age, int32_t year) except -1:
        """Whole years on 1 February of the payment year (section 2)."""
        cdef int years
        if born is not None and (isinstance(born, bool) or not isinstance(born, int)):
            raise wrong("birth_date", "a day (CCYYMMDD)", born)
        if born:
            years = age_in(<int32_t>born, year) if 0 < born < 1 << 31 else NO_DAY
            if years == NO_DAY:
                raise InvalidDateError("birth_date: expected a day of the calendar (CCYYMMDD)", field="birth_date")
            if years == AFTER_THE_YEAR:
                raise InvalidDateError("birth_date: it lies after the payment year", field="birth_date")
            if years > LARGEST_AGE:
                raise InvalidDateError(f"birth_date: it makes the member older than {OLDEST}", field="birth_date")
            return years
        if age is None:
            raise InvalidFieldError(
                "birth_date: expected a day (CCYYMMDD), or the age on 1 February of the payment year, got neither",
                field="birth_date",
            )
        if isinstance(age, bool) or not isinstance(age, int) or not 0 <= age <= OLDEST:
            raise wrong("age", f"whole years, 0 to {OLDEST}", age)
        return age

    cdef Py_ssize_t add(self, object codes) except -1:
        """Append the keys of ``codes``; returns how many."""
        cdef Py_ssize_t i, length, count
        cdef const char* text
        cdef void* grown
        if codes is None:
            return 0
        if isinstance(codes, (str, bytes, dict)) or not hasattr(codes, "__len__"):
            raise wrong("diagnoses", "a list of code strings", codes)
        if not isinstance(codes, (list, tuple)):
            codes = list(codes)
        count = len(codes)
        if count > MAX_DIAGNOSES:
            raise InvalidFieldError(
                f"diagnoses: {count} codes of one member; at most 65,535 are accepted", field="diagnoses"
            )
        if self.n_dx + count > self.room:
            self.room = 2 * (self.n_dx + count)
            grown = PyMem_Realloc(self.dx, self.room * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError
            self.dx = <uint64_t*>grown
        for i in range(count):
            text = ascii_of(codes[i], "diagnoses", &length)
            self.dx[self.n_dx + i] = key_of(text, length) if text != NULL else 0
        self.n_dx += count
        return count


cdef inline object item(PyObject* value):
    return None if value == NULL else <object>value


cdef object wrong(str field, str expected, object got):
    found = "none" if got is None else f"something else, of type {type(got).__name__}"
    return InvalidFieldError(f"{field}: expected {expected}, got {found}", field=field)


cdef list values_of(object member):
    try:
        found = [getattr(member, name) for name in FIELDS]
        found += [getattr(member, name) for name in FLAG_NAMES]
    except AttributeError as error:
        raise InvalidFieldError(
            f"a member is a mapping or has the attributes of RiskMember; got {type(member).__name__} ({error})"
        ) from None
    return found


cdef int truth(object value, str field) except -1:
    if value is None or value is False:
        return 0
    if value is True:
        return 1
    if isinstance(value, int) and 0 <= value <= 1:
        return value
    raise wrong(field, "true or false", value)


# --- running a batch ------------------------------------------------------------------------------------------------

def run(MemberBatch batch, list scorers, factors, bint partners=False):
    """Score a batch; return (results, scores).

    ``factors``: int32 array [scorers][2][OUTPUTS] of normalization factors and what the coding adjustment leaves, in
    thousandths (0: no factor known). ``results`` is an array of RESULT_DTYPE, one element a member (all zero where it
    has an error). ``scores`` is an int32 array [3][members][outputs]: raw, normalized and payment scores in thousandths
    by output, as wide as the widest model asked for; NONE where there is no factor. With ``partners`` the
    other model of each member's blend is scored, and members without one are left zero. The GIL is released for the
    whole run.
    """
    cdef Py_ssize_t i, n = batch.n
    cdef Py_ssize_t width = 1
    cdef const Tables* tables[64]
    cdef Member member
    cdef MemberRow* row
    cdef int16_t which
    if len(scorers) > 64:
        raise ValueError("at most 64 models and years at once")
    cdef const int32_t[:, :, ::1] given = np.ascontiguousarray(factors, np.int32).reshape(-1, 2, OUTPUTS)
    if given.shape[0] != len(scorers):
        raise ValueError("expected factors of every scorer")
    # An empty view has no first element to take the address of.
    cdef const Factors* first = <const Factors*>&given[0, 0, 0] if len(scorers) else NULL
    for i in range(len(scorers)):
        tables[i] = &(<Scorer?>scorers[i]).tables
        width = max(width, <Py_ssize_t>tables[i].n_outputs)
    results = np.zeros(n, RESULT_DTYPE)
    scores = np.zeros((3, n, width), np.int32)
    if n == 0:
        return results, scores
    cdef unsigned char[::1] bytes_ = results.view("u1")
    cdef int32_t[:, :, ::1] score_view = scores
    cdef Result* result = <Result*>&bytes_[0]
    with nogil:
        for i in range(n):
            row = batch.rows + i
            which = row.partner if partners else row.scorer
            if which < 0:
                continue
            member.dx = batch.dx + row.dx
            member.n_dx = row.n_dx
            member.age = row.age
            member.sex = row.sex
            member.orec = row.orec
            member.mce_off = row.mce_off
            member.flags = row.flags
            score(
                tables[which], &member, first + which, result + i,
                &score_view[0, i, 0], &score_view[1, i, 0], &score_view[2, i, 0],
            )
    return results, scores
