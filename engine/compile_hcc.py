"""Compile the tables of one risk adjustment model and year into the arrays that ``engine._hcc`` scores from.

The idea: everything but the member's own bits is decided here.

* Ages fall into classes inside which every condition of the mapping has one answer; with sex, and with or without the
  ages of the Medicare Code Editor, at most 64 classes. A row of the mapping is then a mask of classes and a condition
  category, and codes with equal rows share them.
* Every variable of the score (HCC, age/sex cell, status flag, category, interaction, count, new-enrollee cell) is one
  bit with a row of coefficients, one for each segment column. For every sex and age there is a list of the bits a
  member of that sex and age may have, with what they ask of OREC and of the flags: the rules of section 3 of
  ``docs/hcc.md`` are in these lists, the core has none of them.
* An HCC carries the word mask of itself and its diagnosis categories; interactions are pairs of bits, in order.
* An output is a column's sum, or nothing, with add-ons and a divisor (the grafts of the ESRD models).

Sections named in comments are those of ``docs/hcc.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .errors import SourceFormatError
from .tables import ALL_AGES, HccRule, HccTables

__all__ = ["FLAGS", "compile_hcc"]

Array: TypeAlias = npt.NDArray[Any]

SLOT: Final = np.dtype([("key", "<u8"), ("row", "<u4"), ("pad", "<u4")])
RULE: Final = np.dtype([("classes", "<u8"), ("cc", "<u2"), ("pad", "<u2", (3,))])
PRE_RULE: Final = np.dtype([("cc", "<u2"), ("pad", "<u2", (3,)), ("unless", "<u8", (4,))])
PAIR: Final = np.dtype([("variable", "<u2"), ("a", "<u2"), ("b", "<u2"), ("pad", "<u2")])
PERSON: Final = np.dtype([("variable", "<u2"), ("all", "u1"), ("none", "u1"), ("orec", "u1"), ("pad", "u1")])
OUTPUT: Final = np.dtype([("column", "<i2"), ("divisor", "<u2")])
ADDON: Final = np.dtype(
    [
        ("value", "<i4"),
        ("output", "<u2"),
        ("name", "<u2"),
        ("orec", "u1"),
        ("all", "u1"),
        ("none", "u1"),
        ("pad", "u1"),
    ]
)

CC_WORDS: Final = 4
VARIABLE_WORDS: Final = 8
COLUMNS: Final = 16
OUTPUTS: Final = 32
AGES: Final = 128
NO_VARIABLE: Final = 0xFFFF
HASH: Final = 0x9E3779B97F4A7C15

FLAGS: Final = ("ltimcaid", "nemcaid", "mcaid", "fbdual", "pbdual", "lti", "esrd")
"""Flags of a member; bit i is flag i."""
LTIMCAID, NEMCAID, MCAID, FBDUAL, PBDUAL, LTI, ESRD = (1 << i for i in range(7))
ANY_OREC: Final = 0b1111
OREC_0, OREC_1, OREC_2, OREC_3 = (1 << i for i in range(4))
DISABLED_OREC: Final = OREC_1 | OREC_2 | OREC_3

_Bands: TypeAlias = tuple[tuple[int, int], ...]
_UNDER_65_BANDS: Final[_Bands] = ((0, 34), (35, 44), (45, 54), (55, 59), (60, 64))
_FROM_70_BANDS: Final[_Bands] = ((70, 74), (75, 79), (80, 84), (85, 89), (90, 94), (95, 127))
CE_BANDS: Final[_Bands] = (*_UNDER_65_BANDS, (65, 69), *_FROM_70_BANDS)
"""Age cells of continuing enrollees."""
NE16_BANDS: Final[_Bands] = (*_UNDER_65_BANDS, *((age, age) for age in range(65, 70)), *_FROM_70_BANDS)
"""Age cells of new enrollees."""
NE10_BANDS: Final[_Bands] = (*_UNDER_65_BANDS, (65, 69), (70, 74), (75, 79), (80, 84), (85, 127))
"""Age cells of new enrollees on dialysis."""


class _Person(NamedTuple):
    """A variable that a member has who is of this age, sex (F or M, "" for both), OREC, and has and lacks flags."""

    name: str
    ages: tuple[int, int]
    sex: str = ""
    orec: int = ANY_OREC
    all: int = 0
    none: int = 0


class _AddOn(NamedTuple):
    output: str
    row: str
    ages: tuple[int, int] = (0, 127)
    orec: int = ANY_OREC
    all: int = 0
    none: int = 0


_UNDER_65, _FROM_65 = (0, 64), (65, 127)


def compile_hcc(tables: HccTables) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return (arrays, manifest facts) for a pack of kind ``hcc``.

    Raises SourceFormatError when a name in a table is none of the model's, or a table needs more room than the
    compiled form has (64 classes, 256 condition categories, 512 variables, 16 columns, 32 outputs).
    """
    return _Compiler(tables).run()


