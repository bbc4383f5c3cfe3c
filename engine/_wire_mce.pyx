"""Requests to the Medicare Code Editor answered from their bytes; with the DRGs of the claims where they are asked for.

Claims are read and grouped as ``engine._wire`` does it. The editor takes more of a claim than the grouper, and minds
other things: what keeps a claim from being grouped need not keep it from being edited, nor the other way round. A claim
is *plain* to the editor unless its sex is no number of the enumeration, it has too many codes, or one of them does not
fit in a number (longer than any code, or not ASCII). Those go to the path that reads messages, alone.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from . cimport _mce, _wire
from ._mce cimport Claim, Code, Editor, Result, Suppressed, day_of_number, edit, read_code
from ._proto cimport (
    FIELD,
    LENGTH,
    VARINT,
    Buffer,
    Reader,
    Text,
    add_message,
    begin_message,
    end_message,
    grow,
    put_bytes,
    put_int,
    put_string,
    put_varint,
    read_string,
    read_tag,
    read_text,
    read_varint,
    reader_of,
    size_of_string,
    skip,
    tag,
)
from ._wire cimport (
    EncodedVersion,
    InpatientRequest,
    WireClaim,
    leave_small,
    leave_spare,
    results_of,
    take_small,
    take_spare,
)

from .mce import MceEdit

cdef extern from *:
    """
    #define lowest_bit(x) __builtin_ctzll(x)
    """
    int lowest_bit(uint64_t x) noexcept nogil

cdef enum:
    MAX_EDITS = 64          # in a set, and so on a code
    MISSING = 5             # MISSING_* of the editor

cdef uint64_t ONE = 1

cdef uint64_t EDITS = 0
for _edit in MceEdit:
    EDITS |= ONE << (<int>_edit - 1)

# By the number on the wire.
cdef uint8_t[4] SEX = [_mce.SEX_MISSING, _mce.SEX_MALE, _mce.SEX_FEMALE, _mce.SEX_UNKNOWN]


# --- requests -----------------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class EditRequest(InpatientRequest):
    """The claims and options of a BatchEditClaimsRequest, read from its bytes. Those of an EditClaimRequest are the
    same where there is one claim.

    ``grouped``: whether DRGs are asked for. ``odd``: whether something is not to be raised that is no edit, so that the
    reader of messages has to say what is wrong.

    Raises ValueError if ``raw`` is no such message; the GIL is released meanwhile.
    """

    cdef Buffer dx_code         # Code, of each diagnosis
    cdef Buffer px_code
    cdef Text named             # the release
    cdef Suppressed unwanted
    cdef readonly bint grouped
    cdef readonly bint odd

    def __cinit__(self):
        self.dx_code = take_small()
        self.px_code = take_small()

    def __dealloc__(self):
        leave_small(self.dx_code)
        leave_small(self.px_code)

    @property
    def release(self):
        """Release of the editor that is asked for, empty for the newest."""
        return (<char*>self.named.at)[:self.named.size].decode() if self.named.size else ""

    @property
    def suppressed(self):
        """Sets of edits, bit ``edit - 1`` for each, not to be raised on the principal diagnosis, on secondary and
        admitting ones, on procedures."""
        return self.unwanted.pdx, self.unwanted.sdx, self.unwanted.px

    cdef int read(self, Text whole) noexcept nogil:
        cdef Reader r = reader_of(whole)
        cdef uint32_t field
        cdef uint64_t number
        cdef Text text
        cdef int found
        while r.at < r.end:
            if not read_tag(&r, &field):
                return 0
            if field == 1 << 3 | LENGTH:
                if not read_text(&r, &text):
                    return 0
                found = self.read_claim(text)
                if found != 1:
                    return found
                if not self.read_codes():
                    return -1
            elif field == 2 << 3 | LENGTH:
                if not read_string(&r, &self.named):
                    return 0
            elif field == 3 << 3 | LENGTH:
                if not read_text(&r, &text) or not self.read_unwanted(text):
                    return 0
            elif field == 4 << 3 | VARINT:
                if not read_varint(&r, &number):
                    return 0
                self.grouped = number != 0
            elif field == 5 << 3 | LENGTH:
                if not read_text(&r, &text) or not self.read_options(text):
                    return 0
            elif not skip(&r, field, 0):
                return 0
        return 1

    cdef bint read_unwanted(self, Text message) noexcept nogil:
        """Lists of edits, each number by itself or many packed into one field, as it comes."""
        cdef Reader r = reader_of(message)
        cdef Reader packed
        cdef Text text
        cdef uint64_t number
        cdef uint64_t* edits
        cdef uint32_t field
        while r.at < r.end:
            if not read_tag(&r, &field):
                return False
            if field >> 3 == 1:
                edits = &self.unwanted.pdx
            elif field >> 3 == 2:
                edits = &self.unwanted.sdx
            else:
                edits = &self.unwanted.px
            if field >> 3 <= 3 and field & 7 == LENGTH:
                if not read_text(&r, &text):
                    return False
                packed = reader_of(text)
                while packed.at < packed.end:
                    if not read_varint(&packed, &number):
                        return False
                    self.add_unwanted(edits, number)
            elif field >> 3 <= 3 and field & 7 == VARINT:
                if not read_varint(&r, &number):
                    return False
                self.add_unwanted(edits, number)
            elif not skip(&r, field, 1):
                return False
        return True

    cdef inline void add_unwanted(self, uint64_t* edits, uint64_t found) noexcept nogil:
        # An enumeration has 32 bits; higher ones are dropped, as the protobuf runtime does.
        cdef int32_t number = <int32_t>found
        if 1 <= number <= MAX_EDITS and EDITS >> (number - 1) & 1:
            edits[0] |= ONE << (number - 1)
        else:
            self.odd = True

    cdef bint read_codes(self) noexcept nogil:
        """Read the codes of the last claim; False if there is no memory."""
        cdef WireClaim* claim = <WireClaim*>(self.claims.at + self.claims.size) - 1
        cdef Code admit
        if not add_codes(&self.dx_code, <const Text*>self.dx_text.at + claim.dx, claim.n_dx, &claim.plain_to_edit):
            return False
        if not add_codes(&self.px_code, <const Text*>self.px_text.at + claim.px, claim.n_px, &claim.plain_to_edit):
            return False
        if not code_of(claim.admit, &admit):
            claim.plain_to_edit = 0
        return True

    def answer(
        self, EncodedEditor editor not None, other=None, versions=None, unsigned int options=0, other_groups=None
    ):
        """Return (response, failed, groups): the response's bytes, how many claims lack what the editor needs, and,
        where ``versions`` are given, what ``DrgRequest.answer`` returns beside its response, else None.

        ``other``: called with a list, the bytes of every claim that is not plain to the editor, if there are any;
        returns the list of their EditResults as bytes. None: there is no such claim, or ValueError is raised.
        ``versions``, ``options`` and ``other_groups`` are the arguments of ``DrgRequest.answer``.
        """
        cdef Py_ssize_t n = len(self), failed = 0, i
        cdef WireClaim* claims = <WireClaim*>self.claims.at
        cdef Text* made = NULL
        cdef list others = []
        cdef bint done = False
        cdef Buffer out
        editor.check()
        out = take_spare()
        try:
            made = <Text*>PyMem_Malloc((n + 1) * sizeof(Text))
            if made == NULL:
                raise MemoryError
            for i in range(n):
                made[i].at = NULL
                made[i].size = 0
                if not claims[i].plain_to_edit:
                    others.append((<char*>claims[i].whole.at)[:claims[i].whole.size])
                    made[i].size = -1
            if others:
                if other is None:
                    raise ValueError("a claim is not plain")
                # Kept until they are copied.
                others = results_of(other, others, made, n)
            if self.brief:
                done = self.edit_all(editor, claims, n, made, &out, &failed)
            else:
                with nogil:
                    done = self.edit_all(editor, claims, n, made, &out, &failed)
            if not done:
                raise MemoryError
            groups = None
            if versions is not None:
                groups = self.group_into(&out, 2, versions, options, other_groups)
            return PyBytes_FromStringAndSize(<char*>out.at, out.size), failed, groups
        finally:
            PyMem_Free(made)
            leave_spare(out)

    cdef bint edit_all(
        self, EncodedEditor editor, const WireClaim* claims, Py_ssize_t n, const Text* made, Buffer* out,
        Py_ssize_t* failed
    ) noexcept nogil:
        """Edit all claims and write their results; False if there is no memory."""
        cdef uint64_t* sets = <uint64_t*>malloc((<Py_ssize_t>self.most_dx + 2 * self.most_px + 1) * sizeof(uint64_t))
        cdef uint64_t* dx = sets
        cdef uint64_t* px = sets + self.most_dx
        cdef uint64_t* flags = px + self.most_px
        cdef const WireClaim* wire
        cdef Claim claim
        cdef Result result
        cdef Py_ssize_t i
        # A guess of what is needed; more is found when it is.
        cdef bint done = sets != NULL and grow(out, n * 256 + 64)
        for i in range(n):
            if not done:
                break
            if made[i].at != NULL:
                done = add_message(out, 1, made[i])
                continue
            wire = claims + i
            memset(&claim, 0, sizeof(claim))
            claim.dx = <const Code*>self.dx_code.at + wire.dx
            claim.px = <const Code*>self.px_code.at + wire.px
            claim.n_dx = wire.n_dx
            claim.n_px = wire.n_px
            claim.age = wire.age
            claim.length_of_stay = wire.length_of_stay
            claim.discharge_status = wire.status
            claim.day = day_of_number(wire.date)
            claim.sex = SEX[wire.sex]
            if wire.given & _wire.GIVEN_AGE:
                claim.given |= _mce.GIVEN_AGE
            if wire.given & _wire.GIVEN_DISCHARGE_STATUS:
                claim.given |= _mce.GIVEN_DISCHARGE_STATUS
            if wire.given & _wire.GIVEN_LENGTH_OF_STAY:
                claim.given |= _mce.GIVEN_LENGTH_OF_STAY
            if wire.admit.size:
                claim.given |= _mce.GIVEN_ADMIT
                code_of(wire.admit, &claim.admit)
            # Every other number selects ICD-10, as it does in the reference.
            claim.icd9 = wire.edition == 9
            edit(&editor.core.tables, &claim, &self.unwanted, flags, &result, dx, px)
            if result.missing:
                failed[0] += 1
            done = put_result(
                out, &editor.words, wire, <const Text*>self.dx_text.at + wire.dx,
                <const Text*>self.px_text.at + wire.px, &result, dx, px,
            )
        free(sets)
        return done


def answer_edit(bytes raw not None, tuple known not None, flags):
    """Answer an EditClaimRequest: return (response, releases). None if there is not exactly one claim (a batch of one
    has the same bytes), it is not plain or lacks what the editor needs, an edit that is not to be raised is none, or it
    cannot be grouped.

    ``known``: by release, empty for the newest, the EncodedEditor and its name; and what is ``known`` to
    ``_wire.answer_drg``, whose ``flags`` are the same. What they raise is passed on. Raises ValueError if ``raw`` is no
    such message.
    """
    cdef EditRequest request = EditRequest.__new__(EditRequest)
    cdef const WireClaim* claim
    cdef EncodedEditor editor
    cdef EncodedVersion version
    cdef Text made
    cdef Py_ssize_t failed = 0
    cdef bint done
    cdef Buffer out
    request.begin(raw)
    claim = <const WireClaim*>request.claims.at
    if request.odd or len(request) != 1 or not claim.plain_to_edit:
        return None
    editors, versions = known
    editor, releases = editors[request.release]
    editor.check()
    made.at = NULL
    made.size = 0
    out = take_spare()
    try:
        if request.brief:
            done = request.edit_all(editor, claim, 1, &made, &out, &failed)
        else:
            with nogil:
                done = request.edit_all(editor, claim, 1, &made, &out, &failed)
        if not done:
            raise MemoryError
        if failed:
            return None
        if request.grouped:
            version = request.group_one(&out, 2, versions, flags)
            if version is None:
                return None
            releases = f"{releases},{version.release}"
        return PyBytes_FromStringAndSize(<char*>out.at, out.size), releases
    finally:
        leave_spare(out)


cdef inline bint code_of(Text text, Code* code) noexcept nogil:
    """Read a code; False if it does not fit in a number."""
    cdef uint8_t all = 0
    cdef Py_ssize_t i
    for i in range(text.size):
        all |= text.at[i]
    return all < 0x80 and read_code(<const char*>text.at, text.size, code)


cdef inline bint add_codes(Buffer* codes, const Text* text, uint32_t count, uint8_t* plain) noexcept nogil:
    """Read the codes; False if there is no memory. One that does not fit in a number makes ``plain`` 0."""
    cdef Code* code
    cdef uint32_t i
    if not grow(codes, count * sizeof(Code)):
        return False
    code = <Code*>(codes.at + codes.size)
    for i in range(count):
        if not code_of(text[i], code + i):
            plain[0] = 0
    codes.size += count * sizeof(Code)
    return True


# --- results ------------------------------------------------------------------------------------------------

cdef struct Order:              # in which edits are written
    int count
    uint8_t[MAX_EDITS] edit

cdef struct Words:              # an EncodedEditor
    Text release                # "43.1"
    Order principal
    Order secondary
    Order admitting
    Order procedures
    uint64_t once               # edits that are counted once a claim
    Text[MISSING] missing       # by MISSING_*: the error field of an EditResult, encoded


cdef int put_order(Order* order, numbers) except -1:
    numbers = list(numbers)
    if len(numbers) > MAX_EDITS or any(not 1 <= number <= MAX_EDITS for number in numbers):
        raise ValueError("expected edits by their numbers, from 1 to 64")
    order.count = len(numbers)
    for i, number in enumerate(numbers):
        order.edit[<int>i] = number
    return 0


@cython.final
@cython.auto_pickle(False)
cdef class EncodedEditor:
    """What the answers of one release of the editor say beside what is found, encoded once.

    ``principal``, ``secondary``, ``admitting``, ``procedures``: the edits of a code by their numbers, in the order in
    which they are written. ``once``: set of the edits that are counted once a claim. ``missing``: the ``error`` of an
    EditResult, encoded as a field, by the number of the field that a claim lacks (``engine._mce.MISSING``).
    """

    cdef Words words
    cdef readonly Editor core
    cdef list _kept

    cdef int check(self) except -1:
        if self._kept is None:
            raise TypeError("an editor is made by its constructor")
        return 0

    def __init__(
        self, Editor core not None, *, principal, secondary, admitting, procedures, uint64_t once, list missing
    ):
        cdef Words* w = &self.words
        cdef Py_ssize_t i
        cdef bytes text
        if self._kept is not None:
            raise TypeError("an editor is encoded once")
        put_order(&w.principal, principal)
        put_order(&w.secondary, secondary)
        put_order(&w.admitting, admitting)
        put_order(&w.procedures, procedures)
        w.once = once
        if len(missing) != MISSING:
            raise ValueError(f"expected {MISSING} errors, got {len(missing)}")
        kept = [core.release.encode(), *missing]
        for i in range(1 + MISSING):
            text = <bytes?>kept[i]
            words = &w.release if i == 0 else &w.missing[i - 1]
            words.at = <const uint8_t*>PyBytes_AS_STRING(text)
            words.size = PyBytes_GET_SIZE(text)
        self.core = core
        self._kept = kept


cdef inline int ordered(const Order* order, uint64_t edits, uint8_t* numbers) noexcept nogil:
    """Numbers of the edits in a set, in order; returns how many."""
    cdef int i, n = 0
    edits &= (ONE << _mce.AGE_CONFLICT_SHIFT) - 1
    if edits:
        for i in range(order.count):
            if (edits >> (order.edit[i] - 1)) & 1:
                numbers[n] = order.edit[i]
                n += 1
    return n


cdef inline uint8_t* put_numbers(uint8_t* to, uint32_t field, const uint8_t* numbers, Py_ssize_t count) noexcept nogil:
    """Packed numbers of one byte each, nothing where there are none."""
    if count:
        to = put_varint(to, tag(field, LENGTH))
        to = put_varint(to, count)
        to = put_bytes(to, numbers, count)
    return to


cdef inline uint8_t* put_code(
    uint8_t* to, uint32_t field, Text code, const Order* order, uint64_t edits
) noexcept nogil:
    cdef uint8_t[MAX_EDITS] numbers
    cdef int count = ordered(order, edits, numbers)
    to = put_varint(to, tag(field, LENGTH))
    to = put_varint(to, size_of_string(code) + (2 + count if count else 0))
    to = put_string(to, 1 << 3 | LENGTH, code)
    return put_numbers(to, 2, numbers, count)


cdef inline uint8_t* put_counts(
    uint8_t* to, const Words* words, uint64_t edits, const uint64_t* dx, uint32_t n_dx, const uint64_t* px,
    uint32_t n_px
) noexcept nogil:
    """Each edit of the set and how often it is on a code, in the order of CMS, which is that of the numbers."""
    cdef uint8_t[2 * FIELD] numbers
    cdef uint8_t* end
    cdef uint32_t i, count
    cdef int bit
    while edits:
        bit = lowest_bit(edits)
        edits &= edits - 1
        count = 0
        if (words.once >> bit) & 1:
            count = 1
        else:
            for i in range(n_dx):
                count += (dx[i] >> bit) & 1
            for i in range(n_px):
                count += (px[i] >> bit) & 1
        end = put_int(numbers, 1 << 3, bit + 1)
        end = put_int(end, 2 << 3, count)
        to = put_varint(to, tag(4, LENGTH))
        to = put_varint(to, end - numbers)
        to = put_bytes(to, numbers, end - numbers)
    return to


cdef bint put_result(
    Buffer* out, const Words* words, const WireClaim* claim, const Text* dx_code, const Text* px_code,
    const Result* result, const uint64_t* dx, const uint64_t* px
) noexcept nogil:
    """Append one result; False if there is no memory."""
    cdef uint8_t[MAX_EDITS] numbers
    cdef Py_ssize_t i
    # Never less than what is written below.
    cdef Py_ssize_t most = (
        8 * FIELD + claim.claim_id.size + words.release.size + words.missing[result.missing].size
        + MAX_EDITS * (FIELD + 1)
        + (<Py_ssize_t>claim.n_dx + claim.n_px) * (3 * FIELD + MAX_EDITS + 1)
    )
    cdef uint8_t* start
    cdef uint8_t* to
    for i in range(claim.n_dx):
        most += dx_code[i].size
    for i in range(claim.n_px):
        most += px_code[i].size
    if not grow(out, most):
        return False
    start = begin_message(out)
    to = put_string(start, 1 << 3 | LENGTH, claim.claim_id)
    to = put_string(to, 2 << 3 | LENGTH, words.release)
    if result.missing:
        to = put_bytes(to, words.missing[result.missing].at, words.missing[result.missing].size)
    else:
        to = put_int(to, 3 << 3, result.edit_type)
        to = put_counts(to, words, result.edits, dx, claim.n_dx, px, claim.n_px)
        to = put_numbers(to, 5, numbers, ordered(&words.admitting, result.admit, numbers))
        # Numbers of conflicts are one above those of CMS.
        to = put_int(to, 6 << 3, (result.admit >> _mce.AGE_CONFLICT_SHIFT) + 1)
        for i in range(claim.n_dx):
            to = put_code(to, 7, dx_code[i], &words.secondary if i else &words.principal, dx[i])
        if claim.n_dx:
            to = put_varint(to, tag(8, LENGTH))
            to = put_varint(to, claim.n_dx)
            for i in range(claim.n_dx):
                to[i] = <uint8_t>((dx[i] >> _mce.AGE_CONFLICT_SHIFT) + 1)
            to += claim.n_dx
        for i in range(claim.n_px):
            to = put_code(to, 9, px_code[i], &words.procedures, px[i])
    end_message(out, 1, start, to)
    return True
