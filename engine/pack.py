"""Packs: one immutable release of one thing, as a directory of plain files.

A pack is ``<store>/<system>/<release>/`` with ``.npy`` arrays (any of them opens with ``numpy.load(...,
mmap_mode="r")``),
``.marisa`` tries and ``manifest.json``. There is no container format of our own.

Contract
--------
* ``write_pack`` writes to a temporary sibling, syncs it, and renames it into place: a reader sees a whole
  pack or none. A
  published pack is never edited. A file whose content another release of the same system already has is a
  hard link to it.
* ``open_pack`` reads the manifest, then **verifies every file against its checksum before anything of it is
  used**, and only
  then maps arrays and tries. A marisa trie mapped from a damaged file can crash the process or answer
  wrongly, so nothing here hands out an unverified file. What a checksum cannot tell (that indices inside the
  arrays stay in bounds) is checked by the reader of each kind of pack when it opens the arrays.
* The checksum guards against damage, not against somebody who rewrites manifest and files together.

Verification opens every file once, maps it, and hashes the very mapping that is handed out, so a file
replaced between verification and use is not a hole. Truncating a mapped file in place is outside what user
space can defend against: packs are replaced, never modified.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs
import xxhash

from .errors import PackCorruptError, PackExistsError, PackIncompatibleError, PackNotFoundError
from .tables import Source

__all__ = [
    "FORMAT",
    "Manifest",
    "Pack",
    "default_store",
    "iter_manifests",
    "open_pack",
    "read_manifest",
    "verify_pack",
    "write_pack",
]

FORMAT = 1
"""Version of the pack layout. A pack with another number is refused, never guessed at."""

MANIFEST = "manifest.json"
_TEMPORARY = ".tmp-"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a pack. ``dtype`` and ``shape`` are of the array; None for a trie. ``xxh3_128`` is of the
    whole file."""

    size: int
    xxh3_128: str
    dtype: Any = None
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says.

    ``effective_from`` and ``effective_to`` (CCYYMMDD, inclusive) are the dates the release answers for.
    ``kind`` names the reader:
    ``codes`` (a code system) or ``msdrg``. ``facts`` are figures and origins specific to the system.
    """

    system: str
    release: str
    kind: str
    effective_from: int
    effective_to: int
    sources: tuple[Source, ...]
    facts: Mapping[str, Any]
    files: Mapping[str, FileEntry]
    format: int = FORMAT
    byte_order: str = "little"

    @property
    def id(self) -> str:
        """``system/release``."""
        return f"{self.system}/{self.release}"

    @property
    def default_date(self) -> int:
        """The day meant by a question without one: the first that the release answers for, unless its facts name
        another (``default_date``)."""
        day = self.facts.get("default_date")
        return day if isinstance(day, int) and self.effective_from <= day <= self.effective_to else self.effective_from

    @property
    def size(self) -> int:
        """Bytes of all files, the manifest aside."""
        return sum(entry.size for entry in self.files.values())


class Pack:
    """An opened pack: verified arrays and tries. Read only, safe to share between threads.

    Arrays are views of mappings that stay alive as long as any view of them does; there is nothing to close.
    """

    def __init__(self, path: Path, manifest: Manifest, buffers: Mapping[str, mmap.mmap]) -> None:
        self.path = path
        self.manifest = manifest
        self._buffers = buffers

    def array(self, name: str, dtype: npt.DTypeLike | None = None, ndim: int = 1) -> npt.NDArray[Any]:
        """Return array ``name`` (file ``name.npy``), checked to have ``dtype`` and ``ndim`` where given."""
        file = f"{name}.npy"
        array = _array(self.path, file, self._buffer(file))
        if (dtype is not None and array.dtype != np.dtype(dtype)) or array.ndim != ndim:
            raise _corrupt(self.path, file, f"dtype {array.dtype}, {array.ndim} axes; expected {dtype}, {ndim}")
        return array

    def buffer(self, file: str) -> memoryview:
        """Return the verified bytes of ``file``."""
        return memoryview(self._buffer(file))

    def corrupt(self, file: str, what: str) -> PackCorruptError:
        """Return the error to raise when the content of ``file`` cannot be right."""
        return _corrupt(self.path, file, what)

    def _buffer(self, file: str) -> mmap.mmap:
        try:
            return self._buffers[file]
        except KeyError:
            raise _corrupt(self.path, file, "the manifest does not list it") from None


def default_store() -> Path:
    """Return the directory packs are kept in when the caller names none.

    ``$CODESET_ENGINE_PACKS`` if set; else, in a virtual environment, ``share/codeset-engine/packs`` inside it
    (each environment has the packs its own version built); else the user's data directory.
    """
    configured = os.environ.get("CODESET_ENGINE_PACKS")
    if configured:
        return Path(configured)
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "share" / "codeset-engine" / "packs"
    return Path(platformdirs.user_data_dir("codeset-engine", appauthor=False)) / "packs"


def write_pack(
    store: Path,
    *,
    system: str,
    release: str,
    kind: str,
    effective_from: int,
    effective_to: int,
    arrays: Mapping[str, npt.NDArray[Any]],
    tries: Mapping[str, bytes] | None = None,
    sources: Iterable[Source] = (),
    facts: Mapping[str, Any] | None = None,
    replace: bool = False,
) -> Path:
    """Write a pack and publish it atomically; return its directory.

    ``arrays`` become ``<name>.npy``, ``tries`` (name to the bytes of a saved marisa trie) ``<name>.marisa``.

    Raises PackExistsError if the release is already there and ``replace`` is false. With ``replace`` the new
    directory takes the place of the old one in two renames; a process that has the old one open keeps its
    mapping.
    """
    final = store / system / release
    if final.exists() and not replace:
        raise PackExistsError(
            f"{system}/{release} already exists in {store}. A pack is never edited: "
            "build with --force to put a new one in its place."
        )
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f"{_TEMPORARY}{release}-{secrets.token_hex(4)}"
    temporary.mkdir()
    try:
        known = _known_files(final.parent)
        files: dict[str, FileEntry] = {}
        for name, array in sorted(arrays.items()):
            if array.dtype.hasobject or array.dtype.newbyteorder("<") != array.dtype:
                raise TypeError(f"array {name!r} has dtype {array.dtype}; packs hold little-endian plain data")
            file = temporary / f"{name}.npy"
            with file.open("xb") as out:
                np.save(out, np.ascontiguousarray(array), allow_pickle=False)
            descr = [list(d) for d in array.dtype.descr] if array.dtype.names else array.dtype.str
            files[file.name] = _seal(file, known, descr, array.shape)
        for name, data in sorted((tries or {}).items()):
            file = temporary / f"{name}.marisa"
            file.write_bytes(data)
            files[file.name] = _seal(file, known, None, None)
        manifest = Manifest(
            system=system,
            release=release,
            kind=kind,
            effective_from=effective_from,
            effective_to=effective_to,
            sources=tuple(sources),
            facts=dict(facts or {}),
            files=files,
        )
        text = _to_text(_to_json(manifest))
        with (temporary / MANIFEST).open("x", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        _sync_directory(temporary)
        if final.exists():
            discarded = final.parent / f"{_TEMPORARY}old-{secrets.token_hex(4)}"
            final.rename(discarded)
            temporary.rename(final)
            shutil.rmtree(discarded)
        else:
            temporary.rename(final)
        _sync_directory(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


def read_manifest(path: Path) -> Manifest:
    """Read and check the manifest of the pack directory ``path``; nothing else is opened.

    Raises PackNotFoundError, PackIncompatibleError or PackCorruptError.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except FileNotFoundError:
        if path.is_dir():
            raise _corrupt(path, MANIFEST, "it is missing") from None
        raise PackNotFoundError(
            f"no pack at {path}. `codeset-engine list` shows what is there, `codeset-engine build` makes it."
        ) from None
    except OSError as error:
        raise _corrupt(path, MANIFEST, f"it cannot be read ({error.strerror})") from None
    try:
        document = json.loads(text)
        checksum = document.pop("xxh3_128")
        if document["format"] != FORMAT:
            raise PackIncompatibleError(
                f"{path} has pack format {document['format']}, this engine reads format {FORMAT}. "
                "Rebuild the pack with this version (`codeset-engine build`)."
            )
        if document["byte_order"] != "little" or sys.byteorder != "little":
            raise PackIncompatibleError(
                f"{path} holds {document['byte_order']}-endian arrays, this machine is "
                f"{sys.byteorder}-endian. The engine runs on little-endian machines only."
            )
        if checksum != _document_checksum(document):
            raise _corrupt(path, MANIFEST, "its checksum is not that of its content")
        # The checksum is of what the text means; an altered blank means the same, but it is damage all the same.
        if _to_text(document | {"xxh3_128": checksum}) != text.decode():
            raise _corrupt(path, MANIFEST, "it is not as it was written")
        return _from_json(document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, (PackIncompatibleError, PackCorruptError)):
            raise
        raise _corrupt(path, MANIFEST, f"it is not a manifest ({error!r})") from None


