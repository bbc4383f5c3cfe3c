"""Validation of codes from bytes to bytes: BatchValidateCodes and ValidateCode with no Python object a code in between.

Two ways to an answer must not come to differ. The words come from one place: ``Wording`` takes apart the templates that
``engine.codes`` puts its sentences together from. And this way only takes what is *plain*; what is not is handed back
as bytes (``other``), to be answered by the path that reads messages: a system, release or date that is wrong, and a
code whose answer is not made of copies, such as a malformed one that is not ASCII. What is no protobuf at all is
refused, exactly where the protobuf runtime refuses it.

A request object reads its bytes, whole, into structs; ``answer`` looks all codes up and writes the response, both with
the GIL released. In between, under the GIL, the caller says which release and day the items' choices stand for.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport INT32_MIN, int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp, memmove, memset

import string

from ._core cimport (
    OPEN_END,
    PRINTED,
    STATUS_EXPIRED,
    STATUS_HEADER,
    STATUS_MALFORMED,
    STATUS_NOT_YET,
    STATUS_VALID,
    CodeIndex,
    CodeTable,
    Day,
    Found,
    Spell,
    day_number_of,
    day_of,
    fetch,
    first_child,
    is_complete,
    key_of,
    look_up,
    next_sibling,
    print_key,
    print_node,
    spell_on,
    status_of,
    text_of,
)
from ._memory cimport prefetch
from ._proto cimport (
    FIELD,
    LENGTH,
    VARINT,
    Buffer,
    Reader,
    Text,
    begin_message,
    end_message,
    grow,
    is_utf8,
    put_bytes,
    put_int,
    put_string,
    put_text,
    put_varint,
    read_int32,
    read_string,
    read_tag,
    read_text,
    reader_of,
    size_of_varint,
    skip,
)
from ._wire cimport BRIEF, leave_spare, take_spare

cdef enum:
    BLOCK = 16              # codes whose rows are on their way from memory at a time
    RECENT = 2048           # places where the choices of a request are remembered while it is read
    TRIES = 8               # of these looked at for one choice
    MOST_SEEN = 128         # codes followed from one that was replaced; more are for the path through messages
    DISPLAY = 2 * PRINTED   # bytes of a printed code at most
    ISO = 10                # bytes of a date in words
    LATEST = 99999999       # CCYYMMDD that a pack can mean by any date


# --- the words ----------------------------------------------------------------------------------------------

cdef enum:
    # Sentences and parts of sentences.
    SAY_VALID
    SAY_HEADER
    SAY_EXAMPLES
    SAY_NOT_YET
    SAY_EXPIRED
    SAY_AGAIN
    SAY_GROUP
    SAY_UNKNOWN
    SAY_MALFORMED
    SAY_REPLACED
    SAY_SEPARATOR
    SAY_MORE
    SAY_CUT
    SENTENCES               # how many

_NAMES = (
    "valid", "header", "examples", "not_yet", "expired", "again", "group", "unknown", "malformed", "replaced",
    "separator", "more", "cut",
)

cdef enum:
    # What follows a piece of a sentence.
    FIELD_NONE
    FIELD_CODE
    FIELD_NORMALIZED
    FIELD_DISPLAY
    FIELD_DATE
    FIELD_FIRST
    FIELD_LAST
    FIELD_AGAIN
    FIELD_KIND
    FIELD_SYSTEM
    FIELD_EXAMPLES
    FIELD_REPLACED

_FIELDS = {
    None: FIELD_NONE,
    "code": FIELD_CODE,
    "normalized": FIELD_NORMALIZED,
    "display": FIELD_DISPLAY,
    "date": FIELD_DATE,
    "effective_from": FIELD_FIRST,
    "effective_to": FIELD_LAST,
    "again": FIELD_AGAIN,
    "kind": FIELD_KIND,
    "system": FIELD_SYSTEM,
    "examples": FIELD_EXAMPLES,
    "replaced_by": FIELD_REPLACED,
}

cdef struct Piece:
    Text text               # as it is
    int field               # FIELD_*, after it

cdef struct Sentence:
    Py_ssize_t first        # its pieces
    Py_ssize_t pieces

cdef struct Words:
    Sentence[SENTENCES] sentences
    const Piece* pieces
    const Text* kinds       # names of the kinds of nodes
    Text separator
    Text more
    Text cut
    Py_ssize_t examples     # codes that a header's sentence names
    Py_ssize_t longest      # characters of a quoted code that is shown whole
    Py_ssize_t shown        # characters that are shown of a longer one
    Py_ssize_t literals     # bytes of all pieces
    Py_ssize_t fields       # that follow them
    Py_ssize_t most         # bytes of the longest field that the words decide


cdef Text text_in(bytes text) noexcept:
    cdef Text found
    found.at = <const uint8_t*>PyBytes_AS_STRING(text)
    found.size = PyBytes_GET_SIZE(text)
    return found


@cython.final
@cython.auto_pickle(False)
cdef class Wording:
    """The sentences of the answers, taken apart.

    ``sentences``: ``engine.codes.SENTENCES``, templates of ``str.format`` with fields that are names. ``kinds``: names
    of the kinds of nodes. ``examples``: how many codes the sentence of a header names. ``longest``: characters of a
    malformed code, quoted, that are shown; ``shown``: that are shown of a longer one. Raises ValueError for other
    templates than are known here.
    """

    cdef Words words
    cdef Buffer pieces      # Piece
    cdef Buffer kinds       # Text
    cdef int n_kinds
    cdef list _kept

    def __init__(self, sentences, kinds, int examples, int longest, int shown):
        cdef Words* words = &self.words
        cdef Sentence* sentence
        cdef Piece piece
        cdef Text kind
        cdef Py_ssize_t number
        if self._kept is not None:
            raise TypeError("sentences are taken apart once")
        if set(sentences) != set(_NAMES):
            raise ValueError(f"expected the sentences {', '.join(_NAMES)}, got {', '.join(sentences)}")
        if examples < 0 or not 0 <= shown <= longest:
            raise ValueError("expected 0 or more examples, and no more shown of a longer code than of the longest")
        self._kept = []
        words.examples, words.longest, words.shown = examples, longest, shown
        for number, name in enumerate(_NAMES):
            sentence = &words.sentences[number]
            sentence.first = self.pieces.size // <Py_ssize_t>sizeof(Piece)
            for literal, field, spec, conversion in string.Formatter().parse(sentences[name]):
                if field not in _FIELDS or spec or conversion:
                    raise ValueError(f"{name}: a sentence with a field {field!r} that is not known")
                piece.text = self.keep(literal)
                piece.field = _FIELDS[field]
                if not grow(&self.pieces, sizeof(Piece)):
                    raise MemoryError
                (<Piece*>(self.pieces.at + self.pieces.size))[0] = piece
                self.pieces.size += sizeof(Piece)
                sentence.pieces += 1
                words.literals += piece.text.size
                words.fields += piece.field != FIELD_NONE
        words.pieces = <const Piece*>self.pieces.at
        words.separator = self.keep(sentences["separator"])
        words.more = self.keep(sentences["more"])
        words.cut = self.keep(sentences["cut"])
        words.most = max(
            words.longest + words.cut.size + 8,
            words.examples * (DISPLAY + words.separator.size) + words.more.size,
            ISO,
            DISPLAY,
        )
        for name in kinds:
            kind = self.keep(name)
            words.most = max(words.most, kind.size)
            if not grow(&self.kinds, sizeof(Text)):
                raise MemoryError
            (<Text*>(self.kinds.at + self.kinds.size))[0] = kind
            self.kinds.size += sizeof(Text)
            self.n_kinds += 1
        words.kinds = <const Text*>self.kinds.at

    def __dealloc__(self):
        free(self.pieces.at)
        free(self.kinds.at)

    cdef Text keep(self, str text):
        cdef bytes encoded = text.encode()
        self._kept.append(encoded)
        return text_in(encoded)


# --- a release on a day -------------------------------------------------------------------------------------

cdef struct OnDay:
    const CodeTable* table
    const Words* words
    const uint32_t* node_title
    const uint8_t* title_text
    const uint64_t* rep_key
    const int32_t* rep_date
    const uint64_t* rep_new
    Py_ssize_t replacements
    int dot
    Day day
    uint8_t[ISO] iso        # the day in words
    Text system
    Text about              # what every answer says of its release and day, encoded


@cython.final
@cython.auto_pickle(False)
cdef class ReleaseOnDay:
    """A release of a code system on a day (CCYYMMDD), ready to answer.

    ``about``: the fields of a CodeValidation that the two decide (system, release, date), encoded. ``id``:
    ``system/release``. Raises ValueError if the calendar has no such day.
    """

    cdef OnDay on
    cdef readonly str id
    cdef CodeIndex _index
    cdef Wording _wording
    cdef bytes _about
    cdef bytes _system

    def __init__(self, CodeIndex index not None, Wording wording not None, int date, bytes about not None):
        cdef OnDay* on = &self.on
        if self._index is not None:
            raise TypeError("a release on a day is made once")
        if day_number_of(date) == INT32_MIN:
            raise ValueError(f"{date} is no day of the calendar")
        # The kinds that the index was opened with are those that the wording has names for.
        if wording._kept is None or index.kinds > wording.n_kinds:
            raise ValueError(f"expected names of {index.kinds} kinds of nodes")
        self._system = index.system.encode()
        self._about = about
        self._wording = wording
        self.id = f"{index.system}/{index.release}"
        on.table = &index.table
        on.words = &wording.words
        on.node_title = index.node_title
        on.title_text = index.title_text
        on.rep_key = index.rep_key
        on.rep_date = index.rep_date
        on.rep_new = index.rep_new
        on.replacements = index.replacements
        on.dot = index.dot
        on.day = day_of(date)
        put_iso(on.iso, date)
        on.system = text_in(self._system)
        on.about = text_in(about)
        self._index = index

    cdef const OnDay* get(self) except NULL:
        if self._index is None:
            raise TypeError("a release on a day is made by its constructor")
        return &self.on


# --- one code -----------------------------------------------------------------------------------------------

cdef struct Finding:        # what is said of one code
    uint64_t key
    Found found
    Text title
    int32_t first           # CCYYMMDD of the stretch that the status speaks of, 0: none
    int32_t last            # likewise; 0: none or open
    int32_t again           # first day of a later one, 0: none
    uint32_t replaced       # position of the first code that replaces it
    uint32_t n_replaced
    uint32_t n_display
    uint8_t[DISPLAY] display
    uint8_t status
    uint8_t plain           # 0: for the path through messages


cdef inline void look(const OnDay* on, Finding* finding) noexcept nogil:
    """Look the key up, and ask memory for what ``read_finding`` will read."""
    cdef Found* found = &finding.found
    finding.status = look_up(on.table, finding.key, on.day, found)
    if found.node >= 0:
        prefetch(on.node_title + found.node)
        prefetch(on.table.node_key + found.node)
        prefetch(on.table.node_kind + found.node)
    if found.code >= 0:
        prefetch(on.table.code_spell + found.code)


cdef inline void ask_for_text(const OnDay* on, const Finding* finding) noexcept nogil:
    if finding.found.node >= 0:
        prefetch(on.title_text + on.node_title[finding.found.node])
        prefetch(on.title_text + on.node_title[finding.found.node] + 64)
    if finding.found.code >= 0:
        prefetch(on.table.spell_first + on.table.code_spell[finding.found.code])
        prefetch(on.table.spell_last + on.table.code_spell[finding.found.code])


cdef int read_finding(const OnDay* on, Text code, Finding* finding, Buffer* replaced) noexcept nogil:
    """All that is said of a code that was looked up; -1: no memory."""
    cdef const CodeTable* table = on.table
    cdef int32_t node = finding.found.node
    cdef Spell spell
    cdef uint32_t i
    cdef int count
    finding.plain = 0
    finding.first = finding.last = finding.again = 0
    finding.replaced = finding.n_replaced = 0
    finding.title.at = on.title_text
    finding.title.size = 0
    if is_complete(finding.status):
        spell = spell_on(table, finding.found.code, on.day.date)
        finding.first = spell.first
        finding.last = 0 if spell.last == OPEN_END else spell.last
    if finding.status == STATUS_EXPIRED and finding.found.code >= 0:
        for i in range(table.code_spell[finding.found.code], table.code_spell[finding.found.code + 1]):
            if table.spell_first[i] > on.day.date:
                finding.again = table.spell_first[i]
                break
    # No date of a pack that its compiler wrote.
    if not (0 <= finding.first <= LATEST and 0 <= finding.last <= LATEST and 0 <= finding.again <= LATEST):
        return 0
    if finding.status == STATUS_HEADER and node < 0:
        return 0
    if finding.status == STATUS_MALFORMED:
        # How the others are quoted depends on what Unicode says of their characters.
        for i in range(code.size):
            if code.at[i] >= 0x80:
                return 0
    if node >= 0:
        finding.title.at += on.node_title[node]
        finding.title.size = on.node_title[node + 1] - on.node_title[node]
        if not is_utf8(finding.title):
            return 0
    if finding.status != STATUS_VALID:
        finding.replaced = <uint32_t>(replaced.size // <Py_ssize_t>sizeof(uint64_t))
        count = find_replacements(on, finding.key, replaced)
        if count < 0:
            return 0 if count == -1 else -1
        finding.n_replaced = count
    finding.n_display = put_printed(finding.display, on, finding.key, node) - finding.display
    finding.plain = 1
    return 0


cdef inline Py_ssize_t first_replacement(const OnDay* on, uint64_t key) noexcept nogil:
    """Position of the first conversion of a key that is not below this one."""
    cdef Py_ssize_t begin = 0
    cdef Py_ssize_t end = on.replacements
    cdef Py_ssize_t middle
    while begin < end:
        middle = begin + (end - begin) // 2
        if on.rep_key[middle] < key:
            begin = middle + 1
        else:
            end = middle
    return begin


cdef int ask_next(const OnDay* on, uint64_t key, uint64_t* waiting, int* count) noexcept nogil:
    """Add the codes that replace a key on the day, the first one last; False if they are too many."""
    cdef Py_ssize_t begin = first_replacement(on, key)
    cdef Py_ssize_t end = begin
    while end < on.replacements and on.rep_key[end] == key:
        end += 1
        if end - begin > MOST_SEEN - count[0]:
            return False
    while end > begin:
        end -= 1
        if on.rep_date[end] <= on.day.date:
            waiting[count[0]] = on.rep_new[end]
            count[0] += 1
    return True


cdef inline bint is_among(uint64_t key, const uint64_t* keys, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if keys[i] == key:
            return True
    return False


cdef int find_replacements(const OnDay* on, uint64_t key, Buffer* replaced) noexcept nogil:
    """Append the keys of the codes reported on the day where ``key`` was: the walk of ``engine.codes._replacements``.

    Returns how many; -1: too many to follow, -2: no memory.
    """
    cdef uint64_t[MOST_SEEN] waiting
    cdef uint64_t[MOST_SEEN] seen
    cdef char[8] text
    cdef uint64_t* found
    cdef uint64_t new
    cdef int n_waiting = 0
    cdef int n_seen = 1
    cdef int n_found = 0
    cdef int length, i
    if not ask_next(on, key, waiting, &n_waiting):
        return -1
    if n_waiting == 0:
        return 0
    if not grow(replaced, MOST_SEEN * sizeof(uint64_t)):
        return -2
    found = <uint64_t*>(replaced.at + replaced.size)
    seen[0] = key
    while n_waiting:
        n_waiting -= 1
        new = waiting[n_waiting]
        if is_among(new, seen, n_seen):
            continue
        if n_seen == MOST_SEEN:
            return -1
        seen[n_seen] = new
        n_seen += 1
        # Through its text: a pack may hold keys that are none.
        length = text_of(new, text)
        if status_of(on.table, key_of(text, length), on.day) == STATUS_VALID:
            found[n_found] = new
            n_found += 1
        elif not ask_next(on, new, waiting, &n_waiting):
            return -1
    if n_found == 0:
        # None is in force: those that replaced it itself, each once.
        ask_next(on, key, waiting, &n_waiting)
        for i in range(n_waiting - 1, -1, -1):
            if not is_among(waiting[i], found, n_found):
                found[n_found] = waiting[i]
                n_found += 1
    replaced.size += n_found * <Py_ssize_t>sizeof(uint64_t)
    return n_found


# Writers return where they stopped; there is room.

cdef inline uint8_t* put_latin1(uint8_t* to, const char* text, int length) noexcept nogil:
    """The characters of a key, which are ASCII in every pack that its compiler wrote."""
    cdef uint8_t c
    cdef int i
    for i in range(length):
        c = <uint8_t>text[i]
        if c >= 0x80:
            to[0] = 0xC0 | c >> 6
            to += 1
            c = 0x80 | (c & 0x3F)
        to[0] = c
        to += 1
    return to


cdef inline uint8_t* put_node(uint8_t* to, const OnDay* on, int32_t node) noexcept nogil:
    cdef char[PRINTED] text
    return put_latin1(to, text, print_node(on.table, on.dot, node, text))


cdef inline uint8_t* put_printed(uint8_t* to, const OnDay* on, uint64_t key, int32_t node) noexcept nogil:
    """A code as the book prints it, whether the release has it or not."""
    cdef char[PRINTED] text
    if node >= 0:
        return put_node(to, on, node)
    return put_latin1(to, text, print_key(key, on.dot, text))


cdef uint8_t* put_iso(uint8_t* to, int32_t date) noexcept nogil:
    """CCYY-MM-DD."""
    cdef int i
    for i in range(ISO - 1, -1, -1):
        if i == 4 or i == 7:
            to[i] = c'-'
        else:
            to[i] = <uint8_t>(c'0' + date % 10)
            date //= 10
    return to + ISO


cdef uint8_t* put_quoted(uint8_t* to, const Words* words, Text code) noexcept nogil:
    """What Python's ``repr`` makes of an ASCII text, cut to the longest that is shown."""
    cdef uint8_t* start = to
    cdef Py_ssize_t i
    cdef uint8_t c
    cdef uint8_t quote = c"'"
    for i in range(code.size):
        if code.at[i] == c'"':
            quote = c"'"
            break
        if code.at[i] == c"'":
            quote = c'"'
    to[0] = quote
    to += 1
    i = 0
    # The last escape may pass the longest by its four characters.
    while i < code.size and to - start <= words.longest:
        c = code.at[i]
        i += 1
        if c == quote or c == c'\\' or c == c'\n' or c == c'\r' or c == c'\t':
            to[0] = c'\\'
            to[1] = c'n' if c == c'\n' else c'r' if c == c'\r' else c't' if c == c'\t' else c
            to += 2
        elif c < 0x20 or c == 0x7F:
            to[0] = c'\\'
            to[1] = c'x'
            to[2] = b"0123456789abcdef"[c >> 4]
            to[3] = b"0123456789abcdef"[c & 15]
            to += 4
        else:
            to[0] = c
            to += 1
    to[0] = quote
    to += 1
    if to - start > words.longest:
        to = put_bytes(start + words.shown, words.cut.at, words.cut.size)
    return to


