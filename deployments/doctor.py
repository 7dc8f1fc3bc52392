"""`cereals doctor`: what stands in the way of campaigns, on this host and around it, each with its remedy.

A check is a row of a table: a function that yields findings. One that fails itself is a finding too.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from distributed import Client

from cereals_core.datasets import open_images
from cereals_core.errors import CerealsError
from cereals_core.settings_files import read_either
from cereals_core.workload import Workload
from deployments.doctor_host import ANSWER_S, HOST_CHECKS, Finding, Findings
from tasks.examination import SPLITS
from tasks.pages.wording import plural, size
from tasks.pool import workload_of
from tasks.running.lock import holder_of
from tasks.running.opening import open_campaign
from tasks.store.history import kept_or_pruned, manifests
from tasks.store.layout import Campaign, Study, place_of
from tasks.store.products import find_product
from tasks.store.storage import refuse_unreachable


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
    """List what all checks of this host and of these campaign and study files find; `deep` reads every product."""
    findings = [finding for name, check in HOST_CHECKS.items() for finding in _tried(name, check)]
    for file in files:
        findings += _examine_file(file, deep)
    return findings


def show(findings: Iterable[Finding]) -> str:
    """Write one line for each finding."""
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
    """List what a check finds, up to an error of its own."""
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


def _settings(file: Path, found: list[Subject]) -> Findings:
    place = place_of(read_either(file))
    if isinstance(place, Study):
        campaigns = [open_campaign(each, place.shared) for _, each in place.settings.campaigns()]
    else:
        campaigns = [open_campaign(place.settings)]
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
    """Find what stages that died have left, and `cereals gc` would remove; not while stages run."""
    from tasks.store.pruning import prune

    if subject.holder:
        return
    for campaign in subject.campaigns:
        for each in prune(campaign, keep_rounds=sys.maxsize, dry_run=True):
            yield Finding("warn", f"{each.folder}: abandoned, {size(each.freed_bytes)}", f"cereals gc {subject.file}")


def _resources(subject: Subject) -> Findings:
    """Compare memory and disk with what each campaign of the first seed will take in its rounds to come."""
    from tasks.forecast.needs import lacking_for

    first = subject.campaigns[0]
    problems: dict[str, None] = {}
    pool = find_product(first.stage("pool", None))
    for campaign in subject.campaigns:
        if campaign.settings.seed == first.settings.seed:
            there = next(each for each in (campaign.folder, *campaign.folder.parents) if each.exists())
            load = (
                workload_of(replace(first, settings=campaign.settings), pool)
                if pool
                else _like_its_first_image(campaign)
            )
            problems.update(dict.fromkeys(lacking_for(replace(campaign, folder=there), load)))
    for problem in problems:
        yield Finding("fail", problem)
    if not problems:
        yield Finding("ok", "memory and disk will do" + ("" if pool else ", if all images are like the first"))


def _like_its_first_image(campaign: Campaign) -> Workload:
    """Tell the work on a pool whose images are all as large as the first: what is known before all have been read."""
    data = campaign.settings.data
    source, evaluated = open_images(data, "pool"), open_images(data, "eval")
    height, width, _ = source.image(source.image_ids[0]).shape
    sizes = [(height, width)] * len(source.image_ids)
    return Workload(campaign.settings, sizes, len(evaluated.image_ids), len(source.class_names))


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
    there = [folder for each in subject.campaigns for _, folder, _ in manifests(each)]
    for folder in there:
        if kept_or_pruned(folder, hashed=True) is None:
            yield Finding(
                "fail", f"{folder}: damaged", f"check the disk, remove {folder}, and run it again, which makes it anew"
            )
    yield Finding("ok", f"read {plural(len(there), 'product')}")


FILE_CHECKS = {"data": _data, "lock": _lock, "leftovers": _leftovers, "resources": _resources, "compute": _compute}
DEEP_CHECKS = {"products": _damage}
