"""Stamps of files: by which a file of a data set is known again, wherever the data set is."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

DIGEST_BYTES = 16


class Stamp(NamedTuple):
    """A file as it was: its path below the data set's root, size, time of its last change, BLAKE2b of its content."""

    file: str
    size_bytes: int
    modified_ns: int
    digest: bytes


def stamp_of(file: Path, root: Path) -> Stamp:
    """Read a file and stamp it; OSError if it cannot be read."""
    there = file.stat()
    return Stamp(os.path.relpath(file, root), there.st_size, there.st_mtime_ns, _digest(file))


def change_of(stamp: Stamp, root: Path) -> str | None:
    """Tell how a file differs from its stamp, or None; it is read only if its size is the same and its time is not."""
    file = root / stamp.file
    try:
        there = file.stat()
        if (there.st_size, there.st_mtime_ns) == (stamp.size_bytes, stamp.modified_ns):
            return None
        same = there.st_size == stamp.size_bytes and _digest(file) == stamp.digest
    except OSError as error:
        return f"{file}: {error.strerror}"
    return None if same else f"{file}: has another content"


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=DIGEST_BYTES)).digest()
