"""Batch requests answered from their bytes: protobuf in, protobuf out, and no Python object a claim in between.

A request object reads its bytes, whole, into structs; ``answer`` groups and writes the response, both with the GIL
released. In between, under the GIL, the caller says which versions the claims' names and dates stand for.

Two readers of claims must not come to differ, so this one only knows claims that nothing is wrong with: a number that
its enumeration does not have, a POA text of another length, a version that is not there, … make a claim not *plain*.
Such a claim is handed back as bytes (``other``), to be answered by the path that reads messages, whose checks and words
stay the only ones. What is no protobuf at all is refused, exactly where the protobuf runtime refuses it.
"""

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memset

from . cimport _msdrg
from ._msdrg cimport Claim, DiagnosisResult, Grouper, Grouping, ProcedureResult, Result
from ._proto cimport (
    FIELD,
    LENGTH,
    VARINT,
    Buffer,
    Reader,
    add_message,
    begin_message,
    characters_of,
    end_message,
    grow,
    put_bytes,
    put_int,
    put_string,
    put_varint,
    read_int32,
    read_string,
    read_tag,
    read_text,
    reader_of,
    size_of_int,
    size_of_string,
    skip,
    tag,
)

from . import _msdrg as msdrg

cdef enum:
    MAX_CODES = 65535       # of one kind on one claim; more are the message reader's to refuse
    HAC_STATUSES = 6

# What the grouper's own reader makes of the numbers on the wire.
cdef uint8_t[4] SEX
cdef uint8_t[4] HOSPITAL_STATUS
cdef uint8_t[256] DISCHARGE_STATUS
for _number in range(4):
    SEX[<int>_number] = msdrg.SEXES[_number]
    HOSPITAL_STATUS[<int>_number] = msdrg.HOSPITAL_STATUSES[_number]
for _number in range(256):
    DISCHARGE_STATUS[<int>_number] = _number if _number in msdrg.DISCHARGE_STATUSES else 0


# Room for a response that the one before it left, so that it need not be had from the system, page by page, each time.
# Taken and given back under the GIL; a response that finds none makes its own.
cdef Buffer spare
memset(&spare, 0, sizeof(spare))

cdef enum:
    LARGEST_SPARE = 1 << 24     # bytes
    SMALL_BUFFERS = 16


cdef Buffer take_spare() noexcept:
    cdef Buffer taken = spare
    memset(&spare, 0, sizeof(spare))
    return taken


cdef void leave_spare(Buffer buffer) noexcept:
    global spare
    buffer.size = 0
    if spare.at == NULL and buffer.room <= LARGEST_SPARE:
        spare = buffer
    else:
        free(buffer.at)


# Likewise what short requests are read into.
cdef Buffer[SMALL_BUFFERS] small
cdef int n_small = 0

cdef enum:
    LARGEST_SMALL = 4096


cdef Buffer take_small() noexcept:
    global n_small
    cdef Buffer taken
    if n_small == 0:
        memset(&taken, 0, sizeof(taken))
        return taken
    n_small -= 1
    return small[n_small]


cdef void leave_small(Buffer buffer) noexcept:
    global n_small
    if buffer.at != NULL and buffer.room <= LARGEST_SMALL and n_small < SMALL_BUFFERS:
        buffer.size = 0
        small[n_small] = buffer
        n_small += 1
    else:
        free(buffer.at)


# As ``spare``: a claim by itself takes longer to make room for than to group, there are so many clusters.
cdef Room spare_room
memset(&spare_room, 0, sizeof(spare_room))

cdef enum:
    LARGEST_ROOM = 1 << 10  # codes of a kind, of a room that is kept


