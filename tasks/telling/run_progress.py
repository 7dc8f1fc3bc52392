"""Progress of a stage in its Prefect task run: lines in the log, and a progress artifact beside the task.

Nothing here may break or hold up a stage: what the server does not take is not shown.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import replace
from threading import Thread
from time import monotonic
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from tasks.telling.terminal import Terminal
from tasks.telling.tracking import Reached, Sink

LOG_EVERY_S = 30.0
ARTIFACT_AFTER_S = 10.0
"""Work that takes less leaves no artifact."""
ARTIFACT_EVERY_S = 10.0
WAIT_FOR_SERVER_S = 5.0
"""So long the end of a stage waits for the last update."""
Logger = logging.Logger | logging.LoggerAdapter[Any]


class Due:
    """Whether it is time again: first after `first_s`, then every `every_s`, in long work every 2 % of its time."""

    def __init__(self, first_s: float, every_s: float) -> None:
        self._started, self._every_s = monotonic(), every_s
        self._next = self._started + first_s

    def __bool__(self) -> bool:
        """Return True once each time."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + max(self._every_s, 0.02 * (now - self._started))
        return True


def _named(reached: Reached, run_name: str) -> Reached:
    """Name it by the task run, which tells campaign, round and stage; a part of it in brackets."""
    what = run_name if run_name.endswith(reached.what) else f"{run_name} ({reached.what})"
    return replace(reached, what=what)


class RunLog(Sink):
    """A line in the run's log now and then; what a stage has made is logged when it is there."""

    def __init__(self, run_name: str, logger: Logger) -> None:
        self._run_name, self._logger = run_name, logger
        self._due = Due(LOG_EVERY_S, LOG_EVERY_S)

    def show(self, reached: Reached) -> None:
        """Write a line if one is due."""
        if self._due:
            self._logger.info("%s", _named(reached, self._run_name))


class RunArtifact(Sink):
    """A progress artifact of the task run, without a key, so that the page of all artifacts does not list it.

    It is made and moved in a thread: a server that is slow or gone holds up nothing.
    """

    def __init__(self, run_name: str) -> None:
        self._run_name, self._context = run_name, copy_context()
        self._due = Due(ARTIFACT_AFTER_S, ARTIFACT_EVERY_S)
        self._id: UUID | None = None
        self._sending: Thread | None = None

    def show(self, reached: Reached) -> None:
        """Move it, or make it, if that is due and the last time has come to an end."""
        if not self._is_sending() and self._due:
            self._send(reached.percent, str(_named(reached, self._run_name)))

    def end(self, reached: Reached, whole: bool) -> None:
        """Move it to 100 % if the work is whole; it stays where it was if not."""
        if self._sending is None:
            return
        self._sending.join(WAIT_FOR_SERVER_S)
        if whole and not self._is_sending():
            what = _named(reached, self._run_name).what
            self._send(100.0, f"{what}: done, {reached.done:,} {reached.unit}").join(WAIT_FOR_SERVER_S)

    def _is_sending(self) -> bool:
        return self._sending is not None and self._sending.is_alive()

    def _send(self, percent: float, text: str) -> Thread:
        self._sending = Thread(target=self._context.run, args=(self._put, percent, text), daemon=True)
        self._sending.start()
        return self._sending

    def _put(self, percent: float, text: str) -> None:
        with suppress(Exception):
            if self._id is None:
                self._id = cast(UUID, create_progress_artifact(percent, description=text))
            else:
                update_progress_artifact(self._id, percent, description=text)


class RunListener(Terminal):
    """Listens for whoever sits at the terminal, and for the current task run in Prefect."""

    def __init__(self) -> None:
        self._name, self._logger = TaskRunContext.get().task_run.name, get_run_logger()  # type: ignore[union-attr]

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        """Open a bar, lines in the run's log, and an artifact."""
        return (*super().sinks(reached), RunLog(self._name, self._logger), RunArtifact(self._name))
