"""Progress on a terminal: a bar with rate and time left; nothing in a pipe."""

import sys
from collections.abc import Sequence

from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from tasks.telling.progress import console
from tasks.telling.tracking import Listener, Reached, Sink


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.3g} {task.fields['unit']}/s" if speed else "", style="dim")


class Bar(Sink):
    """Shows one piece of work as a bar."""

    def __init__(self, begun: Reached) -> None:
        columns = (
            TextColumn("{task.description}", table_column=Column(no_wrap=True)),
            BarColumn(bar_width=12),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            _Rate(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
        )
        self._bar = Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
        self._task = self._bar.add_task(begun.what, total=begun.total, completed=begun.done, unit=begun.unit, note="")
        self._bar.start()

    def show(self, reached: Reached) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=reached.done, total=reached.total, note=reached.note)

    def end(self, reached: Reached, whole: bool) -> None:
        """Remove the bar."""
        self._bar.stop()


class Terminal(Listener):
    """Listens for whoever sits at the terminal, and calls work off by a signal."""

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        """Open a bar."""
        return (Bar(reached),)
