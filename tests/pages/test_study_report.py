"""The report of a study: what it says, that it stands alone, and that nothing in a name can break it."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from cereals_core.curves import Point
from cereals_core.strategies import STRATEGIES
from cereals_core.study_statistics import Arm, Repeat, Run, StudyFacts, arm_result
from tasks.pages import study_figures, study_tables, study_wording
from tasks.pages.figures import COLOURS
from tasks.pages.markdown import MAX_PAGE_CHARS
from tasks.pages.study_report import study_html, study_markdown, study_text
from tasks.pages.wording import UPPER_BOUND

EVIL = "a<script>alert(1)</script>|`b`\n# [c](x) $"


def run(seed: int, first: float, *rest: tuple[float, float], ended: bool = True, iou: float = 0.5) -> Run:
    """A campaign from 100 clicks at mIoU `first` on, by (clicks, mIoU); each round labels 1,000 of 10,000 pixels."""
    points = [Point(i, miou, clicks, 1000 * (i + 1)) for i, (clicks, miou) in enumerate([(100.0, first), *rest])]
    return Run(seed, points, {"road": iou, "tram": math.nan}, ended)


RANDOM = Arm("random-regions", "drawn", False, [run(1, 0.4, (300, 0.5)), run(2, 0.4, (300, 0.45))])
CEREALS = Arm("cereals", "I / (1 + C)", False, [run(1, 0.4, (200, 0.5)), run(2, 0.4, (200, 0.55), iou=0.6)])
BOUND = Arm("true-cost", "true clicks", True, [run(1, 0.4, (150, 0.5), iou=0.3), run(2, 0.4, (150, 0.5), iou=0.3)])
REFERENCE = [Run(seed, [Point(0, 0.5, 1000, 10_000)], {"road": 0.75}) for seed in (1, 2)]
FACTS = StudyFacts(
    "shares",
    [RANDOM, CEREALS, BOUND],
    REFERENCE,
    1000,
    10_000,
    "seeds = [1, 2] # <x>",
    Repeat("cereals", *CEREALS.runs),
)
WAITING = replace(
    FACTS, arms=[replace(arm, runs=[replace(arm.runs[0], ended=False), Run(2, ended=False)]) for arm in FACTS.arms]
)
"""Campaigns of seed 1 still run, those of seed 2 have not begun."""
EMPTY = StudyFacts("empty", [], [], 1, 1, "")


def headline(facts: StudyFacts) -> str:
    return study_wording.headline(facts, [arm_result(arm, facts) for arm in facts.arms])


class Page(HTMLParser):
    """What a browser would see: tables as rows of text, and every tag with its attributes; unclosed tags fail."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] = f"{self.tables[-1][-1][-1]} {data}".strip()


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(study_html(FACTS))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3).astype(int)


def count(png: bytes, colour: str) -> int:
    return int((np.abs(pixels(png) - list(bytes.fromhex(colour[1:]))).max(axis=1) <= 12).sum())


