"""Before anything is spent: memory and disk that each stage will need, and the refusal of what does not fit.

Tensors are counted exactly, on the meta device; arrays by the largest image or shard; answers, proposals and ledgers by
what the budget allows at most.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path

import torch

from cereals_core.errors import ResourcesError
from cereals_core.grid import STRIDE_PX
from cereals_core.location import is_on_disk
from cereals_core.models.base import Network
from cereals_core.models.build import build_cost_network, build_network
from cereals_core.settings import CampaignSettings, SyntheticData
from tasks.forecast.footprint import outline, parameter_bytes, prediction_bytes, training_bytes
from tasks.forecast.outlook import Outlook, Size
from tasks.pages.wording import plural, size
from tasks.running.device import precision_of
from tasks.running.images import kept_at_most_bytes
from tasks.running.memory import available_bytes, resident_bytes
from tasks.running.prefetch import AHEAD
from tasks.store.history import finished_rounds
from tasks.store.layout import Campaign
from tasks.store.pool import open_pool
from tasks.store.products import Product

LIBRARIES_BYTES = 40 << 20
"""What the process still loads: kernels, and code that is compiled when they are first called."""
IMAGES_READ = AHEAD + 2
"""Images in memory at a time where they are read ahead: those waiting or being decoded, and those in hand."""
SCORING_BYTES_A_CELL = 8
"""What scoring a shard holds for each cell: two float16 maps, and the bytes that they are read from."""
EVALUATION_BYTES_A_PIXEL = 32
"""What comparing one segmentation with its truth holds for each pixel: four int64 arrays at most."""
ANSWER_BYTES_A_PIXEL = 0.5
"""Answers on disk for each pixel labelled: labels (0.1 as PNG of small windows) and clicks (up to 0.3) at most."""
ANSWER_HELD_BYTES_A_PIXEL = 2
"""The same in memory, with the labels decoded."""
PROPOSAL_BYTES, LEDGER_ROW_BYTES, PAGE_BYTES = 40, 100, 1_000_000
"""A row of proposals, a row of the ledger, and a round's page with its pictures."""


@dataclass(frozen=True)
class StageNeed:
    """What a stage needs, in bytes.

    Memory of the process and of a CUDA device at its peak; disk for what it leaves in all rounds to come, and beyond
    that while it works.
    """

    stage: str
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


def project(settings: CampaignSettings, sizes: Sequence[Size], classes: int, finished: int = 0) -> list[StageNeed]:
    """What each stage needs after so many finished rounds, the one with the most memory first.

    `sizes` are those of the pool's images; the evaluation split is taken to be no larger. The rounds are those that
    `stop.rounds` allows: a budget or a target may end the campaign earlier.
    """
    projection = _Projection(settings, Outlook(settings, sizes), classes, finished)
    needs = map(projection.need, projection.stages)
    return sorted(needs, key=lambda need: max(need.memory_bytes, need.device_bytes), reverse=True)


