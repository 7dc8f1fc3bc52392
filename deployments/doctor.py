"""`cereals doctor`: what stands in the way of campaigns, on this host and around it, each with its remedy.

A check is a row of a table: a function that yields findings. One that fails itself is a finding too.
"""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

import psutil
import torch
from distributed import Client
from packaging.requirements import Requirement
from packaging.specifiers import Specifier
from packaging.version import Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL

from cereals_core.datasets import open_images
from cereals_core.errors import CerealsError
from cereals_core.settings_files import is_study, read_settings, read_study
from tasks.pages.wording import duration, plural, size
from tasks.pool import SPLITS
from tasks.running.lock import holder_of
from tasks.running.opening import open_campaign
from tasks.store import tables
from tasks.store.history import kept_or_pruned
from tasks.store.layout import POOL, Campaign, Study
from tasks.store.pool import group_name
from tasks.store.products import MANIFEST, Product, find_product
from tasks.store.storage import refuse_unreachable
from tasks.telling.metrics import stages_of

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


@dataclass(frozen=True)
class Subject:
    """A campaign file or study file: its folder, and its campaigns."""

    file: Path
    place: Campaign | Study
    campaigns: list[Campaign]

    @property
    def holder(self) -> str | None:
        """Who runs it or one of its campaigns."""
        return next(filter(None, (holder_of(each.lock_file) for each in (self.place, *self.campaigns))), None)


def examine(files: list[Path], deep: bool) -> list[Finding]:
    """Findings of all checks of this host, and of these campaign and study files; `deep` reads every product."""
    findings = [finding for name, check in HOST_CHECKS.items() for finding in _tried(name, check)]
    for file in files:
        findings += _examine_file(file, deep)
    return findings


def show(findings: Iterable[Finding]) -> str:
    """One line for each finding."""
    texts = ((each.level, [*each.what.splitlines(), each.remedy]) for each in findings)
    return "\n".join(f"{level:<4}  {'; '.join(line.strip() for line in lines if line)}" for level, lines in texts)


def _examine_file(file: Path, deep: bool) -> list[Finding]:
    found: list[Subject] = []
    findings = _tried(str(file), lambda: _settings(file, found))
    for subject in found:
        for name, check in (FILE_CHECKS | DEEP_CHECKS if deep else FILE_CHECKS).items():
            findings += _tried(f"{file}: {name}", partial(check, subject))
    return findings


def _tried(name: str, check: Callable[[], Findings]) -> list[Finding]:
    """What a check finds, up to an error of its own."""
    findings: list[Finding] = []
    try:
        for finding in check():
            findings.append(Finding(finding.level, f"{name}: {finding.what}", finding.remedy))
    except CerealsError as error:
        findings.append(Finding("fail", f"{name}: {str(error).removeprefix(f'{name}: ')}"))
    except Exception as error:  # noqa: BLE001  (whatever stops a check is what a doctor is asked for)
        problem = f"{name}: the check stopped with {type(error).__name__}: {error}"
        findings.append(Finding("fail", problem, "correct what it names and look again"))
    return findings


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
    """Name, installed and tested version of packages where they differ; what is not installed is not needed here."""
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
    """Work pools and how many workers serve each."""
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
    """Runs that should have started, and those that run."""
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


def _settings(file: Path, found: list[Subject]) -> Findings:
    place: Campaign | Study
    if is_study(file):
        place = study = Study((settings := read_study(file)).path, settings)
        campaigns = [open_campaign(each, study.shared) for _, each in settings.campaigns()]
    else:
        campaigns = [place := open_campaign(read_settings(file))]
    found.append(Subject(file, place, campaigns))
    yield Finding("ok", f"settings are valid, {plural(len(campaigns), 'campaign')} in {place.folder}")


def _data(subject: Subject) -> Findings:
    for split in SPLITS:
        images = open_images(subject.campaigns[0].settings.data, split).image_ids
        yield Finding("ok", f"{split} has {plural(len(images), 'image')}")


