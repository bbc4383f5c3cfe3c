# cython: language_level=3, boundscheck=False
"""An outside extension: it cimports the core and asks it without the GIL. Built and run by test_cython_consumer.py."""

from engine._core cimport (
    STATUS_VALID,
    CodeIndex,
    CodeTable,
    Day,
    Found,
    Range,
    Spell,
    day_of,
    descendants_of,
    find,
    first_child,
    key_of,
    next_sibling,
    parent_of,
    prefix_range,
    spell_on,
    status_of,
    status_packed,
    subsumes,
)
from libc.stdint cimport int32_t, uint8_t


def count_valid(CodeIndex index, const uint8_t[:, ::1] codes, int date):
    """Return how many of the NUL-padded codes are valid, asked one by one and all at once."""
    cdef Day day = day_of(date)
    cdef const CodeTable* table = &index.table
    cdef Py_ssize_t i, length
    cdef Py_ssize_t one_by_one = 0
    cdef Py_ssize_t at_once = 0
    cdef uint8_t[1000] status
    assert codes.shape[0] <= 1000
    with nogil:
        for i in range(codes.shape[0]):
            length = codes.shape[1]
            while length and codes[i, length - 1] == 0:
                length -= 1
            one_by_one += status_of(table, key_of(<const char*>&codes[i, 0], length), day) == STATUS_VALID
        status_packed(table, <const char*>&codes[0, 0], codes.shape[0], codes.shape[1], day, status)
        for i in range(codes.shape[0]):
            at_once += status[i] == STATUS_VALID
    return one_by_one, at_once


def walk(CodeIndex index, bytes code, int date):
    """Return (node, parent, children, descendants, nodes with its prefix, first day, parent subsumes it)."""
    cdef const CodeTable* table = &index.table
    cdef const char* text = code
    cdef Py_ssize_t length = len(code)
    cdef Found found
    cdef Range below, begun
    cdef Spell spell
    cdef int32_t child
    cdef int children = 0
    cdef bint within
    with nogil:
        found = find(table, key_of(text, length))
        child = first_child(table, found.node)
        while child >= 0:
            children += 1
            child = next_sibling(table, child)
        below = descendants_of(table, found.node)
        begun = prefix_range(table, key_of(text, length))
        spell = spell_on(table, found.code, date)
        within = subsumes(table, parent_of(table, found.node), found.node)
    return (
        found.node,
        parent_of(table, found.node),
        children,
        below.end - below.begin,
        begun.end - begun.begin,
        spell.first,
        within,
    )
