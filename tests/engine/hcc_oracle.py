"""Risk scores in plain Python, straight from the tables: slow, and with nothing of the compiled form in it.

Written from the specification (``docs/hcc.md``), not from the compiler; decimals throughout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, NamedTuple

from engine.tables import HccTables

THOUSANDTH = Decimal("0.001")


class Answer(NamedTuple):
    age: int
    ccs: list[str]
    hccs: list[str]
    scores: dict[str, float]


def age_on_first_of_february(birth_date: int, payment_year: int) -> int:
    born = (birth_date // 10000, birth_date // 100 % 100, birth_date % 100)
    years = payment_year - born[0]
    if born[1:] > (2, 1):
        years -= 1
    return max(years, 0)


def band(age: int, edges: Iterable[int]) -> str:
    """Name of the cell: ``edges`` are the first ages; two neighbouring ones a year apart make a single-year cell."""
    starts = list(edges)
    at = max(i for i, first in enumerate(starts) if age >= first)
    if at == len(starts) - 1:
        return f"{starts[at]}_GT"
    last = starts[at + 1] - 1
    return str(last) if last == starts[at] else f"{starts[at]}_{last}"


CE = (0, 35, 45, 55, 60, 65, 70, 75, 80, 85, 90, 95)
NE16 = (0, 35, 45, 55, 60, 65, 66, 67, 68, 69, 70, 75, 80, 85, 90, 95)
NE10 = (0, 35, 45, 55, 60, 65, 70, 75, 80, 85)


def score(tables: HccTables, member: Mapping[str, Any]) -> Answer:
    model = tables.model
    esrd, rx = model.startswith("ESRD"), model.startswith("RXHCC")
    reported = age_on_first_of_february(member["birth_date"], tables.payment_year)
    orec = member["orec"]
    age = 65 if model == "V24" and reported == 64 and orec == 0 else reported
    male = member["sex"] == "SEX_MALE"
    flag = {
        name: bool(member.get(name)) for name in ("ltimcaid", "nemcaid", "mcaid", "fbdual", "pbdual", "lti", "esrd")
    }
    codes = {code.upper().replace(".", "").replace(" ", "") for code in member["diagnoses"]}

    ccs = set()
    for rule in tables.rules:
        if rule.code not in codes:
            continue
        mce = member.get("skip_mce_edits") or rule.mce_ages[0] <= age <= rule.mce_ages[1]
        if mce and rule.ages[0] <= age <= rule.ages[1] and rule.sex in (0, 1 if male else 2):
            ccs.add(rule.cc)
    before = set(ccs)
    if model == "V28" and 223 in before and not before & {221, 222, 224, 225, 226}:
        before.remove(223)
    if model == "ESRD_V24":
        before -= {134, 135, 136, 137, 138}
    hccs = set(before)
    for cc in before:
        hccs -= set(tables.hierarchies[cc])

    disabled = age < 65 and orec in (1, 2, 3)
    originally_disabled = age >= 65 and orec == 1
    sex = "Male" if male else "Female"
    aged = "Aged" if age >= 65 else "NonAged"
    present = {f"{sex[0]}{band(age, CE)}", aged}
    present |= {"DISABL"} if disabled else set()
    if originally_disabled:
        present |= {"ORIGDIS", f"OriginallyDisabled_{sex}"}
        present |= {f"{sex[0]}65OD", "OD65"} if rx else set()
    if flag["ltimcaid"] and not esrd and not rx:
        present.add("LTIMCAID")
    if esrd and orec in (2, 3) and age >= 65:
        present.add(f"Originally_ESRD_{sex}")
    if model == "ESRD_V21" and flag["mcaid"]:
        present |= {"MCAID", f"MCAID_{sex}_{'NonAged' if disabled else 'Aged'}"}
    if model == "ESRD_V24":
        present |= {f"LTI_{aged}"} if flag["lti"] else set()
        present |= {f"FBDual_{sex}_{aged}"} if flag["fbdual"] else set()
        present |= {f"PBDual_{sex}_{aged}"} if flag["pbdual"] else set()

    new_age = 65 if age == 64 and orec == 0 else age
    origin = "ORIGDIS" if originally_disabled else "NORIGDIS"
    if rx:
        present.add(f"{'ESRD' if flag['esrd'] else 'NESRD'}_{origin}_X_{sex[0]}{band(new_age, NE16)}")
    elif esrd:
        if model == "ESRD_V21":
            status = "MCAID" if flag["nemcaid"] else "NMCAID"
        else:
            status = "FBD" if flag["fbdual"] else "ND_PBD"
        present.add(f"{status}_{origin}_G_NE{sex[0]}{band(new_age, NE16)}")
        present.add(f"{status}_{'ORIGDIS' if orec == 1 else 'NORIGDIS'}_NE{sex[0]}{band(new_age, NE10)}")
    else:
        present.add(f"{'MCAID' if flag['nemcaid'] else 'NMCAID'}_{origin}_NE{sex[0]}{band(new_age, NE16)}")

    present |= {f"{'RXHCC' if rx else 'HCC'}{hcc}" for hcc in hccs}
    present |= {name for name, members in tables.categories.items() if hccs & set(members)}
    for name, a, b in tables.interactions:
        if a in present and b in present:
            present.add(name)
    if hccs:
        present.add(f"D{len(hccs)}" if len(hccs) < 10 else "D10P")

    def column(name: str) -> Decimal:
        return sum((Decimal(tables.coefficients[name].get(v, 0)) / 1000 for v in sorted(present)), Decimal(0))

    def row(name: str) -> Decimal:
        return Decimal(tables.addons[name]) / 1000

    group = "GE65" if age >= 65 else "LT65"
    new_group = "GE65" if new_age >= 65 else "LT65"
    scores: dict[str, Decimal] = {}
    if not esrd:
        scores = {name: column(name) for name in tables.coefficients}
    else:
        scores = {"DIAL": column("DIAL"), "DIAL_NE": column("DIAL_NE")}
        for n in (1, 2, 3):
            scores[f"TRANSPLANT_KIDNEY_ONLY_{n}M"] = row(f"TRANSPLANT_KIDNEY_ONLY_{n}M")
        for duration, divisor in (("DUR4_9", Decimal("0.905")), ("DUR10PL", Decimal("0.698"))):
            for g in ("GE65", "LT65"):
                if model == "ESRD_V21":
                    for kind in ("COMM", "INST"):
                        extra = row(f"{duration}_{g}") if g == group else Decimal(0)
                        scores[f"GRAFT_{kind}_{duration}_{g}"] = column(f"GRAFT_{kind}") + extra
                    extra = row(f"{duration}_{g}") if g == new_group else Decimal(0)
                    scores[f"GRAFT_NE_{duration}_{g}"] = column("GRAFT_NE") + extra
                    continue
                for dual in ("ND_PBD", "FBD"):
                    partial = dual == "ND_PBD" and flag["pbdual"]
                    community, institutional, new = (
                        column(f"G_COMM_{dual}_{g}"),
                        column("GRAFT_INST"),
                        column("GRAFT_NE"),
                    )
                    if g == group:
                        community += row(f"{g}_{duration}_{dual}") + (row(f"PBD_{g}_flag") if partial else 0)
                        institutional += row(f"FGI_{g}_{duration}_{dual}")
                        institutional += (row(f"LTI_{g}") if flag["lti"] else 0) + (
                            row(f"FGI_PBD_{g}_flag") if partial else 0
                        )
                    if g == new_group and (dual == "FBD") == flag["fbdual"]:
                        new += row(f"{g}_{duration}_{dual}")
                    scores[f"G_COMM_{dual}_{g}_{duration}"] = community
                    scores[f"GRAFT_INST_{dual}_{g}_{duration}"] = institutional
                    scores[f"GRAFT_NE_{g}_{duration}_{dual}"] = new / divisor
    rounded = {name: float(value.quantize(THOUSANDTH, ROUND_HALF_EVEN)) for name, value in scores.items()}
    return Answer(reported, [str(cc) for cc in sorted(ccs)], [str(hcc) for hcc in sorted(hccs)], rounded)