cdef int take_room(Room* room, Py_ssize_t dx, Py_ssize_t px, Py_ssize_t clusters) except -1:
    """Take room for claims of up to that many diagnoses and procedures, and versions of up to that many clusters."""
    room[0] = spare_room
    memset(&spare_room, 0, sizeof(spare_room))
    if room.key != NULL and dx <= room.most_dx and px <= room.most_px and clusters <= room.scratch.n_clusters:
        return 0
    end_room(room)
    # A little more, for the next.
    room.most_dx = max(dx, 64)
    room.most_px = max(px, 64)
    room.key = <uint64_t*>malloc((room.most_dx + room.most_px) * sizeof(uint64_t))
    room.dx = <DiagnosisResult*>malloc(room.most_dx * sizeof(DiagnosisResult))
    room.px = <ProcedureResult*>malloc(room.most_px * sizeof(ProcedureResult))
    try:
        if room.key == NULL or room.dx == NULL or room.px == NULL:
            raise MemoryError
        _msdrg.make_room(&room.scratch, room.most_dx, room.most_px, clusters)
    except MemoryError:
        end_room(room)
        raise
    return 0


cdef void leave_room(Room* room) noexcept:
    global spare_room
    if spare_room.key == NULL and room.most_dx <= LARGEST_ROOM and room.most_px <= LARGEST_ROOM:
        spare_room = room[0]
    else:
        end_room(room)


cdef void end_room(Room* room) noexcept:
    _msdrg.give_back(&room.scratch)
    free(room.key)
    free(room.dx)
    free(room.px)
    memset(room, 0, sizeof(Room))


# --- what requests of all kinds are read with -----------------------------------------------------------------

cdef bint add_code(Buffer* texts, Text text) noexcept nogil:
    if not grow(texts, sizeof(Text)):
        return False
    (<Text*>(texts.at + texts.size))[0] = text
    texts.size += sizeof(Text)
    return True


