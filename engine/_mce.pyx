"""The Medicare Code Editor: claims in, edits out, exactly as the CMS software answers.

Layers, from the bottom: ``edit`` (in the .pxd) edits one claim in plain C structs; ``Editor`` owns the verified
tables of one release; ``EditBatch`` checks Python claims and lays them out as structs; ``run`` edits a batch with
the GIL released. Everything a person reads (enumerations, result classes, the table of edits) is in ``engine.mce``.

What is found on a code is a set of edits, one bit each; counts and the order of CMS follow from the sets.
Section numbers in comments are those of ``docs/mce.md``, which describes the rules.
"""

cimport cython
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from libc.stdint cimport INT32_MIN
from libc.stdlib cimport free, malloc
from libc.string cimport memset

import datetime
import re

import numpy as np

from ._claims cimport EDITOR, ClaimFields, Layout, ascii_of, codes_of, number_of, one_of, read_together
from ._core cimport day_number_of
from ._proto cimport Buffer, grow

from . import compile_mce as layout
from .errors import InvalidFieldError


cdef uint64_t HASH = 0x9E3779B97F4A7C15
cdef uint64_t ONE = 1
cdef int EPOCH = datetime.date(1970, 1, 1).toordinal()

# The rules of non-covered pancreas transplants changed on the first, those of an unknown sex on the second (4.2, 4.8).
cdef uint16_t PANCREAS_DAY = datetime.date(2006, 4, 26).toordinal() - EPOCH
cdef uint16_t UNKNOWN_SEX_DAY = datetime.date(2024, 10, 1).toordinal() - EPOCH

cdef uint64_t POSTPAYMENT = (
    ONE << EDIT_NONSPECIFIC_PDX | ONE << EDIT_MEDICARE_IS_SECONDARY_PAYER | ONE << EDIT_NONSPECIFIC_OR
    | ONE << EDIT_OPEN_BIOPSY | ONE << EDIT_BILATERAL
)
cdef uint64_t WITHOUT_TYPE = ONE << EDIT_INVALID_ADMIT_DX
cdef uint64_t AGE_FLAGS = ONE << PEDIATRIC | ONE << NEWBORN | ONE << MATERNITY | ONE << ADULT
cdef uint64_t LIMITED_FLAGS = (
    ONE << LCOV_LVRS | ONE << LCOV_LUNGXP | ONE << LCOV_HEARTLUNGXP | ONE << LCOV_HEARTXP | ONE << LCOV_HEARTSYS
    | ONE << LCOV_INTXP | ONE << LCOV_LIVERXP | ONE << LCOV_KIDNEYXP | ONE << LCOV_PANCREASXP
    | ONE << LCOV_ARTHEARTXP
)

# By flag, in the order in which they are tried.
cdef uint8_t[10] LIMITED_EDIT = [
    EDIT_LIMITED_COVERAGE_LVRS, EDIT_LIMITED_COVERAGE_LUNG, EDIT_LIMITED_COVERAGE_HEART_LUNG,
    EDIT_LIMITED_COVERAGE_HEART, EDIT_LIMITED_COVERAGE_HEART_IMPLANT, EDIT_LIMITED_COVERAGE_INTESTINE,
    EDIT_LIMITED_COVERAGE_LIVER, EDIT_LIMITED_COVERAGE_KIDNEY, EDIT_LIMITED_COVERAGE_PANCREAS,
    EDIT_LIMITED_COVERAGE_ARTIFICIAL_HEART,
]
# By row of compile_mce.AGE_GROUPS.
cdef uint8_t[4] AGE_CONFLICT = [
    AGE_CONFLICT_PEDIATRIC, AGE_CONFLICT_NEWBORN, AGE_CONFLICT_MATERNITY, AGE_CONFLICT_ADULT
]


# --- rules --------------------------------------------------------------------------------------------------

cdef inline bint has(uint64_t flags, int flag) noexcept nogil:
    return (flags >> flag) & 1


