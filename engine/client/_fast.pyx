"""Requests from dicts and dicts from responses, without message objects in between. Needs nothing but Python.

An accelerator: ``_messages`` works the same without it. A ``Shape`` is made from a message's descriptor, so what it
knows of the API is what the generated classes know. ``Writer`` takes the mappings that nothing is unusual about and
leaves all others to those classes, whose checks and words stay the only ones.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLong, PyLong_Check
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memmove

from .._proto cimport (
    LENGTH,
    MAX_DEPTH,
    VARINT,
    Reader,
    Text,
    put_bytes,
    put_varint,
    read_int32,
    read_tag,
    read_text,
    read_varint,
    reader_of,
    size_of_varint,
    skip,
)

from itertools import count, takewhile

cdef extern from *:
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text) noexcept
    const void* PyUnicode_1BYTE_DATA(PyObject* text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text) noexcept
    const char* PyUnicode_AsUTF8AndSize(PyObject* text, Py_ssize_t* size) noexcept
    void PyErr_Clear() noexcept
    int PyGC_Disable() noexcept
    int PyGC_Enable() noexcept
    Py_ssize_t PyDict_GET_SIZE "PyDict_Size"(object mapping) noexcept

cdef enum Kind:
    INT32
    BOOL
    ENUM
    STRING
    MESSAGE

cdef enum:
    MAX_FIELDS = 32
    FIELD = 24              # longest tag, length or number together, generously

# Numbers of google.protobuf.descriptor.FieldDescriptor.TYPE_*.
_KINDS = {5: INT32, 8: BOOL, 14: ENUM, 9: STRING, 11: MESSAGE}


cdef struct Field:
    uint32_t number
    Kind kind
    bint repeated
    bint presence           # absent and zero are two things
    PyObject* name
    PyObject* numbers       # dict, name of an enumeration's value (full, or without its prefix) to its number
    PyObject* names         # dict, number to full name
    PyObject* first_names   # tuple, full names of the numbers 0, 1, 2, …, for as long as there are names
    PyObject* shape         # Shape of a MESSAGE


@cython.final
@cython.auto_pickle(False)
cdef class Shape:
    """Fields of one message, from its ``descriptor`` (google.protobuf).

    ``beside_error``: by full name of a message, the fields that are left of it where its ``error`` is set.

    Raises NotImplementedError for a message with fields of a type that is not dealt with here.
    """

    cdef Field[MAX_FIELDS] fields       # by number
    cdef int count
    cdef dict blank                     # every field by name; what stands for one that is not set
    cdef tuple beside_error             # names that are left where "error" is set, None: all
    cdef list _kept

    def __init__(self, descriptor, beside_error=None):
        cdef Field* field
        if self._kept is not None:
            raise TypeError("a shape is made once")
        self.beside_error = (beside_error or {}).get(descriptor.full_name)
        self.blank = {}
        self._kept = []
        if len(descriptor.fields) > MAX_FIELDS:
            raise NotImplementedError(f"{descriptor.full_name} has more than {MAX_FIELDS} fields")
        for described in sorted(descriptor.fields, key=_number):
            if described.type not in _KINDS or described.message_type is not None and (
                described.message_type.GetOptions().map_entry
                or described.message_type.full_name.startswith("google.")
            ):
                raise NotImplementedError(f"{described.full_name} is of a type that is not dealt with")
            field = self.fields + self.count
            field.number = described.number
            field.kind = _KINDS[described.type]
            field.repeated = described.is_repeated if hasattr(described, "is_repeated") else described.label == 3
            field.presence = described.has_presence
            name, numbers, names, shape = described.name, None, None, None
            zero = "" if field.kind == STRING else False if field.kind == BOOL else 0
            if field.kind == ENUM:
                values = described.enum_type.values
                prefix = values[0].name.removesuffix("UNSPECIFIED")
                names = {value.number: value.name for value in values}
                numbers = {value.name.removeprefix(prefix): value.number for value in values}
                numbers |= {value.name: value.number for value in values}
                zero = names[0]
            elif field.kind == MESSAGE:
                shape = Shape(described.message_type, beside_error)
            self.blank[name] = None if field.repeated or field.presence else zero
            first_names = tuple(names[i] for i in takewhile(names.__contains__, count())) if names else ()
            self._kept.append((name, numbers, names, first_names, shape))
            field.name = <PyObject*>name
            field.numbers = <PyObject*>numbers
            field.names = <PyObject*>names
            field.shape = <PyObject*>shape
            field.first_names = <PyObject*>first_names
            self.count += 1

    def decode(self, bytes raw not None):
        """Return the message as a dict: proto3 JSON with the names of the proto, as ``to_dict`` has it.

        Raises ValueError if ``raw`` is no such message.
        """
        cdef Text whole
        whole.at = <const uint8_t*>PyBytes_AS_STRING(raw)
        whole.size = PyBytes_GET_SIZE(raw)
        # What is made here has no cycles, and the collector would look at all of it again and again. The GIL is not
        # released meanwhile, so nobody else's cycles wait for longer.
        collecting = PyGC_Disable()
        try:
            return self.read(whole, 0)
        finally:
            if collecting:
                PyGC_Enable()

    cdef dict read(self, Text message, int depth):
        cdef Reader r = reader_of(message)
        cdef uint64_t seen = 0
        cdef Text[MAX_FIELDS] last
        cdef Text text
        cdef const Field* field
        cdef uint32_t tag
        cdef int at, _
        cdef dict found
        cdef list items = None
        cdef object value
        cdef list kept = None
        if depth > MAX_DEPTH:
            raise ValueError("messages within messages too deep")
        if self.blank is None:
            raise TypeError("a shape is made by its constructor")
        found = PyDict_Copy(self.blank)
        at = 0
        while r.at < r.end:
            if not read_tag(&r, &tag):
                raise ValueError("not protobuf")
            # Fields come in order, so the next one is mostly the one before or shortly behind.
            for _ in range(self.count):
                if self.fields[at].number == tag >> 3:
                    break
                at = at + 1 if at + 1 < self.count else 0
            else:
                if not skip(&r, tag, depth):
                    raise ValueError("not protobuf")
                continue
            field = self.fields + at
            if field.repeated and seen >> at & 1:
                items = <list>PyDict_GetItem(found, <object>field.name)
            if field.kind == STRING or field.kind == MESSAGE:
                if tag & 7 != LENGTH:
                    if not skip(&r, tag, depth):
                        raise ValueError("not protobuf")
                    continue
                if not read_text(&r, &text):
                    raise ValueError("not protobuf")
                if field.kind == STRING:
                    value = PyUnicode_DecodeUTF8(<const char*>text.at, text.size, NULL)
                else:
                    value = (<Shape>field.shape).read(text, depth + 1)
                    if not field.repeated and seen >> at & 1:
                        # Two pieces are one message; encoding them one after the other is what merges them.
                        if kept is None:
                            kept = []
                        joined = (<char*>last[at].at)[:last[at].size] + (<char*>text.at)[:text.size]
                        kept.append(joined)
                        text.at = <const uint8_t*>PyBytes_AS_STRING(joined)
                        text.size = PyBytes_GET_SIZE(joined)
                        value = (<Shape>field.shape).read(text, depth + 1)
                    last[at] = text
            elif tag & 7 == LENGTH and field.repeated:
                if not read_text(&r, &text):
                    raise ValueError("not protobuf")
                if not seen >> at & 1:
                    items = []
                    PyDict_SetItem(found, <object>field.name, items)
                    seen |= <uint64_t>1 << at
                self.read_packed(field, text, items)
                continue
            elif tag & 7 == VARINT:
                value = self.read_number(field, &r)
            else:
                if not skip(&r, tag, depth):
                    raise ValueError("not protobuf")
                continue
            if field.repeated:
                if not seen >> at & 1:
                    items = []
                    PyDict_SetItem(found, <object>field.name, items)
                PyList_Append(items, value)
            else:
                PyDict_SetItem(found, <object>field.name, value)
            seen |= <uint64_t>1 << at
        for at in range(self.count):
            if not seen >> at & 1:
                field = self.fields + at
                if field.repeated:
                    PyDict_SetItem(found, <object>field.name, [])
                elif field.presence:
                    PyDict_DelItem(found, <object>field.name)
        if self.beside_error is not None and "error" in found:
            return {name: found[name] for name in self.beside_error}
        return found

    cdef object read_number(self, const Field* field, Reader* r):
        cdef int32_t number
        cdef uint64_t word
        cdef PyObject* name
        if field.kind == BOOL:
            if not read_varint(r, &word):
                raise ValueError("not protobuf")
            return word != 0
        if not read_int32(r, &number):
            raise ValueError("not protobuf")
        if field.kind == ENUM and 0 <= number < PyTuple_GET_SIZE(<object>field.first_names):
            return <object>PyTuple_GET_ITEM(<object>field.first_names, number)
        value = number
        if field.kind == ENUM:
            name = PyDict_GetItem(<object>field.names, value)
            if name != NULL:
                return <object>name
        return value

    cdef int read_packed(self, const Field* field, Text text, list items) except -1:
        cdef Reader r = reader_of(text)
        while r.at < r.end:
            PyList_Append(items, self.read_number(field, &r))
        return 0


def _number(field):
    return field.number


@cython.final
@cython.auto_pickle(False)
cdef class Writer:
    """Grows requests: ``start`` (encoded fields) and then items, each a message with number ``number``."""

    cdef Shape shape
    cdef uint32_t number
    cdef bytes start
    cdef uint8_t* at
    cdef Py_ssize_t size, room

    def __init__(self, Shape shape not None, uint32_t number, bytes start not None):
        if shape._kept is None or not 0 < number < 16:
            raise ValueError("expected a shape, and a field number from 1 to 15")
        self.shape = shape
        self.number = number
        self.start = start
        self.size = 0
        self.put(start)

    def __dealloc__(self):
        PyMem_Free(self.at)

    def __len__(self):
        """Bytes of the request so far."""
        return self.size

    def take(self):
        """Return the request, and begin another."""
        cdef bytes request = PyBytes_FromStringAndSize(<char*>self.at, self.size)
        self.size = 0
        self.put(self.start)
        return request

    def add(self, bytes message not None):
        """Append an item that is encoded already."""
        self.grow(FIELD)
        self.size = put_varint(self.at + self.size, self.number << 3 | LENGTH) - self.at
        self.size = put_varint(self.at + self.size, PyBytes_GET_SIZE(message)) - self.at
        self.put(message)

    def fill(self, list items not None, Py_ssize_t at, Py_ssize_t size):
        """Append items from position ``at`` on; return the position of the first that was not: the list is at its end,
        the request has reached ``size`` bytes, or the item is for the generated classes to encode, or to refuse.
        """
        if self.shape is None:
            raise TypeError("a writer is made by its constructor")
        while 0 <= at < PyList_GET_SIZE(items) and self.size < size:
            item = items[at]
            if type(item) is not dict or not self.encode(<dict>item):
                break
            at += 1
        return at

    cdef int grow(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t room
        cdef void* moved
        if self.room - self.size < more:
            room = 2 * self.room + more + 4096
            moved = PyMem_Realloc(self.at, room)
            if moved == NULL:
                raise MemoryError
            self.at = <uint8_t*>moved
            self.room = room
        return 0

    cdef int put(self, bytes data) except -1:
        self.grow(PyBytes_GET_SIZE(data))
        put_bytes(self.at + self.size, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        self.size += PyBytes_GET_SIZE(data)
        return 0

    cdef int put_str(self, uint32_t number, PyObject* text, bint also_empty) except -1:
        """1: written; 0: not a text that protobuf can have."""
        cdef const char* data
        cdef Py_ssize_t size
        cdef uint8_t* to
        if not PyUnicode_CheckExact(<object>text):
            return 0
        if PyUnicode_IS_COMPACT_ASCII(text):
            data, size = <const char*>PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text)
        else:
            data = PyUnicode_AsUTF8AndSize(text, &size)
            if data == NULL:
                PyErr_Clear()
                return 0
        if size == 0 and not also_empty:
            return 1
        self.grow(FIELD + size)
        to = put_varint(self.at + self.size, number << 3 | LENGTH)
        to = put_varint(to, size)
        self.size = put_bytes(to, data, size) - self.at
        return 1

    cdef bint encode(self, dict item) except -1:
        """Append one item; False if it is not plain, and nothing is appended."""
        cdef const Field* field
        cdef PyObject* value
        cdef Py_ssize_t begin = self.size, found = 0, size
        cdef int i
        cdef bint plain = True
        # The length comes first and is known last; one or two bytes are enough for most.
        self.grow(FIELD)
        self.size += 3
        for i in range(self.shape.count):
            field = self.shape.fields + i
            value = PyDict_GetItem(item, <object>field.name)
            if value == NULL:
                continue
            found += 1
            if value != <PyObject*>None and not self.encode_field(field, value):
                plain = False
                break
        if not plain or found != PyDict_GET_SIZE(item):
            self.size = begin
            return False
        size = self.size - begin - 3
        i = size_of_varint(size)
        if i != 2:
            self.grow(FIELD)
            memmove(self.at + begin + 1 + i, self.at + begin + 3, size)
        self.at[begin] = <uint8_t>(self.number << 3 | LENGTH)
        put_varint(self.at + begin + 1, size)
        self.size = begin + 1 + i + size
        return True

    cdef int encode_field(self, const Field* field, PyObject* value) except -1:
        """1: written; 0: not plain."""
        cdef long long number
        cdef PyObject* known
        cdef uint8_t* to
        cdef Py_ssize_t i, n
        if field.repeated:
            if field.kind != STRING:
                return 0
            if PyList_CheckExact(<object>value):
                # Its length anew each time: the list is the caller's.
                i = 0
                while i < PyList_GET_SIZE(<object>value):
                    if not self.put_str(field.number, PyList_GET_ITEM(<object>value, i), True):
                        return 0
                    i += 1
                return 1
            if PyTuple_CheckExact(<object>value):
                n = PyTuple_GET_SIZE(<object>value)
                for i in range(n):
                    if not self.put_str(field.number, PyTuple_GET_ITEM(<object>value, i), True):
                        return 0
                return 1
            return 0
        if field.kind == STRING:
            return self.put_str(field.number, value, field.presence)
        if field.kind == ENUM and PyUnicode_CheckExact(<object>value):
            known = PyDict_GetItem(<object>field.numbers, <object>value)
            if known == NULL:
                return 0
            number = PyLong_AsLongLong(<object>known)
        elif field.kind == INT32 or field.kind == ENUM:
            if not PyLong_Check(<object>value) or <object>value is True or <object>value is False:
                return 0
            try:
                number = PyLong_AsLongLong(<object>value)
            except OverflowError:
                return 0
            if not -(<long long>1 << 31) <= number < <long long>1 << 31:
                return 0
        else:
            return 0
        if number or field.presence:
            self.grow(FIELD)
            to = put_varint(self.at + self.size, field.number << 3)
            self.size = put_varint(to, <uint64_t>number) - self.at
        return 1
