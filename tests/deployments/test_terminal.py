"""Ending a run from its terminal, from outside, by the death of its server: soon, in one line, and nothing is left."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from command_line import CEREALS, campaign_file, cereals
from terminal import Terminal, terminal

SOON_S = 10.0
"""Beside the step in hand, which takes milliseconds here."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A campaign whose trainings take a while."""
    return campaign_file(tmp_path, max_steps=100_000)


def is_training(file: Path) -> Callable[[], bool]:
    return lambda: any(file.with_suffix("").glob("rounds/000/.train-*"))


def assert_nothing_is_left(process: psutil.Process) -> None:
    until = time.monotonic() + SOON_S
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until, process.cmdline()
        time.sleep(0.05)


def assert_one_line_says(text: str, run: Terminal) -> None:
    assert run.written.count(text) == 1, run.written
    assert not {"Traceback", "Error", "error", "WARNING"} & set(run.written.replace(":", " ").split()), run.written


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda run: run.press_ctrl_c(), 130),
        (lambda run: run.signal(signal.SIGTERM), 143),
        (lambda run: run.hang_up(), 129),
    ],
    ids=["ctrl-c", "sigterm", "hang-up"],
)
def test_a_run_ends_after_its_step(end: Callable[[Terminal], None], code: int, file: Path, tmp_path: Path) -> None:
    with terminal([CEREALS, "run", file], tmp_path) as run:
        server = run.server()
        run.wait_for(is_training(file))
        end(run)
        assert run.end(SOON_S) < SOON_S
        assert run.code == code, run.written
        if code != 129:  # with the terminal gone, nobody reads
            assert_one_line_says(f"`cereals run {file}` goes on from here", run)
        assert_nothing_is_left(server)


def test_a_second_ctrl_c_stops_at_once_and_the_campaign_goes_on(file: Path, tmp_path: Path) -> None:
    with terminal([CEREALS, "run", file], tmp_path) as run:
        server = run.server()
        run.wait_for(is_training(file))
        run.press_ctrl_c()
        run.press_ctrl_c()
        assert run.end(SOON_S) < SOON_S
        assert run.code == 130
        assert_nothing_is_left(server)
    assert "begun train-seg" in cereals("status", file).stdout


def test_a_run_that_is_killed_takes_its_server_along(file: Path, tmp_path: Path) -> None:
    with terminal([CEREALS, "run", file], tmp_path) as run:
        server = run.server()
        run.wait_for(is_training(file))
        run.signal(signal.SIGKILL)
        run.end()
        assert_nothing_is_left(server)


def test_a_server_that_is_killed_takes_its_run_along(file: Path, tmp_path: Path) -> None:
    with terminal([CEREALS, "run", file], tmp_path) as run:
        server = run.server()
        run.wait_for(is_training(file))
        server.kill()
        assert run.end(SOON_S) < SOON_S
        assert run.code == 1
        assert_one_line_says("cereals: the Prefect server of this process has ended; run the same command again", run)