cdef inline bint is_valid(
    const Tables* t, const Master* master, const Code* code, uint16_t day, uint64_t* flags
) noexcept nogil:
    """True if a row of the code is in force on the day: its flags are the code's. Without one it has none (4.3)."""
    cdef const Slot* slot
    flags[0] = 0
    if code.key:
        slot = master.slot + ((code.key * HASH) >> master.shift)
        while slot.key:
            if slot.key == code.key and slot.first <= day <= slot.last:
                flags[0] = t.flag_set[slot.flags]
                return True
            slot += 1
    return False


cdef inline uint64_t age_conflict(const Tables* t, const Claim* claim, uint64_t flags) noexcept nogil:
    """AGE_CONFLICT with its type if the age is outside the range of a group the diagnosis belongs to (4.4)."""
    cdef int group
    cdef Py_ssize_t i
    cdef const AgeRange* ages
    if not flags & AGE_FLAGS:
        return 0
    for group in range(4):
        if not has(flags, PEDIATRIC + group):
            continue
        for i in range(t.n_age_ranges):
            ages = t.age_range + i
            if ages.group == group and ages.first <= claim.day <= ages.last:
                if not ages.first_age <= claim.age <= ages.last_age:
                    return ONE << EDIT_AGE_CONFLICT | <uint64_t>AGE_CONFLICT[group] << AGE_CONFLICT_SHIFT
                break
    return 0


cdef inline uint64_t sex_conflict(const Claim* claim, uint64_t flags) noexcept nogil:
    if claim.sex == SEX_UNKNOWN and claim.day >= UNKNOWN_SEX_DAY:
        return 0
    if (has(flags, MALE) and claim.sex != SEX_MALE) or (has(flags, FEMALE) and claim.sex != SEX_FEMALE):
        return ONE << EDIT_SEX_CONFLICT
    return 0


cdef inline bint is_discharge_status(const Tables* t, const Claim* claim) noexcept nogil:
    cdef uint32_t i
    if not claim.given & GIVEN_DISCHARGE_STATUS or not 0 <= claim.discharge_status < 256:
        return False
    for i in range(t.status_start[claim.discharge_status], t.status_start[claim.discharge_status + 1]):
        if t.status_row[i].first <= claim.day <= t.status_row[i].last:
            return True
    return False


cdef inline uint8_t missing_field(const Claim* claim) noexcept nogil:
    """The field without which CMS fails on the claim, length of stay aside (9)."""
    if not claim.given & GIVEN_AGE and (claim.n_dx or claim.given & GIVEN_ADMIT):
        return MISSING_AGE
    if claim.sex == SEX_MISSING and (claim.n_dx or claim.n_px or claim.given & GIVEN_ADMIT):
        return MISSING_SEX
    if not claim.given & GIVEN_DISCHARGE_STATUS and claim.n_dx:
        return MISSING_DISCHARGE_STATUS
    return MISSING_NOTHING


cdef inline uint64_t principal_edits(const Tables* t, const Claim* claim, uint64_t flags) noexcept nogil:
    """Edits of the principal diagnosis (4.4)."""
    cdef uint64_t edits = 0
    if has(flags, ECODEPDX):
        edits |= ONE << EDIT_E_CODE_AS_PDX
    if has(flags, MANIF):
        edits |= ONE << EDIT_MANIFESTATION_AS_PDX
    if has(flags, UNACCEPTABLE):
        if not has(flags, REQSDX):
            edits |= ONE << EDIT_UNACCEPTABLE_PDX
        elif claim.n_dx == 1:
            edits |= ONE << EDIT_REQUIRES_SDX
    if has(flags, NONSPECIFIC) and claim.discharge_status != 20:
        edits |= ONE << EDIT_NONSPECIFIC_PDX
    if has(flags, QADM):
        edits |= ONE << EDIT_QUESTIONABLE_ADMISSION
    return edits