def open_pack(path: Path) -> Pack:
    """Verify the pack directory ``path`` against its manifest and map it.

    Raises PackNotFoundError, PackIncompatibleError, or PackCorruptError naming the first file that is wrong.
    """
    manifest = read_manifest(path)
    pack = Pack(path, manifest, {name: _map(path, name, entry) for name, entry in manifest.files.items()})
    for name, entry in manifest.files.items():
        if entry.dtype is not None:
            array = pack.array(name.removesuffix(".npy"), ndim=len(entry.shape or ()))
            if array.dtype != _dtype(entry.dtype) or array.shape != entry.shape:
                raise _corrupt(
                    path, name, f"it holds {array.dtype} {array.shape}; expected {entry.dtype} {entry.shape}"
                )
    return pack


def verify_pack(path: Path) -> list[PackCorruptError]:
    """Check every file of the pack and return all that is wrong, not only the first. Unlisted files count as
    wrong.

    Raises PackNotFoundError or PackIncompatibleError when there is no pack to check.
    """
    try:
        manifest = read_manifest(path)
    except PackCorruptError as error:
        return [error]
    findings = []
    for name, entry in manifest.files.items():
        try:
            _map(path, name, entry)
        except PackCorruptError as error:
            findings.append(error)
    extra = {file.name for file in path.iterdir()} - {MANIFEST, *manifest.files}
    findings.extend(_corrupt(path, name, "the manifest does not list it") for name in sorted(extra))
    return findings


