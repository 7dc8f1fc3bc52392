"""A study in plain words: its headline, the rows of its tables, and what their numbers mean."""

import math
from collections.abc import Sequence

from cereals_core.study_statistics import (
    TARGET,
    Arm,
    ArmResult,
    Reach,
    Run,
    StudyFacts,
    compare,
    final_mious,
    noise_floor,
)
from cereals_core.uncertainty import LEVEL, Spread
from tasks.pages.wording import ABSENT, number, plural, share

GOAL = f"{100 * TARGET:.0f} % of the full-label mIoU"
CURVE_NOTE = (
    "Lines: mean over seeds, with a mark at the mean spend of each round; bands: from the lowest seed to the highest; "
    "dashed: upper bounds; thin: campaigns that still run. Grey: the model trained with every label, mean and range "
    "over seeds."
)
STRATEGY_NOTE = (
    f"p95: the smallest share of what every label costs at which the lines between rounds reach {GOAL} of the same "
    f"seed; mean over seeds, if all reach it, its {100 * LEVEL:.0f} % bootstrap interval in brackets. AUC: mean mIoU "
    "over the clicks that all ended campaigns of a seed cover. Clicks: spent on the labels of the last round, mean "
    "over seeds. ±: standard deviation over seeds. Of few seeds, intervals are too narrow."
)
FULL_SHADE_IOU = 0.1
"""Difference of a class's IoU from the baseline's at which its cell has the full shade (our choice)."""
CLASS_NOTE = (
    "Mean over seeds, ± their standard deviation. Shade: better (blue) or worse (orange) than the strategy that all "
    f"are compared with, full at a difference of {FULL_SHADE_IOU:.2f}. A dash: the evaluation split lacks the class."
)


def headline(facts: StudyFacts, results: Sequence[ArmResult]) -> str:
    """Tell which strategy reaches the goal first, at what share of the clicks, how sure that is, and what is open.

    Upper bounds are no strategies: they are named after the others. A strategy counts if all its seeds reach the goal.
    """
    strategies = [result for result in results if not result.arm.upper_bound]
    reached = sorted(filter(_all_reached, strategies), key=_mean_share)
    told = _first(reached, strategies, facts) if reached else _none_reached(strategies, facts)
    bounds = [
        f"The upper bound {result.arm.name}, chosen by true clicks, needs {share(_mean_share(result), 1)}."
        for result in results
        if result.arm.upper_bound and _all_reached(result)
    ]
    return " ".join([*told, *bounds, *_running(facts)])


def _all_reached(result: ArmResult) -> bool:
    return result.reach["clicks"].all_reached


def _mean_share(result: ArmResult) -> float:
    return result.reach["clicks"].mean


def _first(reached: Sequence[ArmResult], strategies: Sequence[ArmResult], facts: StudyFacts) -> list[str]:
    best, others = reached[0], [result for result in strategies if result is not reached[0]]
    first = "first so far" if _running(facts) else "first"
    text = [
        f"{best.arm.name} reaches {GOAL} {first}, at {_share_of_clicks(best.reach['clicks'])}{_ahead(best, others)}.",
        *_against_baseline(best.arm, facts),
    ]
    if len(reached) > 1:
        text.append(f"Next is {reached[1].arm.name}, at {share(_mean_share(reached[1]), 1)}.")
    elif others:
        text.append("No other does in every seed.")
    return text


def _ahead(best: ArmResult, others: Sequence[ArmResult]) -> str:
    shares = best.shares["clicks"]
    rivals = [other.shares["clicks"] for other in others]
    seeds = [seed for seed in shares if all(seed in rival for rival in rivals)]
    ahead = [seed for seed in seeds if all(_or_infinity(shares[seed]) < _or_infinity(rival[seed]) for rival in rivals)]
    return (
        f", ahead of every other strategy in {len(ahead)} of {plural(len(seeds), 'seed')}" if others and seeds else ""
    )


def _or_infinity(value: float | None) -> float:
    return math.inf if value is None else value


def _share_of_clicks(reach: Reach) -> str:
    limits = f"{100 * reach.low:.1f} to {share(reach.high, 1)}"
    interval = f"{100 * LEVEL:.0f} % interval {limits}, " if reach.seeds > 1 else ""
    return f"{share(reach.mean, 1)} of the clicks ({interval}{plural(reach.seeds, 'seed')})"


def _against_baseline(arm: Arm, facts: StudyFacts) -> list[str]:
    if facts.baseline is None or arm is facts.baseline or not (found := compare(arm, facts.baseline, facts).area).n:
        return []
    side = f"{abs(found.difference):.3f} {'above' if found.difference >= 0 else 'below'} {facts.baseline.name}"
    sure = f"sign-flip p {p_value(found.flip_p)} over {found.n} pairs" if found.n > 1 else "one pair"
    return [f"At equal clicks its mIoU is on average {side} ({sure})."]


