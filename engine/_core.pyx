"""Code look-up and hierarchy over the mapped arrays of one release.

Layers
------
1. Free ``nogil`` functions over ``CodeTable`` (declared in ``_core.pxd``): key, hash, status on a
   day, tree, prefix. They take no Python object, allocate nothing and cannot fail: what could be wrong was
   refused before.
2. ``CodeIndex``: opens the arrays of a pack, verifies every index in them (so that no look-up can
   read outside), and offers layer 1 to Python, one code or many. Arguments are coerced and checked under the
   GIL, then one block runs.
3. What answers mean to people (titles, sentences, releases) is the business of ``engine.codes``.

All objects are read-only after construction and safe to share between threads.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_Check, PyBytes_GET_SIZE
from cpython.sequence cimport PySequence_Fast, PySequence_Fast_GET_SIZE, PySequence_Fast_ITEMS
from cpython.object cimport PyObject
from libc.stdint cimport INT32_MIN, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

cimport numpy as cnp

from ._memory cimport prefetch

import datetime
import operator
from collections.abc import Sequence

import numpy as np

from engine.errors import InvalidDateError, InvalidFieldError

cnp.import_array()

cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <stdlib.h>
    #define codeset_swap(word) _byteswap_uint64(word)
    #else
    #define codeset_swap(word) __builtin_bswap64(word)
    #endif

    #define CODESET_HASH_FACTOR 0xD6E8FEB86659FD93ULL
    #define CODESET_HEADER 0x40000000U
    #define CODESET_SEVERAL 0x80000000U
    /* A word that has no key, for what a word cannot say. */
    #define CODESET_NOT_PLAIN 0xFFFFFFFFFFFFFFFFULL

    /* Compiled twice where the loader can choose: AVX2 does four codes at a time. */
    #if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__GLIBC__)
    #define CODESET_CLONES __attribute__((target_clones("avx2", "default")))
    #else
    #define CODESET_CLONES
    #endif

    /* Key of up to 8 letters and digits, first character in the lowest byte, padded with NUL; 0 if it is not
       so plain.

       All eight characters at a time, without a branch: codes come in random order, and a wrong guess costs
       more than all of it. A dot after the third character is dropped; whatever else is unusual is left to
       key_of_text. */
    static inline uint64_t codeset_key_of_word(uint64_t word) {
        const uint64_t ones = 0x0101010101010101ULL, high = 0x8080808080808080ULL;
        /* After a third character: behind a NUL it is none to be dropped. */
        const uint64_t dotted = 0 - (uint64_t)((((word >> 24) & 0xFF) == '.') & (((word >> 16) & 0xFF) != 0));
        const uint64_t undotted = (word & 0xFFFFFF) | ((word >> 8) & 0x00FFFFFFFF000000ULL);
        uint64_t alnum, full, bad;
        word ^= (word ^ undotted) & dotted;
        bad = word & high;
        /* '`' and above (0x60): upper case. What is no letter becomes '@', '[' ... '_' and fails below. */
        word -= ((word + 0x20 * ones) & high) >> 2;
        /* The high bit of a byte not below '0', ':', 'A', '[': odd in number inside the two ranges. */
        alnum = (word + 0x50 * ones) ^ (word + 0x46 * ones) ^ (word + 0x3F * ones) ^ (word + 0x25 * ones);
        alnum &= high;
        full = (alnum << 1) - (alnum >> 7);
        /* All that is not alphanumeric must be NUL, and must come last. */
        bad |= (word & ~full) | (full & (full + 1));
        return codeset_swap(word) & (0 - (uint64_t)(bad == 0));
    }

    /* Turns n words into their keys, in place; returns how many are 0. */
    CODESET_CLONES
    static Py_ssize_t codeset_keys_of_words(uint64_t *words, Py_ssize_t n) {
        uint64_t unusual = 0;
        Py_ssize_t i;
        for (i = 0; i < n; i++) {
            words[i] = codeset_key_of_word(words[i]);
            unusual += words[i] == 0;
        }
        return (Py_ssize_t)unusual;
    }

    /* Status by what a slot says: bit 0 the day is not before its first, bit 1 not after its last, bit 2
       header, bit 3 several spells, bit 4 the slot is of another key. 0: the spells must be looked at. */
    static const unsigned char codeset_status[32] = {
        5, 4, 3, 1,  2, 2, 2, 1,  5, 4, 3, 0,  2, 2, 2, 0,
        5, 5, 5, 5,  5, 5, 5, 5,  5, 5, 5, 5,  5, 5, 5, 5
    };
    """
    uint64_t codeset_swap(uint64_t word) noexcept nogil
    uint64_t key_of_word "codeset_key_of_word"(uint64_t word) noexcept nogil
    Py_ssize_t keys_of_words "codeset_keys_of_words"(uint64_t* words, Py_ssize_t n) noexcept nogil
    const uint8_t* codeset_status
    const uint64_t CODESET_HASH_FACTOR
    const uint32_t CODESET_HEADER
    const uint32_t CODESET_SEVERAL
    const uint64_t NOT_PLAIN "CODESET_NOT_PLAIN"

cdef extern from "Python.h":
    bint PyUnicode_CheckExact(PyObject* text) noexcept
    bint PyUnicode_Check(PyObject* text) noexcept
    bint PyUnicode_IS_ASCII(PyObject* text) noexcept
    bint PyUnicode_IS_COMPACT_ASCII(PyObject* text) noexcept
    int PyUnicode_READY(PyObject* text) noexcept
    const char* PyUnicode_DATA(PyObject* text) noexcept
    Py_ssize_t PyUnicode_GET_LENGTH(PyObject* text) noexcept
    void PyErr_Clear() noexcept
    ctypedef struct CodesetType "PyTypeObject":
        object (*tp_new)(type cls, tuple arguments, PyObject* keywords)

cdef enum:
    BLOCK = 128     # codes whose slots are on their way from memory at a time
    AHEAD = 24      # list items whose strings are on their way

