"""What a round costs beyond computing and writing its products, off by default: `make bench`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed import Nanny, SpecCluster
from prefect.flow_engine import FlowRunEngine

from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings
from flows.campaign import run_campaign
from tasks.stages import ROUND
from tasks.store.history import product_of
from tasks.store.layout import Campaign

IMAGES = 3000


def settings_of(folder: Path, cluster: str) -> CampaignSettings:
    return parse_settings(
        {
            "name": "overhead",
            "folder": str(folder),
            "data": {"format": "synthetic", "pool_images": IMAGES, "eval_images": 20, "height": 64, "width": 128},
            "model": {"width": 0.03},
            "training": {"max_steps": 100},
            "acquisition": {"seed_images": 20, "images_per_round": 20, "window_px": 32, "information": "entropy"},
            "stop": {"rounds": 1},
            "compute": {"threads": 1, "cluster": cluster},
        },
        "benchmark",
    )


@contextmanager
def somewhere(where: str) -> Iterator[str]:
    """`compute.cluster` for a campaign in this process, or on a worker of its own."""
    if where == "this process":
        yield "none"
        return
    options = {"nthreads": 1, "resources": {"CPU": 1}, "host": "127.0.0.1", "memory_limit": 0}
    with SpecCluster({"cpu": {"cls": Nanny, "options": options}}) as cluster:
        yield cluster.scheduler_address


@pytest.mark.bench
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("where", ["this process", "a Dask worker"])
def test_orchestration_of_a_round(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wall time of the flow from the start of round 0 to its end, against the sum of its stages."""
    monkeypatch.setattr(FlowRunEngine, "heartbeat_seconds", 30)  # the tests turn heartbeats off; users have them
    with somewhere(where) as cluster:
        settings = settings_of(tmp_path / "campaign", cluster)
        run_campaign(settings, rounds=0)
        started = time.monotonic()
        run_campaign(settings, rounds=1)
        elapsed_s = time.monotonic() - started
    campaign = Campaign(settings.path, settings)
    stages = {stage.name: product_of(campaign, stage.name, 0).elapsed_s for stage in ROUND}
    rest = elapsed_s - sum(stages.values())
    with capsys.disabled():
        print(f"\n{IMAGES} images, {where}: {elapsed_s:.1f} s, of which stages {sum(stages.values()):.1f} s")
        print(", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items()))
        print(f"orchestration: {rest:.1f} s a round, {rest / len(stages):.2f} s a stage")
    assert 0 < rest < 60
