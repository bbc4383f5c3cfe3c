"""The set of packs in a store: which release answers for a system and a date.

Contract
--------
* Opening a library reads manifests only. A pack is verified and mapped when it is first needed, once, under a lock; ``verify="now"``
  does that for all of them at once.
* A library is a snapshot: packs published later are not in it. To reload, open another one and swap the reference. Results and
  code systems of the old one stay good as long as they are referenced.
* A release that cannot be opened is listed in ``unusable`` and raises its error when asked for; the others answer.
* Everything may be shared between threads.
"""

from __future__ import annotations

import datetime
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from . import _core
from .codes import Codes, CodeInfo, CodeSystem, Date, Subsumption, Validation
from .errors import (
    CodesetError,
    DateOutsideCoverageError,
    InvalidDateError,
    InvalidFieldError,
    PackNotFoundError,
    UnknownReleaseError,
    UnknownSystemError,
    UnknownVersionError,
)
from .pack import FileEntry, Manifest, default_store, iter_manifests, open_pack
from .tables import Source

if TYPE_CHECKING:
    from .drg import Claim, DrgResult, DrgResults, GroupingOptions, MsdrgGrouper

__all__ = ["SYSTEM_URIS", "Library", "ReleaseInfo", "open"]

SYSTEM_URIS: Mapping[str, str] = {
    "http://hl7.org/fhir/sid/icd-10-cm": "icd10cm",
    "urn:oid:2.16.840.1.113883.6.90": "icd10cm",
    "http://www.cms.gov/Medicare/Coding/ICD10": "icd10pcs",
    "http://hl7.org/fhir/sid/icd-10-pcs": "icd10pcs",
    "urn:oid:2.16.840.1.113883.6.4": "icd10pcs",
}
"""Canonical URIs of code systems (FHIR terminology) to the system ids used here."""

GROUPER = "msdrg"


@dataclass(frozen=True, slots=True)
class ReleaseInfo:
    """One release in a library, from its manifest.

    ``effective_from``/``effective_to``: CCYYMMDD, inclusive, the days the release answers for. ``kind``: ``codes`` or ``msdrg``. ``sources``:
    where its tables came from. ``facts``: figures of its build. ``files``: name to size, checksum, dtype and shape. ``path``: its
    directory.
    """

    path: Path
    manifest: Manifest

    @property
    def id(self) -> str:
        """``system/release``."""
        return self.manifest.id

    @property
    def system(self) -> str:
        """System id."""
        return self.manifest.system

    @property
    def release(self) -> str:
        """Release name; the version of a grouper."""
        return self.manifest.release

    @property
    def kind(self) -> str:
        """What the pack holds: ``codes`` or ``msdrg``."""
        return self.manifest.kind

    @property
    def effective_from(self) -> int:
        """First day it answers for."""
        return self.manifest.effective_from

    @property
    def effective_to(self) -> int:
        """Last day it answers for."""
        return self.manifest.effective_to

    @property
    def sources(self) -> tuple[Source, ...]:
        """Where its tables came from."""
        return self.manifest.sources

    @property
    def facts(self) -> Mapping[str, Any]:
        """Figures and origins of its build."""
        return self.manifest.facts

    @property
    def files(self) -> Mapping[str, FileEntry]:
        """Its files by name."""
        return self.manifest.files

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return self.manifest.size


def open(  # noqa: A001 - `engine.open` is the name to be read at the call
    store: Path | str | None = None,
    *,
    releases: Iterable[str] | None = None,
    verify: Literal["lazy", "now"] = "lazy",
) -> Library:
    """Open the packs in ``store``; see ``Library``."""
    return Library(store, releases=releases, verify=verify)


