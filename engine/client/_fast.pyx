"""Requests from dicts and columns, and dicts and columns from responses, without message objects in between. Needs
nothing but Python.

An accelerator: the client works the same without it. A ``Shape`` is made from a message's descriptor, so what it knows
of the API is what the generated classes know. ``Writer`` takes the items that nothing is unusual about and leaves all
others to those classes, whose checks and words stay the only ones.
"""

cimport cython
from cpython.buffer cimport PyBUF_FULL_RO, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_Copy, PyDict_DelItem, PyDict_GetItem, PyDict_SetItem
from cpython.float cimport PyFloat_CheckExact
from cpython.list cimport PyList_Append, PyList_CheckExact, PyList_GET_ITEM, PyList_GET_SIZE
from cpython.long cimport PyLong_AsLongLong, PyLong_AsSsize_t, PyLong_Check
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact, PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_CheckExact, PyUnicode_DecodeUTF8
from libc.math cimport isfinite
from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from .._proto cimport (
    FIXED64,
    LENGTH,
    MAX_DEPTH,
    VARINT,
    Reader,
    Text,
    is_utf8,
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
    DOUBLE
    STRING
    MESSAGE

cdef enum:
    MAX_FIELDS = 32
    MAX_NODES = 64          # messages that the columns of a table are in
    FIELD = 24              # longest tag, length or number together, generously

# Numbers of google.protobuf.descriptor.FieldDescriptor.TYPE_*.
_KINDS = {1: DOUBLE, 5: INT32, 8: BOOL, 14: ENUM, 9: STRING, 11: MESSAGE}
_INT32 = (-(1 << 31), (1 << 31) - 1)


cdef struct Field:
    uint32_t number
    Kind kind
    bint repeated
    bint presence           # absent and zero are two things
    uint32_t wire           # wire type of a single value
    int64_t low             # numbers that are plain, both ends included
    int64_t high
    PyObject* name
    PyObject* numbers       # dict, name of an enumeration's value (full, or without its prefix) to its number
    PyObject* names         # dict, number to full name
    PyObject* first_names   # tuple, full names of the numbers 0, 1, 2, …, for as long as there are names
    PyObject* shape         # Shape of a MESSAGE


@cython.final
@cython.auto_pickle(False)
cdef class _Uncollected:
    """Holds the collector back: what is made meanwhile has no cycles, and it would look at all of it again and again.

    Nothing may release the GIL meanwhile, so nobody else's cycles wait for longer.
    """

    cdef bint collecting

    def __enter__(self):
        self.collecting = PyGC_Disable()

    def __exit__(self, kind, error, traceback):
        if self.collecting:
            PyGC_Enable()


@cython.final
@cython.auto_pickle(False)
cdef class Shape:
    """Fields of one message, from its ``descriptor`` (google.protobuf).

    ``beside_error``: by full name of a message, the fields that are left of it where its ``error`` is set.
    ``within``: by full name of a number, the smallest and the largest that a ``Writer`` takes; else those of 32 bits.

    Raises NotImplementedError for a message with fields of a type that is not dealt with here.
    """

    cdef Field[MAX_FIELDS] fields       # by number
    cdef int count
    cdef dict blank                     # every field by name; what stands for one that is not set
    cdef tuple beside_error             # names that are left where "error" is set, None: all
    cdef list _kept

    def __init__(self, descriptor, beside_error=None, within=None):
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
            field.wire = FIXED64 if field.kind == DOUBLE else LENGTH if field.kind in (STRING, MESSAGE) else VARINT
            field.low, field.high = (within or {}).get(described.full_name, _INT32)
            name, numbers, names, shape = described.name, None, None, None
            zero = {STRING: "", BOOL: False, DOUBLE: 0.0}.get(field.kind, 0)
            if field.kind == ENUM:
                values = described.enum_type.values
                prefix = values[0].name.removesuffix("UNSPECIFIED")
                names = {value.number: value.name for value in values}
                numbers = {value.name.removeprefix(prefix): value.number for value in values}
                numbers |= {value.name: value.number for value in values}
                zero = names[0]
            elif field.kind == MESSAGE:
                shape = Shape(described.message_type, beside_error, within)
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
        with _Uncollected():
            return self.read(whole, 0)

    cdef int find(self, uint32_t tag, int at) noexcept:
        """Position of a tag's field, looked for from ``at`` on; -1: not known."""
        cdef int _
        # Fields come in order, so the next one is mostly the one before or shortly behind.
        for _ in range(self.count):
            if self.fields[at].number == tag >> 3:
                return at
            at = at + 1 if at + 1 < self.count else 0
        return -1

    cdef dict read(self, Text message, int depth):
        cdef Reader r = reader_of(message)
        cdef uint64_t seen = 0
        cdef Text[MAX_FIELDS] last
        cdef Text text
        cdef const Field* field
        cdef uint32_t tag
        cdef int at
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
            at = self.find(tag, at)
            if at < 0:
                at = 0
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
            elif tag & 7 == field.wire:
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

    cdef int check(self, Text message, int depth) except -1:
        """Raise ValueError for what the generated classes would not read."""
        cdef Reader r = reader_of(message)
        cdef const Field* field
        cdef Text text
        cdef uint32_t tag
        cdef int at = 0
        if depth > MAX_DEPTH:
            raise ValueError("messages within messages too deep")
        while r.at < r.end:
            if not read_tag(&r, &tag):
                raise ValueError("not protobuf")
            at = self.find(tag, at)
            if at < 0:
                at = 0
            elif tag & 7 == LENGTH and (self.fields[at].repeated or self.fields[at].wire == LENGTH):
                if not read_text(&r, &text):
                    raise ValueError("not protobuf")
                field = self.fields + at
                if field.kind == MESSAGE:
                    (<Shape>field.shape).check(text, depth + 1)
                elif field.kind != STRING:
                    self.read_packed(field, text, [])
                elif not is_utf8(text):
                    raise ValueError("not UTF-8")
                continue
            if not skip(&r, tag, depth):
                raise ValueError("not protobuf")
        return 0

    cdef object read_number(self, const Field* field, Reader* r):
        cdef int32_t number
        cdef uint64_t word
        cdef double real
        cdef PyObject* name
        if field.kind == DOUBLE:
            if r.end - r.at < 8:
                raise ValueError("not protobuf")
            memcpy(&real, r.at, 8)
            r.at += 8
            return real if isfinite(real) else "NaN" if real != real else "Infinity" if real > 0 else "-Infinity"
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


def listed(repeated):
    """Return the messages of a repeated field in a list. Not for other iterables, which may release the GIL."""
    with _Uncollected():
        return list(repeated)


def _number(field):
    return field.number


@cython.final
@cython.auto_pickle(False)
cdef class _Node:
    """What is wanted of one message: which of its fields go where in a row."""

    cdef Shape shape
    cdef int[MAX_FIELDS] place          # of a leaf in the row; -1: not wanted, or not a leaf
    cdef PyObject* inside[MAX_FIELDS]   # _Node of a message that something is wanted of
    cdef dict places                    # of the leaves inside repeated messages, whose items have rows of their own
    cdef int index                      # its bit among the nodes of a row
    cdef list kept

    def __init__(self, Shape shape not None, list paths not None, list nodes not None):
        """``paths``: pairs of names and a place; ``nodes``: one number, of the nodes of the row so far."""
        cdef int at
        self.shape = shape
        self.places = {}
        self.kept = []
        self.index = nodes[0]
        nodes[0] += 1
        if nodes[0] > MAX_NODES:
            raise NotImplementedError("columns are in too many messages")
        for at in range(shape.count):
            self.place[at] = -1
            wanted = [(names[1:], place) for names, place in paths if names[0] == <object>shape.fields[at].name]
            if not wanted:
                continue
            if shape.fields[at].kind != MESSAGE:
                (((_, self.place[at]),)) = wanted
                continue
            inner = <Shape>shape.fields[at].shape
            if shape.fields[at].repeated:
                self.places[at] = [place for _, place in wanted]
                node = _Node(inner, [(names, i) for i, (names, _) in enumerate(wanted)], [0])
            else:
                node = _Node(inner, wanted, nodes)
            self.kept.append(node)
            self.inside[at] = <PyObject*>node

    cdef int begin(self, list row) except -1:
        """Write what stands for fields that are not set."""
        cdef const Field* field
        cdef int at
        for at in range(self.shape.count):
            field = self.shape.fields + at
            if self.place[at] >= 0:
                row[self.place[at]] = [] if field.repeated else <object>PyDict_GetItem(
                    self.shape.blank, <object>field.name
                )
        for places in self.places.values():
            for place in places:
                row[place] = []
        return 0

    cdef int read(self, Text message, int depth, list row, uint64_t* begun) except -1:
        """Read one message, or another piece of it, into ``row``. ``begun``: the nodes that have been."""
        cdef Reader r = reader_of(message)
        cdef const Field* field
        cdef uint32_t tag
        cdef uint64_t inner_begun
        cdef Text text
        cdef int at = 0, place
        cdef Py_ssize_t i
        cdef list inner, places
        if depth > MAX_DEPTH:
            raise ValueError("messages within messages too deep")
        if not begun[0] >> self.index & 1:
            begun[0] |= <uint64_t>1 << self.index
            self.begin(row)
        while r.at < r.end:
            if not read_tag(&r, &tag):
                raise ValueError("not protobuf")
            at = self.shape.find(tag, at)
            if at < 0:
                at = 0
                if not skip(&r, tag, depth):
                    raise ValueError("not protobuf")
                continue
            field = self.shape.fields + at
            place = self.place[at]
            if tag & 7 == LENGTH and (field.repeated or field.wire == LENGTH):
                if not read_text(&r, &text):
                    raise ValueError("not protobuf")
                if field.kind == MESSAGE:
                    if self.inside[at] == NULL:
                        (<Shape>field.shape).check(text, depth + 1)
                    elif field.repeated:
                        places = <list>self.places[at]
                        inner = [None] * PyList_GET_SIZE(places)
                        inner_begun = 0
                        (<_Node>self.inside[at]).read(text, depth + 1, inner, &inner_begun)
                        for i in range(PyList_GET_SIZE(places)):
                            place = places[i]
                            PyList_Append(<list>row[place], inner[i])
                    else:
                        (<_Node>self.inside[at]).read(text, depth + 1, row, begun)
                elif field.kind != STRING:
                    self.shape.read_packed(field, text, <list>row[place] if place >= 0 else [])
                elif place < 0:
                    if not is_utf8(text):
                        raise ValueError("not UTF-8")
                else:
                    value = PyUnicode_DecodeUTF8(<const char*>text.at, text.size, NULL)
                    if field.repeated:
                        (<list>row[place]).append(value)
                    else:
                        row[place] = value
            elif tag & 7 == field.wire and place >= 0:
                value = self.shape.read_number(field, &r)
                if field.repeated:
                    (<list>row[place]).append(value)
                else:
                    row[place] = value
            elif not skip(&r, tag, depth):
                raise ValueError("not protobuf")
        return 0


@cython.final
@cython.auto_pickle(False)
cdef class Table:
    """Columns of the items of responses: ``response`` is their shape, ``number`` that of the field with the items,
    ``paths`` the columns as tuples of names, from an item down to a field that is no message.

    A cell is what stands at that place in the dict that ``Shape.decode`` gives, None where that has nothing, and below
    a repeated message a list.
    """

    cdef Shape response
    cdef uint32_t number
    cdef _Node node
    cdef int error                      # index of the node of the item's ``error``; -1: an item has none
    cdef int width
    cdef list hidden                    # places of what an item with an error does not have

    def __init__(self, Shape response not None, uint32_t number, list paths not None):
        cdef Shape item = None
        cdef int at
        if response._kept is None:
            raise ValueError("expected a shape")
        for at in range(response.count):
            if response.fields[at].number == number and response.fields[at].kind == MESSAGE:
                item = <Shape>response.fields[at].shape
        if item is None:
            raise ValueError("expected the number of a field with messages")
        self.width = len(paths)
        nodes = [0]
        node = _Node(item, [(path, place) for place, path in enumerate(paths)], nodes)
        self.error = -1
        self.hidden = []
        if item.beside_error is not None:
            for at in range(item.count):
                if <object>item.fields[at].name == "error":
                    if node.inside[at] == NULL:
                        # Whether there is one matters also where nothing of it is wanted.
                        error = _Node(<Shape>item.fields[at].shape, [], nodes)
                        node.kept.append(error)
                        node.inside[at] = <PyObject*>error
                    self.error = (<_Node>node.inside[at]).index
            self.hidden = [place for place, path in enumerate(paths) if path[0] not in item.beside_error]
        self.response = response
        self.number = number
        self.node = node

    def decode(self, bytes raw not None):
        """Return one list a column, each with one value an item, in order. Raises ValueError if ``raw`` is no such
        message.
        """
        cdef Text whole
        whole.at = <const uint8_t*>PyBytes_AS_STRING(raw)
        whole.size = PyBytes_GET_SIZE(raw)
        if self.node is None:
            raise TypeError("a table is made by its constructor")
        with _Uncollected():
            return self.read(whole)

    cdef list read(self, Text message):
        cdef Reader r = reader_of(message)
        cdef const uint8_t* start = r.at
        cdef Text text
        cdef uint32_t tag
        cdef uint64_t begun
        cdef list columns = [[] for _ in range(self.width)]
        cdef list row = [None] * self.width
        cdef int place
        while r.at < r.end:
            start = r.at
            if not read_tag(&r, &tag):
                raise ValueError("not protobuf")
            if tag != (self.number << 3 | LENGTH):
                if not skip(&r, tag, 0):
                    raise ValueError("not protobuf")
                text.at, text.size = start, r.at - start
                self.response.check(text, 0)
                continue
            if not read_text(&r, &text):
                raise ValueError("not protobuf")
            for place in range(self.width):
                row[place] = None
            begun = 0
            self.node.read(text, 1, row, &begun)
            if self.error >= 0 and begun >> self.error & 1:
                for place in self.hidden:
                    row[place] = None
            for place in range(self.width):
                PyList_Append(<list>columns[place], row[place])
        return columns


cdef enum Source:
    NOTHING                 # no such column
    CELLS                   # a list of Python objects
    SIGNED                  # whole numbers of 1, 2, 4 or 8 bytes
    UNSIGNED
    TRUTHS                  # bytes, 0 or 1
    BYTES                   # texts of a fixed number of bytes, NUL behind them
    WIDE                    # texts of a fixed number of UCS-4 characters, NUL behind them


cdef struct Column:
    Source source
    PyObject* cells
    PyObject* offsets       # list of int, one more than rows: where the values of each begin; NULL: a row has one cell
    const char* at
    Py_ssize_t stride       # bytes
    Py_ssize_t size         # bytes of a value
    Py_ssize_t count


@cython.final
@cython.auto_pickle(False)
cdef class Columns:
    """Items as columns, for a ``Writer`` of the same shape.

    ``columns``: by name of a field a list of cells, or an array of one dimension that has the buffer protocol: whole
    numbers, bool, or texts of fixed width as NumPy has them (``S``, ``U``). A field that is repeated has a list of
    lists, or a pair: a column with the values of all rows, and a list with where those of each row begin, and the last
    end.

    Raises ValueError for an array of another type.
    """

    cdef Shape shape
    cdef Column[MAX_FIELDS] columns
    cdef Py_buffer[MAX_FIELDS] views
    cdef int held
    cdef list kept

    def __cinit__(self):
        self.held = 0

    def __init__(self, Shape shape not None, dict columns not None):
        cdef int at
        if self.kept is not None or shape._kept is None:
            raise TypeError("columns are made once, of a shape")
        self.kept = []
        self.shape = shape
        for at in range(shape.count):
            given = columns.get(<object>shape.fields[at].name)
            if given is None:
                continue
            if type(given) is tuple:
                given, offsets = given
                if type(offsets) is not list:
                    raise ValueError("expected a list of offsets")
                self.kept.append(offsets)
                self.columns[at].offsets = <PyObject*>offsets
            self.take(self.columns + at, given)

    cdef int take(self, Column* column, given) except -1:
        cdef Py_buffer* view
        if type(given) is list:
            self.kept.append(given)
            column.cells = <PyObject*>given
            column.source = CELLS
            return 0
        view = self.views + self.held
        PyObject_GetBuffer(given, view, PyBUF_FULL_RO)
        self.held += 1
        form = (<bytes>view.format if view.format != NULL else b"B").lstrip(b"@=<|0123456789")
        if view.ndim != 1 or view.suboffsets != NULL or form not in _FORMS or view.itemsize > 8 and form not in b"sw":
            raise ValueError(f"expected an array of one dimension of whole numbers, bool, S or U, got {form!r}")
        column.at = <const char*>view.buf
        column.stride = view.strides[0]
        column.size = view.itemsize
        column.count = view.shape[0]
        column.source = _FORMS[form]
        return 0

    def __dealloc__(self):
        cdef int i
        for i in range(self.held):
            PyBuffer_Release(self.views + i)


_FORMS = (
    dict.fromkeys((b"b", b"h", b"i", b"l", b"q"), SIGNED)
    | dict.fromkeys((b"B", b"H", b"I", b"L", b"Q"), UNSIGNED)
    | {b"?": TRUTHS, b"s": BYTES, b"w": WIDE}
)


@cython.final
@cython.auto_pickle(False)
cdef class Writer:
    """Grows requests: ``start`` (encoded fields) and then items, each a message with number ``number``.

    ``bare``: number of the field that an item which is a text stands for; 0: none.
    """

    cdef Shape shape
    cdef uint32_t number, bare
    cdef bytes start
    cdef uint8_t* at
    cdef Py_ssize_t size, room

    def __init__(self, Shape shape not None, uint32_t number, bytes start not None, uint32_t bare=0):
        if shape._kept is None or not 0 < number < 16:
            raise ValueError("expected a shape, and a field number from 1 to 15")
        self.bare = bare
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
            if not (
                self.encode(<dict>item) if type(item) is dict else self.bare != 0 and self.encode_text(<PyObject*>item)
            ):
                break
            at += 1
        return at

    def fill_rows(self, Columns columns not None, Py_ssize_t at, Py_ssize_t stop, Py_ssize_t size):
        """As ``fill``, with the rows of ``columns`` from ``at`` on and before ``stop``."""
        if self.shape is None or columns.shape is not self.shape:
            raise TypeError("expected columns of the writer's own shape")
        while 0 <= at < stop and self.size < size and self.encode_row(columns, at):
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
        if not PyUnicode_CheckExact(<object>text):
            return 0
        if PyUnicode_IS_COMPACT_ASCII(text):
            data, size = <const char*>PyUnicode_1BYTE_DATA(text), PyUnicode_GET_LENGTH(text)
        else:
            data = PyUnicode_AsUTF8AndSize(text, &size)
            if data == NULL:
                PyErr_Clear()
                return 0
        if size or also_empty:
            self.put_data(number, data, size)
        return 1

    cdef int put_data(self, uint32_t number, const char* data, Py_ssize_t size) except -1:
        cdef uint8_t* to
        self.grow(FIELD + size)
        to = put_varint(self.at + self.size, number << 3 | LENGTH)
        to = put_varint(to, size)
        self.size = put_bytes(to, data, size) - self.at
        return 0

    cdef int put_number(self, const Field* field, int64_t number) except -1:
        """1: written; 0: not a number that the field can have."""
        cdef uint8_t* to
        if not field.low <= number <= field.high or field.kind == BOOL and not 0 <= number <= 1:
            return 0
        if number or field.presence:
            self.grow(FIELD)
            to = put_varint(self.at + self.size, field.number << 3)
            self.size = put_varint(to, <uint64_t>number) - self.at
        return 1

    cdef Py_ssize_t begin(self) except -1:
        """Begin an item; return where. Its length comes first and is known last; two bytes are enough for most."""
        cdef Py_ssize_t begin = self.size
        self.grow(FIELD)
        self.size += 3
        return begin

    cdef bint end(self, Py_ssize_t begin, bint plain) except -1:
        """End the item that was begun at ``begin``; take it back if it is not plain."""
        cdef Py_ssize_t size = self.size - begin - 3
        cdef int width
        if not plain:
            self.size = begin
            return False
        width = size_of_varint(size)
        if width != 2:
            self.grow(FIELD)
            memmove(self.at + begin + 1 + width, self.at + begin + 3, size)
        self.at[begin] = <uint8_t>(self.number << 3 | LENGTH)
        put_varint(self.at + begin + 1, size)
        self.size = begin + 1 + width + size
        return True

    cdef bint encode(self, dict item) except -1:
        """Append one item; False if it is not plain, and nothing is appended."""
        cdef const Field* field
        cdef PyObject* value
        cdef Py_ssize_t begin = self.begin(), found = 0
        cdef int i
        cdef bint plain = True
        for i in range(self.shape.count):
            field = self.shape.fields + i
            value = PyDict_GetItem(item, <object>field.name)
            if value == NULL:
                continue
            found += 1
            if value != <PyObject*>None and not self.encode_field(field, value):
                plain = False
                break
        return self.end(begin, plain and found == PyDict_GET_SIZE(item))

    cdef bint encode_text(self, PyObject* item) except -1:
        cdef Py_ssize_t begin = self.begin()
        return self.end(begin, self.put_str(self.bare, item, False))

    cdef bint encode_row(self, Columns columns, Py_ssize_t row) except -1:
        cdef const Field* field
        cdef const Column* column
        cdef Py_ssize_t begin = self.begin(), at, stop
        cdef int i
        cdef bint plain = True
        for i in range(self.shape.count):
            column = columns.columns + i
            if column.source == NOTHING:
                continue
            field = self.shape.fields + i
            if column.offsets == NULL:
                plain = self.encode_cell(field, column, row)
            elif not field.repeated or row + 1 >= PyList_GET_SIZE(<object>column.offsets):
                plain = False
            else:
                at = PyLong_AsSsize_t(<object>PyList_GET_ITEM(<object>column.offsets, row))
                stop = PyLong_AsSsize_t(<object>PyList_GET_ITEM(<object>column.offsets, row + 1))
                while plain and at < stop:
                    plain = self.encode_cell(field, column, at)
                    at += 1
            if not plain:
                break
        return self.end(begin, plain)

    cdef int encode_cell(self, const Field* field, const Column* column, Py_ssize_t row) except -1:
        """1: written; 0: not plain."""
        cdef const char* at
        cdef uint32_t character
        cdef PyObject* value
        cdef Text text
        cdef Py_ssize_t i, size
        cdef uint8_t* to
        if column.source == CELLS:
            if not 0 <= row < PyList_GET_SIZE(<object>column.cells):
                return 0
            value = PyList_GET_ITEM(<object>column.cells, row)
            if column.offsets != NULL:
                return self.put_str(field.number, value, True) if field.kind == STRING else 0
            if value == <PyObject*>None or PyFloat_CheckExact(<object>value) and <object>value != <object>value:
                return 1
            return self.encode_field(field, value)
        if not 0 <= row < column.count or field.repeated and column.offsets == NULL:
            return 0
        at = column.at + row * column.stride
        if column.source == BYTES or column.source == WIDE:
            if field.kind != STRING:
                return 0
            if column.source == BYTES:
                size = column.size
                while size and at[size - 1] == 0:
                    size -= 1
                text.at, text.size = <const uint8_t*>at, size
                if not is_utf8(text):
                    return 0
                if size or field.repeated or field.presence:
                    self.put_data(field.number, at, size)
                return 1
            size = column.size // 4
            while size:
                memcpy(&character, at + 4 * (size - 1), 4)
                if character:
                    break
                size -= 1
            if size == 0 and not field.repeated and not field.presence:
                return 1
            self.grow(FIELD + size)
            to = put_varint(self.at + self.size, field.number << 3 | LENGTH)
            to = put_varint(to, size)
            for i in range(size):
                memcpy(&character, at + 4 * i, 4)
                if character >= 0x80:
                    return 0
                to[i] = <uint8_t>character
            self.size = to + size - self.at
            return 1
        if field.kind == STRING or field.repeated or (column.source == TRUTHS) > (field.kind == BOOL):
            return 0
        return self.put_number(field, number_at(column, at))

    cdef int encode_field(self, const Field* field, PyObject* value) except -1:
        """1: written; 0: not plain."""
        cdef long long number
        cdef PyObject* known
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
        elif field.kind == BOOL and (<object>value is True or <object>value is False):
            number = <object>value is True
        elif field.kind == INT32 or field.kind == ENUM or field.kind == BOOL:
            if not PyLong_Check(<object>value) or <object>value is True or <object>value is False:
                return 0
            try:
                number = PyLong_AsLongLong(<object>value)
            except OverflowError:
                return 0
        else:
            return 0
        return self.put_number(field, number)


cdef int64_t number_at(const Column* column, const char* at) noexcept:
    """A whole number of an array; one of more than 63 bits is some number that no field can have."""
    cdef uint64_t word = 0
    if column.size == 1:
        return (<const int8_t*>at)[0] if column.source == SIGNED else (<const uint8_t*>at)[0]
    # Copied: arrays need not be aligned. The machine is little-endian.
    memcpy(&word, at, column.size)
    if column.source == SIGNED:
        if column.size == 2:
            return <int16_t>word
        return <int32_t>word if column.size == 4 else <int64_t>word
    return <int64_t>word if word >> 63 == 0 else -1 - (<int64_t>1 << 62)
