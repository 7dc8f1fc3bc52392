"""Benchmark, off by default: a training step by masking and by cropping."""

import time
from typing import Literal

import numpy as np
import pytest
import torch

from cereals_core.cropping import crops
from cereals_core.grid import STRIDE_PX, VOID, map_shape
from cereals_core.models.fcn8s import FCN8s
from cereals_core.seeding import rng
from cereals_core.settings import Training
from cereals_core.training import Sample, Trainer, segmentation_loss

Method = Literal["masking", "cropping"]
METHODS: tuple[Method, Method] = ("masking", "cropping")
CLASSES, WIDTH = 19, 0.125


def sample_of(height: int, width: int, regions: int, window_px: int) -> Sample:
    """Noise with regions labelled at random places, none overlapping another."""
    stream, window = rng(0, "regions", height, regions), window_px // STRIDE_PX
    labels = np.full(map_shape(height, width), VOID, np.uint8)
    while (labels != VOID).sum() < regions * window**2:
        y, x = stream.integers(0, np.array(labels.shape) - window + 1)
        free = labels[y : y + window, x : x + window]
        if (free == VOID).all():
            free[:] = stream.integers(0, CLASSES, free.shape)
    return stream.integers(0, 256, (height, width, 3), np.uint8), labels


def computed_share(sample: Sample) -> float:
    """Pixels that cropping computes, of those of the image."""
    image, labels = sample
    height, width = image.shape[:2]
    found = crops(labels != VOID, height, width, FCN8s.context_px, FCN8s.crop_grid_px)
    return sum(crop.box.pixels for crop in found) / (height * width)


def timed_steps(method: Method, sample: Sample) -> tuple[float, float]:
    """Loss of the third step, and seconds of the fastest but the first, which is slower for a shape that is new."""
    model = FCN8s(CLASSES, WIDTH)
    model.initialise(torch.Generator().manual_seed(0))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(model, segmentation_loss, Training(method=method), 0.5, lambda epoch: rng(0, epoch))
    elapsed_s = []
    for _ in range(3):
        started = time.perf_counter()
        trainer.run_epoch([sample])
        elapsed_s.append(time.perf_counter() - started)
    return trainer.history[-1].loss, min(elapsed_s[1:])


@pytest.mark.bench
def test_steps_by_cropping_have_the_losses_of_masking_sooner(capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds a step on images with few and many regions, at random places; the losses agree."""
    rows = []
    for height, width, window_px in ((1024, 2048, 128), (512, 512, 64)):
        for regions in (1, 2, 4, 8, 16):
            sample = sample_of(height, width, regions, window_px)
            (loss, masking_s), (cropping_loss, cropping_s) = (timed_steps(method, sample) for method in METHODS)
            assert cropping_loss == pytest.approx(loss, rel=1e-3)
            setting = f"{height} x {width} | {regions} of {window_px} | {computed_share(sample):.2f}"
            rows.append(f"| {setting} | {masking_s:.2f} | {cropping_s:.2f} | {cropping_s / masking_s:.2f} |")
    with capsys.disabled():
        print(f"\nOne step of FCN8s at width {WIDTH}, threads: {torch.get_num_threads()}\n")
        print("| image, px | regions, px | pixels computed | masking, s | cropping, s | ratio |")
        print("|---|---|---|---|---|---|", *rows, sep="\n")
