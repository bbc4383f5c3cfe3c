"""Compile the tables of one MS-DRG version into the arrays that ``engine._msdrg`` groups from.

The idea: everything a formula can ask about a claim is one bit. An *atom* is a (prefix, name) pair as
formulas write it (``PDX:dxc0407``, ``ANY:diabetes``, ``d468``); each atom that occurs in a formula of this
version gets a bit, in code-point order of the names, because the reference walks matched atoms in that order.
A diagnosis scheme or a procedure pattern is then a row of 64-bit words, a claim's mask is the OR of its
codes' rows, and a formula is a short-circuit program over single bits.

Which rows of a list can be true at all is found without looking at each row: every row is filed under a few
*anchor* atoms of which at least one must be set for the row to be true, and a claim visits only the rows
filed under its own bits.

The rules are those of the CMS MS-DRG software; section numbers refer to the functional description in
``docs/msdrg.md``. Canonical ordering throughout makes the arrays independent of the order and the ids of the
source file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import SourceFormatError
from .tables import DiagnosisAttributes, Formula, MsdrgTables

__all__ = ["compile_msdrg"]

Array: TypeAlias = npt.NDArray[Any]
Atom: TypeAlias = tuple[str, str]
"""(prefix, name). The prefix is "", PDX, SDX, ANY or ONLY; SPECIAL for an atom that is computed rather than
looked up."""

SLOT: Final = np.dtype([("key", "<u8"), ("attributes", "<u2"), ("group", "<u2"), ("member", "<u4")])
SCHEME: Final = np.dtype(
    [
        ("mdc_male", "<i2"),
        ("mdc_female", "<i2"),
        ("severity", "u1"),
        ("flags", "u1"),
        ("trauma", "u1"),
        ("n_hacs", "u1"),
        ("hac_number", "u1", (4,)),
        ("hac_display", "u1", (4,)),
        ("content", "<u2"),
        ("pad", "<u2", (3,)),
        ("suppression", "<u8"),
    ]
)
PATTERN: Final = np.dtype([("flags", "u1"), ("hac_usage", "u1"), ("bilateral", "u1"), ("pad", "u1")])
ROW: Final = np.dtype(
    [
        ("program", "<u4"),
        ("drg", "<i2"),
        ("base_drg", "<i2"),
        ("reroute", "i1"),
        ("med_surg", "u1"),
        ("suppression", "u1"),
        ("pad", "u1"),
        ("source_rank", "<i4"),
    ]
)
LIST: Final = np.dtype([("row", "<u4"), ("count", "<u2"), ("last_suppression", "u1"), ("pad", "u1")])
STEP: Final = np.dtype([("bit", "<u2"), ("if_true", "<u2"), ("if_false", "<u2"), ("pad", "<u2")])
CLUSTER: Final = np.dtype([("suppressed", "<u8"), ("all_choices", "<u4"), ("pattern", "<u2"), ("pad", "<u2")])
CLUSTER_USE: Final = np.dtype([("cluster", "<u2"), ("choice", "<u2")])
COUNTER: Final = np.dtype(
    [
        ("bit", "<u2"),
        ("threshold", "u1"),
        ("n_names", "u1"),
        ("name_bit", "<u2", (4,)),
        ("weight", "u1", (4,)),
        ("companion", "<u2"),
        ("both_kinds", "u1"),
        ("flag", "u1"),
    ]
)

WORDS: Final = 8
MAX_BITS: Final = 64 * WORDS
NO_BIT: Final = 0xFFFF
TRUE: Final = 0xFFFE
FALSE: Final = 0xFFFF
N_LISTS: Final = 64

SCHEME_GENDERED: Final = 1
SCHEME_MCCALIVE: Final = 2
SCHEME_INCIDENT: Final = 4
SCHEME_ON_SHOW_LIST: Final = 8
SCHEME_HAC11_PDX: Final = 16
PATTERN_OPERATING_ROOM: Final = 1
PATTERN_NAMED: Final = 2
FLAG_FUSION, FLAG_STENT, FLAG_VESSEL = 1, 2, 4

SEVERITY = {"NCC": 0, "CC": 1, "MCC": 2}
MED_SURG = {"NA": 1, "MEDICAL": 2, "SURGICAL": 3}
TRAUMA_NAMES = ("sthead", "stchest", "stabdom", "stkidney", "sturin", "stpel", "stuplimb", "stlolimb")
JOINT_NAMES = ("righthip", "rightknee", "rightankle", "lefthip", "leftknee", "leftankle")
HAC_DISPLAYS = (*(f"HAC{n:02d}" for n in range(1, 15)), "hac06_show", "hac06_sdx", "hac11_sdx")
HAC_USAGE_NUMBERS = (8, 10, 11, 12, 13, 14)

# Bits the core sets itself, in the order of the array "known_bits"; an atom that no formula of the version
# uses has no bit.
KNOWN: tuple[Atom, ...] = (
    ("", "MCC"),
    ("", "CC"),
    ("", "NON_CC"),
    ("SPECIAL", "INVALID_PDX"),
    ("SPECIAL", "PDX_ECODE"),
    ("SPECIAL", "INVALID_DSTAT"),
    ("SPECIAL", "INVALID_SEX"),
    ("SPECIAL", "INCIDENT"),
    ("SPECIAL", "MULTST"),
    ("SPECIAL", "BILATERAL"),
    ("SPECIAL", "MDC_20_FALL_THRU"),
    ("", "ALIVE"),
    ("", "AMA"),
    ("", "DIED"),
    ("", "XFRNBA"),
    ("", "ANYDX"),
    ("", "arterial"),
    ("", "NORdrugstent"),
    ("", "NORstent"),
    ("", "revision"),
    ("", "stent1"),
    ("", "stent2"),
    ("", "stent3"),
    ("", "stent4"),
    ("", "vessel1"),
    ("", "vessel2"),
    ("", "vessel3"),
    ("", "vessel4"),
    *(("", name) for name in TRAUMA_NAMES),
    *(("", name) for name in JOINT_NAMES),
)


class _Counter(NamedTuple):
    """An atom that is true when enough occurrences of some procedure names are on the claim (section 9.3)."""

    atom: str
    names: tuple[str, ...]
    weights: tuple[int, ...]
    threshold: int
    flag: int
    companion: str = ""
    both_kinds: bool = False


def _counters(number: int) -> list[_Counter]:
    """Return the counting atoms that version ``number`` (431 for 43.1) knows."""
    stents = ("stent1", "stent2", "stent3", "stent4")
    vessels = ("vessel1", "vessel2", "vessel3", "vessel4")
    four = (1, 2, 3, 4)
    counters = [_Counter("FOUR_VESSELS", vessels, four, 4, FLAG_VESSEL)]
    if number >= 410:
        counters.append(_Counter("FOUR_STENTS", stents, four, 4, FLAG_STENT))
    else:
        counters.append(_Counter("FOUR_DRUG_ELUTING_STENTS", stents, four, 4, FLAG_STENT, "NORdrugstent"))
        counters.append(_Counter("FOUR_NON_DRUG_ELUTING_STENTS", stents, four, 4, FLAG_STENT, "NORstent"))
    if number >= 420:
        counters += [
            _Counter("MULTFUSE", ("sglantfuse", "sglpostfuse1"), (1, 1), 2, FLAG_FUSION),
            _Counter("SGLANTSECTXCTR", ("sglantsectXfuse",), (1,), 2, FLAG_FUSION),
            _Counter("SGLPOSTFUSECTR", ("sglpostfuse",), (1,), 2, FLAG_FUSION),
            _Counter("SINGLEFUSIONCTR", ("sglantfuse", "sglpostfuse"), (1, 1), 3, FLAG_FUSION, both_kinds=True),
        ]
    if number >= 430:
        counters += [
            _Counter("SGLANTCTR", ("sglantfuse",), (1,), 2, FLAG_FUSION),
            _Counter("SGLPOST1CTR", ("sglpostfuse1",), (1,), 2, FLAG_FUSION),
        ]
    return counters


_COMPUTED = {
    "INVALID_PDX", "PDX_ECODE", "INVALID_DSTAT", "INVALID_SEX",
    "INCIDENT", "MULTST", "BILATERAL", "MDC_20_FALL_THRU",
}  # fmt: skip


# A parsed formula: an atom, or an operator with its operands.
class _And(NamedTuple):
    parts: tuple[Any, ...]


class _Or(NamedTuple):
    parts: tuple[Any, ...]


class _Not(NamedTuple):
    part: Any


class _Leaf(NamedTuple):
    atom: Atom


def compile_msdrg(tables: MsdrgTables) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return (arrays, manifest facts) for a pack of kind ``msdrg``.

    Raises SourceFormatError when a formula does not parse, or a table needs more room than the compiled form
    has (512 atoms, 64 MDCs, 63 suppression sets, four HACs a code).
    """
    return _Compiler(tables).run()


