"""Why a claim grouped as it did: the walk through the formula lists, in words and as data.

The walk is recorded by the grouper itself (``engine._msdrg.trace``), on the code path that groups; nothing is decided
a second time here. This module only names what was found: which codes stand behind an atom, what rows ranked before
the winner lacked, why a CC or MCC did not count, how each hospital-acquired condition was judged. What the DRG would
be without a code is found by grouping the claim without it.
"""

from __future__ import annotations

import enum
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from . import _msdrg
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
    ReturnCode,
    Severity,
    group_many,
)

__all__ = [
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
    """One condition of a formula that held. ``codes`` are the claim's codes that satisfy it, as given; empty where it
    is not about codes.

    ``atom`` is the grouper's own name for it: ``PDX:dxc0514``, ``ANY:diabetes``, ``d468``, ``MCC``. A cluster of
    procedures that satisfies it appears with its members.
    """

    atom: str
    codes: tuple[str, ...]


class RowExplanation(NamedTuple):
    """A row that won: its rank in the list, its formula, and the atoms that held in the order they were met.

    ``drg`` is 0 for a row that sends the claim to the list ``reroute_mdc``.
    """

    rank: int
    drg: int
    drg_title: str
    reroute_mdc: int
    formula: str
    severity: Severity
    atoms: tuple[AtomExplanation, ...]


class NearMiss(NamedTuple):
    """A row ranked before the winner that would have been true but for one atom: one that is not there, or one that
    must not be."""

    rank: int
    drg: int
    drg_title: str
    reroute_mdc: int
    formula: str
    lacks: str
    must_not_have: str


class ListVisit(NamedTuple):
    """One look at a formula list. MDC 0 is the pre-MDC list, 29 that of operating-room procedures unrelated to the
    principal diagnosis."""

    mdc: int
    mdc_title: str
    winner: RowExplanation | None
    near_misses: tuple[NearMiss, ...]


class SeverityExplanation(NamedTuple):
    """How a secondary diagnosis that is a CC or MCC was used in the final grouping. ``position`` counts from 1, after
    the principal."""

    position: int
    code: str
    severity: Severity
    reason: SeverityReason
    text: str


class HacExplanation(NamedTuple):
    """How one hospital-acquired condition of one secondary diagnosis was judged. ``criteria`` is the grouper's
    formula."""

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
    """A single code whose removal changes the final grouping, and the grouping without it.

    ``field`` is ``diagnoses`` or ``procedures``, ``position`` the index in it. The principal diagnosis is never
    removed.
    """

    field: str
    position: int
    code: str
    grouping: Grouping


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a claim grouped as it did.

    ``final`` repeats ``initial`` unless hospital-acquired conditions made the grouper look again, and is empty when a
    return code left no final pass; ``result`` says which. All parts but ``result`` are empty when ``result.error`` is
    set.
    """

    result: DrgResult
    initial: tuple[ListVisit, ...] = ()
    final: tuple[ListVisit, ...] = ()
    severities: tuple[SeverityExplanation, ...] = ()
    hacs: tuple[HacExplanation, ...] = ()
    without: tuple[WithoutCode, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation in the shape of its proto3 JSON: snake_case names, enumerations by their full
        names."""
        return {
            "result": self.result.to_dict(),
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


def _texts(pack: Any, name: str) -> list[str]:
    start = pack.array(f"{name}_start", "<u4").astype(np.int64)
    text = pack.array(f"{name}_text", "u1").tobytes()
    if len(start) == 0 or (np.diff(start) < 0).any() or start[-1] != len(text):
        raise pack.corrupt(f"{name}_start.npy", "its offsets are not those of the texts")
    try:
        return [text[start[i] : start[i + 1]].decode() for i in range(len(start) - 1)]
    except UnicodeDecodeError:
        raise pack.corrupt(f"{name}_text.npy", "it is not UTF-8") from None


_SPECIAL_CODES = {"INVALID_PDX", "PDX_ECODE", "INVALID_SEX", "MDC_20_FALL_THRU"}
_LEVELS = (Severity.NON_CC, Severity.CC, Severity.MCC)


class _Walk:
    """One claim and the recorded walk of its grouping."""

    def __init__(self, claim: Claim, results: DrgResults, options: GroupingOptions) -> None:
        self.claim = claim
        self.options = options
        self.result = results[0]
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
        visits = [self._visit(i >= first_final, *visit) for i, visit in enumerate(self.trace["visits"])]
        initial = tuple(visits[:first_final])
        return Explanation(
            self.result,
            initial,
            tuple(visits[first_final:]) or (initial if self._grouped() else ()),
            tuple(self._severities()),
            tuple(self._hacs()),
            tuple(self._without()),
        )

    def _grouped(self) -> bool:
        final = self.result.final_grouping
        return final is not None and final.return_code == ReturnCode.OK

    # --- lists and rows

    def _visit(self, final: bool, mdc: int, row: int, words: bytes, no_mcc: int, no_cc: int) -> ListVisit:
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
                tuple(AtomExplanation(atom, tuple(self._behind(atom, mdc, suppressed, final))) for atom in atoms),
            )
        near = []
        for candidate in range(first, row if row >= 0 else first + count):
            miss = self._near_miss(candidate, mask, self._level(candidate, no_mcc, no_cc))
            if miss is not None:
                near.append(NearMiss(*self._describe(candidate), *miss))
        return ListVisit(mdc, self.grouper.mdc_titles.get(mdc, ""), winner, tuple(near[:NEAR_MISSES]))

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

    def _near_miss(self, row: int, mask: int, level: int) -> tuple[str, str] | None:
        """Return (atom the row lacks, "") or ("", atom it must not have) if one atom kept the row from being true.

        A row of which nothing else holds is not near.
        """
        levels = self.t.levels
        for bit in dict.fromkeys(self.t.steps[at][0] for at in self.t.programs[row]):
            if bit in levels:
                matched = self._evaluate(row, mask, levels[bit]) if levels[bit] != level else None
            else:
                matched = self._evaluate(row, mask ^ (1 << bit), level)
            if matched is None or not set(matched) - {bit} - set(levels):
                continue
            atom = self.t.atoms[bit]
            return ("", atom) if bit not in levels and mask >> bit & 1 else (atom, "")
        return None

    # --- codes behind an atom

    def _behind(self, atom: str, mdc: int, suppression: int, final: bool) -> Iterator[str]:
        prefix, _, _ = atom.rpartition(":")
        bit = self.t.bit[atom]
        if atom in ("MCC", "CC"):
            wanted = 2 if atom == "MCC" else 1
            out = _msdrg.FLAG_EXCLUDED | _msdrg.FLAG_DEATH | (_msdrg.FLAG_HAC_MET if final else 0)
            for i, (flags, severity, _) in enumerate(self.trace["diagnoses"]):
                downgraded = int(self.t.scheme["suppression"][self.dx_rows[i]]) >> suppression & 1
                if i and severity == wanted and not flags & out and not downgraded:
                    yield self.dx[i]
        elif prefix in ("PDX", "SDX", "ANY"):
            for i, row in enumerate(self.dx_rows):
                words = self.t.scheme_sdx if i else self.t.scheme_pdx
                if row and _has(words[row], bit):
                    yield self.dx[i]
        elif atom in _SPECIAL_CODES:
            yield from self.dx[:1]
        elif atom == "MULTST":
            yield from (self.dx[i] for i, row in enumerate(self.dx_rows) if self.t.scheme["trauma"][row])
        else:
            yield from self._procedures_behind(bit, mdc)

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
        drg = self.result.final_grouping.drg if self.result.final_grouping else 0
        visits = self.trace["visits"]
        suppression = self._last_suppression(visits[-1]) if visits else 0
        names = set(self.t.suppressions[suppression].split())
        for i, (flags, severity, _) in enumerate(self.trace["diagnoses"]):
            if i == 0 or severity == 0:
                continue
            level = _LEVELS[severity]
            if flags & _msdrg.FLAG_EXCLUDED:
                reason = SeverityReason.EXCLUDED_BY_PRINCIPAL
                text = f"the CC exclusion list of principal diagnosis {self.dx[0]} has {self.dx[i]}"
            elif flags & _msdrg.FLAG_DEATH:
                reason = SeverityReason.DIED
                text = f"{self.dx[i]} counts as {level.name} only if the patient left alive; the discharge status is 20"
            elif flags & _msdrg.FLAG_DOWNGRADED:
                reason = SeverityReason.DRG_LOGIC
                text = f"{self.dx[i]} is part of what defines DRG {drg} ({', '.join(sorted(names))})"
            elif flags & _msdrg.FLAG_HAC_MET:
                reason = SeverityReason.HOSPITAL_ACQUIRED
                text = f"{self.dx[i]} is hospital-acquired and does not count in the final grouping"
            else:
                reason = SeverityReason.COUNTS
                text = f"{self.dx[i]} counts as {level.name}"
            yield SeverityExplanation(i, self.dx[i], level, reason, text)

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
                poa = self.poa[i]
                criteria = " | ".join(self.t.hac_formulas[self.t.hac_start[number] : self.t.hac_start[number + 1]])
                name = HAC_DISPLAYS[int(scheme["hac_display"][e])]
                yield HacExplanation(
                    i, self.dx[i], number, name, self.t.hac_titles.get(number, ""), poa, status, criteria,
                    _hac_text(status, poa, criteria),
                )  # fmt: skip

    def _without(self) -> Iterator[WithoutCode]:
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
            if _key(result.final_grouping) != _key(self.result.final_grouping):
                yield WithoutCode(field, position, code, result.final_grouping)


_GROUPED = ("sex", "discharge_status", "hospital_status", "poa")
_JOINTS = ("righthip", "rightknee", "rightankle", "lefthip", "leftknee", "leftankle")


def _key(grouping: Grouping | None) -> tuple[int, int, int] | None:
    return (grouping.mdc, grouping.drg, grouping.return_code) if grouping else None


def _hac_text(status: HacCriteria, poa: str, criteria: str) -> str:
    if status == HacCriteria.HAC_CRITERIA_MET:
        return f"not present on admission (POA {poa!r}) and the criteria hold: {criteria}"
    if status == HacCriteria.HAC_NOT_APPLICABLE_EXCLUSION:
        return "excluded as CC or MCC by the principal diagnosis, so not a hospital-acquired condition"
    if status == HacCriteria.HAC_NOT_APPLICABLE_EXEMPT:
        return "the hospital is exempt from reporting POA"
    if status == HacCriteria.HAC_CRITERIA_NOT_MET and poa in ("Y", "W"):
        return f"present on admission (POA {poa!r})"
    if status == HacCriteria.HAC_CRITERIA_NOT_MET:
        return f"not present on admission (POA {poa!r}), but the criteria do not hold: {criteria}"
    return "not considered: the claim was not grouped"


def _has(words: Any, bit: int) -> bool:
    return bool(int(words[bit >> 6]) >> (bit & 63) & 1)


def _get(claim: Claim, name: str) -> Any:
    return claim.get(name) if isinstance(claim, dict) else getattr(claim, name, None)


def _less(codes: Sequence[str], index: int) -> list[str]:
    return [*codes[:index], *codes[index + 1 :]]


_ENUMERATIONS = {
    "Severity": "SEVERITY",
    "SeverityReason": "SEVERITY_REASON",
    "HacCriteria": "HAC_CRITERIA",
    "MedSurg": "MED_SURG",
    "ReturnCode": "RETURN_CODE",
}


def _plain(value: Any) -> Any:
    if isinstance(value, enum.IntEnum):
        return f"{_ENUMERATIONS[type(value).__name__]}_{value.name}"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(item) for name, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
