from collections.abc import Callable, Iterator
from functools import partial

import naive
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from one_image import OneByOne
from strategies import FEW

from cereals_core.grid import map_shape
from cereals_core.information import MEASURES, SAMPLED_MEASURES, SampledMeasure, entropy, quantise
from cereals_core.models.base import Network
from cereals_core.models.dropout import draw_masks
from cereals_core.models.fcn8s import FCN8s
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, SAMPLES = 3, 6
Method = Callable[[OneByOne, np.ndarray], np.ndarray]


def sampled(predictor: OneByOne, image: np.ndarray, measure: SampledMeasure) -> np.ndarray:
    return predictor.sampled_information(image, measure, SAMPLES, 0.5, rng(0, "votes"))


METHODS: dict[str, Method] = {
    **{name: partial(OneByOne.information, measure=measure) for name, measure in MEASURES.items()},
    **{name: partial(sampled, measure=measure) for name, measure in SAMPLED_MEASURES.items()},
    "clicks": OneByOne.clicks,
    "segmentation": OneByOne.segmentation,
}


def predictor_of(outputs: int = CLASSES, precision: torch.dtype = torch.float32) -> OneByOne:
    """A network with random weights whose skips are faint, so that dropout changes votes everywhere."""
    model = FCN8s(outputs, 0.02)
    model.initialise(torch.Generator().manual_seed(0))
    for skip in (model.score_pool4, model.score_pool3):
        skip.weight.data *= 0.03
    return OneByOne(Predictor(model, precision))


def image_of(height: int, width: int, number: int = 0) -> np.ndarray:
    return rng(number, "image", height, width).integers(0, 256, (height, width, 3), np.uint8)


def pixels(image: np.ndarray) -> torch.Tensor:
    """The image as the network takes it, in the layout the predictor uses."""
    return torch.from_numpy(image)[None].permute(0, 3, 1, 2)


def constant_network(*logits: float) -> OneByOne:
    """A network that gives every cell of every image these logits, by the bias of its last skip."""
    model = FCN8s(len(logits), 0.02)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.load_state_dict({"score_pool3.bias": torch.tensor(logits).float()}, strict=False)
    return OneByOne(Predictor(model))


def test_a_network_of_constant_logits() -> None:
    predictor, image = constant_network(0, np.log(2), 0), image_of(20, 30)
    halves = 0.5 * np.log(2) + 2 * 0.25 * np.log(4)
    np.testing.assert_allclose(predictor.information(image, entropy), np.full((3, 4), halves), rtol=2**-11)
    for measure in SAMPLED_MEASURES.values():
        assert (predictor.sampled_information(image, measure, SAMPLES, 0.5, rng(0)) == 0).all()
    assert predictor.segmentation(image).tolist() == np.ones((20, 30)).tolist()


def test_clicks_of_a_constant_network_are_its_constant_and_may_be_negative() -> None:
    assert constant_network(-2.75).clicks(image_of(9, 8)).tolist() == [[-2.75], [-2.75]]


@FEW
@given(st.integers(1, 70), st.integers(1, 70))
def test_maps_have_a_value_a_cell_and_segmentations_one_a_pixel(height: int, width: int) -> None:
    image = image_of(height, width)
    cells = map_shape(height, width)
    segmentation, cost = predictor_of(), predictor_of(1)
    maps = {name: METHODS[name](segmentation, image) for name in (*MEASURES, *SAMPLED_MEASURES)}
    for values in (*maps.values(), cost.clicks(image)):
        assert values.shape == cells
        assert values.dtype == np.float16
        np.testing.assert_array_equal(values, quantise(values))
    for name, values in maps.items():
        assert values.min() >= 0
        assert values.max() <= {"least_confidence": 1 - 1 / CLASSES, "margin": 1}.get(name, np.log(CLASSES)) * (
            1 + 2**-11
        )
    classes = segmentation.segmentation(image)
    assert classes.shape == (height, width)
    assert classes.dtype == np.uint8
    assert classes.max() < CLASSES


def whole_passes(model: Network, image: np.ndarray, dropout: float) -> Iterator[torch.Tensor]:
    """Logits of passes from the image to the end, with the masks that METHODS draw."""
    stream = rng(0, "votes")
    for _ in range(SAMPLES):
        yield model(pixels(image), draw_masks(stream, model.mask_shapes(*image.shape[:2]), dropout))


