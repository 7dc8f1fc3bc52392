"""Progress of calls on Dask workers: told there as events, shown in the process of the flow."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from distributed import Client, Future, get_worker

from tasks.telling.progress import Tracker, track
from tasks.telling.tracking import Listener, Reached, Sink

TOPIC = "cereals-progress"
EVERY_S = 1.0
Event = dict[str, Any]


class Call(Listener):
    """Listens on a Dask worker to the call of this thread: tells the flow, and knows whether that has called it off."""

    def __init__(self) -> None:
        self._worker = get_worker()
        self._name = str(self._worker.get_current_task())

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        """Open what tells the flow, which shows it."""
        return (Events(self._name),)

    def is_cancelled(self) -> bool:
        """Tell whether nobody waits for the call any more, as when the flow has died."""
        task = self._worker.state.tasks.get(self._name)
        return task is None or task.state == "cancelled"


class Events(Sink):
    """Sends what it is told to the clients of the cluster, once a second."""

    def __init__(self, call: str) -> None:
        self._call, self._next = call, 0.0

    def show(self, reached: Reached) -> None:
        """Send it if that is due."""
        if monotonic() >= self._next:
            self._send(reached, ended=False)
            self._next = monotonic() + EVERY_S

    def end(self, reached: Reached, whole: bool) -> None:
        """Send it as the last of this work."""
        self._send(reached, ended=True)

    def _send(self, reached: Reached, ended: bool) -> None:
        get_worker().log_event(TOPIC, {"call": self._call, "ended": ended, **asdict(reached)})


class Calls:
    """Events of all calls of a client, kept until the thread that waits for a call shows them."""

    def __init__(self, client: Client) -> None:
        self._events: dict[str, SimpleQueue[Event]] = defaultdict(SimpleQueue)
        client.subscribe_topic(TOPIC, lambda event: self._events[event[1]["call"]].put(event[1]))

    def follower(self, future: "Future[Any]") -> "Follower":
        """Show how far a call has come."""
        return Follower(self._events[str(future.key)])


class Follower:
    """Shows in this thread's task run, and on the terminal, what a call on a worker tells."""

    def __init__(self, events: "SimpleQueue[Event]") -> None:
        self._events, self._open = events, ExitStack()
        self._tracker: Tracker | None = None

    def show_new(self) -> None:
        """Show all that came since the last time."""
        try:
            while True:
                self._show(dict(self._events.get_nowait()))
        except Empty:
            return

    def _show(self, event: Event) -> None:
        reached = Reached(**{each.name: event[each.name] for each in fields(Reached)})
        if self._tracker is None:
            self._tracker = self._open.enter_context(track(reached.what, reached.total, reached.unit, reached.done))
        self._tracker.update(reached.done, reached.total, reached.note)
        if event["ended"]:
            self.close()

    def close(self) -> None:
        """End this piece of work, of which nothing more comes; the call may have another."""
        self._open.close()
        self._tracker = None
