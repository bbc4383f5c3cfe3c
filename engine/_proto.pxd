# The protobuf wire format, read and written by hand: what the server's and the client's fast paths share.
#
# Everything here is inline, so that cimporting it loads no module: the client must not load the core. Readers accept
# what the protobuf runtime accepts and refuse what it refuses (https://protobuf.dev/programming-guides/encoding);
# tests/server/test_wire.py holds them against the generated classes. Writers are canonical: shortest varints, fields
# in the order they are written.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove


cdef enum:
    VARINT = 0              # wire types: the low three bits of a tag
    FIXED64 = 1
    LENGTH = 2              # length-delimited
    GROUP = 3
    END_GROUP = 4
    FIXED32 = 5

cdef enum:
    FIELD = 16              # bytes: longest tag and length, or tag and number, of a field, and a little more

cdef enum:
    MAX_DEPTH = 100         # messages and groups within one another, the outermost message not counted


cdef struct Text:           # bytes within a message; owned by whoever owns the message
    const uint8_t* at
    Py_ssize_t size         # bytes

cdef struct Reader:
    const uint8_t* at
    const uint8_t* end


cdef struct Buffer:         # bytes that grow; whoever has it frees ``at``
    uint8_t* at
    Py_ssize_t size
    Py_ssize_t room


cdef inline bint grow(Buffer* buffer, Py_ssize_t more) noexcept nogil:
    """Make room for ``more`` bytes at the end; False if there is no memory."""
    cdef void* moved
    cdef Py_ssize_t room
    if buffer.room - buffer.size >= more:
        return True
    # The first is of a few items mostly: enough for them at once.
    room = 2 * buffer.room + more + 256
    moved = realloc(buffer.at, room)
    if moved == NULL:
        return False
    buffer.at = <uint8_t*>moved
    buffer.room = room
    return True


cdef inline uint32_t tag(uint32_t field, uint32_t kind) noexcept nogil:
    return field << 3 | kind


cdef inline Reader reader_of(Text text) noexcept nogil:
    cdef Reader reader
    reader.at = text.at
    reader.end = text.at + text.size
    return reader


# Readers return False for what is not protobuf; the reader's position is then of no meaning.

cdef inline bint read_varint(Reader* r, uint64_t* value) noexcept nogil:
    """Up to ten bytes; bits beyond 64 are dropped, as the protobuf runtime does."""
    cdef uint64_t found
    cdef uint8_t byte
    cdef int shift = 7
    if r.at < r.end and r.at[0] < 0x80:
        value[0] = r.at[0]
        r.at += 1
        return True
    if r.at >= r.end:
        return False
    found = r.at[0] & 0x7F
    r.at += 1
    while r.at < r.end and shift < 70:
        byte = r.at[0]
        r.at += 1
        found |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = found
            return True
        shift += 7
    return False


cdef inline bint read_short(Reader* r, uint32_t* value, uint32_t largest) noexcept nogil:
    """A varint of at most five bytes and at most ``largest``: a tag or a length."""
    cdef const uint8_t* start = r.at
    cdef uint64_t found
    if not read_varint(r, &found) or r.at - start > 5 or found > largest:
        return False
    value[0] = <uint32_t>found
    return True


cdef inline bint read_tag(Reader* r, uint32_t* tag) noexcept nogil:
    """Field number << 3 | wire type; no field has number 0."""
    return read_short(r, tag, 0xFFFFFFFF) and tag[0] >= 8


cdef inline bint read_text(Reader* r, Text* text) noexcept nogil:
    """What follows a tag of wire type LENGTH: a string (not yet checked), bytes, or a message."""
    cdef uint32_t size
    if not read_short(r, &size, 0x7FFFFFFF) or size > r.end - r.at:
        return False
    text.at = r.at
    text.size = size
    r.at += size
    return True


cdef inline bint skip(Reader* r, uint32_t tag, int depth) noexcept nogil:
    """Pass over the value of a field that is not known, groups with all that is in them.

    ``depth``: in how many messages the field is, the outermost not counted.
    """
    cdef uint32_t[MAX_DEPTH + 1] groups
    cdef int open = 0
    cdef uint64_t number
    cdef Text text
    cdef uint32_t kind
    while True:
        kind = tag & 7
        if kind == VARINT:
            if not read_varint(r, &number):
                return False
        elif kind == LENGTH:
            if not read_text(r, &text):
                return False
        elif kind == FIXED64 or kind == FIXED32:
            number = 8 if kind == FIXED64 else 4
            if <uint64_t>(r.end - r.at) < number:
                return False
            r.at += number
        elif kind == GROUP:
            if depth + open >= MAX_DEPTH:
                return False
            groups[open] = tag
            open += 1
        elif kind == END_GROUP:
            if open == 0 or groups[open - 1] != tag - 1:
                return False
            open -= 1
        else:
            return False
        if open == 0:
            return True
        # Within a group the protobuf runtime lets a field number 0 pass.
        if not read_short(r, &tag, 0xFFFFFFFF):
            return False


