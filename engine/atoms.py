"""The atoms of the MS-DRG formulas in words.

An atom of a formula is a prefix and a name. The prefix says which codes may satisfy it: ``PDX`` the principal
diagnosis, ``SDX`` a secondary one, ``ANY`` either, none a procedure. The name is a list of codes in the grouper's
tables, or one of the special conditions below, which look at the whole claim. The lists have no titles in the tables;
which DRGs ask for one says best what it is about.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["OPERATING_ROOM", "SEVERITIES", "SPECIAL", "drg_ranges", "meaning"]

SEVERITIES: Final[Mapping[str, str]] = {
    "MCC": "a secondary diagnosis counts as MCC",
    "CC": "a secondary diagnosis counts as CC, and none as MCC",
    "NON_CC": "no secondary diagnosis counts as CC or MCC",
}

OPERATING_ROOM: Final[Mapping[str, str]] = {
    "d468": "an extensive operating-room procedure",
    "d477": "an operating-room procedure that is not extensive",
    "ORPROC": "an operating-room procedure",
}

SPECIAL: Final[Mapping[str, str]] = {
    "ALIVE": "the patient did not die: any discharge status but 20",
    "DIED": "the patient died: discharge status 20",
    "AMA": "the patient left against medical advice: discharge status 7",
    "XFRNBA": "the patient went to another hospital: discharge status 2, 5, 66, 82, 85 or 94",
    "ANYDX": "holds for every claim",
    "INVALID_DSTAT": "no discharge status, or none that CMS defines",
    "INVALID_PDX": "no principal diagnosis, or none of this version",
    "PDX_ECODE": "the principal diagnosis is an external cause (V, W, X, Y), which may not be principal",
    "INVALID_SEX": "the MDC of the principal diagnosis depends on the sex, which is not known",
    "INCIDENT": "every diagnosis is one that a normal newborn may have",
    "MDC_20_FALL_THRU": "the principal diagnosis belongs to MDC 20",
    "MULTST": "significant trauma of two body sites (head, chest, abdomen, kidney, urinary tract, pelvis, upper limb, "
    "lower limb)",
    "BILATERAL": "procedures on two joints of the legs (hip, knee, ankle; left, right)",
    "FOUR_VESSELS": "four or more vessels treated, over all procedures",
    "FOUR_STENTS": "four or more stents, over all procedures",
    "FOUR_DRUG_ELUTING_STENTS": "four or more drug-eluting stents, over all procedures",
    "FOUR_NON_DRUG_ELUTING_STENTS": "four or more stents that are not drug-eluting, over all procedures",
    "MULTFUSE": "two or more procedures on the spinal fusion lists sglantfuse and sglpostfuse1",
    "SGLANTSECTXCTR": "two or more procedures on the spinal fusion list sglantsectXfuse",
    "SGLPOSTFUSECTR": "two or more procedures on the spinal fusion list sglpostfuse",
    "SINGLEFUSIONCTR": "three or more procedures on the spinal fusion lists sglantfuse and sglpostfuse, on both",
    "SGLANTCTR": "two or more procedures on the spinal fusion list sglantfuse",
    "SGLPOST1CTR": "two or more procedures on the spinal fusion list sglpostfuse1",
}
"""Conditions on the claim as a whole, of all versions. None is about one code on one list."""

_WHOSE: Final[Mapping[str, str]] = {
    "PDX": "the principal diagnosis is",
    "SDX": "a secondary diagnosis is",
    "ANY": "a diagnosis, principal or secondary, is",
    "": "a procedure is",
}
_HAC = re.compile(r"hac(\d\d)(_\w+)?", re.IGNORECASE)
_MOST_RANGES = 4


def meaning(atom: str, drgs: Sequence[int] = (), hacs: Mapping[int, str] | None = None) -> str:
    """Return in words what ``atom`` asks of a claim.

    ``drgs``: the DRGs whose formulas ask for it, ascending; named if they are few. ``hacs``: titles of the
    hospital-acquired conditions.
    """
    known = SPECIAL.get(atom) or SEVERITIES.get(atom) or OPERATING_ROOM.get(atom)
    if known is not None:
        return known
    prefix, _, name = atom.rpartition(":")
    if name == "mccalive":
        return f"{_WHOSE[prefix]} an MCC for patients discharged alive only"
    hac = _HAC.fullmatch(name)
    if hac is not None:
        number = int(hac[1])
        title = (hacs or {}).get(number, "")
        return f"{_WHOSE[prefix]} on a list of hospital-acquired condition {number}" + (f", {title}" if title else "")
    ranges = drg_ranges(drgs)
    used = f" (DRG {', '.join(ranges)})" if 0 < len(ranges) <= _MOST_RANGES else ""
    return f"{_WHOSE[prefix]} on the list {name}{used}"


def drg_ranges(drgs: Sequence[int]) -> list[str]:
    """Return ascending numbers as ranges: [291, 292, 293, 300] as ["291-293", "300"]."""
    ranges: list[tuple[int, int]] = []
    for drg in drgs:
        if ranges and ranges[-1][1] == drg - 1:
            ranges[-1] = (ranges[-1][0], drg)
        else:
            ranges.append((drg, drg))
    return [str(first) if first == last else f"{first}-{last}" for first, last in ranges]
