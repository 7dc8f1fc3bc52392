import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from cereals_core.errors import ResourcesError
from cereals_core.models.build import build_network
from cereals_core.models.footprint import outline, parameter_bytes, prediction_bytes, training_bytes
from cereals_core.network_settings import Model
from cereals_core.settings import CampaignSettings
from cereals_core.workload import Size, Workload
from tasks.forecast import needs as needs_module
from tasks.forecast.needs import Room, StageNeed, needs_of, refuse_unaffordable, shortages
from tasks.running import images, takes
from tasks.store.history import product_of, products_made
from tasks.store.layout import Campaign
from tasks.training import train_seg

SIZES = [(60, 100)] * 10
PLENTY = 1 << 50


def load_of(settings: CampaignSettings, sizes: Sequence[Size] = SIZES) -> Workload:
    return Workload(settings, sizes, eval_images=3, classes=5)


def named(settings: CampaignSettings, finished: int = 0) -> dict[str, StageNeed]:
    return {need.stage.name: need for need in needs_of(load_of(settings), finished)}


def test_the_disk_of_ten_small_images_in_two_rounds(small: CampaignSettings) -> None:
    needs = named(small)
    assert needs["info-map"].disk_bytes == needs["cost-map"].disk_bytes == 2 * 10 * (8 * 13) * 2
    weights = parameter_bytes(outline(partial(build_network, small.model, 5)))
    assert needs["train-seg"].disk_bytes == 3 * weights
    assert needs["train-seg"].passing_bytes == 2 * 4 * weights


def test_rounds_that_are_finished_take_nothing_more(small: CampaignSettings) -> None:
    assert set(named(small, finished=2)) == {"train-seg", "evaluate", "report"}


def test_what_a_real_campaign_left_is_within_the_projection(finished: CampaignSettings) -> None:
    campaign, needs = Campaign(finished.path, finished), named(finished)
    for name, need in needs.items():
        made = [product for number, product in products_made(campaign) if number in (0, 1) and product.stage == name]
        left = sum(file.stat().st_size for each in made for file in each.folder.rglob("*") if _is_content(file))
        assert left <= need.disk_bytes + 60_000, name  # heads of files


def _is_content(file: Path) -> bool:
    return file.is_file() and file.suffix not in (".json", ".md", ".png")


def test_memory_grows_with_the_image_and_training_takes_most() -> None:
    network = outline(partial(build_network, Model(width=0.125), 5))
    small, large = (training_bytes(network, 128 * scale, 256 * scale) for scale in (1, 2))
    assert parameter_bytes(network) == sum(4 * parameter.numel() for parameter in network.parameters())
    assert 1.3 < large / small < 4.2
    assert large > prediction_bytes(network, 256, 512) > parameter_bytes(network)


def test_batches_take_the_memory_of_the_images_that_a_round_can_have(small: CampaignSettings) -> None:
    def needed(batch_images: int) -> int:
        training = small.training.model_copy(update={"batch_images": batch_images})
        return named(small.model_copy(update={"training": training}))["train-seg"].memory_bytes

    few = small.model_copy(update={"stop": small.stop.model_copy(update={"rounds": 0})})
    assert load_of(few).labelled_images(0) == 2
    one, two, ten, hundred = (needed(count) for count in (1, 2, 10, 100))
    assert one < two < ten
    assert ten == pytest.approx(hundred, rel=1e-3)


def test_images_that_are_kept_are_projected_as_they_are_kept(
    small: CampaignSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def needed(there: float) -> int:
        monkeypatch.setattr(images, "available_bytes", lambda: there)
        needs = needs_of(load_of(small, [(600, 1000)] * 10))
        return next(need for need in needs if need.stage is train_seg).memory_bytes

    monkeypatch.setattr(takes, "IMAGES_READ", 0)
    monkeypatch.setattr(needs_module, "resident_bytes", lambda: 0)
    ten_images = 10 * 3 * 600 * 1000
    half, all_of_them, more = (needed(share * ten_images / images.KEPT_SHARE) for share in (0.5, 1, 100))
    assert more == all_of_them >= half + ten_images / 2


@pytest.mark.parametrize(
    ("room", "said"),
    [
        (
            Room(1 << 20, None, None),
            r"^train-\w+ needs .* of memory, and there are 1\.0 MB; lower model\.width = 0\.03",
        ),
        (Room(None, None, 1000), r"^the rounds to come need .* of disk, .*1\.0 kB are free; lower stop\.rounds = 2"),
    ],
)
def test_what_does_not_fit_is_told_with_the_worst_stage_and_the_remedy(
    small: CampaignSettings, room: Room, said: str
) -> None:
    needs = needs_of(load_of(small))
    assert list(shortages(small, needs, Room(PLENTY, PLENTY, PLENTY))) == []
    (told,) = shortages(small, needs, room)
    with pytest.raises(ValueError, match=said):
        raise ValueError(told)


def test_a_campaign_that_does_not_fit_is_refused(finished: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = Campaign(finished.path, finished)
    pool = product_of(campaign, "pool", None)
    refuse_unaffordable(campaign, pool)
    monkeypatch.setattr(needs_module, "available_bytes", lambda: 1 << 20)
    monkeypatch.setattr(needs_module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(ResourcesError, match="2 projected needs beyond what there is"):
        refuse_unaffordable(campaign, pool)


STEPS = """
import sys, numpy as np, torch
from cereals_core.models.build import build_network
from cereals_core.network_settings import Model, Training
from cereals_core.training import Trainer, segmentation_loss
from tasks.running.memory import peak_bytes, reset_peak

def steps(height, width, images):
    network = build_network(Model(width=0.125), 19)
    network.initialise(torch.Generator().manual_seed(0))
    trainer = Trainer(network, segmentation_loss, Training(batch_images=images), 0.5, np.random.default_rng)
    image, target = np.zeros((height, width, 3), np.uint8), np.zeros((height // 8, width // 8), np.uint8)
    trainer.run_epoch([(image, target)] * 2 * images)

torch.set_num_threads(1)
steps(64, 64, 1)  # the libraries themselves take some 100 MB
reset_peak()
before = peak_bytes()
steps(*map(int, sys.argv[1:]))
print(peak_bytes() - before)
"""


@pytest.mark.parametrize("step", [(512, 1024, 1), pytest.param((192, 384, 4), marks=pytest.mark.system)])
def test_the_peak_of_a_training_step_is_about_what_was_projected(step: tuple[int, int, int]) -> None:
    """In a process of its own, where no memory that was freed before is taken again."""
    command = [sys.executable, "-c", STEPS, *map(str, step)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    projected = training_bytes(outline(partial(build_network, Model(width=0.125), 19)), *step)
    assert 0.8 < projected / int(done.stdout) < 1.5
