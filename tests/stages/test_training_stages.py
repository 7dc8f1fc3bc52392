import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_campaign import small_settings
from torch import Tensor, nn
from torchvision_there import models

from cereals_core.errors import ProductError, SettingsError
from cereals_core.models.fcn8s import FCN8s
from cereals_core.models.torchvision_models import TorchvisionNetwork
from cereals_core.network_settings import Model
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.training import Epoch, InOrder, Sample, Trainer
from tasks import training
from tasks.oracle import seed_set
from tasks.pool import check_pool
from tasks.pretrained import pretrained
from tasks.running.stage import SEED_ROUND, Stage
from tasks.running.work import Work
from tasks.store.layout import WEIGHTS, Campaign
from tasks.store.products import Product
from tasks.telling import progress
from tasks.telling.progress import Interrupted, request_stop
from tasks.training import load_model, train_cost, train_seg

pytestmark = pytest.mark.usefixtures("one_thread")

DEEPLAB, LRASPP = "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"
Weights = dict[str, Tensor]


def product_of(stage: Stage, campaign: Campaign, number: int | None, **inputs: Product | None) -> Product:
    """Run a stage's body, without Prefect and manifests."""
    folder, facts = campaign.stage(stage.name, number), {}
    folder.mkdir(parents=True, exist_ok=True)
    stage.body(Work(stage.name, campaign, number, folder, facts), **inputs)
    return Product(folder, "digest", "fingerprint", stage.name, elapsed_s=0, total_bytes=0, facts=facts)


ONE_IDLE_STEP = {"learning_rate": 1e-30, "max_steps": 1}
"""A training that changes no weight."""


def campaign_with(folder: Path, training: dict[str, Any] = ONE_IDLE_STEP, **model: Any) -> Campaign:
    """A small campaign with this model."""
    small = small_settings(folder / "campaign")
    parts = {"model": Model(**model), "training": small.training.model_copy(update=training)}
    return Campaign(folder / "campaign", small.model_copy(update=parts))


def saved(weights: Any, file: Path) -> str:
    torch.save(weights, file)
    return str(file)


def test_the_stage_keeps_what_is_used_and_nothing_else(tmp_path: Path) -> None:
    weights = models.mobilenet_v3_large(weights=None).state_dict()
    campaign = campaign_with(tmp_path, name=LRASPP, weights=saved(weights, tmp_path / "file.pth"))
    product = product_of(pretrained, campaign, SEED_ROUND)
    kept = torch.load(product / WEIGHTS, weights_only=True)
    assert all(torch.equal(value, weights[name.replace("backbone", "features")]) for name, value in kept.items())
    assert len(kept) == sum(name.startswith("features.") for name in weights if "num_batches" not in name)
    assert product.facts["parameters"] == sum(value.numel() for value in kept.values())


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\x03\x04broken"])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file.pth"
    file.write_bytes(content)
    message = rf'model\.weights = "{file}": cannot be read as a state dict .*; write it with torch\.save'
    with pytest.raises(SettingsError, match=message):
        product_of(pretrained, campaign_with(tmp_path, name=LRASPP, weights=str(file)), SEED_ROUND)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    campaign = campaign_with(tmp_path, name=LRASPP, weights="there/is/none.pth")
    with pytest.raises(SettingsError, match=r'model\.weights = "there/is/none\.pth": there is no such file in /'):
        product_of(pretrained, campaign, SEED_ROUND)


def test_a_pickled_program_is_not_run(tmp_path: Path) -> None:
    file = saved(models.mobilenet_v3_large(weights=None), tmp_path / "model.pth")
    with pytest.raises(SettingsError, match="cannot be read as a state dict"):
        product_of(pretrained, campaign_with(tmp_path, name=LRASPP, weights=file), SEED_ROUND)


def seeded(settings: CampaignSettings, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng(settings.seed, name, 0, "weights").integers(2**63)))


def assert_close(network: nn.Module, expected: Weights) -> None:
    weights = {name: value for name, value in network.state_dict().items() if name in expected}
    assert weights.keys() == expected.keys()
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-20)


def started(campaign: Campaign) -> dict[str, Product]:
    """What a training takes: the pool, and a seed set of two images."""
    pool = product_of(check_pool, campaign, SEED_ROUND)
    return {"pool": pool, "ledger": product_of(seed_set, campaign, SEED_ROUND, pool=pool)}


def classes_of(pool: Product) -> int:
    return len(pool.facts["class_names"])


def test_beside_fcn8s_the_cost_network_starts_from_the_segmentation(tmp_path: Path) -> None:
    campaign = campaign_with(tmp_path, width=0.03)
    inputs, settings = started(campaign), campaign.settings
    seg = product_of(train_seg, campaign, 0, **inputs)
    cost = product_of(train_cost, campaign, 0, **inputs, model=seg)
    drawn, drawn_cost = FCN8s(classes_of(inputs["pool"]), 0.03), FCN8s(1, 0.03)
    drawn.initialise(seeded(settings, "train-seg"))
    drawn_cost.initialise(seeded(settings, "train-cost"))
    assert_close(load_model(settings, classes_of(inputs["pool"]), seg), drawn.state_dict())
    drawn_cost.copy_all_but_scores(drawn)
    assert_close(load_model(settings, 1, cost), drawn_cost.state_dict())


