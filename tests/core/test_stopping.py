from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.settings import Stop
from cereals_core.stopping import stop_reason


class Reached(NamedTuple):
    miou: float
    clicks: float = 100.0


def reached(*mious: float) -> list[Reached]:
    return [Reached(miou) for miou in mious]


shares = st.integers(0, 40).map(lambda number: number / 40)
histories = st.lists(st.builds(Reached, shares, st.integers(0, 500).map(float)), min_size=1, max_size=12)
stops = st.builds(
    Stop,
    rounds=st.integers(0, 12),
    clicks=st.none() | st.integers(1, 500).map(float),
    target_miou=st.none() | st.integers(1, 40).map(lambda number: number / 40),
    converged_rounds=st.none() | st.integers(1, 6),
    min_gain=st.sampled_from([0.0, 0.02, 0.1]),
)


def test_rounds_of_queries_are_followed_by_one_more_measurement() -> None:
    stop = Stop(rounds=2)
    assert stop_reason(stop, reached(0.1, 0.2)) is None
    assert stop_reason(stop, reached(0.1, 0.2, 0.3)) == "all 2 rounds of queries are done"
    assert stop_reason(Stop(rounds=0), reached(0.1)) == "all 0 rounds of queries are done"


def test_target_is_reached_by_the_last_round_at_equality() -> None:
    stop = Stop(target_miou=0.6)
    assert stop_reason(stop, reached(0.599)) is None
    assert stop_reason(stop, reached(0.6)) == "target reached: mIoU 0.6000, wanted 0.6"
    assert stop_reason(stop, reached(0.7, 0.5)) is None


def test_budget_is_spent_at_equality() -> None:
    stop = Stop(clicks=2000)
    assert stop_reason(stop, [Reached(0.5, 1999.5)]) is None
    assert stop_reason(stop, [Reached(0.5, 1000), Reached(0.5, 2000)]) == "budget spent: 2,000 of 2,000 clicks"


@pytest.mark.parametrize(
    ("mious", "converged"),
    [
        ((0.50, 0.51), False),
        ((0.50, 0.51, 0.509), True),
        ((0.50, 0.51, 0.52), False),
        ((0.50, 0.519, 0.521), False),
        ((0.50, 0.53, 0.51), False),
        ((0.50, 0.53, 0.51, 0.549), True),
        ((0.50, 0.53, 0.51, 0.551), False),
        ((0.60, 0.40, 0.61), True),
    ],
)
def test_converged_is_no_round_of_the_last_two_a_gain_above_the_best_before(
    mious: tuple[float, ...], converged: bool
) -> None:
    reason = stop_reason(Stop(converged_rounds=2, min_gain=0.02), reached(*mious))
    assert reason == ("converged: mIoU has not risen by 0.02 for 2 rounds" if converged else None)


def test_a_round_that_gains_exactly_the_minimum_has_risen() -> None:
    assert stop_reason(Stop(converged_rounds=1, min_gain=0.25), reached(0.25, 0.5)) is None
    assert stop_reason(Stop(converged_rounds=1, min_gain=0.0), reached(0.5, 0.5)) is None


def test_the_first_reason_wins() -> None:
    rounds = [Reached(0.5), Reached(0.5, 900)]
    everything = {"target_miou": 0.5, "clicks": 900.0, "converged_rounds": 1, "rounds": 1}
    words = []
    for key in list(everything):
        words.append(str(stop_reason(Stop(**everything), rounds)).split()[0])
        del everything[key]
    assert words == ["target", "budget", "converged:", "all"]


def expected(stop: Stop, rounds: list[Reached]) -> str | None:
    """The first word of the reason, by counting."""
    mious, patience = [r.miou for r in rounds], stop.converged_rounds
    if stop.target_miou and mious[-1] >= stop.target_miou:
        return "target"
    if stop.clicks and rounds[-1].clicks >= stop.clicks:
        return "budget"
    if patience and len(rounds) >= patience + 1:
        before, since = mious[: len(mious) - patience], mious[len(mious) - patience :]
        if not [miou for miou in since if miou >= max(before) + stop.min_gain]:
            return "converged:"
    queries = len(rounds) - 1
    return "all" if queries >= stop.rounds else None


@given(stops, histories)
def test_stopping_matches_the_slow_rules(stop: Stop, rounds: list[Reached]) -> None:
    reason = stop_reason(stop, rounds)
    assert (reason and reason.split()[0]) == expected(stop, rounds)


@given(stops, histories)
def test_a_campaign_never_outlives_its_rounds(stop: Stop, rounds: list[Reached]) -> None:
    if len(rounds) > stop.rounds:
        assert stop_reason(stop, rounds) is not None


@given(stops, histories)
def test_without_target_and_budget_no_campaign_stops_before_its_patience(stop: Stop, rounds: list[Reached]) -> None:
    patient = stop.model_copy(update={"target_miou": None, "clicks": None})
    if len(rounds) <= min(patient.rounds, patient.converged_rounds or patient.rounds):
        assert stop_reason(patient, rounds) is None


@given(stops, histories)
def test_only_convergence_looks_back(stop: Stop, rounds: list[Reached]) -> None:
    forgetful = stop.model_copy(update={"converged_rounds": None})
    elsewhere = [Reached(0.0, 0.0)] * (len(rounds) - 1) + rounds[-1:]
    assert stop_reason(forgetful, rounds) == stop_reason(forgetful, elsewhere)


@given(st.integers(1, 20), st.integers(1, 6))
def test_steady_gains_never_converge(rounds: int, patience: int) -> None:
    rising = [Reached(0.05 * number) for number in range(rounds)]
    assert stop_reason(Stop(rounds=99, converged_rounds=patience, min_gain=0.04), rising) is None
