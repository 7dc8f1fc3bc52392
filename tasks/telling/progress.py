"""Progress of long work, told to whoever listens in this thread; and a clean stop between two steps."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import datetime

from rich.console import Console

from cereals_core.errors import CerealsError
from tasks.telling.tracking import Listener, Reached, Sink

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


_listener: ContextVar[Listener] = ContextVar("listener", default=Listener())  # noqa: B039  (it holds nothing)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Have the work of this thread told to a listener until the block ends."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def stop_if_requested() -> None:
    """Raise Interrupted if somebody asked to stop, or if nobody waits for this thread's work."""
    if _stop.is_set() or _listener.get().is_cancelled():
        raise Interrupted("stopped on request; run the same command again to go on")


class Tracker:
    """Progress of one piece of work, told to sinks; threads may share it. `begun` is how it stood at the start."""

    def __init__(self, begun: Reached, sinks: Sequence[Sink]) -> None:
        self._sinks, self._lock = sinks, threading.Lock()
        self._started, self._begun, self.reached = time.perf_counter(), begun, begun

    @property
    def counted(self) -> int:
        """Units that were counted since the start."""
        return self.reached.done - self._begun.done

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._started

    def __call__(self, note: str = "", units: int = 1) -> None:
        """Count some units, and show a remark beside the bar; raise Interrupted as `stop_if_requested`."""
        with self._lock:
            self._show(self.reached.done + units, self.reached.total, note)
        stop_if_requested()

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell that `done` of `total` units are there."""
        with self._lock:
            self._show(done, total, note)

    def _show(self, done: int, total: int, note: str) -> None:
        rate = (done - self._begun.done) / max(self.elapsed_s, 1e-9)
        self.reached = replace(self.reached, done=done, total=total, rate=rate, note=note)
        for sink in self._sinks:
            sink.show(self.reached)

    def end(self, whole: bool) -> None:
        """Tell that nothing more comes; `whole`: the work ended well, all of it."""
        with self._lock:
            for sink in self._sinks:
                sink.end(self.reached, whole)


_tracked: ContextVar[Tracker | None] = ContextVar("tracked", default=None)


@contextmanager
def track(what: str, total: int, unit: str, done: int = 0, at_most: bool = False) -> Iterator[Tracker]:
    """Follow `total` units of work, `done` of them already, and tell this thread's listener of it.

    Yields what to call after each. `at_most`: the work may end before the total is reached.
    """
    begun = Reached(what, unit, done, total, 0.0, at_most=at_most)
    tracker, whole = Tracker(begun, _listener.get().sinks(begun)), False
    token = _tracked.set(tracker)
    try:
        yield tracker
        whole = True
    finally:
        _tracked.reset(token)
        tracker.end(whole)


def advance_here() -> bool:
    """Count a unit of the work that is tracked around this call; tell whether there is such in this process.

    Otherwise, on a worker, whoever handed out the work has to count it.
    """
    tracker = _tracked.get()
    if tracker is None:
        stop_if_requested()
        return False
    tracker()
    return True