cdef uint8_t* put_sentence(
    uint8_t* to, const OnDay* on, Text code, const Finding* finding, const uint64_t* replaced, int which
) noexcept nogil:
    cdef const Words* words = on.words
    cdef const Sentence* sentence = &words.sentences[which]
    cdef const Piece* piece
    cdef char[8] text
    cdef Py_ssize_t i, k
    cdef int32_t node
    for i in range(sentence.first, sentence.first + sentence.pieces):
        piece = words.pieces + i
        to = put_bytes(to, piece.text.at, piece.text.size)
        if piece.field == FIELD_NONE:
            continue
        elif piece.field == FIELD_DISPLAY:
            to = put_bytes(to, finding.display, finding.n_display)
        elif piece.field == FIELD_DATE:
            to = put_bytes(to, on.iso, ISO)
        elif piece.field == FIELD_FIRST:
            to = put_iso(to, finding.first)
        elif piece.field == FIELD_LAST:
            to = put_iso(to, finding.last)
        elif piece.field == FIELD_AGAIN:
            to = put_iso(to, finding.again)
        elif piece.field == FIELD_SYSTEM:
            to = put_bytes(to, on.system.at, on.system.size)
        elif piece.field == FIELD_NORMALIZED:
            to = put_bytes(to, text, text_of(finding.key, text))
        elif piece.field == FIELD_KIND:
            if finding.found.node >= 0:
                k = on.table.node_kind[finding.found.node]
                to = put_bytes(to, words.kinds[k].at, words.kinds[k].size)
        elif piece.field == FIELD_CODE:
            to = put_quoted(to, words, code)
        elif piece.field == FIELD_EXAMPLES:
            node = first_child(on.table, finding.found.node)
            k = 0
            while node >= 0 and k < words.examples:
                if k:
                    to = put_bytes(to, words.separator.at, words.separator.size)
                to = put_node(to, on, node)
                node = next_sibling(on.table, node)
                k += 1
            if node >= 0:
                to = put_bytes(to, words.more.at, words.more.size)
        elif piece.field == FIELD_REPLACED:
            for k in range(finding.n_replaced):
                if k:
                    to = put_bytes(to, words.separator.at, words.separator.size)
                to = put_replacement(to, on, replaced[k])
    return to


