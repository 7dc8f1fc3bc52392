"""Progress of long work: rate and time left on a terminal, nothing in a pipe; and a clean stop between two steps."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from cereals_core.errors import CerealsError

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
    """Raise Interrupted if somebody asked to stop."""
    if _stop.is_set():
        raise Interrupted("stopped on request; run the same command again to go on")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} {task.fields['unit']}/s" if speed else "", style="dim")


class Advance(Protocol):
    """What to call after each unit of work."""

    def __call__(self, note: str = "") -> None:
        """Count one unit, and show a remark beside the bar."""


@contextmanager
def track(what: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
    """Show progress over `total` units of work, `done` of them already; yields the function to call after each."""
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        _Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total, completed=done, unit=unit, note="")

        def advance(note: str = "") -> None:
            progress.update(task, advance=1, note=note)
            stop_if_requested()

        yield advance
