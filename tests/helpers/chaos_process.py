"""Attempts at a campaign in forked processes that end before a chosen file system operation, or after some seconds.

A process that has imported everything forks a child for each attempt: imports take seconds and are paid once. It must
have no threads of its own, as those are not copied; so tests start `chaos.py` as a process and never fork themselves.
"""

import json
import mmap
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOSPC
from pathlib import Path
from select import select
from typing import Any

from cereals_core.errors import CerealsError

HANGS_AFTER_S = 300.0
WRITES = frozenset({"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"})


@dataclass(frozen=True)
class Fuse:
    """When an attempt dies: before the `count`-th write in its folder that `pattern` matches, or `seconds` after it
    first looked there, and so was through with what comes before.

    With an `errno` it does not die: the write raises that OSError; if that is ENOSPC, so do all that need space from
    then on.
    """

    pattern: str = ""
    count: int = 0
    seconds: float = HANGS_AFTER_S
    errno: int = 0


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: what it returned, or the error it raised, or neither if it was killed or hung.

    `last` is the last thing it did in its folder, and `writes` the number of its writes there.
    """

    last: str
    writes: int
    elapsed_s: float
    returned: str | None = None
    error: str | None = None
    is_ours: bool = False
    trace: str = ""
    hung: bool = False

    @property
    def killed(self) -> bool:
        """Whether it died by the signal."""
        return self.returned is None and self.error is None and not self.hung


def attempt(call: Callable[[], str], folder: Path, fuse: Fuse, log: Path) -> Outcome:
    """Run `call` in a child until it returns, raises, or the fuse burns down; it logs to a file."""
    board, (reader, writer) = mmap.mmap(-1, 4096), os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(call, folder, fuse, board, writer, log)
    os.close(writer)
    said = _read(reader, fuse.seconds, board)
    if said is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    found: dict[str, Any] = json.loads(said) if said else {}
    if not said and not os.WIFSIGNALED(status):
        found = {"error": f"the process ended with status {status} and said nothing"}
    last, writes = _posted(board)
    hung = said is None and fuse.seconds >= HANGS_AFTER_S
    return Outcome(last, writes, time.monotonic() - started, hung=hung, **found)


def _read(reader: int, seconds: float, board: mmap.mmap) -> bytes | None:
    """All that the child says, or None if it says nothing for so long after its first operation."""
    patience = time.monotonic() + HANGS_AFTER_S
    with os.fdopen(reader, "rb") as stream:
        while not board[0] and time.monotonic() < patience:
            if select([stream], [], [], 0.01)[0]:
                return stream.read()
        return stream.read() if select([stream], [], [], seconds)[0] else None


def _run(call: Callable[[], str], folder: Path, fuse: Fuse, board: mmap.mmap, writer: int, log: Path) -> None:
    """The child: nothing of the parent's runs after it."""
    with log.open("ab") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    watch(folder, fuse, board)
    said: dict[str, Any]
    try:
        said = {"returned": call()}
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is told)
        text = f"{type(error).__name__}: {error}"
        said = {"error": text, "is_ours": isinstance(error, CerealsError), "trace": traceback.format_exc()}
    with os.fdopen(writer, "wb") as stream:
        stream.write(json.dumps(said).encode())
    os._exit(0)


def watch(folder: Path, fuse: Fuse, board: mmap.mmap) -> None:
    """Post every operation in `folder` on the board, and end before the one that the fuse names."""
    pattern, where, seen, writes = re.compile(fuse.pattern), f"{folder}/", 0, 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen, writes
        if event != "open" and event not in WRITES:
            return
        path = str(arguments[0])
        if not path.startswith(where):
            return
        is_write = event != "open" or bool(arguments[2] & os.O_ACCMODE)
        what = f"{'write' if event == 'open' and is_write else event.removeprefix('os.')} {path[len(where) :]}"
        writes += is_write
        _post(board, what, writes)
        if fuse.count and is_write and pattern.search(what):
            seen += 1
            if seen == fuse.count and not fuse.errno:
                os.kill(os.getpid(), signal.SIGKILL)
            needs_space = what.startswith(("write", "mkdir"))
            if fuse.errno and (seen >= fuse.count and needs_space if fuse.errno == ENOSPC else seen == fuse.count):
                raise OSError(fuse.errno, os.strerror(fuse.errno), path)

    sys.addaudithook(hook)


def _post(board: mmap.mmap, what: str, writes: int) -> None:
    line = f"{writes} {what}".encode()[:4000]
    board[: len(line) + 1] = line + b"\0"


def _posted(board: mmap.mmap) -> tuple[str, int]:
    """The last operation, and the number of writes."""
    line = bytes(board).split(b"\0", 1)[0].decode(errors="replace")
    writes, _, what = line.partition(" ")
    return what, int(writes or 0)