cdef inline uint64_t diagnosis_edits(const Tables* t, const Claim* claim, uint64_t flags) noexcept nogil:
    """Edits of any diagnosis but the admitting one (4.4, 4.6)."""
    cdef uint64_t edits
    if not flags:
        return 0
    edits = age_conflict(t, claim, flags) | sex_conflict(claim, flags)
    if has(flags, WRNGPROC):
        edits |= ONE << EDIT_WRONG_PROCEDURE
    if has(flags, MSP):
        edits |= ONE << EDIT_MEDICARE_IS_SECONDARY_PAYER
    if has(flags, UNSPECIFIED):
        edits |= ONE << EDIT_UNSPECIFIED
    return edits


cdef struct Facts:              # what the procedures' rules ask about the whole claim (4.7)
    uint64_t pdx                # flags of the principal diagnosis
    uint64_t dx                 # of all diagnoses
    uint64_t sdx                # of the secondary ones
    uint64_t px                 # of all procedures
    bint bilateral              # two different bilateral procedures and an MDC 8 principal diagnosis
    bint specific               # an operating-room procedure that is not non-specific


cdef inline bint outside_age(const Claim* claim, int limit) noexcept nogil:
    return not claim.given & GIVEN_AGE or claim.age < 0 or claim.age >= limit


cdef inline bint non_covered(const Claim* claim, const Facts* f, uint64_t flags) noexcept nogil:
    if has(flags, NCOV_A):
        return True
    if has(flags, NCOV_B_PXP):
        if claim.day < PANCREAS_DAY:
            if not (has(f.dx, NCOV4) and has(f.dx, NCOV5)):
                return True
        elif not has(f.px, NCOV_B_KXP) and not has(f.dx, NCOV_B):
            return True
    if (has(flags, COV_Z006A) or has(flags, COV_Z006B)) and (
        has(f.px, COV_Z006A) and has(f.px, COV_Z006B) and not has(f.dx, CLINTRIAL)
    ):
        return True
    if (
        (has(flags, NCOV_D) and has(f.dx, NCOV_D))
        or (has(flags, NCOV_E) and has(f.dx, NCOV_E))
        or (has(flags, NCOV_G) and has(f.dx, NCOV_G))
    ):
        return True
    if has(flags, NCOV_F) and outside_age(claim, 61):
        return True
    if has(flags, NCOV2) and not has(f.dx, NCOV2):
        if has(f.dx, NCOV2AGELT64):
            if outside_age(claim, 64):
                return True
        elif has(f.dx, NCOV2AGELT78):
            if outside_age(claim, 78):
                return True
        else:
            return True
    return (
        (has(flags, NCOV3) and not has(f.dx, NCOV3))
        or (has(flags, NCOV8) and not (has(f.sdx, NCOV89) and has(f.px, NCOV9)))
        or (has(flags, NCOV13A) and not has(f.px, NCOV13B))
        or (has(flags, LCOV_ARTHEARTXP) and not has(f.dx, CLINTRIAL))
    )


cdef inline uint64_t limited_coverage(const Facts* f, uint64_t flags) noexcept nogil:
    cdef int i
    if has(flags, LCOV) or (
        (has(flags, COV_Z006A) or has(flags, COV_Z006B))
        and has(f.px, COV_Z006A) and has(f.px, COV_Z006B) and has(f.dx, CLINTRIAL)
    ):
        return ONE << EDIT_LIMITED_COVERAGE
    if flags & LIMITED_FLAGS:
        for i in range(10):
            if has(flags, LCOV_LVRS + i):
                return ONE << LIMITED_EDIT[i]
    return 0


