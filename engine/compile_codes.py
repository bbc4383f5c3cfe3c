"""Compile the tables of one code system release into the arrays that ``engine._core`` maps.

Two halves, so that releases share what they can:

* the *history* (every code any release ever made valid, with its dates and conversions) depends on nothing
  but the dated source. Its arrays come out byte for byte the same in every release built from it, and the
  packs hold them once, as hard links;
* the *tree* (chapters to codes, titles, notes) and the hash slots belong to the release.

Arrays (all little-endian; ``h`` codes in the history, ``n`` nodes in the tree)
-------------------------------------------------------------------------------
========================  ===================================================================================
``code_key`` u8[h]        keys of the history, ascending; ``key_of`` in ``_core.pxd`` says what a key is
``code_spell`` u4[h+1]    code to its spells: ``spell_*[code_spell[c]:code_spell[c + 1]]``, never empty
``spell_first`` i4[]      first and last day of a spell (CCYYMMDD, inclusive), ascending within a code;
``spell_last`` i4[]       ``OPEN_END`` for a last day not known
``rep_key`` u8[r]         official conversions, sorted: old code, …
``rep_date`` i4[r]        … day from which the new one is reported (CCYYMMDD), …
``rep_new`` u8[r]         … new code
``code_format`` u1[1]     number of characters before the dot of a printed code; 0: printed without a dot;
                          plus 8: one more in codes that begin with E, as in ICD-9-CM
``code_node`` i4[h]       node of a code of the history, -1 if this release's tree does not have it
``slots`` Slot[]          hash of all keys; see below
``node_key`` u8[n]        key of a node; nodes are in pre-order and a node's id is its index
``node_exit`` u4[n]       one past the last descendant
``node_parent`` i4[n]     -1 for a root
``node_depth`` u1[n]      0 for a root
``node_kind`` u1[n]       index into ``KINDS``
``node_billable`` u1[n]   1: complete, may be reported
``key_node`` i4[n]        all nodes ordered by (key, kind): what a prefix begins is one run of it
``node_title`` u4[n+1]    offsets into ``title_text`` u1[] (UTF-8, bytes)
``node_short`` u4[n+1]    offsets into ``short_text`` u1[] (UTF-8, bytes)
``note_start`` u4[n+1]    node to its notes
``note_kind`` u1[m]       index into ``NOTE_KINDS``
``note_text`` u4[m+1]     offsets into ``note_bytes`` u1[] (UTF-8, bytes)
``axis_key`` u8[a]        only if there are axes: context and character of a label, without its colon, packed
                          like a key, ascending ("0", "0D", "0DB", "0DB4Z", …)
``axis_label`` u4[a]      … its label, an index into
``label_start`` u4[l+1]   … the offsets into ``label_text`` u1[] (UTF-8, bytes)
========================  ===================================================================================

The trie ``codes`` holds the key text of every node, in label order.

Slots: open addressing without wrap-around. A key's home is the top bits of ``key * HASH_FACTOR``; keys are
placed in order of their home at ``max(home, previous + 1)``, so equal input gives equal bytes. A probe goes
up from home until the key or an empty slot; the last slot is always empty, so every probe ends. A slot
answers the common question alone: ``first`` and ``last`` are the days since 1970-01-01 of the only spell
(``last`` 65535: open), or of the time from the first to the last spell with ``SEVERAL`` set in ``ref``;
``first`` > ``last`` for a key without a spell. ``ref`` below its flags is the index in the history or, from
``h`` on, ``h`` + node.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import marisa_trie
import numpy as np
import numpy.typing as npt

from . import _core
from .errors import SourceFormatError
from .tables import OPEN_END, CodeSystemTables

__all__ = ["GROUP_KINDS", "KINDS", "NOTE_KINDS", "SLOT_DTYPE", "compile_code_system"]

KINDS = (
    "chapter",
    "block",
    "category",
    "subcategory",
    "code",
    "section",
    "body_system",
    "operation",
    "body_part",
    "approach",
    "device",
    "qualifier",
)
"""Kinds of nodes; the index is what ``node_kind`` stores.

