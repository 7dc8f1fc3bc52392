"""Benchmarks of selection, from maps to queries: beside plain ways, and as the pool grows. Off by default."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
import naive
import numpy as np
import pytest
import torch
from made_round import _drawn, made_campaign, make
from matplotlib import pyplot
from measure import FOLDER, keep, side_by_side, this_machine

from cereals_core.fusion import Extent, extent_of, fuse, scale
from cereals_core.regions import window_sums
from cereals_core.suppression import suppress
from tasks.pages.benchmarks import Measured
from tasks.store.pool import open_pool

WINDOW = 16
MAPS, CONVOLVED, LISTED = 512, 64, 2
"""Maps that the bare loop, a convolution, and a list of all windows get."""
POOLS = (1_000, 10_000, 100_000)
BYTES_AN_IMAGE = 2 * 2 * 128 * 256
HERE = Path(__file__).parent

pytestmark = pytest.mark.bench


def grown(folder: Path, images: int) -> dict[str, float]:
    """What `growth.py` measures, in a process of its own."""
    command = [sys.executable, HERE / "growth.py", folder, str(images)]
    made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(made.stdout.splitlines()[-1])
    return measured


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    """Information and cost of some images, in memory."""
    campaign = made_campaign(tmp_path_factory.mktemp("maps"), 64)
    shards = open_pool(campaign, make(campaign)["pool"]).shards()
    drawn = [np.concatenate([_drawn(name, shard) for shard in shards]) for name in ("info-map", "cost-map")]
    information, cost = (np.tile(each, (MAPS // len(each), 1, 1)) for each in drawn)
    return information, cost


def test_selection_beside_plain_ways(maps: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    pairs, everywhere = list(zip(*maps, strict=True)), np.ones((113, 241), bool)
    extents: list[Extent] = []
    scores: list[np.ndarray] = []

    def sums() -> None:
        for pair in pairs:
            extents[:] = [extent_of(window_sums(cells, WINDOW), everywhere) for cells in pair]

    def suppressed() -> None:
        for pair in pairs:
            scaled = [scale(window_sums(cells, WINDOW), each) for cells, each in zip(pair, extents, strict=True)]
            scores[:] = [fuse("g1", *scaled, 0.5, everywhere)]
            suppress(scores[0], WINDOW, 1)

    kernel = torch.ones(1, 1, WINDOW, WINDOW)

    def convolved() -> None:
        for pair in pairs[:CONVOLVED]:
            for cells in pair:
                found = torch.nn.functional.conv2d(torch.from_numpy(cells).float()[None, None], kernel)
                found.min(), found.max()

    def listed() -> None:
        for _ in range(LISTED):
            naive.suppress(scores[0], WINDOW)

    sums_s, suppressed_s, convolved_s, listed_s = side_by_side((sums, suppressed, convolved, listed))
    count = 4096
    ours = grown(tmp_path / "pool", count)
    floor = this_machine().disk_bytes_s / BYTES_AN_IMAGE
    setting = f"maps of 128 x 256, windows of {WINDOW}"
    keep(
        Measured(
            "region-fusion", setting, count / ours["region_fusion_s"], MAPS / sums_s, CONVOLVED / convolved_s, floor
        ),
        Measured("nms", setting, count / ours["nms_s"], MAPS / suppressed_s, LISTED / listed_s, floor),
    )
    assert ours["region_fusion_s"] / count < convolved_s / CONVOLVED
    assert ours["nms_s"] / count < listed_s / LISTED


def test_growth(tmp_path: Path) -> None:
    """Seconds and peak memory as the pool grows a hundredfold; the figures and the plot are kept."""
    rows = []
    for images in POOLS:
        if shutil.disk_usage(tmp_path).free < 1.3 * images * BYTES_AN_IMAGE:
            pytest.skip(f"{tmp_path}: no room for the maps of {images:,} images")
        rows.append(grown(tmp_path / "pool", images))
        shutil.rmtree(tmp_path / "pool")
    name = f"{this_machine().name}-growth"
    (FOLDER / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    plot(rows, FOLDER / f"{name}.png")
    assert max(row["peak_bytes"] for row in rows) < 2 << 30
    assert rows[-1]["peak_bytes"] < 4 * rows[0]["peak_bytes"]  # a process for each core beside this one


def plot(rows: Sequence[dict[str, float]], file: Path) -> None:
    """Seconds and memory against images, beside the time to read both maps once."""
    mpl.use("agg")
    figure, (time, memory) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    images = [row["images"] for row in rows]
    curves: dict[str, Callable[[dict[str, float]], float]] = {
        "selection": lambda row: row["region_fusion_s"] + row["nms_s"] + row["queries_s"],
        "region-fusion": lambda row: row["region_fusion_s"],
        "nms": lambda row: row["nms_s"],
        "both maps read once": lambda row: row["read_s"],
    }
    for label, seconds in curves.items():
        time.loglog(images, [seconds(row) for row in rows], "--" if "read" in label else "o-", label=label)
    time.set(xlabel="images of 1024 x 2048 px", ylabel="seconds", title="Time")
    time.legend()
    memory.semilogx(images, [row["peak_bytes"] / 2**20 for row in rows], "o-")
    memory.set(xlabel="images of 1024 x 2048 px", ylabel="MiB", title="Peak memory of all processes", ylim=(0, 2100))
    figure.savefig(file, dpi=110)
