"""One writer a campaign: a lock that a dead writer loses by itself, on a disk or in an object store."""

import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from cereals_core.errors import LockedError
from cereals_core.location import is_on_disk
from tasks.running.holder import Record, kernel, locked_error, may_live, this_process
from tasks.running.lease import Keeper, leaseholder
from tasks.telling.progress import request_stop

LOOKED_AT_EVERY_S = 1.0
"""So often a writer sees whether its lock file is still there."""
PATIENCE_S = 1.0
"""So long a lock is tried for whose holder is not known: somebody may just look who that is."""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock at `file`; LockedError, with the name of its holder, while somebody else does.

    On a disk the system frees it when the process ends, however (flock; on a disk shared by NFS, for all hosts). In an
    object store it is a lease that its holder renews; one that is no longer renewed can be taken over. Who loses it, or
    whose lock file is removed, is asked to stop, and gets LockedError as well. SettingsError when the store cannot be
    written.
    """
    with _flock(file) if is_on_disk(file) else Keeper(file).holding():
        yield


def holder_of(file: Path) -> str | None:
    """Name who holds the lock at `file`, or None; a process of this host is looked for, and no lock taken."""
    if not is_on_disk(file):
        return leaseholder(file)
    with suppress(FileNotFoundError), file.open() as lock:
        there = _record(lock)
        if may_live(there) and (there["kernel"] == kernel() or not _is_free(lock, fcntl.LOCK_SH)):
            return str(there["holder"])
    return None


@contextmanager
def _flock(file: Path) -> Iterator[None]:
    with _taken(file) as lock:
        _write(lock, this_process())
        done, lost = threading.Event(), threading.Event()
        watching = threading.Thread(target=_watch, args=(lock, file, done, lost), daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()
            _write(lock, {})
        if lost.is_set():
            raise LockedError(f"{file}: was removed while the campaign ran, so that another process may; run again")


def _taken(file: Path) -> IO[str]:
    until = time.monotonic() + PATIENCE_S
    while True:
        lock = file.open("a+")
        if _is_free(lock, fcntl.LOCK_EX):
            if _is_at(lock, file):
                return lock
        elif may_live(there := _record(lock)) or time.monotonic() > until:
            lock.close()
            raise locked_error(file, there["holder"] if may_live(there) else "of an unknown name")
        lock.close()
        time.sleep(PATIENCE_S / 20)


def _watch(lock: IO[str], file: Path, done: threading.Event, lost: threading.Event) -> None:
    """See until done that the lock's file is in its place; ask the stages to stop when it is not."""
    while not done.wait(LOOKED_AT_EVERY_S):
        if not _is_at(lock, file):
            lost.set()
            request_stop()
            return


def _is_at(lock: IO[str], file: Path) -> bool:
    """Tell whether it is the file of that name, which may have been removed and made anew."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), file.stat())
    except OSError:  # it is gone, or was removed by another host
        return False


def _is_free(lock: IO[str], kind: int) -> bool:
    """Take the lock, exclusive or shared, if nobody has it."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _record(lock: IO[str]) -> Record:
    lock.seek(0)
    text = lock.read().strip()
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError):
        return {"holder": text, "kernel": ""}  # of an earlier version


def _write(lock: IO[str], record: Record) -> None:
    lock.truncate(0)
    lock.write(json.dumps(record) if record else "")
    lock.flush()
