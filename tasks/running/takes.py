"""What a stage takes of a machine, told before it runs: work, memory, disk, and the settings that would lower them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from cereals_core.grid import STRIDE_PX
from cereals_core.models.base import Network
from cereals_core.models.build import build_network, feature_channels
from cereals_core.models.encoder import COARSEST_PX
from cereals_core.models.footprint import outline, parameter_bytes, prediction_bytes, training_bytes
from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.running.device import precision_of
from tasks.running.images import kept_at_most_bytes, pool_fits
from tasks.running.prefetch import AHEAD, MADE_AHEAD
from tasks.running.truths import truth_kept_at_most_bytes
from tasks.store.features import FEATURE_BYTES, feature_cells

IMAGES_READ = AHEAD + 2
"""Images in memory at a time where they are read ahead: those waiting or being decoded, and those in hand."""
IMAGE_BYTES, TRUTH_BYTES, TARGET_BYTES = 3, 2, 4
"""Bytes of a pixel of an image, of its labels and clicks, and of a cell of a training's target."""
Count = Callable[[Workload, int], int]
"""Counts what a round has of something, at most."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a stage holds at its peak.

    `tensors` where networks run; `arrays` in main memory beside them; `checkpoint` of what a training saves, twice on
    disk while it is written.
    """

    tensors: float = 0.0
    arrays: float = 0.0
    checkpoint: float = 0.0


@dataclass(frozen=True)
class Takes:
    """What a stage takes at most; what comes before the first round counts as round 0.

    `units(workload, round)`: how many of `unit` it works through. `disk_bytes(workload, round)`: what it leaves.
    `lighter(settings)` and `faster(settings)`: what to change for less memory, and for less time; empty if nothing
    would help.
    """

    unit: str = "image"
    units: Count = lambda load, number: load.images
    memory: Callable[[Workload], Memory] = lambda load: Memory()
    disk_bytes: Callable[[Workload, int], float] = lambda load, number: 0.0
    lighter: Callable[[CampaignSettings], str] = lambda settings: fewer_pixels(settings)
    faster: Callable[[CampaignSettings], str] = lambda settings: ""


NOTHING = Takes()
"""A stage that goes over the pool and holds nothing of it."""


class Kind(NamedTuple):
    """One of the two networks: how it is built, and how to make it smaller."""

    build: Callable[[Workload], Network]
    smaller: Callable[[CampaignSettings], str]

    def outline(self, load: Workload) -> Network:
        """Build it without memory for its weights."""
        return outline(lambda: self.build(load), precision_of(load.settings.model))

    def lighter(self, settings: CampaignSettings) -> str:
        """Write the advice for less memory."""
        return f"{self.smaller(settings)}, or {fewer_pixels(settings)}"


def _smaller(settings: CampaignSettings) -> str:
    name = settings.model.name
    return narrower(settings) if name == "fcn8s" else f'take a smaller model.name than "{name}"'


SEGMENTATION = Kind(lambda load: build_network(load.settings.model, load.classes), _smaller)
COST = Kind(lambda load: build_network(load.settings.model, 1), _smaller)


def narrower(settings: CampaignSettings) -> str:
    """Write the advice to take a narrower FCN8s."""
    return f"lower model.width = {settings.model.width:g}"


def fewer_pixels(settings: CampaignSettings) -> str:
    """Write the advice to read smaller images."""
    return f"lower data.{settings.data.dial}"


def feature_numbers(load: Workload) -> float:
    """Count the numbers that a frozen trunk's features are, of all images of both splits."""
    channels = feature_channels(load.settings.model)
    pool = sum(count * feature_cells(*size, channels) for size, count in load.counts.items())
    return pool * (1 + load.eval_images / load.images)


def kept_bytes(load: Workload) -> float:
    """Count what a process keeps from stage to stage: images and features, if all of them fit, and truth that does."""
    images = IMAGE_BYTES * load.pixels if pool_fits(load.pixels) else 0
    features = FEATURE_BYTES * feature_numbers(load) if load.settings.model.trunk == "frozen" else 0
    truth = min(TRUTH_BYTES * load.eval_images * prod(load.largest), truth_kept_at_most_bytes())
    return images + (features if features <= kept_at_most_bytes() else 0) + truth


def predicting(kind: Kind, units: Count, bytes_a_pixel: float, upsampled: bool = False) -> Takes:
    """Return what one pass over each image takes, beside arrays of so many bytes for each of its pixels."""

    def memory(load: Workload) -> Memory:
        tensors = prediction_bytes(kind.outline(load), *load.largest, upsampled=upsampled)
        return Memory(tensors, bytes_a_pixel * prod(load.largest))

    return Takes(units=units, memory=memory, lighter=kind.lighter, faster=kind.smaller)


def mapping(kind: Kind, bytes_a_cell: float) -> Takes:
    """Return what maps of the images with anything left to ask for take, in batches, and so much a cell of a shard."""

    def memory(load: Workload) -> Memory:
        batch_images, pixels = load.wanted.batch_images, prod(load.largest)
        read = IMAGE_BYTES * pixels * (IMAGES_READ + 2 * batch_images)
        network = kind.outline(load)
        tensors = prediction_bytes(network, *load.largest, batch_images)
        if load.wanted.needs_dropout:
            masks = sum(map(prod, network.mask_shapes(*load.largest)))
            tensors += MADE_AHEAD * torch.float32.itemsize * masks * batch_images
        return Memory(tensors, read + bytes_a_cell * load.shard_cells)

    units, disk = (lambda load, number: load.unlabelled_images(number)), (lambda load, number: load.map_bytes)
    return Takes("image", units, memory, disk, kind.lighter, kind.smaller)


def _step(load: Workload, network: Network, images: int) -> tuple[int, int, int]:
    """Tell height and width of what goes through a network together in a step, in pixels, and how much of it."""
    training = load.settings.training
    if training.batch == "images":
        return *load.largest, min(training.batch_images, images)
    around_px = network.context_px if training.context_px is None else training.context_px
    side_px = training.window_px + 2 * (COARSEST_PX if around_px is None else around_px)
    return side_px, side_px, training.batch_windows


def training(kind: Kind) -> Takes:
    """Return what a training takes; its memory is that of the last round, whose images are the most."""

    def memory(load: Workload) -> Memory:
        images, network = load.labelled_images(load.rounds), kind.outline(load)
        batch_images = min(load.settings.training.batch_images, images)
        in_hand = IMAGE_BYTES * (IMAGES_READ + batch_images - 1) * prod(load.largest)
        labelled_px = images * load.mean_px
        kept = 0 if pool_fits(load.pixels) else min(kept_at_most_bytes() + in_hand, IMAGE_BYTES * labelled_px)
        return Memory(
            tensors=training_bytes(network, *_step(load, network, images)),
            arrays=kept + TARGET_BYTES * labelled_px / STRIDE_PX**2,
            checkpoint=4 * parameter_bytes(network),
        )

    def lighter(settings: CampaignSettings) -> str:
        key = f"batch_{settings.training.batch}"
        count = getattr(settings.training, key)
        return f"lower training.{key} = {count}" if count > 1 else kind.lighter(settings)

    return Takes(
        "step",
        lambda load, number: load.steps(number),
        memory,
        lambda load, number: parameter_bytes(kind.outline(load)),
        lighter,
        faster=lambda settings: (
            f"lower training.steps = {settings.training.steps:,}"
            if settings.training.steps
            else f"lower training.max_steps = {settings.training.max_steps:,}"
        ),
    )
