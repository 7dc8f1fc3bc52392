"""What the doctor finds of a host and of its Prefect server: by hand, and on a real server in the system suite."""

import os
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running, Scheduled

from deployments import doctor, doctor_host
from deployments.doctor import show
from deployments.doctor_host import Finding


@pytest.fixture
def without_server() -> Iterator[None]:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


def of_host(check: str) -> list[Finding]:
    return doctor._tried(check, doctor_host.HOST_CHECKS[check])


def levels(findings: list[Finding]) -> list[str]:
    return [each.level for each in findings]


def versions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tested: str, **there: str) -> list[Finding]:
    """What is found where these versions are installed and those were tested."""

    def version(name: str) -> str:
        if name.lower() in there:
            return there[name.lower()]
        raise doctor_host.metadata.PackageNotFoundError(name)

    (tmp_path / "constraints.txt").write_text(f"# tested together\n{tested}\n")
    with monkeypatch.context() as patch:
        patch.setattr(doctor_host, "CONSTRAINTS", tmp_path / "constraints.txt")
        patch.setattr(doctor_host, "TESTED_PYTHON", sys.version_info[:2])
        patch.setattr(doctor_host.metadata, "version", version)
        return of_host("versions")


TESTED = "fastapi==0.150.0\nnumpy==2.4.6\nSQLAlchemy==2.0.58\ntorch==2.13.0\nzarr==3.1.6"
INSTALLED = {"fastapi": "0.150.0", "numpy": "2.4.6", "sqlalchemy": "2.0.58", "torch": "2.13.0+cpu"}


def test_the_tested_set_of_versions_is_fine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert levels(versions(monkeypatch, tmp_path, TESTED, **INSTALLED)) == ["ok"]


@pytest.mark.parametrize(
    ("name", "version"), [("fastapi", "0.151.0"), ("sqlalchemy", "2.1.0b1"), ("sqlalchemy", "3.0")]
)
def test_versions_that_break_prefect_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, version: str
) -> None:
    found = versions(monkeypatch, tmp_path, TESTED, **{**INSTALLED, name: version})
    assert [each.remedy for each in found if each.level == "fail"] == [
        f'pip install "{name}<{doctor_host.BREAKING[name][0]}"'
    ]


def test_other_versions_are_named_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = versions(monkeypatch, tmp_path, TESTED, **{**INSTALLED, "numpy": "2.5.0", "zarr": "3.2"})
    assert levels(found) == ["warn"]
    assert found[0].what.endswith("numpy 2.5.0 (2.4.6), zarr 3.2 (3.1.6)")


def test_devices_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_host.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor_host.torch.cuda, "device_count", lambda: 0)
    assert of_host("machine")[0].what == "machine: no CUDA device: networks run on the CPU"
    assert f"{len(os.sched_getaffinity(0))} CPU core" in of_host("machine")[1].what
    card = SimpleNamespace(name="H100", total_memory=80_000_000_000)
    monkeypatch.setattr(doctor_host.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor_host.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(doctor_host.torch.cuda, "get_device_properties", lambda index: card)
    assert of_host("machine")[1].what == "machine: CUDA device 1: H100, 80.0 GB"


def test_no_server_is_an_embedded_one_and_a_silent_server_fails(without_server: None) -> None:
    assert levels(of_host("Prefect server")) == ["ok"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/api"
        with temporary_settings({PREFECT_API_URL: url}):
            found = of_host("Prefect server")
    assert levels(found) == ["fail"]
    assert f"{url} does not answer" in found[0].what


class Server:
    """A Prefect server that answers from lists."""

    def __init__(self, pools: dict[str, list[str]], paused: bool = False, **runs: list[Any]) -> None:
        self.pools, self.paused, self.runs = pools, paused, runs

    def read_work_pools(self) -> list[Any]:
        return [SimpleNamespace(name=name, is_paused=self.paused) for name in self.pools]

    def read_workers_for_work_pool(self, name: str) -> list[Any]:
        return [SimpleNamespace(status=status) for status in self.pools[name]]

    def read_flow_runs(self, flow_run_filter: FlowRunFilter) -> list[Any]:
        asked = flow_run_filter.model_dump(mode="json", exclude_none=True)
        return self.runs.get(asked["state"]["type"]["any_"][0], [])


def client(*args: Any, **kwargs: Any) -> SyncPrefectClient:
    return cast(SyncPrefectClient, Server(*args, **kwargs))


def test_pools_need_a_worker_that_is_online() -> None:
    served = list(doctor_host.work_pools(client({"cpu": ["OFFLINE", "ONLINE"], "cuda": ["OFFLINE"]})))
    assert [(each.level, each.what) for each in served] == [
        ("ok", "work pool cpu: 1 worker online"),
        ("warn", "work pool cuda: 0 workers online"),
    ]
    assert levels(list(doctor_host.work_pools(client({"cpu": ["ONLINE"]}, paused=True)))) == ["warn"]
    assert levels(list(doctor_host.work_pools(client({})))) == ["warn"]


def test_late_runs_are_warned_of_and_running_ones_named() -> None:
    due = datetime.now(UTC) - timedelta(minutes=5)
    late = [SimpleNamespace(name=f"late-{index}", next_scheduled_start_time=due) for index in range(7)]
    running = [SimpleNamespace(name="brave-fox")]
    found = list(doctor_host.flow_runs(client({}, SCHEDULED=late, RUNNING=running)))
    assert levels(found) == ["warn", "ok"]
    assert found[0].what == "7 runs late by up to 5 min 00 s: late-0, late-1, late-2, late-3, late-4, ..."
    assert found[1].what == "1 run RUNNING: brave-fox"
    assert levels(list(doctor_host.flow_runs(client({})))) == ["ok"]


@flow
def nothing() -> None:
    """A flow whose runs are made up."""


@pytest.mark.system
def test_pools_and_runs_of_a_real_server(prefect_server: None) -> None:
    with get_client(sync_client=True) as real:
        real.create_work_pool(WorkPoolCreate(name="idle", type="process"))
        overdue = Scheduled(scheduled_time=datetime.now(UTC) - timedelta(hours=2))
        late = real.create_flow_run(nothing, name="overdue", state=overdue)
        soon = real.create_flow_run(nothing, name="soon", state=Scheduled(scheduled_time=datetime.now(UTC)))
        busy = real.create_flow_run(nothing, name="busy", state=Running())
        lines = show([*doctor_host.work_pools(real), *doctor_host.flow_runs(real)])
        for run in (late, soon, busy):
            real.delete_flow_run(run.id)
    assert "warn  work pool idle: 0 workers online" in lines
    assert "1 run late by up to 2 h 00 min: overdue;" in lines
    assert "1 run RUNNING: busy" in lines
