"""Evidence as it is told: from tables alone, and the repository's own pages say what its tables do."""

from collections.abc import Sequence
from typing import Any

import pytest
from checkout import ROOT

from cereals_core.errors import DataError
from cereals_core.study_settings import FULL_LABELS
from deployments import evidence
from tasks.pages.evidence import blocks_of, goals, with_blocks
from tasks.pages.study_results import facts_from

Rows = list[dict[str, Any]]
ARMS = {"random-regions": False, "cereals": False, "true-cost": True}
MIOU = {"random-regions": (0.3, 0.4, 0.44), "cereals": (0.3, 0.45, 0.5), "true-cost": (0.3, 0.47, 0.5)}
SEEDS = (1, 2)


def campaign(arm: str, seed: int, miou: Sequence[float], clicks: Sequence[float], upper_bound: bool) -> Rows:
    named = {"arm": arm, "seed": seed, "definition": f"as {arm}", "upper_bound": upper_bound, "ended": True}
    return [
        {
            **named,
            "round": number,
            "miou": reached + 0.01 * (seed - 1),
            "clicks": spent,
            "crossings": int(spent),
            "components": 10,
            "pixels": 6400 * (number + 1),
            "steps": 8,
            "epochs": 2,
        }
        for number, (reached, spent) in enumerate(zip(miou, clicks, strict=True))
    ]


def tables() -> tuple[Rows, Rows]:
    """Two seeds of three arms; every label costs 1,000 clicks and gives 0.5, and in the second seed 0.51."""
    points: Rows = []
    for seed in SEEDS:
        for arm, bound in ARMS.items():
            points += campaign(arm, seed, MIOU[arm], (20, 60, 100), bound)
        points += campaign(FULL_LABELS, seed, (0.5,), (1000,), False)
    classes = [
        {name: point[name] for name in ("arm", "seed", "round")}
        | {"class_name": label, "iou": point["miou"], "cells": cells}
        for point in points
        for label, cells in (("road", 60 * (point["round"] + 1)), ("tram", 30 * (point["round"] + 1)))
    ]
    return points, classes


def rows_of(table: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {cells[0]: cells[1:] for cells in lines}


def blocks() -> dict[str, str]:
    points, classes = tables()
    return blocks_of(facts_from("made", points, classes), points, classes)


def test_the_goal_is_told_by_three_counts_of_clicks_and_by_pixels() -> None:
    """In seed 1 the goal, 0.475, is half-way from 60 clicks to 100: 80 of 1,000, with components 170 of 2,010."""
    rows = rows_of(blocks()["made reach"])
    clicks, with_crossings, with_components, pixels, area, last, seeds = rows["cereals"]
    assert (clicks, with_crossings) == (r"8.0 % \[8.0, 8.0\]", r"8.0 % \[8.0, 8.0\]")
    assert with_components == r"8.4 % \[8.4, 8.5\]"
    assert pixels == r"249.5 % \[249.0, 250.0\]"
    assert (area, last, seeds) == ("0.430", "0.505 ± 0.007", "2")
    assert rows["random-regions"][0] == "not reached by 10.0 %"
    assert "true-cost (upper bound)" in rows
    assert rows["every label"][:4] == ["1,000", "2,000", "2,010", "6,400"]


def test_goals_are_told_study_beside_study() -> None:
    points, classes = tables()
    first = facts_from("one", points, classes)
    second = facts_from("two", [row for row in points if row["arm"] != "true-cost"], classes)
    rows = rows_of(goals([first, second]))
    assert rows["arm"] == ["one: p95, clicks", "last mIoU", "two: p95, clicks", "last mIoU"]
    assert rows["random-regions"] == ["not reached by 10.0 %", "0.445 ± 0.007"] * 2
    assert rows["true-cost"][2:] == ["-", "-"]
    assert rows["every label"] == ["1,000 clicks", "0.505 ± 0.007"] * 2


def test_differences_are_told_in_pairs_with_how_many_are_above() -> None:
    rows = rows_of(blocks()["made pairs"])
    assert rows["cereals"][1] == r"+0.060 \[+0.060, +0.060\], above in 2 of 2"
    assert rows["random-regions"] == ["-", "-"]


def test_classes_are_told_by_what_they_came_to_and_what_was_bought() -> None:
    made = blocks()
    assert rows_of(made["made classes"])["road"] == ["0.445", "0.505", "0.505", "0.505"]
    bought = rows_of(made["made bought"])
    assert bought["class"] == [*ARMS, FULL_LABELS]
    assert bought["road"] == ["60.0 %"] * 4
    assert bought["void"] == ["10.0 %"] * 4


def test_blocks_take_the_place_of_what_was_between_their_marks() -> None:
    page = "a\n<!-- evidence: made reach -->\nold\n<!-- end -->\nb\n<!-- evidence: made reach -->\n<!-- end -->\n"
    shown = with_blocks(page, {"made reach": "new"})
    assert shown == page.replace("old\n", "new\n").replace("-->\n<!-- end", "-->\nnew\n<!-- end")
    assert with_blocks(shown, {"made reach": "new"}) == shown
    with pytest.raises(DataError, match="evidence: made reach: no study has such a block; there are other"):
        with_blocks(page, {"other": ""})


@pytest.mark.parametrize("page", evidence.PAGES, ids=lambda page: page.name)
def test_the_repositorys_pages_say_what_its_tables_do(page: Any) -> None:
    text = page.read_text()
    assert "<!-- evidence: " in text
    assert with_blocks(text, evidence.blocks()) == text


def test_every_study_that_is_told_has_its_recipe_and_its_figure() -> None:
    assert evidence.studies()
    for folder in evidence.studies():
        assert (ROOT / "deployments/recipes" / f"{folder.name}.toml").exists()
        assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
