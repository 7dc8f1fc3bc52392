"""Progress of long work, on a terminal and in the Prefect run; and a clean stop between two steps."""

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from cereals_core.errors import CerealsError
from tasks.tracking import Reached, Sink, Tracker

console = Console(stderr=True)
_stop = threading.Event()


class Interrupted(CerealsError):
    """Somebody asked to stop; what was finished is kept."""


def request_stop() -> None:
    """Make every stage stop after its current step."""
    _stop.set()


@contextmanager
def stop_at(moment: datetime | None) -> Iterator[threading.Event]:
    """Ask to stop once `moment` has come, which carries its zone; the event yielded tells whether it has."""
    passed = threading.Event()
    if moment is None:
        yield passed
        return

    def stop() -> None:
        passed.set()
        request_stop()

    timer = threading.Timer(max((moment - datetime.now(moment.tzinfo)).total_seconds(), 0), stop)
    timer.daemon = True
    timer.start()
    try:
        yield passed
    finally:
        timer.cancel()
        if passed.is_set():
            _stop.clear()


def stop_if_requested() -> None:
    """Raise Interrupted if somebody asked to stop, or on a Dask worker if nobody waits for the result."""
    if _stop.is_set() or _is_cancelled():
        raise Interrupted("stopped on request; run the same command again to go on")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} {task.fields['unit']}/s" if speed else "", style="dim")


class Advance(Protocol):
    """What to call after each unit of work."""

    def __call__(self, note: str = "") -> None:
        """Count one unit, and show a remark beside the bar."""


_advance: ContextVar[Advance | None] = ContextVar("advance", default=None)


class Bar:
    """A bar with rate and time left on a terminal; nothing in a pipe."""

    def __init__(self, what: str, total: int, unit: str, done: int) -> None:
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            _Rate(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(what, total=total, completed=done, unit=unit, note="")
        self._bar.start()

    def show(self, reached: Reached) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=reached.done, total=reached.total, note=reached.note)

    def end(self, reached: Reached, whole: bool) -> None:
        """Remove the bar."""
        self._bar.stop()


@contextmanager
def tracker(what: str, total: int, unit: str, done: int = 0, at_most: bool = False) -> Iterator[Tracker]:
    """Follow `total` units of work, `done` of them already, on the terminal and in the Prefect task run, if any.

    `at_most`: the work may end before the total is reached.
    """
    sinks = _worker_sinks() or [Bar(what, total, unit, done), *_run_sinks()]
    made = Tracker(what, total, unit, done, sinks, at_most)
    whole = False
    try:
        yield made
        whole = True
    finally:
        made.end(whole)


def _run_sinks() -> Sequence[Sink]:
    """What shows progress in the current task run; none outside of one, for which Prefect is not imported."""
    if "prefect" not in sys.modules:
        return ()
    from tasks.run_progress import run_sinks

    return run_sinks()


def _is_cancelled() -> bool:
    if "distributed" not in sys.modules:
        return False
    from tasks.remote_progress import is_cancelled

    return is_cancelled()


def _worker_sinks() -> Sequence[Sink]:
    """What tells progress on a Dask worker to the flow, which shows it; none elsewhere, where Dask is not imported."""
    if "distributed" not in sys.modules:
        return ()
    from tasks.remote_progress import worker_sinks

    return worker_sinks()


@contextmanager
def track(what: str, total: int, unit: str, done: int = 0, at_most: bool = False) -> Iterator[Advance]:
    """Show progress over `total` units of work, or `at_most` so many, `done` of them already.

    Yields the function to call after each.
    """
    with tracker(what, total, unit, done, at_most) as followed:

        def advance(note: str = "") -> None:
            followed.advance(note)
            stop_if_requested()

        token = _advance.set(advance)
        try:
            yield advance
        finally:
            _advance.reset(token)


def advance_here() -> bool:
    """Count a unit of the work that is tracked around this call; whether there is such in this process.

    Otherwise, on a worker, whoever handed out the work has to count it.
    """
    advance = _advance.get()
    if advance is None:
        stop_if_requested()
        return False
    advance()
    return True
