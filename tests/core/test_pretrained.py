import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision_there import models, segmentation

from cereals_core.errors import SettingsError
from cereals_core.models.base import Network, Published
from cereals_core.models.build import build_network
from cereals_core.models.fcn8s import MEAN, STD, VGG16_BLOCKS, FCN8s
from cereals_core.models.pretrained import fitting_weights
from cereals_core.models.torchvision_models import ARCHITECTURES, TorchvisionNetwork
from cereals_core.network_settings import Model, Training
from cereals_core.seeding import rng
from cereals_core.training import Trainer, segmentation_loss

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 1 / 32
DEEPLAB, LRASPP = "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"
Weights = dict[str, Tensor]


def narrow_vgg16() -> nn.ModuleDict:
    """torchvision's VGG16 without its last layer, with the channel counts of FCN8s at this width."""
    config: list[int | str] = []
    for block in VGG16_BLOCKS:
        config += [*(max(8, int(channels * WIDTH)) for channels in block), "M"]
    classifier = nn.Sequential(nn.Linear(16 * 49, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, 128), nn.ReLU())
    return nn.ModuleDict({"features": models.vgg.make_layers(config), "classifier": classifier}).eval()


def fitting(network: Network, weights: Any, said: str) -> Weights:
    return fitting_weights(network, Published(weights, "published"), said)


def initialised(network: Network) -> Network:
    network.initialise(torch.Generator().manual_seed(0))
    return network


def on_meta(make: Any, *arguments: Any, **keys: Any) -> Any:
    """A network whose weights have names and shapes but take no memory."""
    with torch.device("meta"):
        return make(*arguments, **keys)


def on_meta_of(name: str) -> Weights:
    """The state dict of a model of torchvision, without values."""
    keys = {"weights_backbone": None} if name in ARCHITECTURES else {}
    return on_meta(models.get_model, name, weights=None, **keys).state_dict()


def segmentation_model(name: str, classes: int, **keys: Any) -> nn.Module:
    return getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=classes, **keys)


def differing(first: Weights, second: Weights) -> set[str]:
    assert first.keys() == second.keys()
    return {name for name in first if not torch.equal(first[name], second[name])}


def test_layers_of_vgg16_by_name() -> None:
    vgg = narrow_vgg16().state_dict()
    numbers = {name: index for index, name in enumerate(vgg)}
    weights = {name: torch.full_like(value, numbers[name]) for name, value in vgg.items()}
    taken = fitting(on_meta(FCN8s, 3, WIDTH), weights, "file")
    expected = {
        "blocks.0.conv1.weight": "features.0.weight",
        "blocks.0.conv2.bias": "features.2.bias",
        "blocks.1.conv1.weight": "features.5.weight",
        "blocks.2.conv1.weight": "features.10.weight",
        "blocks.2.conv3.bias": "features.14.bias",
        "blocks.3.conv1.weight": "features.17.weight",
        "blocks.4.conv3.weight": "features.28.weight",
        "fc6.weight": "classifier.0.weight",
        "fc6.bias": "classifier.0.bias",
        "fc7.weight": "classifier.3.weight",
    }
    assert {name: taken[name].unique().tolist() for name in expected} == {a: [numbers[b]] for a, b in expected.items()}
    assert taken["fc6.weight"].shape == (128, 16, 7, 7)
    assert taken["fc7.weight"].shape == (128, 128, 1, 1)
    assert len(taken) == 2 * 15


