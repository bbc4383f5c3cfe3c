"""What a server does for every call beside answering it, in few steps: between two calls gRPC leaves the caches to
nobody, and whatever is touched has to be fetched.

``Finder`` finds the handler of a call and ``Handler`` is one, ``Single`` asks the core for the answer to a request of
one item, ``Facts`` are what is noted of a call, ``Book`` enters it when it has ended, ``CallLines`` are lines for the
log.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetObject
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from cpython.time cimport perf_counter, time
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from ._proto cimport Buffer, grow

import datetime
import json
import random
from contextvars import ContextVar

from . import rpc
from .errors import CodesetError

cdef extern from "Python.h":
    bint PyUnicode_IS_ASCII(object text) noexcept
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL


cdef str ID = rpc.REQUEST_ID
cdef frozenset READ = rpc.METADATA_READ
cdef tuple OK = ("OK", "")

# Of the call being answered: its metadata where there is something to read in it, and the name of its token.
METADATA = ContextVar("metadata", default=())
CALLER = ContextVar("caller", default="")


# --- answering ------------------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class Facts:
    """What a call did, for its log line: ``items`` answered, how many with an ``error``, and by which ``releases``
    (names with commas between them).
    """

    cdef public Py_ssize_t items
    cdef public Py_ssize_t errors
    cdef public str releases

    def __cinit__(self):
        self.items = 1
        self.releases = ""

    def answered(self, set releases not None, Facts others not None):
        """Note what answered a batch: ``releases``, and for items that took another way what ``others`` say."""
        self.errors = others.errors
        self.releases = ",".join(sorted(releases.union(filter(None, others.releases.split(",")))))


@cython.final
@cython.auto_pickle(False)
cdef class Single:
    """Answers requests of one item from their bytes: ``single(raw, facts)`` returns the response, or None where the
    request has to be read as a message.

    ``answer``: called with the bytes of a request, ``known`` and, if there is, ``more``; returns (response, releases),
    or None. Where it raises CodesetError or ValueError, what to say is the messages' to know as well. ``known``: what
    is known of the library that answers, None at first: nothing, and so the messages answer everything.
    """

    cdef object answer
    cdef object more
    cdef public object known

    def __init__(self, answer, more=None):
        self.answer = answer
        self.more = more

    def __call__(self, bytes raw not None, Facts facts not None):
        return self.respond(raw, facts)

    cdef object respond(self, bytes raw, Facts facts):
        known = self.known
        if known is None:
            return None
        try:
            found = self.answer(raw, known) if self.more is None else self.answer(raw, known, self.more)
        except (CodesetError, ValueError):
            return None
        if found is None:
            return None
        response, facts.releases = found
        return response


@cython.final
@cython.auto_pickle(False)
@cython.freelist(16)
cdef class Answered:
    """What a handler returns that has answered already: awaiting it gives ``response`` at once."""

    cdef bytes response

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        # What is raised bare leaves what is set, and needs no traceback, which would take as long as all the rest.
        PyErr_SetObject(StopIteration, self.response)
        raise StopIteration


@cython.final
@cython.auto_pickle(False)
cdef class Handler:
    """The handler of a method whose request and response are one message each: ``handler(raw, context)`` returns what
    gives the bytes of the response when awaited.

    A request of ``inline`` bytes or fewer is answered at once by ``from_bytes(raw, facts)``, if there is one.
    ``otherwise(raw, context, started, facts, error)`` returns what to await for the others: long requests, those that
    ``from_bytes`` leaves to the messages, those it refuses (``error``: what it raised), and all where as many calls are
    under way as may be.
    """

    cdef Book book
    cdef MethodName name
    cdef object from_bytes
    cdef Single single          # the same, where it is one
    cdef object otherwise
    cdef Py_ssize_t inline

    def __cinit__(self, Book book not None, MethodName name not None, from_bytes, Py_ssize_t inline, otherwise):
        self.book = book
        self.name = name
        self.from_bytes = from_bytes
        self.single = from_bytes if isinstance(from_bytes, Single) else None
        self.inline = inline if from_bytes is not None else -1
        self.otherwise = otherwise

    def __call__(self, bytes raw not None, context):
        cdef double started = perf_counter()
        cdef Facts facts = Facts.__new__(Facts)
        cdef Answered answered
        error = None
        if len(raw) <= self.inline and self.book.active < self.book.most:
            try:
                if self.single is not None:
                    response = self.single.respond(raw, facts)
                else:
                    response = self.from_bytes(raw, facts)
            except Exception as raised:
                error = raised
            else:
                if response is not None:
                    self.book.enter(self.name, facts, OK, started, "", len(raw), len(response))
                    answered = Answered.__new__(Answered)
                    answered.response = response
                    return answered
        return self.otherwise(raw, context, started, facts, error)

    def __await__(self):
        # gRPC runs in a thread what inspect.isawaitable() and inspect.iscoroutinefunction() do not know.
        raise TypeError("a handler is called with a request, and the call awaited")


@cython.final
@cython.auto_pickle(False)
cdef class Finder:
    """Finds the handlers of all services at once: gRPC asks one finder after the other, for every call.

    ``handlers``: by path.
    """

    cdef dict handlers

    def __cinit__(self, dict handlers not None):
        self.handlers = handlers

    def service(self, details):
        """Return the handler of a call, None if its method is none of these."""
        metadata = details.invocation_metadata
        if metadata:
            for key, _ in metadata:
                if key in READ:
                    METADATA.set(metadata)
                    break
        return self.handlers.get(details.method)


# --- what is noted --------------------------------------------------------------------------------------------

@cython.final
@cython.auto_pickle(False)
cdef class MethodName:
    """The name of a method, and of its service with the package."""

    cdef readonly str service
    cdef readonly str method
    cdef bytes field            # of a line

    def __cinit__(self, str service not None, str method not None):
        self.service = service
        self.method = method
        self.field = f'"service": {json.dumps(service)}, "method": {json.dumps(method)}'.encode("ascii")


cdef enum:
    MOST_BOUNDS = 24


@cython.final
@cython.auto_pickle(False)
cdef class Counted:
    """Calls of one method with one outcome. ``items``, ``errors`` and ``sent`` are of those that went well."""

    cdef readonly Py_ssize_t calls
    cdef readonly double seconds
    cdef readonly Py_ssize_t received
    cdef readonly Py_ssize_t items
    cdef readonly Py_ssize_t errors
    cdef readonly Py_ssize_t sent
    cdef Py_ssize_t[MOST_BOUNDS + 1] in_seconds
    cdef Py_ssize_t[MOST_BOUNDS + 1] in_items
    cdef Py_ssize_t n_seconds   # of those that are used
    cdef Py_ssize_t n_items

    @property
    def by_seconds(self):
        """How many took up to each bound, and not up to the one before; the last number has no bound."""
        return [self.in_seconds[i] for i in range(self.n_seconds)]

    @property
    def by_items(self):
        """The same by items."""
        return [self.in_items[i] for i in range(self.n_items)]


cdef struct Bounds:
    double[MOST_BOUNDS] at
    Py_ssize_t size


cdef Bounds bounds_of(tuple bounds) except *:
    cdef Bounds made
    cdef Py_ssize_t i
    if len(bounds) > MOST_BOUNDS:
        raise ValueError(f"expected up to {MOST_BOUNDS} bounds")
    made.size = len(bounds)
    for i in range(made.size):
        made.at[i] = bounds[i]
    return made


cdef inline Py_ssize_t place(const Bounds* bounds, double value) noexcept nogil:
    """The first bound that is ``value`` or above."""
    cdef Py_ssize_t i
    for i in range(bounds.size):
        if value <= bounds.at[i]:
            return i
    return bounds.size


@cython.final
@cython.auto_pickle(False)
cdef class Figures:
    """Calls counted since they were taken the last time.

    ``seconds``, ``items``: upper bounds of the buckets, ascending. ``first``: called, if not None, on the thread of the
    call with which counting begins again.
    """

    cdef Bounds seconds
    cdef Bounds items
    cdef object first
    cdef dict counted

    def __cinit__(self, tuple seconds not None, tuple items not None, first=None):
        self.seconds = bounds_of(seconds)
        self.items = bounds_of(items)
        self.first = first
        self.counted = {}

    @cython.nonecheck(True)
    cpdef int add(
        self, MethodName name, tuple outcome, Facts facts, double seconds, Py_ssize_t received, Py_ssize_t sent
    ) except -1:
        """Count a call that has ended."""
        cdef tuple key = (name.service, name.method, outcome)
        cdef Counted counted = self.counted.get(key)
        cdef bint first = False
        # From here on nothing lets another thread take them.
        if counted is None:
            counted = Counted.__new__(Counted)
            counted.n_seconds = self.seconds.size + 1
            counted.n_items = self.items.size + 1
            first = not self.counted
            self.counted[key] = counted
        counted.calls += 1
        counted.seconds += seconds
        counted.in_seconds[place(&self.seconds, seconds)] += 1
        counted.received += received
        if outcome[0] == "OK":
            counted.items += facts.items
            counted.in_items[place(&self.items, facts.items)] += 1
            counted.errors += facts.errors
            counted.sent += sent
        if first and self.first is not None:
            self.first()
        return 0

    def take(self):
        """Return the Counted by service, method and (status, reason); nothing is counted then."""
        counted, self.counted = self.counted, {}
        return counted


cdef enum:
    MANY_WAITING = 64


@cython.auto_pickle(False)
cdef class Book:
    """The calls of one server: how many are ``active``, and what is to be done with those that have ended.

    ``most``: calls under way at once, which callers keep to. ``look``: called now and then, every ``look_seconds``; it
    returns where lines of calls are to be added (None: nowhere) and what to call with the number that wait, when that
    is 1 and when they are many. ``figures``: where calls are counted, if they are. ``trace(name, outcome, facts,
    seconds, metadata)``: told of every call, if it is not None.
    """

    cdef public Py_ssize_t active
    cdef readonly Py_ssize_t most
    cdef public Figures figures
    cdef public object trace
    cdef object look
    cdef double look_seconds
    cdef double look_again
    cdef CallLines lines
    cdef object waiting

    def __init__(self, Py_ssize_t most, look, double look_seconds):
        self.most = most
        self.look = look
        self.look_seconds = look_seconds

    @cython.nonecheck(True)
    cpdef int enter(
        self, MethodName name, Facts facts, tuple outcome, double started, str request_id, Py_ssize_t received,
        Py_ssize_t sent
    ) except -1:
        """Log, count and trace a call that has ended.

        ``outcome``: its status and, if it failed, the reason. ``started``: by ``time.perf_counter``. ``request_id``:
        empty where nothing has needed it. ``received``, ``sent``: bytes of its messages.
        """
        cdef double now = perf_counter()
        cdef double seconds = now - started
        cdef Py_ssize_t waiting
        if self.figures is not None:
            self.figures.add(name, outcome, facts, seconds, received, sent)
        if now >= self.look_again:
            self.look_again = now + self.look_seconds
            self.lines, self.waiting = self.look()
        if self.lines is not None:
            waiting = self.lines.add(time(), name, outcome, facts, seconds, request_id)
            if waiting == 1 or waiting >= MANY_WAITING:
                self.waiting(waiting)
        if self.trace is not None:
            self.trace(name, outcome, facts, seconds, METADATA.get())
        return 0


# --- lines ----------------------------------------------------------------------------------------------------

cdef enum:
    LONGEST_ID = 64

cdef const char* DIGITS = b"0123456789abcdef"
# Request ids have to differ, not to be hard to guess.
cdef uint64_t last_id = random.getrandbits(64)


cdef uint64_t another_id() noexcept:
    """The next of splitmix64 (Steele, Lea and Flood, 2014), which gives each number once."""
    global last_id
    cdef uint64_t z
    last_id += 0x9E3779B97F4A7C15U
    z = last_id
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU
    return z ^ (z >> 31)


cdef bint is_fit(str text) except -1:
    """True for a request id that is fit for a line: 1 to 64 letters, digits, points, low lines and hyphens."""
    cdef Py_ssize_t i, size
    cdef const char* at
    cdef char c
    if not PyUnicode_IS_ASCII(text):
        return False
    at = PyUnicode_AsUTF8AndSize(text, &size)
    if not 1 <= size <= LONGEST_ID:
        return False
    for i in range(size):
        c = at[i]
        if not (c"a" <= c <= c"z" or c"A" <= c <= c"Z" or c"0" <= c <= c"9" or c == c"." or c == c"_" or c == c"-"):
            return False
    return True


def id_of(metadata):
    """Return the request id that the caller sent in ``metadata``, (key, value) pairs, if it is fit for a line, else
    another at each call.
    """
    cdef char[16] digits
    cdef uint64_t number
    cdef int i
    for key, value in metadata:
        if key == ID and isinstance(value, str) and is_fit(value):
            return value
    number = another_id()
    for i in range(16):
        digits[i] = DIGITS[number >> (60 - 4 * i) & 15]
    return digits[:16].decode("ascii")


cdef inline int append_bytes(Buffer* to, const char* text, Py_ssize_t size) except -1:
    if not grow(to, size):
        raise MemoryError
    memcpy(to.at + to.size, text, size)
    to.size += size
    return 0


cdef inline int append(Buffer* to, bytes text) except -1:
    return append_bytes(to, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))


cdef int append_number(Buffer* to, int64_t number, int least) except -1:
    """Append a number in ``least`` digits or as many more as it has."""
    cdef char[20] digits
    cdef int at = 20
    while number > 0 or least > 0:
        at -= 1
        least -= 1
        digits[at] = <char>(c"0" + number % 10)
        number //= 10
    return append_bytes(to, digits + at, 20 - at)


cdef int append_string(Buffer* to, str text) except -1:
    """Append a string of JSON."""
    cdef Py_ssize_t i, size
    cdef const char* at
    if text is None:
        raise TypeError("expected a text")
    if PyUnicode_IS_ASCII(text):
        at = PyUnicode_AsUTF8AndSize(text, &size)
        for i in range(size):
            if at[i] < c" " or at[i] == c'"' or at[i] == c"\\" or at[i] == 0x7F:
                break
        else:
            append_bytes(to, b'"', 1)
            append_bytes(to, at, size)
            return append_bytes(to, b'"', 1)
    return append(to, json.dumps(text).encode("ascii"))


cdef struct Line:
    double now
    double seconds
    int64_t items
    int64_t errors
    PyObject* name              # MethodName; these are owned
    PyObject* outcome
    PyObject* releases
    PyObject* caller
    PyObject* request_id        # NULL: another one


cdef void leave(const Line* line) noexcept:
    Py_DECREF(<object>line.name)
    Py_DECREF(<object>line.outcome)
    Py_DECREF(<object>line.releases)
    Py_DECREF(<object>line.caller)
    Py_XDECREF(line.request_id)


cdef inline PyObject* kept(object value) noexcept:
    Py_INCREF(value)
    return <PyObject*>value


cdef void give_back(Buffer* to, Buffer used) noexcept:
    """Keep the memory of ``used`` for the next time, if there is none yet."""
    used.size = 0
    if to.at == NULL:
        to[0] = used
    else:
        free(used.at)


@cython.final
@cython.auto_pickle(False)
cdef class CallLines:
    """Lines that wait to be written, each a JSON object. ``always``: fields of every line, as JSON without the braces.

    What they say is noted when a call ends, and they are put in words when they are taken, many at once.
    """

    cdef Buffer lines           # of Line
    cdef Buffer text            # memory for those being taken
    cdef bytes always
    cdef int64_t second         # that ``time`` is of
    cdef bytes time

    def __cinit__(self, str always not None=""):
        self.always = b', "level": "info", "event": "call", ' + (f"{always}, " if always else "").encode("ascii")
        self.second = -1

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(len(self)):
            leave(<const Line*>self.lines.at + i)
        free(self.lines.at)
        free(self.text.at)

    def __len__(self):
        return self.lines.size // <Py_ssize_t>sizeof(Line)

    @cython.nonecheck(True)
    cpdef Py_ssize_t add(
        self, double now, MethodName name, tuple outcome, Facts facts, double seconds, str request_id
    ) except -1:
        """Add the line of a call; return how many wait.

        ``now``: Unix time. ``outcome``: its status and, if it failed, the reason. ``request_id``: empty where it is to
        be taken from METADATA.
        """
        cdef Line* line
        cdef str caller = CALLER.get()
        cdef str releases = facts.releases
        if not request_id:
            metadata = METADATA.get()
            request_id = id_of(metadata) if metadata else None
        if name is None or outcome is None or releases is None or caller is None:
            raise TypeError("expected a name, an outcome, releases and a caller")
        if not grow(&self.lines, sizeof(Line)):
            raise MemoryError
        line = <Line*>(self.lines.at + self.lines.size)
        line.now, line.seconds = now, seconds
        line.items, line.errors = facts.items, facts.errors
        line.name, line.outcome, line.releases, line.caller = kept(name), kept(outcome), kept(releases), kept(caller)
        line.request_id = NULL if request_id is None else kept(request_id)
        self.lines.size += sizeof(Line)
        return self.lines.size // <Py_ssize_t>sizeof(Line)

    def take(self):
        """Return the lines that wait; none do then."""
        # Whoever is called from here, or has a turn meanwhile, may take lines as well: others, into other memory.
        cdef Buffer lines = self.lines
        cdef Buffer text = self.text
        cdef Py_ssize_t i, count = len(self)
        memset(&self.lines, 0, sizeof(Buffer))
        memset(&self.text, 0, sizeof(Buffer))
        try:
            for i in range(count):
                self.put_line(&text, <const Line*>lines.at + i)
            return (<char*>text.at)[:text.size].decode("ascii")
        finally:
            for i in range(count):
                leave(<const Line*>lines.at + i)
            give_back(&self.lines, lines)
            give_back(&self.text, text)

    cdef int put_line(self, Buffer* to, const Line* line) except -1:
        cdef int64_t second = <int64_t>line.now
        cdef int64_t thousandths = <int64_t>(line.seconds * 1e6 + 0.5)
        cdef str status, reason
        status, reason = <tuple>line.outcome
        if second != self.second:
            self.time = datetime.datetime.fromtimestamp(second, datetime.UTC).isoformat()[:19].encode("ascii")
            self.second = second
        append(to, b'{"time": "')
        append(to, self.time)
        append(to, b".")
        append_number(to, <int64_t>((line.now - second) * 1000), 3)
        append(to, b'+00:00"')
        append(to, self.always)
        append(to, (<MethodName>line.name).field)
        append(to, b', "request_id": ')
        append_string(to, id_of(()) if line.request_id == NULL else <str>line.request_id)
        append(to, b', "status": ')
        append_string(to, status)
        append(to, b', "items": ')
        append_number(to, line.items, 1)
        append(to, b', "duration_ms": ')
        append_number(to, thousandths // 1000, 1)
        append(to, b".")
        append_number(to, thousandths % 1000, 3)
        if reason:
            append(to, b', "reason": ')
            append_string(to, reason)
        if line.errors:
            append(to, b', "errors": ')
            append_number(to, line.errors, 1)
        if <str>line.releases:
            append(to, b', "release": ')
            append_string(to, <str>line.releases)
        if <str>line.caller:
            append(to, b', "caller": ')
            append_string(to, <str>line.caller)
        return append(to, b"}\n")
