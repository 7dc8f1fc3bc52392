"""Campaigns that are killed, damaged and run again: the same ledger, and nothing damaged is believed."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from errno import EIO, ENOSPC
from functools import wraps
from pathlib import Path
from shutil import copytree, rmtree

import pytest
from chaos_compare import differences
from chaos_driver import driving
from chaos_process import Fuse
from checkout import ROOT
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import PREFECT_API_URL
from small_campaign import small_settings

from cereals_core.errors import DataError
from cereals_core.settings import CampaignSettings
from cereals_core.training import Epoch, InOrder, Sample, Trainer
from flows.campaign import run_campaign
from tasks import training
from tasks.pool import check_pool
from tasks.running.stage import Body
from tasks.running.work import Work
from tasks.store.history import has_ended, ledger_before, product_of
from tasks.store.layout import WEIGHTS, Campaign
from tasks.store.products import Product
from tasks.telling import orphans, progress
from tasks.telling.orphans import FLOW_RUNS, crash_orphans
from tasks.telling.progress import Interrupted, request_stop
from tasks.training import CHECKPOINT, train_seg

pytestmark = pytest.mark.usefixtures("prefect_server")

KILLS = {
    "train-seg": Fuse(r"rename .*/\.train-seg\.\w+/\.checkpoint\.pt\.", 3),
    "info-map": Fuse(r"rename .*/\.info-map\.\w+/maps\.zarr/60x100/c/2/", 1),
    "nms": Fuse(r"rename rounds/001/\.nms\.\w+$", 1),
}
"""Before the third checkpoint of a training, before the last shard of a map, and in the commit of a later round."""


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def ledgers(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("ledger.parquet"))}


def committed(folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Manifests of the finished products, and when they were written."""
    files = [file.relative_to(folder) for file in folder.rglob("manifest.json")]
    whole = [file for file in files if not any(part.startswith(".") for part in file.parts)]
    return {file: ((folder / file).read_bytes(), (folder / file).stat().st_mtime_ns) for file in whole}


