"""A lease in an object store: an object that its holder renews, and that whoever waits long enough may take over."""

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from cereals_core.errors import LockedError, SettingsError
from tasks.running.holder import Record, locked_error, may_live, this_process
from tasks.store.storage import explained
from tasks.telling.progress import console, request_stop

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
Lease = Record
"""What is in the object, and its version in the store as `etag`; empty if there is none."""


def leaseholder(file: Path) -> str | None:
    """Name who holds the lease at `file`, or None; one on another host may have died."""
    lease = _Object(file).read()
    return str(lease["holder"]) if may_live(lease) else None


class _Object:
    """A small object that is written on conditions. Every request ends soon, answered or not."""

    def __init__(self, file: Path) -> None:
        self.file, self.store = file, cast(Any, file).fs
        self.bucket, self.key, _ = self.store.split_path(str(file))
        self._unanswered: set[str] = set()

    def read(self) -> Lease:
        """Return what it says, and its version; nothing if it is missing."""
        try:
            etag = self.store.info(str(self.file), refresh=True, timeout=PATIENCE_S)["ETag"]
            return {**json.loads(self.store.cat_file(str(self.file), timeout=PATIENCE_S)), "etag": etag}
        except FileNotFoundError:
            return {}

    def write(self, lease: Lease, **condition: str) -> str | None:
        """Write it and return its new version; None when the condition does not hold."""
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


class Keeper:
    """Takes the lease, renews it in a thread and gives it back."""

    def __init__(self, file: Path) -> None:
        self.object, self.file = _Object(file), file
        self.process = this_process()
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
            raise locked_error(self.file, self.object.read().get("holder") or "that was faster")
        if self.object.write(self.process, IfNoneMatch="*") is not None:
            raise SettingsError(
                f'folder = "{self.file.parent}": the object store writes whatever the condition, and so cannot keep '
                "two processes apart; use one with conditional writes, or a disk"
            )
        self.etag = etag

    def _outlived(self, lease: Lease) -> Lease:
        """Wait until its holder has left or must be dead, and return the lease; LockedError when it renews."""
        if not may_live(lease):
            return lease
        console.print(f"{self.file.parent}: is process {lease['holder']} alive? In {DEAD_AFTER_S:.0f} s that is clear")
        now, until = lease, time.monotonic() + DEAD_AFTER_S
        while now.get("holder") and time.monotonic() < until:
            time.sleep(RENEWED_EVERY_S / 5)
            now = self.object.read()
            if now.get("holder") and now["mark"] != lease["mark"]:
                raise locked_error(self.file, now["holder"])
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
