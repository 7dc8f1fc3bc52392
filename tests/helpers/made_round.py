"""A round's maps without networks: pools of any size with made maps, and the stages from maps to proposals on them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import ndimage

from cereals_core.data_settings import SyntheticData
from cereals_core.grid import map_shape
from cereals_core.information import quantise
from cereals_core.seeding import rng
from cereals_core.settings_files import parse_settings
from tasks.running.stage import SEED_ROUND, Stage
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.layout import MAPS, Campaign
from tasks.store.maps import MapStore
from tasks.store.pool import Pool, Shard
from tasks.store.products import Product, Recipe, find_product, making, require

MADE_SHARDS = 16
"""Shards drawn for each map; the others repeat them, their images shifted by some cells."""
LABELLED_IMAGES = 50
"""Images of which a window is labelled, evenly spread."""
PIXELS = {"height": 1024, "width": 2048}


def made_campaign(folder: Path, images: int, **acquisition: object) -> Campaign:
    """A campaign whose pool has so many images of 1024 x 2048 px."""
    settings = parse_settings(
        {
            "name": "made",
            "folder": str(folder),
            "data": {"format": "synthetic", "pool_images": images, "eval_images": 1, **PIXELS},
            "acquisition": {"strategy": "cereals-entropy", "information": "entropy", **acquisition},
        },
        "made round",
    )
    return Campaign(settings.path, settings)


def make(campaign: Campaign) -> dict[str, Product]:
    """Write pool, ledger and both maps of round 0; what is there already is left."""
    return {
        "pool": _made(campaign, "pool", SEED_ROUND, _write_pool),
        "ledger": _made(campaign, "seed-set", SEED_ROUND, _write_ledger),
        "information": _made(campaign, "info-map", 0, _write_maps),
        "cost": _made(campaign, "cost-map", 0, _write_maps),
    }


def run(campaign: Campaign, stage: Stage, inputs: Mapping[str, Product | None]) -> Product:
    """A stage's product of round 0, made anew without Prefect."""
    folder = campaign.stage(stage.name, 0)
    with making(folder, stage.recipe(campaign, 0, inputs)) as (work, facts):
        stage.body(Work(stage.name, campaign, 0, work, facts, stage.gpu), **inputs)
    return require(find_product(folder), folder)


Writer = Callable[[Campaign, str, Path, dict[str, Any]], None]


def _made(campaign: Campaign, name: str, number: int | None, write: Writer) -> Product:
    folder = campaign.stage(name, number)
    found = find_product(folder, hashed=False)
    if found is None:
        with making(folder, Recipe(name, 1, {}, {})) as (work, facts):
            write(campaign, name, work, facts)
    return found or require(find_product(folder), folder)


def _write_pool(campaign: Campaign, name: str, work: Path, facts: dict[str, Any]) -> None:
    count, group = _images(campaign), "1024x2048"
    columns = {
        "image_id": [f"{number:06d}" for number in range(count)],
        "height": np.full(count, PIXELS["height"]),
        "width": np.full(count, PIXELS["width"]),
        "group": [group] * count,
        "row": np.arange(count),
    }
    tables.POOL.write(work, pa.table(columns))
    facts.update(images=count, class_names=["a", "b"])


def _write_ledger(campaign: Campaign, name: str, work: Path, facts: dict[str, Any]) -> None:
    count = _images(campaign)
    rows = [
        {"round": -1, "rank": rank, "image_id": f"{index:06d}", "y": 256, "x": 512, "height": 128, "width": 128}
        for rank, index in enumerate(range(0, count, max(count // LABELLED_IMAGES, 1)))
    ]
    tables.LEDGER.write(work, [{**row, "vertices": 9.0} for row in rows])


def _write_maps(campaign: Campaign, name: str, work: Path, facts: dict[str, Any]) -> None:
    pool = Pool(
        tables.POOL.read(campaign.stage("pool", SEED_ROUND)),
        campaign.settings.compute.shard_images,
    )
    store = MapStore.create(work / MAPS, pool)
    shards = pool.shards()
    drawn = [_drawn(name, shard) for shard in shards[:MADE_SHARDS]]
    for index, shard in enumerate(shards):
        maps = drawn[index % MADE_SHARDS][: len(shard.images)]
        store.write(shard, np.roll(maps, index // MADE_SHARDS, axis=2))


def _images(campaign: Campaign) -> int:
    data = campaign.settings.data
    assert isinstance(data, SyntheticData)
    return data.pool_images


def _drawn(name: str, shard: Shard) -> np.ndarray:
    """Maps as networks make them: smooth, with edges; entropy in [0, 2.9] nats, clicks a cell mostly below 1."""
    stream = rng(0, name, shard.index)
    noise = stream.random((len(shard.images), *map_shape(shard.height, shard.width)), np.float32)
    smooth = ndimage.gaussian_filter(noise, (0, 3, 3))
    edges = np.abs(ndimage.sobel(ndimage.gaussian_filter(noise, (0, 8, 8)) > 0.5, axis=1))
    high = 2.9 if name == "info-map" else 0.5
    values = (smooth - smooth.min()) / np.ptp(smooth) * 0.5 + 0.5 * edges / edges.max()
    return quantise((values * high).astype(np.float32))
