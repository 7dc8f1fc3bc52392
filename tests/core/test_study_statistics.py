"""Statistics of a study: curves, what it takes to reach a goal, areas, pairs, and what may be missing."""

import itertools
import math
from collections.abc import Sequence

import naive_curves
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_rel
from strategies import FEW

from cereals_core.curves import (
    Curve,
    Point,
    area_under_curve,
    band,
    common_range,
    curve_of,
    interpolate,
    spend_to_reach,
)
from cereals_core.errors import DataError
from cereals_core.seeding import rng
from cereals_core.study_statistics import (
    Arm,
    Run,
    StudyFacts,
    areas,
    arm_result,
    class_spreads,
    compare,
    final_mious,
    noise_floor,
    reach,
    shares_to_reach,
)
from cereals_core.uncertainty import bootstrap_interval, paired, sign_flip_p, spread, t_test_p

RISE_AND_FALL = Curve(np.array([100.0, 200, 300]), np.array([0.2, 0.4, 0.3]))
TENT = Curve(np.array([0.0, 2, 4]), np.array([0.0, 1, 0]))
NOTHING = Curve(np.array([]), np.array([]))


def run(seed: int, *points: tuple[float, float], ended: bool = True, **class_iou: float) -> Run:
    """A campaign of (clicks, mIoU); each round labels 1,000 pixels."""
    rounds = [Point(number, miou, clicks, 1000 * number + 1000) for number, (clicks, miou) in enumerate(points)]
    return Run(seed, rounds, class_iou, ended)


def study(*arms: Arm, reference: Sequence[Run] = (), full_clicks: float = 1000.0) -> StudyFacts:
    return StudyFacts("made", arms, reference, full_clicks, 10_000, "")


def arm(name: str, *runs: Run) -> Arm:
    return Arm(name, "", False, runs)


def test_a_curve_is_sorted_by_spend_and_keeps_the_latest_of_equal_spend() -> None:
    points = [Point(2, 0.5, 30, 1), Point(0, 0.1, 10, 1), Point(3, math.nan, 40, 1), Point(1, 0.2, 30, 1)]
    assert [values.tolist() for values in curve_of(points, "clicks")] == [[10, 30], [0.1, 0.5]]
    assert [values.tolist() for values in curve_of(points, "pixels")] == [[1], [0.5]]
    assert curve_of([], "clicks").spend.dtype == np.float64


def test_a_curve_is_undefined_outside_its_points() -> None:
    found = interpolate(RISE_AND_FALL, np.array([99, 100, 150, 275, 300, 301]))
    np.testing.assert_allclose(found, [math.nan, 0.2, 0.3, 0.325, 0.3, math.nan])
    assert np.isnan(interpolate(NOTHING, np.array([1.0]))).all()


@pytest.mark.parametrize(("goal", "spend"), [(0.1, 100), (0.2, 100), (0.25, 125), (0.3, 150), (0.4, 200), (0.41, None)])
def test_the_goal_is_reached_at_the_first_crossing(goal: float, spend: float | None) -> None:
    assert spend_to_reach(RISE_AND_FALL, goal) == pytest.approx(spend)


def test_shares_are_of_the_same_seeds_reference() -> None:
    facts = study(reference=[run(1, (1000, 0.4)), run(2, (1000, 0.5)), run(4, (1000, math.nan))])
    tried = arm("a", *(run(seed, (100, 0.2), (200, 0.4), (300, 0.3)) for seed in (1, 2, 3, 4)), Run(1, ended=False))
    assert shares_to_reach(tried, facts, "clicks") == {1: pytest.approx(0.19), 2: None}
    assert shares_to_reach(tried, facts, "clicks", 0.6) == {1: pytest.approx(0.12), 2: pytest.approx(0.15)}
    assert shares_to_reach(tried, facts, "pixels", 0.6) == {1: pytest.approx(0.12), 2: pytest.approx(0.15)}


def test_reaching_it_in_some_seeds_only_has_no_mean() -> None:
    some, all_, none, untried = (reach(shares, rng(1)) for shares in ([0.3, None, 0.1], [0.3, 0.1], [None], []))
    assert (some.seeds, some.shares, some.all_reached) == (3, (0.1, 0.3), False)
    assert (all_.seeds, all_.mean, all_.low, all_.high, all_.all_reached) == (2, 0.2, 0.1, 0.3, True)
    assert (none.shares, none.all_reached, untried.all_reached) == ((), False, False)
    assert np.isnan([*vars(some).values()][2:]).all()