cdef inline uint8_t* put_replacement(uint8_t* to, const OnDay* on, uint64_t key) noexcept nogil:
    cdef Found found
    look_up(on.table, key, on.day, &found)
    return put_printed(to, on, key, found.node)


cdef uint8_t* put_message(
    uint8_t* to, const OnDay* on, Text code, const Finding* finding, const uint64_t* replaced
) noexcept nogil:
    """The finding as a sentence: what ``engine.codes._message`` says."""
    if finding.status == STATUS_VALID:
        return put_sentence(to, on, code, finding, replaced, SAY_VALID)
    if finding.status == STATUS_MALFORMED:
        return put_sentence(to, on, code, finding, replaced, SAY_MALFORMED)
    if finding.status == STATUS_HEADER:
        to = put_sentence(to, on, code, finding, replaced, SAY_HEADER)
        if first_child(on.table, finding.found.node) >= 0:
            to = put_sentence(to, on, code, finding, replaced, SAY_EXAMPLES)
    elif finding.status == STATUS_NOT_YET:
        to = put_sentence(to, on, code, finding, replaced, SAY_NOT_YET)
    elif finding.status == STATUS_EXPIRED:
        to = put_sentence(to, on, code, finding, replaced, SAY_EXPIRED)
        if finding.again:
            to = put_sentence(to, on, code, finding, replaced, SAY_AGAIN)
    elif finding.found.node >= 0:
        to = put_sentence(to, on, code, finding, replaced, SAY_GROUP)
    else:
        to = put_sentence(to, on, code, finding, replaced, SAY_UNKNOWN)
    if finding.n_replaced:
        to = put_sentence(to, on, code, finding, replaced, SAY_REPLACED)
    return to


