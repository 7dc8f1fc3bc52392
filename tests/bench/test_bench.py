"""Benchmarks of the stages with networks, and of a whole round: `make bench`. Images are PNG files of drawn streets."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import made_round
import numpy as np
import pytest
import torch
from measure import allowed, forward_flops, keep, side_by_side, this_machine
from plain_round import clicks_of, labels_of, plain_round, train
from prefect import flow

from cereals_core.data_settings import SyntheticData
from cereals_core.datasets import open_images, open_truth
from cereals_core.datasets.cityscapes import write_cityscapes_layout
from cereals_core.datasets.files import Split
from cereals_core.evaluation import confusion
from cereals_core.information import entropy, vote_entropy
from cereals_core.models.base import Network
from cereals_core.models.build import build_network
from cereals_core.models.dropout import draw_masks
from cereals_core.oracle import answer
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings
from cereals_core.training import cost_loss, segmentation_loss
from flows.round import Given, run_round
from tasks.evaluation import evaluate
from tasks.mapping import cost_map, info_map
from tasks.oracle import oracle_query, seed_set
from tasks.pages.benchmarks import Measured
from tasks.pool import check_pool
from tasks.running import images as kept_images
from tasks.running.device import prepare_device
from tasks.store.history import product_of, products_made
from tasks.store.layout import Campaign
from tasks.store.ledger import Ledger, box_of
from tasks.store.products import Product
from tasks.training import load_model, train_cost, train_seg

POOL, EVALUATED, HEIGHT, WIDTH, NETWORK = 48, 24, 512, 1024, 0.25
SETTING = f"{HEIGHT} x {WIDTH} px, width {NETWORK}"
SAMPLES, STEPS, SEED_IMAGES, WINDOW_PX = 20, 24, 4, 128
TARGET = 0.85
"""Share that is aimed at of the images a second that the machine allows."""
WHOLE_PASSES_IMAGES = 2
"""Images that are passed as often as there are samples."""
MAPPED = POOL - SEED_IMAGES
"""Images whose maps are made: none of those that are labelled in full."""

pytestmark = [pytest.mark.bench, pytest.mark.usefixtures("prefect_server")]


@dataclass(frozen=True)
class Made:
    """A round that was run, and how long that took."""

    campaign: Campaign
    elapsed_s: float
    stages_s: float
    """Of its stages without what is around them."""

    def product(self, stage: str) -> Product:
        """The round's product of a stage, or that of a stage before it."""
        return product_of(self.campaign, stage, None if stage in ("pool", "seed-set") else 0)

    def again(self, stage: made_round.Stage, keeping: bool = False, **inputs: str) -> Callable[[], object]:
        """Makes the product of a stage again; images are decoded again unless the process has kept them."""
        products = {name: self.product(each) for name, each in inputs.items()}

        def run() -> None:
            if not keeping:
                kept_images._kept_images.cache_clear()
            made_round.run(self.campaign, stage, products)

        return run


@flow(validate_parameters=False)
def first_round(campaign: Campaign) -> None:
    """Round 0 alone: the next one would only train on more images."""
    pool = check_pool(campaign)
    run_round(campaign, 0, Given(pool, None, None), seed_set(campaign, pool=pool))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("bench")
    streets = SyntheticData(format="synthetic", pool_images=POOL, eval_images=EVALUATED, height=HEIGHT, width=WIDTH)
    write_cityscapes_layout(streets, folder / "data")
    campaign = Campaign(folder / "campaign", settings_of(folder))
    started = time.perf_counter()
    first_round(campaign)
    elapsed_s = time.perf_counter() - started
    return Made(campaign, elapsed_s, sum(each.elapsed_s for _, each in products_made(campaign)))


def measuring(made: Made, information: str) -> Made:
    """The same with another measure of information."""
    settings = made.campaign.settings
    acquisition = settings.acquisition.model_copy(update={"information": information})
    changed = settings.model_copy(update={"acquisition": acquisition})
    return replace(made, campaign=Campaign(made.campaign.folder, changed))


def settings_of(folder: Path) -> CampaignSettings:
    wanted = {"seed_images": SEED_IMAGES, "images_per_round": 4, "dropout_samples": SAMPLES}
    return parse_settings(
        {
            "name": "bench",
            "folder": str(folder / "campaign"),
            "data": {"format": "cityscapes", "root": str(folder / "data")},
            "model": {"width": NETWORK},
            "training": {"max_steps": STEPS},
            "acquisition": {**wanted, "window_px": WINDOW_PX},
        },
        "benchmark",
    )