def test_with_vgg16s_weights_the_middle_cell_is_vgg16() -> None:
    """On 224 x 224 px, where the 7 x 7 kernel of fc6 covers the whole map, from images of torchvision's own scaling."""
    vgg, network = narrow_vgg16(), FCN8s(3, WIDTH)
    network.load_state_dict(fitting(network, vgg.state_dict(), "file"), strict=False)
    image = torch.from_numpy(rng(0, "image").integers(0, 256, (1, 3, 224, 224), "uint8"))
    scaled = models.VGG16_Weights.IMAGENET1K_V1.transforms(crop_size=224, resize_size=224)(image)
    with torch.inference_mode():
        features = network.trunk(image)
        second = torch.relu(network.fc7(features.fc6))[..., 3, 3]
        expected = vgg["classifier"](vgg["features"](scaled).flatten(1))
    assert features.fc6.shape[2:] == (7, 7)
    torch.testing.assert_close(second, expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 0


@pytest.mark.parametrize("weights", [models.ResNet50_Weights, segmentation.DeepLabV3_ResNet50_Weights])
def test_torchvision_scales_images_as_we_do(weights: Any) -> None:
    transform = weights.DEFAULT.transforms()
    assert (tuple(transform.mean), tuple(transform.std)) == (MEAN, STD)
    image, mean, std = (torch.tensor(rgb).view(1, 3, 1, 1) for rgb in ((12, 100, 250), transform.mean, transform.std))
    for network in (FCN8s(1, WIDTH), TorchvisionNetwork(LRASPP, 1)):
        torch.testing.assert_close((image - network.mean) / network.std, (image / 255 - mean) / std)


@pytest.mark.parametrize("name", ["vgg16", "resnet50", "resnet101", "mobilenet_v3_large"])
def test_published_classifiers_fit_at_full_size(name: str) -> None:
    """All but the scores are there: for FCN8s all layers, for others the backbone."""
    users = {
        "vgg16": [on_meta(FCN8s, 19, 1.0)],
        "resnet50": [on_meta(TorchvisionNetwork, f"{kind}_resnet50", 19) for kind in ("fcn", "deeplabv3")],
        "resnet101": [on_meta(TorchvisionNetwork, f"{kind}_resnet101", 19) for kind in ("fcn", "deeplabv3")],
        "mobilenet_v3_large": [on_meta(TorchvisionNetwork, name, 19) for name in (DEEPLAB, LRASPP)],
    }
    for network in users[name]:
        taken = fitting(network, on_meta_of(name), "file")
        left = [key for key in network.state_dict().keys() - taken if not key.endswith("num_batches_tracked")]
        assert all("score" in key or key.startswith("classifier.") for key in left)
        assert {key: value.shape for key, value in taken.items()}.items() <= {
            key: value.shape for key, value in network.state_dict().items()
        }.items()


@pytest.mark.parametrize("name", [DEEPLAB, LRASPP])
@pytest.mark.parametrize("classes", [3, 21])
def test_a_whole_model_gives_everything_but_its_scores(name: str, classes: int) -> None:
    auxiliary = {"aux_loss": True} if name == DEEPLAB else {}
    weights = segmentation_model(name, classes, **auxiliary).state_dict()
    network = initialised(TorchvisionNetwork(name, 3))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(fitting(network, weights, "file"), strict=False)
    after = network.state_dict()
    scores = {key for key in after if re.search(r"classifier\.(4|low_classifier|high_classifier)\.", key)}
    assert len(scores) == (2 if name == DEEPLAB else 4)
    assert scores.isdisjoint(differing(before, after))
    counted = {key for key in after if key.endswith("num_batches_tracked")}
    assert [key for key in after.keys() - scores - counted if not torch.equal(after[key], weights[key])] == []


def test_a_backbone_leaves_the_rest_as_initialised() -> None:
    weights = models.mobilenet_v3_large(weights=None).half().state_dict()
    older = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    network = initialised(TorchvisionNetwork(LRASPP, 3))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(fitting(network, older, "file"), strict=False)
    after = network.state_dict()
    assert {key for key in after if after[key].dtype == torch.float16} == set()
    assert torch.equal(after["backbone.16.0.weight"], weights["features.16.0.weight"].float())
    assert {key.split(".")[0] for key in differing(before, after)} == {"backbone"}


def test_pretrained_statistics_are_frozen() -> None:
    network = TorchvisionNetwork(LRASPP, 3)
    network.load_state_dict(
        fitting(network, models.mobilenet_v3_large(weights=None).state_dict(), "file"), strict=False
    )
    network.expect_pretrained()
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert network.training
    assert not any(layer.training for layer in layers)


PARTS = {
    "fcn8s": ("blocks.", "fc6.", "fc7."),
    "timm:resnet10t": ("encoder.",),
    "smp:unet/resnet18": ("model.encoder.",),
    LRASPP: ("backbone.",),
}


@pytest.mark.parametrize("expected", [True, False])
@pytest.mark.parametrize("name", PARTS)
def test_pretrained_weights_learn_at_a_share_of_the_rate(name: str, expected: bool) -> None:
    """Adam's first step moves a weight by the learning rate, whatever its gradient."""
    network = initialised(build_network(Model(name=name, width=0.05), 2))
    if expected:
        network.expect_pretrained()
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    image = rng(0, "image").integers(0, 256, (64, 64, 3), np.uint8)
    settings = Training(learning_rate=1e-2, pretrained_rate=0.1, decay="poly", steps=1)
    trainer = Trainer(network, segmentation_loss, settings, 0.0, lambda epoch: rng(0, epoch))
    trainer.run_epoch([(image, np.arange(64, dtype=np.uint8).reshape(8, 8) % 2)])
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in network.named_parameters()}
    slower = {weight for weight in moved if weight.startswith(PARTS[name]) and expected}
    for weights, rate in ((slower, 1e-3), (moved.keys() - slower, 1e-2)):
        seen = max((moved[weight] for weight in weights), default=rate)
        assert seen == pytest.approx(rate, rel=1e-2)


