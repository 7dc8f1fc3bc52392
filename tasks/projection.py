"""What a campaign will take of memory and disk, stage by stage, before anything is spent on it."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from cereals_core.errors import ResourcesError
from cereals_core.grid import candidate_shape, map_shape
from cereals_core.location import is_on_disk
from cereals_core.models.build import cost_network_outline, network_outline
from cereals_core.models.memory import Footprint, footprint
from cereals_core.report.wording import size as told
from cereals_core.settings import Acquisition, CampaignSettings
from tasks.device import cpu_threads
from tasks.history import evaluated_rounds
from tasks.layout import Campaign
from tasks.prefetch import AHEAD
from tasks.products import Product
from tasks.start import open_pool
from tasks.training import IMAGES_KEPT_BYTES

Size = tuple[int, int]
"""Height and width of an image in pixels."""
_PROPOSAL_BYTES = 24
_WINDOW_ARRAYS = 4
"""Arrays of float64 as large as a shard's maps that window sums, scaling and fusion hold at a time."""
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class StageNeed:
    """What a stage of one round takes: memory beyond that of the process, and what it leaves on the disk, in bytes."""

    stage: str
    memory_bytes: int
    disk_bytes: int


def project(settings: CampaignSettings, sizes: Counter[Size], classes: int) -> list[StageNeed]:
    """Needs of every stage of a round that works through the whole pool, whose images have these sizes.

    Upper bounds but for the networks' memory, where the libraries' scratch is not known: that is an estimate.
    """
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    pixels = sum(size[0] * size[1] * count for size, count in sizes.items())
    seg = footprint(network_outline(settings.model, classes), height, width)
    cost = footprint(cost_network_outline(settings.model), height, width)
    cells, windows = _cells(sizes), _regions(sizes, settings.acquisition)
    shard_cells = settings.compute.shard_images * _cells(Counter({(height, width): 1}))
    decoded, kept = height * width * 3 * (AHEAD + 2), min(IMAGES_KEPT_BYTES, 3 * pixels)
    shards = cpu_threads(settings.compute) * shard_cells * 8 * _WINDOW_ARRAYS
    most_proposals = max(4 * pixels // settings.acquisition.window_px**2, sizes.total())
    asked_pixels = settings.acquisition.images_per_round * pixels / sizes.total()
    return [
        StageNeed("train-seg", seg.training + kept, _training_disk(seg)),
        StageNeed("evaluate", seg.prediction + decoded + height * width * (8 * classes + 8), 0),
        StageNeed("train-cost", cost.training + kept, _training_disk(cost)),
        StageNeed("info-map", seg.prediction + decoded + shard_cells * 4, 4 * cells),
        StageNeed("cost-map", cost.prediction + decoded + shard_cells * 4, 4 * cells),
        StageNeed("region-fusion", shards, 4 * windows),
        StageNeed("nms", shards, _PROPOSAL_BYTES * min(windows, most_proposals)),
        StageNeed("oracle-query", decoded, int(asked_pixels)),
    ]


def refuse_unaffordable(campaign: Campaign, pool: Product) -> None:
    """Raise ResourcesError when memory or disk will not do, with what is needed and what there is."""
    problems = shortages(campaign, pool)
    if problems:
        raise ResourcesError(f"{campaign.folder}: this machine does not hold the campaign\n" + "\n".join(problems))


def shortages(campaign: Campaign, pool: Product) -> list[str]:
    """What memory and disk lack for the rounds to come, each with its remedy; nothing when all fits."""
    sizes = Counter((image.height, image.width) for image in open_pool(campaign, pool).images)
    wanted = set(campaign.round_stages)
    needs = project(campaign.settings, sizes, len(pool.facts["class_names"]))
    needs = [need for need in needs if need.stage in wanted]
    return [*_short_of_memory(campaign.settings, needs), *_short_of_disk(campaign, needs)]


def rounds_to_come(campaign: Campaign) -> int:
    """Rounds of queries that may still be run."""
    return max(campaign.settings.stop.rounds - len(evaluated_rounds(campaign)), 0)


def available_memory() -> int:
    """Bytes of memory that this process may still take: of the machine, and of its control group."""
    free = [psutil.virtual_memory().available]
    with suppress(OSError, ValueError):  # no such group, or no limit
        free.append(int((_CGROUP / "memory.max").read_text()) - int((_CGROUP / "memory.current").read_text()))
    return min(free)


def _short_of_memory(settings: CampaignSettings, needs: list[StageNeed]) -> list[str]:
    if settings.compute.cluster not in ("auto", "none", "local"):
        return []  # the hosts of other workers are not looked at from here
    on_gpu = settings.compute.device != "cpu" and torch.cuda.is_available()
    there = torch.cuda.mem_get_info()[0] if on_gpu else available_memory()
    worst = max(needs, key=lambda need: need.memory_bytes)
    if worst.memory_bytes <= there:
        return []
    return [
        f"memory: {worst.stage} takes about {told(worst.memory_bytes)}, {told(there)} are there; "
        "lower model.width, data.scale or compute.shard_images, or end what else runs"
    ]


def _short_of_disk(campaign: Campaign, needs: list[StageNeed]) -> list[str]:
    if not is_on_disk(campaign.folder):
        return []
    rounds = rounds_to_come(campaign)
    a_round = sum(need.disk_bytes for need in needs)
    there = psutil.disk_usage(str(campaign.folder)).free
    if rounds * a_round <= there:
        return []
    worst = max(needs, key=lambda need: need.disk_bytes)
    return [
        f"disk: {rounds} rounds take up to {told(rounds * a_round)}, most of it {worst.stage}; {told(there)} are "
        "free. Free some (`cereals gc` removes maps of past rounds), or lower stop.rounds; it may be raised again later"
    ]


def _cells(sizes: Counter[Size]) -> int:
    """Cells of the maps of all images."""
    return sum(map_shape(*size)[0] * map_shape(*size)[1] * count for size, count in sizes.items())


def _regions(sizes: Counter[Size], wanted: Acquisition) -> int:
    """Regions that could be asked for in all images."""
    if wanted.unit == "image":
        return sizes.total()
    shapes = {size: candidate_shape(*size, wanted.window_px) for size in sizes}
    return sum(shapes[size][0] * shapes[size][1] * count for size, count in sizes.items())


def _training_disk(need: Footprint) -> int:
    """Weights, beside a checkpoint of model, two moments and best weights that goes when the training ends."""
    return 5 * need.weights
