import copy
import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from one_image import OneByOne
from strategies import FEW
from torch import Tensor
from torchvision_there import segmentation

from cereals_core.grid import map_shape
from cereals_core.information import MEASURES
from cereals_core.models.build import build_network
from cereals_core.models.dropout import draw_masks
from cereals_core.models.torchvision_models import ARCHITECTURES, TorchvisionNetwork
from cereals_core.network_settings import Model, Training
from cereals_core.networks import family_of
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from cereals_core.training import Trainer, segmentation_loss

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = list(ARCHITECTURES)
DEEPLAB, LRASPP = MOBILE = ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"]
FCN, CLASSES = "fcn_resnet50", 3
MASK_CHANNELS_AND_STRIDE = {
    "fcn_resnet50": (512, 8),
    "fcn_resnet101": (512, 8),
    "deeplabv3_resnet50": (256, 8),
    "deeplabv3_resnet101": (256, 8),
    "deeplabv3_mobilenet_v3_large": (256, 16),
}


def network(name: Any, seed: int = 0) -> TorchvisionNetwork:
    made = build_network(Model(name=name), CLASSES)
    assert isinstance(made, TorchvisionNetwork)
    made.initialise(torch.Generator().manual_seed(seed))
    return made


def images(height: int, width: int) -> Tensor:
    return torch.from_numpy(rng(0, "images", height, width).integers(0, 256, (1, 3, height, width), "uint8"))


