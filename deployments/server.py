"""A Prefect server for campaigns: its settings, and what it is given of pools, rules and deployments."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyOptions, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectAlreadyExists
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError
from tzlocal import get_localzone_name

from cereals_core.errors import ServicesError, SettingsError
from cereals_core.settings_files import read_either
from cereals_core.study_settings import StudySettings
from deployments.environment import retention

CPU_POOL, CUDA_POOL = "cereals-cpu", "cereals-cuda"
POOLS = {
    CPU_POOL: "Runs that need no GPU: reports, and everything else where there is none",
    CUDA_POOL: "Campaigns and studies, one run for each CUDA device",
}
HEARTBEAT_S = 30
SILENT_S = 10 * HEARTBEAT_S
"""A run that has sent no heartbeat for so long is taken for dead."""
ROOT = Path(__file__).parents[1]
PREFECT_FILE = ROOT / "deployments" / "prefect.yaml"


@dataclass(frozen=True)
class Planned:
    """A deployment of one file: of which flow, under which name, with which parameters."""

    kind: str
    name: str
    parameters: dict[str, Any]


def server_environment(port: int, retention_days: int) -> dict[str, str]:
    """Return Prefect's settings for server, workers and clients; `retention_days`: how long runs are kept."""
    return {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),  # the option --port would serve a page that calls 4200
        "PREFECT_SERVER_UI_V2_ENABLED": "false",  # only the older UI shows the page of a round beside the run's graph
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        **retention(retention_days),
        # Kept in memory, as Prefect does, the slot of a running deployment is lost for ever when the server ends.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_S),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
    }


def wait_until(happens: Callable[[], bool], require: Callable[[], None], seconds: float, what: str) -> None:
    """Wait for something; `require` raises where waiting is vain, ServicesError comes when the time is over."""
    until = time.monotonic() + seconds
    while not happens():
        require()
        if time.monotonic() > until:
            raise ServicesError(f"{what} within {seconds:.0f} s; look into its log, `cereals down`, and try again")
        time.sleep(0.5)


def is_healthy(client: SyncPrefectClient) -> bool:
    """Tell whether the server answers."""
    return client.api_healthcheck() is None


def has_reported(client: SyncPrefectClient, pool: str, worker: str, since: float) -> bool:
    """Tell whether a worker has asked for work since a moment, in seconds since the epoch."""
    seen = [each.last_heartbeat_time for each in client.read_workers_for_work_pool(pool) if each.name == worker]
    return any(moment is not None and moment.timestamp() >= since for moment in seen)


def furnish(client: SyncPrefectClient) -> None:
    """Give the server both pools and the rule for runs that fell silent, where they are missing or were different."""
    for name, description in POOLS.items():
        template = ProcessWorker.get_default_base_job_template()
        pool = WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
        with suppress(ObjectAlreadyExists):
            client.create_work_pool(pool)
    rule = crash_silent_runs()
    there = client.read_automations_by_name(rule.name)
    if not there:
        client.create_automation(rule)
    elif (there[0].trigger, there[0].actions) != (rule.trigger, rule.actions):
        client.update_automation(there[0].id, rule)  # forgets the heartbeats so far: runs that died would stay


def crash_silent_runs() -> AutomationCore:
    """Make the rule that a run whose heartbeats stop before its end has crashed, with its process or its machine."""
    return AutomationCore(
        name="cereals: crash silent runs",
        description="Marks runs whose process or machine is gone as crashed, so that they can be retried.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},  # a heartbeat or an end, whatever that state is called
            match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENT_S),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no heartbeat for {SILENT_S} s: its process or its machine is gone; retry it to go on",
            )
        ],
    )


def deploy_all(environment: Mapping[str, str]) -> None:
    """Deploy what prefect.yaml lists, from the checkout's root; ServicesError with what Prefect says."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(PREFECT_FILE)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ServicesError(f"{PREFECT_FILE} cannot be deployed; correct it and run this again\n{done.stdout[-2000:]}")


def plan(files: Iterable[Path], rounds: int | None) -> list[Planned]:
    """Plan what to deploy for files, which are read and checked; `rounds` is for campaigns."""
    return [_planned(file.absolute(), rounds) for file in files]


def _planned(file: Path, rounds: int | None) -> Planned:
    settings = read_either(file)
    if isinstance(settings, StudySettings):
        return Planned("study", settings.name, {"file": str(file)})
    return Planned("campaign", settings.name, {"file": str(file), "rounds": rounds})


def schedules_of(cron: str | None) -> list[DeploymentScheduleCreate]:
    """Make a schedule in this machine's time zone, or none; SettingsError for five fields that are none."""
    if cron is None:
        return []
    try:
        schedule = CronSchedule(cron=cron, timezone=get_localzone_name())
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SettingsError(f'--cron "{cron}": {problem}; "0 20 * * *" is every day at 20:00') from None
    return [DeploymentScheduleCreate(schedule=schedule, active=True)]


def deploy(client: SyncPrefectClient, planned: Planned, schedules: Sequence[DeploymentScheduleCreate]) -> str:
    """Deploy one file as `campaign/<name>` or `study/<name>`, as prefect.yaml would; returns the full name.

    Relative paths in the file start in this folder, as for `cereals run`.
    """
    like = client.read_deployment_by_name(f"{planned.kind}/{planned.kind}")
    client.create_deployment(
        flow_id=like.flow_id,
        name=planned.name,
        entrypoint=like.entrypoint,
        description=like.description,
        parameters=planned.parameters,
        parameter_openapi_schema=like.parameter_openapi_schema,
        enforce_parameter_schema=True,
        work_pool_name=like.work_pool_name,
        schedules=list(schedules),
        concurrency_limit=1,
        concurrency_options=ConcurrencyOptions.model_validate(like.concurrency_options),
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(Path.cwd())}}],
    )
    return f"{planned.kind}/{planned.name}"
