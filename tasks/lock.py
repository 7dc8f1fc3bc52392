"""One writer a campaign: a lock that a dead writer loses by itself, on a disk or in an object store."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psutil

from cereals_core.errors import LockedError
from cereals_core.location import is_on_disk
from tasks.progress import request_stop

RENEWED_EVERY_S = 15.0
"""A writer renews its lease in an object store so often."""
DEAD_AFTER_S = 60.0
"""A lease that was not renewed for so long, by the watch of who wants it, belongs to nobody."""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock at `file`; LockedError, with the name of its holder, while somebody else does.

    On a disk the system frees it when the process ends, however (flock; on a disk shared by NFS, for all hosts). In an
    object store it is a lease that its holder renews; one that is no longer renewed can be taken over.
    """
    with _flock(file) if is_on_disk(file) else _Lease(file).held():
        yield


def holder_of(file: Path) -> str | None:
    """Who holds the lock at `file`, in words, or None; nothing is locked."""
    if not file.exists():
        return None
    if not is_on_disk(file):
        return str(json.loads(file.read_bytes())["holder"])
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            return lock.read().strip()
        return None


@contextmanager
def _flock(file: Path) -> Iterator[None]:
    with file.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise _locked_error(file, lock.read().strip()) from None
        lock.truncate(0)
        lock.write(_this_process())
        lock.flush()
        yield


class _Lease:
    """A small object that names its holder, renewed by writes on condition that nobody else wrote it since."""

    def __init__(self, file: Path) -> None:
        self.file, self.store = file, cast(Any, file).fs
        self.bucket, self.key, _ = self.store.split_path(str(file))
        self.process = {"holder": _this_process(), "host": socket.gethostname(), "pid": os.getpid()}
        self.process["started"] = psutil.Process().create_time()
        self.etag = ""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Take the lease, renew it in a thread, give it back."""
        self._take()
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(done,), daemon=True)
        keeper.start()
        try:
            yield
        finally:
            done.set()
            keeper.join()
            self._give_back()

    def _take(self) -> None:
        if self._write(IfNoneMatch="*"):
            return
        seen = self._read()
        self._watch(seen)
        if not self._write(**({"IfMatch": seen["etag"]} if seen else {"IfNoneMatch": "*"})):
            raise _locked_error(self.file, "that was faster")

    def _watch(self, seen: dict[str, Any]) -> None:
        """Return once the lease's holder must be dead; LockedError when it renews."""
        until = time.monotonic() + (DEAD_AFTER_S if _may_live(seen) else 0)
        while time.monotonic() < until:
            time.sleep(min(RENEWED_EVERY_S / 5, 1.0))
            if self._read() != seen:
                raise _locked_error(self.file, seen["holder"])

    def _keep(self, done: threading.Event) -> None:
        """Renew until done; once the lease is lost, nothing more may be written: ask the stages to stop."""
        renewed = time.monotonic()
        while not done.wait(RENEWED_EVERY_S):
            try:
                lost = not self._write(IfMatch=self.etag)
                renewed = time.monotonic()
            except OSError:  # the store does not answer: it may again, before others take the lease for a dead one
                lost = time.monotonic() - renewed > DEAD_AFTER_S - 2 * RENEWED_EVERY_S
            if lost:
                request_stop()
                return

    def _give_back(self) -> None:
        if self._read().get("etag") == self.etag:
            self.file.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        """The lease and its version in the store; nothing if there is none."""
        try:
            etag = self.store.info(str(self.file), refresh=True)["ETag"]
            return {**json.loads(self.file.read_bytes()), "etag": etag}
        except FileNotFoundError:
            return {}

    def _write(self, **condition: str) -> bool:
        """Write the lease on a condition; whether that held."""
        content = json.dumps({**self.process, "renewal": uuid.uuid4().hex}).encode()
        try:
            written = self.store.call_s3("put_object", Bucket=self.bucket, Key=self.key, Body=content, **condition)
        except OSError as error:
            if "condition" not in str(error).lower():
                raise
            return False
        self.etag = written["ETag"]
        return True


def _may_live(lease: dict[str, Any]) -> bool:
    """Whether its holder may be alive: not if it was a process of this host that is gone."""
    if lease.get("host") != socket.gethostname():
        return bool(lease)
    try:
        return bool(psutil.Process(lease["pid"]).create_time() == lease["started"])
    except psutil.NoSuchProcess:
        return False


def _this_process() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"


def _locked_error(file: Path, holder: str) -> LockedError:
    return LockedError(f"{file.parent}: process {holder} is running it; wait or stop that")
