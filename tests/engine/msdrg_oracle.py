"""A grouper in plain Python, straight from the rules, for comparison: the initial grouping of a claim.

It walks every formula as text over sets of names, knows nothing of bits, programs or anchors, and is slow.
Hospital-acquired conditions and marking are not in it; the reference answers cover those.
"""

from __future__ import annotations

import re
from typing import Any

from engine.tables import DiagnosisAttributes, Formula, MsdrgTables, Source

TRAUMA = ("sthead", "stchest", "stabdom", "stkidney", "sturin", "stpel", "stuplimb", "stlolimb")
JOINTS = ("righthip", "rightknee", "rightankle", "lefthip", "leftknee", "leftankle")
STATUSES = {*range(1, 8), 20, 21, 30, 43, 50, 51, *range(61, 67), 69, 70, *range(81, 96)}
ORDER = {"NCC": 0, "CC": 1, "MCC": 2}
LEVELS = ("NON_CC", "CC", "MCC")
RETURN_CODES = {
    "INVALID_PDX": "INVALID_PDX",
    "PDX_ECODE": "DX_CANNOT_BE_PDX",
    "INVALID_DSTAT": "INVALID_DISCHARGE_STATUS",
    "INVALID_SEX": "INVALID_SEX",
}
COUNTED = {
    "MULTFUSE": (("sglantfuse", "sglpostfuse1"), 2, 420),
    "SGLANTSECTXCTR": (("sglantsectXfuse",), 2, 420),
    "SGLPOSTFUSECTR": (("sglpostfuse",), 2, 420),
    "SINGLEFUSIONCTR": (("sglantfuse", "sglpostfuse"), 3, 420),
    "SGLANTCTR": (("sglantfuse",), 2, 430),
    "SGLPOST1CTR": (("sglpostfuse1",), 2, 430),
}


def smallest_tables() -> MsdrgTables:
    """Return made-up tables that group nothing yet."""
    return MsdrgTables(
        version="43.1", effective_from=20260401, effective_to=20260930,
        diagnoses={"A00": DiagnosisAttributes(1, "NCC", (), (), ())}, procedures={}, exclusions={}, exclusion_groups={},
        gender_mdcs={}, clusters={}, formulas={}, hac_formulas={}, drg_titles={}, mdc_titles={}, hac_titles={},
        sources=[Source("", "", "", "made up", "", ())],
    )  # fmt: skip


