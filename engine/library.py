"""The set of packs in a store: which release answers for a system and a date.

Contract
--------
* Opening a library reads manifests only. A pack is verified and mapped when it is first needed, once, under
  a lock; ``verify="now"`` does that for all of them at once.
* A library is a snapshot: packs published later are not in it. To reload, make its successor (``Library.reloaded``)
  and swap the reference. Results and code systems of the old one stay good as long as they are referenced.
* A release that cannot be opened is listed in ``unusable`` and raises its error when asked for; the others
  answer.
* Everything may be shared between threads.
"""

from __future__ import annotations

import contextlib
import datetime
import threading
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from . import _core
from .codes import CodeInfo, Codes, CodeSystem, Date, Subsumption, Validation
from .drg import Claim, DrgResult, DrgResults, GroupingOptions, MsdrgGrouper, group_many
from .errors import (
    CodesetError,
    DateOutsideCoverageError,
    InvalidDateError,
    InvalidFieldError,
    PackNotFoundError,
    UnknownModelError,
    UnknownReleaseError,
    UnknownSystemError,
    UnknownVersionError,
)
from .hcc import HccDetail, HccResult, HccResults, HccScorer, Member, ScoringOptions, score_many
from .mce import EditedAndGrouped, EditingOptions, EditResult, EditResults, MceEditor, edit_and_group_many, edit_many
from .pack import FileEntry, Manifest, Pack, default_store, iter_manifests, open_pack
from .tables import Source
from .weights import DrgWeights

if TYPE_CHECKING:
    from .explain import Explanation

__all__ = ["SYSTEM_URIS", "Library", "ReleaseInfo", "open", "open_release"]

SYSTEM_URIS: Mapping[str, str] = {
    "http://hl7.org/fhir/sid/icd-10-cm": "icd10cm",
    "urn:oid:2.16.840.1.113883.6.90": "icd10cm",
    "http://www.cms.gov/Medicare/Coding/ICD10": "icd10pcs",
    "http://hl7.org/fhir/sid/icd-10-pcs": "icd10pcs",
    "urn:oid:2.16.840.1.113883.6.4": "icd10pcs",
    "http://hl7.org/fhir/sid/icd-9-cm": "icd9cm",
    "urn:oid:2.16.840.1.113883.6.103": "icd9cm",
    "urn:oid:2.16.840.1.113883.6.104": "icd9proc",
}
"""Canonical URIs of code systems (FHIR terminology) to the system ids used here."""

GROUPER = "msdrg"
EDITOR = "mce"
HCC = "cmshcc"
WEIGHTS = "msdrg-weights"


