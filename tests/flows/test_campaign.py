"""Campaigns from end to end on small synthetic streets: what they leave, and what a second run does."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from round_twin import assert_same
from small_campaign import small_settings

from cereals_core.errors import SettingsError
from cereals_core.grid import Box
from cereals_core.labelled import labelled_cells
from cereals_core.settings import CampaignSettings
from flows.campaign import run_campaign
from tasks.stages import ROUND, round_stages
from tasks.store.layout import Campaign

pytestmark = pytest.mark.usefixtures("prefect_server")


def manifests(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = sorted(folder.rglob("manifest.json"))
    return {file.relative_to(folder): (file.read_bytes(), file.stat().st_mtime_ns) for file in files}


def ledgers(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("ledger.parquet"))}


def test_every_stage_leaves_its_product(finished: CampaignSettings) -> None:
    campaign = Campaign(finished.path, finished)
    for number in (0, 1):
        assert {path.name for path in campaign.round(number).iterdir()} == {
            stage.name for stage in round_stages(finished)
        }
    assert {path.name for path in campaign.round(2).iterdir()} == {"train-seg", "evaluate", "report"}
    assert (campaign.stage("report", 0) / "region-1.png").exists()
    assert "<html" in campaign.report_file.read_text()
    assert campaign.ledger_file.read_bytes() == (campaign.stage("oracle-query", 1) / "ledger.parquet").read_bytes()


def test_the_ledger_keeps_to_the_budget_and_never_asks_twice(finished: CampaignSettings) -> None:
    rows = pq.read_table(finished.path / "ledger.parquet").to_pylist()
    assert [sum(row["round"] == number for row in rows) for number in (-1, 0, 1)] == [2, 10, 10]  # 6000 / 24^2 = 10.4
    for image_id in {row["image_id"] for row in rows}:
        boxes = [Box(r["y"], r["x"], r["height"], r["width"]) for r in rows if r["image_id"] == image_id]
        assert labelled_cells(boxes, 60, 100).any()  # raises where two overlap
    asked = [row for row in rows if row["round"] >= 0]
    assert all(row["vertices"] >= 0 and row["predicted_clicks"] is not None for row in asked)
    assert sum(row["vertices"] for row in rows) > 0


def test_every_round_leaves_a_version_of_one_artifact(finished: CampaignSettings) -> None:
    with get_client(sync_client=True) as client:
        pages = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["small-round"])))
    mine = [page for page in pages if page.data.startswith("# small, round") and "data:image/png;base64," in page.data]
    described = {str(page.description).split(" of ")[0] for page in mine}
    assert {"small, round 0", "small, round 1", "small, round 2"} <= described


@pytest.mark.parametrize("number", [0, 1])
def test_selection_is_that_of_the_naive_twins(finished: CampaignSettings, number: int) -> None:
    assert len(assert_same(finished.path, finished, number).queries) == 10


def test_a_second_run_makes_nothing_again(finished: CampaignSettings) -> None:
    before = manifests(finished.path)
    assert run_campaign(finished) == "all 2 rounds of queries are done"
    assert manifests(finished.path) == before


def test_other_settings_are_refused_with_the_difference(finished: CampaignSettings) -> None:
    other = finished.model_copy(update={"seed": 8, "stop": finished.stop.model_copy(update={"rounds": 3})})
    with pytest.raises(SettingsError, match="seed: 7 -> 8"):
        run_campaign(other)


def test_random_regions_need_no_maps(small: CampaignSettings) -> None:
    settings = small_settings(small.path, information="random", cost="none", fusion="none")
    run_campaign(settings)
    campaign = Campaign(settings.path, settings)
    wanted = round_stages(settings)
    assert {path.name for path in campaign.round(0).iterdir()} == {stage.name for stage in wanted}
    absent = {stage.name for stage in ROUND if stage not in wanted}
    assert absent == {"train-cost", "info-map", "cost-map", "class-map", "evaluate-cost"}
    asked = [row for row in pq.read_table(settings.path / "ledger.parquet").to_pylist() if row["round"] >= 0]
    assert len(asked) == 20
    assert all(row["information"] is None and row["predicted_clicks"] is None for row in asked)


def test_a_damaged_product_is_made_again(small: CampaignSettings) -> None:
    run_campaign(small)
    before = ledgers(small.path)
    answers = small.path / "rounds" / "001" / "oracle-query" / "answers.parquet"
    content = bytearray(answers.read_bytes())
    content[len(content) // 2] ^= 1
    answers.write_bytes(bytes(content))
    run_campaign(small)
    assert ledgers(small.path) == before
    assert answers.read_bytes() != bytes(content)