def differing(first: dict[str, Tensor], second: dict[str, Tensor]) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def torchvisions_logits(model: TorchvisionNetwork, image: Tensor) -> Tensor:
    """What torchvision's own model with these weights gives before it upsamples."""
    own = getattr(segmentation, model.name)(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    own.load_state_dict(model.state_dict())
    maps = own.backbone((image - model.mean) / model.std)
    return own.classifier(maps if model.name == LRASPP else maps["out"])


def twice_as_fine(x: np.ndarray) -> np.ndarray:
    """Along the last axis, a cell becomes two: 3/4 of itself and 1/4 of the neighbour on that side, itself at edges."""
    padded = np.concatenate([x[..., :1], x, x[..., -1:]], axis=-1)
    pairs = np.stack([0.75 * x + 0.25 * padded[..., :-2], 0.75 * x + 0.25 * padded[..., 2:]], axis=-1)
    return pairs.reshape(*x.shape[:-1], -1)


def test_every_name_has_its_family() -> None:
    assert {name for name in NAMES if family_of(name).has_dropout} == MASK_CHANNELS_AND_STRIDE.keys()
    names = ["fcn8s", *NAMES, "timm:resnet18.a1_in1k", "smp:unet/timm-tf_efficientnet_lite0"]
    assert [name for name in names if family_of(name).is_local] == ["fcn8s"]
    assert [name for name in names if family_of(name).has_encoder] == ["timm:resnet18.a1_in1k"]
    for name in ("resnet18", "timm:", "timm:a b", "smp:unet", "smp:unet/", "FCN8s", ""):
        with pytest.raises(ValueError, match="no such network; there are fcn8s, "):
            family_of(name)


@pytest.mark.parametrize("name", ["fcn8s", FCN, *MOBILE])
def test_the_cost_network_has_one_output_and_all_else_of_the_segmentation_network(name: str) -> None:
    segmentation, cost = (build_network(Model(name=name, width=0.1), outputs) for outputs in (CLASSES, 1))
    for seed, each in enumerate((segmentation, cost)):
        each.initialise(torch.Generator().manual_seed(seed))
    drawn = copy.deepcopy(cost.state_dict())
    cost.copy_all_but_scores(segmentation)
    scores = {key for key in drawn if key.startswith(cost.scores)}
    assert scores
    for key, value in cost.state_dict().items():
        assert torch.equal(value, drawn[key] if key in scores else segmentation.state_dict()[key])
    assert cost.eval()(images(41, 59)).shape == (1, 1, 6, 8)


@pytest.mark.parametrize("name", NAMES)
def test_trunk_and_head_give_torchvisions_logits_at_stride_eight(name: str) -> None:
    model, image = network(name).eval(), images(41, 59)
    with torch.inference_mode():
        expected, output = torchvisions_logits(model, image), model.head(model.trunk(image))
    assert output.shape == (1, CLASSES, 6, 8)
    if name != DEEPLAB:
        assert torch.equal(output, expected)
    else:
        finer = twice_as_fine(twice_as_fine(expected.numpy()).swapaxes(2, 3)).swapaxes(2, 3)
        np.testing.assert_allclose(output.numpy(), finer[:, :, :6, :8], rtol=1e-4, atol=1e-4 * abs(finer).max())


@pytest.mark.parametrize("name", NAMES)
def test_masks_fit_what_they_multiply(name: str) -> None:
    with torch.device("meta"):
        model = TorchvisionNetwork(name, CLASSES).eval()
        features = model.trunk(torch.empty(1, 3, 41, 59))
    if not family_of(name).has_dropout:
        assert model.mask_shapes(41, 59) == []
        return
    channels, stride = MASK_CHANNELS_AND_STRIDE[name]
    assert model.mask_shapes(41, 59) == [(1, channels, -(-41 // stride), -(-59 // stride))]
    assert model.mask_shapes(41, 59) == [tuple(features.values.shape)]


@pytest.fixture(scope="module")
def mobile() -> dict[str, TorchvisionNetwork]:
    return {name: network(name).eval() for name in MOBILE}


@FEW
@given(st.sampled_from(MOBILE), st.integers(1, 60), st.integers(1, 60))
def test_any_image_gives_one_output_a_cell(
    mobile: dict[str, TorchvisionNetwork], name: str, height: int, width: int
) -> None:
    with torch.inference_mode():
        output = mobile[name](images(height, width))
    assert output.shape == (1, CLASSES, *map_shape(height, width))
    assert output.isfinite().all()


def test_integer_and_float_images_give_the_same_output(mobile: dict[str, TorchvisionNetwork]) -> None:
    image = images(33, 47)
    assert all(torch.equal(model(image), model(image.float())) for model in mobile.values())


@pytest.mark.parametrize("name", [FCN, DEEPLAB])
def test_one_trunk_and_five_heads_equal_whole_passes_bit_for_bit(name: str) -> None:
    model, image, stream = network(name).eval(), images(75, 101), rng(0, "masks")
    passes = []
    with torch.inference_mode():
        features = model.trunk(image)
        for _ in range(5):
            masks = draw_masks(stream, model.mask_shapes(75, 101), 0.5)
            passes.append(model(image, masks))
            assert torch.equal(model.head(features, masks), passes[-1])
        assert torch.equal(model.head(features), model(image))
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(passes))


@pytest.mark.parametrize("name", [FCN, DEEPLAB])
def test_masks_of_ones_change_nothing_and_of_zeros_remove_the_image(name: str) -> None:
    model = network(name).eval()
    with torch.inference_mode():
        features = model.trunk(images(40, 64))
        ones, zeros = ([make(shape) for shape in model.mask_shapes(40, 64)] for make in (torch.ones, torch.zeros))
        assert torch.equal(model.head(features, ones), model.head(features))
        assert model.head(features).abs().max() > 0
        assert model.head(features, zeros).abs().max() == 0


@pytest.mark.parametrize("name", [FCN, *MOBILE])
def test_no_pass_in_training_draws_from_the_global_stream(name: str) -> None:
    model, image, outputs = network(name), images(41, 59), []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            outputs.append(model(image))
            assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*outputs)


@pytest.mark.parametrize("name", MOBILE)
def test_initialise_sets_everything_from_the_generator_alone(name: str) -> None:
    drawn, spoilt = network(name, seed=5), TorchvisionNetwork(name, CLASSES)
    for tensor in spoilt.state_dict().values():
        tensor.fill_(9)
    spoilt.initialise(torch.Generator().manual_seed(5))
    assert differing(drawn.state_dict(), spoilt.state_dict()) == set()
    assert len(differing(drawn.state_dict(), network(name, seed=6).state_dict())) > 50


def test_convolutions_are_he_normal_and_batch_normalisation_changes_nothing() -> None:
    model = network(FCN)
    convolution, normalisation = model.classifier[0], model.classifier[1]
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / (2048 * 9)), rel=1e-2)
    assert convolution.weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert model.classifier[4].bias.abs().max() == 0
    expected = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    for name, value in expected.items():
        assert (normalisation.state_dict()[name] == value).all()


