"""Why a claim grouped as it did: the walk through the formula lists, in words and as data.

The walk is recorded by the grouper itself (``engine._msdrg.trace``), on the code path that groups; nothing is decided
a second time here. This module only names what was found: which codes stand behind an atom, what rows ranked before
the winner lacked, why a CC or MCC did not count, how each hospital-acquired condition was judged. What the DRG would
be without a code is found by grouping the claim without it.

Codes in an explanation are the claim's, as given; positions count from 0, where the principal diagnosis is. Texts are
for people and may be worded differently in the next release; programs read the other fields.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from . import _msdrg
from .atoms import OPERATING_ROOM, SEVERITIES, SPECIAL, meaning
from .compile_msdrg import FALSE, HAC_DISPLAYS, TRUE
from .drg import (
    Claim,
    Detail,
    DrgResult,
    DrgResults,
    Grouping,
    GroupingOptions,
    HacCriteria,
    MsdrgGrouper,
    PoaError,
    ReturnCode,
    Severity,
    _grouping_to_dict,
    group_many,
)

__all__ = [
    "MOST_CODES",
    "NEAR_MISSES",
    "AtomExplanation",
    "Explanation",
    "HacExplanation",
    "ListVisit",
    "NearMiss",
    "RowExplanation",
    "SeverityExplanation",
    "SeverityReason",
    "WithoutCode",
    "explain",
]

NEAR_MISSES = 10
"""Most rows a list visit reports as nearly right; the best-ranked ones are kept."""

MOST_CODES = 500
"""Most codes of a claim whose removal is tried one by one; the work grows with the square of their number."""


class SeverityReason(enum.IntEnum):
    """Why the severity of a secondary diagnosis counted towards the DRG, or did not."""

    COUNTS = 1
    EXCLUDED_BY_PRINCIPAL = 2
    """The CC exclusion list of the principal diagnosis has it."""
    DIED = 3
    """It counts as MCC only for patients discharged alive."""
    DRG_LOGIC = 4
    """The row that won names it as part of what defines the DRG, so it is no complication there."""
    HOSPITAL_ACQUIRED = 5
    """It is a hospital-acquired condition whose criteria are met."""


class AtomExplanation(NamedTuple):
    """One condition of a formula that held, in the grouper's own name and in words.

    ``atom`` is ``PDX:dxc0514``, ``ANY:diabetes``, ``d468``, ``MCC`` (see ``engine.atoms``). ``codes`` are those that
    satisfy it; empty where it is not about codes. A cluster of procedures that satisfies it appears with its members:
    ``Z@0217(02HK0KZ+0JH609Z)``.
    """

    atom: str
    meaning: str
    codes: tuple[str, ...]


class RowExplanation(NamedTuple):
    """A row that won: its rank in the list, its formula, and the atoms that held in the order they were met.

    ``drg`` is 0 for a row that sends the claim to the list ``reroute_mdc``, which is 0 for all others. A row with
    neither makes the claim ungroupable. ``severity`` is the highest that counts for this row.
    """

    rank: int
    drg: int
    drg_title: str
    reroute_mdc: int
    formula: str
    severity: Severity
    atoms: tuple[AtomExplanation, ...]


class NearMiss(NamedTuple):
    """A row ranked before the winner that would have been true but for one atom: ``lacks``, which is not there, or
    ``must_not_have``, which must not be. The other of the two is empty.

    ``codes`` stand in the way: those that satisfy ``must_not_have``, or those that have the severity the row lacks and
    do not count.
    """

    rank: int
    drg: int
    drg_title: str
    reroute_mdc: int
    formula: str
    lacks: str
    must_not_have: str
    codes: tuple[str, ...]
    text: str


class ListVisit(NamedTuple):
    """One look at a formula list: its rows by rank, until one is true. ``winner`` is None if none is.

    MDC 0 is the pre-MDC list, 29 that of operating-room procedures unrelated to the principal diagnosis. ``text`` says
    why this list was looked at.
    """

    mdc: int
    mdc_title: str
    text: str
    winner: RowExplanation | None
    near_misses: tuple[NearMiss, ...]


class SeverityExplanation(NamedTuple):
    """How a secondary diagnosis that is a CC or MCC was used in the final grouping; in the initial one if there is no
    other."""

    position: int
    code: str
    severity: Severity
    reason: SeverityReason
    text: str


class HacExplanation(NamedTuple):
    """How one hospital-acquired condition of one secondary diagnosis was judged.

    ``name`` is the reference's ("HAC05", "hac06_show"), ``poa`` the indicator as given, ``criteria`` the grouper's
    formula.
    """

    position: int
    code: str
    number: int
    name: str
    title: str
    poa: str
    status: HacCriteria
    criteria: str
    text: str


class WithoutCode(NamedTuple):
    """A single code whose removal changes MDC, DRG or return code of the final grouping, and the final grouping
    without it.

    ``field`` is ``diagnoses`` or ``procedures``, ``position`` the index in it. The principal diagnosis is never
    removed: without it there is no claim to speak of.
    """

    field: str
    position: int
    code: str
    grouping: Grouping
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a claim grouped as it did.

    ``summary`` is the whole in a few sentences. ``final`` repeats ``initial`` unless hospital-acquired conditions made
    the grouper look again, and is empty when a return code left no final pass; ``result`` says which. ``without`` is
    empty for claims of more than MOST_CODES codes. All parts but ``result`` are empty when ``result.error`` is set.
    """

    result: DrgResult
    summary: tuple[str, ...] = ()
    initial: tuple[ListVisit, ...] = ()
    final: tuple[ListVisit, ...] = ()
    severities: tuple[SeverityExplanation, ...] = ()
    hacs: tuple[HacExplanation, ...] = ()
    without: tuple[WithoutCode, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation in the shape of its proto3 JSON: snake_case names, enumerations by their full
        names, no ``winner`` where there is none; nothing but ``result`` where that is an error."""
        if self.result.error is not None:
            return {"result": self.result.to_dict()}
        return {
            "result": self.result.to_dict(),
            "summary": list(self.summary),
            "initial": [_plain(visit) for visit in self.initial],
            "final": [_plain(visit) for visit in self.final],
            "severities": [_plain(severity) for severity in self.severities],
            "hacs": [_plain(hac) for hac in self.hacs],
            "without": [_plain(without) for without in self.without],
        }


def explain(
    claim: Claim, choose: Callable[[str, int], MsdrgGrouper], options: GroupingOptions | None = None
) -> Explanation:
    """Group ``claim`` and explain the answer. ``choose`` is as in ``engine.drg.group_many``.

    What is wrong with the claim is ``result.error`` of the explanation, which then has nothing else.
    """
    options = replace(options or GroupingOptions(), detail=Detail.FULL)
    results = group_many([claim], choose, options)
    result = results[0]
    return Explanation(result) if result.error is not None else _Walk(claim, results, options).explanation()


class _Tables:
    """What explaining needs of a version's tables beyond the compiled grouper; read once a version."""

    def __init__(self, grouper: MsdrgGrouper) -> None:
        pack = grouper.core.pack
        self.atoms = _texts(pack, "atom")
        self.formulas = _texts(pack, "formula")
        self.hac_formulas = _texts(pack, "hac_formula")
        self.suppressions = _texts(pack, "suppression")
        self.clusters = _texts(pack, "cluster_name")
        numbers = pack.array("hac_number", "<i2").tolist()
        self.hac_titles: Mapping[int, str] = dict(zip(numbers, _texts(pack, "hac_title"), strict=True))
        self.rows = pack.array("row")
        self.lists = pack.array("list")
        self.list_index = pack.array("list_index", "<i2")
        self.steps: list[tuple[int, int, int, int]] = pack.array("step").tolist()
        programs = self.rows["program"].tolist()
        ends = sorted({*programs, len(self.steps)})
        self.programs = [range(start, ends[bisect_right(ends, start)]) for start in programs]
        """Steps of each row's formula."""
        self.row_suppression: list[int] = self.rows["suppression"].tolist()
        self.levels = {self.atoms.index(name): level for level, name in enumerate(("NON_CC", "CC", "MCC"))}
        self.scheme = pack.array("scheme")
        self.scheme_sdx = pack.array("scheme_sdx", "<u8", 2)
        self.scheme_pdx = pack.array("scheme_pdx", "<u8", 2)
        self.pattern_words = pack.array("pattern_words", "<u8", 2)
        self.cluster = pack.array("cluster")
        self.counter = pack.array("counter")
        self.hac_start = pack.array("hac_start", "<u4")
        self.bit = {atom: bit for bit, atom in enumerate(self.atoms)}
        asked: dict[int, set[int]] = {}
        for program, drg in zip(self.programs, self.rows["drg"].tolist(), strict=True):
            for at in program if drg else ():
                asked.setdefault(self.steps[at][0], set()).add(drg)
        self.meanings = [
            meaning(atom, sorted(asked.get(bit, ())), self.hac_titles) for bit, atom in enumerate(self.atoms)
        ]


def _texts(pack: Any, name: str) -> list[str]:
    start = pack.array(f"{name}_start", "<u4").astype(np.int64)
    text = pack.array(f"{name}_text", "u1").tobytes()
    if len(start) == 0 or (np.diff(start) < 0).any() or start[-1] != len(text):
        raise pack.corrupt(f"{name}_start.npy", "its offsets are not those of the texts")
    try:
        return [text[start[i] : start[i + 1]].decode() for i in range(len(start) - 1)]
    except UnicodeDecodeError:
        raise pack.corrupt(f"{name}_text.npy", "it is not UTF-8") from None


_ABOUT_PRINCIPAL = {"INVALID_PDX", "PDX_ECODE", "INVALID_SEX", "MDC_20_FALL_THRU"}
_LEVELS = (Severity.NON_CC, Severity.CC, Severity.MCC)
_OF_LEVEL = ("NON_CC", "CC", "MCC")
# True of so many claims that a row of which nothing else holds is not nearly right.
_COMMON = {*SEVERITIES, *OPERATING_ROOM, "ALIVE", "ANYDX"}


class _Walk:
    """One claim and the recorded walk of its grouping."""

    def __init__(self, claim: Claim, results: DrgResults, options: GroupingOptions) -> None:
        self.claim = claim
        self.options = options
        self.result = results[0]
        assert self.result.final_grouping is not None
        self.final = self.result.final_grouping
        self.grouper = results.groupers[0]
        self.t: _Tables = self.grouper.explaining(_Tables)
        self.trace = _msdrg.trace(results.batch, self.grouper.core, options.flags())
        self.dx = list(_get(claim, "diagnoses") or ())
        self.px = list(_get(claim, "procedures") or ())
        self.poa = _get(claim, "poa") or " " * len(self.dx)
        self.dx_rows = [self.grouper.core.diagnosis(code) for code in self.dx]
        self.px_rows = [self.grouper.core.procedure(code) for code in self.px]

    def explanation(self) -> Explanation:
        first_final = self.trace["initial"]
        initial: list[ListVisit] = []
        final: list[ListVisit] = []
        for i, visit in enumerate(self.trace["visits"]):
            visits = final if i >= first_final else initial
            visits.append(self._visit(visits[-1] if visits else None, i >= first_final, *visit))
        if not final and self.final.return_code == ReturnCode.OK:
            final = initial
        severities = tuple(self._severities())
        hacs = tuple(self._hacs())
        without = tuple(self._without())
        summary = tuple(self._summary(final or initial, hacs, without))
        return Explanation(self.result, summary, tuple(initial), tuple(final), severities, hacs, without)

    # --- lists and rows

    def _visit(
        self, before: ListVisit | None, final: bool, mdc: int, row: int, words: bytes, no_mcc: int, no_cc: int
    ) -> ListVisit:
        mask = int.from_bytes(words, "little")
        index = int(self.t.list_index[mdc])
        first, count = int(self.t.lists["row"][index]), int(self.t.lists["count"][index])
        winner = None
        if row >= 0:
            level = self._level(row, no_mcc, no_cc)
            matched = self._evaluate(row, mask, level)
            assert matched is not None
            record = self.t.rows[row]
            suppressed = int(record["suppression"])
            atoms = dict.fromkeys(self.t.atoms[bit] for bit in matched)
            winner = RowExplanation(
                *self._describe(row),
                _LEVELS[level],
                tuple(
                    AtomExplanation(
                        atom, self.t.meanings[self.t.bit[atom]], tuple(self._behind(atom, mdc, suppressed, final))
                    )
                    for atom in atoms
                ),
            )
        near: list[NearMiss] = []
        for candidate in range(first, row if row >= 0 else first + count):
            if len(near) < NEAR_MISSES:
                near += self._near_miss(candidate, mask, self._level(candidate, no_mcc, no_cc), mdc, final)
        if before is None:
            text = "the pre-MDC list, always looked at first"
        elif before.winner is not None:
            text = f"row {before.winner.rank} of {_list_name(before.mdc)} sends the claim here"
        else:
            text = f"the MDC of principal diagnosis {self.dx[0]}"
        return ListVisit(mdc, self.grouper.mdc_titles.get(mdc, ""), text, winner, tuple(near))

    def _describe(self, row: int) -> tuple[int, int, str, int, str]:
        record = self.t.rows[row]
        drg = int(record["drg"])
        title = self.grouper.drg_titles.get(drg, "") if drg else ""
        return int(record["source_rank"]), drg, title, int(record["reroute"]), self.t.formulas[row]

    def _level(self, row: int, no_mcc: int, no_cc: int) -> int:
        suppression = self.t.row_suppression[row]
        return 0 if (no_mcc & no_cc) >> suppression & 1 else 1 if no_mcc >> suppression & 1 else 2

    def _evaluate(self, row: int, mask: int, level: int) -> list[int] | None:
        """Return the atoms met on the way if the row is true, else None."""
        steps, program, levels = self.t.steps, self.t.programs[row].start, self.t.levels
        at, matched = 0, []
        while at < TRUE:
            bit, if_true, if_false, _ = steps[program + at]
            if levels[bit] == level if bit in levels else mask >> bit & 1:
                matched.append(bit)
                at = if_true
            else:
                at = if_false
        return None if at == FALSE else matched

    def _near_miss(self, row: int, mask: int, level: int, mdc: int, final: bool) -> Iterator[NearMiss]:
        """Yield what one atom kept from being true, if it is one.

        Rows that only make a claim ungroupable are not told: nobody strives for them. Nor are rows of which nothing
        holds but what holds for most claims, that lack any operating-room procedure, or whose procedure is missing
        and for which only a secondary diagnosis speaks: diabetes does not make a claim nearly a pancreas transplant.
        """
        described = self._describe(row)
        _, drg, _, reroute, _ = described
        if not drg and not reroute:
            return
        levels = self.t.levels
        suppression = self.t.row_suppression[row]
        for bit in dict.fromkeys(self.t.steps[at][0] for at in self.t.programs[row]):
            atom = self.t.atoms[bit]
            if bit in levels:
                matched = self._evaluate(row, mask, levels[bit]) if levels[bit] != level else None
            else:
                matched = self._evaluate(row, mask ^ (1 << bit), level)
            if matched is None:
                continue
            speak = {self.t.atoms[other] for other in matched if other != bit} - set(SEVERITIES)
            if bit in levels:
                if speak:
                    codes = tuple(self._of_severity(levels[bit], suppression, final, counting=False))
                    yield NearMiss(*described, atom, "", codes, self._lacks_severity(levels[bit], level, codes))
                    return
                continue
            meant = self.t.meanings[bit]
            if mask >> bit & 1:
                if speak:
                    codes = tuple(self._behind(atom, mdc, suppression, final))
                    yield NearMiss(*described, "", atom, codes, f"must not hold, but does: {meant}{_by(codes)}")
                    return
                continue
            if atom in OPERATING_ROOM:
                continue
            speak -= _COMMON
            if ":" not in atom and atom not in SPECIAL:
                speak = {other for other in speak if not other.startswith(("SDX:", "ANY:"))}
            if speak:
                yield NearMiss(*described, atom, "", (), f"does not hold: {meant}")
                return

    @staticmethod
    def _lacks_severity(wanted: int, level: int, idle: tuple[str, ...]) -> str:
        name, an = _OF_LEVEL[wanted], "an" if wanted == 2 else "a"
        if level > wanted:
            return f"asks for {an} {name} as the highest severity, and an MCC counts"
        if not idle:
            return f"lacks {an} {name}: no secondary diagnosis is one"
        return f"lacks {an} {name} that counts: {_listed(idle)} {'do' if len(idle) > 1 else 'does'} not"

    # --- codes behind an atom

    def _behind(self, atom: str, mdc: int, suppression: int, final: bool) -> Iterator[str]:
        prefix, _, _ = atom.rpartition(":")
        bit = self.t.bit[atom]
        if atom in ("MCC", "CC"):
            yield from self._of_severity(_OF_LEVEL.index(atom), suppression, final, counting=True)
        elif prefix in ("PDX", "SDX", "ANY"):
            for i, row in enumerate(self.dx_rows):
                words = self.t.scheme_sdx if i else self.t.scheme_pdx
                if row and _has(words[row], bit):
                    yield self.dx[i]
        elif atom in _ABOUT_PRINCIPAL:
            yield from self.dx[:1]
        elif atom == "MULTST":
            yield from (self.dx[i] for i, row in enumerate(self.dx_rows) if self.t.scheme["trauma"][row])
        else:
            yield from self._procedures_behind(bit, mdc)

    def _of_severity(self, wanted: int, suppression: int, final: bool, *, counting: bool) -> Iterator[str]:
        """Yield the secondary diagnoses of one severity that count for a row, or those that do not."""
        out = _msdrg.FLAG_EXCLUDED | _msdrg.FLAG_DEATH | (_msdrg.FLAG_HAC_MET if final else 0)
        for i, (flags, severity, _) in enumerate(self.trace["diagnoses"]):
            if i and severity == wanted:
                downgraded = int(self.t.scheme["suppression"][self.dx_rows[i]]) >> suppression & 1
                if counting == (not flags & out and not downgraded):
                    yield self.dx[i]

    def _procedures_behind(self, bit: int, mdc: int) -> Iterator[str]:
        names = {bit}
        for counter in self.t.counter:
            if int(counter["bit"]) == bit:
                names = {int(b) for b in counter["name_bit"][: int(counter["n_names"])]}
        if self.t.atoms[bit] == "BILATERAL":
            names = {self.t.bit[n] for n in self.t.atoms if n in _JOINTS}
        for i, row in enumerate(self.px_rows):
            if mdc not in self.trace["procedures"][i] and any(_has(self.t.pattern_words[row], n) for n in names):
                yield self.px[i]
        for cluster, members in self.trace["clusters"]:
            pattern = self.t.pattern_words[int(self.t.cluster["pattern"][cluster])]
            if any(_has(pattern, n) for n in names):
                yield f"{self.t.clusters[cluster]}({'+'.join(self.px[i] for i in members)})"

    # --- severities, hospital-acquired conditions, removals

    def _severities(self) -> Iterator[SeverityExplanation]:
        assert self.result.initial_grouping is not None
        if self.result.initial_grouping.return_code != ReturnCode.OK:
            return
        visit = self.trace["visits"][-1]
        drg = int(self.t.rows["drg"][visit[1]]) if visit[1] >= 0 else 0
        names = ", ".join(sorted(self.t.suppressions[self._last_suppression(visit)].split()))
        for i, (flags, severity, _) in enumerate(self.trace["diagnoses"]):
            if i == 0 or severity == 0:
                continue
            code, level = self.dx[i], _LEVELS[severity]
            if flags & _msdrg.FLAG_EXCLUDED:
                reason = SeverityReason.EXCLUDED_BY_PRINCIPAL
                text = f"{code} is on the CC exclusion list of principal diagnosis {self.dx[0]}"
            elif flags & _msdrg.FLAG_DEATH:
                reason = SeverityReason.DIED
                text = f"{code} counts as {level.name} only for patients discharged alive; the discharge status is 20"
            elif flags & _msdrg.FLAG_DOWNGRADED:
                reason = SeverityReason.DRG_LOGIC
                text = f"{code} is part of what defines DRG {drg} (list {names}), so it is no complication there"
            elif flags & _msdrg.FLAG_HAC_MET:
                reason = SeverityReason.HOSPITAL_ACQUIRED
                text = f"{code} is hospital-acquired, so the final grouping leaves it out"
            else:
                reason = SeverityReason.COUNTS
                text = f"{code} counts as {level.name}"
            yield SeverityExplanation(i, code, level, reason, text)

    def _last_suppression(self, visit: tuple[int, int, bytes, int, int]) -> int:
        mdc, row = visit[:2]
        if row >= 0:
            return int(self.t.rows["suppression"][row])
        return int(self.t.lists["last_suppression"][int(self.t.list_index[mdc])])

    def _hacs(self) -> Iterator[HacExplanation]:
        for i, (_, _, statuses) in enumerate(self.trace["diagnoses"]):
            if i == 0:
                continue
            scheme = self.t.scheme[self.dx_rows[i]]
            for e, number_of_status in enumerate(statuses):
                status = HacCriteria(number_of_status)
                number = int(scheme["hac_number"][e])
                criteria = " | ".join(self.t.hac_formulas[self.t.hac_start[number] : self.t.hac_start[number + 1]])
                name = HAC_DISPLAYS[int(scheme["hac_display"][e])]
                title = self.t.hac_titles.get(number, "")
                text = self._hac_text(status, i, number, name, criteria)
                yield HacExplanation(i, self.dx[i], number, name, title, self.poa[i], status, criteria, text)

    def _hac_text(self, status: HacCriteria, position: int, number: int, name: str, criteria: str) -> str:
        poa, found = self.poa[position], self.result.diagnoses[position].poa_error
        if status == HacCriteria.HAC_NOT_APPLICABLE_EXEMPT:
            return "the hospital is exempt from POA reporting, so nothing counts as hospital-acquired"
        if status == HacCriteria.HAC_NOT_APPLICABLE_EXCLUSION:
            return f"principal diagnosis {self.dx[0]} excludes it as CC or MCC, so there is nothing to take away"
        if status == HacCriteria.NOT_ON_HAC_LIST:
            return "not judged, because the claim is ungroupable"
        if found == PoaError.POA_RECOGNIZED_YES_POA:
            return f"present on admission (POA {poa})"
        if found == PoaError.POA_RECOGNIZED_NOT_POA:
            absent = f"not present on admission (POA {poa})"
        else:
            absent = f"POA indicator {poa} is not recognized" if poa.strip() else "no POA indicator"
        if name == "hac06_show" and status == HacCriteria.HAC_CRITERIA_NOT_MET:
            # Its own formula holds: it is taken back for want of another code.
            return f"{absent}, but no hospital-acquired code for the catheter infection itself beside it"
        bit = self.t.bit.get(f"hac{number:02d}_proc")
        codes = list(dict.fromkeys(self._with_name(bit))) if bit is not None else []
        if status == HacCriteria.HAC_CRITERIA_MET:
            return f"{absent}{f', after {_listed(codes)}' if codes else ''}: hospital-acquired"
        if bit is not None and not codes:
            return f"{absent}, but no procedure of this condition is on the claim"
        return f"{absent}, but the criteria do not hold: {criteria}"

    def _with_name(self, bit: int) -> Iterator[str]:
        """Yield the procedures that carry a name, hidden or not."""
        return (self.px[i] for i, row in enumerate(self.px_rows) if _has(self.t.pattern_words[row], bit))

    def _without(self) -> Iterator[WithoutCode]:
        if len(self.dx) + len(self.px) > MOST_CODES:
            return
        claim = {name: _get(self.claim, name) for name in _GROUPED}
        variants: list[dict[str, Any]] = []
        removed: list[tuple[str, int, str]] = []
        for i in range(1, len(self.dx)):
            poa = self.poa[:i] + self.poa[i + 1 :] if _get(self.claim, "poa") else ""
            variants.append(claim | {"diagnoses": _less(self.dx, i), "procedures": self.px, "poa": poa})
            removed.append(("diagnoses", i, self.dx[i]))
        for i in range(len(self.px)):
            variants.append(claim | {"diagnoses": self.dx, "procedures": _less(self.px, i)})
            removed.append(("procedures", i, self.px[i]))
        results = group_many(variants, lambda version, date: self.grouper, replace(self.options, detail=Detail.DRG))
        for (field, position, code), result in zip(removed, results, strict=True):
            assert result.final_grouping is not None
            if _key(result.final_grouping) != _key(self.final):
                text = f"without {code} this is {_drg(result.final_grouping)}"
                if result.final_grouping.mdc != self.final.mdc and result.final_grouping.drg == self.final.drg:
                    text += f" in MDC {result.final_grouping.mdc}"
                yield WithoutCode(field, position, code, result.final_grouping, text)

    # --- the whole in a few sentences

    def _summary(
        self,
        visits: Sequence[ListVisit],
        hacs: Sequence[HacExplanation],
        without: Sequence[WithoutCode],
    ) -> Iterator[str]:
        final, initial = self.final, self.result.initial_grouping
        assert initial is not None
        if initial.return_code != ReturnCode.OK:
            yield f"{_drg(final)}: {_UNGROUPABLE[final.return_code]}."
            return
        shown = final if final.return_code == ReturnCode.OK else initial
        winner = visits[-1].winner
        assert winner is not None
        where = f"row {winner.rank} of {_list_name(visits[-1].mdc)} is the first that is true"
        pass_name = "" if shown is final else " before hospital-acquired conditions"
        yield f"{_drg(shown)}, MDC {shown.mdc}{pass_name}: {where}."
        asked = next((atom for atom in winner.atoms if atom.atom in ("MCC", "CC")), None)
        if asked is not None and len(asked.codes) == 1:
            yield f"Its {asked.atom} rests on {asked.codes[0]} alone."
        elif asked is not None and asked.codes:
            yield f"Its {asked.atom} rests on {_listed(asked.codes)}: any one of them is enough."
        met = list(dict.fromkeys(hac.code for hac in hacs if hac.status == HacCriteria.HAC_CRITERIA_MET))
        if final.return_code != ReturnCode.OK:
            which = f" ({_listed(met)})" if met else ""
            yield f"The final grouping is {_drg(final)}: {_UNGROUPABLE[final.return_code]}{which}."
        elif met and final.drg != initial.drg:
            yield f"It was {_drg(initial)} before hospital-acquired {_listed(met)} left the severity."
        elif met:
            yield f"Hospital-acquired {_listed(met)} left the severity, which changes nothing."
        if len(self.dx) + len(self.px) > MOST_CODES:
            yield f"Removals were not tried: the claim has more than {MOST_CODES} codes."
        elif not without:
            yield "No single secondary diagnosis or procedure changes the DRG by its absence."


_GROUPED = ("sex", "discharge_status", "hospital_status", "poa")
_JOINTS = ("righthip", "rightknee", "rightankle", "lefthip", "leftknee", "leftankle")


def _key(grouping: Grouping | None) -> tuple[int, int, int] | None:
    return (grouping.mdc, grouping.drg, grouping.return_code) if grouping else None


_UNGROUPABLE: Mapping[ReturnCode, str] = {
    ReturnCode.DX_CANNOT_BE_PDX: "the first diagnosis is an external cause, which may not be principal diagnosis",
    ReturnCode.INVALID_SEX: "the MDC of the principal diagnosis depends on the sex, which is not known",
    ReturnCode.INVALID_DISCHARGE_STATUS: "the group depends on the discharge status, which is missing or none that "
    "CMS defines",
    ReturnCode.INVALID_PDX: "there is no principal diagnosis, or it is none of this version",
    ReturnCode.HAC_MISSING_ONE_POA: "a hospital-acquired condition meets its criteria, and a POA indicator that "
    "matters for it is missing or invalid",
    ReturnCode.HAC_STATUS_INVALID_POA_N_OR_U: "a hospital-acquired condition meets its criteria (POA N or U), and "
    "whether the hospital must report POA is not known",
    ReturnCode.HAC_STATUS_INVALID_POA_INVALID_OR_1: "a hospital-acquired condition meets its criteria, its POA "
    "indicator is missing or invalid, and whether the hospital must report POA is not known",
    ReturnCode.HAC_STATUS_INVALID_MULT_HACS_POA_NOT_Y_W: "a hospital-acquired condition meets its criteria on a claim "
    "with several secondary diagnoses, and whether the hospital must report POA is not known",
}


def _drg(grouping: Grouping) -> str:
    if grouping.return_code != ReturnCode.OK:
        return f"{grouping.drg} ungroupable ({grouping.return_code.name})"
    return f"{grouping.drg} {grouping.drg_title}".rstrip()


def _list_name(mdc: int) -> str:
    return {0: "the pre-MDC list", 29: "the list of unrelated operating-room procedures"}.get(
        mdc, f"the list of MDC {mdc}"
    )


def _listed(codes: Sequence[str]) -> str:
    return f"{', '.join(codes[:-1])} and {codes[-1]}" if len(codes) > 1 else "".join(codes)


def _by(codes: Sequence[str]) -> str:
    return f", by {_listed(codes)}" if codes else ""


def _has(words: Any, bit: int) -> bool:
    return bool(int(words[bit >> 6]) >> (bit & 63) & 1)


def _get(claim: Claim, name: str) -> Any:
    return claim.get(name) if isinstance(claim, dict) else getattr(claim, name, None)


def _less(codes: Sequence[str], index: int) -> list[str]:
    return [*codes[:index], *codes[index + 1 :]]


_ENUMERATIONS = {"Severity": "SEVERITY", "SeverityReason": "SEVERITY_REASON", "HacCriteria": "HAC_CRITERIA"}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.IntEnum):
        return f"{_ENUMERATIONS[type(value).__name__]}_{value.name}"
    if isinstance(value, Grouping):
        return _grouping_to_dict(value)
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items() if item is not None}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