class Library:
    """The releases in a store.

    ``store``: directory of packs; None: ``engine.pack.default_store()``. ``releases``: only these, each ``system/release`` or a ``system`` for
    all of its releases; None: everything there is. ``verify``: "lazy" opens a pack when it is first needed, "now" opens all and lists those
    that fail in ``unusable``.

    Raises PackNotFoundError if the store has no packs, UnknownSystemError or UnknownReleaseError if it has none that ``releases``
    names, and PackCorruptError or PackIncompatibleError if not a single pack is usable.
    """

    def __init__(
        self,
        store: Path | str | None = None,
        *,
        releases: Iterable[str] | None = None,
        verify: Literal["lazy", "now"] = "lazy",
    ) -> None:
        self.store = default_store() if store is None else Path(store)
        if verify not in ("lazy", "now"):
            raise InvalidFieldError(f"verify: expected 'lazy' or 'now', got {verify!r}", field="verify")
        self._lock = threading.RLock()
        self._opened: dict[str, CodeSystem | MsdrgGrouper] = {}
        self._failed: dict[str, tuple[Path, CodesetError]] = {}
        found: dict[str, list[ReleaseInfo]] = {}
        for path, manifest in iter_manifests(self.store):
            if isinstance(manifest, Manifest):
                found.setdefault(manifest.system, []).append(ReleaseInfo(path, manifest))
            else:
                self._failed[f"{path.parent.name}/{path.name}"] = (path, manifest)
        if not found and not self._failed:
            raise PackNotFoundError(
                f"no packs in {self.store}. Make them with `codeset-engine build`, or name another directory "
                "(argument store, option --store, or $CODESET_ENGINE_PACKS)."
            )
        for infos in found.values():
            infos.sort(key=lambda info: (info.effective_from, info.effective_to, info.release))
        self._systems = found if releases is None else self._chosen(found, releases)
        if verify == "now":
            self._open_all()
        if not self._systems and self._failed:
            raise next(iter(self._failed.values()))[1]

    def _chosen(self, found: Mapping[str, list[ReleaseInfo]], specs: Iterable[str]) -> dict[str, list[ReleaseInfo]]:
        if isinstance(specs, str):
            raise InvalidFieldError(f"releases: expected a list of system/release, got {specs!r}", field="releases")
        wanted: set[str] = set()
        for spec in specs:
            system, slash, release = spec.partition("/")
            ids = [info.id for info in found.get(system, ())]
            failed = [name for name in self._failed if name == spec or (not slash and name.startswith(f"{system}/"))]
            if not ids and not failed:
                raise UnknownSystemError(
                    f"no system {system!r} in {self.store}; there is {_listed(sorted(found))}.", field="system"
                )
            if slash and spec not in ids and not failed:
                raise UnknownReleaseError(self._no_release(system, release, found.get(system, ())), field="release")
            wanted.update([spec] if slash else ids, failed)
        self._failed = {name: failure for name, failure in self._failed.items() if name in wanted}
        chosen = {system: [info for info in infos if info.id in wanted] for system, infos in found.items()}
        return {system: infos for system, infos in chosen.items() if infos}

    def _open_all(self) -> None:
        for system, infos in list(self._systems.items()):
            usable = []
            for info in infos:
                try:
                    self._open(info)
                    usable.append(info)
                except CodesetError:
                    # Recorded in _failed; the others are opened.
                    continue
            if usable:
                self._systems[system] = usable
            else:
                del self._systems[system]

    def __repr__(self) -> str:
        count = sum(map(len, self._systems.values()))
        return f"<Library {self.store}: {count} releases of {', '.join(sorted(self._systems))}>"

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the opened packs. What was handed out stays good; asking again opens them again."""
        with self._lock:
            self._opened = {}

    # --- what there is

    @property
    def unusable(self) -> list[tuple[Path, CodesetError]]:
        """Packs that could not be read or opened so far, with their errors."""
        return list(self._failed.values())

    def releases(self, system: str | None = None) -> list[ReleaseInfo]:
        """Return the releases of ``system`` (id or URI), or of all systems, by system and first day. Raises UnknownSystemError."""
        if system is not None:
            return list(self._infos(system))
        return [info for name in sorted(self._systems) for info in self._systems[name]]

    def release(self, system: str, *, release: str | None = None, date: Date | None = None) -> ReleaseInfo:
        """Return the release that answers: the one named, else the one whose days contain ``date``, else today's or the newest.

        Raises UnknownSystemError, UnknownReleaseError, InvalidDateError or DateOutsideCoverageError. A release and a date together mean
        the release, whatever the date.
        """
        return self._select(system, release, date)[0]

    # --- code systems

    def code_system(
        self, system: str, *, release: str | None = None, date: Date | None = None
    ) -> CodeSystem:
        """Return the release of a code system that ``release`` chooses, opened. Its default date is ``date``; without
        one, the day that chose it.

        Raises what ``release`` raises, and PackCorruptError or PackIncompatibleError if its pack cannot be used.
        """
        info, day = self._select(system, release, date)
        opened = self._code_system(info)
        return opened if day == opened.date else opened.on(day)


    def validate(
        self, system: str, code: str | bytes, *, date: Date | None = None, release: str | None = None
    ) -> Validation:
        """Return whether ``code`` may be reported on ``date``; see ``CodeSystem.validate``, errors also as of ``code_system``."""
        info, day = self._select(system, release, date)
        return self._code_system(info).validate(code, day)

    def validate_many(
        self, system: str, codes: Codes, *, date: Date | None = None, release: str | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return the Status number of each code; see ``CodeSystem.validate_many``, errors also as of ``code_system``."""
        info, day = self._select(system, release, date)
        return self._code_system(info).validate_many(codes, day)

    def lookup(
        self,
        system: str,
        code: str | bytes,
        *,
        kind: str | None = None,
        date: Date | None = None,
        release: str | None = None,
    ) -> CodeInfo:
        """Return the node of ``code``; see ``CodeSystem.lookup``, errors also as of ``code_system``."""
        return self.code_system(system, release=release, date=date).lookup(code, kind)

    def subsumes(
        self, system: str, a: str | bytes, b: str | bytes, *, date: Date | None = None, release: str | None = None
    ) -> Subsumption:
        """Return how ``a`` stands to ``b``; see ``CodeSystem.subsumes``, errors also as of ``code_system``."""
        return self.code_system(system, release=release, date=date).subsumes(a, b)

    # --- groupers

    def drg_grouper(self, version: str | None = None, date: Date | None = None) -> MsdrgGrouper:
        """Return an MS-DRG version, opened: the one named ("43.1"), else the one for discharges on ``date``, else today's or the newest.

        Raises UnknownVersionError, InvalidDateError, DateOutsideCoverageError, UnknownSystemError if no grouper is loaded, and
        PackCorruptError or PackIncompatibleError if its pack cannot be used.
        """
        from .drg import MsdrgGrouper

        try:
            info, _ = self._select(GROUPER, version or None, date)
        except UnknownReleaseError as error:
            raise UnknownVersionError(str(error), field="version") from None
        opened = self._open(info)
        assert isinstance(opened, MsdrgGrouper)
        return opened

    def group_drg(self, claim: Claim, options: GroupingOptions | None = None) -> DrgResult:
        """Group one claim. What is wrong with it is the result's ``error``; see ``group_drg_many``."""
        return self.group_drg_many([claim], options)[0]

    def group_drg_many(self, claims: Iterable[Claim], options: GroupingOptions | None = None) -> DrgResults:
        """Group claims; answers come in their order, each with the version that gave it or the error that kept it.

        A claim's ``version`` decides, without one its ``discharge_date``. Raises InvalidFieldError if ``claims`` is no iterable of claims.
        """
        from .drg import group_many

        return group_many(claims, self._grouper_for, options)

    def _grouper_for(self, version: str, discharge_date: int) -> MsdrgGrouper:
        if version:
            return self.drg_grouper(version)
        if not discharge_date:
            raise InvalidDateError(
                "discharge_date: expected a day (CCYYMMDD) or a version to group with, got neither",
                field="discharge_date",
            )
        try:
            return self.drg_grouper(date=discharge_date)
        except (InvalidDateError, DateOutsideCoverageError) as error:
            raise type(error)(f"discharge_date: {error}", field="discharge_date") from None

    # --- selection

    def _infos(self, system: str) -> list[ReleaseInfo]:
        name = SYSTEM_URIS.get(system, system) if isinstance(system, str) else system
        infos = self._systems.get(name) if isinstance(name, str) else None
        if infos is None:
            broken = [error for key, (_, error) in self._failed.items() if key.startswith(f"{name}/")]
            if broken:
                raise broken[0]
            raise UnknownSystemError(
                f"system {system!r} is not loaded; there is {_listed(sorted(self._systems))}. "
                f"`codeset-engine build {name}` makes packs of a system that has a source.",
                field="system",
            )
        return infos

    def _select(self, system: str, release: str | None, date: Date | None) -> tuple[ReleaseInfo, int]:
        """Return the release and the day that is meant."""
        infos = self._infos(system)
        day = None if date is None else _core.as_date(date)
        if release is not None:
            for info in infos:
                if info.release == release:
                    return info, day or info.effective_from
            failed = self._failed.get(f"{infos[0].system}/{release}")
            if failed:
                raise failed[1]
            raise UnknownReleaseError(self._no_release(infos[0].system, release, infos), field="release")
        if day is not None:
            covering = _covering(infos, day)
            if covering is None:
                raise DateOutsideCoverageError(
                    f"no loaded release of {infos[0].system} covers {day}; loaded are {_spans(infos)}. "
                    + self._hint(infos[0].system),
                    field="date",
                )
            return covering, day
        today = int(datetime.date.today().strftime("%Y%m%d"))
        covering = _covering(infos, today)
        return (covering, today) if covering else (infos[-1], infos[-1].effective_from)

    def _no_release(self, system: str, release: object, infos: Iterable[ReleaseInfo]) -> str:
        names = _listed([info.release for info in infos])
        return f"{system} has no release {release!r} here; there is {names}. {self._hint(system)}"

    def _hint(self, system: str) -> str:
        broken = [name for name in self._failed if name.startswith(f"{system}/")]
        text = "`codeset-engine build --all` makes every release there is a source for."
        return text + (f" Unusable: {_listed(broken)} (`codeset-engine verify` says why)." if broken else "")

    def _code_system(self, info: ReleaseInfo) -> CodeSystem:
        opened = self._opened.get(info.id) or self._open(info)
        if not isinstance(opened, CodeSystem):
            codes = sorted(name for name, infos in self._systems.items() if infos[0].kind == "codes")
            raise UnknownSystemError(
                f"{info.system} is a grouper, not a code system; there is {_listed(codes)}.", field="system"
            )
        return opened

    def _open(self, info: ReleaseInfo) -> CodeSystem | MsdrgGrouper:
        # One reader of an unlocked dict is safe; two openers of one pack would be waste.
        opened = self._opened.get(info.id)
        if opened is not None:
            return opened
        with self._lock:
            if info.id in self._opened:
                return self._opened[info.id]
            if info.id in self._failed:
                raise self._failed[info.id][1]
            try:
                opened = self._opened[info.id] = _open_by_kind(info)
            except CodesetError as error:
                self._failed[info.id] = (info.path, error)
                raise
            return opened