cdef bint choose(Buffer* choices, uint32_t* recent, Text name, int32_t number, uint32_t* choice) noexcept nogil:
    cdef Choice* known = <Choice*>choices.at
    cdef uint32_t hash = <uint32_t>number * 2654435761U >> 16
    cdef Py_ssize_t i
    # Names differ at their ends, and an endless one is of no interest.
    for i in range(max(name.size - 16, 0), name.size):
        hash = 31 * hash + name.at[i]
    recent += hash % CHOICES
    if recent[0]:
        i = recent[0] - 1
        if (
            known[i].number == number
            and known[i].name.size == name.size
            and memcmp(known[i].name.at, name.at, name.size) == 0
        ):
            choice[0] = <uint32_t>i
            return True
    if not grow(choices, sizeof(Choice)):
        return False
    known = <Choice*>(choices.at + choices.size)
    known.name = name
    known.number = number
    choice[0] = <uint32_t>(choices.size // <Py_ssize_t>sizeof(Choice))
    recent[0] = choice[0] + 1
    choices.size += sizeof(Choice)
    return True


cdef list results_of(object other, list others, Text* made, Py_ssize_t n):
    cdef list found = list(other(others))
    cdef Py_ssize_t i, k = 0
    cdef bytes own
    for i in range(n):
        if made[i].size < 0:
            if k == len(found):
                raise ValueError("expected an answer to everything that is not plain")
            own = <bytes?>found[k]
            made[i].at = <const uint8_t*>PyBytes_AS_STRING(own)
            made[i].size = PyBytes_GET_SIZE(own)
            k += 1
    return found


cdef bytearray spans_of(list chunks, Py_ssize_t count, dict data):
    cdef bytearray found = bytearray(count * <Py_ssize_t>sizeof(Span))
    cdef Span* spans = <Span*>PyByteArray_AS_STRING(found)
    cdef Py_ssize_t start = sum(map(len, chunks))
    cdef Py_ssize_t number
    for number, chunk in data.items():
        if not 0 <= number < count:
            raise IndexError(number)
        spans[number].start = start
        spans[number].size = len(chunk)
        chunks.append(chunk)
        start += len(chunk)
    return found


@cython.auto_pickle(False)
cdef class Request:
    """A request, read from its bytes. Its kinds are subclasses.

    Raises ValueError if ``raw`` is no such message; the GIL is released meanwhile, unless it is brief.
    """

    def __cinit__(self):
        self.choice = take_small()

    def __init__(self, bytes raw not None):
        self.begin(raw)

    cdef int begin(self, bytes raw) except -1:
        """Read the request."""
        cdef Text whole
        cdef int found
        if self.raw is not None:
            raise TypeError("a request is read once")
        self.raw = raw
        whole.at = <const uint8_t*>PyBytes_AS_STRING(raw)
        whole.size = PyBytes_GET_SIZE(raw)
        self.brief = whole.size <= BRIEF
        if self.brief:
            found = self.read(whole)
        else:
            with nogil:
                found = self.read(whole)
        if found < 0:
            raise MemoryError
        if found == 0:
            raise ValueError("not a message of this kind")
        return 0

    def __dealloc__(self):
        leave_small(self.choice)

    cdef int read(self, Text whole) noexcept nogil:
        return 0


# --- MS-DRG requests ----------------------------------------------------------------------------------------

@cython.auto_pickle(False)
cdef class InpatientRequest(Request):
    """The inpatient claims of a request and the options of the grouper. Its kinds are subclasses."""

    def __cinit__(self):
        self.claims = take_small()
        self.dx_text = take_small()
        self.dx_poa = take_small()
        self.px_text = take_small()

    def __dealloc__(self):
        leave_small(self.claims)
        leave_small(self.dx_text)
        leave_small(self.dx_poa)
        leave_small(self.px_text)

    def __len__(self):
        """Number of claims."""
        return self.claims.size // <Py_ssize_t>sizeof(WireClaim)

    @property
    def choices(self):
        """What claims name their tables with: a version of the grouper, or where they name none, the discharge date
        (CCYYMMDD, 0: none).
        """
        cdef Choice* choice = <Choice*>self.choice.at
        cdef Py_ssize_t i
        return [choice_of(choice + i) for i in range(self.choice.size // <Py_ssize_t>sizeof(Choice))]

    cdef bint read_options(self, Text message) noexcept nogil:
        """Options that come in several pieces are one message: what a later piece does not say stays."""
        cdef Reader r = reader_of(message)
        cdef uint32_t field
        while r.at < r.end:
            if not read_tag(&r, &field):
                return False
            if field == 1 << 3 | VARINT:
                if not read_int32(&r, &self.tie_breaker):
                    return False
            elif field == 2 << 3 | VARINT:
                if not read_int32(&r, &self.affect_flags):
                    return False
            elif field == 3 << 3 | VARINT:
                if not read_int32(&r, &self.detail):
                    return False
            elif not skip(&r, field, 1):
                return False
        return True

    cdef int read_claim(self, Text message) noexcept nogil:
        cdef Reader r = reader_of(message)
        cdef WireClaim* claim
        cdef Text version, poa, text
        cdef int32_t date = 0, sex = 0, hospital_status = 0
        cdef uint32_t field
        if not grow(&self.claims, sizeof(WireClaim)):
            return -1
        claim = <WireClaim*>(self.claims.at + self.claims.size)
        self.claims.size += sizeof(WireClaim)
        memset(claim, 0, sizeof(WireClaim))
        version.at = poa.at = claim.claim_id.at = claim.admit.at = message.at
        version.size = poa.size = 0
        claim.whole = message
        claim.dx = self.dx_text.size // <Py_ssize_t>sizeof(Text)
        claim.px = self.px_text.size // <Py_ssize_t>sizeof(Text)
        while r.at < r.end:
            if not read_tag(&r, &field):
                return 0
            if field == 10 << 3 | LENGTH:
                if not read_string(&r, &text):
                    return 0
                if not add_code(&self.dx_text, text):
                    return -1
                claim.n_dx += 1
            elif field == 12 << 3 | LENGTH:
                if not read_string(&r, &text):
                    return 0
                if not add_code(&self.px_text, text):
                    return -1
                claim.n_px += 1
            elif field == 1 << 3 | LENGTH:
                if not read_string(&r, &claim.claim_id):
                    return 0
            elif field == 2 << 3 | LENGTH:
                if not read_string(&r, &version):
                    return 0
            elif field == 3 << 3 | VARINT:
                if not read_int32(&r, &date):
                    return 0
            elif field == 4 << 3 | VARINT:
                if not read_int32(&r, &claim.age):
                    return 0
                claim.given |= GIVEN_AGE
            elif field == 5 << 3 | VARINT:
                if not read_int32(&r, &sex):
                    return 0
            elif field == 6 << 3 | VARINT:
                if not read_int32(&r, &claim.status):
                    return 0
                claim.given |= GIVEN_DISCHARGE_STATUS
            elif field == 7 << 3 | VARINT:
                if not read_int32(&r, &hospital_status):
                    return 0
            elif field == 8 << 3 | VARINT:
                if not read_int32(&r, &claim.length_of_stay):
                    return 0
                claim.given |= GIVEN_LENGTH_OF_STAY
            elif field == 9 << 3 | LENGTH:
                if not read_string(&r, &claim.admit):
                    return 0
            elif field == 11 << 3 | LENGTH:
                if not read_string(&r, &poa):
                    return 0
            elif field == 13 << 3 | VARINT:
                if not read_int32(&r, &claim.edition):
                    return 0
            elif not skip(&r, field, 1):
                return 0

        if not grow(&self.dx_poa, claim.n_dx):
            return -1
        # Equal lengths say that all is ASCII: a character is a byte then.
        _msdrg.poa_of(
            <const char*>poa.at if poa.size == claim.n_dx else NULL, claim.n_dx, self.dx_poa.at + self.dx_poa.size
        )
        self.dx_poa.size += claim.n_dx
        claim.date = date
        if claim.n_dx > MAX_CODES or claim.n_px > MAX_CODES or not 0 <= sex < 4:
            return 1
        claim.sex = <uint8_t>sex
        claim.plain_to_edit = 1
        self.most_dx = max(self.most_dx, claim.n_dx)
        self.most_px = max(self.most_px, claim.n_px)
        if not (0 <= hospital_status < 4 and claim.status >= 0):
            return 1
        if poa.size and (poa.size < claim.n_dx or characters_of(poa) != claim.n_dx):
            return 1
        if poa.size != claim.n_dx:
            _msdrg.poa_of(NULL, claim.n_dx, self.dx_poa.at + claim.dx)
        claim.hospital_status = HOSPITAL_STATUS[hospital_status]
        claim.discharge_status = DISCHARGE_STATUS[claim.status] if claim.status < 256 else 0
        claim.plain = 1
        return 1 if choose(&self.choice, self.recent, version, 0 if version.size else date, &claim.choice) else -1

    cdef tuple group_into(self, Buffer* out, uint32_t field, versions, unsigned int options, other):
        """Group the claims and append their DrgResults to a response, in the field of that number. Return (failed,
        answered) of ``DrgRequest.answer``, whose arguments the others are.
        """
        cdef Py_ssize_t n = len(self), n_choices = self.choice.size // <Py_ssize_t>sizeof(Choice)
        cdef WireClaim* claims = <WireClaim*>self.claims.at
        cdef EncodedVersion version
        cdef Version** chosen = <Version**>PyMem_Malloc((n_choices + 1) * sizeof(Version*))
        cdef Text* made = NULL
        cdef uint8_t* used = NULL
        cdef Py_ssize_t i, clusters = 0, failed = 0
        cdef list others = []
        cdef Room room
        cdef bint done
        try:
            made = <Text*>PyMem_Malloc((n + 1) * sizeof(Text))
            used = <uint8_t*>PyMem_Malloc(n_choices + 1)
            if chosen == NULL or made == NULL or used == NULL:
                raise MemoryError
            memset(used, 0, n_choices + 1)
            if len(versions) != n_choices:
                raise ValueError(f"expected {n_choices} versions, got {len(versions)}")
            for i in range(n_choices):
                chosen[i] = NULL
                if versions[i] is not None:
                    version = <EncodedVersion?>versions[i]
                    version.check()
                    chosen[i] = &version.version
                    clusters = max(clusters, version.version.grouper.n_clusters)
            for i in range(n):
                made[i].at = NULL
                if not claims[i].plain or chosen[claims[i].choice] == NULL:
                    others.append((<char*>claims[i].whole.at)[:claims[i].whole.size])
                    made[i].size = -1
                else:
                    made[i].size = 0
            if others:
                # Kept until they are copied.
                others = results_of(other, others, made, n)
            take_room(&room, self.most_dx, self.most_px, clusters)
            if self.brief:
                done = self.group(claims, n, chosen, made, used, &room, options, field, out, &failed)
            else:
                with nogil:
                    done = self.group(claims, n, chosen, made, used, &room, options, field, out, &failed)
            leave_room(&room)
            if not done:
                raise MemoryError
            return failed, {versions[i] for i in range(n_choices) if used[i]}
        finally:
            PyMem_Free(chosen)
            PyMem_Free(made)
            PyMem_Free(used)

    cdef EncodedVersion group_one(self, Buffer* out, uint32_t field, known, flags):
        """Group the only claim and append its DrgResult as ``group_into`` does. Return what grouped it; None if there
        is not exactly one claim, it is not plain, or no row applies to it. ``answer_drg`` has the others.
        """
        cdef const WireClaim* claim = <const WireClaim*>self.claims.at
        cdef EncodedVersion version
        cdef Version* chosen
        cdef Text made
        cdef uint32_t options
        cdef uint8_t used = 0
        cdef Py_ssize_t failed = 0
        cdef Room room
        cdef bint done
        if len(self) != 1 or not claim.plain:
            return None
        options = flags[self.tie_breaker, self.affect_flags, self.detail]
        version = <EncodedVersion?>known[choice_of(<const Choice*>self.choice.at)]
        version.check()
        chosen = &version.version
        made.at = NULL
        made.size = 0
        take_room(&room, self.most_dx, self.most_px, chosen.grouper.n_clusters)
        if self.brief:
            done = self.group(claim, 1, &chosen, &made, &used, &room, options, field, out, &failed)
        else:
            with nogil:
                done = self.group(claim, 1, &chosen, &made, &used, &room, options, field, out, &failed)
        leave_room(&room)
        if not done:
            raise MemoryError
        return None if failed else version

    cdef bint group(
        self, const WireClaim* claims, Py_ssize_t n, Version** chosen, const Text* made, uint8_t* used,
        Room* room, uint32_t options, uint32_t field, Buffer* out, Py_ssize_t* failed
    ) noexcept nogil:
        """Group all claims and write their results; False if there is no memory."""
        cdef Claim claim
        cdef Result result
        cdef const WireClaim* wire
        cdef const Version* version
        cdef bint detail = options & _msdrg.OPTION_DETAIL
        cdef DiagnosisResult* dx = room.dx if detail else NULL
        cdef ProcedureResult* px = room.px if detail else NULL
        # A guess of what is needed; more is found when it is.
        cdef bint done = grow(out, n * (1024 if detail else 384) + 64)
        cdef Py_ssize_t i
        memset(&claim, 0, sizeof(claim))
        claim.dx = room.key
        claim.px = room.key + room.most_dx
        for i in range(n):
            if not done:
                break
            wire = claims + i
            if made[i].at != NULL:
                done = add_message(out, field, made[i])
                continue
            version = chosen[wire.choice]
            keys_of(<const Text*>self.dx_text.at + wire.dx, wire.n_dx, room.key)
            keys_of(<const Text*>self.px_text.at + wire.px, wire.n_px, room.key + room.most_dx)
            claim.poa = self.dx_poa.at + wire.dx
            claim.n_dx = wire.n_dx
            claim.n_px = wire.n_px
            claim.sex = SEX[wire.sex]
            claim.hospital_status = wire.hospital_status
            claim.discharge_status = wire.discharge_status
            claim.admit_given = wire.admit.size != 0 and not is_null(wire.admit)
            claim.admit = _msdrg.key_of(<const char*>wire.admit.at, wire.admit.size) if claim.admit_given else 0
            _msdrg.group(version.grouper, &room.scratch, &claim, options, &result, dx, px)
            if result.error:
                failed[0] += 1
            else:
                used[wire.choice] = 1
            done = put_drg(
                out, field, version, wire, <const Text*>self.dx_text.at + wire.dx,
                <const Text*>self.px_text.at + wire.px, &result, dx, px,
            )
        return done


@cython.final
@cython.auto_pickle(False)
cdef class DrgRequest(InpatientRequest):
    """The claims and options of a BatchGroupDrgRequest or StreamGroupDrgRequest, read from its bytes.

    Raises ValueError if ``raw`` is no such message; the GIL is released meanwhile.
    """

    cdef int read(self, Text whole) noexcept nogil:
        """1: read; 0: not protobuf; -1: no memory."""
        cdef Reader r = reader_of(whole)
        cdef uint32_t field
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
            elif field == 2 << 3 | LENGTH:
                if not read_text(&r, &text) or not self.read_options(text):
                    return 0
            elif not skip(&r, field, 0):
                return 0
        return 1

    def answer(self, versions, unsigned int options, other):
        """Return (response, failed, answered): the response's bytes, how many claims the version that answered has no
        row for, and the set of versions that answered.

        ``versions``: the EncodedVersion of each of ``choices``, None where there is none. ``options``: bits of
        ``GroupingOptions.flags()``. ``other``: called with a list, the bytes of every claim that is not plain,
        if there are any; returns the list of their DrgResults as bytes.
        """
        cdef Buffer out = take_spare()
        try:
            failed, answered = self.group_into(&out, 1, versions, options, other)
            return PyBytes_FromStringAndSize(<char*>out.at, out.size), failed, answered
        finally:
            leave_spare(out)


def answer_drg(bytes raw not None, known, flags):
    """Answer a GroupDrgRequest: return (response, release). None if there is not exactly one claim (a batch of one has
    the same bytes), it is not plain, or no row applies to it.

    ``known``: the EncodedVersion by what ``choices`` has. ``flags``: by (tie breaker, affect flags, detail), bits of
    ``GroupingOptions.flags()``. What they raise is passed on. Raises ValueError if ``raw`` is no such message.
    """
    cdef DrgRequest request = DrgRequest.__new__(DrgRequest)
    cdef EncodedVersion version
    cdef Buffer out
    request.begin(raw)
    out = take_spare()
    try:
        version = request.group_one(&out, 1, known, flags)
        return None if version is None else (PyBytes_FromStringAndSize(<char*>out.at, out.size), version.release)
    finally:
        leave_spare(out)


cdef inline object choice_of(const Choice* choice):
    if choice.name.size:
        return (<const char*>choice.name.at)[:choice.name.size].decode()
    return choice.number


cdef inline void keys_of(const Text* text, uint32_t count, uint64_t* key) noexcept nogil:
    cdef uint32_t i
    for i in range(count):
        key[i] = _msdrg.key_of(<const char*>text[i].at, text[i].size)


cdef inline bint is_null(Text text) noexcept nogil:
    """The word "null" in any case stands for no admitting diagnosis."""
    cdef int i
    if text.size != 4:
        return False
    for i in range(4):
        if text.at[i] | 0x20 != <uint8_t>b"null"[i]:
            return False
    return True


# --- MS-DRG results -----------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class EncodedVersion:
    """What the answers of one MS-DRG version say in words, encoded once: a result is copied together from it.

    ``drgs`` and ``mdcs``: by number, the fields of a Grouping message that the DRG and the MDC decide (titles, weight).
    ``hacs``: encoded ``hacs`` fields of a DiagnosisResult in the order in which they are written, each with its display
    (row of ``compile_msdrg.HAC_DISPLAYS``, 255: none) and status. ``failed``: what a DrgResult says beside id and
    version where no row applies to the claim. ``release``: name of the version's pack, "msdrg/43.1".
    """

    cdef int check(self) except -1:
        if self._kept is None:
            raise TypeError("a version is made by its constructor")
        return 0

    def __init__(self, Grouper grouper not None, dict drgs, dict mdcs, list hacs, bytes failed):
        cdef Version* v = &self.version
        cdef uint16_t* rank_of
        cdef Py_ssize_t number
        cdef bytes text
        cdef list chunks
        if self._kept is not None:
            raise TypeError("a version is encoded once")
        self.release = f"msdrg/{grouper.version}"
        v.grouper = &grouper.tables
        if any(not 0 <= number < 32768 for number in (*drgs, *mdcs)):
            raise ValueError("expected numbers from 0 to 32767")
        v.n_drgs = max(drgs, default=-1) + 1
        v.n_mdcs = max(mdcs, default=-1) + 1
        chunks = [grouper.version.encode(), failed]
        by_drg = spans_of(chunks, v.n_drgs, drgs)
        by_mdc = spans_of(chunks, v.n_mdcs, mdcs)
        numbered = {display * HAC_STATUSES + status: data for display, status, data in hacs}
        by_hac = spans_of(chunks, 256 * HAC_STATUSES, numbered)
        ranks = bytearray(256 * HAC_STATUSES * sizeof(uint16_t))
        rank_of = <uint16_t*>PyByteArray_AS_STRING(ranks)
        for rank, number in enumerate(numbered):
            rank_of[number] = rank
        text = b"".join(chunks)
        self._kept = [grouper, by_drg, by_mdc, by_hac, ranks, text]
        v.drg = <const Span*>PyByteArray_AS_STRING(by_drg)
        v.mdc = <const Span*>PyByteArray_AS_STRING(by_mdc)
        v.hac = <const Span*>PyByteArray_AS_STRING(by_hac)
        v.hac_rank = rank_of
        v.text = <const uint8_t*>PyBytes_AS_STRING(text)
        v.name.at = v.text
        v.name.size = len(chunks[0])
        v.failed.at = v.text + v.name.size
        v.failed.size = len(failed)
        v.most_grouping = max(map(len, drgs.values()), default=0) + max(map(len, mdcs.values()), default=0)
        v.most_hac = max((len(data) for _, _, data in hacs), default=0)


cdef inline uint8_t* put_span(uint8_t* to, const Version* version, const Span* span) noexcept nogil:
    return put_bytes(to, version.text + span.start, span.size)


cdef uint8_t* put_grouping(uint8_t* to, uint32_t field, const Version* version, const Grouping* g) noexcept nogil:
    cdef uint8_t[7 * FIELD] numbers
    cdef uint8_t* end = numbers
    cdef const Span* mdc = NULL
    cdef const Span* drg = NULL
    cdef Py_ssize_t size
    end = put_int(end, 1 << 3, g.mdc)
    end = put_int(end, 2 << 3, g.drg)
    end = put_int(end, 3 << 3, g.base_drg)
    end = put_int(end, 4 << 3, g.med_surg)
    end = put_int(end, 5 << 3, g.severity)
    end = put_int(end, 6 << 3, g.sdx_severity)
    end = put_int(end, 7 << 3, g.return_code)
    size = end - numbers
    # MDC 0 of an ungroupable claim is no MDC; its title is that of the pre-MDC list.
    if g.return_code == _msdrg.RETURN_OK and 0 <= g.mdc < version.n_mdcs:
        mdc = version.mdc + g.mdc
        size += mdc.size
    if 0 <= g.drg < version.n_drgs:
        drg = version.drg + g.drg
        size += drg.size
    to = put_varint(to, tag(field, LENGTH))
    to = put_varint(to, size)
    to = put_bytes(to, numbers, end - numbers)
    if mdc != NULL:
        to = put_span(to, version, mdc)
    if drg != NULL:
        to = put_span(to, version, drg)
    return to


cdef uint8_t* put_diagnosis(
    uint8_t* to, const Version* version, Text code, const DiagnosisResult* dx
) noexcept nogil:
    cdef uint16_t[4] hacs
    cdef uint16_t hac
    cdef int i, j
    cdef Py_ssize_t size = (
        size_of_string(code) + size_of_int(dx.recognized != 0) + size_of_int(dx.initial_usage)
        + size_of_int(dx.final_usage) + size_of_int(dx.affects) + size_of_int(dx.poa_error)
    )
    for i in range(dx.n_hacs):
        hac = dx.hac_display[i] * HAC_STATUSES + dx.hac_status[i]
        size += version.hac[hac].size
        j = i
        while j and version.hac_rank[hacs[j - 1]] > version.hac_rank[hac]:
            hacs[j] = hacs[j - 1]
            j -= 1
        hacs[j] = hac
    to = put_varint(to, tag(8, LENGTH))
    to = put_varint(to, size)
    to = put_string(to, 1 << 3 | LENGTH, code)
    to = put_int(to, 2 << 3, dx.recognized != 0)
    to = put_int(to, 3 << 3, dx.initial_usage)
    to = put_int(to, 4 << 3, dx.final_usage)
    to = put_int(to, 5 << 3, dx.affects)
    to = put_int(to, 6 << 3, dx.poa_error)
    for i in range(dx.n_hacs):
        to = put_span(to, version, version.hac + hacs[i])
    return to


cdef uint8_t* put_procedure(uint8_t* to, Text code, const ProcedureResult* px) noexcept nogil:
    cdef uint8_t[8] usage
    cdef int i, n = 0
    for i in range(6):
        if (px.hac_usage >> i) & 1:
            usage[n] = <uint8_t>(i + 1)
            n += 1
    to = put_varint(to, tag(9, LENGTH))
    to = put_varint(
        to,
        size_of_string(code) + size_of_int(px.recognized != 0) + size_of_int(px.operating_room != 0)
        + size_of_int(px.affects) + (2 + n if n else 0),
    )
    to = put_string(to, 1 << 3 | LENGTH, code)
    to = put_int(to, 2 << 3, px.recognized != 0)
    to = put_int(to, 3 << 3, px.operating_room != 0)
    to = put_int(to, 4 << 3, px.affects)
    if n:
        to = put_varint(to, tag(5, LENGTH))
        to = put_varint(to, n)
        to = put_bytes(to, usage, n)
    return to


cdef bint put_drg(
    Buffer* out, uint32_t field, const Version* version, const WireClaim* claim, const Text* dx_code,
    const Text* px_code, const Result* result, const DiagnosisResult* dx, const ProcedureResult* px
) noexcept nogil:
    """Append one result; False if there is no memory. ``dx`` and ``px`` NULL: without the codes."""
    cdef Py_ssize_t i
    # Never less than what is written below.
    cdef Py_ssize_t most = (
        8 * FIELD + claim.claim_id.size + version.name.size + version.failed.size
        + 2 * (8 * FIELD + version.most_grouping)
    )
    cdef uint8_t* start
    cdef uint8_t* to
    if dx != NULL:
        for i in range(claim.n_dx):
            most += 7 * FIELD + dx_code[i].size + dx[i].n_hacs * version.most_hac
        for i in range(claim.n_px):
            most += 7 * FIELD + px_code[i].size
    if not grow(out, most):
        return False
    start = begin_message(out)
    to = put_string(start, 1 << 3 | LENGTH, claim.claim_id)
    to = put_string(to, 2 << 3 | LENGTH, version.name)
    if result.error:
        to = put_bytes(to, version.failed.at, version.failed.size)
    else:
        to = put_grouping(to, 3, version, &result.initial)
        to = put_grouping(to, 4, version, &result.final)
        to = put_int(to, 5 << 3, result.hac_status)
        to = put_int(to, 6 << 3, result.hac_categories)
        to = put_int(to, 7 << 3, result.admit_flag)
        if dx != NULL:
            for i in range(claim.n_dx):
                to = put_diagnosis(to, version, dx_code[i], dx + i)
            for i in range(claim.n_px):
                to = put_procedure(to, px_code[i], px + i)
    end_message(out, field, start, to)
    return True
