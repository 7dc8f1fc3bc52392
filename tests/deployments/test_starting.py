"""What a start does without a server: a campaign that has ended is told, one that another runs is refused."""

from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from cereals_core.errors import LockedError
from cereals_core.settings import CampaignSettings
from deployments import starting
from deployments.starting import start_campaigns
from tasks.running.lock import locked
from tasks.store.layout import Campaign


class Attended(Exception):
    """Flows would run, on a server."""


@pytest.fixture
def copied(finished: CampaignSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CampaignSettings:
    """A campaign that has ended, to be changed; whatever runs flows raises Attended."""

    def attend(load: Callable[[], object], command: str) -> None:
        raise Attended

    monkeypatch.setattr(starting, "attend", attend)
    return finished.model_copy(update={"folder": str(copytree(finished.path, tmp_path / "campaign"))})


def test_a_campaign_that_has_ended_is_told_without_a_server(
    copied: CampaignSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    start_campaigns([copied, copied], "again")
    assert capsys.readouterr().out == f"{copied.name}: all 2 rounds of queries are done\n" * 2


@pytest.mark.parametrize(
    "change",
    [
        lambda campaign: rmtree(campaign.stage("train-seg", 1)),
        lambda campaign: [rmtree(campaign.stage("train-seg", number)) for number in campaign.rounds()],
        lambda campaign: rmtree(campaign.stage("report", 0)),
        lambda campaign: rmtree(campaign.stage("pool", None)),
        lambda campaign: campaign.ledger_file.unlink(),
        lambda campaign: rmtree(campaign.round(2)),
        lambda campaign: campaign.report_file.unlink(),
        lambda campaign: (campaign.stage("oracle-query", 0) / "answers.parquet").write_bytes(b"none"),
        lambda campaign: (campaign.stage("info-map", 1) / "manifest.json").write_bytes(b"{}"),
        lambda campaign: (campaign.stage("pool", None) / "pool.parquet").unlink(),
    ],
    ids=[
        "no training",
        "no trainings",
        "no report of a round",
        "no pool",
        "no ledger",
        "no last round",
        "no report",
        "damaged answers",
        "damaged manifest",
        "no list",
    ],
)
def test_what_is_missing_or_damaged_is_made_again(
    change: Callable[[Campaign], object], copied: CampaignSettings
) -> None:
    change(Campaign(copied.path, copied))
    with pytest.raises(Attended):
        start_campaigns([copied], "again")


def test_more_rounds_go_on(copied: CampaignSettings) -> None:
    more = copied.model_copy(update={"stop": copied.stop.model_copy(update={"rounds": 3})})
    with pytest.raises(Attended):
        start_campaigns([more], "again")


def test_one_that_another_process_runs_is_refused_before_a_server_is_started(copied: CampaignSettings) -> None:
    campaign = Campaign(copied.path, copied)
    campaign.report_file.unlink()
    with locked(campaign.lock_file), pytest.raises(LockedError, match="is running it; wait or stop that"):
        start_campaigns([copied], "again")