cdef inline uint64_t procedure_edits(
    const Claim* claim, const Facts* f, uint64_t flags, uint64_t suppressed
) noexcept nogil:
    """Edits of a procedure (4.8), those not to be raised left out."""
    cdef uint64_t edits
    if not flags:
        return 0
    edits = sex_conflict(claim, flags)
    if has(flags, NONSPECIFIC) and not f.specific:
        edits |= ONE << EDIT_NONSPECIFIC_OR
    if has(flags, BIOPSY):
        edits |= ONE << EDIT_OPEN_BIOPSY
    if has(flags, LOS) and claim.length_of_stay < (4 if claim.icd9 else 5):
        edits |= ONE << EDIT_INCONSISTENT_LENGTH_OF_STAY
    # A suppressed edit is not attached, so that limited coverage appears in its place (6).
    if not has(suppressed, EDIT_NON_COVERED) and non_covered(claim, f, flags):
        edits |= ONE << EDIT_NON_COVERED
    else:
        edits |= limited_coverage(f, flags)
    if (has(flags, CSECT) or has(flags, VAGDEL)) and not has(f.sdx, DELOUT):
        edits |= ONE << EDIT_QUESTIONABLE_OBSTETRIC
    edits &= ~suppressed
    if has(flags, BILATERAL) and f.bilateral:
        edits |= ONE << EDIT_BILATERAL
    return edits


# --- the whole claim (section 4) ----------------------------------------------------------------------------

cdef void edit(
    const Tables* t, const Claim* claim, const Suppressed* suppressed, uint64_t* flags,
    Result* result, uint64_t* dx, uint64_t* px,
) noexcept nogil:
    """Edit one claim. ``flags`` is room for ``n_px`` numbers; ``dx`` and ``px`` receive a set of edits a code."""
    cdef uint32_t i
    cdef uint64_t own, edits, counted = 0
    cdef const Master* dx_master = t.dx + claim.icd9
    cdef const Master* px_master = t.px + claim.icd9
    cdef const Code* joint = NULL
    cdef Facts f
    cdef bint valid
    memset(result, 0, sizeof(Result))
    if not t.first_day <= claim.day <= t.last_day:
        result.edit_type = EDIT_TYPE_INVALID_DISCHARGE_DATE
        nothing_found(claim, dx, px)
        return
    result.missing = missing_field(claim)
    if result.missing:
        nothing_found(claim, dx, px)
        return

    # Claim fields (4.2).
    if not claim.given & GIVEN_AGE or not 0 <= claim.age <= 124:
        counted |= ONE << EDIT_INVALID_AGE
    if claim.sex == SEX_MISSING or (claim.sex == SEX_UNKNOWN and claim.day < UNKNOWN_SEX_DAY):
        counted |= ONE << EDIT_INVALID_SEX
    if not is_discharge_status(t, claim):
        counted |= ONE << EDIT_INVALID_DISCHARGE_STATUS

    if claim.given & GIVEN_ADMIT:
        edits = 0
        if not is_valid(t, dx_master, &claim.admit, claim.day, &own) and not claim.admit.silent:
            edits = (ONE << EDIT_INVALID_ADMIT_DX) & ~suppressed.sdx
            counted |= edits
        # Conflicts of the admitting diagnosis are attached, not counted, not suppressed (4.5).
        result.admit = edits | age_conflict(t, claim, own) | sex_conflict(claim, own)

    memset(&f, 0, sizeof(f))
    for i in range(claim.n_dx):
        valid = is_valid(t, dx_master, claim.dx + i, claim.day, &own)
        edits = diagnosis_edits(t, claim, own)
        if i == 0:
            f.pdx = own
            edits |= principal_edits(t, claim, own)
            # Blanks and zeros are let pass elsewhere, but not as principal diagnosis (4.2).
            if not valid:
                edits |= ONE << EDIT_INVALID_CODE
            edits &= ~suppressed.pdx
        else:
            f.sdx |= own
            if not valid and not claim.dx[i].silent:
                edits |= ONE << EDIT_INVALID_CODE
            if claim.dx[i].text == claim.dx[0].text:
                edits |= ONE << EDIT_DUPLICATE_OF_PDX
            edits &= ~suppressed.sdx
        counted |= edits
        dx[i] = edits
    f.dx = f.pdx | f.sdx

    for i in range(claim.n_px):
        valid = is_valid(t, px_master, claim.px + i, claim.day, &own) or claim.px[i].silent
        flags[i] = own
        f.px |= own
        px[i] = 0 if valid else (ONE << EDIT_INVALID_CODE) & ~suppressed.px
        if has(own, OR_INDC) and not has(own, NONSPECIFIC):
            f.specific = True
        if has(own, BILATERAL):
            if joint == NULL:
                joint = claim.px + i
            elif joint.text != claim.px[i].text and has(f.pdx, MDC08):
                f.bilateral = True
    if has(f.px, LOS) and not claim.given & GIVEN_LENGTH_OF_STAY:
        memset(result, 0, sizeof(Result))
        result.missing = MISSING_LENGTH_OF_STAY
        nothing_found(claim, dx, px)
        return
    for i in range(claim.n_px):
        px[i] |= procedure_edits(claim, &f, flags[i], suppressed.px)
        counted |= px[i]

    counted &= (ONE << AGE_CONFLICT_SHIFT) - 1
    result.edits = counted
    counted &= ~WITHOUT_TYPE
    if not counted:
        result.edit_type = EDIT_TYPE_NONE
    elif not counted & POSTPAYMENT:
        result.edit_type = EDIT_TYPE_PREPAYMENT
    elif not counted & ~POSTPAYMENT:
        result.edit_type = EDIT_TYPE_POSTPAYMENT
    else:
        result.edit_type = EDIT_TYPE_BOTH