def _lock(subject: Subject) -> Findings:
    refuse_unreachable(subject.place.folder)
    holder = subject.holder
    if holder:
        yield Finding("warn", f"process {holder} is running it", "wait, or stop that, before you start it here")
    else:
        yield Finding("ok", "nobody is running it")


def _leftovers(subject: Subject) -> Findings:
    """What stages that died have left, and `cereals gc` would remove; not while stages run."""
    from tasks.store.pruning import prune

    if subject.holder:
        return
    for campaign in subject.campaigns:
        for each in prune(campaign, keep_rounds=sys.maxsize, dry_run=True):
            yield Finding("warn", f"{each.folder}: abandoned, {size(each.freed_bytes)}", f"cereals gc {subject.file}")


def _resources(subject: Subject) -> Findings:
    """Memory and disk of each campaign of the first seed, by what its rounds to come will take."""
    from tasks.forecast.projection import lacking_for

    first = subject.campaigns[0]
    problems: dict[str, None] = {}
    with tempfile.TemporaryDirectory() as scratch:
        pool = find_product(first.stage("pool", None)) or _pool_like_its_first_image(first, Path(scratch))
        for campaign in subject.campaigns:
            if campaign.settings.seed == first.settings.seed:
                there = next(each for each in (campaign.folder, *campaign.folder.parents) if each.exists())
                problems.update(dict.fromkeys(lacking_for(replace(campaign, folder=there), pool)))
    for problem in problems:
        yield Finding("fail", problem)
    if not problems:
        yield Finding("ok", "memory and disk will do" + ("" if pool.digest else ", if all images are like the first"))


def _pool_like_its_first_image(campaign: Campaign, folder: Path) -> Product:
    """A pool in which every image is as large as the first: what can be said before all have been read."""
    source = open_images(campaign.settings.data, "pool")
    height, width, _ = source.image(source.image_ids[0]).shape
    shape = {"height": height, "width": width, "group": group_name(height, width)}
    rows = [{"image_id": name, **shape, "row": row} for row, name in enumerate(source.image_ids)]
    tables.write_table(folder / POOL, tables.POOL, rows)
    return Product(folder, "", "", "pool", 0.0, 0, facts={"class_names": list(source.class_names)})


def _compute(subject: Subject) -> Findings:
    compute = subject.campaigns[0].settings.compute
    if "://" in compute.cluster:
        yield from _scheduler(compute.cluster)
    elif compute.device == "cuda" and not torch.cuda.is_available():
        yield Finding("fail", 'compute.device = "cuda": there is no CUDA device', 'set it to "auto" or "cpu"')


def _scheduler(address: str) -> Findings:
    try:
        with Client(address, timeout=ANSWER_S, set_as_default=False) as client:
            workers = client.scheduler_info()["workers"].values()
    except (OSError, ValueError) as error:
        remedy = "start one with `dask scheduler`, or correct compute.cluster"
        yield Finding("fail", f"no Dask scheduler answers at {address} ({error})", remedy)
        return
    claims = Counter(name for worker in workers for name in worker["resources"])
    named = ", ".join(f"{count} {name}" for name, count in sorted(claims.items())) or "nothing"
    remedy = "" if claims["CPU"] else f"stages need one that claims CPU: `cereals worker {address}`"
    yield Finding("warn" if remedy else "ok", f"{address}: workers claim {named}", remedy)


def _damage(subject: Subject) -> Findings:
    folders = [each.stage(*stage) for each in subject.campaigns for stage in stages_of(each)]
    there = [folder for folder in folders if (folder / MANIFEST).exists()]
    for folder in there:
        if kept_or_pruned(folder, hashed=True) is None:
            yield Finding("fail", f"{folder}: damaged", "running it again makes it anew; check the disk")
    yield Finding("ok", f"read {plural(len(there), 'product')}")


HOST_CHECKS = {"versions": _versions, "machine": _machine, "Prefect server": _server}
FILE_CHECKS = {"data": _data, "lock": _lock, "leftovers": _leftovers, "resources": _resources, "compute": _compute}
DEEP_CHECKS = {"products": _damage}
