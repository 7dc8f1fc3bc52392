"""What is typed and cannot be: one line, at once, and never a traceback."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import torch
from command_line import CEREALS, campaign_file
from small_campaign import toml_of

from cereals_core.settings import CampaignSettings
from deployments.cli import main
from tasks.store.history import finished_rounds
from tasks.store.layout import Campaign
from tasks.store.products import find_product
from tasks.training import load_model

Said = Callable[..., str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Type a command that fails; what it says."""

    def type_(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["cereals", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert ended.value.code == 1, out + err
        assert (out, err.count("cereals: "), "Traceback" in err) == ("", 1, False)
        return err

    return type_


@pytest.fixture
def campaign(finished: CampaignSettings, tmp_path: Path) -> Campaign:
    """A copy of a finished campaign, with `small.toml` beside it."""
    folder = copytree(finished.path, tmp_path / "campaign")
    settings = finished.model_copy(update={"folder": str(folder)})
    (tmp_path / "small.toml").write_text(toml_of(settings))
    return Campaign(folder, settings)


COMMANDS = ["run", "plan", "status", "report", "gc", "study"]


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_are_none(command: str, said: Said, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name in ("", "nowhere", "loop", "x" * 300):
        assert len(said(command, tmp_path / name)) < 1500


@pytest.mark.parametrize("command", ["status", "report", "gc"])
def test_what_was_never_started(command: str, said: Said, tmp_path: Path) -> None:
    assert "no campaign was started there; `cereals run" in said(command, campaign_file(tmp_path))


def test_replays_that_cannot_be(said: Said, campaign: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    assert "--to /nope/x: there is no folder /nope; name a file" in said("replay", file, 0, "--to", "/nope/x")
    assert f"--to {tmp_path}: is a folder; name a file" in said("replay", file, 0, "--to", tmp_path)
    assert "round 2 has not asked; rounds 0 to 1 have" in said("replay", file, 2)
    assert "round 99 has not asked" in said("replay", file, 99)
    rmtree(campaign.folder / "rounds")
    assert "round 0 has not asked; none has yet" in said("replay", file, 0)


def test_addresses_and_folders_that_cannot_be(said: Said, tmp_path: Path) -> None:
    assert "nonsense: no address of a Dask scheduler, such as tcp://" in said("worker", "nonsense")
    (tmp_path / "file").touch()
    assert "file: a file; remove it or name another folder" in said("data", "synth", tmp_path / "file")
    assert "Not a directory" in said("data", "synth", tmp_path / "file" / "below", "--images", 1)


def test_folders_among_the_rounds_that_are_none(campaign: Campaign) -> None:
    for name in ("²", "x", "-1", "٣"):
        (campaign.folder / "rounds" / name).mkdir()
    assert campaign.rounds() == [0, 1, 2]
    assert finished_rounds(campaign) == [0, 1]


def test_settings_that_are_a_folder(said: Said, campaign: Campaign, tmp_path: Path) -> None:
    campaign.settings_file.unlink()
    campaign.settings_file.mkdir()
    assert "settings.json: Is a directory; restore it, or remove it" in said("run", tmp_path / "small.toml")


@pytest.mark.parametrize(
    "weights",
    [b"", b"none", {"other": torch.zeros(3)}, [1, 2], torch.zeros(2)],
    ids=["empty", "no file", "other", "list", "tensor"],
)
def test_weights_of_something_else(weights: object, campaign: Campaign) -> None:
    product = find_product(campaign.stage("train-seg", 0))
    assert product is not None
    if isinstance(weights, bytes):
        (product / "weights.pt").write_bytes(weights)
    else:
        torch.save(weights, product / "weights.pt")
    with pytest.raises(RuntimeError, match=r"weights\.pt: no weights of this network \(.*\); remove .* and run again"):
        load_model(campaign.settings, 9, product)


def without_override() -> None:
    """Have root heed the rights of others' files from the next program on."""
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files that it may not read")
@pytest.mark.parametrize("command", ["status", "run", "gc", "report"])
def test_folders_without_rights(command: str, campaign: Campaign, tmp_path: Path) -> None:
    try:
        subprocess.run(["true"], preexec_fn=without_override, check=True)
        os.chown(campaign.folder, 12345, 12345)
    except (subprocess.SubprocessError, PermissionError):
        pytest.skip("this root may not give up its rights, or files")
    campaign.folder.chmod(0o700)
    done = subprocess.run(
        [CEREALS, command, tmp_path / "small.toml"],
        preexec_fn=without_override,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert "Permission denied; look at the path, the disk and its permissions" in done.stderr
    assert (done.stderr.count("cereals: "), "Traceback" in done.stderr) == (1, False)
