"""Recompute a finished round's selection from its stored maps with the naive twins, and compare bit for bit.

Runs in tests on a small campaign, and by hand on a real one: `python tests/helpers/round_twin.py CAMPAIGN.toml ROUND`.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import naive
import numpy as np
import pyarrow.parquet as pq
import zarr

from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import read_settings
from tasks.region_maps import Regions, Scales
from tasks.scoring import Proposing
from tasks.store import tables
from tasks.store.history import ledger_before, maps_of, product_of
from tasks.store.layout import Campaign
from tasks.store.ledger import Ledger
from tasks.store.pool import open_pool


@dataclass(frozen=True)
class Twin:
    """What the naive code makes of a round's maps."""

    fused: dict[str, np.ndarray]
    proposals: set[tuple[int, int, int, float]]
    queries: list[tuple[str, int, int, float]]
    information: list[np.float32]


def recompute(folder: Path, settings: CampaignSettings, number: int) -> Twin:
    """Window sums cell by cell, scaling over all candidates, fusion one by one, sorting everything."""
    wanted = settings.acquisition
    window = wanted.window_px // 8
    rounds = folder / "rounds" / f"{number:03d}"
    pool = pq.read_table(folder / "pool" / "pool.parquet").to_pylist()
    before = folder / "rounds" / f"{number - 1:03d}" / "oracle-query" if number else folder / "seed-set"
    boxes = pq.read_table(before / "ledger.parquet").to_pylist()
    sums: dict[tuple[str, int, int], tuple[np.float32, np.float32]] = {}
    shapes: dict[str, tuple[int, int]] = {}
    for image in pool:
        rows, columns = image["height"] // 8, image["width"] // 8
        labelled = np.zeros((rows, columns), bool)
        for box in boxes:
            if box["image_id"] == image["image_id"]:
                y, x = box["y"] // 8, box["x"] // 8
                labelled[y : y + -(-box["height"] // 8), x : x + -(-box["width"] // 8)] = True
        maps = [_map(rounds / stage, image)[:rows, :columns] for stage in ("info-map", "cost-map")]
        information, cost = (naive.window_sums(cells, window) for cells in maps)
        shapes[image["image_id"]] = rows - window + 1, columns - window + 1
        for at, free in naive.candidates(labelled, window).items():
            if free:
                sums[image["image_id"], *at] = np.float32(information[at]), np.float32(cost[at])
    scaled = zip(*(naive.scale([pair[index] for pair in sums.values()]) for index in (0, 1)), strict=True)
    fused = {name: np.full(shape, -np.inf, np.float32) for name, shape in shapes.items()}
    for (name, y, x), (information_share, cost_share) in zip(sums, scaled, strict=True):
        fused[name][y, x] = naive.fuse(wanted.fusion, information_share, cost_share, wanted.alpha, wanted.offset)
    count = int(wanted.images_per_round * np.mean([i["height"] * i["width"] for i in pool]) // wanted.window_px**2)
    proposals = [
        (rank, y * 8, x * 8, float(fused[image["image_id"]][y, x]))
        for rank, image in enumerate(pool)
        for y, x in naive.suppress(fused[image["image_id"]], window)[:count]
    ]
    best = sorted(proposals, key=lambda proposal: (-proposal[3], proposal[1], proposal[2], proposal[0]))[:count]
    queries = [(pool[rank]["image_id"], y, x, score) for rank, y, x, score in best]
    return Twin(fused, set(best), queries, [sums[name, y // 8, x // 8][0] for name, y, x, _ in queries])


def _map(stage: Path, image: dict[str, int]) -> np.ndarray:
    return np.asarray(zarr.open_array(stage / "maps.zarr" / str(image["group"]), mode="r")[image["row"]])


def assert_same(folder: Path, settings: CampaignSettings, number: int) -> Twin:
    """Assert that fused scores, proposals and queries are those of the naive twins, bit for bit."""
    twin, campaign = recompute(folder, settings, number), Campaign(folder, settings)
    regions = Regions(
        settings.acquisition,
        open_pool(campaign, product_of(campaign, "pool", None)),
        Ledger(ledger_before(campaign, number)),
        maps_of(campaign, number),
        settings.seed,
        number,
    )
    scales = Scales(tables.EXTENTS.read(product_of(campaign, "region-fusion", number)))
    for image, scores in Proposing(regions, scales).scores(regions.pool.shards()):
        np.testing.assert_array_equal(scores, twin.fused[image.image_id], err_msg=image.image_id)
    stages = folder / "rounds" / f"{number:03d}"
    proposals = pq.read_table(stages / "nms" / "proposals.parquet").to_pylist()
    assert {(p["image_rank"], p["y"], p["x"], p["score"]) for p in proposals} == twin.proposals
    queries = pq.read_table(stages / "oracle-query" / "queries.parquet").to_pylist()
    assert [(q["image_id"], q["y"], q["x"], q["score"]) for q in queries] == twin.queries
    assert [q["information"] for q in queries] == twin.information
    return twin


if __name__ == "__main__":
    campaign_settings = read_settings(Path(sys.argv[1]))
    result = assert_same(campaign_settings.path, campaign_settings, int(sys.argv[2]))
    print(
        f"identical: {len(result.fused)} fused maps, {len(result.proposals)} proposals, {len(result.queries)} queries"
    )