class _Projection:
    def __init__(self, settings: CampaignSettings, outlook: Outlook, classes: int, finished: int) -> None:
        self.settings, self.outlook, self.classes, self.finished = settings, outlook, classes, finished
        pool_bytes = 3 * outlook.pixels
        self.pool_is_kept = pool_bytes <= kept_at_most_bytes()
        self.process_bytes = resident_bytes() + LIBRARIES_BYTES + self.pool_is_kept * pool_bytes

    @property
    def stages(self) -> list[str]:
        first = ["seed-set", *(["true-cost-map"] if self.settings.acquisition.cost == "true" else [])]
        return [*([] if self.finished else first), *Campaign(Path(), self.settings).round_stages]

    def need(self, stage: str) -> StageNeed:
        tensors, arrays, disk = (
            round(table.get(stage, lambda: 0)()) for table in (self.tensors(), self.arrays(), self.disk())
        )
        on_device, saved = uses_cuda(self.settings), self._checkpoint_bytes(stage)
        return StageNeed(
            stage,
            memory_bytes=self.process_bytes + arrays + (saved if on_device else tensors),
            device_bytes=tensors if on_device else 0,
            disk_bytes=disk,
            passing_bytes=2 * saved,
        )

    @cached_property
    def segmentation(self) -> Network:
        return self._outline(partial(build_network, self.settings.model, self.classes))

    @cached_property
    def cost_model(self) -> Network:
        return self._outline(partial(build_cost_network, self.settings.model))

    def _outline(self, build: Callable[[], Network]) -> Network:
        return outline(build, precision_of(self.settings.compute))

    def tensors(self) -> dict[str, Callable[[], float]]:
        """Bytes of tensors, where networks run."""
        largest, labelled = self.outlook.largest, self.outlook.touched_images(self.settings.stop.rounds)
        batch_images = min(self.settings.training.batch_images, labelled)
        return {
            "train-seg": lambda: training_bytes(self.segmentation, *largest, batch_images),
            "train-cost": lambda: training_bytes(self.cost_model, *largest, batch_images),
            "evaluate": lambda: prediction_bytes(self.segmentation, *largest, upsampled=True),
            "info-map": lambda: prediction_bytes(self.segmentation, *largest, self.settings.compute.batch_images),
            "cost-map": lambda: prediction_bytes(self.cost_model, *largest, self.settings.compute.batch_images),
            "evaluate-cost": lambda: prediction_bytes(self.cost_model, *largest),
        }

    def arrays(self) -> dict[str, Callable[[], float]]:
        """Bytes of arrays in main memory: images, maps, answers."""
        image, cells = prod(self.outlook.largest), self.outlook.shard_cells
        images, truths = IMAGES_READ * 3 * image, IMAGES_READ * 2 * image
        mapped = 3 * image * (IMAGES_READ + 2 * self.settings.compute.batch_images) + 8 * cells
        compared = images + truths + EVALUATION_BYTES_A_PIXEL * image
        scored = SCORING_BYTES_A_CELL * cells
        return {
            "seed-set": lambda: truths + ANSWER_HELD_BYTES_A_PIXEL * self.outlook.seed_px,
            "true-cost-map": lambda: truths + 8 * cells,
            "train-seg": lambda: self._samples_bytes(target_bytes=1),
            "train-cost": lambda: self._samples_bytes(target_bytes=4) + parameter_bytes(self.segmentation),
            "evaluate": lambda: compared,
            "info-map": lambda: mapped,
            "cost-map": lambda: mapped,
            "region-fusion": lambda: scored,
            "nms": lambda: scored,
            "oracle-query": lambda: truths + ANSWER_HELD_BYTES_A_PIXEL * self.outlook.asked_px(1),
            "evaluate-cost": lambda: compared,
            "report": lambda: 24 * image,
        }

    def _samples_bytes(self, target_bytes: int) -> float:
        """Images that the last training keeps decoded or reads ahead, or all answers before that; and the targets."""
        outlook, rounds = self.outlook, self.settings.stop.rounds
        labelled_px = outlook.touched_images(rounds) * outlook.mean_px
        in_hand = 3 * (IMAGES_READ + self.settings.training.batch_images - 1) * prod(outlook.largest)
        kept = 0 if self.pool_is_kept else min(kept_at_most_bytes() + in_hand, 3 * labelled_px)
        answers = ANSWER_HELD_BYTES_A_PIXEL * min(outlook.seed_px + outlook.asked_px(rounds), outlook.pixels)
        return max(kept, answers) + target_bytes * labelled_px / STRIDE_PX**2

    def disk(self) -> dict[str, Callable[[], float]]:
        """Bytes on disk that a stage leaves in all rounds to come; the last of them asks nothing."""
        outlook, asking = self.outlook, max(self.settings.stop.rounds - self.finished, 0)
        return {
            "seed-set": lambda: ANSWER_BYTES_A_PIXEL * outlook.seed_px,
            "true-cost-map": lambda: outlook.map_bytes,
            "train-seg": lambda: (asking + 1) * parameter_bytes(self.segmentation),
            "train-cost": lambda: asking * parameter_bytes(self.cost_model),
            "info-map": lambda: asking * outlook.map_bytes,
            "cost-map": lambda: asking * outlook.map_bytes,
            "nms": lambda: asking * PROPOSAL_BYTES * outlook.most_proposals,
            "oracle-query": lambda: self._ledger_bytes(asking) + ANSWER_BYTES_A_PIXEL * outlook.asked_px(asking),
            "report": lambda: (asking + 1) * PAGE_BYTES,
        }

    def _ledger_bytes(self, asking: int) -> int:
        """Every round's ledger holds all rows so far."""
        a_round = self.outlook.budget.most_queries
        before = self.outlook.seed_images + self.finished * a_round
        return LEDGER_ROW_BYTES * sum(before + number * a_round for number in range(1, asking + 1))

    def _checkpoint_bytes(self, stage: str) -> int:
        """Weights, both moments and the best weights, which a training saves now and then."""
        networks = {"train-seg": "segmentation", "train-cost": "cost_model"}
        return 4 * parameter_bytes(getattr(self, networks[stage])) if stage in networks else 0


