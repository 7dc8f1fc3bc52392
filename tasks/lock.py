"""One writer a campaign: a lock that a dead writer loses by itself, on a disk or in an object store."""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import psutil

from cereals_core.errors import LockedError, SettingsError
from cereals_core.location import is_on_disk
from tasks.progress import console, request_stop
from tasks.storage import explained

RENEWED_EVERY_S = 10.0
"""A writer renews its lease in an object store so often."""
SILENCE_S = 25.0
"""A writer that could not renew for so long stops: it has to be out before its lease belongs to nobody."""
DEAD_AFTER_S = 60.0
"""A lease that was not renewed for so long, by the watch of who wants it, belongs to nobody."""
PATIENCE_S = 5.0
"""How long one request may take; a renewal makes three at most."""
_REFUSALS = {"PreconditionFailed", "ConditionalRequestConflict", "NoSuchKey"}
"""How S3 says that a condition does not hold."""
Lease = dict[str, Any]
"""What is in the object, and its version in the store as `etag`; empty if there is none."""


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock at `file`; LockedError, with the name of its holder, while somebody else does.

    On a disk the system frees it when the process ends, however (flock; on a disk shared by NFS, for all hosts). In an
    object store it is a lease that its holder renews; one that is no longer renewed can be taken over. Who loses it is
    asked to stop, and gets LockedError as well. SettingsError when the store cannot be written.
    """
    with _flock(file) if is_on_disk(file) else _Keeper(file).holding():
        yield


def holder_of(file: Path) -> str | None:
    """Who holds the lock at `file`, in words, or None; nothing is locked. A holder on another host may have died."""
    if not is_on_disk(file):
        lease = _Object(file).read()
        return str(lease["holder"]) if _may_live(lease) else None
    if not file.exists():
        return None
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


class _Object:
    """A small object that is written on conditions. Every request ends soon, answered or not."""

    def __init__(self, file: Path) -> None:
        self.file, self.store = file, cast(Any, file).fs
        self.bucket, self.key, _ = self.store.split_path(str(file))
        self._unanswered: set[str] = set()

    def read(self) -> Lease:
        """What it says, and its version; nothing if it is missing."""
        try:
            etag = self.store.info(str(self.file), refresh=True, timeout=PATIENCE_S)["ETag"]
            return {**json.loads(self.store.cat_file(str(self.file), timeout=PATIENCE_S)), "etag": etag}
        except FileNotFoundError:
            return {}

    def write(self, lease: Lease, **condition: str) -> str | None:
        """Its new version; None when the condition does not hold."""
        mark = uuid.uuid4().hex
        self._unanswered.add(mark)
        request = {"Bucket": self.bucket, "Key": self.key, "Body": json.dumps({**lease, "mark": mark}).encode()}
        try:
            etag = str(self.store.call_s3("put_object", **request, **condition, timeout=PATIENCE_S)["ETag"])
        except OSError as error:
            if not _is_refusal(error):
                raise
            there = self.read()  # may be what was written here, if that was not answered
            return there["etag"] if there.get("mark") in self._unanswered else None
        self._unanswered.clear()
        return etag


class _Keeper:
    """Takes the lease, renews it in a thread and gives it back."""

    def __init__(self, file: Path) -> None:
        self.object, self.file = _Object(file), file
        self.process = {"holder": _this_process(), "kernel": _kernel(), "pid": os.getpid()}
        self.process["started"] = psutil.Process().create_time()
        self.etag, self.lost = "", False

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Hold the lease; LockedError when somebody else does, or did before the block ended."""
        with explained(self.file.parent):
            self._take()
        done = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(done,), daemon=True)
        renewing.start()
        try:
            yield
        finally:
            done.set()
            renewing.join()
            self._give_back()

    def _take(self) -> None:
        etag = self.object.write(self.process, IfNoneMatch="*")
        if etag is None:
            lease = self._outlived(self.object.read())
            etag = self.object.write(self.process, **({"IfMatch": lease["etag"]} if lease else {"IfNoneMatch": "*"}))
        if etag is None:
            raise _locked_error(self.file, self.object.read().get("holder") or "that was faster")
        if self.object.write(self.process, IfNoneMatch="*") is not None:
            raise SettingsError(
                f'folder = "{self.file.parent}": the object store writes whatever the condition, and so cannot keep '
                "two processes apart; use one with conditional writes, or a disk"
            )
        self.etag = etag

    def _outlived(self, lease: Lease) -> Lease:
        """The lease as it is once its holder has left or must be dead; LockedError when it renews."""
        if not _may_live(lease):
            return lease
        console.print(f"{self.file.parent}: is process {lease['holder']} alive? In {DEAD_AFTER_S:.0f} s that is clear")
        now, until = lease, time.monotonic() + DEAD_AFTER_S
        while now.get("holder") and time.monotonic() < until:
            time.sleep(RENEWED_EVERY_S / 5)
            now = self.object.read()
            if now.get("holder") and now["mark"] != lease["mark"]:
                raise _locked_error(self.file, now["holder"])
        return now

    def _renew(self, done: threading.Event) -> None:
        """Renew until done; once the lease is lost, nothing more may be written: ask the stages to stop."""
        renewed = time.monotonic()
        while not done.wait(RENEWED_EVERY_S):
            asked = time.monotonic()
            try:
                etag = self.object.write(self.process, IfMatch=self.etag)
                self.lost, self.etag, renewed = etag is None, etag or self.etag, asked
            except Exception:  # noqa: BLE001  (no answer, of which clients know many kinds, and which may come again)
                self.lost = time.monotonic() - renewed > SILENCE_S
            if self.lost:
                request_stop()
                return

    def _give_back(self) -> None:
        if self.lost:
            raise LockedError(
                f"{self.file.parent}: another process has taken the campaign over, or its store was silent "
                f"for {SILENCE_S:.0f} s, so that one may; run again to go on"
            )
        with suppress(Exception):  # a store that does not answer now: the lease ends by itself
            self.object.write({"holder": None}, IfMatch=self.etag)


def _is_refusal(error: OSError) -> bool:
    response = getattr(error.__cause__, "response", {})
    return response.get("Error", {}).get("Code") in _REFUSALS


def _may_live(lease: Lease) -> bool:
    """Whether its holder may be alive: not if there is none, or if it was a process of this kernel that is gone."""
    if not lease.get("holder"):
        return False
    if lease["kernel"] != _kernel():
        return True
    try:
        process = psutil.Process(lease["pid"])
        return bool(process.create_time() == lease["started"] and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _kernel() -> str:
    """What numbers processes: hosts and containers may share a name, and containers of one host share no numbers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _this_process() -> str:
    return f"{os.getpid()} on {socket.gethostname()}"


def _locked_error(file: Path, holder: str) -> LockedError:
    return LockedError(f"{file.parent}: process {holder} is running it; wait or stop that")