cdef inline bint is_utf8(Text text) noexcept nogil:
    """Strings must be UTF-8: shortest forms, no surrogates, nothing above U+10FFFF (RFC 3629)."""
    cdef const uint8_t* at = text.at
    cdef const uint8_t* end = text.at + text.size
    cdef uint64_t word
    cdef uint8_t lead, low, high
    cdef int more
    while at < end:
        while end - at >= 8:
            memcpy(&word, at, 8)
            if word & 0x8080808080808080U:
                break
            at += 8
        while at < end and at[0] < 0x80:
            at += 1
        if at == end:
            break
        lead = at[0]
        low, high = 0x80, 0xBF
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = 0xA0
            elif lead == 0xED:
                high = 0x9F
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = 0x90
            elif lead == 0xF4:
                high = 0x8F
        else:
            return False
        if end - at <= more:
            return False
        at += 1
        if not low <= at[0] <= high:
            return False
        at += 1
        while more > 1:
            if at[0] & 0xC0 != 0x80:
                return False
            at += 1
            more -= 1
    return True


cdef inline Py_ssize_t characters_of(Text text) noexcept nogil:
    """Code points of a text that is UTF-8."""
    cdef Py_ssize_t i, count = 0
    for i in range(text.size):
        count += (text.at[i] & 0xC0) != 0x80
    return count


cdef inline bint read_string(Reader* r, Text* text) noexcept nogil:
    return read_text(r, text) and is_utf8(text[0])


cdef inline bint read_int32(Reader* r, int32_t* value) noexcept nogil:
    """An int32 or an enumeration; higher bits are dropped, as the protobuf runtime does."""
    cdef uint64_t number
    if not read_varint(r, &number):
        return False
    value[0] = <int32_t>number
    return True


# Writers return where they stopped. The caller has made room.

cdef inline int size_of_varint(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_varint(uint8_t* to, uint64_t value) noexcept nogil:
    while value >= 0x80:
        to[0] = <uint8_t>(value | 0x80)
        to += 1
        value >>= 7
    to[0] = <uint8_t>value
    return to + 1


cdef inline uint8_t* put_bytes(uint8_t* to, const void* source, Py_ssize_t size) noexcept nogil:
    memcpy(to, source, size)
    return to + size


cdef inline uint8_t* put_text(uint8_t* to, uint32_t tag, Text text) noexcept nogil:
    """A string or message field, present also when empty."""
    to = put_varint(to, tag)
    to = put_varint(to, text.size)
    return put_bytes(to, text.at, text.size)


cdef inline uint8_t* put_string(uint8_t* to, uint32_t tag, Text text) noexcept nogil:
    """A string without presence: nothing when empty."""
    return put_text(to, tag, text) if text.size else to


cdef inline uint8_t* put_int(uint8_t* to, uint32_t tag, int64_t value) noexcept nogil:
    """An int32, bool or enumeration without presence: nothing when zero."""
    if value == 0:
        return to
    to = put_varint(to, tag)
    return put_varint(to, <uint64_t>value)


cdef inline uint8_t* put_double(uint8_t* to, uint32_t tag, double value) noexcept nogil:
    """A double with presence. Its bytes on the wire are those of a little-endian machine, as packs are."""
    to = put_varint(to, tag)
    return put_bytes(to, &value, 8)


cdef inline int size_of_int(uint8_t value) noexcept nogil:
    """Bytes of a field below number 16, nothing when zero."""
    return 0 if value == 0 else 2 if value < 0x80 else 3


cdef inline Py_ssize_t size_of_string(Text text) noexcept nogil:
    """Bytes of a field below number 16, nothing when empty."""
    return 1 + size_of_varint(text.size) + text.size if text.size else 0


# A message within a message, below number 16. The length comes first and is known last: the fields are written as if it
# took two bytes, as most do, and moved where it does not.

cdef inline uint8_t* begin_message(Buffer* out) noexcept nogil:
    """Return where its fields are to be written. There must be room for FIELD bytes more than they take."""
    return out.at + out.size + 3


cdef inline void end_message(Buffer* out, uint32_t field, uint8_t* start, uint8_t* end) noexcept nogil:
    """Put tag and length before the fields, which are from ``start`` to ``end``."""
    cdef Py_ssize_t size = end - start
    cdef int more = size_of_varint(size)
    cdef uint8_t* to
    if more != 2:
        memmove(out.at + out.size + 1 + more, start, size)
    to = put_varint(out.at + out.size, tag(field, LENGTH))
    to = put_varint(to, size)
    out.size = to + size - out.at


cdef inline bint add_message(Buffer* out, uint32_t field, Text message) noexcept nogil:
    """Append a message that is encoded already; False if there is no memory."""
    if not grow(out, FIELD + message.size):
        return False
    out.size = put_text(out.at + out.size, tag(field, LENGTH), message) - out.at
    return True
