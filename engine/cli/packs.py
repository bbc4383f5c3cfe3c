"""``codeset-engine build``, ``list``, ``info`` and ``verify``."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from .. import pack
from ..errors import (
    CodesetError,
    InvalidDateError,
    InvalidFieldError,
    PackCorruptError,
    PackIncompatibleError,
    PackNotFoundError,
    UnknownReleaseError,
)
from ..pack import Manifest
from . import FINDINGS
from .output import bytes_text, console, content_text, day_argument, day_text, print_json, table

if TYPE_CHECKING:
    from codesets.build import BuiltPack, Event

__all__ = ["build", "build_from_file", "info", "list_packs", "publish", "verify"]


# --- build --------------------------------------------------------------------------------------------------


def build(
    specs: list[str],
    all_releases: bool,
    store: Path | None,
    cache: Path | None,
    *,
    force: bool,
    jobs: int,
    offline: bool,
    json: bool,
) -> None:
    """Build packs, and say what was built, what was kept, and how long it took."""
    from codesets import build as builder
    from codesets import catalog

    targets = catalog.parse(specs, all_releases)
    store = pack.default_store() if store is None else store
    begin = time.perf_counter()
    with _Display() as display:
        done = builder.build(
            targets,
            store,
            cache=cache,
            progress=display,
            replace=force,
            offline=offline,
            workers=jobs,
        )
    _report_build(done, store, time.perf_counter() - begin, json=json)


def build_from_file(
    specs: list[str],
    file: Path | None,
    tabular: Path | None,
    effective_from: str | None,
    effective_to: str | None,
    store: Path | None,
    *,
    force: bool,
    json: bool,
) -> None:
    """Build packs from an official file given by path, and report them as ``build`` does."""
    from codesets import from_file

    if file is None:
        raise InvalidFieldError(
            "--tabular, --effective-from and --effective-to go with an order file: --from FILE is missing.",
            field="from",
        )
    if len(specs) != 1:
        raise InvalidFieldError(
            f"--from takes one system or release (msdrg, msdrg/45.0, icd10cm/2028), got {len(specs)}.", field="release"
        )
    system, slash, release = specs[0].partition("/")
    given = from_file.Given(
        file,
        release if slash else None,
        tabular,
        _day_number("effective-from", effective_from),
        _day_number("effective-to", effective_to),
    )
    store = pack.default_store() if store is None else store
    begin = time.perf_counter()
    with _Display() as display:
        done = from_file.build_from_file(system, given, store, replace=force, progress=display)
    _report_build(done, store, time.perf_counter() - begin, json=json)


def _day_number(name: str, text: str | None) -> int | None:
    day = day_argument(text)
    if day is None:
        return None
    if len(day) != 8 or not day.isascii() or not day.isdigit():
        raise InvalidDateError(f"--{name}: expected a day such as 2027-10-01, got {text!r}", field=name)
    return int(day)


def _report_build(done: list[BuiltPack], store: Path, seconds: float, *, json: bool) -> None:
    manifests = {item.target.id: pack.read_manifest(item.path) for item in done}
    if json:
        built = [
            {
                **_release(item.path, manifests[item.target.id]),
                "built": item.built,
                "seconds": round(item.seconds, 3),
            }
            for item in done
        ]
        print_json({"store": str(store), "seconds": round(seconds, 3), "releases": built})
        return
    out = console()
    made = [item for item in done if item.built]
    if made:
        shown = table("Pack", "Content", "Size", "Seconds", right=("Content", "Size", "Seconds"))
        for item in made:
            manifest = manifests[item.target.id]
            shown.add_row(manifest.id, content_text(manifest), bytes_text(manifest.size), f"{item.seconds:.1f}")
        out.print(shown)
    kept = len(done) - len(made)
    if made:
        out.print(f"{_packs(len(made))} built in {seconds:.1f} s, in {store}")
    if kept:
        out.print(f"{_packs(kept)} kept, already in {store} (--force builds them anew)")


def _packs(count: int) -> str:
    return f"{count} pack{'' if count == 1 else 's'}"


class _Display:
    """Progress of a build on standard error: bars on a terminal, a line for each finished thing in a log."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figure]}"),
            TimeElapsedColumn(),
            console=console(stderr=True),
            transient=True,
        )
        self._terminal = sys.stderr.isatty()
        self._tasks: dict[str, TaskID] = {}
        self._fetched: set[str] = set()

    def __enter__(self) -> _Display:
        if self._terminal:
            self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._terminal:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        if self._terminal:
            self._draw(event)
        elif event.stage == "fetch":
            if event.done == event.total and event.name not in self._fetched:
                self._fetched.add(event.name)
                sys.stderr.write(f"fetched {event.name} ({bytes_text(event.total)})\n")
        elif event.step == "done":
            sys.stderr.write(f"built {event.name} ({event.done} of {event.total})\n")

    def _draw(self, event: Event) -> None:
        if event.stage == "fetch":
            figure = f"{bytes_text(event.done)} of {bytes_text(event.total)}"
            text = f"fetch {event.name}"
            key = event.name
        else:
            figure = f"{event.done} of {event.total}"
            text = "build" if event.step == "done" else f"build {event.name}: {event.step}"
            key = "build"
        task = self._tasks.get(key)
        if task is None:
            self._tasks[key] = self._bars.add_task(text, total=event.total, completed=event.done, figure=figure)
        else:
            self._bars.update(task, description=text, completed=event.done, figure=figure)