@pytest.fixture(scope="module")
def network(made: Made) -> Network:
    device = prepare_device(made.campaign.settings.compute)
    model = load_model(made.campaign.settings, 19, made.product("train-seg"))
    return model.to(device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def floor_of(made: Made) -> float:
    """Images a second if a pass were all that is computed, at the machine's peak."""
    return this_machine().peak_flops / forward_flops(build_network(made.campaign.settings.model, 19), HEIGHT, WIDTH)


def tensors(made: Made, split: Split, model: Network) -> list[torch.Tensor]:
    source, device = open_images(made.campaign.settings.data, split), next(model.parameters()).device
    return [torch.from_numpy(source.image(each))[None].permute(0, 3, 1, 2).to(device) for each in source.image_ids]


def test_map_stages(made: Made, network: Network) -> None:
    pixels = tensors(made, "pool", network)

    @torch.inference_mode()
    def bare() -> None:
        for each in pixels:
            entropy(network(each)).half().cpu()

    information = {"pool": "pool", "ledger": "seed-set", "model": "train-seg"}
    clicks = {"pool": "pool", "ledger": "seed-set", "model": "train-cost"}
    certain = measuring(made, "entropy")
    ways = (
        certain.again(info_map, **information),
        certain.again(info_map, keeping=True, **information),
        made.again(cost_map, **clicks),
        bare,
    )
    seconds = side_by_side(ways)
    bare_s, floor = POOL / seconds[-1], floor_of(made)
    names = (("info-map", "entropy, files"), ("info-map", "entropy, images kept"), ("cost-map", "files"))
    rows = [
        Measured(stage, f"{said}, {SETTING}", MAPPED / taken, bare_s, None, floor)
        for (stage, said), taken in zip(names, seconds, strict=False)
    ]
    keep(*rows)
    from_files = allowed(bare_s, open_images(made.campaign.settings.data, "pool"))
    for row, rate in zip(rows, (from_files, bare_s, from_files), strict=True):
        assert row.ours > TARGET * rate, row.setting


def test_reduced_precision_and_compilation(made: Made, network: Network) -> None:
    """Passes alone, and by how much maps differ from those of float32."""
    pixels = tensors(made, "pool", network)[:8]
    low, compiled = torch.autocast(pixels[0].device.type, torch.bfloat16), cast(Network, torch.compile(network))
    maps: dict[str, list[np.ndarray]] = {}

    @torch.inference_mode()
    def passes(
        name: str, model: Callable[[torch.Tensor], torch.Tensor], precision: AbstractContextManager[Any]
    ) -> None:
        with precision:
            maps[name] = [entropy(model(each)).cpu().numpy() for each in pixels]

    ways = (
        partial(passes, "float32", network, nullcontext()),
        partial(passes, "bfloat16", network, low),
        partial(passes, "compiled", compiled, nullcontext()),
    )
    full_s, low_s, compiled_s = side_by_side(ways, 4)
    for name, taken in (("bfloat16", low_s), ("compiled", compiled_s)):
        setting = f"{name}, passes alone, {SETTING}; bare: float32"
        keep(Measured("info-map", setting, len(pixels) / taken, len(pixels) / full_s))
        moved = np.abs(np.stack(maps[name]) - np.stack(maps["float32"])).max()
        print(f"{name}: entropy moves by {moved:.2g} nats at most")
        assert moved < 0.1


def test_vote_entropy(made: Made, network: Network) -> None:
    few, shapes = tensors(made, "pool", network)[: 4 * WHOLE_PASSES_IMAGES], network.mask_shapes(HEIGHT, WIDTH)
    masks = [draw_masks(rng(0, number), shapes, 0.5, few[0].device) for number in range(SAMPLES)]
    drawing = partial(draw_masks, rng(0), shapes * SAMPLES, 0.5)

    def heads(image: torch.Tensor) -> Iterator[torch.Tensor]:
        features = network.trunk(image)
        return (network.head(features, each) for each in masks)

    @torch.inference_mode()
    def votes(samples: Callable[[torch.Tensor], Iterator[torch.Tensor]], images: list[torch.Tensor]) -> None:
        for image in images:
            vote_entropy(samples(image)).half().cpu()

    ours = made.again(info_map, pool="pool", ledger="seed-set", model="train-seg")
    whole = few[:WHOLE_PASSES_IMAGES]
    passes = partial(votes, lambda image: (network(image, each) for each in masks), whole)
    ours_s, bare_s, whole_s = side_by_side((ours, partial(votes, heads, few), passes))
    setting = f"vote entropy of {SAMPLES}, {SETTING}"
    rate, bare, public = MAPPED / ours_s, len(few) / bare_s, len(whole) / whole_s
    keep(Measured("info-map", setting, rate, bare, public, floor_of(made)))
    assert rate > max(TARGET * allowed(bare, open_images(made.campaign.settings.data, "pool"), drawing), 4 * public)


def test_evaluate_and_oracle_query(made: Made, network: Network) -> None:
    pixels, dataset = tensors(made, "eval", network), open_truth(made.campaign.settings.data, "eval")
    labels = [dataset.truth(each).labels for each in dataset.image_ids]

    @torch.inference_mode()
    def bare() -> None:
        for each, truth in zip(pixels, labels, strict=True):
            full = torch.nn.functional.interpolate(network(each), scale_factor=8, mode="bilinear")
            confusion(truth, full.argmax(1)[0].to(torch.uint8).cpu().numpy(), 19)

    ours_s, bare_s = side_by_side((made.again(evaluate, pool="pool", ledger="seed-set", model="train-seg"), bare))
    keep(Measured("evaluate", SETTING, EVALUATED / ours_s, EVALUATED / bare_s, None, floor_of(made)))
    assert EVALUATED / ours_s > TARGET * allowed(EVALUATED / bare_s, open_images(made.campaign.settings.data, "eval"))

    pool_truth = open_truth(made.campaign.settings.data, "pool")
    asked = [row for row in Ledger(made.product("oracle-query")).table.to_pylist() if row["round"] == 0]
    truths = {row["image_id"]: pool_truth.truth(row["image_id"]) for row in asked}

    def answered() -> None:
        for row in asked:
            answer(row["image_id"], truths[row["image_id"]], box_of(row))

    def one_by_one() -> None:
        for row in asked:
            answer(row["image_id"], pool_truth.truth(row["image_id"]), box_of(row))

    ways = (made.again(oracle_query, pool="pool", ledger="seed-set", proposals="nms"), answered, one_by_one)
    rates = [len(asked) / taken for taken in side_by_side(ways)]
    keep(Measured("oracle-query", f"regions of {WINDOW_PX} px, {HEIGHT} x {WIDTH} px; bare: truth in memory", *rates))
    assert rates[0] > 1.5 * rates[2]


def test_trainings_as_stages(made: Made) -> None:
    """Steps a second of the whole stage, with reading, checking and storing, against steps on images in memory."""
    settings = made.campaign.settings
    pool = open_truth(settings.data, "pool")
    images = {image_id: pool.image(image_id) for image_id in pool.image_ids[:SEED_IMAGES]}.__getitem__
    networks = build_network(settings.model, 19), build_network(settings.model, 1)
    ways = (
        made.again(train_seg, pool="pool", ledger="seed-set"),
        partial(train, networks[0], segmentation_loss, settings, images, labels_of(pool, SEED_IMAGES)),
        made.again(train_cost, pool="pool", ledger="seed-set", model="train-seg"),
        partial(train, networks[1], cost_loss, settings, images, clicks_of(pool, SEED_IMAGES)),
    )
    seg, bare_seg, cost, bare_cost = (STEPS / taken for taken in side_by_side(ways, 2))
    setting = f"the whole stage, {STEPS} steps, {SETTING}"
    keep(Measured("train-seg", setting, seg, bare_seg), Measured("train-cost", setting, cost, bare_cost))
    assert min(seg / bare_seg, cost / bare_cost) > 0.9


def test_checking_the_pool(made: Made) -> None:
    """Images a second that are read and checked with their truth, against reading them one by one."""
    sources = [open_truth(made.campaign.settings.data, split) for split in ("pool", "eval")]

    def one_by_one() -> None:
        for source in sources:
            for image_id in source.image_ids:
                source.image(image_id), source.truth(image_id)

    ours_s, public_s = side_by_side((made.again(check_pool), one_by_one))
    images = POOL + EVALUATED
    keep(Measured("pool", f"PNG and polygons, {HEIGHT} x {WIDTH} px", images / ours_s, None, images / public_s))
    assert ours_s < public_s


def test_a_whole_round(made: Made) -> None:
    """Rounds an hour, against the arithmetic alone and the plain way, which do not check, compare costs or report."""
    rounds = f"{POOL} images, vote entropy of {SAMPLES}, {STEPS} steps, {SETTING}: rounds an hour"
    plain = partial(plain_round, made.campaign.settings, SEED_IMAGES)
    seconds = side_by_side((partial(plain, bare=True), partial(plain, bare=False)), 1)
    assert made.elapsed_s < seconds[1]
    keep(
        Measured("a whole round", rounds, *(3600 / taken for taken in (made.elapsed_s, *seconds))),
        Measured("a whole round", f"{rounds}; bare: its stages alone", 3600 / made.elapsed_s, 3600 / made.stages_s),
    )
