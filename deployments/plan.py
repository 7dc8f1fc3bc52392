"""`cereals plan`: what a campaign will take of time, memory and disk, before anything runs; nothing of it is left."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from cereals_core.datasets import open_images
from cereals_core.location import is_on_disk
from cereals_core.settings import CampaignSettings, other_trunk
from cereals_core.settings_files import read_settings
from cereals_core.workload import Workload
from flows.campaign import run_quietly
from tasks.forecast.needs import Room, StageNeed, disk_bytes, needs_of, room_for, shortages, uses_cuda
from tasks.forecast.times import Paces, StageTime, advice, times, to_come
from tasks.forecast.trial import look_at_images, try_out
from tasks.pages.plan import PlanFacts, StagePlan
from tasks.pages.wording import duration, plural
from tasks.running.opening import open_campaign
from tasks.running.stage import Stage
from tasks.store.history import finished_rounds, has_ended, products_made
from tasks.store.layout import Campaign
from tasks.store.pool import open_pool
from tasks.store.products import find_product

BUSY = 0.5
"""Load of a core before anything is measured, from which on measured times depend on what others do."""


def plan(file: Path) -> PlanFacts:
    """Plan all that is left of a campaign file's campaign, by what was recorded or else by a trial now."""
    return _Plan(open_campaign(read_settings(file))).facts()


class _Plan:
    def __init__(self, campaign: Campaign) -> None:
        self.load = os.getloadavg()[0]
        self.campaign, self.settings, self.here = campaign, campaign.settings, _here(campaign.settings)
        self.finished = len(finished_rounds(campaign))
        self.left = to_come(campaign, self.finished)
        pool = find_product(campaign.stage("pool", None))
        self.images = look_at_images(
            self.settings, {each.image_id: each.size for each in open_pool(campaign, pool).images} if pool else None
        )
        classes = len(open_images(self.settings.data, "pool").class_names)
        eval_images = len(open_images(self.settings.data, "eval").image_ids)
        self.work = Workload(self.here, self.images.sizes, eval_images, classes)
        self.work.refuse_impossible()
        self.needs = {need.stage.name: need for need in needs_of(self.work, self.finished)}
        self.room, self.on_device = room_for(campaign), uses_cuda(self.here)

    def facts(self) -> PlanFacts:
        """Say everything."""
        found = {each.stage.name: each for each in self._times()}
        needs, room = list(self.needs.values()), self.room
        return PlanFacts(
            title=f"{self.settings.name}, in {self.campaign.folder}: {self._rounds()}",
            notes=list(self._notes()),
            stages=[self._stage(stage, rounds, found.get(stage.name)) for stage, rounds in self.left],
            disk_bytes=disk_bytes(needs),
            there_bytes=(room.memory_bytes, room.device_bytes, room.disk_bytes),
            shortages=list(shortages(self.settings, needs, room)),
            advice=advice(self.settings, list(found.values()), self.images.image_s, self.on_device),
            otherwise=self._otherwise(),
        )

    def _times(self) -> list[StageTime]:
        """Time stages by what is recorded, else by a trial; none is made where a stage would not fit into memory."""
        recorded, tried = Paces(products_made(self.campaign)), None
        there = room_for(replace(self.campaign, settings=self.here))
        if any(recorded.of(stage, 0) is None for stage, _ in self.left) and _fits(self.needs.values(), there):
            tried = try_out(self.work, run_quietly)
        return times(self.left, self.work, recorded, tried)

    def _otherwise(self) -> str:
        """Tell how long it would take with the trunk trained in place of frozen, or frozen in place of trained.

        Nothing is told of campaigns that have begun, and no time of one that would not fit into memory.
        """
        other = other_trunk(self.here)
        if other is None or any(True for _ in products_made(self.campaign)):
            return ""
        work = Workload(other, self.images.sizes, self.work.eval_images, self.work.classes)
        if not _fits(needs_of(work), room_for(replace(self.campaign, settings=other))):
            return f'with model.trunk = "{other.model.trunk}" it would not fit into the memory here'
        left = to_come(replace(self.campaign, settings=other), 0)
        total_s = sum(each.total_s for each in times(left, work, Paces([]), try_out(work, run_quietly)))
        return f'with model.trunk = "{other.model.trunk}" all rounds would take {duration(total_s)}'

    def _stage(self, stage: Stage, rounds: Sequence[int | None], found: StageTime | None) -> StagePlan:
        counts = [stage.takes.units(self.work, number or 0) for number in rounds]
        need = self.needs.get(stage.name)
        return StagePlan(
            stage=stage.name,
            units=sum(counts) / len(counts),
            unit=stage.takes.unit,
            round_s=found.round_s if found else None,
            total_s=found.total_s if found else None,
            is_recorded=found is not None and found.is_recorded,
            memory_bytes=need.memory_bytes if need else None,
            device_bytes=need.device_bytes if need else None,
            disk_bytes=need.disk_bytes if need else None,
        )

    def _rounds(self) -> str:
        asking = max(self.settings.stop.rounds - self.finished, 0)
        if has_ended(self.campaign):
            return "it has ended" + (f"; if [stop] lets it go on, {plural(asking, 'round')} to come" if asking else "")
        return f"{plural(asking, 'round')} of queries to come, and a last training" if self.left else "nothing to come"

    def _notes(self) -> Iterator[str]:
        """Say what the figures rest on, a sentence each."""
        work, settings, images = self.work, self.settings, self.images
        height, width = work.largest
        at_most = " at most" if len(work.counts) > 1 else ""
        drawn = "" if images.are_known else f"; sizes of {images.read:,} of them, drawn at random"
        evaluated = plural(work.eval_images, "image")
        yield f"{plural(work.images, 'image')} of {height} x {width} px{at_most}{drawn}; {evaluated} for evaluation"
        yield f"networks on {'CUDA' if self.on_device else plural(settings.compute.cpu_threads, 'CPU thread')}"
        cores = len(os.sched_getaffinity(0))
        if self.load > BUSY * cores:
            yield f"others use this machine (load {self.load:.1f}, {plural(cores, 'core')}): times are as it is now"
        if not is_on_disk(self.campaign.folder):
            yield "the object store was not tried: what goes there takes its time beside this"
        if "://" in settings.compute.cluster:
            yield f"the workers of {settings.compute.cluster} cannot be measured from here: times are this machine's"
        steps = settings.training.steps
        converging = f"trainings may converge before training.max_steps = {settings.training.max_steps:,}, and "
        yield f"at most: {'' if steps else converging}the campaign may end before stop.rounds = {settings.stop.rounds}"


def _here(settings: CampaignSettings) -> CampaignSettings:
    """Return the same settings for this machine, if they name workers of other hosts."""
    if "://" not in settings.compute.cluster:
        return settings
    compute = settings.compute.model_copy(update={"cluster": "none", "device": "auto"})
    return settings.model_copy(update={"compute": compute})


def _fits(needs: Iterable[StageNeed], room: Room) -> bool:
    """Tell whether memory will do, in which some steps of each network are about to be taken."""
    return all(
        (room.memory_bytes is None or need.memory_bytes <= room.memory_bytes)
        and (room.device_bytes is None or need.device_bytes <= room.device_bytes)
        for need in needs
    )
