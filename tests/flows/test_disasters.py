"""Disks that fill up and servers that go away, for real."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chaos_compare import differences
from chaos_driver import driving
from chaos_process import Fuse
from checkout import ROOT
from prefect.settings import PREFECT_API_URL
from small_campaign import small_settings

from cereals_core.settings import CampaignSettings
from flows.campaign import run_campaign

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("prefect_server")]

IN_ROUND_0 = "rounds/000/train-seg/manifest.json"
CAMPAIGN = """
name = "small"
seed = 7
folder = "{folder}"
data = {{ format = "synthetic", pool_images = 10, eval_images = 3, height = 60, width = 100 }}
model = {{ width = 0.03 }}
training = {{ learning_rate = 1e-3, max_steps = 12 }}
acquisition = {{ seed_images = 2, images_per_round = 1, window_px = 24, information = "entropy" }}
stop = {{ rounds = 2 }}
compute = {{ threads = 1, shard_images = 4 }}
"""
"""`small_settings` as a file."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount") or _mount(folder, "size=300k") != 0:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(folder: Path, options: str) -> int:
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_a_full_disk_is_told_and_with_more_space_the_campaign_goes_on(disk: Path, finished: CampaignSettings) -> None:
    """The space grows bit by bit, so that it runs out in trainings, maps, tables and reports."""
    settings, told = small_settings(disk / "campaign"), set()
    with driving(settings, {"PREFECT_API_URL": PREFECT_API_URL.value() or ""}) as attempt:
        for kilobytes in range(300, 20_000, 700):
            assert _mount(disk, f"remount,size={kilobytes}k") == 0
            outcome = attempt()
            if outcome.returned is not None:
                break
            assert outcome.is_ours, outcome.trace
            assert "the disk is full; free some space" in (outcome.error or "")
            assert str(settings.path) in (outcome.error or "")
            told.add(outcome.last.split("/")[-1])
    assert outcome.returned == "all 2 rounds of queries are done"
    assert len(told) > 2
    assert differences(finished.path, settings.path, reports=False) == []


class Server:
    """A Prefect server of its own, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        home.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.home, self.url = home, f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        arguments = ["-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "PREFECT_HOME": str(self.home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        environment.pop("PREFECT_API_URL", None)
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], env=environment, stdout=log, stderr=log, start_new_session=True
            )
        until = time.monotonic() + 120
        while not self._answers():
            assert time.monotonic() < until, (self.home / "server.log").read_text()
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """End it, and what it started, without a word."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def served(home: Path) -> Iterator[Server]:
    """A running server."""
    server = Server(home)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def wait_for(file: Path) -> None:
    """Wait until a file is there."""
    until = time.monotonic() + 120
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_server_that_is_away_for_a_while_costs_time_only(tmp_path: Path, finished: CampaignSettings) -> None:
    settings = small_settings(tmp_path / "campaign")
    with served(tmp_path / "home") as server, driving(settings, {"PREFECT_API_URL": server.url}) as attempt:
        attempt.start(Fuse())
        wait_for(settings.path / IN_ROUND_0)
        server.kill()
        time.sleep(10)
        server.start()
        outcome = attempt.outcome()
        assert outcome.returned == "all 2 rounds of queries are done", outcome.trace
    assert differences(finished.path, settings.path, reports=False) == []


def test_a_server_that_is_gone_is_named_and_the_campaign_goes_on_with_another(
    tmp_path: Path, finished: CampaignSettings
) -> None:
    settings, file = small_settings(tmp_path / "campaign"), tmp_path / "small.toml"
    file.write_text(CAMPAIGN.format(folder=settings.path))
    command = [sys.executable, "-c", "from deployments.cli import main; main()", "run", str(file)]
    with served(tmp_path / "home") as server:
        environment = {"PREFECT_API_URL": server.url, "PREFECT_CLIENT_MAX_RETRIES": "1", "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as run:
            wait_for(settings.path / IN_ROUND_0)
            server.kill()
            _, said = run.communicate(timeout=300)
    assert run.returncode == 1
    assert f"\ncereals: Prefect server {server.url}: no answer" in said, said
    assert "Traceback" not in said
    assert run_campaign(settings) == "all 2 rounds of queries are done"
    assert differences(finished.path, settings.path, reports=False) == []
