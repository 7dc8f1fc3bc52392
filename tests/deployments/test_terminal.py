"""Ending a run from its terminal, from outside, by the death of its server: soon, in one line, and nothing is left."""

import errno
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import typer
from chaos_compare import differences
from command_line import CEREALS, campaign_file, cereals
from prefect.settings import PREFECT_API_URL
from terminal import Terminal, terminal

from deployments import attending
from deployments.attending import _noting_signals

SOON_S = 60.0
"""Some seconds are meant; machines that are busy with other things get more. What hangs would do so for minutes."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A campaign whose trainings take a while."""
    return campaign_file(tmp_path, max_steps=100_000)


def is_training(file: Path) -> Callable[[], bool]:
    return lambda: any(file.with_suffix("").glob("rounds/000/.train-*"))


def assert_nothing_is_left(process: psutil.Process) -> None:
    until = time.monotonic() + SOON_S
    with suppress(psutil.NoSuchProcess):
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < until, process.cmdline()
            time.sleep(0.05)


def assert_one_line_says(text: str, run: Terminal) -> None:
    assert run.written.count(text) == 1, run.written
    assert not {"Traceback", "Error", "error", "WARNING"} & set(run.written.replace(":", " ").split()), run.written


@pytest.fixture
def run(file: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A run in mid-training."""
    with terminal([CEREALS, "run", file], tmp_path) as run:
        run.server()
        run.wait_for(is_training(file))
        yield run


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda run: run.press_ctrl_c(), 130),
        (lambda run: run.signal(signal.SIGTERM), 143),
        (lambda run: run.hang_up(), 129),
    ],
    ids=["ctrl-c", "sigterm", "hang-up"],
)
def test_a_run_ends_after_its_step(end: Callable[[Terminal], None], code: int, run: Terminal, file: Path) -> None:
    server = run.server()
    end(run)
    assert run.end(SOON_S) < SOON_S
    assert run.code == code, run.written
    if code != 129:  # with the terminal gone, nobody reads
        assert_one_line_says(f"`cereals run {file}` goes on from here", run)
    assert_nothing_is_left(server)


def test_a_hang_up_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with _noting_signals() as noted:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
            assert noted == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_fails_because_the_terminal_is_gone_is_a_hang_up(
    monkeypatch: pytest.MonkeyPatch, prefect_server: None
) -> None:
    """Between a hang-up and its answer something is printed, which fails."""

    def printing() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setenv("PREFECT_API_URL", PREFECT_API_URL.value() or "")
    monkeypatch.setattr(attending, "_tell", lambda number, line: None)
    monkeypatch.setattr(attending, "request_stop", lambda: None)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the tests may ignore, as under nohup
    try:
        with pytest.raises(typer.Exit) as ended:
            attending.attend(lambda: printing, "cereals run x")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert ended.value.exit_code == 129


@pytest.mark.system
def test_workers_of_this_machine_end_with_their_run_and_in_silence(file: Path, tmp_path: Path) -> None:
    file.write_text(file.read_text() + 'cluster = "local"\n')
    with terminal([CEREALS, "run", file], tmp_path) as run:
        run.wait_for(is_training(file))
        started = psutil.Process(run.pid).children(recursive=True)
        run.press_ctrl_c()
        assert run.end(SOON_S) < SOON_S
        assert run.code == 130
        assert_one_line_says(f"`cereals run {file}` goes on from here", run)
        for process in started:
            assert_nothing_is_left(process)


def test_a_second_ctrl_c_stops_at_once_and_the_campaign_goes_on(run: Terminal, file: Path) -> None:
    server = run.server()
    run.press_ctrl_c()
    run.press_ctrl_c()
    assert run.end(SOON_S) < SOON_S
    assert run.code == 130
    assert_nothing_is_left(server)
    assert "begun train-seg" in cereals("status", file).stdout


def test_a_run_that_is_killed_takes_its_server_along(run: Terminal) -> None:
    server = run.server()
    run.signal(signal.SIGKILL)
    run.end()
    assert_nothing_is_left(server)


def test_a_server_that_is_killed_takes_its_run_along(run: Terminal) -> None:
    run.server().kill()
    assert run.end(SOON_S) < SOON_S
    assert run.code == 1
    assert_one_line_says("cereals: the Prefect server of this process has ended; run the same command again", run)


KILLS = 50


@pytest.mark.system
def test_kills_of_runs_and_of_their_servers_change_no_byte_and_leave_no_process(tmp_path: Path) -> None:
    whole = campaign_file(tmp_path, name="whole")
    alone = {"HOME": str(tmp_path), "PREFECT_HOME": str(tmp_path / "prefect"), "PREFECT_API_URL": ""}
    assert cereals("run", whole, **alone).returncode == 0
    chance, told = random.Random(1), Counter[str]()
    while told.total() < KILLS:
        file = tmp_path / "killed.toml"
        file.write_text(whole.read_text().replace(str(tmp_path / "whole"), str(tmp_path / "killed")))
        while True:
            with terminal([CEREALS, "run", file], tmp_path) as run:
                run.wait_for(lambda run=run: run.has_ended or run.servers())
                servers, kind = run.servers(), chance.choice(list(KILLED))
                if run.lasts(chance.uniform(0, 12)):
                    told[kind] += 1
                    with suppress(psutil.NoSuchProcess, ProcessLookupError):  # they ended by themselves just now
                        KILLED[kind](run, servers[0])
                run.end()
                for server in servers:
                    assert_nothing_is_left(server)
            if run.code == 0:
                break
        assert differences(tmp_path / "whole", tmp_path / "killed") == []
        shutil.rmtree(tmp_path / "killed")
    assert set(told) == set(KILLED)


def kill_both(run: Terminal, server: psutil.Process) -> None:
    run.signal(signal.SIGKILL)
    server.kill()


KILLED: dict[str, Callable[[Terminal, psutil.Process], None]] = {
    "run": lambda run, server: run.signal(signal.SIGKILL),
    "server": lambda run, server: server.kill(),
    "both": kill_both,
    "ctrl-c": lambda run, server: run.press_ctrl_c(),
}
