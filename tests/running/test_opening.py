import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkout import ROOT
from small_campaign import small_settings

from cereals_core.errors import CerealsError, LockedError, SettingsError
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings
from tasks.running.lock import holder_of
from tasks.running.opening import open_campaign, writing
from tasks.store.layout import Campaign


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
        assert holder_of(campaign.lock_file) == f"{os.getpid()} on {socket.gethostname()}"
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
from tasks.running.opening import open_campaign, writing
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
        assert holder_of(campaign.lock_file) == f"{os.getpid()} on {socket.gethostname()}"
    assert json.loads(campaign.settings_file.read_text())["stop"]["rounds"] == 9
