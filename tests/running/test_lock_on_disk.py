"""The lock on a disk: looks take nothing, the dead are not named, and a lock file that goes is noticed."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cereals_core.errors import LockedError
from tasks.running import lock as locks
from tasks.running.holder import kernel, this_process
from tasks.running.lock import holder_of, locked
from tasks.telling import progress
from tasks.telling.progress import Interrupted, stop_if_requested


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short times, and nobody is asked to stop after the test."""
    monkeypatch.setattr(locks, "LOOKED_AT_EVERY_S", 0.05)
    yield
    progress._stop.clear()


def test_writers_come_in_while_others_look(tmp_path: Path) -> None:
    file, done = tmp_path / "lock", threading.Event()

    def look() -> None:
        while not done.is_set():
            holder_of(file)

    lookers = [threading.Thread(target=look) for _ in range(4)]
    for each in lookers:
        each.start()
    try:
        for _ in range(300):
            with locked(file):
                pass
    finally:
        done.set()
        for each in lookers:
            each.join()


def test_nobody_holds_it_once_its_holder_has_left_or_died(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    assert holder_of(file) is None
    with locked(file):
        assert holder_of(file) == this_process()["holder"]
    assert holder_of(file) is None
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead = {"holder": f"{ended.pid} on here", "kernel": kernel(), "pid": ended.pid, "started": 1.0}
    file.write_text(json.dumps(dead))
    assert holder_of(file) is None


def test_who_came_in_before_writing_its_name_is_not_taken_for_the_dead_one_before(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with locked(file):
        file.write_text(json.dumps({**this_process(), "holder": "7 on here", "started": 1.0}))
        with pytest.raises(LockedError, match="process of an unknown name is running it"), locked(file):
            pass


@pytest.mark.parametrize("name", ["7 on elsewhere", ""])
def test_a_holder_of_another_host_is_named_while_the_file_is_locked(name: str, tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with locked(file):
        file.write_text(json.dumps({**this_process(), "holder": name, "kernel": "another"}))
        assert holder_of(file) == (name or None)
    file.write_text(json.dumps({**this_process(), "holder": name, "kernel": "another"}))
    assert holder_of(file) is None


@pytest.mark.parametrize("again", [True, False])
def test_a_lock_file_that_is_removed_ends_the_work_and_is_told(again: bool, tmp_path: Path) -> None:
    file = tmp_path / "lock"

    def work() -> None:
        with locked(file):
            file.unlink()
            if again:
                file.touch()
            until = time.monotonic() + 5
            while time.monotonic() < until:
                stop_if_requested()
                time.sleep(0.01)

    with pytest.raises((Interrupted, LockedError)) as told:
        work()
    assert isinstance(told.value, Interrupted) or "was removed while the campaign ran" in str(told.value)


def test_a_lock_file_that_is_removed_while_it_is_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, tries = tmp_path / "lock", []
    is_free = locks._is_free

    def removed_first(lock: object, kind: int) -> bool:
        if not tries:
            file.unlink()
        tries.append(kind)
        return is_free(lock, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(locks, "_is_free", removed_first)
    with locked(file):
        assert holder_of(file) == this_process()["holder"]
    assert len(tries) == 2