def test_any_cost_network_starts_from_the_segmentation(tmp_path: Path) -> None:
    campaign = campaign_with(tmp_path, name=DEEPLAB)
    inputs, settings = started(campaign), campaign.settings
    seg = product_of(train_seg, campaign, 0, **inputs)
    cost = product_of(train_cost, campaign, 0, **inputs, model=seg)
    drawn, drawn_cost = TorchvisionNetwork(DEEPLAB, classes_of(inputs["pool"])), TorchvisionNetwork(DEEPLAB, 1)
    drawn.initialise(seeded(settings, "train-seg"))
    drawn_cost.initialise(seeded(settings, "train-cost"))
    assert_close(load_model(settings, classes_of(inputs["pool"]), seg), dict(drawn.named_parameters()))
    drawn_cost.copy_all_but_scores(drawn)
    assert_close(load_model(settings, 1, cost), dict(drawn_cost.named_parameters()))


def test_pretrained_weights_reach_both_networks_of_fcn8s(tmp_path: Path) -> None:
    campaign = campaign_with(tmp_path, width=0.03)
    inputs, settings = started(campaign), campaign.settings
    source = FCN8s(1, 0.03)
    source.initialise(torch.Generator().manual_seed(1))
    given = {name: value for name, value in source.state_dict().items() if "score" not in name}
    start = Product(tmp_path, "digest", "fingerprint", "pretrained", elapsed_s=0, total_bytes=0)
    saved(given, start / WEIGHTS)
    seg = product_of(train_seg, campaign, 0, **inputs, pretrained=start)
    cost = product_of(train_cost, campaign, 0, **inputs, model=seg)
    assert_close(load_model(settings, classes_of(inputs["pool"]), seg), given)
    assert_close(load_model(settings, 1, cost), given)


def test_pretrained_statistics_survive_training(tmp_path: Path) -> None:
    weights = models.mobilenet_v3_large(weights=None).state_dict()
    weights |= {name: value + 0.5 for name, value in weights.items() if "running" in name}
    campaign = campaign_with(tmp_path, name=LRASPP, weights=saved(weights, tmp_path / "file.pth"))
    start, inputs = product_of(pretrained, campaign, SEED_ROUND), started(campaign)
    seg = product_of(train_seg, campaign, 0, **inputs, pretrained=start)
    assert_close(
        load_model(campaign.settings, classes_of(inputs["pool"]), seg), torch.load(start / WEIGHTS, weights_only=True)
    )


def test_a_training_stopped_after_its_first_epoch_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network that has statistics beside its weights, saved as they are and frozen as they were given."""
    epochs_run: list[int] = []

    class Counting(Trainer):
        def run_epoch(self, samples: Sequence[Sample], in_order: InOrder | None = None) -> Epoch:
            epochs_run.append(len(self.history))
            return super().run_epoch(samples, in_order)

    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setattr(training, "Trainer", Counting)
    weights = models.mobilenet_v3_large(weights=None).state_dict()
    model = {"name": LRASPP, "weights": saved(weights, tmp_path / "file.pth")}
    ends = []
    for name in ("undisturbed", "stopped"):
        campaign = campaign_with(tmp_path / name, {"learning_rate": 1e-3, "max_steps": 4}, **model)
        inputs = {"pretrained": product_of(pretrained, campaign, SEED_ROUND), **started(campaign)}
        if name == "stopped":
            monkeypatch.setattr(progress, "_stop", threading.Event())
            request_stop()
            with pytest.raises(Interrupted):
                product_of(train_seg, campaign, 0, **inputs)
            monkeypatch.setattr(progress, "_stop", threading.Event())
        ends.append(torch.load(product_of(train_seg, campaign, 0, **inputs) / WEIGHTS, weights_only=True))
    assert epochs_run == [0, 1, 0, 1]
    torch.testing.assert_close(*ends, rtol=0, atol=0)


def test_a_training_in_batches_counts_steps_of_the_optimiser(tmp_path: Path) -> None:
    """Two images in batches of two are one step an epoch, so three steps are three epochs."""
    campaign = campaign_with(tmp_path, {"batch_images": 2, "max_steps": 3}, width=0.03)
    facts = product_of(train_seg, campaign, 0, **started(campaign)).facts
    assert (facts["images"], facts["epochs"], facts["steps"], facts["units"]) == (2, 3, 3, 3)


class Foreign:
    """A trainer whose state is none of ours."""

    def state(self) -> Any:
        return {"model": {"other": torch.zeros(3)}, "history": [(0, 1, 2.0)]}


def test_a_checkpoint_of_another_training_is_told_and_goes(tmp_path: Path) -> None:
    campaign = campaign_with(tmp_path)
    pool = product_of(check_pool, campaign, SEED_ROUND)
    ledger = product_of(seed_set, campaign, SEED_ROUND, pool=pool)
    checkpoint = campaign.stage("train-seg", 0) / training.CHECKPOINT
    checkpoint.parent.mkdir(parents=True)
    training._save_checkpoint(Foreign(), checkpoint)  # type: ignore[arg-type]
    with pytest.raises(ProductError, match=r"checkpoint\.pt: of another training \(.*\), and removed; run again"):
        product_of(train_seg, campaign, 0, pool=pool, ledger=ledger)
    assert product_of(train_seg, campaign, 0, pool=pool, ledger=ledger).facts["epochs"] == 1
