"""`cereals plan`: what is measured, what is recorded, what is shown, and that nothing is left behind."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import campaign_file
from small_campaign import frozen_settings, small_settings
from typer.testing import CliRunner

from cereals_core.errors import SettingsError
from cereals_core.settings import CampaignSettings, other_trunk
from cereals_core.settings_files import read_settings
from deployments import plan as plans
from deployments.cli import app
from tasks.forecast import needs, trial
from tasks.pages.plan import PlanFacts, StagePlan, plan_text
from tasks.stages import round_stages
from tasks.store.history import product_of, products_made
from tasks.store.layout import Campaign


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of little worth, in little time."""
    monkeypatch.setattr(trial, "WORKING_S", 0.0)
    monkeypatch.setattr(trial, "LEAST_TRIED", 3)
    monkeypatch.setattr(trial, "FEW_IMAGES", 2)


def test_the_sizes_of_some_images_stand_for_all(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def image(name: str) -> np.ndarray:
        return np.zeros((40, 40 if int(name) % 2 else 80, 3), np.uint8)

    source = SimpleNamespace(image_ids=[str(number) for number in range(1000)], image=image)
    monkeypatch.setattr(trial, "open_images", lambda data, split: source)
    files = small.model_copy(update={"data": None})
    found = trial.look_at_images(files, None)
    assert (len(found.sizes), found.read, found.are_known) == (1000, trial.MOST_IMAGES, False)
    assert 300 < found.sizes.count((40, 80)) < 700
    known = trial.look_at_images(files, dict.fromkeys(source.image_ids, (40, 80)))
    assert (set(known.sizes), known.are_known) == ({(40, 80)}, True)


def planned(file: Path) -> Any:
    return CliRunner().invoke(app, ["plan", str(file)])


@pytest.mark.usefixtures("quick")
def test_a_plan_shows_all_stages_and_leaves_nothing(tmp_path: Path) -> None:
    file = campaign_file(tmp_path)
    result = planned(file)
    assert result.exit_code == 0, result.exception
    shown = {line.split()[0]: line for line in result.output.splitlines() if "measured" in line}
    assert list(shown) == ["pool", "seed-set", *(stage.name for stage in round_stages(read_settings(file)))]
    assert "1 round of queries to come" in result.output
    assert "6 images of 48 x 64 px; 2 images for evaluation" in result.output
    assert "memory and disk will do" in result.output
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "acquisition",
    [
        {"strategy": "random-images", "information": "random"},
        {"strategy": "cereals-true-cost", "information": "vote_entropy", "dropout_samples": 2},
    ],
    ids=["random images", "true cost"],
)
def test_other_strategies_are_measured(
    acquisition: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small_settings(tmp_path / "campaign", **acquisition)
    facts = plan_of(settings, monkeypatch)
    asked = ["true-cost-map"] if settings.acquisition.cost == "true" else []
    wanted = ["pool", "seed-set", *asked, *(stage.name for stage in round_stages(settings))]
    assert [each.stage for each in facts.stages] == wanted
    assert facts.total_s is not None
    assert all(each.total_s is not None and each.total_s > 0 for each in facts.stages)


@pytest.mark.usefixtures("quick")
def test_cropped_regions_of_a_campaign_on_other_hosts_are_measured_here(
    small: CampaignSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cropping = small.training.model_copy(update={"method": "cropping", "batch_images": 2})
    settings = more_rounds(
        small.model_copy(update={"training": cropping}), 2, cluster="tcp://10.0.0.1:8786", device="cuda"
    )
    tried: list[tuple[str, int]] = []
    run = plans.run_quietly

    def remember(campaign: Campaign) -> None:
        run(campaign)
        tried.extend((product.stage, number) for number, product in products_made(campaign) if number is not None)

    monkeypatch.setattr(plans, "run_quietly", remember)
    facts = plan_of(settings, monkeypatch)
    assert {("train-cost", 0), ("train-cost", 1)} <= set(tried)  # of whole images, and of regions
    assert any("tcp://10.0.0.1:8786 cannot be measured from here" in note for note in facts.notes)
    assert (facts.there_bytes[0], list(facts.shortages)) == (None, [])  # memory is elsewhere


@pytest.mark.usefixtures("quick")
def test_a_frozen_trunk_is_planned_with_its_features_beside_a_trained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = frozen_settings(tmp_path / "campaign")
    facts = plan_of(settings, monkeypatch)
    planned = {each.stage: each for each in facts.stages}
    assert planned["features"].units == 13
    assert planned["features"].disk_bytes == 13 * 2 * (8 * 13 * 40 + 4 * 7 * 112 + 2 * 4 * 320)
    assert planned["train-seg"].units == 8
    assert facts.total_s is not None
    assert facts.otherwise.startswith('with model.trunk = "trained" all rounds would take ')
    assert facts.otherwise in plan_text(facts)
    other = other_trunk(settings)
    assert other is not None
    assert (other.model.trunk, other.training.batch, other.training.batch_images) == ("trained", "images", 4)


def test_another_trunk_that_would_not_fit_is_said_without_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "_fits", lambda needs, room: False)
    facts = plan_of(frozen_settings(tmp_path), monkeypatch)
    assert facts.otherwise == 'with model.trunk = "trained" it would not fit into the memory here'


def plan_of(settings: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> PlanFacts:
    monkeypatch.setattr(plans, "read_settings", lambda file: settings)
    return plans.plan(Path("campaign.toml"))


def test_too_little_memory_is_told_and_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "available_bytes", lambda: 1 << 20)
    monkeypatch.setattr(plans, "try_out", None)
    result = planned(campaign_file(tmp_path))
    assert result.exit_code == 1, result.exception
    assert "measured" not in result.output
    assert "shortage: train-" in result.output
    assert "of memory, and there are 1.0 MB; lower model.width" in result.output


def test_mistakes_are_told_as_elsewhere(tmp_path: Path) -> None:
    file = campaign_file(tmp_path)
    file.write_text(file.read_text().replace("seed_images = 2", "seed_images = 7"))
    error = planned(file).exception
    assert isinstance(error, SettingsError)
    assert "acquisition.seed_images = 7: the pool has 6 images" in str(error)
    assert "no such campaign file" in str(planned(tmp_path / "nowhere.toml").exception)


def more_rounds(settings: CampaignSettings, rounds: int, **compute: str) -> CampaignSettings:
    stop, here = settings.stop.model_copy(update={"rounds": rounds}), settings.compute.model_copy(update=compute)
    return settings.model_copy(update={"stop": stop, "compute": here})


def test_what_is_recorded_is_not_measured(finished: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "try_out", None)
    facts = plan_of(more_rounds(finished, 4), monkeypatch)
    stages = {each.stage: each for each in facts.stages}
    assert list(stages) == [stage.name for stage in round_stages(finished)]
    assert all(each.is_recorded for each in facts.stages)
    assert facts.title.endswith("it has ended; if [stop] lets it go on, 2 rounds to come")

    # Round 2 was trained already; rounds 3 and 4 take at most 20 steps each, as fast as those of rounds 1 and 2 did.
    made = [product_of(Campaign(finished.path, finished), "train-seg", number) for number in (1, 2)]
    step_s = median(each.facts["units_s"] / each.facts["units"] for each in made)
    fixed_s = median(each.elapsed_s - each.facts["units_s"] for each in made)
    assert stages["train-seg"].total_s == pytest.approx(2 * fixed_s + 40 * step_s)
    assert stages["train-cost"].units == 20


def test_a_campaign_that_is_done_has_nothing_to_come(
    finished: CampaignSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = plan_of(finished, monkeypatch)
    assert (facts.stages, facts.total_s, facts.advice) == ([], 0, "")
    assert facts.title.endswith("it has ended")


def shown(stages: Sequence[StagePlan], shortages: Sequence[str] = ()) -> list[str]:
    """Lines of a plan, each with single blanks."""
    facts = PlanFacts("made", ["a note"], stages, 3000, (5000, None, 9000), shortages, "")
    return [" ".join(line.split()) for line in plan_text(facts).splitlines()]


def test_the_table_by_hand() -> None:
    seg = StagePlan("train-seg", 12, "step", 6.0, 90.0, True, 2000, 0, 3000)
    unknown = StagePlan("pool", 1, "image", None, None, False, None, None, None)
    assert shown([seg]) == [
        "made",
        "a note",
        "",
        "stage a round each time a round all rounds time is memory disk",
        "train-seg 12 steps 500 ms 6.0 s 1 min 30 s recorded 2.0 kB 3.0 kB",
        "all 1 min 30 s 2.0 kB 3.0 kB",
        "there is 5.0 kB 9.0 kB",
        "",
        "memory and disk will do",
    ]
    lines = shown([seg, unknown], ["much"])
    assert lines[5:7] == ["pool 1 image - - - - - -", "all - 2.0 kB 3.0 kB"]
    assert lines[-1] == "shortage: much"
    on_device = StagePlan("evaluate", 1, "image", 1.0, 1.0, False, 10, 20, 0)
    assert "CUDA memory" in shown([on_device])[3]