SLOT_HEADER = CODESET_HEADER
SLOT_SEVERAL = CODESET_SEVERAL
LATER_AFTER_E = DOT_LATER_AFTER_E
HASH_FACTOR = CODESET_HASH_FACTOR


# -------------------- keys

cdef inline uint64_t load(const char* address) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, address, 8)
    return word


cdef uint64_t key_of_text(const char* text, Py_ssize_t length) noexcept nogil:
    cdef uint64_t key = 0
    cdef int shift = 56
    cdef Py_ssize_t i
    cdef uint8_t c
    for i in range(length):
        c = <uint8_t>text[i]
        if c == c'.' or c == c' ':
            continue
        if c'a' <= c <= c'z':
            c -= 32
        if not (c'0' <= c <= c'9' or c'A' <= c <= c'Z' or c == c'-') or shift < 0:
            return 0
        key |= <uint64_t>c << shift
        shift -= 8
    return key


cdef uint64_t key_of(const char* text, Py_ssize_t length) noexcept nogil:
    cdef uint64_t word = 0
    cdef uint64_t key = 0
    if 0 < length <= 8:
        memcpy(&word, text, length)
        # Where the length is known, a NUL at the end is no padding but part of the text.
        if text[length - 1]:
            key = key_of_word(word)
    return key if key else key_of_text(text, length)


cdef int text_of(uint64_t key, char* text) noexcept nogil:
    cdef int length = 0
    while key and length < 8:
        text[length] = <char>(key >> 56)
        key <<= 8
        length += 1
    return length


cdef int print_key(uint64_t key, int dot, char* text) noexcept nogil:
    cdef int length = text_of(key, text)
    if dot & DOT_LATER_AFTER_E:
        dot = (dot & ~DOT_LATER_AFTER_E) + (key >> 56 == c'E')
    # A range ("A00-B99") has no dot.
    if dot and length > dot and text[dot] != c'-':
        memmove(text + dot + 1, text + dot, length - dot)
        text[dot] = c'.'
        length += 1
    return length


cdef int print_node(const CodeTable* table, int dot, int32_t node, char* text) noexcept nogil:
    # A block ("A00-A09") is longer than the dot's place but has none.
    return print_key(table.node_key[node], dot if table.node_kind[node] > 1 else 0, text)


cdef inline uint64_t word_of_object(PyObject* code) noexcept:
    """The characters of a str of up to 8, NOT_PLAIN for other objects. Needs the GIL."""
    cdef const char* text
    cdef Py_ssize_t length
    cdef uint64_t word
    if not (PyUnicode_CheckExact(code) and PyUnicode_IS_COMPACT_ASCII(code)):
        return NOT_PLAIN
    text = PyUnicode_DATA(code)
    length = PyUnicode_GET_LENGTH(code)
    if length < 1 or length > 8:
        return NOT_PLAIN
    # The eight bytes that end with the text: those before it are the object's own header and shifted out.
    word = load(text + length - 8) >> (8 * (8 - length))
    # A NUL at the end is part of the text here, not padding.
    return word if word >> (8 * (length - 1)) else NOT_PLAIN


cdef uint64_t key_of_object(PyObject* code) noexcept:
    """Key of a str or bytes, 0 for anything else. Needs the GIL."""
    cdef uint64_t key = key_of_word(word_of_object(code))
    return key if key else key_of_unusual_object(code)


cdef uint64_t key_of_unusual_object(PyObject* code) noexcept:
    if PyUnicode_Check(code):
        if PyUnicode_READY(code) < 0:
            PyErr_Clear()
            return 0
        return key_of_text(PyUnicode_DATA(code), PyUnicode_GET_LENGTH(code)) if PyUnicode_IS_ASCII(code) else 0
    if PyBytes_Check(<object>code):
        return key_of(PyBytes_AS_STRING(<object>code), PyBytes_GET_SIZE(<object>code))
    return 0


cdef void keys_of_objects(PyObject** codes, Py_ssize_t n, Py_ssize_t more, uint64_t* keys) noexcept:
    """Keys of n objects; more follow them, whose strings are worth fetching already. Needs the GIL."""
    cdef Py_ssize_t i
    for i in range(n):
        if i + AHEAD < n + more:
            # A str need not lie within one cache line.
            prefetch(codes[i + AHEAD])
            prefetch(<char*>codes[i + AHEAD] + 48)
        keys[i] = word_of_object(codes[i])
    if keys_of_words(keys, n):
        for i in range(n):
            if keys[i] == 0:
                keys[i] = key_of_unusual_object(codes[i])


