import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import small_settings

from cereals_core.errors import ResourcesError
from cereals_core.models.build import network_outline
from cereals_core.models.memory import footprint
from cereals_core.settings import CampaignSettings, Model
from tasks import projection
from tasks.history import product_of
from tasks.layout import Campaign
from tasks.projection import project, refuse_unaffordable, rounds_to_come

SIZES = Counter({(60, 100): 10})


def needs_of(settings: CampaignSettings) -> dict[str, projection.StageNeed]:
    return {need.stage: need for need in project(settings, SIZES, classes=5)}


def test_the_disk_of_ten_small_images(small: CampaignSettings) -> None:
    needs = needs_of(small)
    assert needs["info-map"].disk_bytes == needs["cost-map"].disk_bytes == 10 * (8 * 13) * 4
    assert needs["region-fusion"].disk_bytes == 10 * (5 * 10) * 4  # 7 x 12 whole cells, windows of 3 x 3
    assert needs["oracle-query"].disk_bytes == 60 * 100  # one image's worth of pixels a round


def test_a_query_of_whole_images_has_one_candidate_an_image(tmp_path: Path) -> None:
    settings = small_settings(tmp_path, strategy="entropy-images", information="entropy")
    assert needs_of(settings)["region-fusion"].disk_bytes == 10 * 4


def test_what_a_real_campaign_left_is_within_the_projection(finished: CampaignSettings) -> None:
    campaign, needs = Campaign(finished.path, finished), needs_of(finished)
    for name in ("train-seg", "train-cost", "info-map", "cost-map", "region-fusion", "nms"):
        left = product_of(campaign, name, 0)
        content = left.total_bytes - sum(path.stat().st_size for path in left.folder.rglob("zarr.json"))
        assert content <= needs[name].disk_bytes + 20_000, name  # heads of files, history of trainings


def test_a_step_keeps_more_for_a_larger_image_and_weights_do_not_change() -> None:
    outline = network_outline(Model(width=0.125), outputs=5)
    small, large = footprint(outline, 128, 256), footprint(outline, 256, 512)
    assert small.weights == large.weights == sum(parameter.numel() * 4 for parameter in outline.parameters())
    assert 3 < large.kept / small.kept < 5
    assert large.training > large.prediction > large.weights


@pytest.fixture
def pool(finished: CampaignSettings) -> SimpleNamespace:
    campaign = Campaign(finished.path, finished)
    return SimpleNamespace(campaign=campaign, product=product_of(campaign, "pool", None))


def test_a_machine_with_too_little_memory_is_refused(pool: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unaffordable(pool.campaign, pool.product)
    monkeypatch.setattr(projection, "available_memory", lambda: 1 << 20)
    with pytest.raises(ResourcesError, match=r"memory: .* takes about .* 1\.0 MB are there; lower model\.width"):
        refuse_unaffordable(pool.campaign, pool.product)


def test_a_full_disk_is_refused_unless_nothing_is_to_come(
    pool: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection.psutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    assert rounds_to_come(pool.campaign) == 0
    refuse_unaffordable(pool.campaign, pool.product)
    more = pool.campaign.settings.model_copy(
        update={"stop": pool.campaign.settings.stop.model_copy(update={"rounds": 9})}
    )
    with pytest.raises(ResourcesError, match=r"disk: 6 rounds take up to .* 1\.0 kB are free.*cereals gc"):
        refuse_unaffordable(Campaign(pool.campaign.folder, more), pool.product)


STEPS = """
import numpy as np, torch
from cereals_core.models.build import build_network
from cereals_core.settings import Model, Training
from cereals_core.training import Trainer, segmentation_loss
from tasks.memory import peak_bytes, reset_peak

def steps(height, width):
    network = build_network(Model(width=0.125), 19)
    network.initialise(torch.Generator().manual_seed(0))
    trainer = Trainer(network, segmentation_loss, Training(max_steps=2), 0.5, np.random.default_rng)
    image, target = np.zeros((height, width, 3), np.uint8), np.zeros((height // 8, width // 8), np.uint8)
    trainer.run_epoch([(image, target)] * 2)

torch.set_num_threads(1)
steps(64, 64)  # the libraries themselves take some 100 MB
reset_peak()
before = peak_bytes()
steps(512, 1024)
print(peak_bytes() - before)
"""


def test_the_peak_of_a_training_step_is_about_what_was_projected() -> None:
    """In a process of its own, where no memory that was freed before is taken again."""
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    projected = footprint(network_outline(Model(width=0.125), outputs=19), 512, 1024)
    measured = int(done.stdout)
    assert 0.8 < projected.training / measured < 1.3