@pytest.mark.parametrize(
    ("low", "high", "mean"), [(0, 4, 0.5), (0, 2, 0.5), (1, 3, 0.75), (3, 4, 0.25), (2, 2, None), (-1, 2, None)]
)
def test_the_area_of_two_trapezoids(low: float, high: float, mean: float | None) -> None:
    assert area_under_curve(TENT, low, high) == pytest.approx(math.nan if mean is None else mean, nan_ok=True)


def test_areas_span_what_all_ended_campaigns_of_a_seed_share() -> None:
    short = arm("short", run(1, (0, 0.0), (10, 1.0)), run(2, (0, 0.0), (10, 1.0)))
    long = arm("long", run(1, (0, 0.0), (20, 1.0)), run(3, (5, 0.4)))
    running = arm("running", run(1, (0, 0.5), (5, 0.5), ended=False), run(2, (0, 0.0), (30, 0.3), ended=False))
    facts = study(short, long, running)
    assert areas(short, facts, "clicks") == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}
    assert areas(long, facts, "clicks") == {1: pytest.approx(0.25)}
    assert areas(running, facts, "clicks") == {2: pytest.approx(0.05)}
    assert areas(short, facts, "pixels") == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}


def test_the_band_of_two_seeds() -> None:
    found = band([Curve(np.array([0.0, 2]), np.array([0.0, 1])), Curve(np.array([1.0, 3]), np.array([0.5, 0.5]))], 3)
    assert found is not None
    np.testing.assert_allclose(found.spend, [1, 1.5, 2])
    np.testing.assert_allclose(found.mean, [0.5, 0.625, 0.75])
    np.testing.assert_allclose(found.std, [0, 0.25 / math.sqrt(2), 0.5 / math.sqrt(2)])
    np.testing.assert_allclose([found.low, found.high], [[0.5, 0.5, 0.5], [0.5, 0.75, 1]])


def test_bands_of_little_data() -> None:
    single = band([TENT])
    assert single is not None
    assert np.isnan(single.std).all()
    assert common_range([TENT, RISE_AND_FALL]) is None
    assert band([TENT, RISE_AND_FALL]) is band([]) is band([NOTHING]) is None
    point = band([Curve(np.array([2.0]), np.array([0.5])), TENT])
    assert point is not None
    assert (point.spend.tolist(), point.mean.tolist()) == ([2], [0.75])


def test_the_t_test_by_hand() -> None:
    t = 2 * math.sqrt(3)
    assert t_test_p(np.array([1.0, 2, 3])) == pytest.approx(1 - t / math.sqrt(2 + t**2))
    assert np.isnan([t_test_p(np.array(differences)) for differences in ([], [1.0], [0.5, 0.5])]).all()


@pytest.mark.parametrize(
    ("differences", "p"), [([1, 2, 3], 0.25), ([-1, -2, -3], 0.25), ([1, 2, -1], 0.75), ([0, 0], 1), ([4, 4], 0.5)]
)
def test_sign_flips_by_hand(differences: list[int], p: float) -> None:
    assert sign_flip_p(np.array(differences, np.float64), rng(1)) == p


def test_many_pairs_are_sampled_and_never_give_0() -> None:
    differences = [3, -1, 4, 1, 5, 9, 2, 6, 5, 3, -5, 8, -9, 7, 9, -3, -2]
    sampled = sign_flip_p(np.array(differences, np.float64), rng(1))
    assert sampled == pytest.approx(naive_curves.sign_flip_p(differences), abs=0.02)
    assert sign_flip_p(np.ones(60), rng(1), resamples=99) == 0.01
    assert math.isnan(sign_flip_p(np.ones(1), rng(1)))


def test_the_bootstrap_of_few_values() -> None:
    """Of three values, 1 in 27 draws is thrice the smallest: more than the 2.5 % that the interval leaves below."""
    assert bootstrap_interval(np.array([0.0, 1.0, 2.0]), rng(1)) == (0, 2)
    assert bootstrap_interval(np.arange(4.0), rng(1)) == (0.5, 2.5)
    assert all(math.isnan(limit) for limit in bootstrap_interval(np.array([1.0]), rng(1)))


