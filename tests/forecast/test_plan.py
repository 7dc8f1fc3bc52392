"""`cereals plan`: hand-computed times, what is measured, what is recorded, and that nothing is left behind."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from command_line import campaign_file
from small_campaign import small_settings
from typer.testing import CliRunner

from cereals_core.errors import SettingsError
from cereals_core.settings import CampaignSettings
from deployments import plan as plans
from deployments.cli import app
from tasks.forecast import projection, rates, timing, trial
from tasks.forecast.outlook import Outlook
from tasks.forecast.planning import Pace, Rates, StageTime, Workload, advice, times, to_come
from tasks.forecast.timing import disk_rates, read_ahead
from tasks.forecast.trial import Trial
from tasks.pages.plan import PlanFacts, StagePlan, plan_text
from tasks.running.workers import MANY_BATCHES
from tasks.store.history import product_of
from tasks.store.layout import ROUND_STAGES, Campaign
from tasks.store.pool import SHARDS_A_BATCH

SIZES = [(60, 100)] * 10


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates of little worth, in little time."""
    monkeypatch.setattr(trial, "EPOCH_S", 0.01)
    monkeypatch.setattr(timing, "MOST_CALLS", 1)
    monkeypatch.setattr(timing, "MOST_IMAGES", 2)
    monkeypatch.setattr(timing, "LIMIT_S", 0.3)
    monkeypatch.setattr(rates, "FEW_IMAGES", 2)
    monkeypatch.setattr(timing, "DISK_BYTES", 1_000_000)


