"""A code system that never was, a plain-Python oracle of what it answers, and packs of it, on disk and in memory.

The oracle is written from the contract, not from the core: it walks lists.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from engine import pack
from engine.codes import CodeSystem, Status
from engine.compile_codes import GROUP_KINDS, compile_code_system
from engine.tables import OPEN_END, CodeSystemTables, Node, Note, Replacement, Source, Spell

SYSTEM = "beasts"
FROM, TO = 20201001, 20210331


def tables(release: str = "2021", effective_from: int = FROM, effective_to: int = TO) -> CodeSystemTables:
    """Bites and stings of beasts that do not exist."""
    nodes = [
        Node("chapter", "1", -1, False, "Injuries by beasts"),
        Node("block", "U00-U09", 0, False, "Unicorns"),
        Node("category", "U00", 1, False, "Gored by unicorn", "Gored by unicorn"),
        Node("subcategory", "U00.1", 2, False, "Gored by unicorn, thigh"),
        Node("code", "U00.11", 3, True, "Gored by unicorn, right thigh", "Gored by unicorn, r thigh"),
        Node("code", "U00.12", 3, True, "Gored by unicorn, left thigh"),
        Node("code", "U00.9", 2, True, "Gored by unicorn, unspecified"),
        Node("category", "U01", 1, True, "Trodden on by unicorn"),
        Node("block", "W99", 0, False, "Wyverns"),
        Node("category", "W99", 8, False, "Stung by wyvern — Stich"),
        Node("code", "W99.8XXA", 9, True, "Stung by wyvern, initial encounter"),
        Node("code", "W99.9", 9, True, ""),
        Node("chapter", "2", -1, False, "Curses"),
    ]
    spells = [
        Spell("U0011", 20181001, OPEN_END),
        Spell("U0012", 20201001, OPEN_END),
        Spell("U001", 20151001, 20180930),
        Spell("U009", 20151001, 20160930),
        Spell("U009", 20171001, 20181231),
        Spell("U009", 20201001, OPEN_END),
        Spell("U01", 20151001, 20301231),
        Spell("W998XXA", 20151001, OPEN_END),
        Spell("W999", 20151001, OPEN_END),
        Spell("V000", 20151001, 20190930),
        Spell("V001", 20191001, 20200930),
        Spell("V002", 20211001, OPEN_END),
    ]
    notes = [
        Note(0, "note", "Use these only in tales"),
        Note(1, "excludes1", "narwhals (N00-N09)"),
        Note(2, "inclusion_term", "Goring by monoceros"),
        Note(2, "seventh_character", "A\tfirst telling"),
        Note(4, "inclusion_term", "Right thigh pierced"),
        Note(9, "seventh_character", "A\tinitial encounter"),
        Note(10, "seventh_character", "X\tnearest"),
    ]
    replacements = [
        Replacement("U00.1", "U00.11", 20181001),
        Replacement("U00.1", "U00.12", 20201001),
        Replacement("V00.0", "V00.1", 20191001),
        Replacement("V00.1", "U01", 20201001),
        Replacement("V00.1", "V00.2", 20211001),
    ]
    source = Source("made-up-beasts", "1.0", "0" * 64, "beasts.txt", release, ("membership", "titles"))
    return CodeSystemTables(
        SYSTEM,
        release,
        effective_from,
        effective_to,
        spells,
        nodes,
        notes,
        replacements,
        sources=[source],
        facts={"beasts": 2, "note": "Märchen, keine Codes"},
    )


def write(store: Path, made_up: CodeSystemTables | None = None, **options: Any) -> Path:
    """Compile and publish a pack."""
    made_up = made_up or tables()
    arrays, tries = compile_code_system(made_up)
    return pack.write_pack(
        store,
        system=made_up.system,
        release=made_up.release,
        kind="codes",
        effective_from=made_up.effective_from,
        effective_to=made_up.effective_to,
        arrays=arrays,
        tries=tries,
        sources=made_up.sources,
        facts=made_up.facts,
        **options,
    )


class MemoryPack(pack.Pack):
    """A pack that was never on disk. ``place`` puts the bytes of a file where the test wants them."""

    def __init__(
        self, made_up: CodeSystemTables, arrays: Mapping[str, Any], tries: Mapping[str, bytes], place: Any = bytes
    ) -> None:
        files = {}
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array)
            files[f"{name}.npy"] = stream.getvalue()
        files |= {f"{name}.marisa": data for name, data in tries.items()}
        manifest = pack.Manifest(
            made_up.system,
            made_up.release,
            "codes",
            made_up.effective_from,
            made_up.effective_to,
            (),
            {},
            {name: pack.FileEntry(len(data), "") for name, data in files.items()},
        )
        super().__init__(Path(made_up.system, made_up.release), manifest, {n: place(d) for n, d in files.items()})


def in_memory(made_up: CodeSystemTables) -> CodeSystem:
    """Compile and open without a disk."""
    return CodeSystem(MemoryPack(made_up, *compile_code_system(made_up)))


def normalized(code: object) -> str:
    """What a code is to the engine; empty for what cannot be one."""
    if isinstance(code, bytes):
        code = code.decode("latin-1")
    if not isinstance(code, str):
        return ""
    kept = code.replace(".", "").replace(" ", "")
    # Not str.upper: it makes ASCII of some letters that are not.
    kept = "".join(chr(ord(c) - 32) if "a" <= c <= "z" else c for c in kept)
    return kept if re.fullmatch(r"[A-Z0-9-]{1,8}", kept) else ""


class Oracle:
    """Answers from the tables alone."""

    def __init__(self, made_up: CodeSystemTables) -> None:
        self.nodes = made_up.nodes
        self.spells: dict[str, list[tuple[int, int]]] = {}
        for spell in made_up.spells:
            self.spells.setdefault(normalized(spell.code), []).append((spell.first, spell.last))
        for spells in self.spells.values():
            spells.sort()
        self.headers = {
            normalized(node.code) for node in self.nodes if not node.billable and node.kind not in GROUP_KINDS
        }

    def answer(self, code: object, date: int) -> tuple[Status, bool, int | None, int | None]:
        """Return (status, billable, effective_from, effective_to)."""
        key = normalized(code)
        if not key:
            return Status.MALFORMED, False, None, None
        spells = self.spells.get(key, [])
        for first, last in spells:
            if first <= date <= last:
                return Status.VALID, True, first, None if last == OPEN_END else last
        if key in self.headers:
            return Status.HEADER, False, None, None
        ended = [spell for spell in spells if spell[1] < date]
        if ended:
            return Status.EXPIRED, True, *ended[-1]
        if spells:
            first, last = spells[0]
            return Status.NOT_YET, True, first, None if last == OPEN_END else last
        return Status.UNKNOWN, False, None, None

    def above(self, node: int) -> list[int]:
        found = []
        while (node := self.nodes[node].parent) >= 0:
            found.append(node)
        return found

    def below(self, node: int) -> list[int]:
        return [other for other in range(len(self.nodes)) if node in self.above(other)]

    def directly_below(self, node: int) -> list[int]:
        return [other for other in range(len(self.nodes)) if self.nodes[other].parent == node]


DATES = st.one_of(
    st.dates().map(lambda day: day.year * 10000 + day.month * 100 + day.day),
    st.integers(2015, 2023).flatmap(
        lambda year: st.sampled_from([year * 10000 + day for day in (101, 331, 401, 930, 1001, 1002, 1231)])
    ),
)
_SPELL_DAYS = sorted({year * 10000 + day for year in range(2014, 2024) for day in (331, 401, 930, 1001, 1231)})
_CODE = st.from_regex(r"\A[UW][0-2][0-2A][0-2AX]{0,4}\Z")


@st.composite
def code_systems(draw: st.DrawFn) -> CodeSystemTables:
    """Random releases: a tree by prefix under chapters and blocks, and a history that need not agree with it."""
    texts = draw(st.lists(_CODE, max_size=12, unique=True))
    history: dict[str, list[Spell]] = {}
    for text in texts:
        days = sorted(draw(st.sets(st.sampled_from(_SPELL_DAYS), min_size=2, max_size=6)))
        days = days[: len(days) // 2 * 2]
        spells = [Spell(text, first, last) for first, last in zip(days[::2], days[1::2], strict=True)]
        if draw(st.booleans()):
            spells[-1] = spells[-1]._replace(last=OPEN_END)
        history[text] = spells
    in_tree = set(draw(st.lists(st.sampled_from(texts), unique=True)) if texts else [])
    in_tree |= {text[:length] for text in in_tree for length in draw(st.sets(st.integers(3, 6)))}
    in_tree |= {text[:3] for text in in_tree}
    nodes: list[Node] = []
    for chapter, letter in enumerate("UW", 1):
        root = len(nodes)
        nodes.append(Node("chapter", str(chapter), -1, False, f"Chapter {chapter}"))
        path: list[tuple[str, int]] = []
        for text in sorted(t for t in in_tree if t[0] == letter):
            while path and not text.startswith(path[-1][0]):
                path.pop()
            parent = path[-1][1] if path else root
            if len(text) == 3 and draw(st.booleans()):
                name = draw(st.sampled_from([text, f"{text}-{letter}99"]))
                nodes.append(Node("block", name, parent, False, "Block"))
                parent = len(nodes) - 1
            billable = text in history and draw(st.booleans())
            kind = "category" if len(text) == 3 else "code" if billable else "subcategory"
            printed = text if len(text) == 3 else f"{text[:3]}.{text[3:]}"
            path.append((text, len(nodes)))
            nodes.append(Node(kind, printed, parent, billable, f"Title of {text} é"))
    spells = draw(st.permutations([spell for group in history.values() for spell in group]))
    return CodeSystemTables(SYSTEM, "random", FROM, TO, spells, nodes)


def questions(made_up: CodeSystemTables) -> st.SearchStrategy[Any]:
    """Codes to ask about: true ones, dressed up and mangled, and garbage of every kind."""
    known = [spell.code for spell in made_up.spells] + [node.code for node in made_up.nodes] or ["U00"]
    true = st.sampled_from(known)

    @st.composite
    def mangled(draw: st.DrawFn) -> str:
        code = draw(true)
        place = draw(st.integers(0, len(code)))
        inserted = draw(
            st.sampled_from(["", ".", " ", "..", "\0", "0", "-", "é", "\n", "\uff21", "\x7f", "@", "`", "\xff"])
        )
        code = code[:place] + inserted + code[place:]
        return draw(
            st.sampled_from([code, code.lower(), code.swapcase(), code[:-1], code * 2, code.ljust(20), code + "\0"])
        )

    return st.one_of(
        true,
        mangled(),
        mangled().map(lambda code: code.encode("utf-8")),
        _CODE,
        st.text(max_size=12),
        st.text(alphabet="uwUW012AX. -\0", max_size=10),
        st.text(alphabet=" .", min_size=5).map(lambda blanks: f"u0{blanks}0"),
        st.sampled_from(
            ["U00" + "0" * 10_000, " " * 10_000 + "u00", "", ".", "\0", "\udc80", "ß", "\u017f00", "\U0001f984"]
        ),
        st.binary(max_size=12),
    )


def others() -> st.SearchStrategy[Any]:
    """Items of a list that are no text at all."""
    return st.one_of(st.none(), st.integers(), st.floats(), st.tuples(st.text()), st.just(object()), st.just(b"U00"))


def as_array(codes: Sequence[bytes], width: int | None = None) -> np.ndarray[Any, np.dtype[np.bytes_]]:
    """Pack codes into an array of bytes; NumPy cuts at ``width`` and drops trailing NULs."""
    return np.array(list(codes), dtype=f"S{width}" if width else None)