class _Compiler:
    def __init__(self, tables: MsdrgTables) -> None:
        self.tables = tables
        self.number = int(tables.version.replace(".", ""))
        self.counters = {counter.atom: counter for counter in _counters(self.number)}
        self.arrays: dict[str, Array] = {}

    def run(self) -> tuple[dict[str, Array], dict[str, Any]]:
        parsed = {mdc: [self._parse(row.text) for row in rows] for mdc, rows in self.tables.formulas.items()}
        hac = {n: [self._parse(text) for text in texts] for n, texts in self.tables.hac_formulas.items()}
        self._assign_bits(
            [*(tree for trees in parsed.values() for tree in trees), *(t for ts in hac.values() for t in ts)]
        )
        self._diagnoses()
        self._procedures()
        self._lists(parsed)
        self._hac_programs(hac)
        self._known_bits()
        self._titles()
        self._text_array("formula", [row.text for row in self._rows()])
        t = self.tables
        facts = {
            "diagnoses": len(t.diagnoses),
            "procedures": sum(1 for code in t.procedures if not code.startswith("Z@")),
            "clusters": len(t.clusters),
            "formulas": sum(len(rows) for rows in t.formulas.values()),
            "drgs": len({row.drg for rows in t.formulas.values() for row in rows if row.drg}),
            "atoms": len(self.bit),
        }
        return self.arrays, facts

    # --- formulas -------------------------------------------------------------------------------------------

    def _parse(self, text: str) -> Any:
        """Parse ``text`` by the grammar of section 9.2: ``|`` binds weaker than ``&``, ``~`` strongest."""
        tokens = _tokens(text)
        position = 0

        def peek() -> str:
            return tokens[position] if position < len(tokens) else ""

        def take() -> str:
            nonlocal position
            position += 1
            return tokens[position - 1] if position <= len(tokens) else ""

        def sequence(operator: str, operand: Callable[[], Any], node: type[_And] | type[_Or]) -> Any:
            parts = [operand()]
            while peek() == operator:
                take()
                parts.append(operand())
            return parts[0] if len(parts) == 1 else node(tuple(parts))

        def expression() -> Any:
            return sequence("|", lambda: sequence("&", factor, _And), _Or)

        def factor() -> Any:
            token = take()
            if token == "~":
                return _Not(factor())
            if token == "(":
                inner = expression()
                if take() != ")":
                    raise SourceFormatError(f"formula {text!r}: expected a closing parenthesis")
                return inner
            if not token or token in "&|)":
                raise SourceFormatError(f"formula {text!r}: expected a name, got {token or 'the end'!r}")
            return _Leaf(self._atom(token))

        tree = expression()
        if position != len(tokens):
            raise SourceFormatError(f"formula {text!r}: unexpected {peek()!r}")
        return tree

    def _atom(self, token: str) -> Atom:
        prefix, _, name = token.rpartition(":")
        if name.upper() in _COMPUTED or name.upper() in self.counters:
            return ("SPECIAL", name.upper())
        return (prefix, name)

    def _assign_bits(self, trees: Iterable[Any]) -> None:
        atoms: set[Atom] = {("", "MCC"), ("", "CC"), ("", "NON_CC")}
        for tree in trees:
            atoms.update(_leaves(tree))
        # A computed atom that is true contributes the names it met, which are not otherwise atoms.
        atoms.update(("", name) for name in (*TRAUMA_NAMES, *JOINT_NAMES, "arterial", "NORdrugstent", "NORstent"))
        for counter in self.counters.values():
            if ("SPECIAL", counter.atom) in atoms:
                atoms.update(("", name) for name in counter.names)
        ordered = sorted(atoms, key=lambda atom: (atom[1], atom[0]))
        if len(ordered) > MAX_BITS:
            raise SourceFormatError(f"MS-DRG {self.tables.version} uses {len(ordered)} atoms; at most {MAX_BITS} fit")
        self.bit: dict[Atom, int] = {atom: i for i, atom in enumerate(ordered)}
        self._text_array("atom", [f"{p}:{n}" if p not in ("", "SPECIAL") else n for p, n in ordered])
        self.arrays["unprefixed"] = self._words(
            [atom for atom in ordered if atom[0] == "" and atom[1] not in ("MCC", "CC", "NON_CC")]
        )
        # Prefixes count in marking even where the atom itself is computed; of those only incident matches by
        # its own name.
        self.suppressions: dict[frozenset[str], int] = {frozenset(): 0}
        for names in sorted({tuple(sorted(n.lower() for n in row.suppression)) for row in self._rows()}):
            self.suppressions.setdefault(frozenset(names), len(self.suppressions))
        if len(self.suppressions) > 64:
            raise SourceFormatError(f"{len(self.suppressions)} suppression sets; this engine compiles at most 64")

    def _rows(self) -> Iterable[Formula]:
        for mdc in sorted(self.tables.formulas):
            yield from self.tables.formulas[mdc]

    def _lists(self, parsed: Mapping[int, Sequence[Any]]) -> None:
        index = np.full(N_LISTS, -1, "<i2")
        lists: list[tuple[int, ...]] = []
        rows: list[tuple[int, ...]] = []
        steps: list[tuple[int, int, int, int]] = []
        widest = max((len(trees) for trees in parsed.values()), default=0)
        row_words = -(-widest // 64)
        always = np.zeros((len(parsed), row_words), "<u8")
        list_anchors = np.zeros((len(parsed), WORDS), "<u8")
        anchor_index = np.full((len(parsed), MAX_BITS), -1, "<i4")
        anchor_rows: list[Array] = []
        frequency = self._frequencies()
        for i, mdc in enumerate(sorted(parsed)):
            if not 0 <= mdc < N_LISTS and mdc != 99:
                raise SourceFormatError(f"formula list of MDC {mdc}; expected numbers below {N_LISTS} or 99")
            if mdc < N_LISTS:
                index[mdc] = i
            formulas = self.tables.formulas[mdc]
            last = self._suppression(formulas[-1]) if formulas else 0
            lists.append((len(rows), len(formulas), last, 0))
            for r, (formula, tree) in enumerate(zip(formulas, parsed[mdc], strict=True)):
                rows.append(
                    (
                        len(steps),
                        formula.drg,
                        formula.base_drg,
                        formula.reroute,
                        MED_SURG[formula.med_surg],
                        self._suppression(formula),
                        0,
                        formula.rank,
                    )
                )
                steps += self._program(tree)
                anchors = self._anchors(tree, frequency)
                if anchors is None:
                    always[i, r // 64] |= np.uint64(1 << (r % 64))
                    continue
                for atom in anchors:
                    bit = self.bit[atom]
                    if anchor_index[i, bit] < 0:
                        anchor_index[i, bit] = len(anchor_rows)
                        anchor_rows.append(np.zeros(row_words, "<u8"))
                        list_anchors[i, bit // 64] |= np.uint64(1 << (bit % 64))
                    anchor_rows[anchor_index[i, bit]][r // 64] |= np.uint64(1 << (r % 64))
        self.arrays |= {
            "list_index": index,
            "list": np.array(lists, LIST),
            "row": np.array(rows, ROW),
            "step": np.array(steps, STEP),
            "always_rows": always,
            "list_anchors": list_anchors,
            "anchor_index": anchor_index,
            "anchor_rows": np.array(anchor_rows, "<u8").reshape(-1, row_words),
        }

    def _suppression(self, formula: Formula) -> int:
        return self.suppressions[frozenset(name.lower() for name in formula.suppression)]

    def _program(self, tree: Any) -> list[tuple[int, int, int, int]]:
        """Compile to steps (bit, next if set, next if clear), targets relative to the program's first step.

        The steps run in the order of the text with short-circuiting, which is observable: the atoms met on
        the way explain and mark.
        """
        steps: list[list[int]] = []

        # Emits the subtree and returns the steps' open exits: lists of (step, 1 or 2) that leave as true and
        # as false.
        def emit(node: Any) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
            if isinstance(node, _Leaf):
                steps.append([self.bit[node.atom], -1, -1])
                return [(len(steps) - 1, 1)], [(len(steps) - 1, 2)]
            if isinstance(node, _Not):
                true, false = emit(node.part)
                return false, true
            conjunction = isinstance(node, _And)
            done: list[tuple[int, int]] = []
            for n, part in enumerate(node.parts):
                true, false = emit(part)
                leave, go_on = (false, true) if conjunction else (true, false)
                done += leave
                if n < len(node.parts) - 1:
                    for step, exit_ in go_on:
                        steps[step][exit_] = len(steps)
            return (go_on, done) if conjunction else (done, go_on)

        true, false = emit(tree)
        for exits, target in ((true, TRUE), (false, FALSE)):
            for step, exit_ in exits:
                steps[step][exit_] = target
        return [(bit, if_true, if_false, 0) for bit, if_true, if_false in steps]

    def _frequencies(self) -> dict[Atom, int]:
        """Estimate how often an atom is set: the number of codes that have its name."""
        counts: dict[str, int] = {}
        for scheme in self.tables.diagnoses.values():
            for name in (*scheme.operands, *scheme.hac_names, *scheme.categories):
                counts[name] = counts.get(name, 0) + 1
        for names in self.tables.procedures.values():
            for name in {*names, *(["ORPROC"] if "d468" in names or "d477" in names else [])}:
                counts[name] = counts.get(name, 0) + 1
        often = {"ALIVE", "AMA", "DIED", "XFRNBA", "ANYDX"}
        return {atom: 10**6 if atom[1] in often else counts.get(atom[1], 0) for atom in self.bit}

    def _anchors(self, tree: Any, frequency: Mapping[Atom, int]) -> set[Atom] | None:
        """Return atoms of which at least one is set whenever the formula is true, or None when there is no
        such set.

        Severity atoms differ from row to row and cannot be anchors. Counting atoms flag codes as soon as they
        are met and true, even in a row that fails, so a row with one is always visited when that atom is set;
        ``incident`` flags when it is false.
        """

        def clause(node: Any) -> set[Atom] | None:
            if isinstance(node, _Leaf):
                return None if node.atom[1] in ("MCC", "CC", "NON_CC") and node.atom[0] == "" else {node.atom}
            if isinstance(node, _Not):
                return None
            clauses = [clause(part) for part in node.parts]
            if isinstance(node, _And):
                usable = [c for c in clauses if c is not None]
                return min(usable, key=lambda c: sum(frequency[a] for a in c)) if usable else None
            return None if any(c is None for c in clauses) else set().union(*(c for c in clauses if c is not None))

        anchors = clause(tree)
        leaves = _leaves(tree)
        if anchors is None or ("SPECIAL", "INCIDENT") in leaves:
            return None
        flagging = {"MULTST", *self.counters}
        return anchors | {atom for atom in leaves if atom[0] == "SPECIAL" and atom[1] in flagging}

    def _hac_programs(self, hac: Mapping[int, Sequence[Any]]) -> None:
        starts = [0]
        programs: list[int] = []
        steps: list[tuple[int, int, int, int]] = []
        texts: list[str] = []
        for number in range(16):
            texts += self.tables.hac_formulas.get(number, ())
            for tree in hac.get(number, ()):
                programs.append(len(steps))
                steps += self._program(tree)
            starts.append(len(programs))
        self.arrays |= {
            "hac_start": np.array(starts, "<u4"),
            "hac_program": np.array(programs, "<u4"),
            "hac_step": np.array(steps, STEP),
        }
        self._text_array("hac_formula", texts)
        names = [names for names, _ in sorted(self.suppressions.items(), key=lambda item: item[1])]
        self._text_array("suppression", [" ".join(sorted(each)) for each in names])

    def _known_bits(self) -> None:
        self.arrays["known_bits"] = np.array([self.bit.get(atom, NO_BIT) for atom in KNOWN], "<u2")
        counters = []
        for name in sorted(self.counters):
            counter = self.counters[name]
            if ("SPECIAL", name) not in self.bit:
                continue
            bits = [self.bit["", n] for n in counter.names]
            fill = 4 - len(bits)
            counters.append(
                (
                    self.bit["SPECIAL", name],
                    counter.threshold,
                    len(bits),
                    bits + [NO_BIT] * fill,
                    list(counter.weights) + [0] * fill,
                    self.bit["", counter.companion] if counter.companion else NO_BIT,
                    counter.both_kinds,
                    counter.flag,
                )
            )
        self.arrays["counter"] = np.array(counters, COUNTER)

    # --- codes ----------------------------------------------------------------------------------------------

    def _words(self, atoms: Iterable[Atom]) -> Array:
        words = np.zeros(WORDS, "<u8")
        for atom in atoms:
            bit = self.bit.get(atom)
            if bit is not None:
                words[bit // 64] |= np.uint64(1 << (bit % 64))
        return words

    def _diagnoses(self) -> None:
        t = self.tables
        group_of, member_of = self._exclusions()
        # Scheme 0 is the code that is not in the table.
        nothing = (DiagnosisAttributes(-1, "NCC", (), (), ()), None)
        wanted = {code: (_canonical(a), t.gender_mdcs.get(code)) for code, a in t.diagnoses.items()}
        ordered = [nothing, *sorted(set(wanted.values()), key=lambda s: (s[0], s[1] or ()))]
        number = {scheme: i for i, scheme in enumerate(ordered)}
        contents: dict[Any, int] = {}
        self.arrays["scheme"] = np.array([self._scheme(a, gender, contents) for a, gender in ordered], SCHEME)
        # The two marking rows compare names without regard to case and look at operands only (section 14.1).
        lower: dict[str, dict[str, list[Atom]]] = {"PDX": {}, "SDX": {}, "ANY": {}}
        for atom in self.bit:
            if atom[0] in lower:
                lower[atom[0]].setdefault(atom[1].lower(), []).append(atom)

        def words(scheme: DiagnosisAttributes, role: str) -> Array:
            names = (*scheme.operands, *scheme.categories, *scheme.hac_names)
            return self._words((prefix, name) for name in names for prefix in (role, "ANY"))

        def marking(scheme: DiagnosisAttributes, role: str) -> Array:
            names = {name.lower() for name in scheme.operands}
            return self._words(a for n in names for p in (role, "ANY") for a in lower[p].get(n, ()))

        for role in ("SDX", "PDX"):
            self.arrays[f"scheme_{role.lower()}"] = np.array([words(a, role) for a, _ in ordered])
            self.arrays[f"mark_{role.lower()}"] = np.array([marking(a, role) for a, _ in ordered])
        codes = sorted({*t.diagnoses, *group_of, *member_of})
        self._slots(
            "dx_slot",
            codes,
            [number[wanted[code]] if code in wanted else 0 for code in codes],
            [group_of.get(code, 0) for code in codes],
            [member_of.get(code, 0) for code in codes],
        )

    def _scheme(
        self, a: DiagnosisAttributes, gender: tuple[int, int] | None, contents: dict[Any, int]
    ) -> tuple[Any, ...]:
        operands = {name.lower() for name in a.operands}
        flags = 0
        if gender is not None:
            flags |= SCHEME_GENDERED
        if "mccalive" in operands:
            flags |= SCHEME_MCCALIVE
        if "incident" in operands:
            flags |= SCHEME_INCIDENT
        if "hac06_show" in a.hac_names:
            flags |= SCHEME_ON_SHOW_LIST
        if "hac11_pdx" in a.hac_names:
            flags |= SCHEME_HAC11_PDX
        numbers = sorted(int(n[3:]) for n in a.hac_names if len(n) == 5 and n[:3] == "HAC" and n[3:].isdigit())
        if len(numbers) > 4 or any(n > 14 for n in numbers):
            raise SourceFormatError(f"a diagnosis in HACs {numbers}; this engine compiles at most four, up to HAC 14")
        displays = []
        for n in numbers:
            names = [f"hac{n:02d}_show", f"hac{n:02d}_sdx"]
            display = next((name for name in names if name in a.hac_names), f"HAC{n:02d}")
            if display not in HAC_DISPLAYS:
                raise SourceFormatError(f"a diagnosis is shown as {display!r}; expected one of {HAC_DISPLAYS}")
            displays.append(HAC_DISPLAYS.index(display))
        fill = [0] * (4 - len(numbers))
        trauma = sum(1 << i for i, name in enumerate(TRAUMA_NAMES) if name in operands)
        suppression = sum(1 << i for names, i in self.suppressions.items() if names & operands)
        content = contents.setdefault((a.severity, a.operands, a.hac_names, a.categories), len(contents))
        male, female = gender or (a.mdc, a.mdc)
        for mdc in (male, female):
            if not -1 <= mdc < N_LISTS:
                raise SourceFormatError(f"a diagnosis of MDC {mdc}; expected numbers below {N_LISTS}")
        return (
            male, female, SEVERITY[a.severity], flags, trauma, len(numbers), numbers + fill, displays + fill,
            content, (0, 0, 0), suppression,
        )  # fmt: skip

    def _exclusions(self) -> tuple[dict[str, int], dict[str, int]]:
        """Build the exclusion bitmap; return code to row (as principal) and code to column (as secondary), 0
        for none.

        Codes that are in the same groups share a column, and equal groups a row, which makes the table small
        enough to stay in cache.
        """
        t = self.tables
        contents = {group: tuple(sorted(set(t.exclusion_groups[group]))) for group in set(t.exclusions.values())}
        rows = {content: i + 1 for i, content in enumerate(sorted(set(contents.values())))}
        member_rows: dict[str, list[int]] = {}
        for content, row in rows.items():
            for code in content:
                member_rows.setdefault(code, []).append(row)
        keys = {code: tuple(sorted(groups)) for code, groups in member_rows.items()}
        columns = {key: i + 1 for i, key in enumerate(sorted(set(keys.values())))}
        stride = len(columns) // 8 + 1
        bitmap = np.zeros((len(rows) + 1, stride), "u1")
        for key, column in columns.items():
            bitmap[list(key), column // 8] |= np.uint8(1 << (column % 8))
        self.arrays["exclusion"] = bitmap
        return (
            {code: rows[contents[group]] for code, group in t.exclusions.items()},
            {code: columns[key] for code, key in keys.items()},
        )

    def _procedures(self) -> None:
        t = self.tables
        clusters = sorted(t.clusters)
        uses: dict[str, list[tuple[int, int]]] = {}
        for i, name in enumerate(clusters):
            for choice, members in enumerate(t.clusters[name].choices):
                for code in members:
                    uses.setdefault(code, []).append((i, choice))
        patterns = {code: frozenset(names) for code, names in t.procedures.items()}
        # Pattern 0 has no names: an unknown procedure.
        ordered = [frozenset[str](), *sorted({p for p in patterns.values() if p}, key=sorted)]
        number = {pattern: i for i, pattern in enumerate(ordered)}
        words, records = [], []
        for pattern in ordered:
            or_proc = not pattern.isdisjoint(("d468", "d477"))
            names = pattern | {"ORPROC"} if or_proc else pattern
            words.append(self._words(("", name) for name in names))
            if self.number >= 420:
                operating_room = or_proc or "ornec" in pattern
            else:
                operating_room = "nonor" not in {name.lower() for name in pattern}
            flags = PATTERN_OPERATING_ROOM * operating_room | PATTERN_NAMED * bool(pattern)
            usage = sum(
                1 << i for i, n in enumerate(HAC_USAGE_NUMBERS) if any(f"hac{n:02d}_proc" in name for name in pattern)
            )
            joints = sum(1 << i for i, name in enumerate(JOINT_NAMES) if name in pattern)
            records.append((flags, usage, joints, 0))
        self.arrays["pattern_words"] = np.array(words)
        self.arrays["pattern"] = np.array(records, PATTERN)

        using = sorted(uses)
        use_index = {code: i + 1 for i, code in enumerate(using)}
        codes = sorted({*t.procedures, *using})
        self._slots(
            "px_slot",
            codes,
            [number[patterns.get(code, frozenset())] for code in codes],
            [0] * len(codes),
            [use_index.get(code, 0) for code in codes],
        )
        starts = np.cumsum([0, 0, *(len(uses[code]) for code in using)])
        self.arrays["use_start"] = starts.astype("<u4")
        self.arrays["use"] = np.array([use for code in using for use in sorted(uses[code])], CLUSTER_USE)
        records = []
        for name in clusters:
            cluster = t.clusters[name]
            if len(cluster.choices) > 32:
                raise SourceFormatError(f"cluster {name} has {len(cluster.choices)} choices; expected at most 32")
            suppressed = sum(1 << mdc for mdc in sorted(set(cluster.suppressed_mdcs)) if mdc < N_LISTS)
            all_choices = (1 << len(cluster.choices)) - 1
            records.append((suppressed, all_choices, number[patterns.get(name, frozenset())], 0))
        self.arrays["cluster"] = np.array(records, CLUSTER)
        self._text_array("cluster_name", clusters)

    def _slots(
        self,
        name: str,
        codes: Sequence[str],
        attributes: Sequence[int],
        groups: Sequence[int],
        members: Sequence[int],
    ) -> None:
        """Lay the codes out as an open-addressing table without wrap-around.

        Codes go, in order of their home slot, to the first free slot at or after it; the last slot is empty,
        so every probe ends.
        """
        if max(attributes, default=0) > 0xFFFF or max(groups, default=0) > 0xFFFF:
            raise SourceFormatError(f"{name}: more than 65,535 distinct attribute rows")
        packed = np.array([code.encode("ascii") for code in codes], "S8")
        keys = packed.view(">u8").astype("<u8")
        bits = max(4, (len(codes) * 3 // 2).bit_length())
        homes = ((keys * np.uint64(HASH)) >> np.uint64(64 - bits)).astype(np.int64)
        order = np.lexsort((keys, homes))
        ranks = np.arange(len(codes))
        places = np.maximum.accumulate(homes[order] - ranks) + ranks
        slots = np.zeros(max(1 << bits, int(places[-1]) + 1 if len(places) else 0) + 1, SLOT)
        slots["key"][places] = keys[order]
        slots["attributes"][places] = np.array(attributes, "<u2")[order]
        slots["group"][places] = np.array(groups, "<u2")[order]
        slots["member"][places] = np.array(members, "<u4")[order]
        self.arrays[name] = slots

    # --- texts ----------------------------------------------------------------------------------------------

    def _titles(self) -> None:
        for name, titles in (
            ("drg", self.tables.drg_titles),
            ("mdc", self.tables.mdc_titles),
            ("hac", self.tables.hac_titles),
        ):
            self.arrays[f"{name}_number"] = np.array(sorted(titles), "<i2")
            self._text_array(f"{name}_title", [titles[key] for key in sorted(titles)])

    def _text_array(self, name: str, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.arrays[f"{name}_start"] = np.cumsum([0, *map(len, encoded)]).astype("<u4")
        self.arrays[f"{name}_text"] = np.frombuffer(b"".join(encoded), "u1").copy()


HASH: Final = 0x9E3779B97F4A7C15
"""2**64 divided by the golden ratio: the high bits of ``key * HASH`` spread keys that differ in any byte."""


def _canonical(a: DiagnosisAttributes) -> DiagnosisAttributes:
    return DiagnosisAttributes(
        a.mdc, a.severity, tuple(sorted(a.operands)), tuple(sorted(a.hac_names)), tuple(sorted(a.categories))
    )


def _tokens(text: str) -> list[str]:
    for symbol in "()&|~":
        text = text.replace(symbol, f" {symbol} ")
    return text.split()


def _leaves(tree: Any) -> set[Atom]:
    if isinstance(tree, _Leaf):
        return {tree.atom}
    if isinstance(tree, _Not):
        return _leaves(tree.part)
    return set().union(*(_leaves(part) for part in tree.parts))
