"""Processes that stay: started in the background with a log each, written down, and ended together.

A process is known by its id and by when it started, since ids are given out again. What it starts in turn carries a
mark in its environment, and is found by that even when the process between them is gone.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
from pydantic import BaseModel, Field, ValidationError

from cereals_core.errors import ServicesError
from tasks.store.storage import write_atomically

MARK = "CEREALS_SERVICES"
SAME_START_S = 1.0
"""Clocks that are set change what a system says of its processes' start by less than this."""
KILLED_S = 10.0


class Service(BaseModel):
    """A process that was started: its id, when it started in seconds since the epoch, and its log."""

    pid: int
    started: float
    log: Path


class State(BaseModel):
    """What is written down between two commands."""

    mark: str = Field(default_factory=lambda: uuid4().hex)
    port: int | None = None
    services: dict[str, Service] = {}


class Services:
    """The services of a home folder, by name and in the order of their start."""

    def __init__(self, home: Path) -> None:
        self.file, self.logs = home / "services.json", home / "logs"
        self.state = _read(self.file)

    def process(self, name: str) -> psutil.Process | None:
        """Find the process of a service; None if it was not started or is gone."""
        service = self.state.services.get(name)
        try:
            process = psutil.Process(service.pid) if service else None
            if service is None or process is None or abs(process.create_time() - service.started) > SAME_START_S:
                return None
        except psutil.NoSuchProcess:
            return None
        return None if _is_gone(process) else process

    def start(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start a service away from this terminal and write it down; its output goes to its log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as output, _heeding_interrupts():
            process = subprocess.Popen(
                command,
                env={**os.environ, **environment, MARK: self.state.mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.state.services[name] = Service(pid=process.pid, started=psutil.Process(process.pid).create_time(), log=log)
        self.save()

    def save(self) -> None:
        """Write the services down."""
        write_atomically(self.file, self.state.model_dump_json(indent=1).encode())

    def require(self, name: str) -> None:
        """Raise ServicesError with the end of its log if a service is gone."""
        if self.process(name) is None:
            log = self.state.services[name].log
            lines = log.read_text(errors="replace").splitlines()[-8:]
            raise ServicesError(f"{name}: has ended; the end of {log} says why\n" + "\n".join(lines))

    def end(self, wait_s: float) -> list[str]:
        """End what services run, then them, the last started first; the names of those that ran.

        Each has `wait_s` from SIGTERM to SIGKILL; what they run comes first, so that it can tell the server its end.
        """
        alive = {name: process for name in self.state.services if (process := self.process(name))}
        _end(self._topmost_runs(alive.values()), wait_s)
        for process in reversed(alive.values()):
            _end([process], wait_s)
        _end(self._marked().values(), 0)
        self.file.unlink(missing_ok=True)
        return list(alive)

    def _topmost_runs(self, services: Iterable[psutil.Process]) -> list[psutil.Process]:
        """List what services have started, without what that has started in turn."""
        marked, own = self._marked(), {process.pid for process in services}
        above = marked.keys() - own
        runs = []
        for pid in above:
            with suppress(psutil.NoSuchProcess):
                if marked[pid].ppid() not in above:
                    runs.append(marked[pid])
        return runs

    def _marked(self) -> dict[int, psutil.Process]:
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # of other users, or gone by now
                if process.environ().get(MARK) == self.state.mark:
                    found[process.pid] = process
        return found


@contextmanager
def _heeding_interrupts() -> Iterator[None]:
    """Let what is started heed SIGINT, by which workers end; a script's `&` makes everything below it ignore that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _read(file: Path) -> State:
    try:
        return State.model_validate_json(file.read_text()) if file.exists() else State()
    except ValidationError:
        raise ServicesError(
            f"{file}: not readable; end the processes whose environment has {MARK}, and remove that file"
        ) from None


def _end(processes: Iterable[psutil.Process], wait_s: float) -> None:
    """Send SIGTERM, and SIGKILL to those left after a while; psutil signals no process that took over an id."""
    left = list(processes)
    for send, patience_s in ((psutil.Process.terminate, wait_s), (psutil.Process.kill, KILLED_S)):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                send(process)
        until = time.monotonic() + patience_s
        while (left := [process for process in left if not _is_gone(process)]) and time.monotonic() < until:
            time.sleep(0.1)


def _is_gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