@dataclass(frozen=True, slots=True)
class ReleaseInfo:
    """One release in a library, from its manifest.

    ``effective_from``/``effective_to``: CCYYMMDD, inclusive, the days the release answers for. ``kind``:
    ``codes``, ``msdrg``, ``mce``, ``hcc`` or ``weights``. ``sources``: where its tables came from. ``facts``: figures
    of its build. ``files``: name to size, checksum, dtype and shape. ``path``: its directory.
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
        """What the pack holds: ``codes``, ``msdrg``, ``mce``, ``hcc`` or ``weights``."""
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


def open(
    store: Path | str | None = None,
    *,
    releases: Iterable[str] | None = None,
    verify: Literal["lazy", "now"] = "lazy",
) -> Library:
    """Open the packs in ``store``; see ``Library``."""
    return Library(store, releases=releases, verify=verify)


Opened = CodeSystem | MsdrgGrouper | MceEditor | HccScorer | DrgWeights
"""What a pack opens to."""


def open_release(pack: Pack, weights: DrgWeights | None = None) -> Opened:
    """Return what the verified ``pack`` holds. ``weights``: those of a grouper's year.

    Raises PackCorruptError if it cannot be read safely, UnknownSystemError if its kind is none that this version knows.
    """
    manifest = pack.manifest
    if manifest.kind == "codes":
        return CodeSystem(pack)
    if manifest.kind == "msdrg":
        return MsdrgGrouper(pack, weights)
    if manifest.kind == "hcc":
        return HccScorer(pack)
    if manifest.kind == "mce":
        return MceEditor(pack)
    if manifest.kind == "weights":
        return DrgWeights(pack)
    raise UnknownSystemError(
        f"{manifest.id} is a pack of kind {manifest.kind!r}, which this version of the engine cannot open; "
        "it opens codes, msdrg, mce, hcc and weights. Use the version that built it.",
        field="system",
    )


class _Release:
    """A release and, once it was needed, what its pack opened to."""

    __slots__ = ("first", "info", "last", "opened")

    def __init__(self, info: ReleaseInfo) -> None:
        self.info = info
        self.first = info.effective_from
        self.last = info.effective_to
        self.opened: Opened | None = None


class _Releases:
    """The releases of one system, by their first day."""

    __slots__ = ("all", "by_name", "firsts", "system")

    def __init__(self, system: str, releases: Iterable[_Release]) -> None:
        self.system = system
        self.all = sorted(releases, key=lambda release: (release.first, release.last, release.info.release))
        self.firsts = [release.first for release in self.all]
        self.by_name = {release.info.release: release for release in self.all}

    def covering(self, day: int) -> _Release | None:
        at = bisect_right(self.firsts, day) - 1
        return self.all[at] if at >= 0 and day <= self.all[at].last else None

    def spans(self) -> str:
        """Name the days covered, as few stretches as they make."""
        spans: list[list[int]] = []
        for release in self.all:
            if spans and _core.day_number(release.first) <= _core.day_number(spans[-1][1]) + 1:
                spans[-1][1] = max(spans[-1][1], release.last)
            else:
                spans.append([release.first, release.last])
        return ", ".join(f"{first} to {last}" for first, last in spans)


class Library:
    """The releases in a store.

    ``store``: directory of packs; None: ``engine.pack.default_store()``. ``releases``: only these, each
    ``system/release`` or a ``system`` for all of its releases; None: everything there is. ``verify``:
    "lazy" opens a pack when it is first needed, "now" opens all and lists those that fail in ``unusable``.

    Raises PackNotFoundError if the store has no packs, UnknownSystemError or UnknownReleaseError if it has
    none that ``releases`` names, and PackCorruptError or PackIncompatibleError if not a single pack is
    usable.
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
        self._specs = None if releases is None or isinstance(releases, str) else (releases := tuple(releases))
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
        if releases is not None:
            found = self._chosen(found, releases)
        self._systems = {system: _Releases(system, map(_Release, found[system])) for system in sorted(found)}
        if verify == "now":
            self._open_all()
        if not self._systems and self._failed:
            raise next(iter(self._failed.values()))[1]

    def _chosen(self, found: dict[str, list[ReleaseInfo]], specs: Iterable[str]) -> dict[str, list[ReleaseInfo]]:
        if isinstance(specs, str):
            raise InvalidFieldError(f"releases: expected a list of system/release, got {specs!r}", field="releases")
        wanted: set[str] = set()
        for spec in specs:
            system, slash, release = spec.partition("/")
            system = SYSTEM_URIS.get(system, system)
            ids = [info.id for info in found.get(system, ())]
            failed = [name for name in self._failed if name == spec or (not slash and name.startswith(f"{system}/"))]
            if not ids and not failed:
                raise UnknownSystemError(
                    f"no system {system!r} in {self.store}; there is {_listed(sorted(found))}.",
                    field="system",
                )
            if slash and spec not in ids and not failed:
                names = [info.release for info in found[system]]
                raise UnknownReleaseError(self._no_release(system, release, names), field="release")
            wanted.update([spec] if slash else ids, failed)
        self._failed = {name: failure for name, failure in self._failed.items() if name in wanted}
        chosen = {system: [info for info in infos if info.id in wanted] for system, infos in found.items()}
        return {system: infos for system, infos in chosen.items() if infos}

    def _open_all(self) -> None:
        for system, releases in list(self._systems.items()):
            usable = []
            for release in releases.all:
                try:
                    self._open(release)
                    usable.append(release)
                except CodesetError:
                    # Recorded in _failed; the others are opened.
                    continue
            if usable:
                self._systems[system] = _Releases(system, usable)
            else:
                del self._systems[system]

    def reloaded(self, *, forget: bool = False) -> Library:
        """Return a library of what the same store has now, by the same choice of releases. This one stays as it is.

        Packs that are as they were are shared with this one, not opened again. All others are verified and opened. One
        that cannot be used is in ``unusable``; if an earlier pack of that release is open here, it goes on answering.
        A release that is open here and no longer in the store goes on answering too, unless ``forget``.

        Raises what ``Library`` raises.
        """
        new = Library(self.store, releases=self._specs)
        before = {release.info.id: release for releases in self._systems.values() for release in releases.all}
        now = {release.info.id: release for releases in new._systems.values() for release in releases.all}
        weights = [
            {id_: release.info.manifest for id_, release in releases.items() if release.info.system == WEIGHTS}
            for releases in (before, now)
        ]
        for id_, release in now.items():
            old = before.get(id_)
            # A grouper has the weights with it.
            if (
                old is not None
                and old.info.manifest == release.info.manifest
                and (release.info.system != GROUPER or weights[0] == weights[1])
            ):
                release.opened = old.opened
                if old.opened is None:
                    # Not needed so far, and nothing new.
                    continue
            with contextlib.suppress(CodesetError):
                new._open(release)
        answering = {id_: release for id_, release in now.items() if id_ not in new._failed}
        for id_, old in before.items():
            if id_ not in answering and old.opened is not None and (id_ in new._failed or not forget):
                answering[id_] = old
        by_system: dict[str, list[_Release]] = {}
        for release in answering.values():
            by_system.setdefault(release.info.system, []).append(release)
        new._systems = {system: _Releases(system, by_system[system]) for system in sorted(by_system)}
        if not new._systems and new._failed:
            raise next(iter(new._failed.values()))[1]
        return new

    def __repr__(self) -> str:
        count = sum(len(releases.all) for releases in self._systems.values())
        return f"<Library {self.store}: {count} releases of {', '.join(self._systems)}>"

    def __enter__(self) -> Library:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget the opened packs. What was handed out stays good; asking again opens them again."""
        with self._lock:
            for releases in self._systems.values():
                for release in releases.all:
                    release.opened = None

    # --- what there is

    @property
    def unusable(self) -> list[tuple[Path, CodesetError]]:
        """Packs that could not be read or opened so far, with their errors."""
        return list(self._failed.values())

    def releases(self, system: str | None = None) -> list[ReleaseInfo]:
        """Return the releases of ``system`` (id or URI), or of all systems, by system and first day. Raises
        UnknownSystemError.
        """
        if system is not None:
            return [release.info for release in self._releases(system).all]
        return [release.info for releases in self._systems.values() for release in releases.all]

    def release(self, system: str, *, release: str | None = None, date: Date | None = None) -> ReleaseInfo:
        """Return the release that answers: the one named, else the one whose days contain ``date``, else
        today's or the newest.

        Raises UnknownSystemError, UnknownReleaseError, InvalidDateError or DateOutsideCoverageError. A
        release and a date together mean the release, whatever the date.
        """
        return self._select(system, release, date)[0].info

    # --- code systems

    def code_system(self, system: str, *, release: str | None = None, date: Date | None = None) -> CodeSystem:
        """Return the release of a code system that ``release`` chooses, opened. Its default date is
        ``date``; without one, the day that chose it.

        Raises what ``release`` raises, and PackCorruptError or PackIncompatibleError if its pack cannot be
        used.
        """
        chosen, day = self._select(system, release, date)
        opened = self._code_system(chosen)
        return opened if day == opened.date else opened.on(day)

    def validate(
        self, system: str, code: str | bytes, *, date: Date | None = None, release: str | None = None
    ) -> Validation:
        """Return whether ``code`` may be reported on ``date``; see ``CodeSystem.validate``, errors also as
        of ``code_system``.
        """
        chosen, day = self._select(system, release, date)
        return self._code_system(chosen).validate(code, day)

    def validate_many(
        self, system: str, codes: Codes, *, date: Date | None = None, release: str | None = None
    ) -> npt.NDArray[np.uint8]:
        """Return the Status number of each code; see ``CodeSystem.validate_many``, errors also as of
        ``code_system``.
        """
        chosen, day = self._select(system, release, date)
        return self._code_system(chosen).validate_many(codes, day)

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
        self,
        system: str,
        a: str | bytes,
        b: str | bytes,
        *,
        date: Date | None = None,
        release: str | None = None,
    ) -> Subsumption:
        """Return how ``a`` stands to ``b``; see ``CodeSystem.subsumes``, errors as of ``code_system``."""
        return self.code_system(system, release=release, date=date).subsumes(a, b)

    # --- groupers

    def drg_grouper(self, version: str | None = None, date: Date | None = None) -> MsdrgGrouper:
        """Return an MS-DRG version, opened: the one named ("43.1"), else the one for discharges on
        ``date``, else today's or the newest.

        Raises UnknownVersionError, InvalidDateError, DateOutsideCoverageError, UnknownSystemError if no
        grouper is loaded, and PackCorruptError or PackIncompatibleError if its pack cannot be used.
        """
        try:
            chosen, _ = self._select(GROUPER, version or None, date)
        except UnknownReleaseError as error:
            raise UnknownVersionError(str(error), field="version") from None
        opened = chosen.opened if chosen.opened is not None else self._open(chosen)
        assert isinstance(opened, MsdrgGrouper)
        return opened

    def drg_weights(self, release: str | None = None, date: Date | None = None) -> DrgWeights:
        """Return the MS-DRG weights of a fiscal year, opened: the one named ("2026"), else the one of ``date``, else
        today's or the newest. They are also the ``weight`` of groupings by the versions of that year.

        Raises UnknownSystemError if no weights are loaded, UnknownReleaseError, InvalidDateError,
        DateOutsideCoverageError, and PackCorruptError or PackIncompatibleError if the pack cannot be used.
        """
        chosen, _ = self._select(WEIGHTS, release or None, date)
        opened = chosen.opened if chosen.opened is not None else self._open(chosen)
        assert isinstance(opened, DrgWeights)
        return opened

    def group_drg(self, claim: Claim, options: GroupingOptions | None = None) -> DrgResult:
        """Group one claim. What is wrong with it is the result's ``error``; see ``group_drg_many``."""
        return self.group_drg_many([claim], options)[0]

    def group_drg_many(self, claims: Iterable[Claim], options: GroupingOptions | None = None) -> DrgResults:
        """Group claims; answers come in their order, each with the version that gave it or the error that
        kept it.

        A claim's ``version`` decides, without one its ``discharge_date``. Raises InvalidFieldError if
        ``claims`` is no iterable of claims.
        """
        return group_many(claims, self.claim_grouper, options)

    def explain_drg(self, claim: Claim, options: GroupingOptions | None = None) -> Explanation:
        """Group one claim and explain the answer: the walk through the lists, what counted, and what each
        code's removal would change. What is wrong with it is the ``error`` of the explanation's ``result``.
        """
        from .explain import explain

        return explain(claim, self.claim_grouper, options)

    def claim_grouper(self, version: str, discharge_date: int) -> MsdrgGrouper:
        """Return the MS-DRG version, opened, for a claim with these fields: the date (CCYYMMDD) decides where the
        version is empty.

        Raises what ``drg_grouper`` raises, and InvalidDateError if the claim has neither.
        """
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

    # --- the code editor

    def mce_editor(self, release: str | None = None) -> MceEditor:
        """Return a release of the Medicare Code Editor, opened: the one named ("43.1"), else the newest.

        Raises UnknownReleaseError, UnknownSystemError if no editor is loaded, and PackCorruptError or
        PackIncompatibleError if its pack cannot be used.
        """
        if release:
            try:
                chosen, _ = self._select(EDITOR, release, None)
            except UnknownReleaseError as error:
                raise UnknownReleaseError(str(error), field="editor_release") from None
        else:
            # One release edits all dates up to its last: today's is not asked.
            chosen = max(self._releases(EDITOR).all, key=lambda found: found.last)
        opened = chosen.opened if chosen.opened is not None else self._open(chosen)
        assert isinstance(opened, MceEditor)
        return opened

    def edit_claim(self, claim: Claim, options: EditingOptions | None = None) -> EditResult:
        """Edit one claim. What is wrong with it is the result's ``error``; see ``edit_claims_many``."""
        return self.edit_claims_many([claim], options)[0]

    def edit_claims_many(self, claims: Iterable[Claim], options: EditingOptions | None = None) -> EditResults:
        """Edit claims with the release that ``options.editor_release`` names, else the newest; answers come in their
        order, each with what was found or the error that kept it.

        Raises what ``mce_editor`` raises, and InvalidFieldError if ``claims`` is no iterable of claims or an option
        is none.
        """
        editor = self.mce_editor(options.editor_release if options is not None else None)
        return edit_many(claims, editor, options)

    def edit_and_group_many(
        self,
        claims: Iterable[Claim],
        editing: EditingOptions | None = None,
        grouping: GroupingOptions | None = None,
    ) -> EditedAndGrouped:
        """Edit and group claims: pairs of answers in their order. Each of a pair is what ``edit_claims_many`` and
        ``group_drg_many`` answer, with an error of its own; an edit keeps no claim from being grouped.

        Raises what those two raise.
        """
        editor = self.mce_editor(editing.editor_release if editing is not None else None)
        return edit_and_group_many(claims, editor, self.claim_grouper, editing, grouping)

    # --- risk scores

    def hcc_scorer(self, model: str, payment_year: int) -> HccScorer:
        """Return a risk adjustment model ("V28", "ESRD_V24", "RXHCC_V08_T") for a payment year, opened.

        Raises UnknownModelError, UnknownReleaseError if the model is there for other years only, UnknownSystemError if
        no model is loaded, and PackCorruptError or PackIncompatibleError if its pack cannot be used.
        """
        name = model.lower().replace("_", "-") if isinstance(model, str) else ""
        try:
            chosen, _ = self._select(HCC, f"{name}-{payment_year}", None)
        except UnknownReleaseError:
            releases = [release.rpartition("-") for release in self._releases(HCC).by_name]
            years = [year for of, _, year in releases if of == name]
            if years:
                raise UnknownReleaseError(
                    f"payment_year: {model} is loaded for {_listed(sorted(years))}, not {payment_year}. "
                    f"{self._hint(HCC)}",
                    field="payment_year",
                ) from None
            models = sorted({of.upper().replace("-", "_") for of, _, _ in releases})
            raise UnknownModelError(
                f"model: expected one of {_listed(models)}, got {model!r:.40}. {self._hint(HCC)}", field="model"
            ) from None
        opened = chosen.opened if chosen.opened is not None else self._open(chosen)
        assert isinstance(opened, HccScorer)
        return opened

    def score_hcc(self, member: Member, options: ScoringOptions | None = None) -> HccResult:
        """Score one member. What is wrong with it is the result's ``error``; see ``score_hcc_many``."""
        return self.score_hcc_many([member], options)[0]

    def score_hcc_many(self, members: Iterable[Member], options: ScoringOptions | None = None) -> HccResults:
        """Score members; answers come in their order, each with every segment of its model, or the error that kept it.

        Raises InvalidFieldError if ``members`` is no iterable of members or an option is impossible.
        """
        return score_many(members, self.hcc_scorer, options)

    def explain_hcc(self, member: Member, options: ScoringOptions | None = None) -> HccResult:
        """Score one member at full detail: what each segment's score is made of, which diagnosis gave which category,
        and which HCC suppressed which.
        """
        return self.score_hcc(member, replace(options or ScoringOptions(), detail=HccDetail.FULL))

    # --- selection

    def _releases(self, system: str) -> _Releases:
        # A name that is not hashable is no name either.
        name = SYSTEM_URIS.get(system, system) if isinstance(system, str) else ""
        releases = self._systems.get(name)
        if releases is None:
            broken = [error for key, (_, error) in self._failed.items() if key.startswith(f"{name}/")]
            if broken:
                raise broken[0]
            raise UnknownSystemError(
                f"system {system!r} is not loaded; there is {_listed(list(self._systems))}. "
                "`codeset-engine build` makes packs of the systems it has sources for.",
                field="system",
            )
        return releases

    def _select(self, system: str, release: str | None, date: Date | None) -> tuple[_Release, int]:
        """Return the release and the day that is meant."""
        releases = self._systems.get(system) if type(system) is str else None
        if releases is None:
            releases = self._releases(system)
        day = 0 if date is None else _core.as_date(date)
        if release is not None:
            chosen = releases.by_name.get(release) if isinstance(release, str) else None
            if chosen is not None:
                return chosen, day or chosen.info.manifest.default_date
            failed = self._failed.get(f"{releases.system}/{release}")
            if failed:
                raise failed[1]
            names = list(releases.by_name)
            raise UnknownReleaseError(self._no_release(releases.system, release, names), field="release")
        if day:
            chosen = releases.covering(day)
            if chosen is None:
                raise DateOutsideCoverageError(
                    f"no loaded release of {releases.system} covers {day}; loaded are {releases.spans()}. "
                    + self._hint(releases.system),
                    field="date",
                )
            return chosen, day
        today = _core.as_date(datetime.date.today())
        chosen = releases.covering(today)
        return (chosen, today) if chosen else (releases.all[-1], releases.all[-1].info.manifest.default_date)

    def _no_release(self, system: str, release: object, names: list[str]) -> str:
        return f"{system} has no release {release!r} here; there is {_listed(names)}. {self._hint(system)}"

    def _hint(self, system: str) -> str:
        broken = [name for name in self._failed if name.startswith(f"{system}/")]
        text = "`codeset-engine build --all` makes every release there is a source for."
        return text + (f" Unusable: {_listed(broken)} (`codeset-engine verify` says why)." if broken else "")

    def _code_system(self, release: _Release) -> CodeSystem:
        opened = release.opened if release.opened is not None else self._open(release)
        if not isinstance(opened, CodeSystem):
            codes = [name for name, releases in self._systems.items() if releases.all[0].info.kind == "codes"]
            raise UnknownSystemError(
                f"{release.info.system} holds no codes; code systems here are {_listed(codes)}.",
                field="system",
            )
        return opened

    def _open(self, release: _Release) -> Opened:
        # Reading release.opened without the lock is safe: it is set once, to a whole object.
        with self._lock:
            if release.opened is not None:
                return release.opened
            info = release.info
            if info.id in self._failed:
                raise self._failed[info.id][1]
            try:
                release.opened = self._open_by_kind(info)
            except CodesetError as error:
                self._failed[info.id] = (info.path, error)
                raise
            return release.opened

    def _open_by_kind(self, info: ReleaseInfo) -> Opened:
        pack = open_pack(info.path)
        if pack.manifest != info.manifest:
            raise PackNotFoundError(
                f"{info.id} in {info.path} was replaced since this library was opened. Open the library again."
            )
        return open_release(pack, self._weights_on(info.effective_from) if info.kind == "msdrg" else None)

    def _weights_on(self, day: int) -> DrgWeights | None:
        releases = self._systems.get(WEIGHTS)
        chosen = releases.covering(day) if releases is not None else None
        if chosen is None:
            return None
        try:
            opened = chosen.opened if chosen.opened is not None else self._open(chosen)
        except CodesetError:
            # It is in ``unusable`` now. A damaged table of weights is no reason not to group.
            return None
        assert isinstance(opened, DrgWeights)
        return opened


def _listed(names: list[str]) -> str:
    return ", ".join(names) if names else "none"