ICD-10-CM: chapter, block, category (3 characters, billable or not), subcategory (longer, not billable),
code (longer, billable).
ICD-10-PCS: one kind per character, section to qualifier; the qualifier completes the code.
"""

GROUP_KINDS = frozenset({"chapter", "block"})
"""Kinds that only group codes. A claim cannot mean them: to ``validate`` they are unknown, not headers."""

NOTE_KINDS = (
    "includes",
    "inclusion_term",
    "excludes1",
    "excludes2",
    "code_first",
    "use_additional",
    "code_also",
    "seventh_character",
    "note",
)
"""Kinds of instructional notes; the index is what ``note_kind`` stores."""

SLOT_DTYPE = np.dtype([("key", "<u8"), ("first", "<u2"), ("last", "<u2"), ("ref", "<u4")])

_HASH_FACTOR = np.uint64(_core.HASH_FACTOR)
_LAST_DAY = 65533  # 2149-06-04; 65534 stands for every day after it in a question, 65535 for "open"

Array = npt.NDArray[Any]


def compile_code_system(tables: CodeSystemTables) -> tuple[dict[str, Array], dict[str, bytes]]:
    """Return (arrays, tries) of the pack of ``tables``; the module's docstring lists them.

    Equal tables give equal bytes. Raises SourceFormatError when the tables contradict themselves: a code
    that is no code, dates that are none or out of order, overlapping spells, a tree not in pre-order, the
    same (code, kind) twice, a billable node that is never valid.
    """
    compiler = _Compiler(tables)
    arrays = compiler.history() | compiler.tree() | compiler.texts() | compiler.notes() | compiler.axes()
    # Last: it ties the other two together.
    arrays |= compiler.slots()
    return arrays, {"codes": compiler.trie()}


class _Compiler:
    def __init__(self, tables: CodeSystemTables) -> None:
        self.tables = tables
        self.name = f"{tables.system}/{tables.release}"
        n = len(tables.nodes)
        # One pass over the tuples; everything after works on columns.
        columns = list(zip(*tables.nodes, strict=True)) if n else [(), (), (), (), (), ()]
        kinds, self.node_codes, self.node_parents, billable, self.titles, self.short_titles = columns
        self.node_key = self.keys(self.node_codes, "node")
        number = {kind: index for index, kind in enumerate(KINDS)}
        try:
            self.node_kind = np.fromiter((number[kind] for kind in kinds), np.uint8, n)
        except KeyError as error:
            raise self.wrong(f"node kind {error}; expected one of {', '.join(KINDS)}") from None
        self.node_billable = np.fromiter(billable, np.uint8, n)
        self.grouping = np.isin(self.node_kind, [number[kind] for kind in sorted(GROUP_KINDS)])
        self.code_key: Array = np.empty(0, np.uint64)

    def wrong(self, what: str) -> SourceFormatError:
        return SourceFormatError(
            f"{self.name}: {what}. The importer's tables contradict themselves; no pack was written."
        )

    def keys(self, codes: Sequence[str], what: str) -> Array:
        keys = _core.pack_keys(codes)
        bad = np.flatnonzero(keys == 0)
        if bad.size:
            raise self.wrong(
                f"{what} {bad[0]} has code {codes[bad[0]]!r}; "
                "expected 1 to 8 of A-Z, 0-9 and '-', dots and blanks aside"
            )
        return keys

    def history(self) -> dict[str, Array]:
        spells = self.tables.spells
        codes, first, last = zip(*spells, strict=True) if spells else ((), (), ())
        key = self.keys(codes, "spell")
        first_date, last_date = self.dates(first, "first day"), self.dates(last, "last day")
        order = np.lexsort((first_date, key))
        key, first_date, last_date = key[order], first_date[order], last_date[order]
        new_code = np.ones(len(key), bool)
        new_code[1:] = key[1:] != key[:-1]
        backwards = np.flatnonzero(first_date > last_date)
        if backwards.size:
            i = backwards[0]
            raise self.wrong(f"spell of {_core.key_text(int(key[i]))}: {first_date[i]} is after {last_date[i]}")
        overlap = np.flatnonzero(~new_code[1:] & (first_date[1:] <= last_date[:-1]))
        if overlap.size:
            i = overlap[0]
            raise self.wrong(
                f"spells of {_core.key_text(int(key[i]))} overlap: "
                f"{first_date[i]}-{last_date[i]} and {first_date[i + 1]}-{last_date[i + 1]}"
            )
        start = np.flatnonzero(new_code)
        self.code_key = key[start]
        self.code_spell = np.append(start, len(key)).astype(np.uint32)
        self.spell_first, self.spell_last = first_date, last_date

        replacements = self.tables.replacements
        old, new, date = zip(*replacements, strict=True) if replacements else ((), (), ())
        rep_key, rep_new = self.keys(old, "replaced code"), self.keys(new, "replacing code")
        rep_date = self.dates(date, "day of a replacement")
        order = np.lexsort((rep_new, rep_date, rep_key))
        return {
            "code_key": self.code_key,
            "code_spell": self.code_spell,
            "spell_first": first_date,
            "spell_last": last_date,
            "rep_key": rep_key[order],
            "rep_date": rep_date[order],
            "rep_new": rep_new[order],
        }

    def dates(self, dates: Sequence[int], what: str) -> Array:
        """Return the dates as an array, each checked to be a day that slots can hold, or OPEN_END."""
        array = np.array(dates, np.int64)
        for date in np.unique(array).tolist():
            if date != OPEN_END and not 1 < _core.day_number(date) <= _LAST_DAY:
                raise self.wrong(f"{what} {date}; expected a date CCYYMMDD from 1970-01-03 to 2149-06-04")
        return array.astype(np.int32)

    def tree(self) -> dict[str, Array]:
        n = len(self.node_codes)
        node_exit, depth = [n] * n, [0] * n
        path: list[int] = []
        for node, parent in enumerate(self.node_parents):
            while path and path[-1] != parent:
                node_exit[path.pop()] = node
            if not path and parent != -1:
                raise self.wrong(
                    f"node {node} ({self.node_codes[node]}) has parent {parent}; expected -1 or one of the "
                    "nodes above it whose subtree is still open (pre-order)"
                )
            depth[node] = len(path)
            path.append(node)
        if n and max(depth) > 255:
            raise self.wrong("the tree is deeper than 255 levels")

        key_node = np.lexsort((self.node_kind, self.node_key))
        key, kind, grouping = self.node_key[key_node], self.node_kind[key_node], self.grouping[key_node]
        twice = np.flatnonzero((key[1:] == key[:-1]) & ((kind[1:] == kind[:-1]) | ~(grouping[1:] | grouping[:-1])))
        if twice.size:
            a, b = key_node[twice[0]], key_node[twice[0] + 1]
            raise self.wrong(
                f"nodes {a} ({KINDS[self.node_kind[a]]} {self.node_codes[a]}) and {b} "
                f"({KINDS[self.node_kind[b]]} {self.node_codes[b]}) cannot be told apart: only a chapter or "
                "block may share the code of another kind"
            )
        self.node_exit, self.key_node = np.array(node_exit, np.uint32), key_node.astype(np.int32)
        return {
            "node_key": self.node_key,
            "node_exit": self.node_exit,
            "node_parent": np.array(self.node_parents, np.int32),
            "node_depth": np.array(depth, np.uint8),
            "node_kind": self.node_kind,
            "node_billable": self.node_billable,
            "key_node": self.key_node,
            "code_format": self.code_format(),
        }

    def code_format(self) -> Array:
        """Find where the printed codes have their dot, and check that all follow from their keys."""
        before_dot: dict[bool, set[int]] = {True: set(), False: set()}
        for code, grouping in zip(self.node_codes, self.grouping, strict=True):
            if not grouping and "." in code:
                before_dot[code.startswith("E")].add(code.index("."))
        places = before_dot[False] or before_dot[True] or {0}
        dot = min(places)
        if before_dot[True] == {dot + 1}:
            dot += _core.LATER_AFTER_E
        elif len(places | before_dot[True]) > 1:
            places |= before_dot[True]
            raise self.wrong(f"codes have their dot after {sorted(places)} characters; expected one place")
        for i, code in enumerate(self.node_codes):
            if code != _core.printed(int(self.node_key[i]), 0 if self.grouping[i] else dot):
                raise self.wrong(
                    f"node {i} is printed {code!r}; expected upper case and the dot after {dot} characters"
                )
        return np.array([dot], np.uint8)

    def slots(self) -> dict[str, Array]:
        h = len(self.code_key)
        # Of several nodes with one key the code is meant, not the group: it comes last, and the last one
        # assigned wins.
        order = np.argsort(~self.grouping, kind="stable")
        by_key, inverse = np.unique(self.node_key[order], return_inverse=True)
        node_of_key = np.empty(len(by_key), np.int32)
        node_of_key[inverse] = order

        position = np.searchsorted(self.code_key, by_key)
        in_history = position < h
        in_history[in_history] = self.code_key[position[in_history]] == by_key[in_history]
        in_history &= ~self.grouping[node_of_key]
        code_node = np.full(h, -1, np.int32)
        code_node[position[in_history]] = node_of_key[in_history]

        billable = self.node_billable[node_of_key] == 1
        never = np.flatnonzero(billable & ~in_history)
        if never.size:
            node = node_of_key[never[0]]
            raise self.wrong(f"node {node} ({self.node_codes[node]}) is billable but has no spell")
        header = ~billable & ~self.grouping[node_of_key]

        # The history first, then what only the tree has. A group with the key of a code of the history has
        # no slot: lookup by kind finds it beside the code in key_node.
        shared = np.isin(by_key, self.code_key)
        tree_only = ~shared
        count = np.diff(self.code_spell)
        begin, end = self.code_spell[:-1].astype(np.int64), self.code_spell[1:].astype(np.int64) - 1
        entries = np.zeros(h + int(tree_only.sum()), SLOT_DTYPE)
        entries["key"] = np.concatenate([self.code_key, by_key[tree_only]])
        entries["first"][:h] = _days(self.spell_first[begin])
        entries["last"][:h] = _days(self.spell_last[end])
        entries["first"][h:] = 65535
        ref = np.concatenate([np.arange(h), h + node_of_key[tree_only]]).astype(np.uint32)
        ref[:h] |= np.where(count > 1, np.uint32(_core.SLOT_SEVERAL), np.uint32(0))
        ref[position[in_history & header]] |= np.uint32(_core.SLOT_HEADER)
        ref[h:] |= np.where(header[tree_only], np.uint32(_core.SLOT_HEADER), np.uint32(0))
        entries["ref"] = ref
        return {"code_node": code_node, "slots": _place(entries)}

    def texts(self) -> dict[str, Array]:
        node_title, title_text = _text(self.titles)
        node_short, short_text = _text(self.short_titles)
        return {
            "node_title": node_title,
            "title_text": title_text,
            "node_short": node_short,
            "short_text": short_text,
        }

    def notes(self) -> dict[str, Array]:
        notes = self.tables.notes
        n = len(self.node_codes)
        nodes, kinds, texts = zip(*notes, strict=True) if notes else ((), (), ())
        node = np.array(nodes, np.int64)
        if node.size and not 0 <= node.min() <= node.max() < n:
            raise self.wrong(f"a note is at node {node.min()} or {node.max()}; there are {n} nodes")
        number = {kind: index for index, kind in enumerate(NOTE_KINDS)}
        try:
            kind = np.fromiter((number[k] for k in kinds), np.uint8, len(notes))
        except KeyError as error:
            raise self.wrong(f"note kind {error}; expected one of {', '.join(NOTE_KINDS)}") from None
        order = np.argsort(node, kind="stable")
        note_text, note_bytes = _text([texts[i] for i in order.tolist()])
        return {
            "note_start": np.searchsorted(node[order], np.arange(n + 1)).astype(np.uint32),
            "note_kind": kind[order],
            "note_text": note_text,
            "note_bytes": note_bytes,
        }

    def axes(self) -> dict[str, Array]:
        axes = self.tables.axes
        if not axes:
            return {}
        texts = [context.replace(":", "") + value for context, labels in axes.items() for value in labels]
        labels = [label for labels in axes.values() for label in labels.values()]
        key = self.keys(texts, "axis label")
        order = np.argsort(key, kind="stable")
        key = key[order]
        twice = np.flatnonzero(key[1:] == key[:-1])
        if twice.size:
            raise self.wrong(f"axis value {_core.key_text(int(key[twice[0]]))} has two labels")
        distinct = sorted(set(labels))
        number = {label: index for index, label in enumerate(distinct)}
        label = np.fromiter((number[label] for label in labels), np.uint32, len(labels))[order]
        label_start, label_text = _text(distinct)
        return {"axis_key": key, "axis_label": label, "label_start": label_start, "label_text": label_text}

    def trie(self) -> bytes:
        texts = map(_core.key_text, np.unique(self.node_key).tolist())
        data: bytes = marisa_trie.Trie(texts, order=marisa_trie.LABEL_ORDER).tobytes()
        return data


def _days(dates: Array) -> Array:
    """CCYYMMDD to days since 1970-01-01, OPEN_END to 65535."""
    distinct, inverse = np.unique(dates, return_inverse=True)
    days = [65535 if date == OPEN_END else _core.day_number(date) for date in distinct.tolist()]
    return np.array(days, np.uint16)[inverse]


def _place(entries: Array) -> Array:
    """Lay the entries out as open-addressed slots, at most half of them full."""
    bits = max(3, (2 * len(entries) - 1).bit_length())
    with np.errstate(over="ignore"):
        home = ((entries["key"] * _HASH_FACTOR) >> np.uint64(64 - bits)).astype(np.int64)
    order = np.lexsort((entries["key"], home))
    # place[i] = max(home[i], place[i - 1] + 1), as a running maximum.
    index = np.arange(len(entries))
    place = np.maximum.accumulate(home[order] - index) + index
    end = int(place[-1]) + 1 if len(entries) else 0
    slots = np.zeros(max(1 << bits, end) + 1, SLOT_DTYPE)
    slots[place] = entries[order]
    return slots


def _text(texts: Iterable[str]) -> tuple[Array, Array]:
    """Join the texts; return (offsets, UTF-8 bytes)."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum([len(text) for text in encoded], out=offsets[1:])
    if offsets[-1] >= 1 << 32:
        raise SourceFormatError(f"{offsets[-1]} bytes of text; a pack holds at most 4 GiB of one kind")
    return offsets.astype(np.uint32), np.frombuffer(b"".join(encoded), np.uint8)
