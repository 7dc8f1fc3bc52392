import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW
from torch import Tensor, nn
from torch.nn import functional

from cereals_core.grid import map_shape
from cereals_core.models.dropout import draw_masks
from cereals_core.models.fcn8s import MEAN, STD, FCN8s
from cereals_core.seeding import rng

pytestmark = pytest.mark.usefixtures("one_thread")

VGG16_PARAMETERS = 138_357_544
"""Of the classifier as published, whose last layer (4096 to 1000) is replaced here by one to the classes."""


def tiny(outputs: int = 3, seed: int = 0) -> FCN8s:
    model = FCN8s(outputs, 0.02)
    model.initialise(torch.Generator().manual_seed(seed))
    return model.eval()


def images(height: int, width: int, batch: int = 1) -> Tensor:
    return torch.from_numpy(rng(0, "images", height, width).integers(0, 256, (batch, 3, height, width), "uint8"))


def parameters(model: FCN8s) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_at_width_one_the_parameters_are_those_of_vgg16_plus_the_scores() -> None:
    with torch.device("meta"):
        model = FCN8s(outputs=21, width=1.0)
    scores = (4096 + 512 + 256) * 21 + 3 * 21
    upsampling = 2 * 21 * 21 * 4 * 4
    assert parameters(model) == VGG16_PARAMETERS - (4096 * 1000 + 1000) + scores + upsampling
    assert model.fc6.weight.shape == (4096, 512, 7, 7)


def test_at_width_one_quarter_every_channel_count_is_a_quarter() -> None:
    with torch.device("meta"):
        model = FCN8s(outputs=19, width=0.25)
    counts = [3, 16, 16, 32, 32, 64, 64, 64, 128, 128, 128, 128, 128, 128]
    convolutions = sum((9 * a + 1) * b for a, b in itertools.pairwise(counts))
    heads = (128 * 49 + 1) * 1024 + (1024 + 1) * 1024
    scores = (1024 + 128 + 64 + 3) * 19 + 2 * 19 * 19 * 16
    assert parameters(model) == convolutions + heads + scores
    assert [conv.out_channels for conv in model.modules() if isinstance(conv, nn.Conv2d)][:13] == counts[1:]


def test_no_layer_is_narrower_than_eight_channels() -> None:
    convolutions = [layer for layer in FCN8s(2, 1e-6).modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [8] * 15 + [2] * 3


def test_an_image_of_the_mean_colour_gives_zero_everywhere() -> None:
    mean = (torch.tensor(MEAN) * 255).view(1, 3, 1, 1).expand(1, 3, 20, 40)
    assert tiny()(mean).abs().max() == 0


@FEW
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 2), st.integers(1, 3))
def test_any_image_gives_one_output_a_cell(height: int, width: int, batch: int, outputs: int) -> None:
    with torch.inference_mode():
        output = tiny(outputs)(images(height, width, batch))
    assert output.shape == (batch, outputs, *map_shape(height, width))
    assert output.isfinite().all()