cdef inline void nothing_found(const Claim* claim, uint64_t* dx, uint64_t* px) noexcept nogil:
    memset(dx, 0, claim.n_dx * sizeof(uint64_t))
    memset(px, 0, claim.n_px * sizeof(uint64_t))


# --- tables of one release ----------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class Editor:
    """The verified tables of one release. Immutable; any number of threads may edit from it.

    ``pack`` is an opened ``engine.pack.Pack`` of kind "mce". Raises PackCorruptError if an index in it points
    outside its array.
    """

    def __cinit__(self, pack):
        cdef Tables* t = &self.tables
        self.pack = pack
        self.release = pack.manifest.release
        self._arrays = {}
        flag_set = self._array("flag_set", "<u8", (None,))
        self._check("flag_set", len(flag_set) > 0)
        t.flag_set = <const uint64_t*>self._pointer("flag_set")
        for i in range(2):
            edition = ("i10", "i9")[i]
            self._master(f"{edition}_dx_slot", len(flag_set), &t.dx[i])
            self._master(f"{edition}_px_slot", len(flag_set), &t.px[i])
        limits = self._array("limits", "<u2", (3,))
        t.first_day, t.last_day, self.version = map(int, limits)
        # Day 0 stands for "no date".
        self._check("limits", 0 < t.first_day <= t.last_day)
        ages = self._array("age_range", layout.AGE_RANGE, (None,))
        self._check("age_range", ages["group"] < len(layout.AGE_GROUPS))
        self._check("age_range", not layout.uncovered_group(ages, t.first_day, t.last_day))
        t.age_range = <const AgeRange*>self._pointer("age_range")
        t.n_age_ranges = len(ages)
        statuses = self._array("status_row", layout.STATUS_ROW, (None,))
        start = self._array("status_start", "<u4", (257,))
        self._check("status_start", np.diff(start.astype("i8")) >= 0)
        self._check("status_start", (start[0] == 0) & (start[256] == len(statuses)))
        t.status_row = <const StatusRow*>self._pointer("status_row")
        t.status_start = <const uint32_t*>self._pointer("status_start")

    def _array(self, name, dtype, shape):
        array = self.pack.array(name, dtype, len(shape))
        if any(want is not None and got != want for got, want in zip(array.shape, shape, strict=True)):
            raise self.pack.corrupt(f"{name}.npy", f"its shape is {array.shape}, expected {shape}")
        self._arrays[name] = array
        return array

    def _check(self, name, condition):
        if not np.all(condition):
            raise self.pack.corrupt(f"{name}.npy", "it holds an index or a number out of range")

    cdef int _master(self, str name, Py_ssize_t sets, Master* master) except -1:
        """Check an open-addressing table and derive its hash shift; the last slot must be empty so that every
        probe ends."""
        slots = self._array(name, layout.SLOT, (None,))
        self._check(name, len(slots) >= 17)
        bits = (len(slots) - 1).bit_length() - 1
        self._check(name, slots["key"][len(slots) - 1] == 0)
        self._check(name, slots["flags"] < sets)
        master.slot = <const Slot*>self._pointer(name)
        master.shift = 64 - bits
        return 0

    cdef const void* _pointer(self, str name) except? NULL:
        cdef const unsigned char[::1] view
        array = self._arrays[name]
        if array.size == 0:
            # Never read: the counts say so.
            return NULL
        view = array.reshape(-1).view("u1")
        return &view[0]