def test_the_headline_says_who_is_first_and_how_sure_that_is() -> None:
    assert headline(FACTS) == (
        "cereals reaches 95 % of the full-label mIoU first, at 16.2 % of the clicks (95 % interval 15.0 to 17.5 %, "
        "2 seeds), ahead of every other strategy in 2 of 2 seeds. At equal clicks its mIoU is on average 0.022 above "
        "random-regions (sign-flip p 0.500 over 2 pairs). No other does in every seed. "
        "The upper bound true-cost, chosen by true clicks, needs 13.8 %."
    )


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (
            [RANDOM],
            "No strategy reaches 95 % of the full-label mIoU (0.500) in every seed. Over equal clicks the best mean",
        ),
        ([BOUND], "No strategy reaches 95 % of the full-label mIoU (0.500) in every seed. The upper bound"),
        ([CEREALS], "16.2 % of the clicks (95 % interval 15.0 to 17.5 %, 2 seeds)."),
        ([CEREALS, replace(CEREALS, name="twin")], "in 0 of 2 seeds. Next is twin, at 16.2 %."),
        ([CEREALS, replace(RANDOM, runs=[])], "2 seeds). No other does in every seed."),
        ([replace(CEREALS, runs=CEREALS.runs[:1])], "first, at 17.5 % of the clicks (1 seed)."),
        (
            [RANDOM, replace(CEREALS, runs=[CEREALS.runs[0], Run(2, ended=False)])],
            "cereals reaches 95 % of the full-label mIoU first so far, at 17.5 % of the clicks (1 seed), ahead of "
            "every other strategy in 1 of 1 seed. At equal clicks its mIoU is on average 0.025 above random-regions "
            "(one pair). No other does in every seed. Still running: 3 of 4 campaigns ended so far.",
        ),
    ],
    ids=["not reached", "only a bound", "alone", "tie", "not begun", "one seed", "running"],
)
def test_headlines_of_other_studies(arms: Sequence[Arm], said: str) -> None:
    assert said in headline(replace(FACTS, arms=arms))


def test_headlines_without_a_reference() -> None:
    assert headline(replace(FACTS, reference=[])) == (
        "Without a full-label reference, no share of its mIoU can be told. Over equal clicks the best mean mIoU is "
        "0.431, of cereals. At equal clicks its mIoU is on average 0.022 above random-regions (sign-flip p 0.500 over "
        "2 pairs). The best final mIoU is 0.525 ± 0.035, of cereals."
    )


def test_a_study_that_still_runs_says_so() -> None:
    assert headline(replace(WAITING, arms=WAITING.arms[2:])).endswith("Still running: 0 of 2 campaigns ended so far.")
    slow = replace(RANDOM, runs=[run(1, 0.1, ended=False), run(2, 0.4, (300, 0.5))])
    assert "in every seed yet" in headline(replace(FACTS, arms=[slow]))
    page = Page(study_html(replace(FACTS, arms=[slow])))
    assert page.tables[0][1][1:3] == ["1 of 2 so far", "1 of 2 so far"]
    assert [row[2] for row in page.tables[-1][1:]] == ["0, running", "1"]
    assert Page(study_html(WAITING)).tables[0][1][1:] == ["25.0 %", "17.5 %", "-", "-", "-", "0/2"]


def test_the_table_of_strategies_by_hand(page: Page) -> None:
    assert page.tables[0] == [
        ["strategy", "p95, clicks", "p95, pixels", "AUC", "final mIoU", "clicks", "ended"],
        ["random-regions drawn", "only 1 of 2", "only 1 of 2", "0.409", "0.475 ± 0.035", "300", "2/2"],
        ["cereals I / (1 + C)", "16.2 % [15.0, 17.5]", "16.2 %", "0.431", "0.525 ± 0.035", "200", "2/2"],
        ["true-cost upper bound true clicks", "13.8 % [13.8, 13.8]", "17.5 %", "0.450", "0.500 ± 0.000", "150", "2/2"],
        ["every label the whole pool labelled: the reference", "-", "-", "-", "0.500 ± 0.000", "1,000", "2/2"],
    ]


def test_the_table_of_pairs_by_hand(page: Page) -> None:
    header, _, cereals, bound = page.tables[1]
    assert header == ["strategy", "AUC", "final mIoU"]
    assert cereals[:5] == ["cereals", "+0.022 [+0.013, +0.031]", "2", "0.258", "0.500"]
    assert cereals[5:] == ["+0.050 [+0.000, +0.100]", "2", "0.500", "1.000"]
    assert bound[0] == "true-cost upper bound"
    assert "With 2 pairs, the sign-flip p cannot be below 0.500. They are not corrected for making 4 comp" in page.text


