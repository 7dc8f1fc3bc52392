"""What studies found, as blocks of the documentation that are made from their tables and from nothing else."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from cereals_core.curves import AXES, COUNTS, Axis
from cereals_core.errors import DataError
from cereals_core.seeding import rng
from cereals_core.study_settings import FULL_LABELS
from cereals_core.study_statistics import (
    Arm,
    StudyFacts,
    areas,
    arm_result,
    final_mious,
    reach,
    shares_to_reach,
)
from cereals_core.uncertainty import Paired, paired, spread
from tasks.pages.markdown import markdown_table
from tasks.pages.study_results import Row
from tasks.pages.study_wording import interval_words, noise_sentences, reach_words, spread_words
from tasks.pages.wording import ABSENT, campaign_title, number, share, signed

BASELINES = ("random-regions", "balanced-random-regions")
HEADINGS: dict[Axis, str] = {
    "clicks": "p95, clicks",
    "with_crossings": "and crossings",
    "with_components": "and components",
    "pixels": "p95, pixels",
}
BLOCK = r"(?P<begin><!-- evidence: (?P<name>[^>]*) -->)\n.*?(?P<end><!-- end -->)"
"""A block of a page, its mark and its end."""


def blocks_of(facts: StudyFacts, points: Sequence[Row], classes: Sequence[Row]) -> dict[str, str]:
    """Write the blocks of a study by name: `<study> reach`, `pairs`, `classes`, `bought`, `noise`."""
    made = {
        "reach": _reach_table(facts),
        "pairs": _pair_table(facts),
        "classes": _class_table(facts, classes),
        "bought": _bought_table(facts, points, classes),
        "noise": noise_sentences(facts),
    }
    return {f"{facts.name} {name}": text for name, text in made.items()}


def goals(studies: Sequence[StudyFacts]) -> str:
    """Write the share of the clicks at which each arm reaches the goal, and its last mIoU, study beside study."""
    names = dict.fromkeys(arm.name for facts in studies for arm in facts.arms)
    rows = [[name, *(cell for facts in studies for cell in _goal_cells(name, facts))] for name in names]
    full = [cell for facts in studies for cell in (f"{facts.full_clicks:,.0f} clicks", spread_words(facts.full_miou))]
    header = [text for facts in studies for text in (f"{facts.name}: p95, clicks", "last mIoU")]
    return markdown_table(["arm", *header], [*rows, ["every label", *full]])


def _goal_cells(name: str, facts: StudyFacts) -> list[str]:
    arm = next((arm for arm in facts.arms if arm.name == name), None)
    if arm is None:
        return [ABSENT, ABSENT]
    return [_reached(arm, facts, "clicks"), spread_words(spread(final_mious(arm.runs).values()))]


def with_blocks(page: str, blocks: Mapping[str, str]) -> str:
    """Put blocks between their marks on a Markdown page; DataError for a mark that no block is for."""

    def filled(found: re.Match[str]) -> str:
        if found["name"] not in blocks:
            raise DataError(f"evidence: {found['name']}: no study has such a block; there are {', '.join(blocks)}")
        return f"{found['begin']}\n{blocks[found['name']]}\n{found['end']}"

    return re.sub(BLOCK, filled, page, flags=re.DOTALL)


def _reach_table(facts: StudyFacts) -> str:
    """Write the share of clicks, counted three ways, and of pixels at which each arm reaches the goal; and its end."""
    rows, counts = [], (*COUNTS, AXES[1])
    for arm in facts.arms:
        result, ended = arm_result(arm, facts), sum(run.ended for run in arm.runs)
        cells = [*(_reached(arm, facts, axis) for axis in counts), number(result.area.mean)]
        cells += [spread_words(result.final_miou), str(ended)]
        rows.append([campaign_title(arm.name, arm.upper_bound), *cells])
    full = [f"{facts.full_spend(axis):,.0f}" for axis in counts]
    rows.append(["every label", *full, ABSENT, spread_words(facts.full_miou), str(facts.full_miou.n)])
    return markdown_table(["arm", *HEADINGS.values(), "AUC", "last mIoU", "seeds"], rows)


def _reached(arm: Arm, facts: StudyFacts, axis: Axis) -> str:
    """Tell at what share an arm reaches the goal; or in how many seeds, and how far the others went."""
    shares = shares_to_reach(arm, facts, axis)
    found = reach(shares.values(), rng(0, "study-reach", arm.name, axis))
    words = reach_words(found, arm.runs) + interval_words(found)
    ends = [getattr(run.last, axis) / facts.full_spend(axis) for run in arm.runs if run.last and not shares[run.seed]]
    return words if found.all_reached or not ends else f"{words} by {share(float(np.mean(ends)), 1)}"


def _pair_table(facts: StudyFacts) -> str:
    """Write how far each arm is above each baseline, over equal clicks and at its end, in pairs of a seed."""
    baselines = [arm for arm in facts.arms if arm.name in BASELINES]
    header = ["arm", *(f"{what} less {arm.name}" for arm in baselines for what in ("AUC", "last mIoU"))]
    rows = []
    for arm in facts.arms:
        cells = []
        for baseline in baselines:
            pairs = [(areas(each, facts, "clicks"), final_mious(each.runs)) for each in (arm, baseline)]
            for index, (ours, theirs) in enumerate(zip(*pairs, strict=True)):
                found = paired(ours, theirs, rng(0, "evidence", arm.name, baseline.name, index))
                above = sum(ours[seed] > theirs[seed] for seed in ours.keys() & theirs.keys())
                cells.append(ABSENT if arm is baseline else _difference(found, above))
        rows.append([campaign_title(arm.name, arm.upper_bound), *cells])
    return markdown_table(header, rows)


def _difference(found: Paired, above: int) -> str:
    limits = f" [{signed(found.low)}, {signed(found.high)}]" if found.n > 1 else ""
    return f"{signed(found.difference)}{limits}, above in {above} of {found.n}" if found.n else ABSENT


def _class_table(facts: StudyFacts, classes: Sequence[Row]) -> str:
    """Write the IoU of each class after the last round, means over seeds."""
    arms = [*(arm.name for arm in facts.arms), FULL_LABELS]
    last = {(row["arm"], row["seed"]): row["round"] for row in classes}  # rounds of a campaign come in order
    found: dict[str, dict[str, list[float]]] = {}
    for row in classes:
        if row["round"] == last[row["arm"], row["seed"]]:
            found.setdefault(row["class_name"], {}).setdefault(row["arm"], []).append(row["iou"])
    rows = [[name, *(number(spread(by_arm.get(arm, [])).mean) for arm in arms)] for name, by_arm in found.items()]
    return markdown_table(["class", *arms], rows)


def _bought_table(facts: StudyFacts, points: Sequence[Row], classes: Sequence[Row]) -> str:
    """Write which classes the labels of the last round are of, in percent of their cells, void among them."""
    shares: dict[str, dict[str, list[float]]] = {}
    last = {(row["arm"], row["seed"]): row for row in points}
    names = list(dict.fromkeys(row["class_name"] for row in classes))
    for (arm, seed), point in last.items():
        key = {"arm": arm, "seed": seed, "round": point["round"]}.items()
        cells = {row["class_name"]: row["cells"] for row in classes if key <= row.items()}
        if None in cells.values():
            continue
        total = point["pixels"] / 64
        for name in names:
            shares.setdefault(name, {}).setdefault(arm, []).append(cells[name] / total)
        shares.setdefault("void", {}).setdefault(arm, []).append(1 - sum(cells.values()) / total)
    arms = [*(arm.name for arm in facts.arms), FULL_LABELS]
    rows = [
        [name, *(share(float(np.mean(by_arm[arm])), 1) if arm in by_arm else ABSENT for arm in arms)]
        for name, by_arm in shares.items()
    ]
    return markdown_table(["class", *arms], rows)
