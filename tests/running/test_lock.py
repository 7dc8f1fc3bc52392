import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from checkout import ROOT
from moto_store import store_apart, store_here

from cereals_core.errors import LockedError, SettingsError
from cereals_core.location import open_location
from tasks.running import lease as leases
from tasks.running.holder import kernel
from tasks.running.lock import holder_of, locked
from tasks.store.storage import remove, write_atomically
from tasks.telling import progress
from tasks.telling.progress import Interrupted, stop_if_requested

HERE = f"{os.getpid()} on {socket.gethostname()}"
FAST = {"RENEWED_EVERY_S": 0.2, "SILENCE_S": 0.6, "DEAD_AFTER_S": 1.5, "PATIENCE_S": 1.0}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with store_here() as address:
        yield address


@pytest.fixture
def file(store: str) -> Iterator[Path]:
    folder = open_location("s3://bucket/campaign")
    yield folder / "lock"
    remove(folder)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short times, and nobody is asked to stop after the test."""
    for name, seconds in FAST.items():
        monkeypatch.setattr(leases, name, seconds)
    yield
    progress._stop.clear()


def lease(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cast(Any, file).fs.cat_file(str(file)))
    return found


def rewrite(file: Path, **changes: object) -> dict[str, Any]:
    changed = {**lease(file), **changes}
    write_atomically(file, json.dumps(changed).encode())
    return changed


def until_asked_to_stop(seconds: float) -> float:
    """Seconds until the stages are asked to stop."""
    started = time.monotonic()
    while time.monotonic() < started + seconds:
        try:
            stop_if_requested()
        except Interrupted:
            return time.monotonic() - started
        time.sleep(0.02)
    raise AssertionError("nobody was asked to stop")


def test_one_writer_at_a_time_who_is_named(file: Path) -> None:
    assert holder_of(file) is None
    with locked(file):
        assert holder_of(file) == HERE
        with (
            pytest.raises(LockedError, match=rf"^s3://bucket/campaign: process {HERE} is running it; wait"),
            locked(file),
        ):
            pass
        assert holder_of(file) == HERE
    assert holder_of(file) is None
    with pytest.raises(ZeroDivisionError), locked(file):
        raise ZeroDivisionError
    with locked(file):
        stop_if_requested()


def test_the_lease_is_renewed(file: Path) -> None:
    with locked(file):
        marks = set()
        for _ in range(10):
            marks.add(lease(file)["mark"])
            time.sleep(0.1)
        stop_if_requested()
    assert len(marks) > 2


HOLDER = f"""
import sys, time
from cereals_core.location import open_location
from tasks.running import lease, lock
vars(lease).update({FAST})
with lock.locked(open_location(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(file: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLDER, str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_is_killed(file: Path, holder: "subprocess.Popen[str]") -> None:
    refusal = f"process {holder.pid} on {socket.gethostname()} is running it"
    with pytest.raises(LockedError, match=re.escape(refusal)), locked(file):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    while holder_of(file) is not None:  # until the kernel has ended it; as a zombie it is dead as well
        time.sleep(0.01)
    started = time.monotonic()
    with locked(file):
        assert time.monotonic() - started < FAST["DEAD_AFTER_S"]
        assert holder_of(file) == HERE


def test_of_a_holder_on_another_host_silence_alone_tells_that_it_died(file: Path) -> None:
    with locked(file):
        left = lease(file)
    write_atomically(file, json.dumps({**left, "holder": "7 on elsewhere", "kernel": "another"}).encode())
    assert holder_of(file) == "7 on elsewhere"
    started = time.monotonic()
    with locked(file):
        assert time.monotonic() - started > FAST["DEAD_AFTER_S"]
        assert holder_of(file) == HERE


def test_equal_names_of_hosts_and_numbers_of_processes_are_no_proof_of_death(file: Path) -> None:
    with locked(file):
        gone = {**lease(file), "kernel": "another container's", "pid": 2**22 + 1}
    write_atomically(file, json.dumps(gone).encode())
    assert holder_of(file) == HERE
    rewrite(file, kernel=kernel())
    assert holder_of(file) is None


def test_a_holder_that_leaves_while_another_waits_makes_room_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "DEAD_AFTER_S", 60.0)
    with locked(file):
        left = lease(file)
    other = {**left, "holder": "7 on elsewhere", "kernel": "another"}
    write_atomically(file, json.dumps(other).encode())
    sleep = time.sleep
    monkeypatch.setattr(leases.time, "sleep", lambda s: sleep(s) or rewrite(file, holder=None))
    with locked(file):
        assert holder_of(file) == HERE


def test_who_loses_the_lease_stops_and_leaves_the_others_alone(file: Path) -> None:
    with pytest.raises(
        LockedError, match=r"has taken the campaign over, or its store was silent .* run again to go on"
    ):
        lose_it(file)
    assert lease(file)["holder"] == "7 on elsewhere"


def lose_it(file: Path) -> None:
    with locked(file):
        rewrite(file, holder="7 on elsewhere", mark="another")
        until_asked_to_stop(2 * FAST["RENEWED_EVERY_S"] + 1)


def test_a_lease_that_somebody_removed_is_lost(file: Path) -> None:
    with pytest.raises(LockedError):
        remove_it(file)
    assert not file.exists()


def remove_it(file: Path) -> None:
    with locked(file):
        cast(Any, file).fs.rm_file(str(file))
        until_asked_to_stop(2 * FAST["RENEWED_EVERY_S"] + 1)


class Stumbling:
    """A store whose writes fail as told: with no answer before the write, or after it."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real, self.failing, self.failed = type(cast(Any, file).fs).call_s3, "", 0
        monkeypatch.setattr(type(cast(Any, file).fs), "call_s3", lambda *a, **k: self.call(*a, **k))

    def call(self, store: Any, method: str, **request: Any) -> Any:
        if method != "put_object" or not self.failing:
            return self.real(store, method, **request)
        self.failed += 1
        if self.failing == "after":
            self.real(store, method, **request)
        raise EndpointConnectionError(endpoint_url="http://gone")  # no OSError


@pytest.mark.parametrize("failing", ["before", "after"])
def test_a_store_that_is_silent_for_a_while_costs_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    monkeypatch.setattr(leases, "SILENCE_S", 20.0)
    store = Stumbling(file, monkeypatch)
    with locked(file):
        store.failing = failing
        while store.failed < 3:
            time.sleep(0.02)
        store.failing, before = "", lease(file)["mark"]
        while lease(file)["mark"] == before:
            time.sleep(0.02)
        stop_if_requested()
    assert holder_of(file) is None


def test_a_store_that_stays_silent_ends_the_holder_before_others_may_begin(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Stumbling(file, monkeypatch)
    with pytest.raises(LockedError, match="silent for 1 s"):
        silence(file, store)
    assert holder_of(file) == HERE


def silence(file: Path, store: Stumbling) -> None:
    with locked(file):
        store.failing = "before"
        assert FAST["SILENCE_S"] - 0.4 < until_asked_to_stop(5) < FAST["DEAD_AFTER_S"]


def test_a_store_that_ignores_conditions_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = type(cast(Any, file).fs).call_s3

    def careless(store: Any, method: str, **request: Any) -> Any:
        return real(store, method, **{key: value for key, value in request.items() if not key.startswith("If")})

    monkeypatch.setattr(type(cast(Any, file).fs), "call_s3", careless)
    with (
        pytest.raises(SettingsError, match=r'^folder = "s3://bucket/campaign": .* use one with conditional'),
        locked(file),
    ):
        pass


def test_a_store_that_may_be_read_only_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(store: Any, method: str, **request: Any) -> Any:
        refusal = ClientError({"Error": {"Code": "AccessDenied", "Message": "Access Denied"}}, "PutObject")
        raise PermissionError("Access Denied") from refusal

    monkeypatch.setattr(type(cast(Any, file).fs), "call_s3", denied)
    with pytest.raises(SettingsError, match=r"access is denied .* set AWS_ACCESS_KEY_ID"), locked(file):
        pass


@pytest.mark.system
def test_a_server_that_pauses_is_borne_and_one_that_is_stopped_ends_the_holder(tmp_path: Path) -> None:
    with store_apart(tmp_path) as (_, server):
        file = open_location("s3://bucket/campaign") / "lock"
        with locked(file):
            server.send_signal(signal.SIGSTOP)
            time.sleep(FAST["SILENCE_S"] / 2)
            server.send_signal(signal.SIGCONT)
            time.sleep(4 * FAST["PATIENCE_S"])
            stop_if_requested()
        with pytest.raises(LockedError):
            stop_the_server(file, server)


def stop_the_server(file: Path, server: "subprocess.Popen[bytes]") -> None:
    with locked(file):
        server.send_signal(signal.SIGSTOP)
        until_asked_to_stop(10)
