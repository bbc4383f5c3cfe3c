"""What a server does for every call beside answering it, in few steps: between two calls gRPC leaves the caches to
nobody, and whatever is touched has to be fetched.

``Finder`` finds the handler of a call and ``Handler`` is one, ``Single`` asks the core for the answer to a request of
one item, ``Facts`` are what is noted of a call, ``Book`` enters it when it has ended, ``CallLines`` are lines for the
log.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.time cimport perf_counter, time
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

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

    ``answer``: called with the bytes of a request, ``known`` and ``more``; returns (response, releases), or None. Where
    it raises CodesetError or ValueError, what to say is the messages' to know as well. ``known``: what is known of the
    library that answers, None at first: nothing, and so the messages answer everything.
    """

    cdef object answer
    cdef tuple more
    cdef public object known

    def __init__(self, answer, *more):
        self.answer = answer
        self.more = more

    def __call__(self, bytes raw not None, Facts facts not None):
        return self.respond(raw, facts)

    cdef object respond(self, bytes raw, Facts facts):
        known = self.known
        if known is None:
            return None
        try:
            found = self.answer(raw, known, *self.more)
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

    cdef object response

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        raise StopIteration(self.response)


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
        cdef tuple metadata = details.invocation_metadata
        if metadata is not None:
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


@cython.auto_pickle(False)
cdef class Book:
    """The calls of one server: how many are ``active``, and what is to be done with those that have ended.

    ``most``: calls under way at once, which callers keep to. ``look``: called now and then, every ``look_seconds``; it
    returns where lines of calls are to be added (None: nowhere) and what to call with the number that wait, whenever
    that is 1, ``many`` or more. ``observe(name, outcome, facts, seconds, received, sent)`` and ``trace(name, outcome,
    facts, seconds, metadata)`` are told of every call, if they are not None.
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
    cdef Py_ssize_t many

    def __init__(self, Py_ssize_t most, look, double look_seconds, Py_ssize_t many):
        self.most = most
        self.look = look
        self.look_seconds = look_seconds
        self.many = many

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
            if waiting == 1 or waiting >= self.many:
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


@cython.final
@cython.auto_pickle(False)
cdef class CallLines:
    """Lines that wait to be written, each a JSON object, made while what they are about is at hand. ``always``: fields
    of every line, as JSON without the braces.
    """

    cdef Buffer text            # ASCII
    cdef Py_ssize_t waiting
    cdef bytes always
    cdef int64_t second         # that ``time`` is of
    cdef bytes time

    def __cinit__(self, str always not None=""):
        self.always = b', "level": "info", "event": "call", ' + (f"{always}, " if always else "").encode("ascii")
        self.second = -1

    def __dealloc__(self):
        free(self.text.at)

    def __len__(self):
        return self.waiting

    @cython.nonecheck(True)
    cpdef Py_ssize_t add(
        self, double now, MethodName name, tuple outcome, Facts facts, double seconds, str request_id
    ) except -1:
        """Add the line of a call; return how many wait.

        ``now``: Unix time. ``outcome``: its status and, if it failed, the reason. ``request_id``: empty where it is to
        be taken from METADATA.
        """
        cdef int64_t second = <int64_t>now
        cdef int64_t thousandths = <int64_t>(seconds * 1e6 + 0.5)
        cdef Py_ssize_t begun = self.text.size
        cdef str status, reason, caller
        status, reason = outcome
        caller = CALLER.get()
        if second != self.second or self.time is None:
            self.time = datetime.datetime.fromtimestamp(second, datetime.UTC).isoformat()[:19].encode("ascii")
            self.second = second
        try:
            self.put(b'{"time": "')
            self.put(self.time)
            self.put(b".")
            self.put_number(<int64_t>((now - second) * 1000), 3)
            self.put(b'+00:00"')
            self.put(self.always)
            self.put(name.field)
            self.put(b', "request_id": ')
            self.put_text(request_id or id_of(METADATA.get()))
            self.put(b', "status": ')
            self.put_text(status)
            self.put(b', "items": ')
            self.put_number(facts.items, 1)
            self.put(b', "duration_ms": ')
            self.put_number(thousandths // 1000, 1)
            self.put(b".")
            self.put_number(thousandths % 1000, 3)
            if reason:
                self.put(b', "reason": ')
                self.put_text(reason)
            if facts.errors:
                self.put(b', "errors": ')
                self.put_number(facts.errors, 1)
            if facts.releases:
                self.put(b', "release": ')
                self.put_text(facts.releases)
            if caller:
                self.put(b', "caller": ')
                self.put_text(caller)
            self.put(b"}\n")
        except BaseException:
            # Whole lines only.
            self.text.size = begun
            raise
        self.waiting += 1
        return self.waiting

    def take(self):
        """Return the lines that wait; none do then."""
        cdef str text = (<char*>self.text.at)[:self.text.size].decode("ascii")
        self.text.size = 0
        self.waiting = 0
        return text

    cdef int put(self, bytes text) except -1:
        return self.put_bytes(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))

    cdef int put_bytes(self, const char* text, Py_ssize_t size) except -1:
        if not grow(&self.text, size):
            raise MemoryError
        memcpy(self.text.at + self.text.size, text, size)
        self.text.size += size
        return 0

    cdef int put_number(self, int64_t number, int least) except -1:
        """Write a number in ``least`` digits or as many more as it has."""
        cdef char[20] digits
        cdef int at = 20
        while number > 0 or least > 0:
            at -= 1
            least -= 1
            digits[at] = <char>(c"0" + number % 10)
            number //= 10
        return self.put_bytes(digits + at, 20 - at)

    cdef int put_text(self, str text) except -1:
        """Write a string of JSON."""
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
                self.put_bytes(b'"', 1)
                self.put_bytes(at, size)
                return self.put_bytes(b'"', 1)
        return self.put(json.dumps(text).encode("ascii"))