def test_pairs_are_seeds_that_both_have() -> None:
    found = paired({1: 0.5, 2: 0.75, 3: 0.9, 5: math.nan}, {2: 0.5, 1: 0.375, 4: 0.1, 5: 0.2}, rng(1))
    assert (found.n, found.difference, found.low, found.high, found.flip_p) == (2, 0.1875, 0.125, 0.25, 0.5)
    assert found.t_p == pytest.approx(ttest_rel([0.5, 0.75], [0.375, 0.5]).pvalue)
    one, none = (paired({1: 0.5}, {seed: 0.25}, rng(1)) for seed in (1, 2))
    assert (one.n, one.difference, none.n) == (1, 0.25, 0)
    assert np.isnan([one.low, one.high, one.t_p, one.flip_p, *list(vars(none).values())[1:]]).all()


def test_the_noise_floor_looks_at_rounds_that_both_have() -> None:
    found = noise_floor(run(1, (0, 0.5), (1, 0.25), (2, 0.75)), run(1, (0, 0.5), (9, 0.375)))
    assert (found.n, found.mean, found.high) == (2, 0.0625, 0.125)
    assert noise_floor(Run(1), run(1, (0, 0.5))).n == 0


def test_classes_are_averaged_over_the_seeds_that_hold_them() -> None:
    runs = [run(1, (0, 0.5), road=0.5, bus=math.nan), run(2, (0, 0.5), road=0.75, bus=0.25, tram=math.nan)]
    found = class_spreads([*runs, run(3, (0, 0.5), road=0.0, ended=False)])
    assert list(found) == ["road", "bus", "tram"]
    assert (found["road"].n, found["road"].mean, found["road"].std) == (2, 0.625, pytest.approx(0.125 * math.sqrt(2)))
    assert (found["bus"].n, found["bus"].mean, found["tram"].n) == (1, 0.25, 0)
    assert math.isnan(found["bus"].std)


def test_only_ended_campaigns_have_a_last_round() -> None:
    assert final_mious([run(1, (0, 0.5), (1, 0.25)), run(2, (0, 0.5), ended=False), Run(3)]) == {1: 0.25}


def test_a_strategy_in_sum() -> None:
    facts = study(
        arm("a", run(1, (100, 0.2), (300, 0.4)), run(2, (100, 0.2), (300, 0.6)), run(3, (900, 0.9), ended=False)),
        arm("b", run(1, (100, 0.2), (300, 0.3)), run(2, (100, 0.2), (300, 0.3))),
        reference=[run(1, (1000, 0.4)), run(2, (1000, 0.4))],
    )
    found = arm_result(facts.arms[0], facts)
    assert found.reach["clicks"].mean == pytest.approx((0.28 + 0.19) / 2)
    assert (found.area.mean, found.final_miou.mean, found.final_clicks.mean) == pytest.approx((0.35, 0.5, 300))
    differences = compare(*facts.arms, facts)
    assert (differences.area.difference, differences.final_miou.difference) == pytest.approx((0.1, 0.2))
    assert facts.baseline is facts.arms[0]
    assert study(arm("a"), random := arm("random-regions")).baseline is random
    assert study().baseline is None


@pytest.mark.parametrize("full_clicks", [0.0, math.nan])
def test_shares_of_nothing_are_refused(full_clicks: float) -> None:
    with pytest.raises(DataError, match="check the labels of the data set"):
        study(full_clicks=full_clicks)


mious = st.integers(0, 100).map(lambda value: value / 100)
spends = st.lists(st.integers(0, 60), min_size=2, max_size=6, unique=True).map(sorted)
polylines = spends.flatmap(lambda xs: st.tuples(*[st.tuples(st.just(x), mious) for x in xs])).map(list)
values = st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=2, max_size=12)


def curve(points: list[tuple[int, float]]) -> Curve:
    spend, miou = zip(*points, strict=True)
    return Curve(np.array(spend, np.float64), np.array(miou))


