"""Nothing that trains on the pool or scores it reaches truth that the ledger does not list."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from checkout import ROOT
from small_campaign import small_settings

from cereals_core.clicks import clicks_inside
from cereals_core.datasets import open_images
from cereals_core.datasets.synthetic import SyntheticStreets
from cereals_core.grid import Box
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.truth import Truth
from flows.campaign import run_campaign

OPENS_TRUTH = {
    "deployments/click_totals.py": "counts clicks for a person",
    "tasks/examination.py": "reads every file once; keeps sizes, whether there is anything, and hashes of files",
    "tasks/pool.py": "names of classes, and the files that list a split",
    "tasks/oracle.py": "the oracle",
    "tasks/running/truths.py": "the evaluation split",
    "tasks/mapping.py": "true cost maps, the upper bound",
}
DECIDED = ("round", "rank", "image_id", "y", "x", "height", "width", "score", "information", "predicted_clicks")
"""Columns of the ledger that are fixed before the oracle answers."""


def test_truth_is_opened_where_it_may_be_and_nowhere_else() -> None:
    files = (file for folder in ("tasks", "flows", "deployments") for file in (ROOT / folder).rglob("*.py"))
    assert {file.relative_to(ROOT).as_posix() for file in files if "open_truth" in file.read_text()} == set(OPENS_TRUTH)


def test_what_is_opened_for_images_has_no_truth(small: CampaignSettings) -> None:
    images = open_images(small.data, "pool")
    assert images.image(images.image_ids[0]).shape == (60, 100, 3)
    assert not hasattr(images, "truth")


def ledger(settings: CampaignSettings) -> list[dict[str, Any]]:
    return pq.read_table(settings.path / "ledger.parquet").to_pylist()


def boxes_of(rows: Iterable[dict[str, Any]]) -> dict[str, list[Box]]:
    boxes = defaultdict(list)
    for row in rows:
        boxes[row["image_id"]].append(Box(row["y"], row["x"], row["height"], row["width"]))
    return boxes


def noise_but_in(known: dict[str, list[Box]]) -> Callable[[SyntheticStreets, str], Truth]:
    """Truth as it is in the known regions of the pool; elsewhere labels and clicks are noise."""
    real = SyntheticStreets.truth

    def truth(self: SyntheticStreets, image_id: str) -> Truth:
        answer = real(self, image_id)
        if not image_id.startswith("pool"):
            return answer
        shape, random = answer.labels.shape, rng(0, "noise", image_id)
        labels = random.integers(0, len(self.class_names), shape, np.uint8)
        clicks = np.column_stack([random.uniform(0, side, 300) for side in shape] + [np.ones(300)]).astype(np.float32)
        for box in known.get(image_id, ()):
            labels[box.slices] = answer.labels[box.slices]
            clicks = clicks[~clicks_inside(clicks, box, shape)]
            clicks = np.concatenate([clicks, answer.clicks[clicks_inside(answer.clicks, box, shape)]])
        return Truth(labels, clicks)

    return truth


def decided(rows: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row[column] for column in DECIDED) for row in rows]


def under_noise(
    monkeypatch: pytest.MonkeyPatch, settings: CampaignSettings, known: Iterable[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Ledger of the campaign when everything but the regions in `known` is noise."""
    monkeypatch.setattr(SyntheticStreets, "truth", noise_but_in(boxes_of(known)))
    run_campaign(settings)
    return ledger(settings)


@pytest.mark.parametrize("first_unknown", [0, 1])
def test_noise_for_all_unlabelled_truth_changes_nothing_before_it_is_asked_for(
    finished: CampaignSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_unknown: int
) -> None:
    real = ledger(finished)
    known = [row for row in real if row["round"] < first_unknown]
    settings = small_settings(tmp_path / "noise").model_copy(
        update={"stop": finished.stop.model_copy(update={"rounds": first_unknown + 1})}
    )
    noisy = under_noise(monkeypatch, settings, known)
    assert noisy[: len(known)] == known
    asked = [row for row in real if row["round"] == first_unknown]
    answered = noisy[len(known) :]
    assert decided(answered) == decided(asked)
    assert [row["vertices"] for row in answered] != [row["vertices"] for row in asked]


def test_the_upper_bound_does_see_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(name: str) -> CampaignSettings:
        made = small_settings(tmp_path / name, cost="true")
        return made.model_copy(update={"stop": made.stop.model_copy(update={"rounds": 1})})

    run_campaign(settings("real"))
    real = ledger(settings("real"))
    known = [row for row in real if row["round"] < 0]
    noisy = under_noise(monkeypatch, settings("noise"), known)
    assert noisy[: len(known)] == known
    assert decided(noisy) != decided(real)
