"""Put a pack that was built elsewhere into a store, where running servers find it.

A server that reads the store sees all of the pack or none of it: it is copied to a name that no reader looks at,
verified there, put on the disk, and renamed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
from pathlib import Path
from typing import NamedTuple

from .errors import CodesetError, PackCorruptError, PackExistsError, PackIncompatibleError
from .library import open_release
from .pack import (
    _TEMPORARY,
    MANIFEST,
    FileEntry,
    Manifest,
    _known_files,
    _map,
    _sync_directory,
    default_store,
    open_pack,
    read_manifest,
    verify_pack,
)

__all__ = ["Published", "publish"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
"""Of Linux's renameat2."""


class Published(NamedTuple):
    """``id``: ``system/release``. ``path``: its directory. ``changed``: False if the same pack was there already."""

    id: str
    path: Path
    changed: bool


def publish(source: Path, store: Path | None = None, *, replace: bool = False, link: bool = False) -> Published:
    """Verify the pack directory ``source`` and publish it in ``store`` (None: the default store).

    Every file is verified and the pack is opened as a server would open it before anything is copied; the copy is
    verified again before it gets its name. A file that the system's other releases in the store have as well becomes
    a hard link to it. ``link``: so do the others, to the files of ``source``, which must then never be changed; it has
    to be on the same file system.

    ``replace``: put it in the place of another pack of the same release, in one step; whoever has that one open keeps
    it. Without it PackExistsError, unless the pack there is the same one.

    Raises PackNotFoundError, PackIncompatibleError or PackCorruptError if ``source`` is no pack fit to serve, and
    OSError if it cannot be written (a full disk: ENOSPC). The store is then as it was.
    """
    manifest = read_manifest(source)
    for name in (manifest.system, manifest.release):
        if Path(name).name != name or name.startswith("."):
            raise PackIncompatibleError(f"{source}: {name!r} is no name for a directory. Build the pack again.")
    findings = verify_pack(source)
    if findings:
        raise findings[0]
    # What checksums cannot tell: that indices stay in bounds.
    open_release(open_pack(source))
    store = default_store() if store is None else store
    final = store / manifest.system / manifest.release
    if final.exists():
        with contextlib.suppress(CodesetError):
            if read_manifest(final) == manifest and not verify_pack(final):
                return Published(manifest.id, final, False)
        if not replace:
            raise PackExistsError(
                f"another pack of {manifest.id} is in {store}. A published pack is never edited: "
                "publish with --force to put this one in its place."
            )
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = final.parent / f"{_TEMPORARY}{manifest.release}-{secrets.token_hex(4)}"
    try:
        temporary.mkdir()
        known = _known_files(final.parent)
        for name, entry in manifest.files.items():
            _place(source / name, temporary / name, entry, known.get((entry.size, entry.xxh3_128)), link)
        _copy(source / MANIFEST, temporary / MANIFEST)
        _verify_copy(temporary, manifest)
        _sync_directory(temporary)
        if final.exists():
            _exchange(temporary, final)
        else:
            temporary.rename(final)
        _sync_directory(final.parent)
    finally:
        # After an exchange this is the pack that was replaced.
        shutil.rmtree(temporary, ignore_errors=True)
    return Published(manifest.id, final, True)


def _place(source: Path, target: Path, entry: FileEntry, twin: Path | None, link: bool) -> None:
    if twin is not None:
        # The twin's manifest may promise what its file no longer holds.
        with contextlib.suppress(OSError, PackCorruptError):
            _map(twin.parent, twin.name, entry)
            os.link(twin, target)
            return
    if link:
        os.link(source, target)
    else:
        _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as data, target.open("xb") as out:
        shutil.copyfileobj(data, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())


def _verify_copy(temporary: Path, manifest: Manifest) -> None:
    """Raise PackCorruptError unless the copy is what was verified."""
    findings = verify_pack(temporary)
    if findings or read_manifest(temporary) != manifest:
        raise PackCorruptError(
            f"{manifest.id} was not copied as it is: {findings[0] if findings else 'its manifest changed'} "
            "Nothing was published. Is somebody writing to the source, or is the disk failing?"
        )


def _exchange(new: Path, old: Path) -> None:
    """Let the two directories change places, so that at no time there is none."""
    with contextlib.suppress(OSError, AttributeError):
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        if renameat2(_AT_FDCWD, os.fsencode(new), _AT_FDCWD, os.fsencode(old), _RENAME_EXCHANGE) == 0:
            return
    # Not Linux, or a file system that cannot. A server keeps a release that it does not see for a moment.
    aside = new.with_name(f"{_TEMPORARY}old-{secrets.token_hex(4)}")
    old.rename(aside)
    new.rename(old)
    aside.rename(new)
