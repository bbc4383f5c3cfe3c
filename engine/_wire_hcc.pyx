"""Risk scores answered from the bytes of a request: protobuf in, protobuf out, and no Python object a member.

The contract is that of ``_wire.pyx``: a member that anything is wrong with is not *plain* and is handed back as bytes
(``other``); what is no protobuf at all is refused, exactly where the protobuf runtime refuses it. Options are checked
to be protobuf and handed on as they are: they are read once a request, by the generated classes.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from . cimport _hcc
from ._core cimport key_of
from ._hcc cimport (
    CC_WORDS,
    COLUMNS,
    OUTPUTS,
    VARIABLE_WORDS,
    AddOn,
    Factors,
    Member,
    Result,
    Scorer,
    Situation,
    Slot,
    Tables,
    has_bit,
    lowest_bit,
    set_bit,
)
from ._proto cimport (
    FIELD,
    FIXED64,
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
    put_double,
    put_string,
    put_varint,
    read_int32,
    read_string,
    read_tag,
    read_text,
    read_varint,
    reader_of,
    size_of_string,
    size_of_varint,
    skip,
    tag,
)
from ._wire cimport (
    Choice,
    Request,
    Span,
    add_code,
    choose,
    leave_small,
    leave_spare,
    results_of,
    spans_of,
    take_small,
    take_spare,
)

from . import compile_hcc as layout

cdef enum:
    # Numbers of the fields of RiskMember that are read as a set of bits.
    FIRST_FLAG = 8          # compile_hcc.FLAGS, in their order
    LAST_FLAG = 14
    SKIP_MCE_EDITS = 15
    NEW_ENROLLEE = 17
    SNP = 18
    INSTITUTIONAL = 19
    LOW_INCOME = 21
    DIALYSIS = 22

    NUMBER = 8              # bytes of a category in EncodedScorer.number

assert layout.FLAGS == ("ltimcaid", "nemcaid", "mcaid", "fbdual", "pbdual", "lti", "esrd")


# --- requests -------------------------------------------------------------------------------------------------------

cdef struct WireMember:
    Text whole                  # the member's message; its last piece where one member came in several
    Text member_id
    Py_ssize_t dx               # position of its first diagnosis
    uint32_t n_dx
    uint32_t choice
    uint8_t age
    uint8_t sex
    uint8_t orec
    uint8_t mce_off
    uint8_t flags
    uint8_t plain               # 0: something about it is not as it should be; the reader of messages says what
    Situation situation


cdef struct Fields:             # of a member as they are on the wire
    Text model
    Text dual
    int32_t year
    int32_t born
    int32_t age
    int32_t sex
    int32_t orec
    int32_t months
    uint32_t bits               # by number of the field
    bint has_age
    bint has_orec
    bint has_low_income


@cython.final
@cython.auto_pickle(False)
cdef class HccRequest(Request):
    """The members and options of a BatchScoreHccRequest, or of a ScoreHccRequest (``single``)."""

    cdef Buffer members         # WireMember
    cdef Buffer dx              # Text
    cdef Buffer option          # Text, the pieces of the options
    cdef uint32_t most_dx
    cdef bint single

    def __init__(self, bytes raw not None, bint single=False):
        self.single = single
        self.begin(raw)

    def __cinit__(self, *_, **__):
        self.members = take_small()
        self.dx = take_small()
        self.option = take_small()

    def __dealloc__(self):
        leave_small(self.members)
        leave_small(self.dx)
        leave_small(self.option)

    def __len__(self):
        """Number of members."""
        return self.members.size // <Py_ssize_t>sizeof(WireMember)

    @property
    def options(self):
        """The HccOptions as bytes: those of its pieces, which are one message."""
        cdef Text* piece = <Text*>self.option.at
        cdef Py_ssize_t i, n = self.option.size // <Py_ssize_t>sizeof(Text)
        return b"".join([(<char*>piece[i].at)[:piece[i].size] for i in range(n)]) if n else b""

    cdef int read(self, Text whole) noexcept nogil:
        """1: read; 0: not protobuf; -1: no memory."""
        cdef Reader r = reader_of(whole)
        cdef uint32_t field
        cdef Text text
        cdef Fields fields
        cdef WireMember* member = NULL
        cdef int found
        while r.at < r.end:
            if not read_tag(&r, &field):
                return 0
            if field == 1 << 3 | LENGTH:
                if not read_text(&r, &text):
                    return 0
                # A single member that comes in several pieces is one.
                if member == NULL or not self.single:
                    if not grow(&self.members, sizeof(WireMember)):
                        return -1
                    member = <WireMember*>(self.members.at + self.members.size)
                    self.members.size += sizeof(WireMember)
                    memset(member, 0, sizeof(WireMember))
                    memset(&fields, 0, sizeof(fields))
                    member.member_id.at = fields.model.at = fields.dual.at = text.at
                    member.dx = self.dx.size // <Py_ssize_t>sizeof(Text)
                member.whole = text
                found = self.read_member(text, member, &fields)
                if found == 1 and not self.single and not self.take(member, &fields):
                    found = -1
                if found != 1:
                    return found
            elif field == 2 << 3 | LENGTH:
                if not read_text(&r, &text) or not is_options(text):
                    return 0
                if not add_code(&self.option, text):
                    return -1
            elif not skip(&r, field, 0):
                return 0
        if self.single and member != NULL and not self.take(member, &fields):
            return -1
        return 1

    cdef int read_member(self, Text message, WireMember* member, Fields* fields) noexcept nogil:
        cdef Reader r = reader_of(message)
        cdef uint32_t field, number
        cdef uint64_t value
        cdef Text text
        while r.at < r.end:
            if not read_tag(&r, &field):
                return 0
            if field == 16 << 3 | LENGTH:
                if not read_string(&r, &text):
                    return 0
                if not add_code(&self.dx, text):
                    return -1
                member.n_dx += 1
                continue
            number = field >> 3
            if field & 7 == VARINT and FIRST_FLAG <= number <= DIALYSIS and number != 16 and number != 20:
                if not read_varint(&r, &value):
                    return 0
                fields.bits &= ~(<uint32_t>1 << number)
                fields.bits |= <uint32_t>(value != 0) << number
                if number == LOW_INCOME:
                    fields.has_low_income = True
            elif field == 1 << 3 | LENGTH:
                if not read_string(&r, &member.member_id):
                    return 0
            elif field == 2 << 3 | LENGTH:
                if not read_string(&r, &fields.model):
                    return 0
            elif field == 3 << 3 | VARINT:
                if not read_int32(&r, &fields.year):
                    return 0
            elif field == 4 << 3 | VARINT:
                if not read_int32(&r, &fields.born):
                    return 0
            elif field == 5 << 3 | VARINT:
                if not read_int32(&r, &fields.age):
                    return 0
                fields.has_age = True
            elif field == 6 << 3 | VARINT:
                if not read_int32(&r, &fields.sex):
                    return 0
            elif field == 7 << 3 | VARINT:
                if not read_int32(&r, &fields.orec):
                    return 0
                fields.has_orec = True
            elif field == 20 << 3 | LENGTH:
                if not read_string(&r, &fields.dual):
                    return 0
            elif field == 23 << 3 | VARINT:
                if not read_int32(&r, &fields.months):
                    return 0
            elif not skip(&r, field, 1):
                return 0
        return 1

    cdef bint take(self, WireMember* member, const Fields* fields) noexcept nogil:
        """Make of its fields what the scorer takes, if the member is plain; False if there is no memory."""
        cdef int age
        cdef uint32_t bits = fields.bits
        if fields.model.size == 0 or not 1 <= fields.year <= 9999:
            return True
        if fields.born:
            age = _hcc.age_in(fields.born, fields.year)
        else:
            age = fields.age if fields.has_age else -1
        if not (0 <= age <= _hcc.LARGEST_AGE and 1 <= fields.sex <= 2 and fields.has_orec and 0 <= fields.orec <= 3):
            return True
        member.flags = <uint8_t>(bits >> FIRST_FLAG & (1 << (LAST_FLAG - FIRST_FLAG + 1)) - 1)
        if (member.flags >> _hcc.FBDUAL) & (member.flags >> _hcc.PBDUAL) & 1 or member.n_dx > _hcc.MAX_DIAGNOSES:
            return True
        member.age = <uint8_t>age
        member.sex = <uint8_t>(fields.sex - 1)
        member.orec = <uint8_t>fields.orec
        member.mce_off = bits >> SKIP_MCE_EDITS & 1
        member.situation.new_enrollee = bits >> NEW_ENROLLEE & 1
        member.situation.snp = bits >> SNP & 1
        member.situation.institutional = bits >> INSTITUTIONAL & 1
        member.situation.dialysis = bits >> DIALYSIS & 1
        member.situation.dual = _hcc.dual_of(<const char*>fields.dual.at, fields.dual.size)
        member.situation.low_income = (
            bits >> LOW_INCOME & 1 if fields.has_low_income else <uint32_t>_hcc.LOW_INCOME_UNKNOWN
        )
        member.situation.months = fields.months
        member.plain = 1
        self.most_dx = max(self.most_dx, member.n_dx)
        return choose(&self.choice, self.recent, fields.model, fields.year, &member.choice)

    @property
    def choices(self):
        """What members name their tables with: (risk adjustment model, payment year)."""
        cdef Choice* choice = <Choice*>self.choice.at
        cdef Py_ssize_t i
        return [
            ((<char*>choice[i].name.at)[:choice[i].name.size].decode(), choice[i].number)
            for i in range(self.choice.size // <Py_ssize_t>sizeof(Choice))
        ]

    def answer(self, choices, bint full, other):
        """Return (response, answered): the response's bytes and the set of choices that answered.

        ``choices``: the HccChoice of each of ``choices``, None where there is none. ``full``: every detail.
        ``other``: called with a list, the bytes of every member that is not plain, if there are any; returns the list
        of their HccResults as bytes.
        """
        cdef Py_ssize_t n = len(self), n_choices = self.choice.size // <Py_ssize_t>sizeof(Choice)
        cdef WireMember* members = <WireMember*>self.members.at
        cdef HccChoice choice
        cdef const Way** ways = <const Way**>PyMem_Malloc((n_choices + 1) * sizeof(Way*))
        cdef Text* made = NULL
        cdef uint8_t* used = NULL
        cdef Py_ssize_t i
        cdef list others = []
        cdef Buffer out = take_spare()
        cdef bint done = False
        try:
            made = <Text*>PyMem_Malloc((n + 1) * sizeof(Text))
            used = <uint8_t*>PyMem_Malloc(n_choices + 1)
            if ways == NULL or made == NULL or used == NULL:
                raise MemoryError
            memset(used, 0, n_choices + 1)
            if len(choices) != n_choices:
                raise ValueError(f"expected {n_choices} choices, got {len(choices)}")
            for i in range(n_choices):
                ways[i] = NULL
                if choices[i] is not None:
                    choice = <HccChoice?>choices[i]
                    choice.check()
                    ways[i] = &choice.way
            for i in range(n):
                made[i].at = NULL
                made[i].size = 0
                if not members[i].plain or ways[members[i].choice] == NULL:
                    others.append((<char*>members[i].whole.at)[:members[i].whole.size])
                    made[i].size = -1
            if others:
                # Kept until they are copied.
                others = results_of(other, others, made, n)
            if self.brief:
                done = self.score(members, n, ways, made, used, full, &out)
            else:
                with nogil:
                    done = self.score(members, n, ways, made, used, full, &out)
            if not done:
                raise MemoryError
            return PyBytes_FromStringAndSize(<char*>out.at, out.size), {choices[i] for i in range(n_choices) if used[i]}
        finally:
            PyMem_Free(ways)
            PyMem_Free(made)
            PyMem_Free(used)
            leave_spare(out)

    cdef bint score(
        self, const WireMember* members, Py_ssize_t n, const Way** ways, const Text* made, uint8_t* used, bint full,
        Buffer* out
    ) noexcept nogil:
        """Score all members and write the response; False if there is no memory."""
        cdef Py_ssize_t i
        cdef uint32_t k
        cdef const Text* text
        cdef Answer answer
        cdef Member* member = &answer.member
        cdef Buffer keys
        cdef bint done
        memset(&keys, 0, sizeof(keys))
        # A guess of what is needed; more is found when it is.
        done = grow(&keys, (self.most_dx + 1) * sizeof(uint64_t)) and grow(out, n * (4096 if full else 640) + 64)
        member.dx = <const uint64_t*>keys.at
        for i in range(n):
            if not done:
                break
            if made[i].at != NULL:
                done = add_message(out, 1, made[i])
                continue
            answer.wire = members + i
            answer.way = ways[answer.wire.choice]
            answer.code = text = <const Text*>self.dx.at + answer.wire.dx
            for k in range(answer.wire.n_dx):
                (<uint64_t*>keys.at)[k] = key_of(<const char*>text[k].at, text[k].size)
            member.n_dx = answer.wire.n_dx
            member.age = answer.wire.age
            member.sex = answer.wire.sex
            member.orec = answer.wire.orec
            member.mce_off = answer.wire.mce_off
            member.flags = answer.wire.flags
            done = put_answer(out, &answer, full)
            used[answer.wire.choice] = 1
        free(keys.at)
        return done


def answer_member(bytes raw not None, plans):
    """Answer a ScoreHccRequest: return (response, release). None if there is no member, or it is not plain.

    ``plans``: by the options as bytes, what gives the HccChoice of (model, payment year) by item access and says in
    ``full`` whether every detail is wanted. What they raise is passed on. Raises ValueError if ``raw`` is no such
    message.
    """
    cdef HccRequest request = HccRequest.__new__(HccRequest)
    cdef const WireMember* member
    cdef const Choice* named
    cdef HccChoice choice
    cdef const Way* way
    cdef Text made
    cdef uint8_t used
    cdef bint full, done
    cdef Buffer out
    request.single = True
    request.begin(raw)
    plan = plans[request.options]
    member = <const WireMember*>request.members.at
    if len(request) == 0 or not member.plain:
        return None
    named = <const Choice*>request.choice.at
    choice = <HccChoice?>plan[(<const char*>named.name.at)[:named.name.size].decode(), named.number]
    choice.check()
    way = &choice.way
    full = plan.full
    made.at = NULL
    made.size = 0
    out = take_spare()
    try:
        if request.brief:
            done = request.score(member, 1, &way, &made, &used, full, &out)
        else:
            with nogil:
                done = request.score(member, 1, &way, &made, &used, full, &out)
        if not done:
            raise MemoryError
        return PyBytes_FromStringAndSize(<char*>out.at, out.size), choice.release
    finally:
        leave_spare(out)


cdef bint is_options(Text message) noexcept nogil:
    """True if the message is an HccOptions."""
    cdef Reader r = reader_of(message)
    cdef uint32_t field
    cdef Text part
    while r.at < r.end:
        if not read_tag(&r, &field):
            return False
        if field == 2 << 3 | LENGTH or field == 3 << 3 | LENGTH:
            if not read_text(&r, &part) or not names_model(part):
                return False
        elif not skip(&r, field, 1):
            return False
    return True


cdef bint names_model(Text message) noexcept nogil:
    """True if the message is one with numbers but for its first field, a text: PaymentFactors, BlendWeight."""
    cdef Reader r = reader_of(message)
    cdef uint32_t field
    cdef Text model
    while r.at < r.end:
        if not read_tag(&r, &field):
            return False
        if not (read_string(&r, &model) if field == 1 << 3 | LENGTH else skip(&r, field, 2)):
            return False
    return True


# --- what answers a choice ------------------------------------------------------------------------------------------

cdef struct Encoded:            # an EncodedScorer
    const Tables* tables
    const uint16_t* given       # [variables] bit c: column c knows it
    int kind                    # of the model's segments
    const uint8_t* text         # what the spans are of
    Span head
    const Span* segment         # [outputs] each of these is encoded fields
    const Span* applicable      # [outputs]
    const Span* cc_label        # [ccs]
    const Span* hcc_label       # [ccs]
    const Span* variable        # [variables]
    const Span* variable_label  # [variables]
    const Span* addon           # [names of add-ons]
    const Span* addon_label     # [names of add-ons]
    const uint8_t* number       # [ccs][NUMBER] length and digits of a category
    Py_ssize_t most             # bytes of a result without member_id and detail, at most


cdef struct Way:                # an HccChoice
    const Encoded* own
    const Encoded* partner      # NULL: no blend
    Factors factors
    Factors partner_factors
    int32_t weight              # of the own scores in the blend, thousandths
    int8_t[32] same             # [OUTPUTS] the partner's output of the same name, -1: none
    Text weights                # fields of a Blend


@cython.final
@cython.auto_pickle(False)
cdef class EncodedScorer:
    """What the answers of one model and year say in words, encoded once: a result is copied together from it.

    ``kind``: as ``engine._hcc.kind_of`` has it. ``head``: the fields of an HccResult that are the same for all members.
    By output: ``segments``, the first field of a SegmentScore, and ``applicable``, the field of an HccResult. By
    category: ``numbers`` as text, ``cc_labels``, the last field of a Suppression, and ``hcc_labels``, the field of an
    HccResult. ``variables`` and ``addons``, by number and by name: first and last field of a Contribution.
    """

    cdef Encoded encoded
    cdef readonly Scorer scorer
    cdef list _kept

    def __init__(
        self, Scorer scorer not None, int kind, bytes head not None, list segments not None, list applicable not None,
        list numbers not None, list cc_labels not None, list hcc_labels not None, list variables not None,
        list addons not None,
    ):
        cdef Encoded* e = &self.encoded
        cdef Tables* t = &scorer.tables
        cdef Py_ssize_t i, n_variables = len(scorer.arrays["given"])
        cdef Py_ssize_t n_addons = len(scorer.arrays["addon_name_start"]) - 1
        cdef uint8_t* number
        cdef list chunks
        cdef bytes text
        if self._kept is not None:
            raise TypeError("a scorer is encoded once")
        if not (
            len(segments) == len(applicable) == t.n_outputs
            and len(numbers) == len(cc_labels) == len(hcc_labels) == t.n_ccs
            and len(variables) == n_variables and len(addons) == n_addons
        ):
            raise ValueError("expected texts for every output, category, variable and add-on")
        chunks = [head]
        kept = [
            spans_of(chunks, len(texts), dict(enumerate(texts)))
            for texts in (
                segments, applicable, cc_labels, hcc_labels,
                [first for first, _ in variables], [last for _, last in variables],
                [first for first, _ in addons], [last for _, last in addons],
            )
        ]
        digits = bytearray(t.n_ccs * NUMBER)
        number = <uint8_t*>PyByteArray_AS_STRING(digits)
        for i in range(t.n_ccs):
            text = numbers[i].encode()
            if len(text) >= NUMBER:
                raise ValueError(f"expected the number of a category, got {numbers[i]}")
            number[i * NUMBER] = <uint8_t>len(text)
            memcpy(number + i * NUMBER + 1, PyBytes_AS_STRING(text), len(text))
        text = b"".join(chunks)
        e.tables = t
        e.given = <const uint16_t*>scorer._pointer("given")
        e.kind = kind
        e.text = <const uint8_t*>PyBytes_AS_STRING(text)
        e.head.size = len(head)
        e.segment = spans(kept[0])
        e.applicable = spans(kept[1])
        e.cc_label = spans(kept[2])
        e.hcc_label = spans(kept[3])
        e.variable = spans(kept[4])
        e.variable_label = spans(kept[5])
        e.addon = spans(kept[6])
        e.addon_label = spans(kept[7])
        e.number = number
        # Each category as such and as an HCC; each segment with its scores and in the blend.
        e.most = (
            len(head) + t.n_ccs * 2 * (NUMBER + 1) + sum(map(len, applicable))
            + sum([2 * len(segment) + 6 * FIELD for segment in segments]) + _hcc.SEGMENT_ROOM + 8 * FIELD
        )
        self.scorer = scorer
        self._kept = [*kept, digits, text]


cdef const Span* spans(bytearray kept) noexcept:
    return <const Span*>PyByteArray_AS_STRING(kept)


@cython.final
@cython.auto_pickle(False)
cdef class HccChoice:
    """What answers the members of one model and year, with one call's options.

    ``factors``: int32 buffer [2][OUTPUTS], as ``engine._hcc.run`` takes them. Where the model is blended: ``partner``,
    the other's EncodedScorer, its ``partner_factors``, ``weight``, that of the own scores in thousandths, ``same``, by
    output the partner's of the same name, -1 where there is none, and ``weights``, the first fields of the Blend.
    ``release``: of the own scorer.
    """

    cdef Way way
    cdef readonly str release
    cdef readonly EncodedScorer own
    cdef readonly EncodedScorer partner
    cdef bytes _weights

    cdef int check(self) except -1:
        if self.own is None:
            raise TypeError("a choice is made by its constructor")
        return 0

    def __init__(
        self, str release not None, EncodedScorer own not None, const int32_t[:, ::1] factors not None,
        EncodedScorer partner=None, const int32_t[:, ::1] partner_factors=None, int weight=0, list same=None,
        bytes weights=b"",
    ):
        cdef Way* way = &self.way
        cdef Py_ssize_t i
        if self.own is not None:
            raise TypeError("a choice is made once")
        if own._kept is None or (partner is not None and partner._kept is None):
            raise TypeError("a scorer is encoded by its constructor")
        take_factors(&way.factors, factors)
        if partner is not None:
            take_factors(&way.partner_factors, partner_factors)
            if same is None or len(same) != own.encoded.tables.n_outputs:
                raise ValueError("expected the partner's output for every output")
            for i in range(len(same)):
                if not -1 <= same[i] < partner.encoded.tables.n_outputs:
                    raise IndexError(same[i])
                way.same[i] = same[i]
            way.partner = &partner.encoded
            way.weight = weight
            way.weights.at = <const uint8_t*>PyBytes_AS_STRING(weights)
            way.weights.size = len(weights)
        way.own = &own.encoded
        self.release = release
        self.partner = partner
        self._weights = weights
        self.own = own


cdef int take_factors(Factors* to, const int32_t[:, ::1] factors) except -1:
    if factors is None or factors.shape[0] != 2 or factors.shape[1] != OUTPUTS:
        raise ValueError("expected factors of every output")
    memcpy(to.normalization, &factors[0, 0], OUTPUTS * sizeof(int32_t))
    memcpy(to.kept, &factors[1, 0], OUTPUTS * sizeof(int32_t))
    return 0


# --- results --------------------------------------------------------------------------------------------------------

cdef struct Answer:             # what is known of one member
    const Way* way
    const WireMember* wire
    const Text* code            # [n_dx] diagnoses as given
    Member member
    Result result
    int32_t[32] raw             # [OUTPUTS] thousandths
    int32_t[32] normalized      # [OUTPUTS]
    int32_t[32] payment         # [OUTPUTS]


cdef inline uint8_t* put_span(uint8_t* to, const Encoded* e, const Span* span) noexcept nogil:
    return put_bytes(to, e.text + span.start, span.size)


cdef inline uint8_t* put_number(uint8_t* to, uint32_t field, const Encoded* e, uint32_t cc) noexcept nogil:
    """A category as text. NUMBER bytes are written whatever its length."""
    cdef const uint8_t* number = e.number + cc * NUMBER
    to = put_varint(to, field)
    memcpy(to, number, NUMBER)
    return to + 1 + number[0]


cdef uint8_t* put_numbers(uint8_t* to, uint32_t field, const Encoded* e, const uint64_t* words) noexcept nogil:
    cdef uint64_t left
    cdef uint32_t w
    for w in range(CC_WORDS):
        left = words[w]
        while left:
            to = put_number(to, field, e, 64 * w + lowest_bit(left))
            left &= left - 1
    return to


cdef inline int size_of_double(int32_t thousandths) noexcept nogil:
    """Bytes of a field without presence below number 16."""
    return 9 if thousandths else 0


cdef inline uint8_t* put_thousandths(uint8_t* to, uint32_t field, int32_t value) noexcept nogil:
    """A double without presence: nothing when zero."""
    return put_double(to, field, value / <double>1000) if value else to


cdef bint put_answer(Buffer* out, Answer* a, bint full) noexcept nogil:
    """Score a member and append its result; False if there is no memory."""
    cdef const Encoded* e = a.way.own
    cdef const Tables* t = e.tables
    cdef Py_ssize_t before = out.size, start
    cdef uint8_t* to
    cdef uint32_t i
    cdef int size
    cdef char[32] segment       # [SEGMENT_ROOM]
    _hcc.score(t, &a.member, &a.way.factors, &a.result, a.raw, a.normalized, a.payment)
    if not grow(out, e.most + a.wire.member_id.size + a.way.weights.size):
        return False
    to = begin_message(out)
    start = to - out.at
    to = put_string(to, tag(1, LENGTH), a.wire.member_id)
    to = put_span(to, e, &e.head)
    if a.member.age:
        to = put_varint(to, tag(5, VARINT))
        to = put_varint(to, a.member.age)
    to = put_numbers(to, tag(6, LENGTH), e, a.result.ccs)
    to = put_numbers(to, tag(7, LENGTH), e, a.result.hccs)
    for i in range(t.n_outputs):
        to = put_varint(to, tag(8, LENGTH))
        size = size_of_double(a.raw[i])
        if a.payment[i] != _hcc.NO_SCORE:
            size += 18
        to = put_varint(to, e.segment[i].size + size)
        to = put_span(to, e, e.segment + i)
        to = put_thousandths(to, tag(2, FIXED64), a.raw[i])
        if a.payment[i] != _hcc.NO_SCORE:
            to = put_double(to, tag(3, FIXED64), a.normalized[i] / <double>1000)
            to = put_double(to, tag(4, FIXED64), a.payment[i] / <double>1000)
    for i in range(t.n_outputs):
        if a.result.applicable >> i & 1:
            to = put_span(to, e, e.applicable + i)
    size = _hcc.segment_of(e.kind, &a.member, &a.wire.situation, segment)
    if size:
        to = put_varint(to, tag(10, LENGTH))
        to = put_varint(to, size)
        to = put_bytes(to, segment, size)
    if a.way.partner != NULL:
        to = put_blend(to, a)
    if full:
        out.size = to - out.at
        if not (put_contributions(out, a) and put_diagnoses(out, a) and put_suppressed(out, a) and put_labels(out, a)):
            return False
        if not grow(out, FIELD):
            return False
        to = out.at + out.size
        out.size = before
    end_message(out, 1, out.at + start, to)
    return True


cdef uint8_t* put_blend(uint8_t* to, const Answer* a) noexcept nogil:
    cdef const Way* way = a.way
    cdef const Encoded* e = way.own
    cdef Result result
    cdef int32_t[32] raw        # [OUTPUTS], as the two below
    cdef int32_t[32] normalized
    cdef int32_t[32] payment
    cdef int32_t[32] blended
    cdef uint32_t there = 0     # bit i: output i is in both models
    cdef Py_ssize_t inner, size = way.weights.size
    cdef int64_t total
    cdef uint32_t i
    _hcc.score(way.partner.tables, &a.member, &way.partner_factors, &result, raw, normalized, payment)
    for i in range(e.tables.n_outputs):
        if way.same[i] < 0 or a.payment[i] == _hcc.NO_SCORE or payment[way.same[i]] == _hcc.NO_SCORE:
            continue
        there |= <uint32_t>1 << i
        total = <int64_t>a.payment[i] * way.weight + <int64_t>payment[way.same[i]] * (1000 - way.weight) + 500
        # Rounded down, below zero too.
        blended[i] = <int32_t>(total // 1000 - (total % 1000 < 0))
        inner = e.segment[i].size + size_of_double(blended[i])
        size += 1 + size_of_varint(inner) + inner
    to = put_varint(to, tag(11, LENGTH))
    to = put_varint(to, size)
    to = put_bytes(to, way.weights.at, way.weights.size)
    for i in range(e.tables.n_outputs):
        if there >> i & 1:
            to = put_varint(to, tag(2, LENGTH))
            to = put_varint(to, e.segment[i].size + size_of_double(blended[i]))
            to = put_span(to, e, e.segment + i)
            to = put_thousandths(to, tag(2, FIXED64), blended[i])
    return to


# --- full detail: sizes first, then the same walk again, writing ----------------------------------------------------

cdef inline Py_ssize_t size_of_message(Py_ssize_t size) noexcept nogil:
    """Bytes of a field below number 16 that has as many inside."""
    return 1 + size_of_varint(size) + size


cdef inline Py_ssize_t size_of_item(const Span* name, int32_t value, const Span* label) noexcept nogil:
    """Bytes of what is inside a Contribution."""
    return name.size + size_of_double(value) + label.size


cdef inline uint8_t* put_item(
    uint8_t* to, const Encoded* e, const Span* name, int32_t value, const Span* label
) noexcept nogil:
    to = put_varint(to, tag(2, LENGTH))
    to = put_varint(to, size_of_item(name, value, label))
    to = put_span(to, e, name)
    to = put_thousandths(to, tag(2, FIXED64), value)
    return put_span(to, e, label)


cdef bint put_contributions(Buffer* out, const Answer* a) noexcept nogil:
    """Append what every segment's score is made of; False if there is no memory."""
    cdef const Encoded* e = a.way.own
    cdef const Tables* t = e.tables
    cdef uint8_t age = _hcc.effective_age(t, &a.member)
    cdef const AddOn* addon
    cdef uint16_t[512] present      # [64 * VARIABLE_WORDS]
    cdef uint32_t n = 0, i, k, w, v
    cdef uint64_t left
    cdef int column
    cdef Py_ssize_t size
    cdef uint8_t* to
    for w in range(VARIABLE_WORDS):
        left = a.result.variables[w]
        while left:
            present[n] = <uint16_t>(64 * w + lowest_bit(left))
            left &= left - 1
            n += 1
    for i in range(t.n_outputs):
        column = t.output[i].column
        size = e.segment[i].size + 9
        if column >= 0:
            for k in range(n):
                v = present[k]
                if e.given[v] >> column & 1:
                    size += size_of_message(
                        size_of_item(e.variable + v, t.coefficient[v * COLUMNS + column], e.variable_label + v)
                    )
        for k in range(t.addon_start[age], t.addon_start[age + 1]):
            addon = t.addon + k
            if addon.output == i and _hcc.admits(addon, &a.member):
                size += size_of_message(
                    size_of_item(e.addon + addon.name, addon.value, e.addon_label + addon.name)
                )
        if not grow(out, size + FIELD):
            return False
        to = put_varint(out.at + out.size, tag(12, LENGTH))
        to = put_varint(to, size)
        to = put_span(to, e, e.segment + i)
        if column >= 0:
            for k in range(n):
                v = present[k]
                if e.given[v] >> column & 1:
                    to = put_item(to, e, e.variable + v, t.coefficient[v * COLUMNS + column], e.variable_label + v)
        for k in range(t.addon_start[age], t.addon_start[age + 1]):
            addon = t.addon + k
            if addon.output == i and _hcc.admits(addon, &a.member):
                to = put_item(to, e, e.addon + addon.name, addon.value, e.addon_label + addon.name)
        to = put_thousandths(to, tag(3, FIXED64), t.output[i].divisor if t.output[i].divisor else 1000)
        out.size = to - out.at
    return True


