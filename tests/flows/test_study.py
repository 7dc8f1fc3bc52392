"""A study from end to end: strategies by name, sharing what they have in common, resumable."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_campaign import small_settings

from cereals_core.errors import ProductError, SettingsError
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import read_settings, read_study
from cereals_core.strategies import STRATEGIES
from cereals_core.study_settings import FULL_LABELS, REPEATED, StudySettings
from deployments.status import show_status
from flows import study
from flows.study import run_study
from tasks.store.layout import Campaign
from tasks.store.products import find_product
from tasks.telling import progress

WINDOW_PX, SEED = 24, 7
NAMED = ("cereals-g2", "cereals-true-cost", "margin-regions", "entropy-images", "random-regions")
BEYOND = {"class_weight": 6, "noise": 0.5, "class_share": 0.5, "regions_per_image": 4, "region_price": True}
VARIANTS = {
    "beyond": {"strategy": "cereals-per-click", "offset": 0.1, **BEYOND},
    "balanced": {"strategy": "balanced-random-regions", "window_px": WINDOW_PX},
}
STUDY_FILE = """
name = "tiny"
[study]
strategies = ["cereals", "random-images"]
seeds = [1, 2]
windows_px = [16, 24]
[data]
format = "synthetic"
pool_images = 10
eval_images = 3
height = 60
width = 100
"""


def settings_of(folder: Path, **study: Any) -> StudySettings:
    """A study of small campaigns."""
    small = small_settings(folder).model_dump(exclude={"seed", "acquisition", "stop", "name"})
    acquisition = {"seed_images": 2, "images_per_round": 1, "window_px": WINDOW_PX, "dropout_samples": 3}
    asked = {"strategies": NAMED, "seeds": (SEED,), "variants": VARIANTS, **study}
    return StudySettings.model_validate(
        small | {"name": "all", "study": asked, "acquisition": acquisition, "stop": {"rounds": 1}}
    )


def from_file(tmp_path: Path, text: str) -> StudySettings:
    file = tmp_path / "study.toml"
    file.write_text(text)
    return read_study(file)


def test_a_study_means_its_campaigns_in_pairs(tmp_path: Path) -> None:
    study = from_file(tmp_path, STUDY_FILE)
    arms = [FULL_LABELS, "cereals-16px", "cereals-24px", "random-images"]
    assert [(arm, each.seed) for arm, each in study.campaigns()] == [
        *((arm, 1) for arm in arms),
        *((arm, 2) for arm in arms),
        (REPEATED, 1),
    ]
    campaigns = dict(study.campaigns()[:4])
    assert campaigns["cereals-16px"].name == "tiny-cereals-16px-seed-1"
    assert campaigns["cereals-16px"].acquisition.window_px == 16
    assert campaigns[FULL_LABELS].acquisition.seed_images == "all"
    assert campaigns[FULL_LABELS].stop.rounds == 0


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("seeds = [1, 2]", "seeds = [1, 1]", r"seeds names one twice: \[1, 1\]"),
        ('"random-images"', '"best"', "study.strategies.1 = 'best'"),
        ("[data]", '[acquisition]\nfusion = "g2"\n[data]', "acquisition.fusion: the strategies of a study say this"),
        ("[16, 24]", "[16, 20]", "window_px = 20: must be a multiple of 8"),
        ("seeds", "sedes", "study.sedes: no such key; allowed here: repeat, seeds, strategies, variants"),
        ("[data]", "[study.variants.own]\nalpha = 0.2\n[data]", "variants.own names no strategy but None"),
        ("[data]", '[study.variants.own]\nstrategy = "best"\n[data]', "variants.own names no strategy but 'best'"),
        ("[data]", '[study.variants.cereals]\nstrategy = "cereals"\n[data]', "cereals: is the name of another arm"),
        ("[data]", '[study.variants.a]\nstrategy = "cereals"\nseed_images = 3\n[data]', "a sets seed_images, which"),
        ("[data]", '[study.variants.a]\nstrategy = "cereals"\nnoise = -1\n[data]', "noise"),
    ],
)
def test_mistakes_in_study_files_are_named(tmp_path: Path, old: str, new: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        from_file(tmp_path, STUDY_FILE.replace(old, new))


def test_a_study_file_is_no_campaign_file(tmp_path: Path) -> None:
    from_file(tmp_path, STUDY_FILE)
    with pytest.raises(SettingsError, match=r"`cereals study .*study\.toml` runs it"):
        read_settings(tmp_path / "study.toml")


def test_a_study_that_was_never_started_says_how_to_start(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(f'folder = "{tmp_path}/here"\n{STUDY_FILE}')
    with pytest.raises(ProductError, match=r"no study was started there; `cereals study .*study\.toml` starts it"):
        show_status([tmp_path / "study.toml"])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> StudySettings:
    settings = settings_of(tmp_path_factory.mktemp("study"))
    run_study(settings)
    return settings


def campaign_of(settings: StudySettings, arm: str) -> Campaign:
    campaign = settings.campaign(arm, SEED)
    return Campaign(campaign.path, campaign)


def test_every_strategy_asks_for_what_it_says(ran: StudySettings) -> None:
    for name, strategy in ((name, STRATEGIES[name]) for name in NAMED):
        rows = pq.read_table(campaign_of(ran, name).ledger_file).to_pylist()
        asked = [row for row in rows if row["round"] == 0]
        whole = {(0, 0, 60, 100)} if strategy.unit == "image" else set()
        boxes = {(row["y"], row["x"], row["height"], row["width"]) for row in asked}
        assert (boxes == whole) if whole else all(box[2:] == (WINDOW_PX, WINDOW_PX) for box in boxes), name
        assert len(asked) == (1 if whole else 10), name
        assert all((row["information"] is None) == (strategy.information == "random") for row in asked), name
        assert all((row["predicted_clicks"] is None) == (strategy.cost == "none") for row in asked), name


def test_an_arm_of_its_own_asks_by_its_keys(ran: StudySettings) -> None:
    beyond, balanced = (campaign_of(ran, arm) for arm in VARIANTS)
    assert beyond.settings.acquisition.model_dump().items() >= VARIANTS["beyond"].items()
    asked = [row for row in pq.read_table(beyond.ledger_file).to_pylist() if row["round"] == 0]
    assert len(asked) == 10
    assert max(Counter(row["image_id"] for row in asked).values()) <= 4
    drawn = [row for row in pq.read_table(balanced.ledger_file).to_pylist() if row["round"] == 0]
    assert [row["information"] for row in drawn] == [None] * 10
    assert find_product(balanced.stage("class-map", 0)) is not None
    assert "offset = 0.1, class_weight = 6" in (ran.path / "report.html").read_text()


def test_true_costs_are_the_clicks_that_were_paid(ran: StudySettings) -> None:
    rows = pq.read_table(campaign_of(ran, "cereals-true-cost").ledger_file).to_pylist()
    asked = [row for row in rows if row["round"] == 0]
    assert [row["predicted_clicks"] for row in asked] == [row["vertices"] for row in asked]


def test_what_strategies_have_in_common_was_made_once(ran: StudySettings) -> None:
    for stage, number in (("pool", None), ("seed-set", None), ("train-seg", 0), ("evaluate", 0)):
        folders = [campaign_of(ran, arm).stage(stage, number) for arm in (*NAMED, REPEATED)]
        inodes = {(folder / "manifest.json").stat().st_ino for folder in folders}
        assert len(inodes) == 2, stage  # the repeated campaign shares nothing


def test_the_repeated_campaign_comes_to_the_same(ran: StudySettings) -> None:
    points = pq.read_table(ran.path / "results.parquet").to_pylist()
    pair = (NAMED[0], REPEATED)
    first, repeated = (
        [point | {"arm": "", "definition": ""} for point in points if point["arm"] == arm] for arm in pair
    )
    assert first == repeated
    assert len(first) == 2


def test_tables_tell_what_every_round_cost_and_came_to(ran: StudySettings) -> None:
    points, classes = (pq.read_table(ran.path / f"{name}.parquet").to_pylist() for name in ("results", "class_results"))
    arms = (*NAMED, *VARIANTS, FULL_LABELS, REPEATED)
    assert Counter(point["arm"] for point in points) == {arm: 1 if arm == FULL_LABELS else 2 for arm in arms}
    last = next(point for point in points if point["arm"] == NAMED[1] and point["round"] == 1)
    rows = pq.read_table(campaign_of(ran, NAMED[1]).ledger_file).to_pylist()
    for name, column in (("clicks", "vertices"), ("crossings", "crossings"), ("components", "components")):
        assert last[name] == sum(row[column] for row in rows)
    assert last["steps"] >= 12
    shown = [row["iou"] for row in classes if (row["arm"], row["round"]) == (NAMED[1], 1)]
    assert np.nanmean(shown) == pytest.approx(last["miou"])
    cells = {arm: sum(row["cells"] for row in classes if (row["arm"], row["round"]) == (arm, 0)) for arm in arms}
    assert cells[FULL_LABELS] > 4 * cells[NAMED[0]] > 0
    assert len(set(cells.values())) == 2  # but for the reference all begin with one seed set


def test_the_reference_knows_all_labels(ran: StudySettings) -> None:
    product = find_product(campaign_of(ran, FULL_LABELS).stage("seed-set", None))
    assert product is not None
    assert product.facts["images"] == 10


def test_a_second_run_makes_nothing_again(ran: StudySettings) -> None:
    before = {file: file.stat().st_mtime_ns for file in sorted(ran.path.rglob("manifest.json"))}
    run_study(settings_of(ran.path, strategies=NAMED[:1]))
    assert {file: file.stat().st_mtime_ns for file in sorted(ran.path.rglob("manifest.json"))} == before


def test_status_and_report_show_the_study(ran: StudySettings, tmp_path: Path) -> None:
    assert "<html" in (ran.path / "report.html").read_text()
    file = tmp_path / "study.toml"
    strategies, windows = 'strategies = ["cereals", "random-images"]', "windows_px = [16, 24]"
    text = STUDY_FILE.replace(strategies, f"strategies = {list(NAMED)}").replace(windows, "")
    file.write_text(
        text.replace("seeds = [1, 2]", f"seeds = [{SEED}]").replace('"tiny"', f'"all"\nfolder = "{ran.path}"')
    )
    shown = show_status([file])
    assert all(name in shown for name in NAMED)
    assert str(ran.path / "report.html") in shown


def test_a_study_that_is_stopped_begins_no_further_campaign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path, strategies=("random-images",), variants={}, seeds=(1, 2, 3), repeat=False)
    begun = list[int]()

    def run(campaign: CampaignSettings, shared: Path | None) -> None:
        begun.append(campaign.seed)
        if campaign.acquisition.seed_images != "all":
            progress.request_stop()
            progress.stop_if_requested()

    monkeypatch.setattr(study, "run_campaign", run)
    monkeypatch.setattr(study, "report_study", lambda place: None)
    monkeypatch.setattr(study, "publish_study", lambda facts: None)
    monkeypatch.setattr(progress, "_stop", threading.Event())
    with pytest.raises(progress.Interrupted):
        run_study.fn(settings)
    assert begun == [1, 1]
