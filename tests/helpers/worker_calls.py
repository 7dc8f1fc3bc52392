"""What tests have Dask workers do; it imports little, so that workers know it soon."""

import os
import signal
import sys
import time
from importlib import import_module
from pathlib import Path


def slowly(number: int) -> int:
    """The number, after a while: the first ones take longest."""
    time.sleep(0.2 if number < 2 else 0.02)
    return number


def failing(error: Exception) -> None:
    """Raise it."""
    raise error


def killed_once(marks: Path, number: int) -> int:
    """The number; the first worker that is asked for 3 dies of it, for real and without a word."""
    if number == 3:
        try:
            (marks / "killed").touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def killed(number: int) -> None:
    """Die, whoever is asked."""
    os.kill(os.getpid(), signal.SIGKILL)


def marked(marks: Path, number: int) -> int:
    """The number, once it has left a mark and slept."""
    (marks / str(number)).touch()
    time.sleep(0.3)
    return number


def until_stopped(marks: Path, number: int) -> None:
    """Work until it is asked to stop."""
    stop_if_requested = import_module("tasks.telling.progress").stop_if_requested
    (marks / "begun").touch()
    try:
        while True:
            stop_if_requested()
            time.sleep(0.02)
    finally:
        (marks / type(sys.exc_info()[1]).__name__).touch()


def kill_at(owner: str, name: str, calls: int) -> None:
    """Have this process die at so many calls from now of a function, named by its module or class and its name."""
    module, _, inside = owner.partition(":")
    place = import_module(module)
    place = getattr(place, inside) if inside else place
    real, left = getattr(place, name), [calls]

    def fatal(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(place, name, fatal)


def save_every_epoch() -> None:
    """Have trainings of this process leave a checkpoint after every epoch."""
    import_module("tasks.training").CHECKPOINT_EVERY_S = 0.0  # type: ignore[attr-defined]
