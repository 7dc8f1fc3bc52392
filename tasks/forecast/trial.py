"""Some images through each stage's own code, timed: fresh networks, and made labels, maps and queries around them.

Truth that is read is that of the split for evaluation; the pool's is not looked at.
"""

import os
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from itertools import cycle, islice
from math import prod
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cereals_core.clicks import click_map, region_cost
from cereals_core.cost_baselines import PREDICTORS, SAMPLES, edge_map
from cereals_core.curves import Point
from cereals_core.datasets import open_images, open_truth
from cereals_core.datasets.check import check
from cereals_core.evaluation import confusion
from cereals_core.fusion import extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX, VOID, Box, map_shape
from cereals_core.information import MEASURES, SAMPLED_MEASURES, quantise
from cereals_core.models.base import Network
from cereals_core.models.build import build_cost_network, build_network
from cereals_core.oracle import answer
from cereals_core.prediction import Predictor
from cereals_core.regions import candidates, image_sum, window_sums
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.suppression import suppress
from cereals_core.training import Loss, Trainer, cost_loss, segmentation_loss
from cereals_core.truth import Truth
from tasks import reporting
from tasks.forecast.outlook import Size
from tasks.forecast.planning import TRAININGS, Workload
from tasks.forecast.projection import uses_cuda
from tasks.forecast.timing import LIMIT_S, MOST_IMAGES, Timed, elapsed, read_ahead, seconds
from tasks.pages.facts import CostSample, QueryFacts, RegionView, RoundFacts
from tasks.pages.figures import round_pictures
from tasks.running.device import cpu_threads, precision_of, prepare_device
from tasks.running.workers import MANY_BATCHES
from tasks.store.pool import SHARDS_A_BATCH

EPOCH_S, MOST_STEPS = 0.3, 20
"""An epoch that is timed takes about so long, and has so many steps at most."""
MOST_QUERIES_DRAWN = 500
"""Regions in the plots of a page that is timed."""
Pair = tuple[np.ndarray, Truth]