cdef void keys_of_packed(
    const char* codes, Py_ssize_t n, Py_ssize_t itemsize, Py_ssize_t more, uint64_t* keys
) noexcept nogil:
    """Keys of n NUL-padded codes of itemsize bytes; more of them follow in memory."""
    cdef uint64_t mask = ~<uint64_t>0 if itemsize >= 8 else (<uint64_t>1 << (8 * itemsize)) - 1
    cdef Py_ssize_t whole = n
    cdef Py_ssize_t i
    cdef const char* text
    # Below 8 bytes a word reaches into the codes behind; the last ones have none.
    if itemsize < 8:
        whole = min(n, max(0, (n + more) * itemsize - 8 + itemsize) // itemsize)
    if itemsize == 8:
        memcpy(keys, codes, 8 * n)
    elif itemsize < 8:
        for i in range(whole):
            keys[i] = load(codes + i * itemsize) & mask
        for i in range(whole, n):
            keys[i] = NOT_PLAIN
    else:
        for i in range(n):
            text = codes + i * itemsize
            keys[i] = load(text) if is_zero(text + 8, itemsize - 8) else NOT_PLAIN
    if keys_of_words(keys, n):
        for i in range(n):
            if keys[i] == 0:
                keys[i] = key_of_padded(codes + i * itemsize, itemsize)


cdef inline bint is_zero(const char* text, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        if text[i] != 0:
            return False
    return True


cdef uint64_t key_of_padded(const char* text, Py_ssize_t length) noexcept nogil:
    while length > 0 and text[length - 1] == 0:
        length -= 1
    return key_of_text(text, length)


# -------------------- dates

cdef int32_t day_number_of(int32_t date) noexcept nogil:
    cdef int32_t year = date // 10000
    cdef int32_t month = date // 100 % 100
    cdef int32_t day = date % 100
    cdef int32_t days, era, of_era
    if not (1 <= year <= 9999 and 1 <= month <= 12 and day >= 1):
        return INT32_MIN
    if month == 2:
        days = 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    else:
        days = 30 + (month + month // 8) % 2
    if day > days:
        return INT32_MIN
    # Years counted from March, so that the leap day is the last.
    if month <= 2:
        year -= 1
    era = year // 400
    of_era = year - era * 400
    days = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + days - 719468


cdef Day day_of(int32_t date) noexcept nogil:
    cdef Day day
    day.date = date
    day.number = <uint16_t>min(max(day_number_of(date), 1), 65534)
    return day


# -------------------- look-up

cdef inline const Slot* home_of(const CodeTable* table, uint64_t key) noexcept nogil:
    return table.slots + ((key * CODESET_HASH_FACTOR) >> table.shift)


cdef inline const Slot* probe(const CodeTable* table, uint64_t key) noexcept nogil:
    """The slot of the key or the empty one where the search for it ends."""
    cdef const Slot* slot = home_of(table, key)
    while slot.key != key and slot.key != 0:
        slot += 1
    return slot


cdef inline uint8_t judge(const CodeTable* table, const Slot* slot, uint64_t key, Day day) noexcept nogil:
    cdef uint32_t case = <uint32_t>(day.number >= slot.first) | (<uint32_t>(day.number <= slot.last) << 1)
    cdef uint8_t status
    case |= ((slot.ref >> 30) << 2) | (<uint32_t>(slot.key != key) << 4)
    status = codeset_status[case]
    return status if status else judge_spells(table, slot.ref, day)


cdef uint8_t judge_spells(const CodeTable* table, uint32_t ref, Day day) noexcept nogil:
    """Status on a day between the first and the last of several spells."""
    cdef uint32_t code = ref & ~(CODESET_HEADER | CODESET_SEVERAL)
    cdef uint32_t i
    for i in range(table.code_spell[code], table.code_spell[code + 1]):
        if table.spell_first[i] <= day.date <= table.spell_last[i]:
            return STATUS_VALID
    return STATUS_HEADER if ref & CODESET_HEADER else STATUS_EXPIRED


cdef const Slot* find_slot(const CodeTable* table, uint64_t key) noexcept nogil:
    cdef const Slot* slot
    if key == 0:
        return NULL
    slot = probe(table, key)
    return slot if slot.key == key else NULL


cdef inline Found place_of(const CodeTable* table, const Slot* slot) noexcept nogil:
    """What a slot refers to; NULL: nothing."""
    cdef Found found
    cdef uint32_t index
    found.code = found.node = -1
    found.header = False
    if slot != NULL:
        found.header = slot.ref & CODESET_HEADER != 0
        index = slot.ref & ~(CODESET_HEADER | CODESET_SEVERAL)
        if index < table.codes:
            found.code = <int32_t>index
            found.node = table.code_node[index]
        else:
            found.node = <int32_t>(index - table.codes)
    return found


cdef Found find(const CodeTable* table, uint64_t key) noexcept nogil:
    return place_of(table, find_slot(table, key))


cdef void fetch(const CodeTable* table, uint64_t key) noexcept nogil:
    prefetch(home_of(table, key))


cdef uint8_t look_up(const CodeTable* table, uint64_t key, Day day, Found* found) noexcept nogil:
    cdef const Slot* slot = NULL
    cdef uint8_t status = STATUS_MALFORMED
    if key:
        slot = probe(table, key)
        status = judge(table, slot, key, day)
        if slot.key != key:
            slot = NULL
    found[0] = place_of(table, slot)
    return status


cdef uint8_t status_of(const CodeTable* table, uint64_t key, Day day) noexcept nogil:
    return judge(table, probe(table, key), key, day) if key else STATUS_MALFORMED


cdef Spell spell_on(const CodeTable* table, int32_t code, int32_t date) noexcept nogil:
    cdef Spell spell
    cdef uint32_t i, begin, end
    spell.first = spell.last = 0
    if code < 0:
        return spell
    begin, end = table.code_spell[code], table.code_spell[code + 1]
    i = begin
    while i + 1 < end and table.spell_first[i + 1] <= date:
        i += 1
    spell.first, spell.last = table.spell_first[i], table.spell_last[i]
    return spell


cdef void status_of_keys(
    const CodeTable* table, const uint64_t* keys, Py_ssize_t n, Day day, uint8_t* status
) noexcept nogil:
    """Status of up to BLOCK keys. All slots are asked for before the first is read, so the waits overlap."""
    # Copies, because a store to status[] could change table for all the compiler knows.
    cdef const Slot* slots = table.slots
    cdef int shift = table.shift
    cdef const Slot* slot
    cdef uint64_t key
    cdef Py_ssize_t i
    for i in range(n):
        prefetch(slots + ((keys[i] * CODESET_HASH_FACTOR) >> shift))
    for i in range(n):
        key = keys[i]
        slot = slots + ((key * CODESET_HASH_FACTOR) >> shift)
        # Most searches end in the first two slots: the second without a guess at the first.
        slot += <Py_ssize_t>(slot.key != key) & <Py_ssize_t>(slot.key != 0)
        while slot.key != key and slot.key != 0:
            slot += 1
        status[i] = judge(table, slot, key, day) if key else STATUS_MALFORMED


cdef void status_packed(
    const CodeTable* table, const char* codes, Py_ssize_t n, Py_ssize_t itemsize, Day day, uint8_t* status
) noexcept nogil:
    cdef uint64_t[BLOCK] keys
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t count
    while start < n:
        count = min(<Py_ssize_t>BLOCK, n - start)
        keys_of_packed(codes + start * itemsize, count, itemsize, n - start - count, keys)
        status_of_keys(table, keys, count, day, status + start)
        start += count


cdef void columns_of_keys(
    const CodeTable* table, const uint64_t* keys, Py_ssize_t n, Day day, Columns out, Py_ssize_t start
) noexcept nogil:
    cdef Py_ssize_t i
    cdef Found found
    cdef Spell spell
    status_of_keys(table, keys, n, day, out.status + start)
    for i in range(n):
        found = find(table, keys[i])
        spell.first = spell.last = 0
        if is_complete(out.status[start + i]):
            spell = spell_on(table, found.code, day.date)
        out.billable[start + i] = is_complete(out.status[start + i])
        out.first[start + i] = spell.first
        out.last[start + i] = 0 if spell.last == OPEN_END else spell.last


cdef bint is_complete(uint8_t status) noexcept nogil:
    return status == STATUS_VALID or status == STATUS_NOT_YET or status == STATUS_EXPIRED


# -------------------- tree

cdef int32_t parent_of(const CodeTable* table, int32_t node) noexcept nogil:
    return table.node_parent[node] if node >= 0 else -1


cdef int32_t first_child(const CodeTable* table, int32_t node) noexcept nogil:
    if node < 0 or table.node_exit[node] == <uint32_t>node + 1:
        return -1
    return node + 1


cdef int32_t next_sibling(const CodeTable* table, int32_t node) noexcept nogil:
    cdef uint32_t next, end
    if node < 0:
        return -1
    next = table.node_exit[node]
    end = table.nodes if table.node_parent[node] < 0 else table.node_exit[table.node_parent[node]]
    return <int32_t>next if next < end else -1


cdef Range descendants_of(const CodeTable* table, int32_t node) noexcept nogil:
    cdef Range nodes
    nodes.begin = nodes.end = 0
    if node >= 0:
        nodes.begin, nodes.end = <uint32_t>node + 1, table.node_exit[node]
    return nodes


cdef bint subsumes(const CodeTable* table, int32_t ancestor, int32_t node) noexcept nogil:
    return 0 <= ancestor <= node and <uint32_t>node < table.node_exit[ancestor]


cdef uint32_t lower_bound(const CodeTable* table, uint64_t key) noexcept nogil:
    """Position in key_node of the first node whose key is not below key."""
    cdef uint32_t begin = 0
    cdef uint32_t end = table.nodes
    cdef uint32_t middle
    while begin < end:
        middle = begin + (end - begin) // 2
        if table.node_key[table.key_node[middle]] < key:
            begin = middle + 1
        else:
            end = middle
    return begin


cdef Range prefix_range(const CodeTable* table, uint64_t prefix) noexcept nogil:
    cdef Range nodes
    cdef int free_bits = 0
    nodes.begin, nodes.end = 0, table.nodes
    if prefix:
        while (prefix >> free_bits) & 0xFF == 0:
            free_bits += 8
        nodes.begin = lower_bound(table, prefix)
        # Keys are ASCII: adding one above the free bits passes all that begin with the prefix, and cannot
        # overflow.
        nodes.end = lower_bound(table, prefix + (<uint64_t>1 << free_bits))
    return nodes


# -------------------- the face to Python

def pack_keys(codes: Sequence[str | bytes]) -> cnp.ndarray:
    """Return the keys of a list or tuple of codes as an uint64 array; 0 for what cannot be a code. Any
    other item is 0, too.
    """
    cdef object items = PySequence_Fast(codes, "expected a list or tuple of codes")
    cdef Py_ssize_t n = PySequence_Fast_GET_SIZE(items)
    cdef cnp.ndarray keys = np.empty(n, np.uint64)
    keys_of_objects(PySequence_Fast_ITEMS(items), n, 0, <uint64_t*>cnp.PyArray_DATA(keys))
    return keys


def key_of_code(code: str | bytes) -> int:
    """Return the key of a code, 0 if it is malformed."""
    return key_of_object(<PyObject*>code)


def key_text(key: int) -> str:
    """Return the characters of a key: the code in upper case without its dot."""
    return text_of_key(key, 0)


def printed(key: int, dot: int) -> str:
    """Return the code as the book prints it, with a dot after ``dot`` characters if it is longer than that;
    0: no dot. ``dot`` + DOT_LATER_AFTER_E: after one more for a code that begins with E.
    """
    return text_of_key(key, dot)


def day_number(date: int) -> int:
    """Return the days since 1970-01-01 of a date CCYYMMDD; a number below -2**30 if the calendar has no
    such day.
    """
    return day_number_of(date) if -1 < date < 100000000 else INT32_MIN


cdef str text_of_key(uint64_t key, int dot):
    cdef char[PRINTED] text
    cdef int length = print_key(key, dot, text)
    return text[:length].decode("latin-1")


cdef const void* address(cnp.ndarray array) noexcept:
    return cnp.PyArray_DATA(array)


cdef int read_day(object date, Day* day) except -1:
    """Check and convert what a caller gives as a date."""
    cdef long long number = -1
    if type(date) is int:
        number = date if 0 < date <= 99991231 else -1
    elif isinstance(date, str):
        number = int(date) if len(date) == 8 and date.isascii() and date.isdigit() else -1
    elif isinstance(date, datetime.date):
        number = date.year * 10000 + date.month * 100 + date.day
    elif hasattr(date, "__index__") and type(date) is not bool:
        return read_day(operator.index(date), day)
    if number < 0 or day_number_of(<int32_t>number) == INT32_MIN:
        raise InvalidDateError(
            f"date {_short(date)}: expected a day of the calendar as CCYYMMDD, for example 20261001",
            field="date",
        )
    day[0] = day_of(<int32_t>number)
    return 0


cdef str _short(object value):
    cdef str text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def as_date(date) -> int:
    """Return a date given as CCYYMMDD, "CCYYMMDD" or datetime.date as CCYYMMDD. Raises InvalidDateError."""
    cdef Day day
    read_day(date, &day)
    return day.date


cdef class CodeIndex:
    """The verified arrays of one release, and every question about them that needs no words.

    ``pack`` is an ``engine.pack.Pack`` of kind ``codes``. ``answer_type`` is the subclass of ``Answer``
    that ``validate`` returns, ``statuses`` what stands for each status number, ``kinds`` and ``note_kinds``
    are how many of each there are.

    Nodes are numbered in the book's order (pre-order); -1 stands for none.

    Raises PackCorruptError if any index in the arrays points outside.
    """

    def __cinit__(self, pack, *, type answer_type, tuple statuses, int kinds, int note_kinds):
        cdef CodeTable* table = &self.table
        cdef dict arrays = {}
        self.arrays = arrays
        self.system = pack.manifest.system
        self.release = pack.manifest.release
        if not issubclass(answer_type, Answer):
            raise TypeError(f"answer_type: expected a subclass of Answer, got {answer_type.__name__}")
        self.answer_type = answer_type
        self.statuses = statuses
        self.kinds = kinds

        for name, dtype in _ARRAYS.items():
            arrays[name] = pack.array(name, dtype)
        if "axis_key.npy" in pack.manifest.files:
            for name, dtype in _AXIS_ARRAYS.items():
                arrays[name] = pack.array(name, dtype)
        _verify(pack, arrays, kinds, note_kinds)

        table.slots = <const Slot*>address(arrays["slots"])
        # All but the last, empty slot are 2 ** bits homes and the overflow of the last of them.
        table.shift = 64 - ((len(arrays["slots"]) - 1).bit_length() - 1)
        table.codes = len(arrays["code_key"])
        table.nodes = len(arrays["node_key"])
        table.code_key = <const uint64_t*>address(arrays["code_key"])
        table.code_spell = <const uint32_t*>address(arrays["code_spell"])
        table.spell_first = <const int32_t*>address(arrays["spell_first"])
        table.spell_last = <const int32_t*>address(arrays["spell_last"])
        table.code_node = <const int32_t*>address(arrays["code_node"])
        table.node_key = <const uint64_t*>address(arrays["node_key"])
        table.node_exit = <const uint32_t*>address(arrays["node_exit"])
        table.node_parent = <const int32_t*>address(arrays["node_parent"])
        table.node_depth = <const uint8_t*>address(arrays["node_depth"])
        table.node_kind = <const uint8_t*>address(arrays["node_kind"])
        table.node_billable = <const uint8_t*>address(arrays["node_billable"])
        table.key_node = <const int32_t*>address(arrays["key_node"])
        self.dot = int(arrays["code_format"][0])
        self.node_title = <const uint32_t*>address(arrays["node_title"])
        self.title_text = <const uint8_t*>address(arrays["title_text"])
        self.rep_key = <const uint64_t*>address(arrays["rep_key"])
        self.rep_date = <const int32_t*>address(arrays["rep_date"])
        self.rep_new = <const uint64_t*>address(arrays["rep_new"])
        self.replacements = len(arrays["rep_key"])
        self.axes = 0
        if "axis_key" in arrays:
            self.axis_key = <const uint64_t*>address(arrays["axis_key"])
            self.axes = len(arrays["axis_key"])

    def __len__(self):
        """Number of nodes."""
        return self.table.nodes

    @property
    def history(self):
        """Number of codes that any release made valid."""
        return self.table.codes

    def __reduce__(self):
        raise TypeError("an opened release is mapped memory; open the library again where it is needed")

    # --- codes on a day

    def status(self, code, date):
        """Return the Status of one code on ``date``; see ``validate``."""
        cdef Day day
        cdef uint64_t key
        read_day(date, &day)
        key = key_of_object(<PyObject*>code)
        if key == 0:
            _check_code(code)
        return self.statuses[status_of(&self.table, key, day)]

    def validate(self, code, date):
        """Return the Answer about one code on ``date`` (CCYYMMDD, "CCYYMMDD" or datetime.date).

        Raises InvalidDateError, and InvalidFieldError if ``code`` is no str or bytes.
        """
        cdef Answer answer
        cdef Day day
        read_day(date, &day)
        # Its __new__ without the look-up of the name and the call from Python.
        answer = <Answer>(<CodesetType*>self.answer_type).tp_new(self.answer_type, (), NULL)
        answer.key = key_of_object(<PyObject*>code)
        if answer.key == 0:
            _check_code(code)
        answer.index = self
        answer.code = code
        answer.date = day.date
        answer.number = status_of(&self.table, answer.key, day)
        return answer

    def status_many(self, codes, date):
        """Return the status number of each code as an uint8 array, in the order of ``codes``.

        ``codes``: a sequence of str or bytes (list and tuple are the fast ones), or a NumPy array of bytes
        or str with one axis. Items of another type are malformed codes. Raises InvalidDateError, and
        InvalidFieldError if ``codes`` is no sequence.
        """
        cdef Columns out
        cdef object status
        out.billable = NULL
        codes = _as_codes(codes)
        status = np.empty(len(codes), np.uint8)
        out.status = <uint8_t*>cnp.PyArray_DATA(status)
        self.run(codes, date, out)
        return status

    def columns_many(self, codes, date):
        """Return (status, billable, first, last) of each code, as arrays uint8, uint8, int32 and int32.

        ``billable`` is 1 for a complete code, on its days or not. ``first`` and ``last`` (CCYYMMDD) are of
        the spell that the status speaks of, 0 where there is none or it is open. Arguments and errors as of
        ``status_many``.
        """
        cdef Columns out
        codes = _as_codes(codes)
        n = len(codes)
        columns = (np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.int32), np.empty(n, np.int32))
        out.status = <uint8_t*>cnp.PyArray_DATA(columns[0])
        out.billable = <uint8_t*>cnp.PyArray_DATA(columns[1])
        out.first = <int32_t*>cnp.PyArray_DATA(columns[2])
        out.last = <int32_t*>cnp.PyArray_DATA(columns[3])
        self.run(codes, date, out)
        return columns

    cdef int run(self, object codes, object date, Columns out) except -1:
        """Fill the columns, only the status if ``out.billable`` is NULL. ``codes`` is from ``_as_codes``."""
        cdef uint64_t[BLOCK] keys
        cdef const CodeTable* table = &self.table
        cdef Day day
        cdef Py_ssize_t start = 0
        cdef Py_ssize_t count, n, itemsize
        cdef const char* packed
        cdef PyObject** items
        read_day(date, &day)
        n = len(codes)
        if isinstance(codes, np.ndarray):
            itemsize = codes.itemsize
            packed = <const char*>cnp.PyArray_DATA(codes)
            with nogil:
                if out.billable == NULL:
                    status_packed(table, packed, n, itemsize, day, out.status)
                else:
                    while start < n:
                        count = min(<Py_ssize_t>BLOCK, n - start)
                        keys_of_packed(packed + start * itemsize, count, itemsize, n - start - count, keys)
                        columns_of_keys(table, keys, count, day, out, start)
                        start += count
            return 0
        items = PySequence_Fast_ITEMS(codes)
        while start < n:
            count = min(<Py_ssize_t>BLOCK, n - start)
            keys_of_objects(items + start, count, n - start - count, keys)
            if out.billable == NULL:
                status_of_keys(table, keys, count, day, out.status + start)
            else:
                columns_of_keys(table, keys, count, day, out, start)
            start += count
        return 0

    # --- nodes

    def node(self, code, int kind=-1):
        """Return the node of a code; with ``kind`` (index into KINDS) the one of that kind. -1: none.

        Without a kind, a code comes before a block or chapter of the same name.
        """
        cdef uint64_t key = key_of_object(<PyObject*>code)
        cdef int32_t node = find(&self.table, key).node
        cdef Range same
        if key == 0:
            return -1
        if node >= 0 and (kind < 0 or self.table.node_kind[node] == kind):
            return node
        same = prefix_range(&self.table, key)
        for i in range(same.begin, same.end):
            node = self.table.key_node[i]
            if self.table.node_key[node] != key:
                break
            if kind < 0 or self.table.node_kind[node] == kind:
                return node
        return -1

    def printed(self, uint64_t key):
        """Return the code of a key as the book prints it, whether the release has it or not."""
        cdef int32_t node = find(&self.table, key).node
        return self.label(node) if node >= 0 else text_of_key(key, self.dot)

    def describe(self, int32_t node):
        """Return (key, printed code, kind, billable, depth, parent, title, short title) of a node."""
        cdef uint64_t key
        self.check(node)
        key = self.table.node_key[node]
        return (
            key,
            self.label(node),
            self.table.node_kind[node],
            self.table.node_billable[node] != 0,
            self.table.node_depth[node],
            self.table.node_parent[node],
            self.text("node_title", "title_text", node),
            self.text("node_short", "short_text", node),
        )

    def code_of(self, int32_t node):
        """Return the code of a node as the book prints it."""
        self.check(node)
        return self.label(node)

    cdef str label(self, int32_t node):
        cdef char[PRINTED] text
        cdef int length = print_node(&self.table, self.dot, node, text)
        return text[:length].decode("latin-1")

    def title(self, int32_t node):
        """Return the title of a node, empty if the sources have none."""
        self.check(node)
        return self.text("node_title", "title_text", node)

    def parent(self, int32_t node):
        """Return the parent of a node, -1 for a root."""
        self.check(node)
        return parent_of(&self.table, node)

    def ancestors(self, int32_t node):
        """Return the nodes above, nearest first."""
        cdef list nodes = []
        self.check(node)
        node = parent_of(&self.table, node)
        while node >= 0:
            nodes.append(node)
            node = parent_of(&self.table, node)
        return nodes

    def children(self, int32_t node):
        """Return the nodes directly below, in the book's order."""
        cdef list nodes = []
        self.check(node)
        node = first_child(&self.table, node)
        while node >= 0:
            nodes.append(node)
            node = next_sibling(&self.table, node)
        return nodes

    def descendants(self, int32_t node):
        """Return all nodes below as a range, in the book's order."""
        cdef Range nodes
        self.check(node)
        nodes = descendants_of(&self.table, node)
        return range(nodes.begin, nodes.end)

    def subsumes(self, int32_t ancestor, int32_t node):
        """Return whether ``ancestor`` is above ``node`` or is the same."""
        self.check(ancestor)
        self.check(node)
        return bool(subsumes(&self.table, ancestor, node))

    def roots(self):
        """Return the nodes without a parent, in the book's order."""
        cdef list nodes = []
        cdef int32_t node = 0 if self.table.nodes else -1
        while node >= 0:
            nodes.append(node)
            node = next_sibling(&self.table, node)
        return nodes

    def nodes(self, code):
        """Return all nodes of a code, in order of kind."""
        cdef uint64_t key = key_of_object(<PyObject*>code)
        cdef Range same = prefix_range(&self.table, key)
        cdef list found = []
        if key:
            for i in range(same.begin, same.end):
                if self.table.node_key[self.table.key_node[i]] != key:
                    break
                found.append(self.table.key_node[i])
        return found

    def begins_with(self, prefix):
        """Return the nodes whose code begins with ``prefix``, in order of (code, kind); none if it is
        malformed.
        """
        cdef uint64_t key = key_of_object(<PyObject*>prefix)
        cdef Range found
        if key == 0 and len(prefix):
            return []
        found = prefix_range(&self.table, key)
        return [self.table.key_node[i] for i in range(found.begin, found.end)]

    def notes(self, int32_t node):
        """Return (kind, text) of the notes printed at a node, in the book's order."""
        self.check(node)
        begin, end = self.arrays["note_start"][node : node + 2].tolist()
        kinds = self.arrays["note_kind"][begin:end].tolist()
        return [(kinds[i], self.text("note_text", "note_bytes", begin + i)) for i in range(end - begin)]

    cdef int check(self, int32_t node) except -1:
        if not 0 <= node < <int32_t>self.table.nodes:
            raise IndexError(f"node {node}: expected 0 to {self.table.nodes - 1}")
        return 0

    cdef object text(self, str offsets, str data, Py_ssize_t index):
        cdef cnp.ndarray offset = self.arrays[offsets]
        cdef cnp.ndarray array = self.arrays[data]
        cdef const uint32_t* begin = <const uint32_t*>cnp.PyArray_DATA(offset) + index
        cdef const char* text = <const char*>cnp.PyArray_DATA(array)
        # Not "strict": offsets are verified, the text is not, and a look-up does not fail.
        return text[begin[0]:begin[1]].decode("utf-8", "replace")

    # --- history

    def spells(self, code):
        """Return [(first, last), …] of a code: all days on which it is valid, as CCYYMMDD; OPEN_END for an
        open last one.
        """
        cdef uint64_t key = key_of_object(<PyObject*>code)
        cdef int32_t index = find(&self.table, key).code
        if index < 0:
            return []
        return [
            (self.table.spell_first[i], self.table.spell_last[i])
            for i in range(self.table.code_spell[index], self.table.code_spell[index + 1])
        ]

    def spell(self, uint64_t key, int date):
        """Return (first, last) of the spell of a code that its status on ``date`` speaks of; (0, 0) for a
        code without one.
        """
        cdef Spell spell = spell_on(&self.table, find(&self.table, key).code, date)
        return spell.first, spell.last

    def valid_codes(self, date):
        """Return the codes that are valid on ``date``, without dots and sorted, as an array of bytes (S8)."""
        cdef Day day
        read_day(date, &day)
        begin = self.arrays["code_spell"][:len(self.arrays["code_key"])]
        within = (self.arrays["spell_first"] <= day.date) & (day.date <= self.arrays["spell_last"])
        keys = self.arrays["code_key"]
        if len(keys):
            keys = keys[np.logical_or.reduceat(within, begin)]
        return keys.astype(">u8").view("S8")

    def replacements_of(self, uint64_t key):
        """Return [(date, key of the new code), …] of the conversions of a code, in order of date."""
        cdef Py_ssize_t i = np.searchsorted(self.arrays["rep_key"], np.uint64(key))
        cdef list found = []
        while i < self.replacements and self.rep_key[i] == key:
            found.append((self.rep_date[i], self.rep_new[i]))
            i += 1
        return found

    def axis_label(self, context):
        """Return the label of the axis value that ends ``context`` (see ``compile_codes``: "axis_key");
        empty if there is none.
        """
        cdef uint64_t key = key_of_object(<PyObject*>context)
        cdef Py_ssize_t i
        if self.axes == 0:
            return ""
        i = np.searchsorted(self.arrays["axis_key"], np.uint64(key))
        if i == self.axes or self.axis_key[i] != key:
            return ""
        return self.text("label_start", "label_text", self.arrays["axis_label"][i])


cdef class Answer:
    """What the core says about one code on one day. Made by ``CodeIndex.validate``; ``engine.codes`` puts
    it into words.
    """

    @property
    def status(self):
        """The Status."""
        return self.owner().statuses[self.number]

    @property
    def valid(self):
        """True if the code may be reported on the date: its status is VALID."""
        return self.number == STATUS_VALID

    @property
    def billable(self):
        """True for a complete code, whether the date is within its days or not; False for a header and for
        what is no code.
        """
        return is_complete(self.number)

    @property
    def effective_from(self):
        """First day (CCYYMMDD) of the spell that the status speaks of; None if there is none."""
        cdef int32_t date = self.spell().first
        return date if date else None

    @property
    def effective_to(self):
        """Last day (CCYYMMDD) of the spell that the status speaks of; None if there is none or its end is
        not known.
        """
        cdef int32_t date = self.spell().last
        return date if date and date != OPEN_END else None

    @property
    def key(self):
        """The key of the code, 0 if it is malformed."""
        return self.key

    @property
    def node(self):
        """The node of the code in the release's tree, -1 if it is not in it."""
        return find(&self.owner().table, self.key).node

    def __reduce__(self):
        raise TypeError("an answer belongs to the library that gave it; to keep or send it, take to_dict()")

    cdef Spell spell(self):
        cdef const CodeTable* table = &self.owner().table
        cdef Spell none
        none.first = none.last = 0
        return spell_on(table, find(table, self.key).code, self.date) if is_complete(self.number) else none

    cdef CodeIndex owner(self):
        # An object made without CodeIndex.validate has none, and Cython does not look before it follows.
        if self.index is None:
            raise TypeError("answers are made by validate() only")
        return self.index


cdef int _check_code(object code) except -1:
    if not isinstance(code, (str, bytes)):
        raise InvalidFieldError(f"code: expected str or bytes, got {type(code).__name__}", field="code")
    return 0


def _as_codes(codes):
    """Return a list, a tuple or a contiguous array of bytes with the codes."""
    if isinstance(codes, (list, tuple)):
        return codes
    if isinstance(codes, np.ndarray) or (hasattr(codes, "__array__") and hasattr(codes, "__len__")):
        array = np.asarray(codes)
        if array.ndim != 1 or array.dtype.kind not in "SUOT":
            raise InvalidFieldError(
                "codes: expected an array of bytes or str with one axis, "
                f"got {array.dtype} with {array.ndim} axes",
                field="codes",
            )
        return np.ascontiguousarray(array) if array.dtype.kind == "S" and array.itemsize else array.tolist()
    if isinstance(codes, Sequence) and not isinstance(codes, (str, bytes, bytearray, memoryview)):
        return list(codes)
    raise InvalidFieldError(
        f"codes: expected a list, tuple or array of codes, got {type(codes).__name__}"
        + (". For one code there is validate()" if isinstance(codes, (str, bytes)) else ""),
        field="codes",
    )


# -------------------- verification

_SLOT = np.dtype([("key", "<u8"), ("first", "<u2"), ("last", "<u2"), ("ref", "<u4")])
_ARRAYS = {
    "slots": _SLOT,
    "code_key": "<u8",
    "code_spell": "<u4",
    "spell_first": "<i4",
    "spell_last": "<i4",
    "rep_key": "<u8",
    "rep_date": "<i4",
    "rep_new": "<u8",
    "code_format": "|u1",
    "code_node": "<i4",
    "node_key": "<u8",
    "node_exit": "<u4",
    "node_parent": "<i4",
    "node_depth": "|u1",
    "node_kind": "|u1",
    "node_billable": "|u1",
    "key_node": "<i4",
    "node_title": "<u4",
    "title_text": "|u1",
    "node_short": "<u4",
    "short_text": "|u1",
    "note_start": "<u4",
    "note_kind": "|u1",
    "note_text": "<u4",
    "note_bytes": "|u1",
}
_AXIS_ARRAYS = {"axis_key": "<u8", "axis_label": "<u4", "label_start": "<u4", "label_text": "|u1"}


cdef bint are_inside(const Slot* slots, Py_ssize_t n, uint32_t codes, uint32_t nodes) noexcept nogil:
    """True if every slot refers to a code or node that is there, and to spells only if it is a code."""
    cdef Py_ssize_t i
    cdef uint32_t index, limit
    for i in range(n):
        index = slots[i].ref & ~(CODESET_HEADER | CODESET_SEVERAL)
        limit = codes if slots[i].ref & CODESET_SEVERAL else codes + nodes
        if index >= limit and slots[i].key != 0:
            return False
    return True


cdef bint are_earlier(const int32_t* parents, int32_t n) noexcept nogil:
    cdef int32_t i
    for i in range(n):
        if not -1 <= parents[i] < i:
            return False
    return True


cdef bint are_nested(const int32_t* parents, const uint32_t* exits, int32_t n) noexcept nogil:
    cdef int32_t i
    for i in range(n):
        if not <uint32_t>i < exits[i] <= (<uint32_t>n if parents[i] < 0 else exits[parents[i]]):
            return False
    return True


def _verify(pack, arrays, kinds, note_kinds):
    """Refuse arrays with an index that points outside, or on which a walk would not end.

    What stays unverified: that the answers are right. A pack whose checksums hold is what its compiler wrote.
    """

    cdef const int32_t* parents
    cdef const uint32_t* exits

    def expect(holds, name, what):
        if not holds:
            raise pack.corrupt(f"{name}.npy", what)

    def expect_length(name, length):
        expect(len(arrays[name]) == length, name, f"it has {len(arrays[name])} items, expected {length}")

    def expect_offsets(name, items, *targets):
        offsets = arrays[name]
        expect_length(name, items + 1)
        ascending = offsets[0] == 0 and not (offsets[1:] < offsets[:items]).any()
        expect(ascending, name, "its offsets do not ascend from 0")
        for target in targets:
            expect_length(target, int(offsets[items]))

    def expect_below(name, limit, lowest=0):
        array = arrays[name]
        bad = array.size and (array.max() >= limit or array.min() < lowest)
        expect(not bad, name, f"it has an index outside {lowest} to {limit - 1}")

    codes, nodes = len(arrays["code_key"]), len(arrays["node_key"])
    expect(codes < 1 << 29 and nodes < 1 << 29, "code_key", "it is too long")

    slots = arrays["slots"]
    closed = len(slots) >= 9 and slots["key"][len(slots) - 1] == 0
    expect(closed, "slots", "it does not end with an empty slot")
    inside = are_inside(<const Slot*>address(slots), len(slots), codes, nodes)
    expect(inside, "slots", "a slot refers to a code, node or spell that is not there")

    expect_offsets("code_spell", codes, "spell_first", "spell_last")
    empty = arrays["code_spell"][1:] == arrays["code_spell"][:codes]
    expect(not empty.any(), "code_spell", "a code has no spell")
    expect_length("code_node", codes)
    expect_below("code_node", nodes, -1)
    for name in ("rep_date", "rep_new"):
        expect_length(name, len(arrays["rep_key"]))
    expect_length("code_format", 1)
    expect_below("code_format", 16)

    for name in ("node_exit", "node_parent", "node_depth", "node_kind", "node_billable", "key_node"):
        expect_length(name, nodes)
    parents = <const int32_t*>address(arrays["node_parent"])
    exits = <const uint32_t*>address(arrays["node_exit"])
    expect(are_earlier(parents, nodes), "node_parent", "a parent does not come before its child")
    expect(are_nested(parents, exits, nodes), "node_exit", "a subtree does not end within its parent's")
    expect_below("node_kind", kinds)
    expect_below("node_billable", 2)
    expect_below("key_node", nodes)

    expect_offsets("node_title", nodes, "title_text")
    expect_offsets("node_short", nodes, "short_text")
    expect_offsets("note_start", nodes, "note_kind")
    expect_offsets("note_text", len(arrays["note_kind"]), "note_bytes")
    expect_below("note_kind", note_kinds)

    if "axis_key" in arrays:
        expect_length("axis_label", len(arrays["axis_key"]))
        expect(len(arrays["label_start"]), "label_start", "it is empty")
        expect_below("axis_label", len(arrays["label_start"]) - 1)
        expect_offsets("label_start", len(arrays["label_start"]) - 1, "label_text")
