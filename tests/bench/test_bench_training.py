"""Benchmarks, off by default: a training step by masking and by cropping, and a campaign's steps beside a bare loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import pytest
import torch
from measure import keep, side_by_side

from cereals_core.cropping import crops
from cereals_core.grid import STRIDE_PX, VOID, map_shape
from cereals_core.models.dropout import draw_masks
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Training
from cereals_core.seeding import rng
from cereals_core.training import Sample, Trainer, segmentation_loss
from tasks.pages.benchmarks import Measured
from tasks.running.images import LabelledImages

Method = Literal["masking", "cropping"]
METHODS: tuple[Method, Method] = ("masking", "cropping")
CLASSES, WIDTH, DROPOUT = 19, 0.125, 0.5
STEPS: tuple[tuple[int, int, float, int], ...] = ((64, 128, 0.0625, 32), (256, 512, 0.125, 8), (512, 1024, 0.25, 3))
"""Height, width, width of the network, and images of a labelled set."""
BATCHES = (1, 2, 4, 8)
REPEATS = 9
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


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


def trainer_of(width: float, **keys: object) -> Trainer:
    model = FCN8s(CLASSES, width)
    model.initialise(torch.Generator().manual_seed(0))
    settings = Training.model_validate(keys)
    return Trainer(model.to(DEVICE), segmentation_loss, settings, DROPOUT, lambda epoch: rng(0, epoch))


def timed_steps(method: Method, sample: Sample) -> tuple[float, float]:
    """Loss of the third step, and seconds of the fastest but the first, which is slower for a shape that is new."""
    trainer = trainer_of(WIDTH, method=method)
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


class NoiseImages:
    """A split of noise; an image is there at once, as training keeps what it has decoded."""

    class_names: tuple[str, ...] = ()

    def __init__(self, height: int, width: int, count: int) -> None:
        self.image_ids: Sequence[str] = [f"{index:03}" for index in range(count)]
        self.size = height, width

    def image(self, image_id: str) -> np.ndarray:
        """Noise of the image's own stream."""
        return rng(0, image_id).integers(0, 256, (*self.size, 3), np.uint8)

    def labelled(self) -> LabelledImages:
        """The split as train-seg has it, labelled in full."""
        streams = {each: rng(0, "labels", each) for each in self.image_ids}
        cells = map_shape(*self.size)
        return LabelledImages(self, {each: s.integers(0, CLASSES, cells, np.uint8) for each, s in streams.items()})


def our_epoch(width: float, images: NoiseImages, **keys: object) -> Callable[[], object]:
    """An epoch as a campaign's training runs it."""
    trainer, samples = trainer_of(width, **keys), images.labelled()

    def epoch() -> None:
        trainer.run_epoch(samples, samples.in_order)

    return epoch


def bare_epoch(width: float, images: NoiseImages) -> Callable[[], object]:
    """The same steps, of one image, on tensors that are already where the network is, and nothing else."""
    trainer = trainer_of(width)
    model, optimiser, numbers = trainer.model, trainer.optimiser, iter(range(1 << 30))
    tensors = [
        (torch.from_numpy(image)[None].to(DEVICE).permute(0, 3, 1, 2), torch.from_numpy(target)[None].to(DEVICE))
        for image, target in images.labelled()
    ]

    def epoch() -> None:
        stream = rng(0, next(numbers))
        for index in stream.permutation(len(tensors)):
            pixels, labels = tensors[index]
            masks = draw_masks(stream, model.mask_shapes(*images.size), DROPOUT, DEVICE)
            optimiser.zero_grad()
            segmentation_loss(model(pixels, masks), labels).backward()
            optimiser.step()

    return epoch


def step_rows() -> Iterator[tuple[str, float, float]]:
    """What is trained, and seconds of one step: ours and the bare loop's."""
    for height, width, network, count in STEPS:
        images = NoiseImages(height, width, count)
        ours_s, bare_s = side_by_side([our_epoch(network, images), bare_epoch(network, images)], REPEATS)
        yield f"{height} x {width}, width {network}", ours_s / count, bare_s / count


def batch_rows() -> Iterator[tuple[str, list[float]]]:
    """What is trained, and images a second for each of `BATCHES`."""
    for height, width, network, count in STEPS:
        images = NoiseImages(height, width, count)
        epochs = [our_epoch(network, images, batch_images=batch_images) for batch_images in BATCHES]
        yield f"{height} x {width}, width {network}", [count / taken for taken in side_by_side(epochs, REPEATS)]


@pytest.mark.bench
def test_a_step_costs_little_beside_what_the_network_needs(capsys: pytest.CaptureFixture[str]) -> None:
    steps, batches = list(step_rows()), list(batch_rows())
    for label, ours_s, bare_s in steps:
        keep(Measured("train-seg", f"{label}: steps", 1 / ours_s, 1 / bare_s))
    for label, rates in batches:
        for batch_images, rate in zip(BATCHES[1:], rates[1:], strict=True):
            keep(Measured("train-seg", f"{label}: images, {batch_images} a step; bare: ours with 1", rate, rates[0]))
    with capsys.disabled():
        print(f"\nSteps on {DEVICE}, threads: {torch.get_num_threads()}\n")
        print("| step | ours, ms | bare loop, ms | bare / ours |\n|---|---|---|---|")
        for label, ours_s, bare_s in steps:
            print(f"| {label} | {1000 * ours_s:.2f} | {1000 * bare_s:.2f} | {bare_s / ours_s:.2f} |")
        print(f"\n| images a second, by batch | {' | '.join(map(str, BATCHES))} |\n|---|{'---|' * len(BATCHES)}")
        for label, rates in batches:
            print(f"| {label} | {' | '.join(f'{rate:.1f}' for rate in rates)} |")
    assert all(bare_s > 0.9 * ours_s for _, ours_s, bare_s in steps)
