"""Memory and disk that the rounds to come will need, told before anything is spent."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch

from cereals_core.errors import ResourcesError
from cereals_core.location import is_on_disk
from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.pages.wording import plural, size
from tasks.pool import workload_of
from tasks.running.memory import available_bytes, resident_bytes
from tasks.running.stage import Stage
from tasks.running.takes import fewer_pixels, kept_bytes
from tasks.stages import FIRST, runs_of
from tasks.store.history import finished_rounds
from tasks.store.layout import Campaign
from tasks.store.products import Product

LIBRARIES_BYTES = 40 << 20
"""What the process still loads: kernels, and code that is compiled when they are first called."""


@dataclass(frozen=True)
class StageNeed:
    """What a stage needs, in bytes.

    Memory of the process and of a CUDA device at its peak; disk for what it leaves in all rounds to come, and beyond
    that while it works.
    """

    stage: Stage
    memory_bytes: int
    device_bytes: int
    disk_bytes: int
    passing_bytes: int = 0


@dataclass(frozen=True)
class Room:
    """What there is: memory, CUDA memory and disk in bytes; None where it is elsewhere, and not looked at."""

    memory_bytes: int | None
    device_bytes: int | None
    disk_bytes: int | None


def needs_of(load: Workload, finished: int = 0) -> list[StageNeed]:
    """List what each stage needs after so many finished rounds, the one with the most memory first.

    Images for evaluation are taken to be no larger than the pool's. The rounds are those that `stop.rounds` allows: a
    budget or a target may end the campaign earlier.
    """
    runs = groupby(runs_of(load.settings, finished), key=lambda run: run[0])
    needs = [
        _need(stage, load, [number or 0 for _, number in rounds])
        for stage, rounds in runs
        if not (finished and stage in FIRST)
    ]
    return sorted(needs, key=lambda need: max(need.memory_bytes, need.device_bytes), reverse=True)


def _need(stage: Stage, load: Workload, rounds: Sequence[int]) -> StageNeed:
    memory, on_device = stage.takes.memory(load), stage.gpu and uses_cuda(load.settings)
    process_bytes = resident_bytes() + LIBRARIES_BYTES + kept_bytes(load) + memory.arrays
    return StageNeed(
        stage,
        memory_bytes=round(process_bytes + (memory.checkpoint if on_device else memory.tensors)),
        device_bytes=round(memory.tensors) if on_device else 0,
        disk_bytes=round(sum(stage.takes.disk_bytes(load, number) for number in rounds)),
        passing_bytes=round(2 * memory.checkpoint),
    )


def uses_cuda(settings: CampaignSettings) -> bool:
    """Tell whether networks will run on a CUDA device."""
    return settings.compute.device == "cuda" or (settings.compute.device == "auto" and torch.cuda.is_available())


def room_for(campaign: Campaign) -> Room:
    """Look at what there is for a campaign here; memory is elsewhere when its stages go to other hosts' workers."""
    compute = campaign.settings.compute
    here = "://" not in compute.cluster
    return Room(
        available_bytes() if here else None,
        _device_bytes() if here and uses_cuda(campaign.settings) and torch.cuda.is_available() else None,
        _free_bytes(campaign.folder) if is_on_disk(campaign.folder) else None,
    )


def _device_bytes() -> int:
    """Tell the memory that this process can have of its CUDA device; of several, that of the smallest."""
    devices = range(torch.cuda.device_count())
    if len(devices) > 1:  # to ask for what is free would take some of it
        return min(int(torch.cuda.get_device_properties(device).total_memory) for device in devices)
    return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def shortages(settings: CampaignSettings, needs: Sequence[StageNeed], room: Room) -> Iterator[str]:
    """Yield what does not fit, each with the worst stage and the remedy."""
    for said, field in (("memory", "memory_bytes"), ("CUDA memory", "device_bytes")):
        worst, there = max(needs, key=lambda need: getattr(need, field)), getattr(room, field)
        if there is not None and getattr(worst, field) > there:
            yield (
                f"{worst.stage.name} needs {size(getattr(worst, field))} of {said}, and there are {size(there)}; "
                f"{worst.stage.takes.lighter(settings)}"
            )
    needed = disk_bytes(needs)
    if room.disk_bytes is not None and needed > room.disk_bytes:
        worst = max(needs, key=lambda need: need.disk_bytes)
        yield (
            f"the rounds to come need {size(needed)} of disk, most of it for {worst.stage.name} "
            f"({size(worst.disk_bytes)}), and {size(room.disk_bytes)} are free; lower stop.rounds = "
            f"{settings.stop.rounds} or {fewer_pixels(settings)}, let `cereals gc` remove the maps of past rounds, or "
            "set folder to a larger disk"
        )


def disk_bytes(needs: Sequence[StageNeed]) -> int:
    """Sum the disk that all stages need; what they need only while they work, one after the other."""
    return sum(need.disk_bytes for need in needs) + max(need.passing_bytes for need in needs)


def lacking_for(campaign: Campaign, load: Workload) -> list[str]:
    """List what a campaign's rounds to come lack on this machine, each with its remedy."""
    return list(shortages(load.settings, needs_of(load, len(finished_rounds(campaign))), room_for(campaign)))


def refuse_unaffordable(campaign: Campaign, pool: Product) -> None:
    """Raise ResourcesError when the rounds to come need more memory or disk than there is."""
    lacking = lacking_for(campaign, workload_of(campaign, pool))
    if lacking:
        listed = "".join(f"\n  {each}" for each in lacking)
        raise ResourcesError(
            f"{campaign.folder}: {plural(len(lacking), 'projected need')} beyond what there is{listed}"
        )