cdef bint put_diagnoses(Buffer* out, const Answer* a) noexcept nogil:
    """Append what every diagnosis gave; False if there is no memory."""
    cdef const Encoded* e = a.way.own
    cdef const Tables* t = e.tables
    cdef uint64_t member_class = 1
    cdef const Slot* slot
    cdef uint32_t i, k, first, last
    cdef Py_ssize_t size
    cdef uint8_t* to
    member_class <<= t.age_class[
        (a.member.mce_off * 2 + a.member.sex) * _hcc.AGES + _hcc.effective_age(t, &a.member)
    ]
    for i in range(a.member.n_dx):
        slot = _hcc.find_slot(t, a.member.dx[i])
        first = last = 0
        if slot.key:
            first, last = t.rule_start[slot.row], t.rule_start[slot.row + 1]
        size = size_of_string(a.code[i])
        for k in range(first, last):
            size += 2 + e.number[t.rule[k].cc * NUMBER]
        if not grow(out, size + 2 * FIELD):
            return False
        to = put_varint(out.at + out.size, tag(13, LENGTH))
        to = put_varint(to, size)
        to = put_string(to, tag(1, LENGTH), a.code[i])
        for k in range(first, last):
            if t.rule[k].classes & member_class:
                to = put_number(to, tag(2, LENGTH), e, t.rule[k].cc)
        for k in range(first, last):
            if not t.rule[k].classes & member_class:
                to = put_number(to, tag(3, LENGTH), e, t.rule[k].cc)
        out.size = to - out.at
    return True


