"""Where a campaign stands: what it has spent of what it may spend, and how far that will go."""

import math

from tasks.pages.facts import RoundFacts
from tasks.pages.wording import ABSENT, clicks, number, plural, share, signed

STANDING_HEADER = ("", "this round", "so far", "limit", "used")


def standing_rows(facts: RoundFacts) -> list[list[str]]:
    """Return rows of clicks, rounds, pixels and mIoU under STANDING_HEADER; a dash where no limit is set."""
    best = max((point.miou for point in facts.points if math.isfinite(point.miou)), default=math.nan)
    pixels = facts.point.pixels + facts.asked_pixels
    budget, rounds, target = facts.budget_clicks, facts.rounds, facts.target_miou
    return [
        [
            *("clicks", clicks(facts.asked_clicks), clicks(facts.clicks_so_far)),
            *((clicks(budget), share(facts.clicks_so_far, budget)) if budget is not None else (ABSENT, ABSENT)),
        ],
        [
            *("rounds of queries", f"{bool(facts.queries):d}", f"{facts.rounds_asked}"),
            *((f"{rounds}", share(facts.rounds_asked, rounds)) if rounds is not None else (ABSENT, ABSENT)),
        ],
        [
            *("labelled pixels", f"{facts.asked_pixels:,}", f"{pixels:,}"),
            *(f"{facts.pool_pixels:,} (pool)", share(pixels, facts.pool_pixels)),
        ],
        [
            *("mIoU", f"{number(facts.point.miou)} ({signed(facts.gain)})", f"{number(best)} (best)"),
            *(ABSENT if target is None else f"{number(target)} (target)", ABSENT),
        ],
    ]


def budget_sentence(facts: RoundFacts) -> str:
    """Tell whether the budget lasts for the rounds planned, at the average cost of a round; empty if unknown."""
    if facts.stop_reason is not None:
        return _ended(facts)
    if facts.budget_clicks is None:
        return _without_budget(facts)
    left = facts.budget_clicks - facts.clicks_so_far
    if left <= 0:
        return f"The budget of {clicks(facts.budget_clicks)} clicks is spent: {_LAST}"
    if facts.rounds is not None and facts.rounds <= facts.rounds_asked:
        return f"On track: all rounds of queries are done with {_clicks(left)} of the budget left; {_LAST}"
    return _within_budget(facts, left)


_LAST = "the next round trains on these labels and asks for nothing more."


def _ended(facts: RoundFacts) -> str:
    if facts.budget_clicks is None:
        return f"The campaign has ended after {_clicks(facts.clicks_so_far)}; no budget was set."
    left = facts.budget_clicks - facts.clicks_so_far
    rest = f"{_clicks(left)} of the budget are left" if left >= 0 else f"{_clicks(-left)} more than the budget"
    return f"The campaign has ended after {_clicks(facts.clicks_so_far)}; {rest}."


def _without_budget(facts: RoundFacts) -> str:
    if facts.rounds is None or not facts.rounds_asked:
        return ""
    more, a_round = facts.rounds - facts.rounds_asked, _clicks_a_round(facts)
    end = facts.clicks_so_far + more * a_round
    if more <= 0:
        return f"All rounds of queries are done, for {_clicks(facts.clicks_so_far)}; {_LAST}"
    return (
        f"No budget of clicks is set. A round has cost {_clicks(a_round)} on average; with "
        f"{plural(more, 'more round')} of queries the campaign ends near {_clicks(end)}."
    )


def _within_budget(facts: RoundFacts, left: float) -> str:
    a_round = _clicks_a_round(facts)
    if a_round <= 0:
        return f"{_clicks(left)} of the budget are left."
    cost = f"a round has cost {_clicks(a_round)} on average, so that the {_clicks(left)} left last for"
    about = f"about {left / a_round:,.1f} more rounds"
    if facts.rounds is None:
        return f"{cost[0].upper()}{cost[1:]} {about}."
    planned = facts.rounds - facts.rounds_asked
    if planned * a_round <= left:
        return f"On track: {cost} the {plural(planned, 'round')} still planned."
    return f"The clicks will run out first: {cost} {about}, and {planned} are planned."


def _clicks_a_round(facts: RoundFacts) -> float:
    """Average the clicks of a round so far; 0 before the first query."""
    return (facts.clicks_so_far - facts.points[0].clicks) / facts.rounds_asked if facts.rounds_asked else 0.0


def _clicks(count: float) -> str:
    return plural(round(count), "click")
