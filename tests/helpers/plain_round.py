"""A round as one would write it down for itself: no stages, products, shards or threads, one image at a time."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

import naive
import numpy as np
import torch

from cereals_core.clicks import click_map
from cereals_core.datasets import open_truth
from cereals_core.datasets.base import Dataset
from cereals_core.evaluation import confusion
from cereals_core.fusion import extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX, labels_at_stride
from cereals_core.information import SampledMeasure, vote_entropy
from cereals_core.models.base import Network
from cereals_core.models.build import build_network
from cereals_core.models.dropout import draw_masks
from cereals_core.prediction import Predictor
from cereals_core.regions import window_sums
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.suppression import suppress
from cereals_core.training import Loss, cost_loss, segmentation_loss
from tasks.running.device import prepare_device

Images = Callable[[str], np.ndarray]


def plain_round(settings: CampaignSettings, seed_images: int, bare: bool) -> None:
    """Both trainings, evaluation, both maps and the choice of regions, the first images being labelled.

    Bare: on images in memory, with one pass of the trunk for all dropout samples, and with our sums and suppression.
    Else images are read wherever they are needed, every sample is a whole pass, windows are summed by a convolution,
    and all of them listed and sorted.
    """
    pool, evaluated = (open_truth(settings.data, split) for split in ("pool", "eval"))
    kept = {image_id: pool.image(image_id) for image_id in pool.image_ids} if bare else {}
    images = kept.__getitem__ if bare else pool.image
    classes = len(pool.class_names)
    learner, cost_learner = build_network(settings.model, classes), build_network(settings.model, 1)
    train(learner, segmentation_loss, settings, images, labels_of(pool, seed_images))
    train(cost_learner, cost_loss, settings, images, clicks_of(pool, seed_images))
    segmentation, cost = Predictor(learner), Predictor(cost_learner)
    total = np.zeros((classes, classes), np.int64)
    for image_id in evaluated.image_ids:
        found = segmentation.segmentation(evaluated.image(image_id)[None])[0].cpu().numpy()
        total += confusion(evaluated.truth(image_id).labels, found, classes)
    side = settings.acquisition.window_px // STRIDE_PX
    for image_id in pool.image_ids[seed_images:]:
        image, stream = images(image_id)[None], rng(0, image_id)
        votes = segmentation.sampled_information if bare else partial(whole_passes, segmentation)
        information = votes(image, vote_entropy, settings.acquisition.dropout_samples, settings.model.dropout, [stream])
        select([cells[0].float().cpu().numpy() for cells in (information, cost.clicks(image))], side, bare)


@torch.inference_mode()
def whole_passes(
    predictor: Predictor,
    images: np.ndarray,
    measure: SampledMeasure,
    samples: int,
    dropout: float,
    rngs: Sequence[np.random.Generator],
) -> torch.Tensor:
    """The same as `Predictor.sampled_information` of one image, by as many passes as there are samples."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(predictor.device)
    shapes = predictor.model.mask_shapes(*images.shape[1:3])
    masks = (draw_masks(rngs[0], shapes, dropout, predictor.device) for _ in range(samples))
    return measure(predictor.model(pixels, each) for each in masks)


def labels_of(pool: Dataset, count: int) -> dict[str, np.ndarray]:
    """Labels of the first images at stride 8."""
    return {image_id: labels_at_stride(pool.truth(image_id).labels) for image_id in pool.image_ids[:count]}


def clicks_of(pool: Dataset, count: int) -> dict[str, np.ndarray]:
    """Click maps of the first images."""
    truths = {image_id: pool.truth(image_id) for image_id in pool.image_ids[:count]}
    return {image_id: click_map(truth.clicks, truth.labels.shape) for image_id, truth in truths.items()}


def train(
    network: Network, loss: Loss, settings: CampaignSettings, images: Images, targets: dict[str, np.ndarray]
) -> None:
    """As many steps as the campaign's trainings take, each on one image."""
    network.initialise(torch.Generator().manual_seed(0))
    device = prepare_device(settings.compute)
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser, stream = torch.optim.Adam(network.parameters(), lr=settings.training.learning_rate), rng(0, "plain")
    for _, image_id in zip(range(settings.training.max_steps), cycle(targets), strict=False):
        image = images(image_id)
        pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2).to(device)
        masks = draw_masks(stream, network.mask_shapes(*image.shape[:2]), settings.model.dropout, device)
        optimiser.zero_grad()
        loss(network(pixels, masks), torch.from_numpy(targets[image_id])[None].to(device)).backward()
        optimiser.step()


def select(maps: list[np.ndarray], side: int, bare: bool) -> None:
    """Sum both maps over every window, scale, fuse and suppress."""
    if bare:
        sums = [window_sums(cells, side) for cells in maps]
    else:
        kernel = torch.ones(1, 1, side, side)
        sums = [torch.nn.functional.conv2d(torch.from_numpy(each)[None, None], kernel)[0, 0].numpy() for each in maps]
    everywhere = np.ones(sums[0].shape, bool)
    scores = fuse("g1", *(scale(cells, extent_of(cells, everywhere)) for cells in sums), 0.5, 0.05, everywhere)
    suppress(scores, side) if bare else naive.suppress(scores, side)