# --- claims from Python -------------------------------------------------------------------------------------

cdef struct ClaimRow:
    Claim claim                 # its pointers are set when it is edited
    uint32_t dx                 # first of its diagnoses
    uint32_t px
    uint8_t failed              # the claim has an error


SEXES = {
    None: SEX_MISSING, 0: SEX_MISSING, 1: SEX_MALE, 2: SEX_FEMALE, 3: SEX_UNKNOWN,
    "SEX_UNSPECIFIED": SEX_MISSING, "SEX_MALE": SEX_MALE, "SEX_FEMALE": SEX_FEMALE, "SEX_UNKNOWN": SEX_UNKNOWN,
    "MALE": SEX_MALE, "FEMALE": SEX_FEMALE, "UNKNOWN": SEX_UNKNOWN,
}
MISSING = ("", "age", "sex", "discharge_status", "length_of_stay")

# What the date parser of CMS accepts beside eight digits: a sign and a longer year.
_DATE = re.compile(r"\+?([0-9]{4,19})([0-9]{2})([0-9]{2})")
_BLANK = "".join(map(chr, range(33)))


def day_of(date):
    """Return a discharge date (int CCYYMMDD, text as CMS reads it, or ``datetime.date``) as days since 1970-01-01.

    0 for what is no date between 1970 and 2149. A day beyond the end of its month is moved back to the last one, as
    CMS does (4.1). Raises InvalidFieldError for anything of another type.
    """
    if date is None:
        return 0
    if isinstance(date, datetime.date):
        year, month, day = date.year, date.month, date.day
    elif isinstance(date, int) and not isinstance(date, bool):
        return day_of_number(date) if 10000000 <= date <= 99999999 else 0
    elif isinstance(date, str):
        found = _DATE.fullmatch(date.strip(_BLANK))
        if found is None or (found[0][0] == "+") != (len(found[1]) > 4):
            return 0
        year, month, day = map(int, found.groups())
    else:
        raise InvalidFieldError(
            f"discharge_date: expected a day as CCYYMMDD, got {type(date).__name__}", field="discharge_date"
        )
    return day_of_number(year * 10000 + month * 100 + day) if year <= 2149 else 0