@FEW
@given(st.integers(1, 70), st.integers(1, 70))
def test_features_lie_at_strides_32_16_and_8_and_masks_fit_fc6(height: int, width: int) -> None:
    model = tiny()
    with torch.inference_mode():
        features = model.trunk(images(height, width))
    assert features.pool3.shape[2:] == map_shape(height, width)
    assert features.pool4.shape[2:] == (-(-height // 16), -(-width // 16))
    assert features.fc6.shape == (1, 82, -(-height // 32), -(-width // 32))
    assert features.fc6.min() >= 0
    assert model.mask_shapes(height, width) == [tuple(features.fc6.shape)] * 2


def test_integer_and_float_images_give_the_same_output() -> None:
    image = images(33, 47)
    assert torch.equal(tiny()(image), tiny()(image.float()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_trunk_and_many_heads_equal_whole_passes_bit_for_bit(layout: torch.memory_format) -> None:
    model = tiny().to(memory_format=layout)  # type: ignore[call-overload]
    image = images(75, 101).contiguous(memory_format=layout)
    with torch.inference_mode():
        features = model.trunk(image)
        assert torch.equal(model.head(features), model(image))
        stream = rng(0, "masks")
        passes = []
        for _ in range(5):
            masks = draw_masks(stream, model.mask_shapes(*image.shape[-2:]), 0.5)
            passes.append(model(image, masks))
            assert torch.equal(model.head(features, masks), passes[-1])
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(passes))


def test_masks_of_ones_change_nothing_and_of_zeros_leave_the_skips() -> None:
    model, image = tiny(), images(64, 64)
    with torch.inference_mode():
        features = model.trunk(image)
        ones, zeros = ([make(shape) for shape in model.mask_shapes(64, 64)] for make in (torch.ones, torch.zeros))
        assert torch.equal(model.head(features, ones), model.head(features))
        skips = features.pool3 + model.upscore_pool4(features.pool4)
        torch.testing.assert_close(model.head(features, zeros), skips)


def convolve(x: np.ndarray, layer: nn.Module) -> np.ndarray:
    """Sum of shifted images (C, H, W) in float64, zero outside."""
    weight, bias = (tensor.detach().double().numpy() for tensor in layer.parameters())
    _, height, width = x.shape
    size = weight.shape[-1]
    padded = np.pad(x, ((0, 0), *[(size // 2, size // 2)] * 2))
    total = np.zeros((len(weight), height, width)) + bias[:, None, None]
    for i, j in np.ndindex(size, size):
        total += np.tensordot(weight[:, :, i, j], padded[:, i : i + height, j : j + width], axes=1)
    return total


def pool(x: np.ndarray) -> np.ndarray:
    """Maximum of each 2 x 2 block, partial ones at the border included."""
    channels, height, width = x.shape
    return np.array(
        [
            [[x[c, i : i + 2, j : j + 2].max() for j in range(0, width, 2)] for i in range(0, height, 2)]
            for c in range(channels)
        ]
    )


def upsample(x: np.ndarray, layer: nn.Module, like: np.ndarray) -> np.ndarray:
    """Each value spreads its 4 x 4 kernel over the output at twice the resolution; cropped to the size of `like`."""
    (weight,) = (tensor.detach().double().numpy() for tensor in layer.parameters())
    _, height, width = x.shape
    spread = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
    for i, j in np.ndindex(height, width):
        spread[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.tensordot(x[:, i, j], weight, axes=1)
    return spread[:, 1 : 1 + like.shape[1], 1 : 1 + like.shape[2]]


def naive_pass(model: FCN8s, image: Tensor, masks: list[Tensor]) -> np.ndarray:
    """The whole network as Long et al. draw it, one layer after another, for one image."""
    means, deviations = (np.array(values)[:, None, None] for values in (MEAN, STD))
    x, pools = (image[0].numpy() / 255 - means) / deviations, []
    for block in model.blocks:
        for layer in block.children():
            if isinstance(layer, nn.Conv2d):
                x = np.maximum(convolve(x, layer), 0)
        x = pool(x)
        pools.append(x)
    for layer, mask in zip((model.fc6, model.fc7), masks, strict=True):
        x = np.maximum(convolve(x, layer), 0) * mask[0].numpy()
    pool4, pool3 = convolve(pools[3], model.score_pool4), convolve(pools[2], model.score_pool3)
    fused = upsample(convolve(x, model.score), model.upscore, pool4) + pool4
    return upsample(fused, model.upscore_pool4, pool3) + pool3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (61, 100), (64, 32)])
def test_a_pass_equals_the_loops_in_float64(height: int, width: int) -> None:
    model, image, noise = tiny(), images(height, width), torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.startswith(("up", "fc7")) or name.endswith("bias"):
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=noise)
    with torch.inference_mode():
        masks = draw_masks(rng(0, "masks"), model.mask_shapes(*image.shape[-2:]), 0.5)
        output = model(image, masks)[0].numpy()
    np.testing.assert_allclose(output, naive_pass(model, image, masks), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("layer", ["upscore", "upscore_pool4"])
def test_upsampling_keeps_constants_and_ramps_inside_and_channels_apart(layer: str) -> None:
    upsample = getattr(tiny(outputs=2), layer)
    ramp = torch.arange(6.0).expand(5, 6)
    with torch.inference_mode():
        constant, ramped = upsample(torch.stack([torch.full((5, 6), 7.0), ramp])[None])[0]
    assert constant.shape == (10, 12)
    assert (constant[1:-1, 1:-1] == 7).all()
    assert ramped[4].tolist()[1:-1] == [0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75]
    assert (ramped[1:-1, 1:-1] == ramped[4, 1:-1]).all()


def test_upsampling_is_bilinear_inside() -> None:
    maps = torch.from_numpy(rng(0, "maps").normal(size=(1, 3, 4, 7))).float()
    with torch.inference_mode():
        ours = tiny(outputs=3).upscore(maps)
    bilinear = functional.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], bilinear[..., 1:-1, 1:-1])


def test_weights_depend_on_the_generator_alone() -> None:
    first, second, other = tiny(seed=5).state_dict(), tiny(seed=5).state_dict(), tiny(seed=6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    same = {name for name in first if torch.equal(first[name], other[name])}
    assert same == {name for name in first if name.endswith("bias") or name.startswith("upscore")}


def test_weights_have_the_spread_of_their_layer_and_biases_are_zero() -> None:
    model = FCN8s(19, 0.25)
    model.initialise(torch.Generator().manual_seed(0))
    fan_in = 128 * 7 * 7
    assert model.fc6.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.01)
    assert model.score.weight.std().item() == pytest.approx((1 / 1024) ** 0.5, rel=0.05)
    assert all((value == 0).all() for name, value in model.state_dict().items() if name.endswith("bias"))


def test_copying_takes_every_layer_but_the_scores() -> None:
    segmentation, cost = tiny(outputs=4, seed=1), tiny(outputs=1, seed=2)
    for parameter in segmentation.parameters():
        parameter.data += 0.5
    before = copy.deepcopy(cost.state_dict())
    cost.copy_all_but_scores(segmentation)
    scores = {f"{name}.weight" for name in ("score", "score_pool4", "score_pool3", "upscore", "upscore_pool4")}
    scores |= {f"{name}.bias" for name in ("score", "score_pool4", "score_pool3")}
    for name, value in cost.state_dict().items():
        assert torch.equal(value, before[name] if name in scores else segmentation.state_dict()[name]), name
    cost.fc6.weight.data.zero_()
    assert segmentation.fc6.weight.abs().max() > 0


@pytest.mark.parametrize(("height", "width"), [(1, 1), (61, 100), (96, 64)])
def test_the_network_in_float64_agrees(height: int, width: int) -> None:
    model, image = tiny(), images(height, width)
    with torch.inference_mode():
        masks = draw_masks(rng(0, "masks"), model.mask_shapes(*image.shape[-2:]), 0.5)
        single = model(image, masks)
        double = copy.deepcopy(model).double()(image, masks)
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)
