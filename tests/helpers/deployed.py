"""What tests of deployments share: campaign files, Prefect's own commands, and waiting for runs."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from checkout import ROOT
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId, FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter

from cereals_core.settings import CampaignSettings

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]
CEREALS = str(Path(sys.executable).with_name("cereals"))
Seen = TypeVar("Seen")


def write_toml(settings: CampaignSettings, file: Path) -> Path:
    """Write the keys that were given for some settings as a campaign file."""
    given = settings.model_dump(mode="json", exclude_unset=True)
    plain = [f"{key} = {json.dumps(value)}" for key, value in given.items() if not isinstance(value, dict)]
    sections = {key: value for key, value in given.items() if isinstance(value, dict)}
    for name, keys in sections.items():
        plain += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    file.write_text("\n".join(plain) + "\n")
    return file


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prefect(environment: Mapping[str, str], *arguments: object) -> str:
    """Run a command of Prefect to its end and return what it says."""
    return _output([*PREFECT, *map(str, arguments)], environment)


def cereals(environment: Mapping[str, str], *arguments: object) -> str:
    """Run a command of this project to its end and return what it says."""
    return _output([CEREALS, *map(str, arguments)], environment)


def _output(command: list[str], environment: Mapping[str, str]) -> str:
    merged = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(command, cwd=ROOT, env=merged, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def until(look: Callable[[], Seen | None], what: str, seconds: float = 240) -> Seen:
    """What `look` sees once it sees something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        seen = look()
        if seen is not None:
            return seen
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


def ended(client: SyncPrefectClient, run_id: UUID, attempt: int = 1) -> FlowRun:
    """A run once its n-th attempt has ended."""

    def look() -> FlowRun | None:
        time.sleep(0.3)
        run = client.read_flow_run(run_id)
        return run if run.state and run.state.is_final() and run.run_count >= attempt else None

    return until(look, f"run {run_id}")


def left_by_worker(client: SyncPrefectClient, run_id: UUID) -> bool | None:
    """Whether the worker has reported what it has to of a run's process; it does so twice, seconds apart."""
    time.sleep(0.3)
    executed = {
        "event": {"name": ["prefect.worker.executed-flow-run"]},
        "related": {"id": [f"prefect.flow-run.{run_id}"]},
    }
    return bool(client.read_events(EventFilter.model_validate(executed), limit=1).events) or None


def runs_of(client: SyncPrefectClient, deployment: str) -> list[FlowRun]:
    """The runs of a deployment that were due, in the order of their start."""
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[client.read_deployment_by_name(deployment).id]))
    runs = client.read_flow_runs(deployment_filter=wanted, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200)
    return [run for run in runs if run.state and run.state.name != "Scheduled"]


def children_of(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    """The rounds below the run of a campaign."""
    below = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [str(run.id)]}})
    return client.read_flow_runs(flow_run_filter=below, sort=FlowRunSort.START_TIME_ASC)


def table(runs: list[FlowRun]) -> str:
    """Runs with their start, state and message, a line each."""
    rows = [(run.expected_start_time, run.name, run.state_name, run.state and run.state.message) for run in runs]
    return "\n".join(f"{when:%H:%M:%S}  {name:<16} {state:<12} {message or ''}" for when, name, state, message in rows)