cdef bint put_answer(
    Buffer* out, const OnDay* on, Text code, const Finding* finding, const uint64_t* replaced
) noexcept nogil:
    """Append one result: a CodeValidation as field 1. False if there is no memory."""
    cdef const Words* words = on.words
    # Never less than what is written below: every sentence at once, every field of them the longest.
    cdef Py_ssize_t replacing = finding.n_replaced * (DISPLAY + FIELD + words.separator.size)
    cdef Py_ssize_t most = (
        16 * FIELD + 8 + DISPLAY + code.size + on.about.size + finding.title.size + replacing
        + words.literals + words.fields * (words.most + on.system.size + replacing)
    )
    cdef uint8_t[DISPLAY] display
    cdef uint8_t* to
    cdef uint8_t* message
    cdef Text text
    cdef Py_ssize_t size
    cdef uint32_t i
    if not grow(out, most):
        return False
    to = put_string(begin_message(out), 1 << 3 | LENGTH, code)
    if finding.key:
        to[0] = 2 << 3 | LENGTH
        size = text_of(finding.key, <char*>to + 2)
        to[1] = <uint8_t>size
        to += 2 + size
    text.at = finding.display
    text.size = finding.n_display
    to = put_string(to, 3 << 3 | LENGTH, text)
    to = put_bytes(to, on.about.at, on.about.size)
    to = put_int(to, 7 << 3, finding.status)
    to = put_int(to, 8 << 3, finding.status == STATUS_VALID)
    to = put_int(to, 9 << 3, is_complete(finding.status))
    to = put_int(to, 10 << 3, finding.first)
    to = put_int(to, 11 << 3, finding.last)
    text.at = display
    for i in range(finding.n_replaced):
        text.size = put_replacement(display, on, replaced[i]) - display
        to = put_text(to, 12 << 3 | LENGTH, text)
    to = put_string(to, 13 << 3 | LENGTH, finding.title)
    # As with a message: written as if its length took one byte, and moved where it does not.
    message = to + 2
    to = put_message(message, on, code, finding, replaced)
    size = to - message
    if size > 127:
        i = size_of_varint(size) - 1
        memmove(message + i, message, size)
        to += i
    (message - 2)[0] = 14 << 3 | LENGTH
    put_varint(message - 1, size)
    if size == 0:
        to = message - 2
    end_message(out, 1, begin_message(out), to)
    return True


