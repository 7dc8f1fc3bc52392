"""What stands in the way on this host: versions, the machine, the Prefect server and its workers."""

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement
from packaging.specifiers import Specifier
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL

from tasks.pages.wording import duration, plural, size

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
TESTED_PYTHON = (3, 11)
BREAKING = {
    "fastapi": ("0.151", "with it every flow fails at import"),
    "sqlalchemy": ("2.1", "with it no schedule ever fires"),
}
"""Versions from which on Prefect does not work, and how."""
LATE = timedelta(seconds=60)
ANSWER_S = 5
"""A server or scheduler that is silent for so long is not there."""


@dataclass(frozen=True)
class Finding:
    """What a check found; `remedy` says what to do about a warning or a failure."""

    level: Literal["ok", "warn", "fail"]
    what: str
    remedy: str = ""


Findings = Iterator[Finding]


def _versions() -> Findings:
    python, tested_python = (".".join(map(str, each)) for each in (sys.version_info[:2], TESTED_PYTHON))
    for name, (limit, why) in BREAKING.items():
        if not Specifier(f"<{limit}").contains(version := metadata.version(name), prereleases=True):
            yield Finding("fail", f"{name} {version}: {why}", f'pip install "{name}<{limit}"')
    others = [] if python == tested_python else [f"Python {python} ({tested_python})"]
    others += [f"{name} {there} ({tested})" for name, there, tested in _differing(CONSTRAINTS.read_text())]
    if others:
        yield Finding("warn", f"other versions than the tested ones: {', '.join(others)}", "`make` installs those")
    else:
        yield Finding("ok", f"Python {python} and packages are the tested set")


def _differing(constraints: str) -> Iterator[tuple[str, str, str]]:
    """List name, installed and tested version of packages that differ; what is not installed is not needed here."""
    lines = (line.strip() for line in constraints.splitlines())
    for requirement in (Requirement(line) for line in lines if line and not line.startswith("#")):
        tested = next(iter(requirement.specifier)).version
        try:
            there = Version(metadata.version(requirement.name)).public
        except metadata.PackageNotFoundError:
            continue
        if requirement.name.lower() not in BREAKING and Version(there) != Version(tested):
            yield requirement.name, there, tested


def _machine() -> Findings:
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield Finding("ok", f"CUDA device {index}: {device.name}, {size(device.total_memory)}")
    if not torch.cuda.is_available():
        yield Finding("ok", "no CUDA device: networks run on the CPU")
    memory, cores = psutil.virtual_memory(), plural(len(os.sched_getaffinity(0)), "CPU core")
    yield Finding("ok", f"{cores}, {size(memory.available)} of {size(memory.total)} memory are free")


def _server() -> Findings:
    url = PREFECT_API_URL.value()
    if not url:
        yield Finding("ok", "PREFECT_API_URL is not set: runs use an embedded server")
        return
    with get_client(sync_client=True, httpx_settings={"timeout": ANSWER_S}) as client:
        if problem := client.api_healthcheck():
            remedy = "start it with `cereals up` or `prefect server start`, or unset PREFECT_API_URL"
            yield Finding("fail", f"{url} does not answer ({type(problem).__name__})", remedy)
            return
        yield Finding("ok", f"{url} answers")
        yield from work_pools(client)
        yield from flow_runs(client)


def work_pools(client: SyncPrefectClient) -> Findings:
    """List work pools, and how many workers serve each."""
    pools = client.read_work_pools()
    if not pools:
        yield Finding("warn", "no work pool: deployments cannot run", "`cereals up` makes pools and starts workers")
    for pool in pools:
        workers = client.read_workers_for_work_pool(pool.name)
        online = sum(each.status == "ONLINE" for each in workers)
        what = f"work pool {pool.name}: {plural(online, 'worker')} online"
        remedy = "" if online else f"`cereals up`, or `prefect worker start --pool {pool.name}`"
        if pool.is_paused:
            what, remedy = f"{what}, paused", f"prefect work-pool resume {pool.name}"
        yield Finding("warn" if remedy else "ok", what, remedy)


def flow_runs(client: SyncPrefectClient) -> Findings:
    """Count runs that should have started, and those that run."""
    now = datetime.now(UTC)
    scheduled = {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": now - LATE}}
    late = client.read_flow_runs(flow_run_filter=FlowRunFilter.model_validate(scheduled))
    if late:
        waits = max(now - each.next_scheduled_start_time for each in late if each.next_scheduled_start_time)
        what = f"{plural(len(late), 'run')} late by up to {duration(waits.total_seconds())}: {_names(late)}"
        yield Finding("warn", what, "start a worker for their pool, wait for the run before, or delete them")
    by_state = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})
    running = client.read_flow_runs(flow_run_filter=by_state)
    yield Finding("ok", f"{plural(len(running), 'run')} RUNNING" + (f": {_names(running)}" if running else ""))


def _names(runs: list[FlowRun]) -> str:
    return ", ".join(each.name for each in runs[:5]) + (", ..." if len(runs) > 5 else "")


HOST_CHECKS = {"versions": _versions, "machine": _machine, "Prefect server": _server}
