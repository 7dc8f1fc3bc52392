import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from naive import naive_components, naive_crossings

from cereals_core.clicks import (
    RegionCost,
    border_crossings,
    click_map,
    clicks_inside,
    count_components,
    region_cost,
)
from cereals_core.datasets.masks import trace_clicks
from cereals_core.datasets.polygons import Polygon, fill, polygon_truth
from cereals_core.grid import VOID, Box
from cereals_core.oracle import OutsideError, answer
from cereals_core.truth import Truth


def rows(*values: tuple[float, float, float]) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, 3)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
coordinates = st.floats(-3, 45, width=32) | st.integers(-1, 41).map(float)
click_lists = st.lists(st.tuples(coordinates, coordinates, st.sampled_from([0.5, 1.0, 4.0])), max_size=40)
label_images = hnp.arrays(np.uint8, shapes, elements=st.sampled_from([0, 1, 7, VOID]))


def test_click_map_by_hand() -> None:
    clicks = rows((0.5, 0.5, 1), (7.9, 7.9, 0.5), (8.0, 7.0, 1), (9.9, 16.0, 1), *[(3.2, 9.1, 1)] * 12)
    # An image of 10 x 16 px has 2 x 2 cells; the click at x = 16, its far edge, counts in the last pixel, x = 15.
    assert click_map(clicks, (10, 16)).tolist() == [[1.5, 10], [1, 1]]


def test_click_map_without_clicks_is_zero() -> None:
    empty = click_map(rows(), (9, 8))
    assert empty.dtype == np.float32
    assert empty.tolist() == [[0], [0]]


@given(click_lists, shapes)
def test_click_map_agrees_with_the_naive_one(clicks: list[tuple[float, float, float]], shape: tuple[int, int]) -> None:
    assert click_map(rows(*clicks), shape).tolist() == naive.click_map(rows(*clicks), *shape).tolist()


@given(click_lists, shapes, st.data())
def test_every_click_is_in_exactly_one_part_of_an_image(
    clicks: list[tuple[float, float, float]], shape: tuple[int, int], data: st.DataObject
) -> None:
    y, x = data.draw(st.integers(0, shape[0])), data.draw(st.integers(0, shape[1]))
    parts = [
        Box(top, left, bottom - top, right - left)
        for top, bottom in ((0, y), (y, shape[0]))
        for left, right in ((0, x), (x, shape[1]))
    ]
    inside = np.array([clicks_inside(rows(*clicks), part, shape) for part in parts])
    assert (inside.sum(axis=0) == 1).all()


def test_region_cost_by_hand() -> None:
    labels = np.array(
        [
            [0, 0, 1, 1],
            [0, 2, 2, 1],
            [0, 2, VOID, 1],
            [3, 3, 1, 0],
        ],
        np.uint8,
    )
    truth = Truth(labels, rows((1, 1, 1), (2.9, 2.9, 0.5), (3, 0, 1), (0, 0, 12), (4, 4, 1)))
    # All round: 0 0 1 1 1 1 0 1 3 3 0 0 and back to 0; components: 0, 1, 2, void, 3, and below right 1 and 0.
    assert region_cost(truth, Box(0, 0, 4, 4)) == RegionCost(vertices=15.5, crossings=5, components=7)
    assert region_cost(truth, Box(1, 1, 2, 2)) == RegionCost(vertices=1.5, crossings=2, components=2)
    assert region_cost(truth, Box(0, 1, 1, 3)) == RegionCost(vertices=0, crossings=1, components=2)
    assert region_cost(truth, Box(0, 3, 4, 1)) == RegionCost(vertices=1, crossings=1, components=2)
    assert region_cost(truth, Box(0, 0, 1, 1)) == RegionCost(vertices=12, crossings=0, components=1)


@given(label_images)
def test_components_and_crossings_agree_with_the_naive_ones(labels: np.ndarray) -> None:
    assert count_components(labels) == naive_components(labels.tolist())
    assert border_crossings(labels) == naive_crossings(labels.tolist())


@given(label_images)
def test_crossings_do_not_depend_on_how_the_region_is_turned(labels: np.ndarray) -> None:
    assert {border_crossings(np.rot90(labels, turns)) for turns in range(4)} == {border_crossings(labels[:, ::-1])}