# --- requests -----------------------------------------------------------------------------------------------

cdef struct Choice:         # what an item says about who is to answer, or what a request says
    Text system
    Text release
    int32_t date

cdef struct Item:
    Text whole              # its message
    Text code
    uint32_t choice

cdef struct Gap:            # an item that is not plain
    Py_ssize_t at           # where its result belongs in the response
    Py_ssize_t item


cdef inline bint are_equal(Text a, Text b) noexcept nogil:
    return a.size == b.size and (a.size == 0 or memcmp(a.at, b.at, a.size) == 0)


cdef inline bint is_same(const Choice* a, const Choice* b) noexcept nogil:
    return a.date == b.date and are_equal(a.release, b.release) and are_equal(a.system, b.system)


cdef inline str decoded(Text text):
    return (<const char*>text.at)[:text.size].decode()


cdef bint read_fields(Text message, int depth, uint32_t first, Text* code, Choice* choice) noexcept nogil:
    """Read an item or a request for one code, whose fields differ in order only. False: not protobuf.

    ``depth``: in how many messages it is. ``first``: the number of the system, which is 1 in a request for one code
    and 2 in an item; the code has the other.
    """
    cdef Reader r = reader_of(message)
    cdef uint32_t field
    code.at = choice.system.at = choice.release.at = message.at
    code.size = choice.system.size = choice.release.size = 0
    choice.date = 0
    while r.at < r.end:
        if not read_tag(&r, &field):
            return False
        if field == (3 - first) << 3 | LENGTH:
            if not read_string(&r, code):
                return False
        elif field == first << 3 | LENGTH:
            if not read_string(&r, &choice.system):
                return False
        elif field == 3 << 3 | LENGTH:
            if not read_string(&r, &choice.release):
                return False
        elif field == 4 << 3 | VARINT:
            if not read_int32(&r, &choice.date):
                return False
        elif not skip(&r, field, depth):
            return False
    return True


