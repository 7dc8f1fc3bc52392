"""A command in a terminal of its own: keys reach its whole foreground group, and hanging up is told to it."""

import os
import pty
import select
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


class Terminal:
    """A process, the leader of the terminal's session, and what it has written so far."""

    def __init__(self, command: Sequence[object], **environment: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the tests may ignore, as under nohup
            os.execvpe(str(command[0]), list(map(str, command)), {**os.environ, **environment})
        self.written, self.code = "", None

    def read(self) -> None:
        """Take what is there to read."""
        while select.select([self._master], [], [], 0)[0]:
            try:
                some = os.read(self._master, 1 << 16)
            except OSError:  # nobody writes there any more
                return
            if not some:
                return
            self.written += some.decode(errors="replace")

    def wait_for(self, happens: Callable[[], object], seconds: float = 120) -> float:
        """Read until something happens; the seconds that took."""
        started = time.monotonic()
        while not happens():
            self.read()
            assert time.monotonic() - started < seconds, self.written
            time.sleep(0.02)
        return time.monotonic() - started

    @property
    def has_ended(self) -> bool:
        """Whether the process waits to be asked for its code."""
        return psutil.Process(self.pid).status() == psutil.STATUS_ZOMBIE

    def lasts(self, seconds: float) -> bool:
        """Read for so long; whether the process is there after that."""
        until = time.monotonic() + seconds
        self.wait_for(lambda: self.has_ended or time.monotonic() > until, seconds + 5)
        return not self.has_ended

    def press_ctrl_c(self) -> None:
        """Send SIGINT as the terminal does: to the foreground group."""
        os.write(self._master, b"\x03")

    def hang_up(self) -> None:
        """Close the terminal."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDONLY)

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        os.kill(self.pid, number)

    def end(self, seconds: float = 60) -> float:
        """Wait for the end of the process; the seconds that took. `code` is its exit code, negative for a signal."""

        def has_ended() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            return bool(pid)

        taken = self.wait_for(has_ended, seconds)
        self.read()
        return taken

    def server(self) -> psutil.Process:
        """The embedded server of the process, once there is one."""
        self.wait_for(self.servers)
        return self.servers()[0]

    def servers(self) -> list[psutil.Process]:
        """The embedded server of the process, if there is one now."""
        with suppress(psutil.NoSuchProcess):
            return [each for each in psutil.Process(self.pid).children() if "deployments.embedded" in each.cmdline()]
        return []


@contextmanager
def terminal(command: Sequence[object], home: Path, **environment: str) -> Iterator[Terminal]:
    """A command in a terminal, with a home folder of its own; it is killed if it is still there at the end."""
    made = Terminal(command, HOME=str(home), PREFECT_HOME=str(home / "prefect"), PREFECT_API_URL="", **environment)
    try:
        yield made
    finally:
        if made.code is None:
            with suppress(ProcessLookupError):
                os.kill(made.pid, signal.SIGKILL)
            made.end()
