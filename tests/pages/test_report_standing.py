"""Where a campaign stands, and what its stages did, in words."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from made_facts import POINTS, facts, query

from cereals_core.curves import Point
from tasks.pages.facts import StageFacts
from tasks.pages.markdown import round_markdown
from tasks.pages.stages import stage_facts, stage_line, time_sentence
from tasks.pages.standing import budget_sentence, standing_rows
from tasks.pages.wording import choice_sentence, describes, description, stage_title
from tasks.store.products import Product


def test_what_is_spent_by_hand() -> None:
    # Round 0 asked for 50.5 clicks and round 1 for 28, on 100 of the seed set; its two regions hold 2 x 32 x 32 px.
    planned = facts(rounds=8, target_miou=0.5)
    assert standing_rows(planned) == [
        ["clicks", "28", "178.5", "400", "44.6 %"],
        ["rounds of queries", "1", "2", "8", "25.0 %"],
        ["labelled pixels", "2,048", "3,548", "10,000 (pool)", "35.5 %"],
        ["mIoU", "0.250 (+0.050)", "0.250 (best)", "0.500 (target)", "-"],
    ]
    assert [row[3:] for row in standing_rows(facts(budget_clicks=None))] == [
        ["-", "-"],
        ["-", "-"],
        ["10,000 (pool)", "35.5 %"],
        ["-", "-"],
    ]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 78.5 clicks in 2 rounds are 39.25 a round, and 221.5 of 400 are left: enough for 5.6 rounds.
        (
            {"rounds": 7},
            "On track: a round has cost 39 clicks on average, so that the 222 clicks left last for the 5 r",
        ),
        ({"rounds": 8}, "The clicks will run out first: a round has cost 39 clicks on average, so that the 222 clicks"),
        ({"rounds": 8}, "last for about 5.6 more rounds, and 6 are planned."),
        ({"rounds": 2}, "On track: all rounds of queries are done with 222 clicks of the budget left; the next round"),
        ({"budget_clicks": 178.5}, "The budget of 178.5 clicks is spent: the next round trains on these labels and"),
        ({}, "A round has cost 39 clicks on average, so that the 222 clicks left last for about 5.6 more rounds."),
        ({"budget_clicks": None}, ""),
        ({"budget_clicks": None, "rounds": 4}, "with 2 more rounds of queries the campaign ends near 257 clicks."),
        ({"budget_clicks": None, "rounds": 2}, "All rounds of queries are done, for 178 clicks; the next round"),
        ({"queries": [], "stop_reason": "x"}, "The campaign has ended after 150 clicks; 250 clicks of the budget are"),
        ({"queries": [], "stop_reason": "x", "budget_clicks": 100.0}, "150 clicks; 50 clicks more than the budget."),
        ({"queries": [], "stop_reason": "x", "budget_clicks": None}, "after 150 clicks; no budget was set."),
        ({"queries": [query()] * 2, "points": [Point(0, 0.2, 150.5, 1)], "rounds": 1}, "On track: all rounds"),
    ],
)
def test_whether_the_budget_lasts(changes: dict[str, object], expected: str) -> None:
    said = budget_sentence(facts(**changes))
    assert expected in said if expected else said == ""


def test_a_page_says_where_the_campaign_stands() -> None:
    page = round_markdown(facts(rounds=7), {})
    assert page.startswith("# demo, round 1 of 7\n")
    assert "## Where the campaign stands\n\nOn track: a round has cost 39 clicks" in page
    assert "|  | this round | so far | limit | used |" in page


def test_a_page_is_known_by_its_description() -> None:
    said = description(facts(rounds=12))
    assert said == "demo, round 1 of 12: mIoU 0.250, 178.5 clicks so far"
    assert describes(said, facts(points=[*POINTS, Point(2, 0.3, 180, 2000)]), 1)
    for other in (None, "", "demo, round 11 of 12: mIoU 0.250", "demo-2, round 1 of 12", "a demo, round 1 of 12"):
        assert not describes(other, facts(), 1)
    assert not describes(said, facts(upper_bound=True), 1)


def test_a_stage_in_a_line() -> None:
    made = {"note": "1 image, 7 epochs", "hosts": ["a gpu-0", "b gpu-0"], "peak_bytes": 2e6}
    product = Product(Path(), "", "", "train-seg", 65.0, 1_500, facts=made)
    assert stage_line(stage_title("demo", 2, "train-seg"), stage_facts(product)) == (
        "demo round 2 train-seg: done in 1 min 05 s on a gpu-0, b gpu-0; "
        "1 image, 7 epochs; 1.5 kB written; 2.0 MB peak memory"
    )
    bare = stage_facts(Product(Path(), "", "", "x", 1.0, 0))
    assert stage_line(stage_title("demo", None, "x"), bare) == "demo start x: done in 1.0 s; 0 B written"


def test_stages_of_one_place_name_it_once_and_of_several_each() -> None:
    alike = [StageFacts("train-seg", 30.0, 1, 1, "", "node"), StageFacts("nms", 10.0, 1, 1, "", "node")]
    assert time_sentence(facts(stages=alike)) == (
        "The stages of this round took 40.0 s on node, train-seg the longest (75.0 %)."
    )
    apart = [alike[0], StageFacts("nms", 10.0, 1, 1, "", "node cpu")]
    page = round_markdown(facts(stages=apart), {})
    assert "took 40.0 s, train-seg" in page
    assert "| stage | time | share | peak memory | written | ran on | result |" in page
    assert "| nms | 10.0 s | 25.0 % | 1 B | 1 B | node cpu |  |" in page
    assert time_sentence(facts(stages=[])) == ""


@pytest.mark.parametrize(
    ("information", "predicted", "upper_bound", "expected"),
    [
        (
            20.0,
            12.5,
            False,
            "The first 2 of 3 regions, best first: what a region would teach the network, against what",
        ),
        (20.0, math.nan, True, "would teach the network, against what it would cost."),
        (20.0, math.nan, False, "best first: what a region would teach the network."),
        (math.nan, math.nan, False, "The first 2 of 3 regions, drawn at random."),
    ],
)
def test_by_what_regions_were_chosen(information: float, predicted: float, upper_bound: bool, expected: str) -> None:
    queries = [replace(query(predicted=predicted), information=information)] * 3
    assert expected in choice_sentence(facts(queries=queries, upper_bound=upper_bound), 2)


def test_many_classes_stand_side_by_side() -> None:
    page = round_markdown(facts(class_iou={str(index): index / 10 for index in range(4)}), {})
    assert "| class | IoU | class | IoU | class | IoU |" in page
    assert "| 0 | 0.000 | 1 | 0.100 | 2 | 0.200 |\n| 3 | 0.300 |  |  |  |  |" in page