def test_killed_and_run_again_the_ledger_is_the_same(
    finished: CampaignSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The same campaign is killed three times, for real and without a word; what was finished is not made again."""
    small = small_settings(tmp_path_factory.mktemp("killed") / "campaign").model_copy(update={"name": "killed"})
    before: dict[Path, tuple[bytes, int]] = {}
    with driving(small, {"PREFECT_API_URL": PREFECT_API_URL.value() or ""}) as attempt:
        for stage, fuse in KILLS.items():
            outcome = attempt(fuse)
            assert outcome.killed, outcome.trace
            assert f"/.{stage}." in outcome.last
            assert any(small.path.glob(f"rounds/*/.{stage}.*"))
            now = committed(small.path)
            assert now.items() >= before.items()
            before = now
        assert attempt().returned == "all 2 rounds of queries are done"
    assert committed(small.path).items() >= before.items()
    assert ledgers(small.path) == ledgers(finished.path)
    assert sorted(states_of("killed")) == ["COMPLETED", "CRASHED", "CRASHED", "CRASHED"]
    assert {"CRASHED", "COMPLETED"} == set(states_of("killed round 0") + states_of("killed round 1"))


def states_of(flow_run_name: str) -> list[str]:
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[flow_run_name])))
    return [run.state_type.value for run in runs if run.state_type is not None]


def test_what_is_damaged_or_lost_in_finished_rounds_is_made_again(finished: CampaignSettings, tmp_path: Path) -> None:
    settings = small_settings(copytree(finished.path, tmp_path / "campaign"))
    (settings.path / "ledger.parquet").unlink()
    flip_a_bit(settings.path / "rounds/000/evaluate/metrics.parquet")
    rmtree(settings.path / "rounds/000/evaluate-cost")
    rmtree(settings.path / "rounds/000/region-fusion")
    run_campaign(settings)
    assert differences(finished.path, settings.path) == []


def test_a_campaign_whose_answers_are_damaged_has_not_ended(finished: CampaignSettings, tmp_path: Path) -> None:
    campaign = Campaign(copytree(finished.path, tmp_path / "campaign"), finished)
    assert has_ended(campaign)
    rmtree(campaign.round(2))
    flip_a_bit(campaign.stage("oracle-query", 1) / "answers.parquet")
    assert not has_ended(campaign)


def test_damaged_settings_are_refused_with_the_remedy(finished: CampaignSettings, tmp_path: Path) -> None:
    settings = small_settings(copytree(finished.path, tmp_path / "campaign"))
    file = Campaign(settings.path, settings).settings_file
    whole = file.read_text()
    for damaged in (whole.replace('"seed": 7', '"seed": 6'), whole.replace('"window_px": 24', '"window_px": 25'), ""):
        assert damaged != whole
        file.write_text(damaged)
        with pytest.raises(ValueError, match=rf"(?s){file}.* remove it: what was made"):
            run_campaign.fn(settings)


def test_a_checkpoint_with_one_wrong_bit_is_not_believed(
    finished: CampaignSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch would load it without a word."""
    epochs_run: list[int] = []

    class Counting(Trainer):
        def run_epoch(self, samples: Sequence[Sample], in_order: InOrder | None = None) -> Epoch:
            epochs_run.append(len(self.history))
            return super().run_epoch(samples, in_order)

    def train() -> None:
        train_seg.body(Work("train-seg", campaign, 0, tmp_path, {}), pool=pool, ledger=ledger_before(campaign, 0))

    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", -1.0)
    monkeypatch.setattr(training, "Trainer", Counting)
    campaign = Campaign(finished.path, finished)
    pool = product_of(campaign, "pool", None)
    with monkeypatch.context() as stopping:
        stopping.setattr(progress, "_stop", threading.Event())
        request_stop()
        with pytest.raises(Interrupted):
            train()
    flip_a_bit(tmp_path / CHECKPOINT)
    train()
    assert epochs_run == [0, 0, 1, 2, 3, 4, 5]
    assert (tmp_path / WEIGHTS).read_bytes() == (campaign.stage("train-seg", 0) / WEIGHTS).read_bytes()


def failing(body: Body, errors: list[Exception]) -> Body:
    """A body that first raises these errors, one at each call."""

    @wraps(body)
    def flaky(work: Work, **inputs: Product | None) -> None:
        if errors:
            raise errors.pop(0)
        body(work, **inputs)

    return flaky


@pytest.mark.parametrize(
    ("errors", "left"),
    [
        ([OSError(EIO, "Input/output error"), RuntimeError("CUDA error")], None),
        ([OSError(EIO, "Input/output error")] * 4, 1),
        ([DataError("broken; replace it"), EOFError()], 1),
        ([OSError(ENOSPC, "No space left on device"), EOFError()], 1),
    ],
    ids=["passes", "stays", "told", "full"],
)
def test_a_stage_is_tried_again_where_that_may_help(
    small: CampaignSettings, monkeypatch: pytest.MonkeyPatch, errors: list[Exception], left: int | None
) -> None:
    monkeypatch.setattr(check_pool, "body", failing(check_pool.body, errors))
    monkeypatch.setattr(check_pool.task, "retry_delay_seconds", 0)
    check = flow(lambda: check_pool(Campaign(small.path, small)).facts["images"], name="check")
    if left is None:
        assert check() == 10
    else:
        with pytest.raises(type(errors[0])):
            check()
        assert len(errors) == left


@pytest.mark.parametrize("record", ["", "[1]", '["3f0c9b1e-0000-4000-8000-000000000000"]'])
def test_runs_that_nobody_knows_are_no_reason_to_stop(small: CampaignSettings, record: str) -> None:
    small.path.mkdir(parents=True)
    (small.path / FLOW_RUNS).write_text(record)
    flow(lambda: crash_orphans(Campaign(small.path, small)), name="nobody")()
    assert len(json.loads((small.path / FLOW_RUNS).read_text())) == 1


def test_runs_are_remembered_until_a_server_answers(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(**options: object) -> None:
        raise ConnectionError("away")

    campaign = Campaign(small.path, small)
    small.path.mkdir(parents=True)
    note = flow(lambda: crash_orphans(campaign), name="away")
    note()
    with monkeypatch.context() as without:
        without.setattr(orphans, "get_client", away)
        note()
    assert len(json.loads((small.path / FLOW_RUNS).read_text())) == 2
    note()
    assert len(json.loads((small.path / FLOW_RUNS).read_text())) == 1


@pytest.mark.system
def test_random_kills_damage_and_broken_disks(tmp_path: Path, prefect_server: None) -> None:
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value() or "", "PYTHONPATH": str(ROOT)}
    command = [
        sys.executable,
        "tests/helpers/chaos.py",
        "--kills",
        "15",
        "--seed",
        "1",
        "--folder",
        str(tmp_path / "chaos"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "15 kills survived, everything equal"
