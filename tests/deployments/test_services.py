"""Processes that `cereals up` keeps: known again, ended with what they started, and never mistaken for others."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deployed import ROOT, cereals, ended, free_port, until, write_toml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.sorting import FlowRunSort

from cereals_core.errors import ServicesError, SettingsError
from cereals_core.settings import CampaignSettings
from deployments import services_commands
from deployments.server import CPU_POOL, CUDA_POOL, server_environment
from deployments.services import MARK, Service, Services

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
PARENT = [
    sys.executable,
    "-c",
    f"import subprocess, time; subprocess.Popen({SLEEP}, start_new_session=True); time.sleep(600)",
]


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    services = Services(tmp_path)
    yield services
    services.end(wait_s=0)


def child_of(process: psutil.Process) -> psutil.Process:
    return until(lambda: next(iter(process.children()), None), "a child", 20)


def the_process(services: Services, name: str) -> psutil.Process:
    process = services.process(name)
    assert process is not None
    return process


def test_what_was_started_is_known_to_the_next_command_and_ended_by_it(services: Services, tmp_path: Path) -> None:
    services.start("one", SLEEP, {})
    started = the_process(services, "one")
    later = Services(tmp_path)
    assert the_process(later, "one") == started
    assert later.end(wait_s=10) == ["one"]
    assert services.process("one") is None
    assert not later.file.exists()
    assert Services(tmp_path).end(wait_s=0) == []


def test_a_process_that_took_over_the_id_is_a_stranger(services: Services, tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP) as stranger:
        began = psutil.Process(stranger.pid).create_time()
        services.state.services["one"] = Service(pid=stranger.pid, started=began - 100, log=tmp_path / "log")
        services.save()
        assert Services(tmp_path).process("one") is None
        assert Services(tmp_path).end(wait_s=0) == []
        assert stranger.poll() is None
        stranger.kill()


def test_children_end_too_also_those_whose_parent_was_killed(services: Services, tmp_path: Path) -> None:
    for name in ("with parent", "orphan"):
        services.start(name, PARENT, {})
    children = [child_of(the_process(services, name)) for name in ("with parent", "orphan")]
    the_process(services, "orphan").kill()
    until(lambda: services.process("orphan") is None or None, "the end of the parent", 10)
    assert all(child.is_running() for child in children)
    assert Services(tmp_path).end(wait_s=10) == ["with parent"]
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_a_process_of_another_folder_is_left_alone(services: Services, tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, env={**os.environ, MARK: "another"}) as stranger:
        services.start("one", SLEEP, {})
        services.end(wait_s=10)
        assert stranger.poll() is None
        stranger.kill()


def test_a_process_that_ignores_sigterm_is_killed_after_a_while(services: Services, tmp_path: Path) -> None:
    ignoring = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True)"
    services.start("one", [sys.executable, "-c", f"{ignoring}; time.sleep(600)"], {})
    log, process = services.state.services["one"].log, the_process(services, "one")
    until(lambda: log.read_text() or None, "the process", 20)
    before = time.monotonic()
    services.end(wait_s=1)
    assert time.monotonic() - before >= 1
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_services_heed_sigint_also_where_a_script_ignores_it(services: Services) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        services.start("one", SLEEP, {})
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    status = Path(f"/proc/{services.state.services['one'].pid}/status")
    if not status.exists():
        pytest.skip("what a process ignores is read from /proc")
    ignored = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("SigIgn"))
    assert not int(ignored, 16) & 1 << signal.SIGINT - 1


def test_a_service_that_ends_at_once_is_told_with_its_log(services: Services) -> None:
    services.start("one", [sys.executable, "-c", "raise SystemExit('no such pool')"], {})
    until(lambda: services.process("one") is None or None, "its end", 20)
    with pytest.raises(ServicesError, match=r"one: has ended; the end of .*one.log says why\nno such pool"):
        services.require("one")


def test_an_unreadable_list_of_processes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text("{")
    with pytest.raises(ServicesError, match=f"services.json: not readable; .*{MARK}"):
        Services(tmp_path)


def test_a_taken_port_is_refused_with_another_to_take() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServicesError, match=rf"port {port} cannot be had .*cereals up --port {port + 1}"):
            services_commands._refuse_taken_port(port)
    services_commands._refuse_taken_port(free_port())


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        ('name = "streets"', {}, "streets.toml: 1 mistake"),
        (None, {"cron": "at noon"}, '--cron "at noon": .*"0 20'),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    text: str | None, options: dict[str, str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    file = tmp_path / "streets.toml"
    file.write_text(text or (ROOT / "deployments/recipes/streets.toml").read_text())
    with pytest.raises(SettingsError, match=problem):
        services_commands.up([file], port=free_port(), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "services.json").exists()


def test_a_machine_has_a_worker_for_the_cpu_and_one_for_each_device() -> None:
    workers = services_commands.wanted_workers(["0", "3"], cpu_runs=2)
    assert {name: (worker.pool, worker.runs, worker.device) for name, worker in workers.items()} == {
        "cpu": (CPU_POOL, 2, ""),
        "cuda-0": (CUDA_POOL, 1, "0"),
        "cuda-3": (CUDA_POOL, 1, "3"),
    }
    assert (services_commands.default_pool([]), services_commands.default_pool(["0"])) == (CPU_POOL, CUDA_POOL)


def test_the_servers_page_calls_its_own_port_and_old_runs_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings

    for name, value in server_environment(4311, retention_days=30).items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.api.url == "http://127.0.0.1:4311/api"
    assert (settings.server.api.host, settings.server.api.port) == ("127.0.0.1", 4311)
    assert settings.server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert settings.server.services.db_vacuum.retention_period.days == 30
    assert not settings.server.ui.v2_enabled
    assert settings.flows.heartbeat_frequency == 30
    assert settings.server.concurrency.lease_storage.endswith("filesystem")


@pytest.mark.system
def test_up_runs_a_campaign_by_its_schedule_and_down_leaves_nothing(small: CampaignSettings, tmp_path: Path) -> None:
    file, port = write_toml(small, tmp_path / "small.toml"), free_port()
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "CUDA_VISIBLE_DEVICES": ""}
    try:
        shown = cereals(home, "up", file, "--port", port, "--cron", "* * * * *", "--rounds", 1)
        assert f"up: http://127.0.0.1:{port}" in shown
        assert "deployed campaign/small" in shown
        assert f"already up: http://127.0.0.1:{port}" in cereals(home, "up")
        services = Services(tmp_path / "prefect")
        members = [the_process(services, name) for name in ("server", "cpu")]
        with SyncPrefectClient(f"http://127.0.0.1:{port}/api") as client:
            first = FlowRunSort.EXPECTED_START_TIME_ASC
            run = until(lambda: next(iter(client.read_flow_runs(limit=1, sort=first)), None), "a scheduled run")
            assert run.auto_scheduled
            done = ended(client, run.id)
            assert (done.state_name, done.work_pool_name) == ("Completed", CPU_POOL)
            names = {each.name for each in client.read_automations()}
        assert names == {"cereals: crash silent runs"}
        assert done.state is not None
        assert done.state.message == "left after 1 rounds; round 1 is next"
    finally:
        ended_by_down = cereals(home, "down")
    assert ended_by_down.split() == ["ended", "server", "ended", "cpu"]
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in members)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
