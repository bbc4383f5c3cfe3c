"""A code editor in plain Python, straight from the rules, for comparison.

It knows flags by their names, looks rows up by walking them, and collects what it raises in lists; it has no bits, no
hashing and no day numbers.
"""

from __future__ import annotations

import calendar
from collections import Counter
from typing import Any

from engine.tables import FlaggedCode, MceTables

POSTPAYMENT = {"NONSPECIFIC_PDX", "MEDICARE_IS_SECONDARY_PAYER", "NONSPECIFIC_OR", "OPEN_BIOPSY", "BILATERAL"}
LIMITED = {
    "lcov_lvrs": "LVRS", "lcov_lungxp": "LUNG_TRANSPLANT", "lcov_heartlungxp": "COMBINATION_HEART_LUNG_TRANSPLANT",
    "lcov_heartxp": "HEART_TRANSPLANT", "lcov_heartsys": "HEART_IMPLANT",
    "lcov_intxp": "INTESTINE_MULTI_VISCERAL_TRANSPLANT", "lcov_liverxp": "LIVER_TRANSPLANT",
    "lcov_kidneyxp": "KIDNEY_TRANSPLANT", "lcov_pancreasxp": "PANCREAS_TRANSPLANT",
    "lcov_artheartxp": "ARTIFICIAL_HEART",
}  # fmt: skip
SEX = {"MALE": 1, "FEMALE": 2, "UNKNOWN": 0}


class MissingError(Exception):
    """CMS fails on the claim for want of the field that is the argument."""


def clamp(date: int) -> int | None:
    """Return the date with its day moved into its month; None if it is no date."""
    if not 10000000 <= date <= 99999999:
        return None
    year, month, day = date // 10000, date // 100 % 100, date % 100
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return year * 10000 + month * 100 + min(day, calendar.monthrange(year, month)[1])