@cython.final
@cython.auto_pickle(False)
cdef class CodesRequest:
    """The items of a BatchValidateCodesRequest, read from its bytes.

    Raises ValueError if ``raw`` is no such message; the GIL is released meanwhile.
    """

    cdef bytes raw
    cdef Choice batch           # of items that do not say it themselves
    cdef Buffer items           # Item
    cdef Buffer choice          # Choice
    cdef uint32_t[RECENT] recent        # choice + 1 by hash, 0: none

    def __init__(self, bytes raw not None):
        cdef Text whole
        cdef int found
        if self.raw is not None:
            raise TypeError("a request is read once")
        self.raw = raw
        whole = text_in(raw)
        self.batch.system.at = self.batch.release.at = whole.at
        with nogil:
            found = self.read(whole)
        if found < 0:
            raise MemoryError
        if found == 0:
            raise ValueError("not a message of this kind")

    def __dealloc__(self):
        free(self.items.at)
        free(self.choice.at)

    def __len__(self):
        """Number of items."""
        return self.items.size // <Py_ssize_t>sizeof(Item)

    @property
    def batch_choice(self):
        """What the request says for items that do not say it themselves: (system, release, date)."""
        return decoded(self.batch.system), decoded(self.batch.release), self.batch.date

    @property
    def choices(self):
        """What the items ask: (system, release, date), the request's own words where an item has none. The release is
        empty and the date 0 where neither is named; release and date of the request stand together.
        """
        cdef Choice* choice = <Choice*>self.choice.at
        cdef Py_ssize_t i
        cdef list found = []
        system, release, date = self.batch_choice
        for i in range(self.choice.size // <Py_ssize_t>sizeof(Choice)):
            own = decoded(choice[i].system) if choice[i].system.size else system
            if choice[i].release.size or choice[i].date:
                found.append((own, decoded(choice[i].release), choice[i].date))
            else:
                found.append((own, release, date))
        return found

    cdef int read(self, Text whole) noexcept nogil:
        """1: read; 0: not protobuf; -1: no memory."""
        cdef Reader r = reader_of(whole)
        cdef uint32_t field
        cdef Choice choice
        cdef Item* item
        while r.at < r.end:
            if not read_tag(&r, &field):
                return 0
            if field == 4 << 3 | LENGTH:
                if not grow(&self.items, sizeof(Item)):
                    return -1
                item = <Item*>(self.items.at + self.items.size)
                if not read_text(&r, &item.whole) or not read_fields(item.whole, 1, 2, &item.code, &choice):
                    return 0
                self.items.size += sizeof(Item)
                if not self.choose(item, &choice):
                    return -1
            elif field == 1 << 3 | LENGTH:
                if not read_string(&r, &self.batch.system):
                    return 0
            elif field == 2 << 3 | LENGTH:
                if not read_string(&r, &self.batch.release):
                    return 0
            elif field == 3 << 3 | VARINT:
                if not read_int32(&r, &self.batch.date):
                    return 0
            elif not skip(&r, field, 0):
                return 0
        return 1

    cdef bint choose(self, Item* item, const Choice* wanted) noexcept nogil:
        """Number the item's choice; False if there is no memory."""
        cdef Choice* choice = <Choice*>self.choice.at
        cdef uint32_t hash = <uint32_t>wanted.date * 2654435761U
        cdef uint32_t* recent = NULL
        cdef Py_ssize_t i
        # Most items ask what the one before asked.
        if self.items.size > <Py_ssize_t>sizeof(Item):
            i = (item - 1).choice
            if is_same(choice + i, wanted):
                item.choice = <uint32_t>i
                return True
        for i in range(wanted.system.size):
            hash = (hash ^ wanted.system.at[i]) * 16777619U
        for i in range(wanted.release.size):
            hash = (hash ^ wanted.release.at[i]) * 16777619U
        hash = (hash ^ hash >> 15) * 2246822519U
        for i in range(TRIES):
            recent = self.recent + (hash + <uint32_t>i) % RECENT
            if recent[0] == 0:
                break
            if is_same(choice + (recent[0] - 1), wanted):
                item.choice = recent[0] - 1
                return True
        if not grow(&self.choice, sizeof(Choice)):
            return False
        (<Choice*>(self.choice.at + self.choice.size))[0] = wanted[0]
        item.choice = <uint32_t>(self.choice.size // <Py_ssize_t>sizeof(Choice))
        # Where all places are taken, the last one changes hands.
        recent[0] = item.choice + 1
        self.choice.size += sizeof(Choice)
        return True

    def answer(self, days, other):
        """Return (response, used): the response's bytes, and a list that says of each choice whether an item with it
        was answered here.

        ``days``: the ReleaseOnDay of each of ``choices``, None where there is none. ``other``: called with a list, the
        bytes of every item that is not plain, if there are any; returns the list of their CodeValidations as bytes.
        """
        cdef Py_ssize_t n_choices = self.choice.size // <Py_ssize_t>sizeof(Choice)
        cdef Item* items = <Item*>self.items.at
        cdef list kept = list(days)
        cdef Buffer chosen, used, gaps, out
        cdef Gap* gap
        cdef Py_ssize_t i
        cdef bint done = False
        memset(&chosen, 0, sizeof(Buffer))
        memset(&used, 0, sizeof(Buffer))
        memset(&gaps, 0, sizeof(Buffer))
        out = take_spare()
        try:
            if len(kept) != n_choices:
                raise ValueError(f"expected {n_choices} releases on days, got {len(kept)}")
            if not grow(&chosen, (n_choices + 1) * sizeof(void*)) or not grow(&used, n_choices + 1):
                raise MemoryError
            memset(used.at, 0, n_choices + 1)
            for i in range(n_choices):
                (<const OnDay**>chosen.at)[i] = NULL if kept[i] is None else (<ReleaseOnDay?>kept[i]).get()
            with nogil:
                done = self.look_up_all(<const OnDay**>chosen.at, used.at, &gaps, &out)
            if not done:
                raise MemoryError
            gap = <Gap*>gaps.at
            if gaps.size == 0:
                response = PyBytes_FromStringAndSize(<char*>out.at, out.size)
            else:
                response = filled(&out, gap, list(other([
                    (<char*>items[gap[i].item].whole.at)[:items[gap[i].item].whole.size]
                    for i in range(gaps.size // <Py_ssize_t>sizeof(Gap))
                ])), gaps.size // <Py_ssize_t>sizeof(Gap))
            return response, [used.at[i] != 0 for i in range(n_choices)]
        finally:
            free(chosen.at)
            free(used.at)
            free(gaps.at)
            leave_spare(out)

    cdef bint look_up_all(self, const OnDay** chosen, uint8_t* used, Buffer* gaps, Buffer* out) noexcept nogil:
        """Write the results of all items but those that are not plain; False if there is no memory."""
        cdef const Item* items = <const Item*>self.items.at
        cdef Py_ssize_t n = self.items.size // <Py_ssize_t>sizeof(Item)
        cdef Finding[BLOCK] findings
        cdef const OnDay* on
        cdef Finding* finding
        cdef Buffer replaced
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t i, count
        cdef bint done = True
        memset(&replaced, 0, sizeof(Buffer))
        # A guess of what is needed; more is found when it is.
        done = grow(out, n * 192 + 4096)
        while done and start < n:
            count = min(<Py_ssize_t>BLOCK, n - start)
            for i in range(count):
                on = chosen[items[start + i].choice]
                findings[i].key = key_of(<const char*>items[start + i].code.at, items[start + i].code.size)
                if on != NULL:
                    fetch(on.table, findings[i].key)
            for i in range(count):
                on = chosen[items[start + i].choice]
                if on != NULL:
                    look(on, &findings[i])
            for i in range(count):
                on = chosen[items[start + i].choice]
                if on != NULL:
                    ask_for_text(on, &findings[i])
            for i in range(count):
                on = chosen[items[start + i].choice]
                finding = &findings[i]
                finding.plain = 0
                replaced.size = 0
                if on != NULL and read_finding(on, items[start + i].code, finding, &replaced) < 0:
                    done = False
                    break
                if finding.plain:
                    used[items[start + i].choice] = 1
                    done = put_answer(
                        out, on, items[start + i].code, finding, <const uint64_t*>replaced.at + finding.replaced
                    )
                else:
                    done = grow(gaps, sizeof(Gap))
                    if done:
                        (<Gap*>(gaps.at + gaps.size)).at = out.size
                        (<Gap*>(gaps.at + gaps.size)).item = start + i
                        gaps.size += sizeof(Gap)
                if not done:
                    break
            start += count
        free(replaced.at)
        return done


cdef bytes filled(const Buffer* out, const Gap* gaps, list others, Py_ssize_t count):
    """The response with what was answered elsewhere in its place."""
    cdef Py_ssize_t size = out.size
    cdef Py_ssize_t begin = 0
    cdef Py_ssize_t i
    cdef uint8_t* to
    cdef bytes response
    if len(others) != count:
        raise ValueError(f"expected {count} answers to the items that are not plain, got {len(others)}")
    for own in others:
        size += 1 + size_of_varint(PyBytes_GET_SIZE(<bytes?>own)) + PyBytes_GET_SIZE(own)
    response = PyBytes_FromStringAndSize(NULL, size)
    to = <uint8_t*>PyBytes_AS_STRING(response)
    for i in range(count):
        to = put_bytes(to, out.at + begin, gaps[i].at - begin)
        to = put_text(to, 1 << 3 | LENGTH, text_in(others[i]))
        begin = gaps[i].at
    put_bytes(to, out.at + begin, out.size - begin)
    return response


def answer_code(bytes raw not None, known, today):
    """Answer a ValidateCodeRequest: return (response, id of the release), or None if it is not plain.

    ``known``: gives the ReleaseOnDay of a choice by item access: (system, release, date), the date 0 for that of the
    release, and minus the current day where neither is named. What it raises is passed on. ``today``: called for the
    current day (CCYYMMDD) where it is needed.
    """
    cdef Text whole = text_in(raw)
    cdef Text code
    cdef Choice choice
    cdef ReleaseOnDay chosen
    cdef const OnDay* on
    cdef Finding finding
    cdef Buffer replaced, out
    cdef bint done = False
    if whole.size > BRIEF or not read_fields(whole, 0, 1, &code, &choice) or choice.date < 0:
        return None
    if choice.date == 0 and choice.release.size == 0:
        choice.date = -<int32_t>today()
    chosen = <ReleaseOnDay?>known[decoded(choice.system), decoded(choice.release), choice.date]
    on = chosen.get()
    memset(&replaced, 0, sizeof(Buffer))
    out = take_spare()
    try:
        finding.key = key_of(<const char*>code.at, code.size)
        look(on, &finding)
        done = read_finding(on, code, &finding, &replaced) == 0
        if done and not finding.plain:
            return None
        if not done or not put_answer(&out, on, code, &finding, <const uint64_t*>replaced.at + finding.replaced):
            raise MemoryError
        return PyBytes_FromStringAndSize(<char*>out.at, out.size), chosen.id
    finally:
        free(replaced.at)
        leave_spare(out)
