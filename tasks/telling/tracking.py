"""How far a piece of work has come, told to whatever shows it: a terminal, a Prefect run, another process."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tasks.pages.wording import duration


@dataclass(frozen=True)
class Reached:
    """How far a piece of work has come: `done` of `total` units, at `rate` units a second (0: not known yet).

    `at_most`: the work may end before the total is reached, as training does when it converges.
    """

    what: str
    unit: str
    done: int
    total: int
    rate: float
    note: str = ""
    at_most: bool = False

    @property
    def percent(self) -> float:
        """Share of the work that is done, in [0, 100]."""
        return min(100.0 * self.done / self.total, 100.0) if self.total else 100.0

    def __str__(self) -> str:
        """`demo round 3 info-map: 1,280 of 20,000 images, 41 images/s, 7 min 37 s left`."""
        limit = "at most " if self.at_most else ""
        parts = [f"{self.what}: {self.done:,} of {limit}{self.total:,} {self.unit}"]
        if self.rate > 0:
            digits = ",.0f" if self.rate >= 100 else ".3g"
            pace = f"{self.rate:{digits}} {self.unit}/s" if self.rate >= 1 else f"{duration(1 / self.rate)} each"
            left_s = (self.total - self.done) / self.rate
            parts += [pace, f"{limit}{duration(left_s)} left"] if left_s > 0 else [pace]
        return ", ".join([*parts, self.note] if self.note else parts)


class Sink(Protocol):
    """Somewhere progress is shown."""

    def show(self, reached: Reached) -> None:
        """Tell how far the work is; called after every unit, so that it has to be quick."""

    def end(self, reached: Reached, whole: bool) -> None:
        """Tell that nothing more comes; `whole`: the work ended well, all of it."""


class Tracker:
    """Progress of one piece of work, told to sinks; threads may share it. `begun` is how it stood at the start."""

    def __init__(self, begun: Reached, sinks: Sequence[Sink]) -> None:
        self._sinks, self._lock = sinks, threading.Lock()
        self._started, self._first, self._reached = time.monotonic(), begun.done, begun

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell that `done` of `total` units are there."""
        with self._lock:
            self._show(done, total, note)

    def advance(self, note: str = "", units: int = 1) -> None:
        """Tell that so many more units are there."""
        with self._lock:
            self._show(self._reached.done + units, self._reached.total, note)

    def _show(self, done: int, total: int, note: str) -> None:
        elapsed_s = time.monotonic() - self._started
        rate = (done - self._first) / elapsed_s if elapsed_s > 0 else 0.0
        self._reached = replace(self._reached, done=done, total=total, rate=rate, note=note)
        for sink in self._sinks:
            sink.show(self._reached)

    def end(self, whole: bool) -> None:
        """Tell that nothing more comes."""
        with self._lock:
            for sink in self._sinks:
                sink.end(self._reached, whole)
