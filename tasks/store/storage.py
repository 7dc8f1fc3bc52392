"""Files and folders that appear whole or not at all, on a disk or in an object store."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from cereals_core.errors import CerealsError, SettingsError, StorageError
from cereals_core.location import is_on_disk

STALE, LINKED = ".stale", ".linked"
"""Ends of the names of folders that are about to go, or that are made of links."""
UNFINISHED = ".*.new"
"""Pattern of files that a writer was about to put in place."""
ANSWERS_WITHIN_S = 10.0
"""An object store that lets nobody in within this time is not there."""
Files = dict[str, tuple[int, str]]
"""Size in bytes and version of files, by their names."""


@contextmanager
def written_whole(file: Path) -> Iterator[IO[bytes]]:
    """Open a stream whose content becomes the file when the block ends well; other writers of the file do no harm."""
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
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch.save covers what its stream raised
            raise error.__context__ from None
        raise
    finally:
        temporary.unlink(missing_ok=True)
    sync(file.parent)


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    with written_whole(file) as stream:
        stream.write(content)


def read_whole(file: Path, version: str = "") -> bytes:
    """Read a file; a small one of an object store, not empty, is read once a process for every `version`."""
    if is_on_disk(file):
        return file.read_bytes()
    return _read_version(file, version) if version else _store(file).cat_file(str(file))


@lru_cache(maxsize=2048)
def _read_version(file: Path, version: str) -> bytes:
    return _store(file).cat_file(str(file), start=0)  # without, s3fs asks for the size first


def is_full(error: object) -> bool:
    """Tell whether it says that a disk has no room left."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def telling_of_storage(folder: Path) -> Iterator[None]:
    """Turn what the system or an object store's client says of files into a StorageError that tells what to do."""
    try:
        yield
    except CerealsError:
        raise
    except Exception as error:
        if not (isinstance(error, OSError) or type(error).__module__.startswith("botocore.")):
            raise
        what = "the disk is full; free some space" if is_full(error) else "look at the disk and at permissions"
        told = f"{error}: {what}" if is_on_disk(folder) else _remedy(folder, error)
        raise StorageError(f"{folder}: {told}, then run the same command again; finished work is kept") from error


def sync(path: Path) -> None:
    """Wait until a file's content or a folder's entries are on the disk; an object store holds what it has accepted."""
    if not is_on_disk(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def files_below(folder: Path) -> Files:
    """List size and version of every file below a folder, by its name relative to that; nothing if it is missing.

    In an object store, where this is one request, another content is another version. On a disk it is "", which says
    nothing.
    """
    if is_on_disk(folder):
        files = (path for path in folder.rglob("*") if path.is_file())
        return {path.relative_to(folder).as_posix(): (path.stat().st_size, "") for path in files}
    root = cast(Any, folder).path + "/"
    # Asked for by its prefix: for a folder that is missing s3fs would look further, for a file and for a bucket.
    found = _store(folder).find(cast(Any, folder.parent).path, prefix=f"{folder.name}/", detail=True)
    versions = {name: (info["size"], str(info.get("ETag", ""))) for name, info in found.items()}
    return {name.removeprefix(root): version for name, version in versions.items() if name.startswith(root)}


def version_of(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file's content on a disk; None if there is no file."""
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def sizes_below(folder: Path) -> dict[str, int]:
    """List size in bytes of every file below a folder, by its name relative to that; nothing if it is missing."""
    return {name: size for name, (size, _) in files_below(folder).items()}


def make_folder(folder: Path) -> None:
    """Make a folder and those above it. An object store knows none, and s3fs would make a bucket that is missing."""
    if is_on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)


def remove_file(file: Path) -> None:
    """Remove a file that is there."""
    if is_on_disk(file):
        file.unlink()
    else:
        _store(file).rm_file(str(file))


def remove(folder: Path, seal: str | None = None) -> None:
    """Remove a folder and all below it, if it is there; `seal` names the file that has to go first."""
    if is_on_disk(folder):
        shutil.rmtree(folder, ignore_errors=not folder.exists())
        return
    names = set(sizes_below(folder))
    if seal in names:
        remove_file(folder / seal)
    if names - {seal}:
        _store(folder).rm([str(folder / name) for name in names - {seal}])
        if left := sizes_below(folder):  # s3fs keeps to itself what it could not remove
            raise OSError(f"{folder}: {len(left)} files cannot be removed, among them {min(left)}")


def move_in_place(folder: Path, work: Path, seal: str) -> None:
    """Put a finished folder in the place of another. `seal` names the file without which a folder is not believed.

    On a disk a rename does it. An object store has none: there the old seal goes first, and the new one comes last.
    """
    if not is_on_disk(folder):
        names = copy_sealed(work, folder, seal)
        _store(work).rm([str(work / name) for name in names])
        return
    if folder.exists():
        stale = folder.parent / f".{folder.name}{STALE}"
        remove(stale)
        folder.rename(stale)
        work.rename(folder)
        remove(stale)
    else:
        work.rename(folder)
    sync(folder.parent)


def copy_sealed(source: Path, folder: Path, seal: str) -> list[str]:
    """Copy a folder within an object store in the place of another, its seal last; returns its files' names."""
    names = sorted(set(sizes_below(source)) - {seal})
    remove(folder, seal)
    for part in filter(None, (names, [seal])):
        _store(source).copy([str(source / name) for name in part], [str(folder / name) for name in part])
    return [*names, seal]


def names_in(folder: Path) -> list[str]:
    """List the names of what is in a folder; nothing if it is missing."""
    if is_on_disk(folder):
        return [path.name for path in folder.glob("*")]
    try:
        return [name.rpartition("/")[2] for name in _store(folder).ls(str(folder), detail=False)]
    except FileNotFoundError:
        return []


def refuse_unreachable(folder: Path) -> None:
    """Raise SettingsError within seconds when it is in an object store that does not answer or does not let in."""
    if is_on_disk(folder):
        return
    with explained(folder):
        bucket, key, _ = _store(folder).split_path(str(folder))
        _store(folder).call_s3("list_objects_v2", Bucket=bucket, Prefix=key, MaxKeys=1, timeout=ANSWERS_WITHIN_S)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn what an object store's client raises when it gets no further into a SettingsError with the remedy."""
    try:
        yield
    except CerealsError:
        raise
    except Exception as error:
        raise SettingsError(f'folder = "{folder}": {_remedy(folder, error)}') from error


def _remedy(folder: Path, error: Exception) -> str:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, TimeoutError):
        what = f"no answer in {ANSWERS_WITHIN_S:.0f} s"
    if isinstance(error, FileNotFoundError) and "bucket" in str(error):
        return f'there is no bucket "{cast(Any, folder).drive}" ({what}); make it, or correct the folder'
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return f"access is denied ({what}); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    return f"the object store does not answer as it should ({what}); check the network and AWS_ENDPOINT_URL"


def _store(path: Path) -> Any:
    return cast(Any, path).fs