def _none_reached(strategies: Sequence[ArmResult], facts: StudyFacts) -> list[str]:
    full = facts.full_miou
    if not full.n:
        text = ["Without a full-label reference, no share of its mIoU can be told."]
    else:
        text = [f"No strategy reaches {GOAL} ({number(full.mean)}) in every seed{' yet' if _running(facts) else ''}."]
    if ended := [result for result in strategies if result.area.n]:
        best = max(ended, key=lambda result: result.area.mean)
        text.append(f"Over equal clicks the best mean mIoU is {number(best.area.mean)}, of {best.arm.name}.")
        text.extend(_against_baseline(best.arm, facts))
    if ended := [result for result in strategies if result.final_miou.n]:
        best = max(ended, key=lambda result: result.final_miou.mean)
        text.append(f"The best final mIoU is {spread_words(best.final_miou)}, of {best.arm.name}.")
    return text


def _running(facts: StudyFacts) -> list[str]:
    ended, all_of_them = _ended(facts)
    return (
        [] if ended == all_of_them else [f"Still running: {ended} of {plural(all_of_them, 'campaign')} ended so far."]
    )


def _ended(facts: StudyFacts) -> tuple[int, int]:
    """Tell how many campaigns of strategies have ended, of how many."""
    runs = [run for arm in facts.arms for run in arm.runs]
    return sum(run.ended for run in runs), len(runs)


def description(facts: StudyFacts) -> str:
    """Describe a study in one line of a list of pages: `streets-study: 4 of 21 campaigns have ended`."""
    ended, all_of_them = _ended(facts)
    return f"{facts.name}: {ended} of {all_of_them} campaigns have ended"


def interval_words(found: Reach) -> str:
    """Write an interval in per cent, after a blank: ` [16.0, 18.4]`; empty where there is none."""
    return f" [{100 * found.low:.1f}, {100 * found.high:.1f}]" if found.all_reached and found.seeds > 1 else ""


def spread_words(found: Spread) -> str:
    """Write a mean with its standard deviation, `0.550 ± 0.004`, or the one value there is."""
    return number(found.mean) + (f" ± {number(found.std)}" if found.n > 1 else "")


def p_value(value: float) -> str:
    """Write a p value: `0.250`, `<0.001`; a dash for NaN."""
    return "<0.001" if value < 0.001 else number(value)


def reach_words(found: Reach, runs: Sequence[Run]) -> str:
    """Tell at what share the goal is reached, `17.2 %`, or in how many seeds, `only 2 of 3`; a dash if none has tried.

    While one of `runs` still runs, `2 of 3 so far` and `not yet` stand for `only 2 of 3` and `not reached`.
    """
    if not found.seeds:
        return ABSENT
    if found.all_reached:
        return share(found.mean, 1)
    running = not all(run.ended for run in runs)
    if not found.shares:
        return "not yet" if running else "not reached"
    count = f"{len(found.shares)} of {found.seeds}"
    return f"{count} so far" if running else f"only {count}"


def paired_note(facts: StudyFacts) -> str:
    """Tell how to read the differences from the baseline, and the least p value that so few pairs allow."""
    baseline = final_mious(facts.baseline.runs) if facts.baseline else {}
    others = [final_mious(arm.runs) for arm in facts.arms if arm is not facts.baseline]
    pairs = max((len(baseline.keys() & other.keys()) for other in others), default=0)
    least = f" With {pairs} pairs, the sign-flip p cannot be below {p_value(2 / 2**pairs)}." if pairs > 1 else ""
    return (
        "Mean difference over pairs of campaigns with the same seed, hence the same seed set; its "
        f"{100 * LEVEL:.0f} % bootstrap interval in brackets; two-sided p values of the paired t test and of the "
        f"sign-flip permutation test.{least} They are not corrected for making {2 * len(others)} comparisons at once."
    )


def noise_sentences(facts: StudyFacts) -> str:
    """Tell by how much results differ that should not: of the same seed twice, and of the reference over seeds."""
    return " ".join([_repeat_sentence(facts), *_reference_sentence(facts)])


def _repeat_sentence(facts: StudyFacts) -> str:
    if facts.repeat is None:
        return "No campaign was run twice with the same seed, so the noise of training is not known."
    arm, first, second = facts.repeat.arm, facts.repeat.first, facts.repeat.second
    found = noise_floor(first, second)
    if not found.n:
        return f"{arm} is to run twice with seed {first.seed}; no round of both is there yet."
    return (
        f"{arm} ran twice with seed {first.seed}: over {plural(found.n, 'round')} the mIoU of the two differs by "
        f"{number(found.mean)} on average and by {number(found.high)} at most. A difference as small between two "
        "campaigns says nothing about their strategies."
    )


def _reference_sentence(facts: StudyFacts) -> list[str]:
    full = facts.full_miou
    if not full.n:
        return []
    limits = f", from {number(full.low)} to {number(full.high)} over {full.n} seeds" if full.n > 1 else " in one seed"
    return [f"Trained with every label, the model reaches mIoU {spread_words(full)}{limits}."]
