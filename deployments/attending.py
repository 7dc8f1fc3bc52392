"""Flows that a person runs: a thread runs them, while the main one answers signals and watches over their server."""

import atexit
import contextvars
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from deployments.embedded import EmbeddedServer
from deployments.environment import names_server, prepare_environment, server_named
from tasks.telling.progress import console, request_stop

ANSWERED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TICK_S = 0.2
"""So often signals are answered, and the server is looked at."""
Work = Callable[[], None]


def attend(load: Callable[[], Work], command: str) -> None:
    """Run flows to their end, on an embedded server unless another is named; `command` is what goes on after a stop.

    `load` imports what runs them, while the server comes up, and returns that. The first Ctrl-C, SIGTERM or SIGHUP ends
    the flows after the step in hand, a second one at once; either exits with 128 and the signal's number. ServerError
    when the embedded server ends before the flows.
    """
    prepare_environment()
    server = None if names_server() else _embedded()
    flows = _Flows(load, server)
    with _noting_signals() as signals:
        flows.start()
        _watch(flows, server, signals, command)
    hung_up = signal.SIGHUP in signals  # and what was printed between that and its answer may have failed
    if flows.was_cancelled or (flows.error is not None and hung_up):
        if not signals:  # in Prefect's pages
            typer.echo(f"stopped; `{command}` goes on from here", err=True)
        raise typer.Exit(128 + (signals[0] if signals else signal.SIGINT))
    if flows.error is not None:
        raise flows.error


class _Flows(threading.Thread):
    """Runs the work, and keeps what it raised."""

    def __init__(self, load: Callable[[], Work], server: EmbeddedServer | None) -> None:
        super().__init__(name="flows", daemon=True)
        self._load, self._server, self._context = load, server, contextvars.copy_context()
        self.error: BaseException | None = None
        self.have_begun = False

    def run(self) -> None:
        """Load, wait for the server, and work."""
        try:
            work = self._load()
            if self._server is not None:
                self._server.wait_until_up()
            self.have_begun = True
            self._context.run(self._attempt, work)
        except BaseException as error:  # noqa: BLE001  (raised again by the main thread)
            self.error = error

    def _attempt(self, work: Work) -> None:
        from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

        # Heartbeats tell a server which runs have died; this one ends with its runs, and each would wait for its own.
        silent = {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None} if self._server is not None else {}
        with server_named(), temporary_settings(silent):
            work()

    @property
    def was_cancelled(self) -> bool:
        """Whether it ended because somebody asked it to."""
        if self.error is None:
            return False
        from prefect.exceptions import CancelledRun

        return isinstance(self.error, CancelledRun)


def _embedded() -> EmbeddedServer:
    server = EmbeddedServer()
    atexit.register(server.end)  # before Prefect is imported, and so after what that still sends at the end
    os.environ["PREFECT_API_URL"] = server.url
    if "prefect" in sys.modules:
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    return server


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """Note signals until the block ends, but for a hang-up that is ignored, as under nohup."""
    noted: list[int] = []

    def note(number: int, frame: Any) -> None:
        noted.append(number)

    heeded = (each for each in ANSWERED if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN)
    before = {each: signal.signal(each, note) for each in heeded}
    try:
        yield noted
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _watch(flows: _Flows, server: EmbeddedServer | None, signals: list[int], command: str) -> None:
    """Wait for the flows; answer signals, and leave at once with the second one or without a server."""
    told = False
    while flows.is_alive():
        flows.join(TICK_S)
        if signals and not told:
            told = True
            _tell(signals[0], f"stopping after this step, once more stops at once; `{command}` goes on from here")
            request_stop()
        if len(signals) > 1 or (signals and not flows.have_begun):
            _leave(server, 128 + signals[0])
        if server is not None and server.is_gone and flows.is_alive():
            typer.echo(f"cereals: {server.ended('has ended')}", err=True)
            _leave(server, 1)


def _tell(number: int, line: str) -> None:
    if number == signal.SIGHUP:  # the terminal is gone; whatever is printed from now on goes nowhere
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
    console.print(line, style="yellow", highlight=False, soft_wrap=True)


def _leave(server: EmbeddedServer | None, code: int) -> None:
    """End this process without waiting for its threads: every file is whole or not there, whenever that happens."""
    if server is not None:
        server.end()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
