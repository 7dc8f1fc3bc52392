import pytest
import torch
import torchvision_there
from torch import Tensor, nn

from cereals_core.models.base import Network
from cereals_core.models.build import build_network
from cereals_core.models.footprint import (
    KERNELS_SHARE,
    LiveTensors,
    outline,
    parameter_bytes,
    prediction_bytes,
    training_bytes,
)
from cereals_core.network_settings import Model

HEIGHT, WIDTH = 40, 64
PIXELS = HEIGHT * WIDTH


class OneLayer(Network):
    """A convolution of 1 x 1 pixel from 3 to 2 channels, at full resolution: 6 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Conv2d(3, 2, 1, bias=False)

    def initialise(self, generator: torch.Generator) -> None: ...

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        return []

    def trunk(self, images: Tensor) -> Tensor:
        return images.to(self.score.weight.dtype)

    def head(self, features: Tensor, masks: list[Tensor] | None = None) -> Tensor:
        return self.score(features)


def test_tensors_count_while_they_live_and_views_do_not() -> None:
    with LiveTensors() as tensors:
        first = torch.zeros(10, device="meta")
        assert tensors.live_bytes == 40
        view = first[2:].view(2, 4)
        assert tensors.live_bytes == 40
        second = first + 1
        assert tensors.live_bytes == tensors.peak_bytes == 80
        del first, second
        assert tensors.live_bytes == 40
        del view
        assert (tensors.live_bytes, tensors.peak_bytes) == (0, 80)


def test_a_prediction_of_one_layer() -> None:
    network = outline(OneLayer)
    assert parameter_bytes(network) == 24
    image, numbers, scores = 3 * PIXELS, 3 * 4 * PIXELS, 2 * 4 * PIXELS
    assert prediction_bytes(network, HEIGHT, WIDTH) == 24 + KERNELS_SHARE * (image + numbers + scores)
    scores_again, classes = 64 * scores, 64 * 8 * PIXELS  # 8 x 8 times as many, and one int64 each
    assert prediction_bytes(network, HEIGHT, WIDTH, upsampled=True) == pytest.approx(
        24 + KERNELS_SHARE * (image + numbers + scores + scores_again + classes), rel=0.1
    )


def test_a_step_of_one_layer_keeps_its_input_and_its_output() -> None:
    image, numbers, scores = 3 * PIXELS, 3 * 4 * PIXELS, 2 * 4 * PIXELS
    losses = gradient = scores
    expected = 4 * 24 + KERNELS_SHARE * (image + numbers + scores + losses + gradient)
    network = outline(OneLayer)
    assert training_bytes(network, HEIGHT, WIDTH) == pytest.approx(expected, abs=200)
    assert training_bytes(network, HEIGHT, WIDTH) == training_bytes(network, HEIGHT, WIDTH)


def test_a_step_on_a_batch_keeps_them_for_each_image() -> None:
    network = outline(OneLayer)
    batches = [training_bytes(network, HEIGHT, WIDTH, images) for images in (1, 2, 5)]
    assert batches[2] - batches[1] == pytest.approx(3 * (batches[1] - batches[0]), abs=10)
    assert batches[1] - batches[0] == pytest.approx(KERNELS_SHARE * (3 + 3 * 4 + 3 * 2 * 4) * PIXELS, abs=10)
    deep = outline(lambda: build_network(Model(width=0.25), 1))
    four, eight = (training_bytes(deep, 256, 512, images) - 4 * parameter_bytes(deep) for images in (4, 8))
    assert eight / four == pytest.approx(2, rel=0.1)


def test_the_best_weights_are_there_twice_while_they_change() -> None:
    network = outline(lambda: build_network(Model(width=0.5), 1))
    assert training_bytes(network, 32, 32) == 6 * parameter_bytes(network)


def test_half_the_format_is_half_of_what_is_kept_but_for_places_of_maxima() -> None:
    full, half = (
        outline(lambda: build_network(Model(width=0.25), 1), precision) for precision in (torch.float32, torch.bfloat16)
    )
    kept = [training_bytes(network, 512, 1024) - 4 * parameter_bytes(network) for network in (full, half)]
    assert 0.5 < kept[1] / kept[0] < 0.8
    assert parameter_bytes(full) == parameter_bytes(half)


def test_a_model_of_torchvision_is_counted_too() -> None:
    assert torchvision_there.segmentation
    network = outline(lambda: build_network(Model(name="lraspp_mobilenet_v3_large"), 19))
    training, prediction = training_bytes(network, 256, 512), prediction_bytes(network, 256, 512)
    assert training > 4 * parameter_bytes(network) + prediction