def iter_manifests(store: Path) -> Iterator[tuple[Path, Manifest | PackCorruptError | PackIncompatibleError]]:
    """Yield (directory, manifest or what is wrong with it) for every pack under ``store``, sorted by path."""
    if not store.is_dir():
        return
    for system in sorted(p for p in store.iterdir() if p.is_dir() and not p.name.startswith(".")):
        for release in sorted(p for p in system.iterdir() if p.is_dir() and not p.name.startswith(".")):
            try:
                yield release, read_manifest(release)
            except (PackCorruptError, PackIncompatibleError) as error:
                yield release, error


def _corrupt(path: Path, file: str, what: str) -> PackCorruptError:
    return PackCorruptError(
        f"pack {path.parent.name}/{path.name}: {file}: {what}. Nothing of this pack was used. Rebuild it "
        f"with `codeset-engine build {path.parent.name}/{path.name} --force` or restore {path / file} from a "
        "good copy."
    )


def _map(path: Path, name: str, entry: FileEntry) -> mmap.mmap:
    """Map one file and verify the mapping."""
    try:
        with (path / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise _corrupt(path, name, f"it has {size} bytes, expected {entry.size}")
            buffer = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise _corrupt(path, name, "it is missing") from None
    except (OSError, ValueError) as error:
        if isinstance(error, PackCorruptError):
            raise
        raise _corrupt(path, name, f"it cannot be read ({error})") from None
    digest = xxhash.xxh3_128_hexdigest(buffer)
    if digest != entry.xxh3_128:
        raise _corrupt(path, name, f"its checksum is {digest}, expected {entry.xxh3_128}")
    return buffer


def _array(path: Path, name: str, buffer: mmap.mmap) -> npt.NDArray[Any]:
    """View the ``.npy`` file in ``buffer`` as an array, without a copy."""
    try:
        stream = _Header(buffer)
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, dtype = read(stream)
        if fortran and len(shape) > 1:
            raise ValueError("column-major")
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(buffer, dtype, count, stream.position).reshape(shape)
    except (ValueError, KeyError, SyntaxError) as error:
        raise _corrupt(path, name, f"it is not an array file ({error})") from None


class _Header:
    """The little of a file object that NumPy's header reader wants."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer
        self.position = 0

    def read(self, count: int = -1, /) -> bytes:
        data = self._buffer[self.position : self.position + count]
        self.position += len(data)
        return data


def _known_files(system: Path) -> dict[tuple[int, str], Path]:
    """Return (size, checksum) to path for the files of the system's published packs."""
    known: dict[tuple[int, str], Path] = {}
    for release in sorted(p for p in system.iterdir() if p.is_dir() and not p.name.startswith(".")):
        with contextlib.suppress(PackCorruptError, PackIncompatibleError, PackNotFoundError):
            for name, entry in read_manifest(release).files.items():
                known.setdefault((entry.size, entry.xxh3_128), release / name)
    return known


def _seal(file: Path, known: dict[tuple[int, str], Path], dtype: Any, shape: tuple[int, ...] | None) -> FileEntry:
    """Checksum a written file, put it on the disk, and make it a link if a published pack has the same
    content."""
    data = file.read_bytes()
    entry = FileEntry(len(data), xxhash.xxh3_128_hexdigest(data), dtype, shape)
    twin = known.get((entry.size, entry.xxh3_128))
    # The twin's manifest may promise what its file no longer holds: compare before linking.
    if twin is not None:
        with contextlib.suppress(OSError):
            if twin.read_bytes() == data:
                link = file.with_name(f"{file.name}.link")
                os.link(twin, link)
                link.replace(file)
                return entry
    with file.open("rb") as out:
        os.fsync(out.fileno())
    return entry


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _document_checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return xxhash.xxh3_128_hexdigest(canonical.encode())


def _to_text(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _to_json(manifest: Manifest) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(json.dumps(asdict(manifest)))
    return document | {"xxh3_128": _document_checksum(document)}


def _from_json(document: dict[str, Any]) -> Manifest:
    sources = tuple(Source(**(s | {"provides": tuple(s["provides"])})) for s in document.pop("sources"))
    files = {
        name: FileEntry(**(entry | {"shape": None if entry["shape"] is None else tuple(entry["shape"])}))
        for name, entry in document.pop("files").items()
    }
    for name in files:
        if Path(name).name != name:
            raise ValueError(f"file name {name!r}")
    return Manifest(sources=sources, files=files, **document)


def _dtype(description: Any) -> np.dtype[Any]:
    return np.dtype([tuple(d) for d in description] if isinstance(description, list) else description)