class Trial:
    """A campaign's networks on this machine, some images of its pool by their sizes, and one of about mean size."""

    def __init__(self, settings: CampaignSettings, workload: Workload, images: Mapping[str, Size]) -> None:
        self.settings, self.wanted, self.workload = settings, settings.acquisition, workload
        self.device, self.precision = prepare_device(settings.compute), precision_of(settings.compute)
        torch.zeros(1, device=self.device)  # the first use of a CUDA device takes seconds
        batches = workload.outlook.images / (settings.compute.shard_images * SHARDS_A_BATCH)
        self.processes = len(os.sched_getaffinity(0)) if batches >= MANY_BATCHES else 1
        self.source, self.truths = open_images(settings.data, "pool"), open_truth(settings.data, "eval")
        self.classes = len(self.source.class_names)
        mean_px, self.ids = workload.outlook.mean_px, list(images)
        self.ids_scale = mean_px / mean(map(prod, images.values()))
        """Pixels of a mean image of the pool for each pixel of a mean one of these."""
        self.typical = min(images, key=lambda name: abs(prod(images[name]) - mean_px))
        self.image, self.size = self.source.image(self.typical), images[self.typical]
        self.scale = mean_px / prod(self.size)
        self.cells = map_shape(*self.size)
        self.random = rng(settings.seed, "plan")

    @property
    def calls(self) -> dict[str, Callable[[], Timed]]:
        """How the time that a stage takes for an image, or a page, is found."""
        return {
            "pool": self._checked,
            "seed-set": self._answered,
            "true-cost-map": self._true_maps,
            "train-seg": partial(self._step, "train-seg"),
            "evaluate": self._evaluated,
            "train-cost": partial(self._step, "train-cost"),
            "info-map": lambda: self._maps(self._information()),
            "cost-map": lambda: self._maps(Predictor(self.cost_model, self.precision).clicks),
            "region-fusion": lambda: Timed(self.scale * seconds(self._scales) / self.processes),
            "nms": lambda: Timed(self.scale * seconds(self._proposals) / self.processes),
            "oracle-query": self._answered,
            "evaluate-cost": self._compared,
            "report": lambda: Timed(seconds(self._page())),
        }

    @property
    def part_calls(self) -> dict[str, Callable[[], Timed]]:
        """The same for trainings on images of which only regions are labelled, if those are cropped out."""
        is_cropped = self.settings.training.method == "cropping" and self.wanted.unit == "region"
        return {name: partial(self._step, name, full=False) for name in TRAININGS if is_cropped}

    def edges(self) -> Timed:
        """An image of the pool whose edges are compared with clicks."""
        found = read_ahead(self.ids, lambda image_id: edge_map(self.source.image(image_id)), lambda edges: None)
        return Timed(self.ids_scale * found.unit_s)

    @cached_property
    def segmentation(self) -> Network:
        """The segmentation network with fresh weights."""
        return self._fresh(build_network(self.settings.model, self.classes))

    @cached_property
    def cost_model(self) -> Network:
        """The cost network with fresh weights."""
        return self._fresh(build_cost_network(self.settings.model))

    def _fresh(self, network: Network) -> Network:
        network.initialise(torch.Generator().manual_seed(self.settings.seed))
        return network.to(self.device)

    def _pair(self, image_id: str) -> Pair:
        return self.truths.image(image_id), self.truths.truth(image_id)

    def _box(self, height: int, width: int) -> Box:
        """A query of an image of this size."""
        side = self.wanted.window_px
        return (
            Box(0, 0, min(height, side), min(width, side)) if self.wanted.unit == "region" else Box(0, 0, height, width)
        )

    def _checked(self) -> Timed:
        truths, threads = self.truths, cpu_threads(self.settings.compute)
        pair_s = elapsed(lambda: self._pair(truths.image_ids[0]))
        count = min(MOST_IMAGES, max(1, int(LIMIT_S / pair_s)))
        ids = list(islice(cycle(truths.image_ids), count))
        some: Any = SimpleNamespace(image_ids=ids, image=truths.image, truth=truths.truth)
        return Timed(elapsed(lambda: check(some, None, threads)) / count)

    def _answered(self) -> Timed:
        def ask(truths: list[Truth]) -> None:
            (truth,) = truths
            answer("", truth, self._box(*truth.labels.shape))

        return read_ahead(self.truths.image_ids, self.truths.truth, ask)

    def _true_maps(self) -> Timed:
        def draw(truths: list[Truth]) -> None:
            (truth,) = truths
            quantise(click_map(truth.clicks, truth.labels.shape))

        return read_ahead(self.truths.image_ids, self.truths.truth, draw)

    def _step(self, stage: str, full: bool = True) -> Timed:
        """Seconds of an image in a training step; labelled in full, or in regions as after the last round."""
        network, loss, target = self._training(stage, np.ones(self.cells, bool) if full else self._regions())
        training, model, seed = self.settings.training, self.settings.model, self.settings.seed
        streams = partial(rng, seed, "plan", stage)
        trainer = Trainer(network.train(), loss, training, model.dropout, streams, self.precision)
        batch = [(self.image, target)] * min(training.batch_images, self.workload.labelled(self.settings.stop.rounds))
        step_s = elapsed(lambda: trainer.run_epoch(batch))
        if step_s <= LIMIT_S:
            steps = min(MOST_STEPS, max(1, int(EPOCH_S / step_s)))
            step_s = seconds(lambda: trainer.run_epoch(batch * steps)) / steps
        return Timed(self.scale * step_s / len(batch))

    def _training(self, stage: str, labelled: np.ndarray) -> tuple[Network, Loss, np.ndarray]:
        if stage == "train-cost":
            clicks = np.where(labelled, self.random.random(self.cells, np.float32), np.float32(np.nan))
            return self.cost_model, cost_loss, clicks
        labels = self.random.integers(0, self.classes, self.cells, np.uint8)
        return self.segmentation, segmentation_loss, np.where(labelled, labels, np.uint8(VOID))

    def _regions(self) -> np.ndarray:
        """Cells of as many regions as an image holds after the last round, spread over it: bool."""
        last, side = self.settings.stop.rounds, self.wanted.window_px // STRIDE_PX
        images = max(self.workload.labelled(last) - self.workload.outlook.seed_images, 1)
        rows, columns = (range(0, length - side + 1, side) for length in self.cells)
        places = [(y, x) for y in rows for x in columns]
        count = min(max(-(-last * self.workload.queries // images), 1), len(places))
        labelled = np.zeros(self.cells, bool)
        for y, x in (places[index * len(places) // count] for index in range(count)):
            labelled[y : y + side, x : x + side] = True
        return labelled

    def _evaluated(self) -> Timed:
        predictor = Predictor(self.segmentation, self.precision)

        def compare(pairs: list[Pair]) -> None:
            ((image, truth),) = pairs
            confusion(truth.labels, predictor.segmentation(image[None])[0].cpu().numpy(), self.classes)

        return read_ahead(self.truths.image_ids, self._pair, compare)

    def _maps(self, maps_of: Callable[[np.ndarray], Tensor]) -> Timed:
        """Batches are of one size; several CUDA devices share the maps."""

        def work(images: list[np.ndarray]) -> None:
            maps_of(np.stack([images[0]] * len(images))).cpu()

        found = read_ahead(self.ids, self.source.image, work, self.settings.compute.batch_images)
        several = uses_cuda(self.settings) and self.settings.compute.cluster != "none"
        lanes = max(torch.cuda.device_count(), 1) if several else 1
        return Timed(self.ids_scale * found.unit_s / lanes, found.waits)

    def _information(self) -> Callable[[np.ndarray], Tensor]:
        predictor, wanted = Predictor(self.segmentation, self.precision), self.wanted
        if not wanted.needs_dropout:
            return lambda images: predictor.information(images, MEASURES[wanted.information])
        votes, samples = SAMPLED_MEASURES[wanted.information], wanted.dropout_samples
        dropout, streams = self.settings.model.dropout, [self.random] * self.settings.compute.batch_images
        return lambda images: predictor.sampled_information(images, votes, samples, dropout, streams)

    def _compared(self) -> Timed:
        predictor = Predictor(self.cost_model, self.precision)

        def compare(pairs: list[Pair]) -> None:
            ((image, truth),) = pairs
            predictor.clicks(image[None]).cpu()
            edge_map(image)
            region_cost(truth, self._box(*truth.labels.shape))

        return read_ahead(self.truths.image_ids, self._pair, compare)

    @cached_property
    def made_maps(self) -> list[np.ndarray]:
        """As many maps as regions are scored by, cut to whole cells."""
        count = (self.wanted.information != "random") + (self.wanted.cost != "none")
        shape = tuple(side // STRIDE_PX for side in self.size)
        return [quantise(self.random.random(shape, np.float32)).astype(np.float32) for _ in range(count)]

    def _sums(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Candidates, and the sums of the maps over each of them."""
        side = self.wanted.window_px // STRIDE_PX
        if self.wanted.unit == "image":
            return np.ones((1, 1), bool), [image_sum(cells) for cells in self.made_maps]
        free = np.zeros(tuple(length // STRIDE_PX for length in self.size), bool)
        return candidates(free, side), [window_sums(cells, side) for cells in self.made_maps]

    def _scales(self) -> None:
        mask, sums = self._sums()
        for each in sums:
            extent_of(each, mask)

    def _proposals(self) -> None:
        mask, sums = self._sums()
        if self.wanted.information == "random":
            scores = self.random.random(mask.shape, np.float32)
        else:
            information, *cost = (scale(each, extent_of(each, mask)) for each in sums)
            scores = fuse(self.wanted.fusion, information, cost[0] if cost else None, self.wanted.alpha, mask)
        side = self.wanted.window_px // STRIDE_PX if self.wanted.unit == "region" else 1
        suppress(scores, side, self.workload.queries)

    def _page(self) -> Callable[[], Any]:
        """Draws a round's pictures, of made queries."""
        true, predicted = self.random.uniform(1, 50, (2, min(self.workload.queries, MOST_QUERIES_DRAWN)))
        made = partial(QueryFacts, self.typical, self._box(*self.size), 0.5, 1.0)
        queries = [made(float(p), float(t), 0, 0) for p, t in zip(predicted, true, strict=True)]
        samples = [CostSample(name, true, dict.fromkeys(PREDICTORS, predicted)) for name in SAMPLES]
        is_learned, point = self.wanted.cost == "learned", Point(0, 0.5, 1.0, 1)
        facts = RoundFacts("plan", [point], {}, [], queries, 1, 1, 1, cost_samples=samples if is_learned else ())
        information, cost = self.random.random((2, *self.cells), np.float32)
        views = [RegionView(each, self.image, information, cost) for each in queries[: reporting.REGIONS_SHOWN]]
        return lambda: round_pictures(facts, views)
