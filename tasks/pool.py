"""pool: every image and its truth read once, before anything is spent; and the list of the pool's images."""

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from cereals_core.datasets import open_truth
from cereals_core.datasets.check import ImageInfo, check
from cereals_core.errors import DataError, SettingsError
from cereals_core.grid import candidate_shape
from cereals_core.settings import CampaignSettings
from tasks.running.device import cpu_threads
from tasks.running.stage import stage
from tasks.running.takes import Takes
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.pool import Pool, group_name
from tasks.telling.progress import Advance, track

SPLITS: tuple[Literal["pool"], Literal["eval"]] = ("pool", "eval")


Track = Callable[[int, str], AbstractContextManager[Advance]]
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


def refuse_impossible(settings: CampaignSettings, pool: Pool) -> None:
    """Raise SettingsError when the pool cannot serve what the settings ask for."""
    wanted = settings.acquisition
    if wanted.seed_images != "all" and wanted.seed_images > len(pool.images):
        raise SettingsError(
            f"acquisition.seed_images = {wanted.seed_images}: the pool has {len(pool.images)} images; "
            "lower it to so many at most, or enlarge the pool"
        )
    window_px = wanted.window_px
    fits = any(all(candidate_shape(shard.height, shard.width, window_px)) for shard in pool.shards())
    if wanted.unit == "region" and not fits:
        sizes = ", ".join(list(pool.groups)[:5])
        raise SettingsError(
            f"acquisition.window_px = {window_px}: fits into no image of the pool (height x width {sizes}); lower it"
        )
    pool.budget(wanted)
