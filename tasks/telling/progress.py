"""Progress of long work, told to whoever listens in this thread; and a clean stop between two steps."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Protocol

from rich.console import Console

from cereals_core.errors import CerealsError
from tasks.telling.tracking import Reached, Sink, Tracker

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


class Listener(Protocol):
    """Whoever is told of the work of a thread, and may call it off."""

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        """Open what shows a piece of work that is about to begin."""

    def is_cancelled(self) -> bool:
        """Tell whether nobody waits for the work any more."""


class Nobody:
    """Listens to nothing."""

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        """Open nothing."""
        return ()

    def is_cancelled(self) -> bool:
        """Tell that the work is wanted."""
        return False


_listener: ContextVar[Listener] = ContextVar("listener", default=Nobody())  # noqa: B039  (it holds nothing)


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


class Advance(Protocol):
    """What to call after a unit of work."""

    def __call__(self, note: str = "", units: int = 1) -> None:
        """Count some units, and show a remark beside the bar."""


_advance: ContextVar[Advance | None] = ContextVar("advance", default=None)


@contextmanager
def tracker(
    what: str, total: int, unit: str, done: int = 0, at_most: bool = False, sinks: Sequence[Sink] = ()
) -> Iterator[Tracker]:
    """Follow `total` units of work, `done` of them already; tell this thread's listener of it, and `sinks`.

    `at_most`: the work may end before the total is reached.
    """
    begun = Reached(what, unit, done, total, 0.0, at_most=at_most)
    made = Tracker(begun, [*_listener.get().sinks(begun), *sinks])
    whole = False
    try:
        yield made
        whole = True
    finally:
        made.end(whole)


@contextmanager
def track(
    what: str, total: int, unit: str, done: int = 0, at_most: bool = False, sinks: Sequence[Sink] = ()
) -> Iterator[Advance]:
    """Show progress over `total` units of work, or `at_most` so many, `done` of them already, as `tracker` does.

    Yields the function to call after each.
    """
    with tracker(what, total, unit, done, at_most, sinks) as followed:

        def advance(note: str = "", units: int = 1) -> None:
            followed.advance(note, units)
            stop_if_requested()

        token = _advance.set(advance)
        try:
            yield advance
        finally:
            _advance.reset(token)


def advance_here() -> bool:
    """Count a unit of the work that is tracked around this call; tell whether there is such in this process.

    Otherwise, on a worker, whoever handed out the work has to count it.
    """
    advance: Callable[[], None] | None = _advance.get()
    if advance is None:
        stop_if_requested()
        return False
    advance()
    return True
