"""Benchmark of how maps are stored: number format, compression and images a chunk. Off by default."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from measure import elapsed
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from cereals_core.clicks import click_map
from cereals_core.data_settings import SyntheticData
from cereals_core.datasets.synthetic import SyntheticStreets
from cereals_core.grid import labels_at_stride
from cereals_core.information import entropy, vote_entropy
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Training
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from cereals_core.training import Trainer, cost_loss, segmentation_loss

IMAGES, REPEATED, STEPS, WIDTH = 24, 20, 160, 0.125
CODECS: dict[str, Sequence[Any]] = {
    "none": [Crc32cCodec()],
    "lz4, bit shuffle": [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()],
    "zstd": [ZstdCodec(level=1), Crc32cCodec()],
}


def streets(images: int, height: int) -> SyntheticStreets:
    data = SyntheticData(format="synthetic", pool_images=images, eval_images=1, height=height, width=2 * height)
    return SyntheticStreets(data, "pool")


def made_maps() -> dict[str, np.ndarray]:
    """Maps of drawn streets by networks that were trained for some steps: float32 (images, 128, 256)."""
    small, large = streets(16, 256), streets(IMAGES, 1024)
    truths = {each: small.truth(each) for each in small.image_ids}
    labels = [(small.image(each), labels_at_stride(truth.labels)) for each, truth in truths.items()]
    clicks = [(small.image(each), click_map(truth.clicks, truth.labels.shape)) for each, truth in truths.items()]
    predictors = []
    for outputs, loss, samples in ((19, segmentation_loss, labels), (1, cost_loss, clicks)):
        model = FCN8s(outputs, WIDTH)
        model.initialise(torch.Generator().manual_seed(0))
        trainer = Trainer(model, loss, Training(learning_rate=1e-3), 0.5, lambda epoch: rng(0, epoch))
        while not trainer.history or trainer.history[-1].steps < STEPS:
            trainer.run_epoch(samples)
        predictors.append(Predictor(trainer.model))
    segmentation, cost = predictors
    maps: dict[str, list[torch.Tensor]] = {"entropy": [], "vote entropy": [], "clicks": []}
    for image_id in large.image_ids:
        image = large.image(image_id)[None]
        maps["entropy"].append(segmentation.information(image, entropy))
        votes = segmentation.sampled_information(image, vote_entropy, 20, 0.5, [rng(0, image_id)])
        maps["vote entropy"].append(votes)
        maps["clicks"].append(cost.clicks(image))
    return {name: torch.cat(each).float().numpy() for name, each in maps.items()}


def stored(folder: Path, maps: np.ndarray, codecs: Sequence[Any], images_a_chunk: int) -> tuple[float, float, float]:
    """Bytes an image on disk; images a second written, and read."""
    shutil.rmtree(folder, ignore_errors=True)
    chunks = (images_a_chunk, *maps.shape[1:])
    array = zarr.create_array(folder, shape=maps.shape, chunks=chunks, dtype=maps.dtype, compressors=codecs)
    rows = [slice(start, start + images_a_chunk) for start in range(0, len(maps), images_a_chunk)]

    def write() -> None:
        for each in rows:
            array[each] = maps[each]

    def read() -> None:
        for each in rows:
            np.asarray(array[each])

    write_s, read_s = min(elapsed(write) for _ in range(2)), min(elapsed(read) for _ in range(3))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return size / len(maps), len(maps) / write_s, len(maps) / read_s


@pytest.mark.bench
def test_formats_of_maps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes and rates of every format for every kind of map; nothing but half precision changes a value."""
    lines: list[str] = []
    sizes: dict[tuple[str, str, str], float] = {}

    def measure(kind: str, maps: np.ndarray, name: str, images_a_chunk: int = 32) -> None:
        size, *rates = stored(tmp_path / "maps", maps, CODECS[name], images_a_chunk)
        sizes.setdefault((kind, maps.dtype.name, name), size)
        cells = [kind, maps.dtype.name, name, f"{images_a_chunk}", f"{size:,.0f}", *(f"{rate:,.0f}" for rate in rates)]
        lines.append(f"| {' | '.join(cells)} |")

    for kind, maps in made_maps().items():
        many = np.tile(maps, (REPEATED, 1, 1))
        for dtype in (np.float32, np.float16):
            for name in CODECS:
                measure(kind, many.astype(dtype), name)
        if kind == "entropy":
            for images_a_chunk in (1, 8, 16, 64):
                measure(kind, many.astype(np.float16), "none", images_a_chunk)
    with capsys.disabled():
        print("\n| map | format | compression | images a chunk | bytes an image | written, images/s | read, images/s |")
        print("|---|---|---|--:|--:|--:|--:|", *lines, sep="\n")
    assert all(sizes[kind, "float16", "none"] < 0.51 * sizes[kind, "float32", "none"] for kind, _, _ in sizes)