def test_the_table_of_classes_is_shaded_by_the_difference_from_the_baseline(page: Page) -> None:
    assert page.tables[2] == [
        ["class", "random-regions", "cereals", "true-cost upper bound", "every label"],
        ["road", "0.500 ± 0.000", "0.550 ± 0.071", "0.300 ± 0.000", "0.750 ± 0.000"],
        ["tram", "-", "-", "-", "-"],
    ]
    road, tram = study_tables.class_table(FACTS).values()
    assert [cell.shade for cell in road] == pytest.approx([0, 0.5, -1, 1])
    assert [cell.shade for cell in tram] == [0, 0, 0, 0]
    shades = [(tag["class"], tag["style"]) for _, tag in page.tags if "style" in tag][:4]
    assert shades[1:] == [("n better", "--shade: 0.50"), ("n worse", "--shade: 1.00"), ("n better", "--shade: 1.00")]


def test_the_table_of_campaigns_by_hand(page: Page) -> None:
    assert page.tables[3][2:4] == [
        ["random-regions", "2", "1", "0.450", "300", "30.0 %", "2,000", "20.0 %", "-", "-"],
        ["cereals", "1", "1", "0.500", "200", "20.0 %", "2,000", "20.0 %", "17.5 %", "17.5 %"],
    ]
    assert len(page.tables[3]) == 7


def test_the_noise_is_told(page: Page) -> None:
    noise = "over 2 rounds the mIoU of the two differs by 0.025 on average and by 0.050 at most."
    assert f"cereals ran twice with seed 1: {noise}" in page.text
    assert "the model reaches mIoU 0.500 ± 0.000, from 0.500 to 0.500 over 2 seeds." in page.text
    assert "is to run twice" in study_wording.noise_sentences(replace(FACTS, repeat=Repeat("a", Run(1), Run(1))))
    assert "not known" in study_wording.noise_sentences(replace(FACTS, repeat=None, reference=REFERENCE[:1]))


def test_upper_bounds_are_marked_wherever_they_are_named(page: Page) -> None:
    assert all(any("true-cost upper bound" in cell for row in table for cell in row) for table in page.tables)
    assert UPPER_BOUND in page.text
    assert "| true-cost (upper bound) | true clicks | 13.8 %" in study_markdown(FACTS)
    text = study_text(FACTS)
    assert "\ntrue-cost * " in text
    assert UPPER_BOUND in text.replace("\n", " ")
    assert UPPER_BOUND not in study_text(replace(FACTS, arms=FACTS.arms[:2]))


def test_the_page_stands_alone(page: Page) -> None:
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "a", "form"})
    sources = [(tag["src"] or "").partition(",")[0] for name, tag in page.tags if name == "img"]
    assert sources == ["data:image/png;base64"] * 2
    written = re.sub(r"base64,[^\"]*", "", study_html(FACTS))
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bon[a-z]+=", written)
    assert "seeds = [1, 2] # <x>" in page.text


def test_names_cannot_break_a_page() -> None:
    arms = [Arm(EVIL, EVIL, True, CEREALS.runs), replace(RANDOM, name=EVIL)]
    evil = replace(FACTS, name=EVIL, settings=EVIL, arms=arms)
    page = Page(study_html(evil))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(EVIL) >= 6
    assert "<script" not in (markdown := study_markdown(evil))
    assert r"| a&lt;script&gt;alert(1)&lt;/script&gt;\|\`b\` \# \[c\](x) \$ (upper bound) |" in markdown


def test_the_text_by_hand() -> None:
    *_, table, plot = study_text(replace(FACTS, arms=[RANDOM, CEREALS], reference=[])).split("\n\n")
    assert (plot[:6], plot.splitlines()[-1]) == ("  mIoU", "o. random-regions   x: cereals")
    assert table.splitlines()[1:] == [
        "random-regions            -            -  0.419  0.475 ± 0.035     300    2/2",
        "cereals                   -            -  0.463  0.525 ± 0.035     200    2/2",
    ]


