"""Reports: what the numbers say, what they may weigh, and that nothing in a name can break a page."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_facts import POINTS, facts, pixels, query, view

from cereals_core.curves import Band, Curve, Point, band
from tasks.pages import figures, text, wording
from tasks.pages.facts import StageFacts
from tasks.pages.html import campaign_html
from tasks.pages.links import web_link
from tasks.pages.markdown import MAX_PAGE_CHARS, round_markdown

EVIL = "a<script>alert(1)</script>|`b`\n# [c](x) $"


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return figures.round_pictures(facts(), [view(facts().queries[0])], reference=0.5)


def test_the_headline_says_what_happened() -> None:
    assert wording.headline(facts()) == (
        "Trained on 150.5 clicks (15.0 % of the pool's pixels, 2 of 4 images), the model reaches mIoU 0.250, "
        "up 0.050 on round 0. It asked for 2 regions on 2 images, which cost 28 clicks: 178.5 so far "
        "of a budget of 400."
    )
    first = facts(points=POINTS[:1], queries=[], stop_reason="the target is reached")
    assert wording.headline(first).endswith("mIoU 0.200. The campaign ends here: the target is reached.")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (wording.duration(4.21), "4.2 s"),
        (wording.duration(59.97), "1 min 00 s"),
        (wording.duration(3599.9), "1 h 00 min"),
        (wording.size(0), "0 B"),
        (wording.size(999), "999 B"),
        (wording.size(2_500_000), "2.5 MB"),
        (wording.clicks(1234.0), "1,234"),
        (wording.clicks(math.nan), "-"),
        (wording.signed(-0.0031), "-0.003"),
        (wording.share(1, 0), "-"),
        (wording.gained(facts(points=[Point(0, 0.3, 1, 1), Point(1, 0.2, 2, 2)])), ", down 0.100 on round 0"),
        (wording.gained(facts(points=[Point(0, 0.3, 1, 1), Point(1, 0.3, 2, 2)])), ", as in round 0"),
    ],
)
def test_numbers_in_words(shown: str, expected: str) -> None:
    assert shown == expected


def test_the_three_true_costs_add_up() -> None:
    assert [count for _, count in wording.true_costs(facts().queries)] == ["28", "34", "38"]


def test_the_pictures_of_a_round(pictures: Mapping[str, bytes]) -> None:
    assert list(pictures) == ["curve", "cost", "region-1"]
    for png in pictures.values():
        assert len(np.unique(pixels(png).reshape(-1, 3), axis=0)) > 20


def test_a_map_keeps_the_colours_of_its_scale() -> None:
    seen = view(query())
    grey = np.full_like(seen.image, 128)
    shown = {tuple(colour) for colour in pixels(figures.region_picture(replace(seen, image=grey))).reshape(-1, 3)}
    for scale in (figures.INFORMATION_COLOURS, figures.COST_COLOURS):
        top = np.array(scale(1.0)[:3]) * 255
        assert min(np.abs(np.array(colour) - top).max() for colour in shown) <= 4


def test_the_noisiest_picture_stays_small() -> None:
    assert pixels(figures.region_picture(view(query("x" * 200 + "$"), 600, 500))).std() > 10


def test_pictures_without_a_cost_model_or_a_map() -> None:
    assert "cost" not in figures.round_pictures(facts(queries=[query(predicted=math.nan)]), [])
    seen = view(query(predicted=math.nan), cost=False)
    assert (
        pixels(figures.region_picture(seen)).shape[1]
        > pixels(figures.region_picture(replace(seen, information=None))).shape[1]
    )


@pytest.mark.parametrize(
    "png",
    [
        lambda: figures.curve({}),
        lambda: figures.curve({"$a$": POINTS[:1], "b": [Point(0, math.nan, 1, 1)]}),
        lambda: figures.cost_scatter([], []),
        lambda: figures.cost_scatter([-1.0, math.nan], [0.0, 3.0]),
        lambda: figures.cost_scatter([1.0, 50.0], [2.0, 60.0]),
    ],
    ids=["no campaign", "one round, NaN", "no region", "negative", "logarithmic"],
)
def test_figures_of_little_data(png: Callable[[], bytes]) -> None:
    assert pixels(png()).std() > 1


def test_the_round_page_carries_the_numbers(pictures: Mapping[str, bytes]) -> None:
    page = round_markdown(facts(links={"Round 0": "http://ui/artifacts/0"}, flow_run_url="http://ui/runs/1"), pictures)
    for expected in (
        "# demo, round 1",
        "[Round 0](<http://ui/artifacts/0>) · [Flow run](<http://ui/runs/1>)",
        "| clicks | 28 | 178.5 | 400 | 44.6 % |",
        "The first of 2 regions, best first: what a region would teach the network, against what it would cost.",
        "The stages of this round took 1 min 05 s, train-seg the longest (99.9 %).",
        "| train-seg | 1 min 05 s | 99.9 % | 3.0 MB | 2.5 MB | 5 epochs |",
        "| nms | 0.0 s | 0.1 % | - | 900 B |  |",
        "| road | 0.900 | absent | - |",
        "Predicted 20 clicks for 2 regions, true 28; mean absolute error 4 clicks a region.",
        "Region 1: street, y 8, x 16, 32 x 32 px; predicted 12.5 clicks, true 14",
    ):
        assert expected in page
    assert page.count("](data:image/png;base64,") == 3


def test_the_last_round_asks_nothing() -> None:
    page = round_markdown(facts(queries=[], stop_reason="10 rounds are done"), {})
    assert "10 rounds are done" in page
    assert "Clicks of this round" not in page
    assert "data:" not in page


def test_a_page_leaves_out_pictures_that_no_longer_fit() -> None:
    many = {f"region-{index}": bytes(figures.MAX_PNG_BYTES) for index in range(1, 13)}
    page = round_markdown(facts(queries=[query()] * 12), many)
    assert len(page) <= MAX_PAGE_CHARS
    assert "5 of 12 pictures are left out" in page
    assert page.count("data:image") == 7


def test_names_cannot_break_a_page(pictures: Mapping[str, bytes]) -> None:
    evil = facts(campaign=EVIL, queries=[query(EVIL)], class_iou={EVIL: 0.5}, flow_run_url="javascript:alert(1)")
    page = round_markdown(evil, pictures)
    report = campaign_html([evil], [pictures], EVIL)
    for written in (page, report):
        assert "<script" not in written
        assert "javascript:" not in written
    assert r"| a&lt;script&gt;alert(1)&lt;/script&gt;\|\`b\` \# \[c\](x) \$ | 0.500 |" in page
    broken = r"| a&lt;script&gt;alert(1)&lt;/script&gt;\|\`b\` \#<br>\[c\](x) \$ |"
    assert broken in round_markdown(facts(stages=[StageFacts("nms", 1.0, 1, 1, EVIL)]), {})


def test_the_report_stands_alone(pictures: Mapping[str, bytes]) -> None:
    rounds = [facts(points=POINTS[:1]), facts(flow_run_url="http://127.0.0.1:4200/runs/1")]
    report = campaign_html(rounds, [pictures, pictures], 'name = "demo"')
    outside = re.findall(
        r"https?://[^\"]*|//[a-z][^\"]*\.(?:com|org|net)", report.replace("http://127.0.0.1:4200/runs/1", "")
    )
    assert not outside
    assert "<script" not in report
    assert "<link" not in report
    assert report.count("<details") == 2
    assert report.count("<img") == report.count('alt="') == 5
    assert "name = &#34;demo&#34;" in report
    assert "178.5 so far of a budget of 400" in report
    assert '<td class="n">0.250</td><td class="n">+0.050</td>' in report


def test_a_campaign_without_rounds_has_a_report() -> None:
    assert "No round is complete yet" in campaign_html([], [], "")


@pytest.mark.parametrize(
    "address", [None, "", "javascript:alert(1)", "file:///etc/passwd", "runs/1", "//host/runs/1", "/\\host/runs/1"]
)
def test_only_web_addresses_become_links(address: str | None) -> None:
    assert web_link(address) is None


def test_a_path_on_the_same_host_becomes_a_link() -> None:
    assert web_link("/runs/flow-run/1 2") == "/runs/flow-run/1%202"


def test_a_link_cannot_leave_its_place() -> None:
    assert web_link('http://host/a> "b') == "http://host/a%3E%20%22b"


def test_the_round_table_by_hand() -> None:
    assert text.round_table(POINTS, 10_000).splitlines() == [
        "round   mIoU  change  clicks  pixels  of pool",
        "    0  0.200       -     100   1,000   10.0 %",
        "    1  0.250  +0.050   150.5   1,500   15.0 %",
    ]
    assert text.round_table([], 1).count("\n") == 1


def test_the_comparison_by_hand() -> None:
    assert text.comparison_table({"cost-aware": POINTS, "a name that is far too long": POINTS[1:]}).splitlines() == [
        "       |       cost-aware        |  a name that is far t…",
        "round  |   mIoU  clicks  pixels  |   mIoU  clicks  pixels",
        "    0  |  0.200     100   1,000  |",
        "    1  |  0.250   150.5   1,500  |  0.250   150.5   1,500",
    ]


def test_a_table_shows_names_as_they_are_and_cuts_them_where_there_is_no_room() -> None:
    rows = [["[b]:x:", "1"], ["a name too long", "10"]]
    assert text.table(["name", "n"], rows, "left", 10).splitlines() == ["name     n", "[b]:x:   1", "a nam…  10"]
    assert text.table(["name", "n"], rows[:1]).splitlines() == ["  name  n", "[b]:x:  1"]


def test_the_plot_by_hand() -> None:
    lines = text.plot({"a": [Point(0, 0.0, 0, 1), Point(1, 1.5, 100, 2)]}).splitlines()
    assert lines[1] == " 1.500 |" + "..o".rjust(72)
    assert lines[16].startswith(" 0.000 |o")
    assert lines[18] == " " * 8 + "0" + "clicks".center(68) + "100"
    assert lines[19] == "o a"


FINITE = st.floats(0, 1) | st.just(math.nan)
SERIES = st.dictionaries(
    st.text("abc", min_size=1, max_size=9),
    st.lists(st.builds(Point, st.integers(0, 5), FINITE, st.floats(0, 1e7), st.integers(0, 10**9)), max_size=6),
    max_size=3,
)


@settings(max_examples=50)
@given(SERIES)
def test_the_plot_fits_80_columns_and_shows_the_first_series(series: dict[str, list[Point]]) -> None:
    shown = text.plot(series)
    finite = [point for points in series.values() for point in points if math.isfinite(point.miou)]
    assert bool(shown) == bool(finite)
    assert all(len(line) <= 80 for line in shown.splitlines()[:-1])
    if series and any(math.isfinite(point.miou) for point in next(iter(series.values()))):
        assert "o" in "".join(line.partition("|")[2] for line in shown.splitlines())


@given(SERIES)
def test_the_comparison_has_a_line_a_round_and_even_columns(series: dict[str, list[Point]]) -> None:
    lines = text.comparison_table(series).splitlines()
    assert len(lines) == 2 + len({point.round for points in series.values() for point in points})
    assert len({tuple(m.start() for m in re.finditer(r"\|", line)) for line in lines}) == 1


def test_bands_are_plotted_with_their_means_before_any_shade() -> None:
    def seen(low: float, high: float) -> Band:
        made = band([Curve(np.array([0.0, 100.0]), np.full(2, miou)) for miou in (low, high)])
        assert made is not None
        return made

    lines = text.band_plot({"a": seen(0.0, 0.4), "b": seen(0.2, 1.0)}).splitlines()
    assert lines[0] == "  mIoU"
    assert lines[-1] == "o. a   x: b"
    plotted = [line[8:] for line in lines[1 : 1 + text.PLOT_ROWS]]
    assert {len(line) for line in plotted} == {text.PLOT_COLUMNS}
    assert "".join(line[30] for line in plotted) == "::::::x::...o..."
    assert text.band_plot({}) == ""
