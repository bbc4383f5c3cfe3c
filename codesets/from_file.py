"""Build packs from official files given by path, for the releases that no pinned source has.

What each system takes:

``msdrg``
    ``msdrg-binary-access-*.jar`` of the CMS grouper distribution, or the ``msdrg_combined.bin`` inside it. Without a
    version, every version the file holds.
``msdrg-weights``
    Table 5 of the IPPS final rule, as text or CSV. Without a release, the fiscal year that it names.
``mce``
    ``mce.bin`` of the Medicare Code Editor, or the jar it comes in. Without a release, the one the file is.
``cmshcc``
    The folder or zip of a CMS risk adjustment package of payment year 2026 or later. Its release (``v28-2027``) is
    needed only where the names of its files do not tell.
``icd10cm``
    The order file, and optionally the tabular XML for chapters, blocks and notes. Needs a release name and its days.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine import pack
from engine.errors import (
    InvalidDateError,
    InvalidFieldError,
    SourceFormatError,
    UnknownReleaseError,
    UnknownSystemError,
)

from . import build
from .catalog import Target

__all__ = ["SYSTEMS", "Given", "build_from_file"]


@dataclass(frozen=True, slots=True)
class Given:
    """What the caller gives. ``file``: the official file. ``release``: None for what the file says it is.

    ``tabular``: the tabular XML of ICD-10-CM. ``effective_from``, ``effective_to``: CCYYMMDD, inclusive; only for
    systems whose file does not tell.
    """

    file: Path
    release: str | None = None
    tabular: Path | None = None
    effective_from: int | None = None
    effective_to: int | None = None


_NAMES: Final = {
    "cmshcc": re.compile(r"[a-z0-9]+(-[a-z0-9]+)*-20\d\d", re.ASCII),
    "icd10cm": re.compile(r"20\d\d(-\d\d)?", re.ASCII),
    "mce": re.compile(r"\d{1,3}\.\d", re.ASCII),
    "msdrg": re.compile(r"\d{1,3}\.\d", re.ASCII),
    "msdrg-weights": re.compile(r"20\d\d", re.ASCII),
}
_EXAMPLES: Final = {
    "cmshcc": "v28-2027",
    "icd10cm": "2028 or 2028-04",
    "mce": "45.0",
    "msdrg": "45.0",
    "msdrg-weights": "2027",
}


@dataclass(slots=True)
class _Job:
    store: Path
    replace: bool
    progress: build.Progress | None
    total: int = 1
    done: int = 0

    def tell(self, target: Target, step: str) -> None:
        if self.progress is not None:
            self.progress(build.Event("build", target.id, self.done, self.total, step))

    def kept(self, target: Target) -> Path | None:
        """Return the pack of ``target`` if it is there and stays."""
        path = self.store / target.system / target.release
        if self.replace or not path.exists():
            return None
        pack.read_manifest(path)
        return path

    def finished(self, target: Target, path: Path, begin: float | None) -> build.BuiltPack:
        self.done += 1
        if begin is not None:
            self.tell(target, "done")
        seconds = 0.0 if begin is None else time.perf_counter() - begin
        return build.BuiltPack(target, path, begin is not None, seconds)


def build_from_file(
    system: str,
    given: Given,
    store: Path | None = None,
    *,
    replace: bool = False,
    progress: build.Progress | None = None,
) -> list[build.BuiltPack]:
    """Build the packs of ``system`` that ``given`` names and return them, oldest first.

    A pack that is there already is left alone (``built`` false) unless ``replace``.

    Raises UnknownSystemError if no file of this system can be loaded, InvalidFieldError if something is missing or not
    for this system, SourceUnavailableError, SourceFormatError, UnknownReleaseError if the file does not hold the
    release, InvalidDateError, PackCorruptError or PackIncompatibleError for a pack in the way that cannot be read.
    """
    if system not in SYSTEMS:
        raise UnknownSystemError(
            f"no official file of {system!r} can be given by path; of {', '.join(SYSTEMS)} it can.", field="system"
        )
    if given.release is not None and not _NAMES[system].fullmatch(given.release):
        raise UnknownReleaseError(
            f"{system} has no release {given.release!r}; expected a name such as {_EXAMPLES[system]}.", field="release"
        )
    if system != "icd10cm":
        for name, value in (
            ("tabular", given.tabular),
            ("effective-from", given.effective_from),
            ("effective-to", given.effective_to),
        ):
            if value is not None:
                raise InvalidFieldError(f"--{name} is for icd10cm only; the file of {system} tells.", field=name)
    store = pack.default_store() if store is None else store
    return list(_LOADERS[system](given, _Job(store, replace, progress)))


def _msdrg(given: Given, job: _Job) -> Iterator[build.BuiltPack]:
    from . import msdrg_release

    begin = time.perf_counter()
    release = msdrg_release.read_release(given.file)
    versions: Sequence[str] = release.versions if given.release is None else [given.release]
    job.total = len(versions)
    for version in versions:
        # Before anything is derived from its name: this refuses one that the file does not hold.
        tables = release.tables(version)
        target = Target("msdrg", version, tables.effective_from, tables.effective_to, False)
        path = job.kept(target)
        if path is None:
            job.tell(target, "compile")
            path = build.write_msdrg(tables, job.store, replace=job.replace)
            yield job.finished(target, path, begin)
        else:
            yield job.finished(target, path, None)
        begin = time.perf_counter()


def _weights(given: Given, job: _Job) -> Iterator[build.BuiltPack]:
    from . import drg_weights

    begin = time.perf_counter()
    tables = drg_weights.read_weights(given.file, given.release)
    target = Target(drg_weights.SYSTEM, tables.release, tables.effective_from, tables.effective_to, False)
    yield _written(job, given, target, begin, lambda: build.write_weights(tables, job.store, replace=job.replace))


def _mce(given: Given, job: _Job) -> Iterator[build.BuiltPack]:
    from engine.compile_mce import FIRST_DISCHARGE

    from . import mce

    begin = time.perf_counter()
    tables = mce.read_official(given.file)
    target = Target("mce", tables.release, FIRST_DISCHARGE, tables.termination, False)
    yield _written(job, given, target, begin, lambda: build.write_mce(tables, job.store, replace=job.replace))


def _cmshcc(given: Given, job: _Job) -> Iterator[build.BuiltPack]:
    from . import hcc

    begin = time.perf_counter()
    try:
        # What the names of the files say counts: a name given would be believed.
        tables = hcc.import_package(given.file)
    except SourceFormatError:
        if given.release is None:
            raise
        model, _, year = given.release.rpartition("-")
        tables = hcc.import_package(given.file, model.upper().replace("-", "_"), int(year))
    first = tables.payment_year * 10000 + 101
    target = Target("cmshcc", hcc.release_name(tables.model, tables.payment_year), first, first + 1130, False)
    yield _written(job, given, target, begin, lambda: build.write_hcc(tables, job.store, replace=job.replace))


def _written(job: _Job, given: Given, target: Target, begin: float, write: Callable[[], Path]) -> build.BuiltPack:
    """Write the pack of a file that holds one release."""
    if given.release not in (None, target.release):
        raise UnknownReleaseError(
            f"{given.file.name} has no {target.system} {given.release!r}; it holds {target.release}.", field="release"
        )
    path = job.kept(target)
    if path is not None:
        return job.finished(target, path, None)
    job.tell(target, "compile")
    return job.finished(target, write(), begin)


def _icd10cm(given: Given, job: _Job) -> Iterator[build.BuiltPack]:
    from . import icd10cm

    if given.release is None:
        raise InvalidFieldError("an order file does not name its release: give icd10cm/RELEASE.", field="release")
    days = {"effective-from": given.effective_from, "effective-to": given.effective_to}
    missing = [f"--{name}" for name, day in days.items() if day is None]
    if given.effective_from is None or given.effective_to is None:
        raise InvalidFieldError(
            f"an order file does not tell the days it is for: {' and '.join(missing)} is missing.",
            field=missing[0].removeprefix("--"),
        )
    for name, day in days.items():
        _check_day(name, day or 0)
    if given.effective_to < given.effective_from:
        raise InvalidFieldError(
            f"--effective-to {given.effective_to} is before --effective-from {given.effective_from}.",
            field="effective-to",
        )
    begin = time.perf_counter()
    target = Target("icd10cm", given.release, given.effective_from, given.effective_to, False)
    path = job.kept(target)
    if path is not None:
        yield job.finished(target, path, None)
        return
    job.tell(target, "import")
    tables = icd10cm.import_release(
        given.file,
        given.tabular,
        release=given.release,
        effective_from=given.effective_from,
        effective_to=given.effective_to,
    )
    job.tell(target, "compile")
    path = build.write_tables(tables, job.store, replace=job.replace)
    yield job.finished(target, path, begin)


def _check_day(name: str, day: int) -> None:
    try:
        datetime.date(day // 10000, day // 100 % 100, day % 100)
    except ValueError:
        raise InvalidDateError(f"--{name}: expected a day (CCYYMMDD), got {day}", field=name) from None


_LOADERS: Final[dict[str, Callable[[Given, _Job], Iterator[build.BuiltPack]]]] = {
    "cmshcc": _cmshcc,
    "icd10cm": _icd10cm,
    "mce": _mce,
    "msdrg": _msdrg,
    "msdrg-weights": _weights,
}
SYSTEMS: Final = tuple(_LOADERS)
"""Systems whose official files can be given by path."""