@FEW
@given(polylines, mious)
def test_the_first_crossing_is_that_of_a_dense_scan(points: list[tuple[int, float]], goal: float) -> None:
    fast, slow = spend_to_reach(curve(points), goal), naive_curves.first_reach(points, goal, 1000)
    assert (fast is None) == (slow is None)
    if fast is not None and slow is not None:
        widest = max(b[0] - a[0] for a, b in itertools.pairwise(points))
        assert slow - widest / 1000 - 1e-9 <= fast <= slow + 1e-9
        assert interpolate(curve(points), np.array([fast])) >= goal - 1e-12


@given(polylines, mious, mious, st.integers(1, 1000))
def test_higher_goals_cost_no_less_and_shares_have_no_unit(
    points: list[tuple[int, float]], goal: float, other: float, unit: int
) -> None:
    seen = curve(points)
    lower, higher = (spend_to_reach(seen, level) for level in sorted((goal, other)))
    assert higher is None or (lower is not None and lower <= higher + 1e-9)
    scaled = spend_to_reach(Curve(seen.spend * unit, seen.miou), min(goal, other))
    assert scaled == pytest.approx(lower and lower * unit)


@FEW
@given(polylines, st.data())
def test_the_area_is_the_sum_of_thin_slices(points: list[tuple[int, float]], data: st.DataObject) -> None:
    low = data.draw(st.integers(points[0][0], points[-1][0] - 1))
    high = data.draw(st.integers(low + 1, points[-1][0]))
    assert area_under_curve(curve(points), low, high) == pytest.approx(naive_curves.mean_height(points, low, high, 3))


@given(polylines, st.floats(0.01, 0.99))
def test_areas_add_up_and_stay_between_the_extremes(points: list[tuple[int, float]], part: float) -> None:
    seen = curve(points)
    low, high = (float(limit) for limit in seen.spend[[0, -1]])
    middle = low + part * (high - low)
    parts = part * area_under_curve(seen, low, middle) + (1 - part) * area_under_curve(seen, middle, high)
    assert area_under_curve(seen, low, high) == pytest.approx(parts)
    assert seen.miou.min() - 1e-12 <= parts <= seen.miou.max() + 1e-12


@FEW
@given(st.lists(polylines, min_size=1, max_size=4))
def test_a_band_holds_every_curve_where_all_are_defined(lines: list[list[tuple[int, float]]]) -> None:
    curves = [curve(points) for points in lines]
    found, limits = band(curves, 7), common_range(curves)
    assert (found is None) == (limits is None)
    if found is not None and limits is not None:
        seeds = np.array([[naive_curves.height(points, at) for at in found.spend.tolist()] for points in lines])
        np.testing.assert_allclose(found.mean, seeds.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.low, seeds.min(axis=0), atol=1e-12)
        np.testing.assert_allclose(found.high, seeds.max(axis=0), atol=1e-12)
        assert limits == (found.spend[0], found.spend[-1])
        assert {x for points in lines for x, _ in points if limits[0] <= x <= limits[1]} <= set(found.spend.tolist())


@FEW
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=9), st.sampled_from([-1.0, 0.001, 0.1, 3.0]))
def test_sign_flips_are_those_of_all_products(differences: list[int], unit: float) -> None:
    assert sign_flip_p(unit * np.array(differences), rng(1)) == naive_curves.sign_flip_p(differences)


@given(values, st.floats(0.5, 2), st.floats(-1, 1))
def test_the_bootstrap_moves_with_its_values(sample: list[float], scale: float, shift: float) -> None:
    seen = np.array(sample)
    low, high = bootstrap_interval(seen, rng(1), 200)
    assert seen.min() - 1e-12 <= low <= high <= seen.max() + 1e-12
    moved = bootstrap_interval(scale * seen + shift, rng(1), 200)
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), abs=1e-9)


@given(st.lists(st.floats() | st.floats(0, 1), max_size=6))
def test_a_spread_is_of_finite_values(given_: list[float]) -> None:
    finite = [value for value in given_ if math.isfinite(value) and abs(value) < 1e100]
    found = spread(value if value in finite else math.nan for value in given_)
    assert found.n == len(finite)
    if finite:
        assert (found.low, found.high) == (min(finite), max(finite))
        assert found.mean == pytest.approx(math.fsum(finite) / len(finite), abs=1e-9 * max(map(abs, finite)))
    assert math.isnan(found.std) == (len(finite) < 2)