# --- list and info ------------------------------------------------------------------------------------------


def list_packs(store: Path | None, *, json: bool) -> None:
    """List what is in the store, packs that cannot be read included."""
    store = pack.default_store() if store is None else store
    found = list(pack.iter_manifests(store))
    usable = sorted(
        ((path, manifest) for path, manifest in found if isinstance(manifest, Manifest)),
        key=lambda item: (item[1].system, item[1].effective_from, item[1].release),
    )
    unusable = [(path, error) for path, error in found if isinstance(error, CodesetError)]
    if json:
        print_json(
            {
                "store": str(store),
                "releases": [_release(path, manifest) for path, manifest in usable],
                "unusable": [
                    {"id": _id(path), "error": {"code": error.code, "message": str(error), "field": ""}}
                    for path, error in unusable
                ],
            }
        )
        return
    out = console()
    if not found:
        out.print(f"No packs in {store}. `codeset-engine build` makes them.")
        return
    shown = table("Pack", "From", "To", "Content", "Size", right=("Content", "Size"))
    for _, manifest in usable:
        shown.add_row(
            manifest.id,
            day_text(manifest.effective_from),
            day_text(manifest.effective_to),
            content_text(manifest),
            bytes_text(manifest.size),
        )
    for path, error in unusable:
        shown.add_row(_id(path), "", "", Text(error.code, style="red"), "")
    out.print(shown)
    out.print(f"{_packs(len(found))} in {store}, {bytes_text(_on_disk(path for path, _ in found))} on disk")
    for _, error in unusable:
        out.print(f"{error.code}: {error}", style="red", soft_wrap=True)


def info(spec: str, store: Path | None, *, json: bool) -> None:
    """Show one manifest."""
    store = pack.default_store() if store is None else store
    system, slash, release = spec.partition("/")
    if not (system and slash and release) or not _plain(system) or not _plain(release):
        raise InvalidFieldError(f"expected SYSTEM/RELEASE, such as icd10cm/2027, got {spec!r}", field="release")
    path = store / system / release
    manifest = pack.read_manifest(path)
    if json:
        files = {name: {k: v for k, v in asdict(f).items() if v is not None} for name, f in manifest.files.items()}
        print_json(
            {
                **_release(path, manifest),
                "path": str(path),
                "format": manifest.format,
                "byte_order": manifest.byte_order,
                "files": files,
            }
        )
        return
    out = console()
    out.print(Text(manifest.id, style="bold"))
    days = f"{day_text(manifest.effective_from)} to {day_text(manifest.effective_to)}"
    out.print(", ".join(filter(None, (content_text(manifest), days))))
    out.print(f"pack format {manifest.format}, {bytes_text(manifest.size)} in {path}", soft_wrap=True)
    out.print("\nSources", style="bold")
    for source in manifest.sources:
        name = f"{source.wheel} {source.version}" if source.wheel else "file given by path"
        holds = f"release {source.release}: " if source.release else ""
        out.print(f"  {name}: {source.file}", soft_wrap=True)
        out.print(f"    {holds}{', '.join(source.provides)}", soft_wrap=True)
        out.print(f"    sha256 {source.sha256}", soft_wrap=True)
    out.print("\nFigures", style="bold")
    shown = table("Name", "Value", fold=("Value",))
    for name, value in manifest.facts.items():
        shown.add_row(name, str(value) if name.endswith("year") else _fact(value))
    out.print(shown)
    out.print("Files", style="bold")
    shown = table("File", "Type", "Shape", "Size", "XXH3-128", right=("Size",), fold=("Type",))
    for name, file in manifest.files.items():
        kind = "" if file.dtype is None else "record" if isinstance(file.dtype, list) else str(file.dtype)
        shape = " x ".join(f"{n:,}" for n in file.shape or ())
        shown.add_row(name, kind, shape, bytes_text(file.size), file.xxh3_128)
    out.print(shown)