@pytest.mark.parametrize("dropout", [0.5, 0.3])
@pytest.mark.parametrize(("height", "width"), [(40, 64), (61, 75)])
def test_sampled_measures_equal_those_of_whole_passes_with_the_same_masks(
    height: int, width: int, dropout: float
) -> None:
    predictor, image = predictor_of(), image_of(height, width)
    with torch.inference_mode():
        passes = list(whole_passes(predictor.model, image, dropout))
    logits = np.stack([each.numpy() for each in passes])
    assert len(np.unique(logits.argmax(2))) == CLASSES
    twins = {"vote_entropy": naive.vote_entropy(naive.votes(logits), SAMPLES), "bald": naive.bald(logits)}
    for name, measure in SAMPLED_MEASURES.items():
        fast = predictor.sampled_information(image, measure, SAMPLES, dropout, rng(0, "votes"))
        np.testing.assert_array_equal(fast, quantise(measure(passes)[0].numpy()))
        np.testing.assert_allclose(fast, twins[name][0], rtol=2.0**-10, atol=2.0**-20)
        assert len(np.unique(fast)) > 3


class Pointwise(Network):
    """Two 1 x 1 convolutions of 8 x 8 blocks with dropout between; its features are a dict."""

    mask_stride_px = 8

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Conv2d(3, 16, 1), torch.nn.Conv2d(16, CLASSES, 1)
        self.trunks = self.heads = 0
        self.initialise(torch.Generator().manual_seed(0))

    def initialise(self, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            torch.nn.init.normal_(parameter, generator=generator)

    def trunk(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.trunks += 1
        blocks = torch.nn.functional.avg_pool2d(images / 255, 8, ceil_mode=True)
        return {"hidden": torch.relu(self.first(blocks))}

    def head(self, features: dict[str, torch.Tensor], masks: list[torch.Tensor] | None = None) -> torch.Tensor:
        self.heads += 1
        return self.last(features["hidden"] * (masks[0] if masks else 1))

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        return [(1, 16, *map_shape(height, width))]


@pytest.mark.parametrize("name", SAMPLED_MEASURES)
def test_any_network_will_do_and_its_trunk_is_computed_once(name: str) -> None:
    model, image = Pointwise(), image_of(61, 75)
    fast = METHODS[name](OneByOne(Predictor(model)), image)
    assert (model.trunks, model.heads) == (1, SAMPLES)
    with torch.inference_mode():
        whole = SAMPLED_MEASURES[name](whole_passes(model, image, 0.5))[0].numpy()
    np.testing.assert_array_equal(fast, quantise(whole))
    assert (fast > 0).any()


@pytest.mark.parametrize("measure", SAMPLED_MEASURES.values(), ids=SAMPLED_MEASURES)
def test_samples_agree_without_dropout(measure: SampledMeasure) -> None:
    assert (predictor_of().sampled_information(image_of(50, 50), measure, SAMPLES, 0.0, rng(0)) == 0).all()


@pytest.mark.parametrize("measure", SAMPLED_MEASURES.values(), ids=SAMPLED_MEASURES)
def test_sampled_measures_depend_on_their_stream(measure: SampledMeasure) -> None:
    predictor, image = predictor_of(), image_of(64, 64)
    first, second = (predictor.sampled_information(image, measure, SAMPLES, 0.5, rng(seed)) for seed in (0, 1))
    assert (first != second).any()


@pytest.mark.parametrize(("height", "width"), [(40, 64), (61, 75)])
def test_measures_of_one_pass_are_those_of_the_outputs_probabilities(height: int, width: int) -> None:
    predictor, image = predictor_of(), image_of(height, width)
    with torch.inference_mode():
        logits = predictor.model(pixels(image))
    for name, measure in MEASURES.items():
        found = predictor.information(image, measure)
        np.testing.assert_array_equal(found, quantise(measure(logits)[0].numpy()))
        np.testing.assert_allclose(found, getattr(naive, name)(logits.numpy())[0], rtol=2.0**-10, atol=3e-6)


def test_clicks_are_the_output_in_half_precision() -> None:
    predictor, image = predictor_of(1), image_of(61, 75)
    with torch.inference_mode():
        output = predictor.model(pixels(image))[0, 0].numpy()
    clicks = predictor.clicks(image)
    np.testing.assert_array_equal(clicks, quantise(output))
    np.testing.assert_allclose(clicks, output, rtol=2.0**-11)
    assert clicks.min() < 0


def network_of(logits: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> OneByOne:
    """A network that answers any image with these logits (C, h, w)."""
    predictor = predictor_of(len(logits))
    monkeypatch.setattr(predictor.model, "forward", lambda _: torch.from_numpy(logits)[None].float())
    return predictor


@pytest.mark.parametrize(("height", "width"), [(16, 24), (21, 35), (5, 30)])
def test_segmentation_is_the_largest_logit_between_the_four_nearest_cells(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = rng(0, "logits").normal(size=(CLASSES, *map_shape(height, width)))
    rows, columns = logits.shape[1:]
    classes = network_of(logits, monkeypatch).segmentation(image_of(height, width))
    assert len(np.unique(classes)) > 1
    for y, x in np.ndindex(height, width):
        row, column = np.clip((y + 0.5) / 8 - 0.5, 0, rows - 1), np.clip((x + 0.5) / 8 - 0.5, 0, columns - 1)
        top, left = int(row), int(column)
        below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
        upper = logits[:, top, left] * (1 - column + left) + logits[:, top, right] * (column - left)
        lower = logits[:, below, left] * (1 - column + left) + logits[:, below, right] * (column - left)
        between = upper * (1 - row + top) + lower * (row - top)
        assert between[classes[y, x]] >= between.max() - 1e-5


def test_a_block_whose_neighbours_agree_has_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.zeros((2, 3, 6))
    logits[1, :, 3:] = 1
    classes = network_of(logits, monkeypatch).segmentation(image_of(24, 48))
    assert (classes[:, :20] == 0).all()
    assert (classes[:, 28:] == 1).all()


@given(st.permutations([(name, number) for name in METHODS for number in range(3)]))
@settings(max_examples=5)
def test_results_do_not_depend_on_the_order_of_calls(order: list[tuple[str, int]]) -> None:
    images = [image_of(40 + 11 * number, 60 - 13 * number, number) for number in range(3)]
    shared = predictor_of()
    for name, number in order:
        alone = ALONE.setdefault((name, number), METHODS[name](predictor_of(), images[number]))
        np.testing.assert_array_equal(METHODS[name](shared, images[number]), alone)


ALONE: dict[tuple[str, int], np.ndarray] = {}
"""Results of predictors that made no other call, kept from one example to the next."""


@pytest.mark.parametrize("name", METHODS)
def test_an_image_is_neither_changed_nor_needs_to_be_contiguous(name: str) -> None:
    image = image_of(50, 70)
    before = image.copy()
    expected = METHODS[name](predictor_of(), image)
    np.testing.assert_array_equal(image, before)
    window = np.pad(image, ((1, 2), (3, 4), (0, 0)))[1:-2, 3:-4]
    np.testing.assert_array_equal(METHODS[name](predictor_of(), window), expected)


@pytest.mark.parametrize("name", ["least_confidence", "margin", "bald", "clicks"])
def test_bfloat16_gives_nearly_the_same_maps(name: str) -> None:
    image = image_of(64, 64)
    full, low = (METHODS[name](predictor_of(precision=kind), image) for kind in (torch.float32, torch.bfloat16))
    assert low.dtype == np.float16
    np.testing.assert_allclose(low, full, atol=0.1)
    assert (low != full).any()


def test_a_batch_gives_what_its_images_give() -> None:
    """In their last bits results depend on the size of the batch, and on nothing else of it."""
    predictor = predictor_of().predictor
    images = np.stack([image_of(40, 64, number) for number in range(3)])
    methods: dict[str, Callable[[np.ndarray, list[int]], torch.Tensor]] = {
        **{
            name: lambda some, _, measure=measure: predictor.information(some, measure)
            for name, measure in MEASURES.items()
        },
        **{
            name: lambda some, numbers, measure=measure: predictor.sampled_information(
                some, measure, SAMPLES, 0.5, [rng(number, "votes") for number in numbers]
            )
            for name, measure in SAMPLED_MEASURES.items()
        },
        "clicks": lambda some, _: predictor.clicks(some),
        "segmentation": lambda some, _: predictor.segmentation(some),
    }
    for name, method in methods.items():
        together = method(images, [0, 1, 2])
        turned = method(images[[2, 0, 1]], [2, 0, 1])
        assert torch.equal(turned[[1, 2, 0]], together), name
        alone = torch.cat([method(images[[number]], [number]) for number in range(3)])
        if name not in ("vote_entropy", "segmentation"):
            torch.testing.assert_close(together, alone, rtol=2**-9, atol=1e-5)
        assert (together != alone).double().mean() < 0.05, name