def many() -> StudyFacts:
    """All strategies by their names, one more far too long, and clicks in millions."""
    names = [*STRATEGIES, "a-strategy-whose-name-nobody-can-read-in-a-terminal"]
    runs = [replace(each, points=[replace(p, clicks=1e4 * p.clicks) for p in each.points]) for each in CEREALS.runs]
    arms = [Arm(name, "definition " * 9, name == "cereals-true-cost", runs) for name in names]
    reference = [replace(each, points=[replace(each.points[0], clicks=1e7)]) for each in REFERENCE]
    return replace(FACTS, arms=arms, full_clicks=1e7, reference=reference)


def test_the_text_of_many_strategies_fits_100_columns() -> None:
    assert max(map(len, lines := study_text(many()).splitlines())) == 100
    for name in ("a" + "-a" * length for length in range(40)):
        text = study_text(replace(FACTS, arms=[CEREALS, replace(CEREALS, name=name)]))
        assert "\n%" not in text
        assert f"Next is {name}, at" in text.replace("\n", " ")
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in STRATEGIES)
    assert sum(line.startswith("a-strategy-whose-name") and "…  " in line for line in lines) == 1


def test_the_page_for_prefect_carries_the_table_and_stays_small() -> None:
    page = study_markdown(many())
    assert len(page) < MAX_PAGE_CHARS / 2
    assert page.count("](data:image/png;base64,") == 1
    assert len(re.findall(r"^\| ", page, flags=re.MULTILINE)) == 2 * (2 + len(STRATEGIES) + 1 + 1)
    assert "| cereals | I / (1 + C) | 16.2 % \\[15.0, 17.5\\] | 16.2 % | 0.431 |" in study_markdown(FACTS)


def test_twenty_one_strategies_look_different_and_only_upper_bounds_are_dashed() -> None:
    looks = [study_figures.look(place, False) for place in range(21)]
    assert len({(look.colour, look.dash) for look in looks}) == 21
    assert len({(look.colour, look.marker) for look in looks}) == 21
    assert "--" not in {look.dash for look in looks}
    assert {study_figures.look(place, True).dash for place in range(21)} == {"--"}


def test_the_figure_shows_every_strategy_and_the_reference() -> None:
    for whole in (study_figures.study_curve(FACTS, "clicks"), study_figures.study_curve(FACTS, "pixels")):
        assert [count(whole, colour) > 500 for colour in COLOURS[:4]] == [True, True, True, False]
    legend = replace(WAITING, arms=[replace(arm, runs=[]) for arm in WAITING.arms])
    unlabelled = replace(WAITING, reference=[])
    waiting, named, alone = (study_figures.study_curve(facts, "clicks") for facts in (WAITING, legend, unlabelled))
    assert count(waiting, COLOURS[0]) > count(named, COLOURS[0]) + 300
    assert (pixels(waiting) < 120).all(axis=1).sum() > (pixels(alone) < 120).all(axis=1).sum() + 500


@pytest.mark.parametrize(
    "facts",
    [
        EMPTY,
        WAITING,
        replace(FACTS, reference=[], repeat=None),
        replace(FACTS, arms=[replace(RANDOM, runs=[])]),
        replace(FACTS, arms=[replace(RANDOM, runs=[Run(1, [Point(0, math.nan, 5, 5)], {"road": math.nan})])]),
        replace(FACTS, arms=[replace(RANDOM, runs=[run(1, 0.4)]), replace(CEREALS, runs=[run(1, 0.4), run(2, 0.4)])]),
    ],
    ids=["empty", "waiting", "no reference", "no campaign", "NaN", "one round"],
)
def test_reports_of_little_data(facts: StudyFacts) -> None:
    page = Page(study_html(facts))
    assert "nan" not in re.sub(r"[a-z]{4,}", "", page.text.lower()).split()
    assert "nan" not in study_text(facts).split()
    assert study_markdown(facts).startswith(f"# {facts.name}\n")