def trained(model: TorchvisionNetwork, size: tuple[int, int] = (25, 33), stream_seed: int = 0) -> TorchvisionNetwork:
    """After one epoch of one step on noise."""
    stream, settings = rng(0, "sample"), Training(learning_rate=1e-3)
    image = stream.integers(0, 256, (*size, 3), np.uint8)
    labels = stream.integers(0, CLASSES, map_shape(*size), np.uint8)
    trainer = Trainer(model, segmentation_loss, settings, 0.5, lambda epoch: rng(stream_seed, epoch))
    trainer.run_epoch([(image, labels)])
    return model


@pytest.mark.parametrize("name", MOBILE)
def test_a_step_of_training_changes_all_weights_and_repeats_itself(name: str) -> None:
    before, after, again = network(name), trained(network(name)), trained(network(name))
    unchanged = before.state_dict().keys() - differing(before.state_dict(), after.state_dict())
    assert {key for key, _ in after.named_parameters()} & unchanged == set()
    assert differing(after.state_dict(), again.state_dict()) == set()
    if family_of(name).has_dropout:
        assert differing(after.state_dict(), trained(network(name), stream_seed=1).state_dict()) != set()


@pytest.mark.parametrize("name", MOBILE)
def test_the_smallest_image_that_trains_is_larger_than_a_cell_of_the_backbone(name: str) -> None:
    assert trained(network(name), size=(17, 9)).training
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        trained(network(name), size=(16, 16))


def running(model: TorchvisionNetwork) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items() if "running" in name}


@pytest.mark.parametrize("name", [FCN, *MOBILE])
def test_from_scratch_statistics_are_the_images_own_but_behind_global_pooling(name: str) -> None:
    model = network(name)
    before = running(model)
    trained(model)
    pooled = {key for key in before if key.startswith("classifier.0.convs.4.")}
    assert len(pooled) == (2 if name == DEEPLAB else 0)
    assert differing(before, running(model)) == before.keys() - pooled
    image = images(41, 59)
    assert not torch.equal(model.train()(image), model.eval()(image))


@pytest.mark.parametrize("name", MOBILE)
def test_frozen_statistics_stay_while_weights_learn(name: str) -> None:
    model, image = network(name), images(41, 59)
    model.expect_pretrained()
    before, weights = running(model), copy.deepcopy(dict(model.named_parameters()))
    assert torch.equal(model.train()(image), model.eval()(image))
    trained(model.train())
    assert differing(before, running(model)) == set()
    changed = differing(weights, dict(model.named_parameters()))
    assert {key for key in weights if key.startswith("backbone.0.1.")} <= changed


def test_predictors_take_these_networks() -> None:
    image = images(41, 59)[0].permute(1, 2, 0).numpy()
    for name in MOBILE:
        predictor = OneByOne(Predictor(network(name)))
        assert predictor.information(image, MEASURES["entropy"]).shape == (6, 8)
        assert predictor.segmentation(image).shape == (41, 59)


def test_weights_survive_a_file() -> None:
    model, other, image = trained(network(DEEPLAB)).eval(), network(DEEPLAB, seed=1).eval(), images(41, 59)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    with torch.inference_mode():
        assert not torch.equal(model(image), other(image))
        other.load_state_dict(torch.load(file, weights_only=True))
        other.to(memory_format=torch.channels_last)  # as training leaves a network
        assert torch.equal(model(image), other(image))
