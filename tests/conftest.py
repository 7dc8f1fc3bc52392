"""Calls held to their shapes, one Prefect server for all tests, and a small campaign to run on it."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent
if "bench" not in sys.argv:  # what is measured runs as it does outside the tests, unchecked
    files = (ROOT / "cereals_core").rglob("*.py")
    names = (file.relative_to(ROOT).with_suffix("") for file in files if "core.shapes import" in file.read_text())
    checker = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"  # an int will do for a float
    install_import_hook([".".join(name.parts) for name in names], checker)

from deployments.environment import prepare_environment  # noqa: E402  (after the hook)

prepare_environment()

from checkout import SHARED_DATA  # noqa: E402
from prefect.flow_engine import FlowRunEngine  # noqa: E402  (the environment comes first)
from prefect.testing.utilities import prefect_test_harness  # noqa: E402
from small_campaign import small_settings  # noqa: E402

from cereals_core.settings import CampaignSettings  # noqa: E402
from tasks import reporting  # noqa: E402

# Much of a small campaign's time would go into these two; one campaign, `finished`, does draw a region.
reporting.REGIONS_SHOWN = 0
FlowRunEngine.heartbeat_seconds = None  # a flow waits up to a second for its heartbeat to end


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A temporary Prefect server that flows of this process use."""
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Networks on one thread, as campaigns' ledgers agree at equal counts only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> CampaignSettings:
    """A campaign that ran undisturbed; tests must not change it."""
    from flows.campaign import run_campaign

    settings = small_settings(tmp_path_factory.mktemp("finished") / "campaign")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reporting, "REGIONS_SHOWN", 1)
        assert run_campaign(settings) == "all 2 rounds of queries are done"
    return settings


@pytest.fixture
def small(tmp_path: Path) -> CampaignSettings:
    """A campaign on synthetic streets that takes some seconds."""
    return small_settings(tmp_path / "campaign")


def pytest_report_header() -> str:
    """Say whether the tests on real images can run."""
    there = "there" if SHARED_DATA.is_dir() else "missing, tests on real images are skipped"
    return f"real images: {os.path.relpath(SHARED_DATA)} {there}"
