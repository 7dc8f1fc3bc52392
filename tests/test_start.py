import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import small_settings

from cereals_core.datasets.base import Truth
from cereals_core.errors import CerealsError, DataError, LockedError, SettingsError
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings
from tasks import start, tables
from tasks.layout import POOL, Campaign
from tasks.maps import Pool
from tasks.products import Product
from tasks.stage import Work
from tasks.start import check_pool, open_campaign, open_pool, refuse_impossible, writing

ROOT = Path(__file__).parents[1]


def changed(settings: CampaignSettings, section: str, **values: object) -> CampaignSettings:
    raw = settings.model_dump(mode="json")
    return parse_settings({**raw, section: {**raw[section], **values}}, "changed")


def started(settings: CampaignSettings) -> Campaign:
    campaign = open_campaign(settings)
    with writing(campaign):
        return campaign


def test_a_new_campaign_keeps_its_settings_and_names_its_writer(small: CampaignSettings) -> None:
    campaign = open_campaign(small)
    assert campaign.folder == small.path
    with writing(campaign):
        assert campaign.lock_file.read_text() == f"{os.getpid()} on {socket.gethostname()}"
        assert sorted(path.name for path in campaign.folder.iterdir()) == ["lock", "settings.json"]
    assert parse_settings(json.loads(campaign.settings_file.read_text()), "kept") == small
    assert open_campaign(small) == campaign


def test_a_campaign_without_a_folder_lies_in_the_working_directory(
    small: CampaignSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    campaign = open_campaign(small.model_copy(update={"folder": None}))
    assert campaign.folder == tmp_path / "campaigns" / "small"
    assert list(tmp_path.iterdir()) == []


def test_other_settings_are_refused_with_the_difference(small: CampaignSettings) -> None:
    campaign = started(small)
    before = campaign.settings_file.read_bytes()
    other = changed(changed(small, "acquisition", window_px=32), "training", max_steps=13)
    with pytest.raises(ValueError, match="was started with other settings; restore them, or give") as got:
        open_campaign(other)
    first, *differences = str(got.value).splitlines()
    assert first.startswith(f"{campaign.folder}: ")
    assert differences == ["  acquisition.window_px: 24 -> 32", "  training.max_steps: 12 -> 13"]
    assert isinstance(got.value, CerealsError)
    assert campaign.settings_file.read_bytes() == before
    assert open_campaign(small) == campaign


@pytest.mark.parametrize(
    ("section", "values"),
    [
        ("stop", {"rounds": 9, "clicks": 100.0, "target_miou": 0.5}),
        ("compute", {"threads": 2, "shard_images": 64, "device": "cpu"}),
    ],
)
def test_when_to_stop_and_how_to_compute_may_change(
    small: CampaignSettings, section: str, values: dict[str, Any]
) -> None:
    started(small)
    campaign = started(changed(small, section, **values))
    assert json.loads(campaign.settings_file.read_text())[section].items() >= values.items()


def test_the_data_may_move_and_their_split_may_not_change(tmp_path: Path) -> None:
    small = small_settings(tmp_path / "campaign")
    here = small.model_dump(mode="json") | {"data": {"format": "cityscapes", "root": "here"}}
    started(parse_settings(here, "here"))
    started(parse_settings({**here, "data": {"format": "cityscapes", "root": "there"}}, "there"))
    with pytest.raises(SettingsError, match=r"data\.pool_split: train -> test$"):
        open_campaign(parse_settings({**here, "data": {**here["data"], "pool_split": "test"}}, "other"))
    with pytest.raises(SettingsError, match=r"data\.format: cityscapes -> synthetic\n"):
        open_campaign(small)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "not valid JSON"),
        ('{"name": "small"', "not valid JSON"),
        ('{"name": "small"}', "data: missing"),
        ("[]", "dict"),
    ],
)
def test_damaged_settings_are_named(small: CampaignSettings, text: str, expected: str) -> None:
    campaign = started(small)
    campaign.settings_file.write_text(text)
    with pytest.raises(SettingsError, match=expected) as got:
        open_campaign(small)
    assert str(got.value).startswith(f"{campaign.settings_file}: ")


def test_a_campaign_is_written_once_at_a_time(small: CampaignSettings) -> None:
    campaign = open_campaign(small)
    with writing(campaign), pytest.raises(LockedError), writing(campaign):
        pass
    with pytest.raises(ZeroDivisionError), writing(campaign):
        raise ZeroDivisionError
    with writing(campaign):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from cereals_core.settings import CampaignSettings
