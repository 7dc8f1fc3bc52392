"""pool: every image and its truth read once, before anything is spent; and the list of the pool's images."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from cereals_core.datasets import open_truth
from cereals_core.datasets.check import ImageInfo, check
from cereals_core.errors import DataError
from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.running.device import cpu_threads
from tasks.running.stage import stage
from tasks.running.takes import Takes
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.layout import Campaign
from tasks.store.pool import group_name, open_pool
from tasks.store.products import Product
from tasks.telling.progress import Tracker, track

SPLITS: tuple[Literal["pool"], Literal["eval"]] = ("pool", "eval")
Track = Callable[[int, str], AbstractContextManager[Tracker]]
"""Follows so many units of work."""


def examine(settings: CampaignSettings, tracked: Track | None = None) -> dict[str, list[ImageInfo]]:
    """Read every image of both splits and its truth once; DataError lists all that is broken."""
    datasets = {split: open_truth(settings.data, split) for split in SPLITS}
    infos: dict[str, list[ImageInfo]] = {}
    problems: list[str] = []
    with (tracked or partial(track, "check"))(
        sum(len(each.image_ids) for each in datasets.values()), "images"
    ) as advance:
        for split, dataset in datasets.items():
            infos[split], found = check(dataset, advance, cpu_threads(settings.compute))
            problems += found
    if problems:
        raise DataError(f"{len(problems)} problems in the data; correct them and run again\n" + "\n".join(problems))
    return infos


@stage(
    "pool",
    version=1,
    depends_on=("data",),
    takes=Takes(units=lambda load, number: load.images + load.eval_images),
    note=lambda facts: f"{facts['images']:,} images to ask of, {facts['eval_images']:,} to evaluate on",
)
def check_pool(work: Work) -> None:
    """Check the data, and list the pool."""
    settings = work.campaign.settings
    infos = examine(settings, work.track)
    rows: Counter[str] = Counter()
    table = []
    for info in infos["pool"]:
        group = group_name(info.height, info.width)
        table.append({**vars(info), "group": group, "row": rows[group]})
        rows[group] += 1
    tables.POOL.write(work.folder, table)
    work.facts.update(
        images=len(table),
        pixels=sum(info.height * info.width for info in infos["pool"]),
        eval_images=len(infos["eval"]),
        class_names=list(open_truth(settings.data, "pool").class_names),
    )


def workload_of(campaign: Campaign, pool: Product) -> Workload:
    """Return the work of a campaign on the pool that a pool product lists."""
    sizes = [image.size for image in open_pool(campaign, pool).images]
    return Workload(campaign.settings, sizes, pool.facts["eval_images"], len(pool.facts["class_names"]))