VGG16 = "give a file of the state_dict() of torchvision's vgg16 (the one without batch normalisation)"
FCN50 = "give a file of the state_dict() of torchvision's fcn_resnet50 or of its backbone trained on ImageNet"
REFUSED: dict[str, tuple[str, Any, str, str]] = {
    "another depth of VGG": ("fcn8s", "vgg19", 'it has no "features.17.weight"', VGG16),
    "VGG with batch normalisation": ("fcn8s", "vgg16_bn", 'it has no "features.2.weight"', VGG16),
    "a ResNet": ("fcn8s", "resnet50", 'it has no "classifier.0.weight"', VGG16),
    "a deeper ResNet": ("fcn_resnet50", "resnet101", 'its "layer3.10.bn1.bias" belongs to another model', FCN50),
    "a shallower ResNet": ("fcn_resnet50", "resnet18", 'its "layer1.0.conv1.weight" has the shape', FCN50),
    "a MobileNet": ("fcn_resnet50", "mobilenet_v3_large", 'it has no "conv1.weight"', FCN50),
    "another head": ("fcn_resnet50", "deeplabv3_resnet50", 'it has no "classifier.0.weight"', FCN50),
}


def network_of(name: str) -> Network:
    return on_meta(FCN8s, 3, 1.0) if name == "fcn8s" else on_meta(TorchvisionNetwork, name, 3)


@pytest.mark.parametrize("case", REFUSED)
def test_weights_of_another_model_are_refused(case: str) -> None:
    name, other, problem, remedy = REFUSED[case]
    with pytest.raises(SettingsError) as caught:
        fitting(network_of(name), on_meta_of(other), "some/file.pth")
    assert str(caught.value).startswith('model.weights = "some/file.pth": ')
    assert problem in str(caught.value)
    assert remedy in str(caught.value)


def test_one_weight_of_another_shape_is_named_with_both_shapes() -> None:
    weights = on_meta_of("vgg16") | {"classifier.0.weight": torch.empty(4096, 25087, device="meta")}
    message = re.escape('its "classifier.0.weight" has the shape (4096, 25087), not (4096, 25088)')
    with pytest.raises(SettingsError, match=message):
        fitting(network_of("fcn8s"), weights, "file")


@pytest.mark.parametrize(
    ("weights", "problem"),
    [
        (torch.zeros(3), "it holds a Tensor, not a state dict"),
        ({"model": {}, "epoch": 3}, "it holds a dict under 'model', not tensors under their names"),
        ({3: torch.zeros(3)}, "it holds a Tensor under 3, not tensors under their names"),
        ({}, 'it has no "'),
    ],
)
def test_what_is_no_state_dict_is_refused(weights: Any, problem: str) -> None:
    for name in ("fcn8s", LRASPP):
        with pytest.raises(SettingsError, match=re.escape(problem)):
            fitting(network_of(name), weights, "file")
