"""Files and folders that appear whole or not at all, on a disk or in an object store."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from cereals_core.location import is_on_disk

UNFINISHED = ".*.new"
"""Pattern of files that a writer was about to put in place."""


@contextmanager
def written_whole(file: Path) -> Iterator[IO[bytes]]:
    """A stream whose content becomes the file when the block ends well; other writers of the same file do no harm."""
    if not is_on_disk(file):
        with tempfile.NamedTemporaryFile() as local:
            yield local
            local.flush()
            _store(file).put_file(local.name, str(file))
        return
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    sync(file.parent)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with written_whole(file) as stream:
        stream.write(content)


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's entries are on the disk; an object store holds what it has accepted."""
    if not is_on_disk(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sizes_below(folder: Path) -> dict[str, int]:
    """Size in bytes of every file below a folder, by its name relative to that; nothing if there is no such folder."""
    if is_on_disk(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
    root = str(folder).split("://", 1)[1].rstrip("/") + "/"
    found = _store(folder).find(str(folder), detail=True)
    return {name.removeprefix(root): info["size"] for name, info in found.items()}


def remove(folder: Path) -> None:
    """Remove a folder and all below it, if it is there."""
    if is_on_disk(folder):
        shutil.rmtree(folder, ignore_errors=not folder.exists())
    elif _store(folder).exists(str(folder)):
        _store(folder).rm(str(folder), recursive=True)


def move_in_place(folder: Path, work: Path, seal: str) -> None:
    """Put a finished folder in the place of another. `seal` names the file without which a folder is not believed.

    On a disk a rename does it. An object store has none: there the old seal goes first, and the new one comes last.
    """
    if not is_on_disk(folder):
        (folder / seal).unlink(missing_ok=True)
        remove(folder)
        copy_sealed(work, folder, seal)
        remove(work)
        return
    if folder.exists():
        stale = folder.parent / f".{folder.name}.stale"
        remove(stale)
        folder.rename(stale)
        work.rename(folder)
        remove(stale)
    else:
        work.rename(folder)
    sync(folder.parent)


def copy_sealed(source: Path, folder: Path, seal: str) -> None:
    """Copy a folder within an object store, its seal last."""
    names = [name for name in sizes_below(source) if name != seal]
    for part in filter(None, (names, [seal])):
        _store(source).copy([str(source / name) for name in part], [str(folder / name) for name in part])


def _store(path: Path) -> Any:
    return cast(Any, path).fs