@pytest.fixture
def pageless(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are not drawn."""
    monkeypatch.setattr(trial, "round_pictures", lambda facts, views: {})


def workload(settings: CampaignSettings) -> Workload:
    return Workload(Outlook(settings, SIZES), eval_images=3)


def seconds_of(settings: CampaignSettings, found: Rates, stage: str, **disk: int) -> tuple[float, ...]:
    work = workload(settings)
    left = {stage: to_come(Campaign(settings.path, settings), finished=0)[stage]}
    (told,) = times(left, work, Pace(work, found), {}, {name.replace("_", "-"): count for name, count in disk.items()})
    return told.rounds_s


def test_steps_of_ten_images_in_two_rounds(small: CampaignSettings) -> None:
    work = workload(small)
    assert work.queries == 10  # 6000 px hold ten windows of 576 px
    assert [work.labelled(number) for number in (0, 1, 2)] == [2, 10, 10]
    assert [work.steps(number) for number in (0, 1, 2)] == [12, 20, 20]  # 12 steps: six epochs of two, two of ten
    batches = small.model_copy(update={"training": small.training.model_copy(update={"batch_images": 4})})
    assert [workload(batches).steps(number) for number in (0, 1)] == [12, 12]  # of 2 images, of 4 + 4 + 2


def test_times_of_two_rounds_by_hand(small: CampaignSettings) -> None:
    assert seconds_of(small, Rates({"train-seg": 0.5}), "train-seg") == (6, 10, 10)
    assert seconds_of(small, Rates({"train-cost": 0.5}), "train-cost") == (6, 10)
    assert seconds_of(small, Rates({"evaluate": 2}), "evaluate") == (6, 6, 6)
    assert seconds_of(small, Rates({"info-map": 0.25}), "info-map") == (2, 2)  # the seed set has left the pool
    assert seconds_of(small, Rates({"pool": 0.5}), "pool") == (6.5,)
    # ten images with edges, three of the evaluation split
    assert seconds_of(small, Rates({"evaluate-cost": 1}, edges_s=0.5), "evaluate-cost") == (8, 8)


def test_images_are_read_in_two_threads_beside_the_steps(small: CampaignSettings) -> None:
    kept = Rates({"train-seg": 0.5}, image_s=4)
    assert seconds_of(small, kept, "train-seg")[:2] == (2 * 2 + 10 * 0.5, 10 * 2 + 10 * 0.5)
    read_again = Rates({"train-seg": 0.5}, image_s=4, kept_bytes=0)
    assert seconds_of(small, read_again, "train-seg")[:2] == (12 * 2, 20 * 2)


def test_images_of_which_regions_are_labelled_may_take_less(small: CampaignSettings) -> None:
    cropped = Rates({"train-seg": 1}, part_s={"train-seg": 0.5})
    told = seconds_of(small, cropped, "train-seg")
    assert told == pytest.approx((12, 20 * 0.6, 20 * 0.6))  # two in ten are the seed set's


def test_what_is_written_is_hashed_and_maps_are_read(small: CampaignSettings) -> None:
    disk = Rates({"info-map": 0, "nms": 0}, write_bytes_s=50, read_bytes_s=100)
    assert seconds_of(small, disk, "info-map", info_map=200) == (2 + 1, 2 + 1)
    assert seconds_of(small, disk, "nms") == pytest.approx([2 * 10 * 8 * 13 * 2 / 100] * 2)  # both maps


def test_what_takes_most_of_the_time_is_told_with_what_would_help(small: CampaignSettings) -> None:
    little, much = StageTime("nms", 1, (1.0,), False), StageTime("train-seg", 1, (2.0, 1.0), False)
    said = advice(small, [little, much], on_device=False)
    assert (
        said
        == "train-seg takes 75.0 % of the time; lower training.max_steps = 12 or run it where there is a CUDA device"
    )
    assert "CUDA" not in advice(small, [little, much], on_device=True)
    waiting = StageTime("info-map", 1, (3.0,), False, waits=True)
    assert "waits for images to be read" in advice(small, [little, waiting], on_device=True)
    assert advice(small, [little, *(StageTime(name, 1, (1.0,), False) for name in ("evaluate", "report"))], True) == ""


def test_work_that_is_faster_than_reading_waits() -> None:
    def slow(what: object) -> None:
        time.sleep(0.02)

    def fast(what: object) -> None:
        return

    waiting, working = read_ahead("abc", slow, fast), read_ahead("abc", fast, slow)
    assert (waiting.waits, working.waits) == (True, False)
    assert working.unit_s >= 0.02
    batches: list[int] = []
    read_ahead("abc", fast, lambda items: batches.append(len(items)), size=3)
    assert set(batches) == {3}


def test_a_disk_is_tried_without_a_trace(tmp_path: Path) -> None:
    assert min(disk_rates(tmp_path / "not" / "there")) > 0
    assert list(tmp_path.iterdir()) == []


def test_the_sizes_of_some_images_stand_for_all(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    def image(name: str) -> np.ndarray:
        return np.zeros((40, 40 if int(name) % 2 else 80, 3), np.uint8)

    source = SimpleNamespace(image_ids=[str(number) for number in range(1000)], image=image)
    monkeypatch.setattr(rates, "open_images", lambda data, split: source)
    files = small.model_copy(update={"data": None})
    found = rates.look_at_images(files, None)
    assert (len(found.sizes), len(found.read), found.are_known) == (1000, rates.MOST_IMAGES, False)
    assert 300 < found.sizes.count((40, 80)) < 700
    known = rates.look_at_images(files, dict.fromkeys(source.image_ids, (40, 80)))
    assert (set(known.sizes), known.are_known) == ({(40, 80)}, True)


def planned(file: Path) -> Any:
    return CliRunner().invoke(app, ["plan", str(file)])


@pytest.mark.usefixtures("quick")
def test_a_plan_shows_all_stages_and_leaves_nothing(tmp_path: Path) -> None:
    file = campaign_file(tmp_path)
    result = planned(file)
    assert result.exit_code == 0, result.exception
    shown = {line.split()[0]: line for line in result.output.splitlines() if "measured" in line}
    assert list(shown) == ["pool", "seed-set", *ROUND_STAGES]
    assert "1 round of queries to come" in result.output
    assert "6 images of 48 x 64 px; 2 images for evaluation" in result.output
    assert "memory and disk will do" in result.output
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.usefixtures("pageless")
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
    wanted = ["pool", "seed-set", *asked, *Campaign(settings.path, settings).round_stages]
    assert [each.stage for each in facts.stages] == wanted
    assert facts.total_s is not None
    assert all(each.total_s is not None and each.total_s > 0 for each in facts.stages)


@pytest.mark.usefixtures("pageless")
def test_cropped_regions_of_a_campaign_on_other_hosts_are_measured_here(
    small: CampaignSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    cropping = small.training.model_copy(update={"method": "cropping", "batch_images": 2})
    settings, found = small.model_copy(update={"training": cropping}), []
    monkeypatch.setattr(plans, "Pace", lambda work, each: found.append(each) or Pace(work, each))
    facts = plan_of(more_rounds(settings, 1, cluster="tcp://10.0.0.1:8786", device="cuda"), monkeypatch)
    assert set(found[0].part_s) == {"train-seg", "train-cost"}
    assert any("tcp://10.0.0.1:8786 cannot be measured from here" in note for note in facts.notes)
    assert (facts.there_bytes[0], list(facts.shortages)) == (None, [])  # memory is elsewhere


def plan_of(settings: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> PlanFacts:
    monkeypatch.setattr(plans, "read_settings", lambda file: settings)
    return plans.plan(Path("campaign.toml"))


def test_large_pools_alone_are_selected_from_by_all_cores(small: CampaignSettings) -> None:
    small_shards = 4 * SHARDS_A_BATCH * MANY_BATCHES
    cores = {
        images: Trial(small, Workload(Outlook(small, [(60, 100)] * images), 3), {"pool-000000": (60, 100)}).processes
        for images in (10, small_shards - 1, small_shards)
    }
    assert list(cores.values()) == [1, 1, len(os.sched_getaffinity(0))]


def test_too_little_memory_is_told_and_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "available_bytes", lambda: 1 << 20)
    monkeypatch.setattr(plans, "measure", None)
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
    monkeypatch.setattr(plans, "measure", None)
    facts = plan_of(more_rounds(finished, 4), monkeypatch)
    stages = {each.stage: each for each in facts.stages}
    assert list(stages) == list(ROUND_STAGES)
    assert all(each.is_recorded for each in facts.stages)
    assert facts.title.endswith("it has ended; if [stop] lets it go on, 2 rounds to come")

    def a_step(number: int) -> float:
        made = product_of(Campaign(finished.path, finished), "train-seg", number)
        return made.elapsed_s / made.facts["steps"]

    # Round 2 was trained already; rounds 3 and 4 take at most 20 steps each.
    assert stages["train-seg"].total_s == pytest.approx(40 * median(map(a_step, (0, 1, 2))))
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
