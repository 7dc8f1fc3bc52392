"""The command line as a person meets it: mistakes, data checks, interrupting, going on, looking."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import CEREALS, campaign_file, cereals
from prefect.settings import PREFECT_API_URL


def test_all_mistakes_of_a_campaign_file_come_at_once(tmp_path: Path) -> None:
    file = campaign_file(tmp_path, information="guesswork")
    file.write_text(file.read_text().replace("seed_images = 2", "seed_images = 0\nwindow = 16"))
    result = cereals("run", file)
    assert result.returncode == 1
    assert "3 mistakes" in result.stderr
    assert "acquisition.seed_images = 0: Input should be greater than 0" in result.stderr
    assert "acquisition.window: no such key; allowed here: alpha, batch_images, " in result.stderr
    assert "acquisition.information = 'guesswork': Input should be 'entropy', 'vote_entropy', " in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_campaign_file_is_named() -> None:
    result = cereals("status", "nowhere.toml")
    assert (result.returncode, result.stdout) == (1, "")
    assert "nowhere.toml: no such campaign file" in result.stderr


def test_status_before_the_start_says_how_to_start(tmp_path: Path) -> None:
    result = cereals("status", campaign_file(tmp_path))
    assert result.returncode == 1
    assert "no campaign was started there; `cereals run" in result.stderr


def test_drawn_streets_are_checked_and_every_broken_file_is_named(tmp_path: Path) -> None:
    made = cereals("data", "synth", tmp_path / "city", "--images", 3, "--val-images", 1, "--height", 64, "--width", 96)
    assert made.returncode == 0, made.stderr
    file = campaign_file(tmp_path)
    head, tail = file.read_text().split('format = "synthetic"')
    tail = tail[tail.index("[model]") :]
    file.write_text(f'{head}format = "cityscapes"\nroot = "{tmp_path}/city"\n{tail}')
    assert "pool: 3 images, no problems" in cereals("data", "check", file).stdout

    first, second, _ = sorted(tmp_path.glob("city/leftImg8bit/train/*/*.png"))
    first.write_bytes(first.read_bytes()[:-100])
    mask = next(tmp_path.glob(f"city/gtFine/train/*/{second.name.removesuffix('_leftImg8bit.png')}*labelIds.png"))
    mask.unlink()
    result = cereals("data", "check", file)
    assert result.returncode == 1
    assert "2 problems" in result.stderr
    assert first.name in result.stderr
    assert mask.name in result.stderr


def test_interrupted_it_says_how_to_go_on_and_goes_on(tmp_path: Path, prefect_server: None) -> None:
    server = {"PREFECT_API_URL": PREFECT_API_URL.value() or ""}
    file = campaign_file(tmp_path, max_steps=400)
    process = subprocess.Popen(
        [CEREALS, "run", file], env={**os.environ, **server}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    waited_until = time.monotonic() + 200
    while not list(tmp_path.glob("streets/rounds/000/.train-*")) and time.monotonic() < waited_until:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 130, errors
    assert f"`cereals run {file}` goes on from here" in errors
    assert "Traceback" not in errors

    finished = cereals("run", file, **server)
    assert finished.returncode == 0, finished.stderr
    assert "streets: all 1 rounds of queries are done" in finished.stdout
    assert "seed-set" in finished.stderr
    assert "reused" in finished.stderr
    shown = cereals("status", file).stdout
    assert shown.strip() in finished.stdout
    assert "ended with round 1" in shown
    assert cereals("report", file).stdout.strip() == str(tmp_path / "streets" / "report.html")


def test_status_needs_no_heavy_library() -> None:
    code = (
        "import sys, deployments.status; print([m for m in ('torch', 'prefect', 'zarr', 'dask') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["data", "--help"]])
def test_help(arguments: list[str]) -> None:
    assert "Usage" in cereals(*arguments).stdout
