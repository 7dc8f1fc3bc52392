"""Deployments: what prefect.yaml promises, and real schedules, retries and kills on a real server."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import (
    PREFECT,
    ROOT,
    children_of,
    ended,
    free_port,
    left_by_worker,
    prefect,
    runs_of,
    table,
    until,
    write_toml,
)
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from small_campaign import small_settings

from cereals_core.data_settings import SyntheticData
from cereals_core.datasets.cityscapes import write_cityscapes_layout
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings, read_either
from tasks.running.lock import locked

DEPLOYMENTS = yaml.safe_load((ROOT / "deployments/prefect.yaml").read_text())["deployments"]
LEFT = "left after 1 rounds; round {} is next"
DONE = "all 2 rounds of queries are done"


def flow_of(deployment: dict[str, Any]) -> Flow[..., Any]:
    return load_flow_from_entrypoint(deployment["entrypoint"])


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: each["name"])
def test_a_deployment_names_a_flow_that_takes_its_parameters(deployment: dict[str, Any]) -> None:
    flow = flow_of(deployment)
    assert flow.name == deployment["name"]
    validate(deployment["parameters"], parameter_schema(flow).model_dump(), raise_on_error=True)
    assert flow.validate_parameters(deployment["parameters"]).items() >= deployment["parameters"].items()
    file = ROOT / deployment["parameters"]["file"]
    assert read_either(file).name


def test_a_deployment_runs_once_at_a_time_and_on_the_pool_that_is_told() -> None:
    assert {each["name"]: each["work_pool"]["name"] for each in DEPLOYMENTS} == {
        "campaign": "{{ $CEREALS_POOL }}",
        "study": "{{ $CEREALS_POOL }}",
        "report": "cereals-cpu",
    }
    limits = [each["concurrency_limit"] for each in DEPLOYMENTS]
    assert limits == [{"limit": 1, "collision_strategy": "CANCEL_NEW"}] * 3


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server and a worker of the CPU pool with what prefect.yaml lists, all by Prefect's own commands."""
    port = free_port()
    home = tmp_path_factory.mktemp("prefect")
    settings = {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
        "CEREALS_POOL": "cereals-cpu",
        "OMP_NUM_THREADS": "1",
    }

    def start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (home / f"{name}.log").open("wb") as log:
            return subprocess.Popen(
                [*PREFECT, *arguments], cwd=ROOT, env={**os.environ, **settings}, stdout=log, stderr=log
            )

    started = [start("server", "server", "start")]
    try:
        prefect(settings, "server", "status", "--wait", "--timeout", 120)
        prefect(settings, "work-pool", "create", "cereals-cpu", "--type", "process")
        prefect(settings, "deploy", "--all", "--prefect-file", "deployments/prefect.yaml")
        started.append(start("worker", "worker", "start", "--pool", "cereals-cpu"))
        yield settings
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def client(environment: dict[str, str]) -> Iterator[SyncPrefectClient]:
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client:
        yield client


@pytest.fixture
def file(small: CampaignSettings, tmp_path: Path) -> Path:
    return write_toml(small, tmp_path / "small.toml")


def start(client: SyncPrefectClient, file: Path, **parameters: object) -> Any:
    """Start a run of `campaign/campaign` by hand; its id."""
    deployment = client.read_deployment_by_name("campaign/campaign")
    return client.create_flow_run_from_deployment(deployment.id, parameters={"file": str(file), **parameters}).id


def ledger(settings: CampaignSettings) -> bytes:
    return (settings.path / "ledger.parquet").read_bytes()