def uses_cuda(settings: CampaignSettings) -> bool:
    """Whether networks will run on a CUDA device."""
    return settings.compute.device == "cuda" or (settings.compute.device == "auto" and torch.cuda.is_available())


def room_for(campaign: Campaign) -> Room:
    """What there is for a campaign here; memory is elsewhere when its stages go to another scheduler's workers."""
    compute = campaign.settings.compute
    here = "://" not in compute.cluster
    return Room(
        available_bytes() if here else None,
        _device_bytes() if here and uses_cuda(campaign.settings) and torch.cuda.is_available() else None,
        _free_bytes(campaign.folder) if is_on_disk(campaign.folder) else None,
    )


def _device_bytes() -> int:
    """Memory that this process can have of its CUDA device; of several, each worker's own, that of the smallest."""
    devices = range(torch.cuda.device_count())
    if len(devices) > 1:  # to ask for what is free would take some of it
        return min(int(torch.cuda.get_device_properties(device).total_memory) for device in devices)
    return int(torch.cuda.mem_get_info()[0]) + torch.cuda.memory_reserved()


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def shortages(settings: CampaignSettings, needs: Sequence[StageNeed], room: Room) -> Iterator[str]:
    """What does not fit, each with the worst stage and the remedy."""
    for said, field in (("memory", "memory_bytes"), ("CUDA memory", "device_bytes")):
        worst, there = max(needs, key=lambda need: getattr(need, field)), getattr(room, field)
        if there is not None and getattr(worst, field) > there:
            yield (
                f"{worst.stage} needs {size(getattr(worst, field))} of {said}, and there are {size(there)}; "
                f"{_remedy(settings, worst.stage)}"
            )
    needed = disk_bytes(needs)
    if room.disk_bytes is not None and needed > room.disk_bytes:
        worst = max(needs, key=lambda need: need.disk_bytes)
        yield (
            f"the rounds to come need {size(needed)} of disk, most of it for {worst.stage} ({size(worst.disk_bytes)}), "
            f"and {size(room.disk_bytes)} are free; lower stop.rounds = {settings.stop.rounds} or "
            f"{_smaller(settings)}, let `cereals gc` remove the maps of past rounds, or set folder to a larger disk"
        )


def disk_bytes(needs: Sequence[StageNeed]) -> int:
    """Disk that all stages need together; what they need only while they work, one after the other."""
    return sum(need.disk_bytes for need in needs) + max(need.passing_bytes for need in needs)


def _remedy(settings: CampaignSettings, stage: str) -> str:
    wanted, model, batch_images = settings.acquisition, settings.model, settings.training.batch_images
    if stage in ("region-fusion", "nms"):
        return f"lower compute.shard_images = {settings.compute.shard_images} or compute.threads"
    if stage == "seed-set":
        return f"lower acquisition.seed_images = {wanted.seed_images}"
    if stage == "oracle-query":
        return f"lower acquisition.images_per_round = {wanted.images_per_round:g}, or clicks_per_round"
    if stage.startswith("train-") and batch_images > 1:
        return f"lower training.batch_images = {batch_images}"
    is_fcn8s = model.name == "fcn8s" or stage in ("train-cost", "cost-map", "evaluate-cost")
    lighter = f"lower model.width = {model.width:g}" if is_fcn8s else f'take a smaller model.name than "{model.name}"'
    return f"{lighter}, or lower {_smaller(settings)}"


def _smaller(settings: CampaignSettings) -> str:
    data = settings.data
    return f"data.height = {data.height}" if isinstance(data, SyntheticData) else f"data.scale = {data.scale:g}"


def lacking_for(campaign: Campaign, pool: Product) -> list[str]:
    """What a campaign's rounds to come lack on this machine, each with its remedy."""
    settings = campaign.settings
    sizes = [(image.height, image.width) for image in open_pool(campaign, pool).images]
    needs = project(settings, sizes, len(pool.facts["class_names"]), len(finished_rounds(campaign)))
    return list(shortages(settings, needs, room_for(campaign)))


def refuse_unaffordable(campaign: Campaign, pool: Product) -> None:
    """ResourcesError when the rounds to come need more memory or disk than there is."""
    lacking = lacking_for(campaign, pool)
    if lacking:
        listed = "".join(f"\n  {each}" for each in lacking)
        raise ResourcesError(
            f"{campaign.folder}: {plural(len(lacking), 'projected need')} beyond what there is{listed}"
        )