def publish(directory: Path, store: Path | None, *, force: bool, link: bool, json: bool) -> None:
    """Publish the pack in ``directory``."""
    from ..publish import publish

    done = publish(directory, store, replace=force, link=link)
    if json:
        print_json({"id": done.id, "path": str(done.path), "published": done.changed})
        return
    console().print(
        f"published {done.id} in {done.path}" if done.changed else f"{done.id} is in {done.path} already",
        soft_wrap=True,
    )


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_fact(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return ", ".join(_fact(inner) for inner in value)
    return "" if value is None else str(value)


def _release(path: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the ``Release`` message of a pack as JSON."""
    return {
        "system": manifest.system,
        "release": manifest.release,
        "kind": manifest.kind,
        "effective_from": manifest.effective_from,
        "effective_to": manifest.effective_to,
        "size_bytes": manifest.size,
        "sources": [asdict(source) for source in manifest.sources],
        "facts": dict(manifest.facts),
    }


def _id(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _plain(name: str) -> bool:
    return Path(name).name == name and not name.startswith(".")


def _on_disk(paths: Iterator[Path]) -> int:
    """Bytes of all files below ``paths``, linked ones once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in paths:
        with contextlib.suppress(OSError):
            for file in path.iterdir():
                status = file.stat()
                sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())


# --- verify -------------------------------------------------------------------------------------------------


def verify(specs: list[str], store: Path | None, *, json: bool) -> None:
    """Check packs; exit with FINDINGS if anything is wrong."""
    store = pack.default_store() if store is None else store
    paths = [path for path, _ in pack.iter_manifests(store)]
    if not paths:
        raise PackNotFoundError(f"no packs in {store}. `codeset-engine build` makes them.")
    chosen = _chosen(paths, specs, store)
    results: list[tuple[str, int, list[CodesetError]]] = []
    for path in chosen:
        findings = _findings(path)
        files = 0
        with contextlib.suppress(CodesetError):
            files = len(pack.read_manifest(path).files)
        results.append((_id(path), files, findings))
    damaged = sum(1 for _, _, findings in results if findings)
    if json:
        print_json(
            {
                "store": str(store),
                "releases": [
                    {
                        "id": name,
                        "files": files,
                        "findings": [{"code": e.code, "message": str(e), "field": e.field} for e in findings],
                    }
                    for name, files, findings in results
                ],
            }
        )
    else:
        out = console()
        shown = table("Pack", "Files", "Result", right=("Files",))
        for name, files, findings in results:
            result = Text(f"{len(findings)} wrong", style="red") if findings else Text("sound", style="green")
            shown.add_row(name, str(files), result)
        out.print(shown)
        for _, _, findings in results:
            for error in findings:
                out.print(f"{error.code}: {error}", style="red", soft_wrap=True)
        out.print(f"{_packs(len(results))} verified, {damaged} damaged")
    if damaged:
        _findings_exit()


def _findings_exit() -> NoReturn:
    raise typer.Exit(FINDINGS)


def _chosen(paths: list[Path], specs: list[str], store: Path) -> list[Path]:
    if not specs:
        return paths
    chosen: set[Path] = set()
    for spec in specs:
        found = [path for path in paths if spec in (_id(path), path.parent.name)]
        if not found:
            raise UnknownReleaseError(
                f"no pack {spec} in {store}; there is {', '.join(_id(path) for path in paths)}.", field="release"
            )
        chosen.update(found)
    return [path for path in paths if path in chosen]


def _findings(path: Path) -> list[CodesetError]:
    """Return all that is wrong with a pack: checksums of files first, then what only opening it tells."""
    try:
        damaged = pack.verify_pack(path)
        if damaged:
            return list(damaged)
        opened = pack.open_pack(path)
        if opened.manifest.kind == "codes":
            from ..codes import CodeSystem

            CodeSystem(opened)
        elif opened.manifest.kind == "msdrg":
            from ..drg import MsdrgGrouper

            MsdrgGrouper(opened)
        elif opened.manifest.kind == "mce":
            from ..mce import MceEditor

            MceEditor(opened)
        elif opened.manifest.kind == "weights":
            from ..weights import DrgWeights

            DrgWeights(opened)
    except (PackCorruptError, PackIncompatibleError) as error:
        return [error]
    return []
