from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_campaign import small_settings

from cereals_core.grid import candidate_shape
from cereals_core.suppression import suppress
from tasks.forecast.outlook import Outlook

SIZES = [(64, 96)] * 3 + [(40, 48)]


def outlook(**acquisition: object) -> Outlook:
    return Outlook(small_settings(Path("campaign"), **{"window_px": 32, "images_per_round": 1, **acquisition}), SIZES)


def test_four_images_of_two_sizes() -> None:
    seen = outlook()
    assert seen.pixels == 3 * 64 * 96 + 40 * 48 == 20352
    assert (seen.images, seen.mean_px, seen.largest) == (4, 5088, (64, 96))
    assert seen.budget.most_queries == 4  # 5088 px hold four windows of 1024 px, and no fifth
    assert (seen.seed_images, seen.seed_px) == (2, 2 * 5088)
    assert (seen.asked_px(2), seen.asked_px(100)) == (2 * 5088, 20352)
    assert (seen.touched_images(0), seen.touched_images(1)) == (2, 4)


def test_their_maps() -> None:
    seen = outlook()
    assert seen.shard_cells == 3 * 8 * 12  # shards of up to four images
    assert seen.map_bytes == 2 * (3 * 8 * 12 + 5 * 6)
    assert seen.most_proposals == 4  # 3 x 6 windows fit and one more, and a round asks for four at most


def test_whole_images_have_one_score_each() -> None:
    seen = outlook(unit="image", information="entropy", cost="none", fusion="none", images_per_round=2)
    assert seen.most_proposals == 4


def test_a_budget_of_clicks_may_ask_for_a_window_a_click() -> None:
    seen = outlook(clicks_per_round=3)
    assert seen.budget.most_queries == 3
    assert (seen.asked_px(1), seen.asked_px(9)) == (3 * 1024, 20352)


def test_a_seed_of_all_is_the_pool() -> None:
    seen = outlook(seed_images="all")
    assert (seen.seed_images, seen.seed_px, seen.touched_images(0)) == (4, 20352, 4)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_suppression_never_leaves_more_windows_than_fit_side_by_side(
    rows: int, columns: int, k: int, seed: int
) -> None:
    shape = candidate_shape(8 * rows, 8 * columns, 8 * k)
    taken, _ = suppress(np.random.default_rng(seed).random(shape, np.float32), k)
    assert len(taken) <= (rows // k) * (columns // k)


@pytest.mark.parametrize("shard_images", [1, 2])
def test_a_shard_holds_images_of_one_size(shard_images: int) -> None:
    settings = outlook().settings
    smaller = settings.model_copy(
        update={"compute": settings.compute.model_copy(update={"shard_images": shard_images})}
    )
    assert Outlook(smaller, SIZES).shard_cells == shard_images * 8 * 12