@pytest.mark.system
def test_three_rounds_in_three_scheduled_runs(
    environment: dict[str, str],
    client: SyncPrefectClient,
    file: Path,
    small: CampaignSettings,
    finished: CampaignSettings,
) -> None:
    command = ["deploy", "deployments.scheduled.campaign", "--name", "small", "--pool", "cereals-cpu"]
    alone = ["--concurrency-limit", 1, "--collision-strategy", "CANCEL_NEW"]
    prefect(environment, *command, *alone, "--param", f"file={file}", "--param", "rounds=1", "--interval", 30)

    def four_done() -> bool | None:
        time.sleep(1)
        return True if sum(run.state_name == "Completed" for run in runs_of(client, "campaign/small")) >= 4 else None

    until(four_done, "four runs of the schedule", 400)
    runs = runs_of(client, "campaign/small")
    prefect(environment, "deployment", "delete", "campaign/small")
    print(f"\n{table(runs)}")
    done = [run for run in runs if run.state_name == "Completed"]
    assert [run.state.message for run in done if run.state][:4] == [LEFT.format(1), LEFT.format(2), DONE, DONE]
    assert all(run.auto_scheduled and run.name == "small" for run in done)
    others = {run.state.message for run in runs if run.state and run.state.is_cancelled()}
    assert others <= {"Deployment concurrency limit reached."}
    assert [[each.name for each in children_of(client, run)] for run in done[:3]] == [
        ["small round 0"],
        ["small round 1"],
        ["small round 2"],
    ]
    assert ledger(small) == ledger(finished)


@pytest.mark.system
def test_a_run_ends_at_once_while_another_process_holds_the_campaign(
    client: SyncPrefectClient, file: Path, small: CampaignSettings
) -> None:
    small.path.mkdir()
    with locked(small.path / "lock"):
        run_id = start(client, file)
        until(lambda: left_by_worker(client, run_id), "the end of the run")
    run = client.read_flow_run(run_id)
    assert (run.state_name, run.name) == ("AlreadyRunning", "small")
    assert run.state is not None
    assert f"process {os.getpid()} on " in (run.state.message or "")


@pytest.mark.system
def test_a_failed_run_is_retried_once_its_data_are_there(
    environment: dict[str, str], client: SyncPrefectClient, tmp_path: Path
) -> None:
    raw = small_settings(tmp_path / "campaign").model_dump(exclude_unset=True)
    settings = parse_settings({**raw, "data": {"format": "cityscapes", "root": str(tmp_path / "city")}}, "small")
    file = write_toml(settings, tmp_path / "small.toml")
    failed = ended(client, start(client, file, rounds=1))
    assert failed.state_name == "Failed"
    assert failed.state is not None
    assert "DataError" in (failed.state.message or "")

    streets = SyntheticData(format="synthetic", pool_images=6, eval_images=2, height=48, width=64)
    write_cityscapes_layout(streets, tmp_path / "city")
    prefect(environment, "flow-run", "retry", failed.id)
    retried = ended(client, failed.id, attempt=2)
    assert retried.state is not None
    assert (retried.state.name, retried.state.message) == ("Completed", LEFT.format(1))


@pytest.mark.system
def test_a_run_killed_in_mid_round_crashes_and_is_retried_to_the_same_ledger(
    environment: dict[str, str],
    client: SyncPrefectClient,
    file: Path,
    small: CampaignSettings,
    finished: CampaignSettings,
) -> None:
    run_id = start(client, file, rounds=None)  # prefect.yaml gives one
    until(lambda: next((small.path / "rounds" / "001").glob(".*"), None), "a stage of round 1")
    os.kill(int(client.read_flow_run(run_id).infrastructure_pid or 0), signal.SIGKILL)
    crashed = ended(client, run_id)
    assert crashed.state is not None
    assert (crashed.state.name, "SIGKILL" in (crashed.state.message or "")) == ("Crashed", True)
    assert not (small.path / "rounds" / "001" / "report").exists()

    until(lambda: left_by_worker(client, run_id), "the end of the worker's report")
    prefect(environment, "flow-run", "retry", run_id)
    retried = ended(client, run_id, attempt=2)
    assert retried.state is not None
    assert (retried.state.name, retried.state.message) == ("Completed", DONE)
    assert ledger(small) == ledger(finished)
    rounds = children_of(client, retried)
    print(f"\n{table(rounds)}")
    assert [(each.name, each.state_name) for each in rounds] == [
        ("small round 0", "Completed"),
        ("small round 1", "Crashed"),
        ("small round 1", "Completed"),
        ("small round 2", "Completed"),
    ]
    for each in rounds:
        of_round = FlowRunFilter.model_validate({"id": {"any_": [str(each.id)]}})
        assert {task.name.rsplit(" ", 1)[0] for task in client.read_task_runs(flow_run_filter=of_round)} == {each.name}