from tasks.start import open_campaign, writing
with writing(open_campaign(CampaignSettings.model_validate_json(sys.argv[1]))):
    print("ready", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(small: CampaignSettings) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes the small campaign."""
    command = [sys.executable, "-c", HOLDER, small.model_dump_json()]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_and_changes_nothing_until_the_first_is_killed(
    small: CampaignSettings, holder: "subprocess.Popen[str]"
) -> None:
    campaign = open_campaign(changed(small, "stop", rounds=9))
    before = campaign.settings_file.read_bytes()
    refusal = f"process {holder.pid} on {socket.gethostname()} is running it; wait or stop that"
    with pytest.raises(BlockingIOError, match=refusal) as got, writing(campaign):
        pass
    assert isinstance(got.value, LockedError)
    assert str(got.value).startswith(f"{campaign.folder}: ")
    assert campaign.settings_file.read_bytes() == before
    holder.kill()
    assert holder.wait() == -signal.SIGKILL
    with writing(campaign):
        assert campaign.lock_file.read_text() == f"{os.getpid()} on {socket.gethostname()}"
    assert json.loads(campaign.settings_file.read_text())["stop"]["rounds"] == 9


class TwoSizes:
    """Three images of two sizes; the truth of "c" has `truth_width`, and "b" cannot be read if it is broken."""

    class_names = ("road", "car")
    image_ids = ("a", "b", "c")

    def __init__(self, broken: bool) -> None:
        self.broken = broken

    def image(self, image_id: str) -> np.ndarray:
        if self.broken and image_id == "b":
            raise DataError("b.png: not an image; replace it")
        return np.zeros((24, 40, 3) if image_id == "b" else (32, 40, 3), np.uint8)

    def truth(self, image_id: str) -> Truth:
        height, width = self.image(image_id).shape[:2]
        return Truth(
            np.zeros((height, width + (self.broken and image_id == "c")), np.uint8), np.zeros((0, 3), np.float32)
        )


def checked(campaign: Campaign, monkeypatch: pytest.MonkeyPatch, broken: bool) -> Work:
    monkeypatch.setattr(start, "open_truth", lambda data, split: TwoSizes(broken))
    work = Work(campaign, None, campaign.stage("pool", None), {})
    work.folder.mkdir(parents=True)
    check_pool.body(work)
    return work


def pool_of(work: Work) -> Pool:
    product = Product(work.folder, "digest", "fingerprint", "pool", elapsed_s=0, total_bytes=0)
    return open_pool(work.campaign, product)


def test_the_pool_lists_images_by_size(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    work = checked(open_campaign(small), monkeypatch, broken=False)
    assert tables.read_table(work.folder / POOL, tables.POOL).to_pydict() == {
        "image_id": ["a", "b", "c"],
        "height": [32, 24, 32],
        "width": [40, 40, 40],
        "group": ["32x40", "24x40", "32x40"],
        "row": [0, 0, 1],
    }
    assert work.facts == {"images": 3, "pixels": 3520, "eval_images": 3, "class_names": ["road", "car"]}
    assert json.loads(json.dumps(work.facts)) == work.facts
    pool = pool_of(work)
    assert pool.shard_images == small.compute.shard_images
    assert [[image.image_id for image in shard.images] for shard in pool.shards()] == [["a", "c"], ["b"]]


def test_all_problems_of_both_splits_are_listed(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError) as got:
        checked(open_campaign(small), monkeypatch, broken=True)
    first, *problems = str(got.value).splitlines()
    assert first == f"{len(problems)} problems in the data; correct them and run again"
    assert problems[: len(problems) // 2] == problems[len(problems) // 2 :]
    assert "b.png: not an image; replace it" in problems
    assert any(problem.startswith("c: image of 32 x 40 but truth of 32 x 41 px") for problem in problems)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed_images": 4}, r"acquisition\.seed_images = 4: the pool has 3 images; lower it to so many at most, or"),
        ({"window_px": 48}, r"acquisition\.window_px = 48: fits into no .* \(height x width 32x40, 24x40\); lower it"),
        ({"images_per_round": 0.4}, r"images_per_round = 0\.4 is a budget of 469 pixels a round, less than one query"),
    ],
)
def test_what_the_pool_cannot_serve_is_refused(
    small: CampaignSettings, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any], expected: str
) -> None:
    pool = pool_of(checked(open_campaign(small), monkeypatch, broken=False))
    refuse_impossible(small, pool)
    refuse_impossible(changed(small, "acquisition", seed_images=3, window_px=32), pool)
    with pytest.raises(ValueError, match=expected) as got:
        refuse_impossible(changed(small, "acquisition", **values), pool)
    assert isinstance(got.value, CerealsError)