cdef bint put_suppressed(Buffer* out, const Answer* a) noexcept nogil:
    """Append the categories that are no HCCs in the end, and what is above each; False if there is no memory."""
    cdef const Encoded* e = a.way.own
    cdef const Tables* t = e.tables
    cdef uint64_t[4] before         # [CC_WORDS] what suppresses: the set before anything was suppressed
    cdef uint64_t[4] above          # [CC_WORDS]
    cdef uint64_t left, others, kept
    cdef uint32_t i, k, w, v
    cdef Py_ssize_t size
    cdef uint8_t* to
    memcpy(before, a.result.ccs, sizeof(before))
    for i in range(t.n_pre_rules):
        kept = 0
        for w in range(CC_WORDS):
            kept |= t.pre_rule[i].unless[w] & a.result.ccs[w]
        if not kept:
            k = t.pre_rule[i].cc
            before[k >> 6] &= ~(<uint64_t>1 << (k & 63))
    for w in range(CC_WORDS):
        left = a.result.ccs[w] & ~a.result.hccs[w]
        while left:
            i = 64 * w + lowest_bit(left)
            left &= left - 1
            memset(above, 0, sizeof(above))
            size = 2 + e.number[i * NUMBER] + e.cc_label[i].size
            if has_bit(before, i):
                for v in range(CC_WORDS):
                    others = before[v]
                    while others:
                        k = 64 * v + lowest_bit(others)
                        others &= others - 1
                        if has_bit(t.secondary + k * CC_WORDS, i):
                            set_bit(above, k)
                            size += 2 + e.number[k * NUMBER]
            if not grow(out, size + 2 * FIELD):
                return False
            to = put_varint(out.at + out.size, tag(14, LENGTH))
            to = put_varint(to, size)
            to = put_number(to, tag(1, LENGTH), e, i)
            to = put_numbers(to, tag(2, LENGTH), e, above)
            to = put_span(to, e, e.cc_label + i)
            out.size = to - out.at
    return True


cdef bint put_labels(Buffer* out, const Answer* a) noexcept nogil:
    """Append the labels of the HCCs; False if there is no memory."""
    cdef const Encoded* e = a.way.own
    cdef const Span* label
    cdef uint64_t left
    cdef uint32_t w
    for w in range(CC_WORDS):
        left = a.result.hccs[w]
        while left:
            label = e.hcc_label + 64 * w + lowest_bit(left)
            left &= left - 1
            if not grow(out, label.size):
                return False
            out.size = put_span(out.at + out.size, e, label) - out.at
    return True