class Grouping:
    def __init__(self, tables: MsdrgTables, claim: dict[str, Any]) -> None:
        self.t = tables
        self.number = int(tables.version.replace(".", ""))
        dx = [code.upper() for code in claim.get("diagnoses", [])]
        self.pdx_code = dx[0] if dx else ""
        self.pdx = tables.diagnoses.get(self.pdx_code)
        status = claim.get("discharge_status") or 0
        self.status = status if status in STATUSES else 0
        self.sex = claim.get("sex", "SEX_UNKNOWN")
        group = tables.exclusions.get(self.pdx_code)
        excluded = set(tables.exclusion_groups.get(group, ())) if group is not None else set()
        rows = [(code, tables.diagnoses.get(code)) for code in dx[1:]]
        rows.sort(key=lambda row: (-ORDER[row[1].severity] if row[1] else 0, row[0]))
        self.sdx = rows
        self.counting = [
            a
            for code, a in rows
            if a and code not in excluded and not (self.status == 20 and "mccalive" in _lower(a.operands))
        ]
        self.conflict = False
        self.mdc = self.pdx.mdc if self.pdx else -1
        if self.pdx and self.pdx_code in tables.gender_mdcs:
            male, female = tables.gender_mdcs[self.pdx_code]
            self.mdc = male if self.sex == "SEX_MALE" else female
            self.conflict = self.sex == "SEX_UNKNOWN"
        self.px = sorted(code.upper() for code in claim.get("procedures", []))
        self._clusters()
        self.severity = 0
        self.matched: list[str] = []

    def _clusters(self) -> None:
        self.suppressed: dict[str, set[int]] = {code: set() for code in self.px}
        self.objects = []
        for name, cluster in self.t.clusters.items():
            seen, used = set(), set()
            for code in self.px:
                for choice, codes in enumerate(cluster.choices):
                    if code in codes:
                        seen.add(choice)
                        used.add(code)
                if len(seen) == len(cluster.choices):
                    self.objects.append(name)
                    for member in used:
                        self.suppressed[member].update(cluster.suppressed_mdcs)
                    break

    def names(self, code: str) -> set[str]:
        names = set(self.t.procedures.get(code, ()))
        return names | {"ORPROC"} if names & {"d468", "d477"} else names

    def is_set(self, prefix: str, name: str, mdc: int) -> bool:
        special = name.upper()
        if special == "INVALID_PDX":
            return self.pdx is None
        if special == "PDX_ECODE":
            return self.pdx_code[:1] in ("V", "W", "X", "Y")
        if special == "INVALID_DSTAT":
            return self.status == 0
        if special == "INVALID_SEX":
            return self.conflict
        if special == "MDC_20_FALL_THRU":
            return self.mdc == 20
        if special == "INCIDENT":
            valid = [self.pdx, *(a for _, a in self.sdx if a)]
            return all(a is not None and "incident" in _lower(a.operands) for a in valid)
        if special == "MULTST":
            return self.two([_lower(a.operands) if a else set() for a in [self.pdx, *(a for _, a in self.sdx)]], TRAUMA)
        if special == "BILATERAL":
            return self.two([self.names(code) for code in self.px], JOINTS)
        if special == "FOUR_VESSELS":
            return self.weigh("vessel", "")
        if special == "FOUR_STENTS" and self.number >= 410:
            return self.weigh("stent", "")
        if special == "FOUR_DRUG_ELUTING_STENTS" and self.number < 410:
            return self.weigh("stent", "NORdrugstent")
        if special == "FOUR_NON_DRUG_ELUTING_STENTS" and self.number < 410:
            return self.weigh("stent", "NORstent")
        if special in COUNTED and self.number >= COUNTED[special][2]:
            kinds, threshold, _ = COUNTED[special]
            met = [name for code in self.px for name in kinds if name in self.names(code)]
            both = special != "SINGLEFUSIONCTR" or set(met) == set(kinds)
            return len(met) >= threshold and both
        if prefix in ("PDX", "ANY") and self.pdx and name in _names(self.pdx):
            return True
        if prefix in ("SDX", "ANY") and any(a and name in _names(a) for _, a in self.sdx):
            return True
        if prefix:
            return False
        fixed = {
            "ANYDX": True, "ALIVE": self.status != 20, "AMA": self.status == 7, "DIED": self.status == 20,
            "XFRNBA": self.status in (2, 5, 66, 82, 85, 94), "MCC": self.severity == 2, "CC": self.severity == 1,
            "NON_CC": self.severity == 0,
        }  # fmt: skip
        if name in fixed:
            return fixed[name]
        return any(name in self.names(c) and mdc not in self.suppressed[c] for c in self.px) or any(
            name in self.names(c) for c in self.objects
        )

    @staticmethod
    def two(codes: list[set[str]], wanted: tuple[str, ...]) -> bool:
        seen: list[str] = []
        for names in codes:
            new = next((name for name in wanted if name in names and name not in seen), None)
            if new:
                seen.append(new)
        return len(seen) >= 2

    def weigh(self, kind: str, companion: str) -> bool:
        codes = [self.names(code) for code in self.px]
        return (
            sum(i for n in codes for i in range(1, 5) if f"{kind}{i}" in n and (not companion or companion in n)) >= 4
        )

    def true(self, text: str, mdc: int) -> bool:
        """Evaluate by letting Python read the formula, one set atom after the other."""
        self.matched = []

        def atom(match: re.Match[str]) -> str:
            prefix, _, name = match[0].rpartition(":")
            value = self.is_set(prefix, name, mdc)
            if value:
                self.matched.append(name.upper())
            return " True " if value else " False "

        python = re.sub(r"[^()&|~\s]+", atom, text).replace("~", " not ").replace("&", " and ").replace("|", " or ")
        return bool(eval(re.sub(r"\s+", " ", python).strip()))

    def evaluate(self, mdc: int) -> tuple[Formula | None, str]:
        rows = sorted(self.t.formulas.get(mdc, ()), key=lambda row: row.rank)
        for row in rows:
            self.level(row)
            if self.true(row.text, mdc):
                return row, next((RETURN_CODES[n] for n in self.matched if n in RETURN_CODES), "OK")
        return None, "OK"

    def level(self, row: Formula) -> None:
        names = {name.lower() for name in row.suppression}
        counts = [ORDER[a.severity] for a in self.counting if not names & _lower(a.operands)]
        self.severity = max(counts, default=0)


def initial_grouping(tables: MsdrgTables, claim: dict[str, Any]) -> tuple[int, int, str, str]:
    """Return (MDC, DRG, severity, return code) before hospital-acquired conditions."""
    g = Grouping(tables, claim)
    lists = [0]
    winner, code = g.evaluate(0)
    if code != "OK":
        return 0, 999, "NONE", code
    found, rerouted, previous = winner, False, winner
    for step in (1, 2):
        if step == 2 and winner is None:
            previous, code = g.evaluate(g.mdc)
            if code != "OK":
                return 0, 999, "NONE", code
            lists.append(g.mdc)
            found = previous
        if rerouted or previous is None or not previous.reroute:
            continue
        target, code = g.evaluate(previous.reroute)
        if code == "OK" and target is not None and target.reroute:
            target, code = g.evaluate(target.reroute)
        if code != "OK":
            return 0, 999, "NONE", code
        lists.append(previous.reroute)
        if target is not None:
            found, rerouted = target, True
    assert found is not None
    mdc = lists[-2] if lists[-1] == 29 else lists[-1] or g.mdc
    return mdc, found.drg, "NONE" if found.drg == 998 else LEVELS[g.severity], "OK"


def _lower(names: tuple[str, ...]) -> set[str]:
    return {name.lower() for name in names}


def _names(a: DiagnosisAttributes) -> set[str]:
    return {*a.operands, *a.hac_names, *a.categories}
