"""Networks on a CUDA device against the CPU in float32; skipped where there is none."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from test_windows import InMemory, maps_of, target_of

from cereals_core.grid import map_shape
from cereals_core.information import MEASURES, SAMPLED_MEASURES
from cereals_core.models.base import Network
from cereals_core.models.build import build_encoder, build_network
from cereals_core.models.decoder import Decoder
from cereals_core.network_settings import Model, Training
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from cereals_core.settings import Compute
from cereals_core.training import Trainer, cost_loss, segmentation_loss
from tasks.running.device import prepare_device
from tasks.running.memory import available_bytes

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

CLASSES, SIZE = 5, (93, 141)
NAMES = ["fcn8s", "deeplabv3_mobilenet_v3_large", "timm:tf_efficientnet_lite0", "smp:unet/resnet18"]
MAP_BOUND = 0.02
"""Largest difference of a map's cell, in nats, clicks or votes, between the device and the CPU's float32."""
LOSS_BOUND = 1e-3
"""Largest relative difference of a loss over some steps."""


@pytest.fixture(autouse=True)
def reproducible() -> None:
    assert prepare_device(Compute(device="cuda")).type == "cuda"


def network(name: str, outputs: int = CLASSES) -> Network:
    made = build_network(Model(name=name, width=0.1), outputs)
    made.initialise(torch.Generator().manual_seed(0))
    return made


def pictures(count: int = 2) -> np.ndarray:
    return rng(0, "pictures").integers(0, 256, (count, *SIZE, 3), np.uint8)


def both(name: str, outputs: int = CLASSES) -> tuple[Predictor, Predictor]:
    on_cpu = network(name, outputs)
    return Predictor(on_cpu), Predictor(copy.deepcopy(on_cpu).cuda())


@pytest.mark.parametrize("name", NAMES)
def test_maps_are_those_of_the_cpu_within_a_bound(name: str) -> None:
    on_cpu, on_device = both(name)
    images = pictures()
    expected, found = (each.information(images, MEASURES["entropy"]).cpu() for each in (on_cpu, on_device))
    assert found.shape == (2, *map_shape(*SIZE))
    assert (found.float() - expected.float()).abs().max() < MAP_BOUND
    measure = SAMPLED_MEASURES["vote_entropy"]
    expected, found = (
        each.sampled_information(images, measure, 5, 0.5, [rng(0, index) for index in range(2)]).cpu()
        for each in (on_cpu, on_device)
    )
    assert ((found.float() - expected.float()).abs() > MAP_BOUND).float().mean() < 0.02  # near ties a vote may turn
    agreed = [each.segmentation(images).cpu() for each in (on_cpu, on_device)]
    assert (agreed[0] == agreed[1]).float().mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_predicted_clicks_are_those_of_the_cpu_within_a_bound(name: str) -> None:
    expected, found = (each.clicks(pictures()).cpu().float() for each in both(name, outputs=1))
    assert (found - expected).abs().max() < MAP_BOUND * max(1.0, float(expected.abs().max()))


def trained(model: Network, loss: Any, samples: Any, device: str, **keys: Any) -> Trainer:
    settings = Training(**{"learning_rate": 1e-3, **keys})
    trainer = Trainer(copy.deepcopy(model).to(device), loss, settings, 0.3, lambda epoch: rng(0, epoch))
    for _ in range(3):
        if not trainer.finished:
            trainer.run_epoch(samples)
    return trainer


@pytest.mark.parametrize("name", ["fcn8s", "timm:tf_efficientnet_lite0"])
def test_training_on_images_is_that_of_the_cpu_and_repeats_itself(name: str) -> None:
    samples = [(picture, target_of(segmentation_loss, *SIZE)) for picture in pictures(3)]
    on_cpu = trained(network(name, 3), segmentation_loss, samples, "cpu")
    first, second = (trained(network(name, 3), segmentation_loss, samples, "cuda") for _ in range(2))
    for expected, found in zip(on_cpu.history, first.history, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=LOSS_BOUND)
    assert first.history == second.history
    assert all(torch.equal(value, second.best_weights[key]) for key, value in first.best_weights.items())


@pytest.mark.parametrize("loss", [segmentation_loss, cost_loss])
def test_training_on_windows_of_features_is_that_of_the_cpu_and_repeats_itself(loss: Any) -> None:
    samples = InMemory([(maps_of(*SIZE), target_of(loss, *SIZE)) for _ in range(3)])
    model = Decoder((3, 4, 5), 3 if loss is segmentation_loss else 1)
    model.initialise(torch.Generator().manual_seed(0))
    keys = {"batch": "windows", "batch_windows": 8, "steps": 12, "decay": "poly", "weight_decay": 0.01}
    on_cpu = trained(model, loss, samples, "cpu", **keys)
    first, second = (trained(model, loss, samples, "cuda", **keys) for _ in range(2))
    for expected, found in zip(on_cpu.history, first.history, strict=True):
        assert found.loss == pytest.approx(expected.loss, rel=LOSS_BOUND)
    assert all(torch.equal(value, second.best_weights[key]) for key, value in first.best_weights.items())


def test_features_are_those_of_the_cpu_within_half_precision() -> None:
    encoder = build_encoder(Model(name="timm:tf_efficientnet_lite0", weights="download", trunk="frozen"))
    batch = torch.from_numpy(pictures()).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = encoder(batch).maps
        found = encoder.cuda()(batch.cuda()).maps
    for one, other in zip(expected, found, strict=True):
        assert (other.cpu() - one).abs().max() < 5e-3 * one.abs().max()


def test_memory_of_the_device_is_told() -> None:
    assert torch.cuda.mem_get_info()[0] > 0
    assert available_bytes() > 0