class Edited:
    """What is found on one claim: an answer in the form of the reference's, but with edits in the order raised."""

    def __init__(self, tables: MceTables, claim: dict[str, Any], suppressed: dict[str, set[str]] | None = None) -> None:
        self.t = tables
        self.suppressed = suppressed or {}
        self.counts: Counter[str] = Counter()
        self.dx: list[str] = claim.get("diagnoses", [])
        self.px: list[str] = claim.get("procedures", [])
        self.on_dx: list[list[str]] = [[] for _ in self.dx]
        self.on_px: list[list[str]] = [[] for _ in self.px]
        self.on_admit: list[str] = []
        self.ages = ["NONE"] * len(self.dx)
        self.type = "INVALID_DISCHARGE_DATE"
        date = clamp(claim.get("discharge_date", 0))
        if date is None or not 19851001 <= date <= tables.termination:
            return
        self.date = date
        self.claim = claim
        self.age, self.sex, self.status = claim.get("age"), SEX.get(claim.get("sex", "")), claim.get("discharge_status")
        self.i9 = claim.get("icd_version") == 9
        self.admit = claim.get("admit_diagnosis") or None
        self.edit()
        types = {"POSTPAYMENT" if e in POSTPAYMENT else "PREPAYMENT" for e in self.counts if e != "INVALID_ADMIT_DX"}
        self.type = "NONE" if not types else types.pop() if len(types) == 1 else "BOTH"

    def edit(self) -> None:
        for field, value, needs in (
            ("age", self.age, self.dx or self.admit),
            ("sex", self.sex, self.dx or self.admit or self.px),
            ("discharge_status", self.status, self.dx),
        ):
            if value is None and needs:
                raise MissingError(field)
        dx_rows = self.t.icd9_diagnoses if self.i9 else self.t.icd10_diagnoses
        px_rows = self.t.icd9_procedures if self.i9 else self.t.icd10_procedures
        flags = [self.flags(dx_rows, code) for code in self.dx]
        px_flags = [self.flags(px_rows, code) for code in self.px]
        if any("los" in (own or ()) for own in px_flags) and self.claim.get("length_of_stay") is None:
            raise MissingError("length_of_stay")
        admit = self.flags(dx_rows, self.admit) if self.admit else None
        if self.admit and admit is None and not silent(self.admit):
            self.attach("INVALID_ADMIT_DX", self.on_admit, "sdx")
        for i, own in enumerate(flags):
            if own is None and (i == 0 or not silent(self.dx[i])):
                self.attach("INVALID_CODE", self.on_dx[i], "sdx" if i else "pdx")
        for i, own in enumerate(px_flags):
            if own is None and not silent(self.px[i]):
                self.attach("INVALID_CODE", self.on_px[i], "px")
        self.check_claim()
        known = [set(own or ()) for own in flags]
        if known:
            self.edit_principal(known[0])
        if self.admit:
            if self.age_conflict(set(admit or ())) != "NONE":
                self.on_admit.append("AGE_CONFLICT")
            if self.sex_conflict(set(admit or ())):
                self.on_admit.append("SEX_CONFLICT")
        for i, own in enumerate(known[1:], 1):
            self.edit_secondary(i, own)
        self.edit_procedures(known, [set(own or ()) for own in px_flags])

    def check_claim(self) -> None:
        if self.sex is None or (self.sex == 0 and self.date < 20241001):
            self.counts["INVALID_SEX"] += 1
        if not any(s.code == self.status and s.first <= self.date <= s.last for s in self.t.discharge_statuses):
            self.counts["INVALID_DISCHARGE_STATUS"] += 1
        if self.age is None or not 0 <= self.age <= 124:
            self.counts["INVALID_AGE"] += 1

    def flags(self, rows: list[FlaggedCode], code: str) -> tuple[str, ...] | None:
        for row in rows:
            if row.code == code.upper() and row.first <= self.date <= row.last:
                return row.flags
        return None

    def attach(self, edit: str, to: list[str], kind: str) -> None:
        if edit not in self.suppressed.get(kind, ()):
            self.counts[edit] += 1
            if edit not in to:
                to.append(edit)

    def age_conflict(self, own: set[str]) -> str:
        assert self.age is not None
        for group in ("pediatric", "newborn", "maternity", "adult"):
            if group in own:
                ages = next(r for r in self.t.age_ranges if r.group == group and r.first <= self.date <= r.last)
                if not ages.first_age <= self.age <= ages.last_age:
                    return group.upper()
        return "NONE"

    def sex_conflict(self, own: set[str]) -> bool:
        if self.date >= 20241001 and self.sex == 0:
            return False
        return ("male" in own and self.sex != 1) or ("female" in own and self.sex != 2)

    def edit_principal(self, own: set[str]) -> None:
        raised = [
            ("E_CODE_AS_PDX", "ecodepdx" in own),
            ("MANIFESTATION_AS_PDX", "manifestation" in own),
            ("REQUIRES_SDX", {"unacceptable", "reqsdx"} <= own and len(self.dx) == 1),
            ("UNACCEPTABLE_PDX", "unacceptable" in own and "reqsdx" not in own),
            ("NONSPECIFIC_PDX", "nonspecific" in own and self.status != 20),
            ("QUESTIONABLE_ADMISSION", "qadm" in own),
            ("AGE_CONFLICT", self.age_conflict(own) != "NONE"),
            ("SEX_CONFLICT", self.sex_conflict(own)),
            ("WRONG_PROCEDURE_PERFORMED", "wrngproc" in own),
            ("MEDICARE_IS_SECONDARY_PAYER", "msp" in own),
            ("UNSPECIFIED", "unspecified" in own),
        ]
        self.ages[0] = self.age_conflict(own)
        for edit, condition in raised:
            if condition:
                self.attach(edit, self.on_dx[0], "pdx")

    def edit_secondary(self, i: int, own: set[str]) -> None:
        raised = [
            ("DUPLICATE_OF_PDX", self.dx[i] == self.dx[0]),
            ("MEDICARE_IS_SECONDARY_PAYER", "msp" in own),
            ("UNSPECIFIED", "unspecified" in own),
            ("WRONG_PROCEDURE_PERFORMED", "wrngproc" in own),
            ("AGE_CONFLICT", self.age_conflict(own) != "NONE"),
            ("SEX_CONFLICT", self.sex_conflict(own)),
        ]
        self.ages[i] = self.age_conflict(own)
        for edit, condition in raised:
            if condition:
                self.attach(edit, self.on_dx[i], "sdx")

    def edit_procedures(self, dx: list[set[str]], px: list[set[str]]) -> None:
        all_dx = set().union(*dx)
        sdx = set().union(*dx[1:])
        all_px = set().union(*px)
        bilateral = {code for code, own in zip(self.px, px, strict=True) if "bilateral" in own}
        specific = any("or_indic" in own and "nonspecific" not in own for own in px)
        trial = "clintrial" in all_dx
        both = {"lcov_artheartxpa", "lcov_artheartxpb"} <= all_px

        def old(limit: int) -> bool:
            return self.age is None or self.age < 0 or self.age >= limit

        for i, own in enumerate(px):
            z006 = bool({"lcov_artheartxpa", "lcov_artheartxpb"} & own) and both
            if "ncov2agelt64" in all_dx:
                aged = old(64)
            elif "ncov2agelt78" in all_dx:
                aged = old(78)
            else:
                aged = True
            if self.date < 20060426:
                pancreas = not ("ncov4" in all_dx and "ncov5" in all_dx)
            else:
                pancreas = "kidneyxp" not in all_px and "diabtypeI" not in all_dx
            not_covered = (
                "noncovered" in own
                or ("ncov45" in own and pancreas)
                or (z006 and not trial)
                or any(flag in own and flag in all_dx for flag in ("ncov6", "ncov7", "ncov_z302"))
                or ("ncov12agele60" in own and old(61))
                or ("ncov2" in own and "ncov2" not in all_dx and aged)
                or ("ncov3" in own and "ncov3" not in all_dx)
                or ("ncov8" in own and not ("ncov89" in sdx and "ncov9" in all_px))
                or ("ncov13a" in own and "ncov13b" not in all_px)
                or ("lcov_artheartxp" in own and not trial)
            )
            to = self.on_px[i]
            stay = self.claim.get("length_of_stay")
            for edit, condition in (
                ("SEX_CONFLICT", self.sex_conflict(own)),
                ("NONSPECIFIC_OR", "nonspecific" in own and not specific),
                ("OPEN_BIOPSY", "biopsy" in own),
                ("INCONSISTENT_WITH_LENGTH_OF_STAY", "los" in own and stay < (4 if self.i9 else 5)),
                ("NON_COVERED", not_covered),
            ):
                if condition:
                    self.attach(edit, to, "px")
            if "NON_COVERED" not in to:
                if "lcov" in own or (z006 and trial):
                    self.attach("LIMITED_COVERAGE", to, "px")
                else:
                    first = next((name for flag, name in LIMITED.items() if flag in own), None)
                    if first is not None:
                        self.attach(f"LIMITED_COVERAGE_{first}", to, "px")
            if "bilateral" in own and dx and "mdc08" in dx[0] and len(bilateral) >= 2:
                to.append("BILATERAL")
                self.counts["BILATERAL"] = 1
            if own & {"csect", "vagdel"} and "delout" not in sdx:
                self.attach("QUESTIONABLE_OBSTETRIC_ADMISSION", to, "px")


def silent(code: str) -> bool:
    """True for a code that is blank, or nothing but zeros."""
    return all(character <= " " for character in code) or set(code) == {"0"}


def edit(tables: MceTables, claim: dict[str, Any], suppressed: dict[str, set[str]] | None = None) -> dict[str, Any]:
    """Return the answer to a claim. Raises MissingError where CMS fails."""
    found = Edited(tables, claim, suppressed)
    return {
        "edit_type": found.type,
        "edits": dict(found.counts),
        "admit_edits": found.on_admit,
        "diagnosis_edits": found.on_dx,
        "age_conflicts": found.ages,
        "procedure_edits": found.on_px,
    }