def test_the_oracle_answers_with_what_is_inside() -> None:
    truth = Truth(np.arange(12, dtype=np.uint8).reshape(3, 4), rows((0, 0, 1), (1.5, 2.5, 1), (2, 4, 0.5)))
    reply = answer("street", truth, Box(1, 2, 2, 2))
    assert (reply.image_id, reply.box) == ("street", Box(1, 2, 2, 2))
    assert reply.labels.tolist() == [[6, 7], [10, 11]]
    assert reply.clicks.tolist() == [[1.5, 2.5, 1], [2, 4, 0.5]]
    assert reply.cost == RegionCost(vertices=1.5, crossings=4, components=4)


@pytest.mark.parametrize("box", [Box(-1, 0, 2, 2), Box(0, 3, 1, 2), Box(0, 0, 4, 1), Box(0, 0, 0, 2)])
def test_the_oracle_refuses_a_box_outside(box: Box) -> None:
    truth = Truth(np.zeros((3, 4), np.uint8), rows())
    with pytest.raises(OutsideError, match=r"street: Box.*3 x 4 px; ask for a box wholly inside"):
        answer("street", truth, box)


def square(y: float, x: float, side: float) -> np.ndarray:
    return np.array([(y, x), (y, x + side), (y + side, x + side), (y + side, x)], np.float64)


def naive_fill(canvas: np.ndarray, ring: np.ndarray, value: int) -> None:
    """Cast a ray to the left of each pixel's centre and count the edges it meets."""
    height, width = canvas.shape
    edges = list(zip(ring.tolist(), np.roll(ring, -1, axis=0).tolist(), strict=True))
    for y in range(height):
        for x in range(width):
            met = 0
            for (y0, x0), (y1, x1) in edges:
                if (y0 <= y + 0.5) != (y1 <= y + 0.5):
                    met += x0 + (y + 0.5 - y0) * (x1 - x0) / (y1 - y0) <= x + 0.5
            if met % 2:
                canvas[y, x] = value


def test_polygons_by_hand() -> None:
    truth = polygon_truth([Polygon(3, square(1, 1, 4)), Polygon(5, square(3, 3, 4))], (6, 6), background=9)
    assert truth.labels.tolist() == [
        [9, 9, 9, 9, 9, 9],
        [9, 3, 3, 3, 3, 9],
        [9, 3, 3, 3, 3, 9],
        [9, 3, 3, 5, 5, 5],
        [9, 3, 3, 5, 5, 5],
        [9, 9, 9, 5, 5, 5],
    ]
    assert truth.clicks[:5].tolist() == [[1, 1, 1], [1, 5, 1], [5, 5, 1], [5, 1, 1], [3, 3, 1]]
    assert truth.clicks.shape == (8, 3)


def test_an_image_without_polygons_is_background_and_costs_nothing() -> None:
    truth = polygon_truth([], (2, 3), VOID)
    assert (truth.labels == VOID).all()
    assert truth.clicks.shape == (0, 3)


# Sixteenths of a pixel, shifted so that no edge runs through a pixel's centre, where rounding would decide.
sixteenths = st.integers(-80, 400).map(lambda number: number / 16 + 0.01234567)
rings = st.lists(st.tuples(sixteenths, sixteenths), min_size=3, max_size=9).map(lambda ring: np.array(ring))


@given(rings)
def test_fill_agrees_with_the_naive_one(ring: np.ndarray) -> None:
    fast, slow = np.zeros((2, 17, 20), np.uint8)
    fill(fast, ring[None], 4)
    naive_fill(slow, ring, 4)
    assert fast.tolist() == slow.tolist()


@given(st.tuples(st.integers(0, 16), st.integers(0, 20)))
def test_polygons_that_share_edges_cover_a_square_without_gap_or_overlap(centre: tuple[int, int]) -> None:
    covered = np.zeros((16, 20), np.uint8)
    corners = np.array([(0, 0), (0, 20), (16, 20), (16, 0)], float)
    for one, other in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        triangle = np.zeros_like(covered)
        fill(triangle, np.array([one, other, centre])[None], 1)
        covered += triangle
    assert (covered == 1).all()


def test_a_constant_image_costs_its_four_corners() -> None:
    clicks = trace_clicks(np.full((20, 30), VOID, np.uint8), 1.5, 16)
    assert sorted(clicks.tolist()) == [[0.5, 0.5, 1], [0.5, 29.5, 1], [19.5, 0.5, 1], [19.5, 29.5, 1]]


@given(st.integers(4, 12), st.integers(4, 12), st.integers(20, 40))
def test_a_rectangle_inside_costs_about_four_clicks(height: int, width: int, side: int) -> None:
    labels = np.zeros((side, side), np.uint8)
    labels[3 : 3 + height, 4 : 4 + width] = 1
    total = float(trace_clicks(labels, 1.5, 16)[:, 2].sum()) - 4
    assert 4 <= total <= 6