def _open_by_kind(info: ReleaseInfo) -> CodeSystem | MsdrgGrouper:
    pack = open_pack(info.path)
    if pack.manifest != info.manifest:
        raise PackNotFoundError(
            f"{info.id} in {info.path} was replaced since this library was opened. Open the library again."
        )
    if info.kind == "codes":
        return CodeSystem(pack)
    if info.kind == "msdrg":
        from .drg import MsdrgGrouper

        return MsdrgGrouper(pack)
    raise UnknownSystemError(
        f"{info.id} is a pack of kind {info.kind!r}, which this version of the engine cannot open; "
        "it opens codes and msdrg. Use the version that built it.",
        field="system",
    )


def _covering(infos: list[ReleaseInfo], day: int) -> ReleaseInfo | None:
    at = bisect_right(infos, day, key=lambda info: info.effective_from) - 1
    return infos[at] if at >= 0 and day <= infos[at].effective_to else None


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"


def _spans(infos: list[ReleaseInfo]) -> str:
    """Name the days covered, as few stretches as they make."""
    spans: list[list[int]] = []
    for info in infos:
        if spans and _core.day_number(info.effective_from) <= _core.day_number(spans[-1][1]) + 1:
            spans[-1][1] = max(spans[-1][1], info.effective_to)
        else:
            spans.append([info.effective_from, info.effective_to])
    return ", ".join(f"{first} to {last}" for first, last in spans)
