"""Reports of predicted cost: beside baselines, as an upper bound, and of whole images."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_facts import facts, pixels, query, view

from cereals_core.grid import Box
from deployments.status import show_status
from tasks.pages import figures, wording
from tasks.pages.facts import CostSample
from tasks.pages.html import campaign_html
from tasks.pages.markdown import round_markdown


def sample(name: str, learned: list[float]) -> CostSample:
    """Three regions of 10, 20 and 30 clicks, and what was predicted."""
    baselines = {"constant": np.full(3, 15.0), "edges": np.array([12.0, 12.0, 36.0])}
    return CostSample(name, np.array([10.0, 20.0, 30.0]), {"learned": np.array(learned), **baselines})


SAMPLES = (sample("queried", [30.0, 21.0, 9.0]), sample("random", [11.0, 22.5, 33.0]))

EMPTY = CostSample("random", np.zeros(0), dict.fromkeys(("learned", "constant", "edges"), np.zeros(0)))


def test_the_agreement_of_two_samples_by_hand() -> None:
    assert wording.agreement_rows(SAMPLES) == [
        ["queried", "cost model", "3", "-1.00", "+0.0", "14.0", "1.00"],
        ["queried", "constant", "3", "-", "-5.0", "8.3", "0.75"],
        ["queried", "edges", "3", "0.87", "+0.0", "5.3", "1.00"],
        ["random", "cost model", "3", "1.00", "+2.2", "2.2", "1.11"],
        ["random", "constant", "3", "-", "-5.0", "8.3", "0.75"],
        ["random", "edges", "3", "0.87", "+0.0", "5.3", "1.00"],
    ]
    assert len(wording.AGREEMENT_HEADER) == 7


def test_pages_show_how_the_cost_model_compares_with_baselines() -> None:
    compared = facts(cost_samples=SAMPLES)
    pictures = figures.round_pictures(compared, [])
    assert list(pictures) == ["curve", "cost", "calibration"]
    page, report = round_markdown(compared, pictures), campaign_html([compared], [pictures], "")
    assert "| random | cost model | 3 | 1.00 | +2.2 | 2.2 | 1.11 |" in page
    assert '<tr><td>random</td><td>cost model</td><td class="n">3</td><td class="n">1.00</td>' in report
    for written in (page, report):
        assert wording.AGREEMENT_NOTE in written
        assert "Mean predicted against mean true clicks, in groups by prediction, of round 1" in written
        assert written.count("data:image/png") == 3


def test_pages_without_a_comparison_do_not_mention_it() -> None:
    pictures = figures.round_pictures(facts(), [])
    for written in (round_markdown(facts(), pictures), campaign_html([facts()], [pictures], "")):
        assert "baseline" not in written
        assert "calibration" not in written


def test_the_calibration_plot_shows_its_predictors() -> None:
    shown = pixels(figures.calibration_plot(SAMPLES))
    for colour in figures.COLOURS[:3]:
        rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
        assert (np.abs(shown.astype(int) - rgb).max(axis=2) <= 8).sum() > 40


@pytest.mark.parametrize("samples", [[EMPTY], [sample("queried", [math.nan] * 3), EMPTY]])
def test_the_calibration_plot_of_little_data(samples: list[CostSample]) -> None:
    assert pixels(figures.calibration_plot(samples)).std() > 1


def test_an_upper_bound_says_so_wherever_its_numbers_are() -> None:
    bound = facts(upper_bound=True, queries=[query(predicted=math.nan)])
    pictures = figures.round_pictures(bound, [view(bound.queries[0])])
    page, report = round_markdown(bound, pictures), campaign_html([bound], [pictures], "")
    assert wording.headline(bound).endswith(wording.UPPER_BOUND)
    assert page.startswith("# demo (upper bound), round 1\n")
    assert "<h1>demo (upper bound)</h1>" in report
    assert "<h2>Rounds of an upper bound</h2>" in report
    assert wording.UPPER_BOUND in page
    assert report.count(wording.UPPER_BOUND) == 2  # the lead, and the round's own
    plain = facts()
    for written in (wording.headline(plain), round_markdown(plain, pictures), campaign_html([plain], [pictures], "")):
        assert "upper bound" not in written


@pytest.mark.parametrize("cost", ["true", "learned"])
def test_status_marks_an_upper_bound(tmp_path: Path, cost: str) -> None:
    file = tmp_path / "streets.toml"
    file.write_text(
        f'name = "streets"\nfolder = "{tmp_path}/streets"\n[acquisition]\ncost = "{cost}"\n[data]\n'
        'format = "synthetic"\npool_images = 2\neval_images = 1\nheight = 48\nwidth = 72\n'
    )
    (tmp_path / "streets").mkdir()
    (tmp_path / "streets" / "settings.json").touch()
    expected = [f"streets (upper bound), in {tmp_path}/streets", wording.UPPER_BOUND]
    *shown, progress = show_status([file]).splitlines()
    assert shown == (expected if cost == "true" else [f"streets, in {tmp_path}/streets"])
    assert progress.startswith("round 0: done nothing yet")


def test_queries_of_whole_images_are_called_images() -> None:
    whole = facts(unit="image", queries=[query(), query("park", 7.5)], cost_samples=SAMPLES)
    assert "It asked for 2 images, which cost 28 clicks" in wording.headline(whole)
    pictures = figures.round_pictures(whole, [view(whole.queries[0])])
    page, report = round_markdown(whole, pictures), campaign_html([whole], [pictures], "")
    assert "Predicted 20 clicks for 2 images, true 28; mean absolute error 4 clicks an image." in page
    assert (
        "The first of 2 images, best first: what an image would teach the network, against what it would cost." in page
    )
    assert "Image 1: street, y 8" in page
    assert ">images asked</th>" in report
    assert "<h3>Best images</h3>" in report
    for written in (page, report):
        assert "egions of round" not in written


def test_a_whole_image_is_not_shown_twice() -> None:
    part = view(query(), 64, 96)
    whole = replace(part, query=replace(query(), box=Box(0, 0, 64, 96)))
    # The image, its part and two maps in two rows; or the image and two maps in one.
    assert pixels(figures.region_picture(part)).shape[1] == 800
    assert pixels(figures.region_picture(whole)).shape[1] == 1200