class _Compiler:
    def __init__(self, tables: HccTables) -> None:
        self.tables = tables
        self.rx = tables.model.startswith("RXHCC")
        self.esrd = tables.model.startswith("ESRD")
        self.prefix = "RXHCC" if self.rx else "HCC"
        self.ccs = sorted(tables.hierarchies)
        self.cc_bit = {cc: i for i, cc in enumerate(self.ccs)}
        self.arrays: dict[str, Array] = {}

    def run(self) -> tuple[dict[str, Array], dict[str, Any]]:
        t = self.tables
        if len(self.ccs) > 64 * CC_WORDS:
            raise SourceFormatError(f"{t.model}: {len(self.ccs)} condition categories; at most {64 * CC_WORDS} fit")
        self._variables()
        self._mapping()
        self._hierarchies()
        self._categories_and_interactions()
        self._people()
        self._coefficients()
        self._outputs()
        recode = t.model == "V24"
        self.arrays["age_64_is_65"] = np.array([recode], "u1")
        facts = {
            "model": t.model,
            "payment_year": t.payment_year,
            "diagnoses": len({rule.code for rule in t.rules}),
            "hccs": len(self.ccs),
            "variables": len(self.variable),
            "interactions": len(t.interactions),
            "segments": len(self._outputs_of_model()),
            **t.facts,
        }
        return self.arrays, facts

    # --- variables --------------------------------------------------------------------------------------------------

    def _variables(self) -> None:
        t = self.tables
        rows = dict.fromkeys(name for column in t.coefficients.values() for name in column)
        operands = {name for _, a, b in t.interactions for name in (a, b)}
        computed = {
            *(f"{self.prefix}{cc}" for cc in self.ccs),
            *t.categories,
            *(name for name, _, _ in t.interactions),
            *(name for _, name in _counts(len(self.ccs))),
        }
        self.people = list(_people(t.model))
        personal = {person.name for person in self.people}
        unknown = sorted((set(rows) | operands) - computed - personal)
        if unknown:
            raise SourceFormatError(
                f"{t.model} {t.payment_year}: the tables name variables that the model does not have: {unknown[:8]}."
            )
        # In order of the coefficient files, which is how people know them; what has no coefficient comes last.
        names = [*rows, *sorted((computed | (personal & operands)) - set(rows) - {n for _, n in _counts(999)})]
        self.variable = {name: i for i, name in enumerate(names)}
        if len(names) > 64 * VARIABLE_WORDS:
            raise SourceFormatError(f"{t.model}: {len(names)} variables; at most {64 * VARIABLE_WORDS} fit")
        self._texts("variable_name", names)
        self._texts("variable_label", [t.labels.get(name, "") for name in names])
        self._texts("cc_label", [t.labels.get(f"{self.prefix}{cc}", "") for cc in self.ccs])

    # --- diagnoses to condition categories (section 4) --------------------------------------------------------------

    def _mapping(self) -> None:
        t = self.tables
        stray = {rule.cc for rule in t.rules} - set(self.ccs)
        if stray:
            raise SourceFormatError(f"{t.model}: the mapping has categories without a hierarchy row: {sorted(stray)}")
        breaks = {0}
        for rule in t.rules:
            for first, last in (rule.mce_ages, rule.ages):
                breaks |= {first, last + 1}
        starts = sorted(b for b in breaks if b < AGES)
        if 4 * len(starts) > 64:
            raise SourceFormatError(f"{t.model}: {len(starts)} distinct age ranges in the mapping; at most 16 fit")
        interval = np.searchsorted(starts, np.arange(AGES), side="right") - 1
        # Class number: ((MCE off) * 2 + sex) * intervals + interval; sex 0 is male.
        classes = np.empty((2, 2, AGES), "u1")
        for off in (0, 1):
            for sex in (0, 1):
                classes[off, sex] = (off * 2 + sex) * len(starts) + interval
        self.arrays["age_class"] = classes

        def mask(rule: HccRule) -> int:
            found = 0
            for off in (0, 1):
                for sex in (0, 1):
                    if rule.sex and rule.sex != sex + 1:
                        continue
                    for i, age in enumerate(starts):
                        if not _within(age, rule.ages) or not (off or _within(age, rule.mce_ages)):
                            continue
                        found |= 1 << ((off * 2 + sex) * len(starts) + i)
            return found

        by_code: dict[str, dict[int, int]] = {}
        for rule in t.rules:
            row = by_code.setdefault(rule.code, {})
            row[rule.cc] = row.get(rule.cc, 0) | mask(rule)
        contents = {code: tuple(sorted(row.items())) for code, row in by_code.items()}
        rows = {content: i for i, content in enumerate(sorted(set(contents.values())))}
        self.arrays["rule_start"] = np.cumsum([0, *(len(content) for content in rows)]).astype("<u4")
        self.arrays["rule"] = np.array(
            [(classes, self.cc_bit[cc], (0, 0, 0)) for content in rows for cc, classes in content], RULE
        )
        self._slots(sorted(contents), [rows[contents[code]] for code in sorted(contents)])

    def _slots(self, codes: Sequence[str], rows: Sequence[int]) -> None:
        """Open addressing without wrap-around: codes go, by home slot, to the first free slot; the last is empty."""
        keys = np.array([code.encode("ascii") for code in codes], "S8").view(">u8").astype("<u8")
        bits = max(4, (len(codes) * 3 // 2).bit_length())
        homes = ((keys * np.uint64(HASH)) >> np.uint64(64 - bits)).astype(np.int64)
        order = np.lexsort((keys, homes))
        ranks = np.arange(len(codes))
        places = np.maximum.accumulate(homes[order] - ranks) + ranks
        slots = np.zeros(max(1 << bits, int(places[-1]) + 1 if len(places) else 0) + 1, SLOT)
        slots["key"][places] = keys[order]
        slots["row"][places] = np.array(rows, "<u4")[order]
        self.arrays["dx_slot"] = slots

    # --- condition categories to HCCs (section 5) -------------------------------------------------------------------

    def _hierarchies(self) -> None:
        t = self.tables
        self.arrays["cc_number"] = np.array(self.ccs, "<u2")
        secondary = np.zeros((len(self.ccs), CC_WORDS), "<u8")
        for cc, below in t.hierarchies.items():
            for other in below:
                if other not in self.cc_bit:
                    raise SourceFormatError(f"{t.model}: HCC{cc} suppresses HCC{other}, which has no hierarchy row")
                _set(secondary[self.cc_bit[cc]], self.cc_bit[other])
        self.arrays["secondary"] = secondary
        pre: list[tuple[int, tuple[int, ...]]] = []
        if t.model == "V28":
            # A heart assist device alone is no heart failure: before hierarchies, so that it suppresses nothing either.
            pre.append((223, (221, 222, 224, 225, 226)))
        if t.model == "ESRD_V24":
            # Kidney categories say nothing about a member who is on dialysis or has a graft.
            pre += [(cc, ()) for cc in range(134, 139)]
        rows = np.zeros(len(pre), PRE_RULE)
        for row, (cc, unless) in zip(rows, pre, strict=True):
            row["cc"] = self.cc_bit[cc]
            for other in unless:
                _set(row["unless"], self.cc_bit[other])
        self.arrays["pre_rule"] = rows

    # --- categories, interactions, counts (sections 6 and 7) --------------------------------------------------------

    def _categories_and_interactions(self) -> None:
        t = self.tables
        implies = np.zeros((len(self.ccs), VARIABLE_WORDS), "<u8")
        for cc in self.ccs:
            _set(implies[self.cc_bit[cc]], self.variable[f"{self.prefix}{cc}"])
        for category, members in t.categories.items():
            for cc in members:
                if cc not in self.cc_bit:
                    raise SourceFormatError(f"{t.model}: category {category} has HCC{cc}, which has no hierarchy row")
                _set(implies[self.cc_bit[cc]], self.variable[category])
        self.arrays["implies"] = implies
        self.arrays["interaction"] = np.array(
            [(self.variable[name], self.variable[a], self.variable[b], 0) for name, a, b in t.interactions], PAIR
        )
        counts = np.full(64 * CC_WORDS + 1, NO_VARIABLE, "<u2")
        for n, name in _counts(64 * CC_WORDS):
            counts[n] = self.variable.get(name, NO_VARIABLE)
        self.arrays["count_variable"] = counts

    # --- the member's own variables (section 3) ---------------------------------------------------------------------

    def _people(self) -> None:
        known = [person for person in self.people if person.name in self.variable]
        starts, rows = [0], []
        for sex in "MF":
            for age in range(AGES):
                rows += [
                    (self.variable[person.name], person.all, person.none, person.orec, 0)
                    for person in known
                    if person.sex in ("", sex) and _within(age, person.ages)
                ]
                starts.append(len(rows))
        self.arrays["person_start"] = np.array(starts, "<u4")
        self.arrays["person"] = np.array(rows, PERSON)

    # --- scores (sections 8 and 9) ----------------------------------------------------------------------------------

    def _coefficients(self) -> None:
        t = self.tables
        columns = list(t.coefficients)
        if len(columns) > COLUMNS:
            raise SourceFormatError(f"{t.model}: {len(columns)} columns; at most {COLUMNS} fit")
        values = np.zeros((len(self.variable), COLUMNS), "<i4")
        given = np.zeros(len(self.variable), "<u2")
        for i, column in enumerate(columns):
            for name, value in t.coefficients[column].items():
                # Many sums of this many variables stay far inside 32 bits.
                if abs(value) > 1_000_000:
                    raise SourceFormatError(f"{t.model}: the coefficient {value / 1000} of {name}; expected below 1000")
                values[self.variable[name], i] = value
                given[self.variable[name]] |= np.uint16(1 << i)
        self.arrays["coefficient"] = values
        self.arrays["given"] = given
        self._texts("column_name", columns)

    def _outputs_of_model(self) -> list[tuple[str, str, int]]:
        """(name, column or "", divisor in thousandths) of every output, in the order they are reported."""
        if self.tables.model == "ESRD_V21":
            return list(_outputs_v21())
        if self.tables.model == "ESRD_V24":
            return list(_outputs_v24())
        return [(column, column, 0) for column in self.tables.coefficients]

    def _outputs(self) -> None:
        t = self.tables
        outputs = self._outputs_of_model()
        if len(outputs) > OUTPUTS:
            raise SourceFormatError(f"{t.model}: {len(outputs)} outputs; at most {OUTPUTS} fit")
        number = {name: i for i, (name, _, _) in enumerate(outputs)}
        columns = list(t.coefficients)
        missing = [column for _, column, _ in outputs if column and column not in columns]
        if missing:
            raise SourceFormatError(f"{t.model}: no coefficients for the column {missing[0]}")
        self.arrays["output"] = np.array(
            [(columns.index(column) if column else -1, divisor) for _, column, divisor in outputs], OUTPUT
        )
        self._texts("output_name", [name for name, _, _ in outputs])
        self._texts("output_column", [column for _, column, _ in outputs])
        addons: list[_AddOn] = []
        applicable: list[_AddOn] = []
        if t.model == "ESRD_V21":
            addons, applicable = _addons_v21()
        elif t.model == "ESRD_V24":
            addons, applicable = _addons_v24()
        rows = list(dict.fromkeys(addon.row for addon in addons))
        absent = [row for row in rows if row not in t.addons]
        if absent:
            raise SourceFormatError(f"{t.model}: no row {absent[0]} in the graft and transplant tables")
        self._texts("addon_name", rows)
        self._texts("addon_label", [t.labels.get(row, "") for row in rows])

        for name, items in (("addon", addons), ("applicable", applicable)):
            starts, of_age = [0], []
            for age in range(AGES):
                for a in items:
                    if _within(age, a.ages):
                        value, row = (t.addons[a.row], rows.index(a.row)) if name == "addon" else (0, 0)
                        of_age.append((value, number[a.output], row, a.orec, a.all, a.none, 0))
                starts.append(len(of_age))
            self.arrays[f"{name}_start"] = np.array(starts, "<u4")
            self.arrays[name] = np.array(of_age, ADDON)

    def _texts(self, name: str, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self.arrays[f"{name}_start"] = np.cumsum([0, *map(len, encoded)]).astype("<u4")
        self.arrays[f"{name}_text"] = np.frombuffer(b"".join(encoded), "u1").copy()


def _within(age: int, ages: tuple[int, int]) -> bool:
    return ages[0] <= age <= ages[1] or ages == ALL_AGES


def _set(words: Array, bit: int) -> None:
    words[bit // 64] |= np.uint64(1 << (bit % 64))


def _counts(most: int) -> Iterator[tuple[int, str]]:
    """Yield (number of payment HCCs, variable)."""
    for n in range(1, most + 1):
        yield n, f"D{n}" if n < 10 else "D10P"


def _band(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}_{'GT' if last == 127 else last}"


def _new_enrollee_bands(bands: Iterable[tuple[int, int]]) -> Iterator[tuple[str, tuple[int, int], int]]:
    """Yield (cell, ages, OREC): age 64 with OREC 0 counts as 65, with any other it stays below."""
    for first, last in bands:
        name = _band(first, last)
        if last == 64:
            yield name, (first, 63), ANY_OREC
            yield name, (64, 64), DISABLED_OREC
        else:
            yield name, (first, last), ANY_OREC
            if first == 65:
                yield name, (64, 64), OREC_0


def _people(model: str) -> Iterator[_Person]:
    """Yield the variables a model has for a member, whether or not its tables have a row for them."""
    rx, esrd = model.startswith("RXHCC"), model.startswith("ESRD")
    for sex in "FM":
        for ages in CE_BANDS:
            yield _Person(sex + _band(*ages), ages, sex)
    yield _Person("DISABL", _UNDER_65, "", DISABLED_OREC)
    yield _Person("NonAged", _UNDER_65)
    yield _Person("Aged", _FROM_65)
    yield _Person("ORIGDIS", _FROM_65, "", OREC_1)
    sexes = (("Female", "F"), ("Male", "M"))
    for name, sex in sexes:
        yield _Person(f"OriginallyDisabled_{name}", _FROM_65, sex, OREC_1)
    if rx:
        for sex in "MF":
            yield _Person(f"{sex}65OD", _FROM_65, sex, OREC_1)
        yield _Person("OD65", _FROM_65, "", OREC_1)
    elif not esrd:
        yield _Person("LTIMCAID", (0, 127), all=LTIMCAID)
    else:
        for name, sex in sexes:
            yield _Person(f"Originally_ESRD_{name}", _FROM_65, sex, OREC_2 | OREC_3)
    if model == "ESRD_V21":
        yield _Person("MCAID", (0, 127), all=MCAID)
        for name, sex in sexes:
            # By DISABL, not by age: a member of 40 with OREC 0 is "Aged" here (D6).
            yield _Person(f"MCAID_{name}_NonAged", _UNDER_65, sex, DISABLED_OREC, MCAID)
            yield _Person(f"MCAID_{name}_Aged", _UNDER_65, sex, OREC_0, MCAID)
            yield _Person(f"MCAID_{name}_Aged", _FROM_65, sex, ANY_OREC, MCAID)
    if model == "ESRD_V24":
        for ages, suffix in ((_UNDER_65, "NonAged"), (_FROM_65, "Aged")):
            yield _Person(f"LTI_{suffix}", ages, all=LTI)
            for name, sex in sexes:
                yield _Person(f"FBDual_{name}_{suffix}", ages, sex, all=FBDUAL)
                yield _Person(f"PBDual_{name}_{suffix}", ages, sex, all=PBDUAL)
    yield from _new_enrollees(model)


def _new_enrollees(model: str) -> Iterator[_Person]:
    """Yield the cells of new enrollees (section 3.3)."""
    # Status without and with the flag, the flag, middle of the name, bands, is OREC 1 below 65 "originally disabled".
    schemes: list[tuple[str, str, int, str, _Bands, bool]]
    if model.startswith("RXHCC"):
        schemes = [("NESRD", "ESRD", ESRD, "_X_", NE16_BANDS, False)]
    elif model == "ESRD_V21":
        schemes = [
            ("NMCAID", "MCAID", NEMCAID, "_NE", NE10_BANDS, True),
            ("NMCAID", "MCAID", NEMCAID, "_G_NE", NE16_BANDS, False),
        ]
    elif model == "ESRD_V24":
        schemes = [
            ("ND_PBD", "FBD", FBDUAL, "_NE", NE10_BANDS, True),
            ("ND_PBD", "FBD", FBDUAL, "_G_NE", NE16_BANDS, False),
        ]
    else:
        schemes = [("NMCAID", "MCAID", NEMCAID, "_NE", NE16_BANDS, False)]
    for without, having, flag, middle, bands, at_any_age in schemes:
        for cell, ages, orec in _new_enrollee_bands(bands):
            for sex in "FM":
                for status, all_, none in ((without, 0, flag), (having, flag, 0)):
                    if at_any_age or ages[0] >= 65:
                        yield _Person(f"{status}_ORIGDIS{middle}{sex}{cell}", ages, sex, orec & OREC_1, all_, none)
                        orec_not = orec & ~OREC_1
                    else:
                        orec_not = orec
                    yield _Person(f"{status}_NORIGDIS{middle}{sex}{cell}", ages, sex, orec_not, all_, none)


_DURATIONS: Final = ("DUR4_9", "DUR10PL")
_TRANSPLANTS: Final = tuple(f"TRANSPLANT_KIDNEY_ONLY_{n}M" for n in (1, 2, 3))
_DIVISORS: Final[Mapping[str, int]] = {"DUR4_9": 905, "DUR10PL": 698}
"""What the graft scores of new enrollees are divided by in ESRD V24, in thousandths."""


def _of_age(output: str, row: str, age: str, all_: int = 0, none: int = 0) -> list[_AddOn]:
    return [_AddOn(output, row, _FROM_65 if age == "GE65" else _UNDER_65, ANY_OREC, all_, none)]


def _of_new_enrollee_age(output: str, row: str, age: str, all_: int = 0, none: int = 0) -> list[_AddOn]:
    """Age 64 with OREC 0 counts as 65."""
    if age == "GE65":
        return [_AddOn(output, row, _FROM_65, ANY_OREC, all_, none), _AddOn(output, row, (64, 64), OREC_0, all_, none)]
    return [
        _AddOn(output, row, (0, 63), ANY_OREC, all_, none),
        _AddOn(output, row, (64, 64), DISABLED_OREC, all_, none),
    ]


def _outputs_v21() -> Iterator[tuple[str, str, int]]:
    yield "DIAL", "DIAL", 0
    yield "DIAL_NE", "DIAL_NE", 0
    for duration in _DURATIONS:
        for age in ("LT65", "GE65"):
            for kind in ("GRAFT_COMM", "GRAFT_INST", "GRAFT_NE"):
                yield f"{kind}_{duration}_{age}", kind, 0
    for name in _TRANSPLANTS:
        yield name, "", 0


def _addons_v21() -> tuple[list[_AddOn], list[_AddOn]]:
    addons = [_AddOn(name, name) for name in _TRANSPLANTS]
    applicable = [_AddOn(name, "") for name in ("DIAL", "DIAL_NE", *_TRANSPLANTS)]
    for duration in _DURATIONS:
        for age in ("LT65", "GE65"):
            row = f"{duration}_{age}"
            for kind in ("GRAFT_COMM", "GRAFT_INST", "GRAFT_NE"):
                found = (_of_new_enrollee_age if kind == "GRAFT_NE" else _of_age)(f"{kind}_{row}", row, age)
                addons += found
                applicable += found
    return addons, applicable


def _outputs_v24() -> Iterator[tuple[str, str, int]]:
    yield "DIAL", "DIAL", 0
    yield "DIAL_NE", "DIAL_NE", 0
    for age in ("GE65", "LT65"):
        for dual in ("ND_PBD", "FBD"):
            for duration in _DURATIONS:
                yield f"G_COMM_{dual}_{age}_{duration}", f"G_COMM_{dual}_{age}", 0
                yield f"GRAFT_INST_{dual}_{age}_{duration}", "GRAFT_INST", 0
                yield f"GRAFT_NE_{age}_{duration}_{dual}", "GRAFT_NE", _DIVISORS[duration]
    for name in _TRANSPLANTS:
        yield name, "", 0


def _addons_v24() -> tuple[list[_AddOn], list[_AddOn]]:
    addons = [_AddOn(name, name) for name in _TRANSPLANTS]
    applicable = [_AddOn(name, "") for name in ("DIAL", "DIAL_NE", *_TRANSPLANTS)]
    for age in ("GE65", "LT65"):
        for dual, all_, none in (("ND_PBD", 0, FBDUAL), ("FBD", FBDUAL, 0)):
            for duration in _DURATIONS:
                community = f"G_COMM_{dual}_{age}_{duration}"
                institutional = f"GRAFT_INST_{dual}_{age}_{duration}"
                new = f"GRAFT_NE_{age}_{duration}_{dual}"
                row = f"{age}_{duration}_{dual}"
                addons += _of_age(community, row, age)
                addons += _of_age(institutional, f"FGI_{row}", age)
                addons += _of_age(institutional, f"LTI_{age}", age, LTI)
                if dual == "ND_PBD":
                    addons += _of_age(community, f"PBD_{age}_flag", age, PBDUAL)
                    addons += _of_age(institutional, f"FGI_PBD_{age}_flag", age, PBDUAL)
                addons += _of_new_enrollee_age(new, row, age, all_, none)
                for output in (community, institutional):
                    applicable += _of_age(output, "", age, all_, none)
                applicable += _of_new_enrollee_age(new, "", age, all_, none)
    return addons, applicable
