"""One writer a campaign: a lock that a dead writer loses by itself, on a disk or in an object store."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cereals_core.location import is_on_disk
from tasks.running.lease import Keeper, leaseholder, locked_error, this_process


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock at `file`; LockedError, with the name of its holder, while somebody else does.

    On a disk the system frees it when the process ends, however (flock; on a disk shared by NFS, for all hosts). In an
    object store it is a lease that its holder renews; one that is no longer renewed can be taken over. Who loses it is
    asked to stop, and gets LockedError as well. SettingsError when the store cannot be written.
    """
    with _flock(file) if is_on_disk(file) else Keeper(file).holding():
        yield


def holder_of(file: Path) -> str | None:
    """Name who holds the lock at `file`, or None; nothing is locked. A holder on another host may have died."""
    if not is_on_disk(file):
        return leaseholder(file)
    if not file.exists():
        return None
    with file.open("a+") as lock:
        return _holder(lock)


@contextmanager
def _flock(file: Path) -> Iterator[None]:
    with file.open("a+") as lock:
        if (holder := _holder(lock)) is not None:
            raise locked_error(file, holder)
        lock.truncate(0)
        lock.write(this_process())
        lock.flush()
        yield


def _holder(lock: IO[str]) -> str | None:
    """Take the lock and return None, or name who holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        return lock.read().strip()
    return None