cdef uint16_t day_of_number(int32_t date) noexcept nogil:
    cdef int32_t number
    if not (1970 <= date // 10000 <= 2149 and 1 <= date % 100 <= 31):
        return 0
    number = day_number_of(date)
    while number < 0 and date % 100 > 28:
        date -= 1
        number = day_number_of(date)
    return <uint16_t>number if 0 <= number < 65536 else 0


cdef bint read_code(const char* text, Py_ssize_t length, Code* code) noexcept nogil:
    """Read a code of ASCII characters; false if its text does not fit in a number."""
    cdef uint64_t key = 0, packed = 0
    cdef Py_ssize_t i
    cdef int n = 0
    cdef uint8_t character
    cdef bint possible = True, blank = True, zeros = True
    for i in range(length):
        character = <uint8_t>text[i]
        if character == c".":
            blank = False
            continue
        if n == 8 or character == 0:
            return False
        n += 1
        packed = packed << 8 | character
        if character <= 32:
            possible = zeros = False
            continue
        blank = False
        if character != c"0":
            zeros = False
        if c"a" <= character <= c"z":
            character -= 32
        key = key << 8 | character
    if n:
        code.key = key << (8 * (8 - n)) if possible else 0
        code.text = packed << (8 * (8 - n))
    else:
        code.key = code.text = 0
    code.silent = blank or (zeros and n)
    return True


@cython.final
@cython.auto_pickle(False)
cdef class EditBatch(Layout):
    """Claims, checked and laid out for editing.

    ``claims`` is a sequence of mappings or of objects with attributes of the same names. What is wrong with a
    claim is kept in ``errors`` (by position) and keeps nothing else from being edited. ``beside``: a batch of another
    reader, of the same claims and not read yet, that is to be read with this one.
    """

    cdef uint32_t most_px
    cdef dict _days
    cdef dict _texts

    def __cinit__(self, claims, Layout beside=None):
        self._days = {}
        self._texts = {}
        self.begin(EDITOR, claims, sizeof(ClaimRow), sizeof(Code), sizeof(Code))
        if beside is None:
            self.read()
        else:
            read_together(self, beside)

    cdef inline ClaimRow* row(self, Py_ssize_t i) noexcept nogil:
        return <ClaimRow*>self.rows.at + i

    cdef void fail(self, Py_ssize_t i) noexcept:
        self.begin_row(i).failed = True

    cdef ClaimRow* begin_row(self, Py_ssize_t i) noexcept:
        cdef ClaimRow* row = self.row(i)
        row.dx = <uint32_t>(self.dx.size // <Py_ssize_t>sizeof(Code))
        row.px = <uint32_t>(self.px.size // <Py_ssize_t>sizeof(Code))
        return row

    cdef int lay_out(self, Py_ssize_t i, ClaimFields fields) except -1:
        cdef Claim* row = &self.begin_row(i).claim
        row.day = self.day(fields.discharge_date)
        row.sex = one_of(SEXES, fields.sex, "sex")
        if fields.age is not None:
            row.age = whole(fields.age, "age", "years")
            row.given |= GIVEN_AGE
        if fields.discharge_status is not None:
            row.discharge_status = whole(
                fields.discharge_status, "discharge_status", "the patient discharge status code"
            )
            row.given |= GIVEN_DISCHARGE_STATUS
        if fields.length_of_stay is not None:
            row.length_of_stay = whole(fields.length_of_stay, "length_of_stay", "days")
            row.given |= GIVEN_LENGTH_OF_STAY
        # Every other number selects ICD-10, as it does in the reference.
        row.icd9 = whole(fields.icd_version, "icd_version", "9 or 10") == 9
        if fields.admit_diagnosis is not None and fields.admit_diagnosis != "":
            self.code(fields.admit_diagnosis, "admit_diagnosis", &row.admit)
            row.given |= GIVEN_ADMIT
        row.n_dx = self.add(fields.diagnoses, "diagnoses", &self.dx)
        row.n_px = self.add(fields.procedures, "procedures", &self.px)
        self.most_px = max(self.most_px, row.n_px)
        return 0

    cdef uint16_t day(self, object date) except? 65535:
        cdef PyObject* found = NULL
        if type(date) is int or type(date) is str:
            found = PyDict_GetItem(self._days, date)
            if found == NULL:
                number = self._days[date] = day_of(date)
                return number
            return <object>found
        return day_of(date)

    cdef uint32_t add(self, object codes, str field, Buffer* into) except? 0xFFFFFFFF:
        """Append the codes; returns how many."""
        cdef list items = codes_of(codes, field)
        cdef Py_ssize_t i, count = len(items)
        cdef Code* code
        if not grow(into, count * sizeof(Code)):
            raise MemoryError
        code = <Code*>(into.at + into.size)
        for i in range(count):
            self.code(items[i], field, code + i)
        into.size += count * sizeof(Code)
        return <uint32_t>count

    cdef int code(self, object value, str field, Code* code) except -1:
        cdef Py_ssize_t length
        cdef const char* text
        text = ascii_of(value, field, &length)
        if text != NULL and read_code(text, length, code):
            return 0
        self.long_code(value, code)
        return 0

    cdef int long_code(self, str value, Code* code) except -1:
        """Read a code that is longer than any in the tables, or has characters beyond ASCII."""
        cdef Py_ssize_t length
        cdef str plain = value.replace(".", "")
        cdef str upper = plain.upper()
        cdef Code same
        code.key = 0
        # Upper case can be ASCII where the text is not: a dotless i, a long s.
        if upper.isascii() and not plain.isascii():
            if read_code(ascii_of(upper, "", &length), length, &same):
                code.key = same.key
        # Texts that do fit in a number have its top bit clear.
        code.text = <uint64_t>self._texts.setdefault(plain, len(self._texts)) | ONE << 63
        code.silent = not value.strip(_BLANK) or (bool(plain) and not plain.strip("0"))
        return 0


cdef inline int32_t whole(object value, str field, str what) except? -1:
    return <int32_t>number_of(value, field, what, INT32_MIN)


# --- running a batch ----------------------------------------------------------------------------------------

RESULT_DTYPE = np.dtype(
    {
        "names": ["edits", "admit_edits", "edit_type", "missing"],
        "formats": ["<u8", "<u8", "u1", "u1"],
        "itemsize": sizeof(Result),
    }
)

assert layout.SLOT.itemsize == sizeof(Slot)
assert layout.AGE_RANGE.itemsize == sizeof(AgeRange)
assert layout.STATUS_ROW.itemsize == sizeof(StatusRow)
assert len(layout.FLAGS) == LCOV_ARTHEARTXP + 1


def run(EditBatch batch, Editor editor, uint64_t pdx=0, uint64_t sdx=0, uint64_t px=0):
    """Edit a batch; return (results, diagnoses, procedures, starts).

    ``pdx``, ``sdx``, ``px``: sets of edits not to be raised on the principal diagnosis, on secondary and admitting
    ones, on procedures. ``results``: array of RESULT_DTYPE, one element a claim, all zero where the batch has an
    error. ``diagnoses`` and ``procedures``: arrays of u8, a set of edits a code, all claims' codes one after the
    other; those of claim i begin at ``starts[0, i]`` and ``starts[1, i]``. The GIL is released for the whole run.
    """
    cdef Py_ssize_t i, n = batch.n
    cdef Suppressed suppressed
    cdef ClaimRow* row
    cdef const Tables* t = &editor.tables
    results = np.zeros(n, RESULT_DTYPE)
    cdef Py_ssize_t n_dx = batch.dx.size // <Py_ssize_t>sizeof(Code), n_px = batch.px.size // <Py_ssize_t>sizeof(Code)
    diagnoses = np.zeros(n_dx, "<u8")
    procedures = np.zeros(n_px, "<u8")
    starts = np.zeros((2, n + 1), np.uint32)
    cdef unsigned char[::1] result_bytes = results.view("u1") if n else np.zeros(1, "u1")
    cdef uint64_t[::1] dx_sets = diagnoses if len(diagnoses) else np.zeros(1, "<u8")
    cdef uint64_t[::1] px_sets = procedures if len(procedures) else np.zeros(1, "<u8")
    cdef uint32_t[:, ::1] start = starts
    cdef Result* result = <Result*>&result_bytes[0]
    cdef uint64_t* flags = <uint64_t*>malloc((batch.most_px + 1) * sizeof(uint64_t))
    if flags == NULL:
        raise MemoryError
    suppressed.pdx = pdx
    suppressed.sdx = sdx
    suppressed.px = px
    with nogil:
        for i in range(n):
            row = batch.row(i)
            start[0, i] = row.dx
            start[1, i] = row.px
            if row.failed:
                continue
            row.claim.dx = <const Code*>batch.dx.at + row.dx
            row.claim.px = <const Code*>batch.px.at + row.px
            edit(t, &row.claim, &suppressed, flags, result + i, &dx_sets[0] + row.dx, &px_sets[0] + row.px)
    free(flags)
    start[0, n] = <uint32_t>n_dx
    start[1, n] = <uint32_t>n_px
    return results, diagnoses, procedures, starts
