from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_campaign import small_settings

from cereals_core.errors import CerealsError
from cereals_core.grid import candidate_shape
from cereals_core.suppression import suppress
from cereals_core.workload import Workload

SIZES = [(64, 96)] * 3 + [(40, 48)]


def load_of(**acquisition: object) -> Workload:
    settings = small_settings(Path("campaign"), **{"window_px": 32, "images_per_round": 1, **acquisition})
    return Workload(settings, SIZES, eval_images=3, classes=5)


def test_four_images_of_two_sizes() -> None:
    seen = load_of()
    assert seen.pixels == 3 * 64 * 96 + 40 * 48 == 20352
    assert (seen.images, seen.mean_px, seen.largest) == (4, 5088, (64, 96))
    assert seen.queries == 4  # 5088 px hold four windows of 1024 px, and no fifth
    assert (seen.seed_images, seen.seed_px) == (2, 2 * 5088)
    assert (seen.asked_px(2), seen.asked_px(100)) == (2 * 5088, 20352)
    assert (seen.labelled_images(0), seen.labelled_images(1)) == (2, 4)


def test_their_maps() -> None:
    seen = load_of()
    assert seen.shard_cells == 3 * 8 * 12  # shards of up to four images
    assert seen.map_bytes == 2 * (3 * 8 * 12 + 5 * 6)
    assert seen.most_proposals == 4  # 3 x 6 windows fit and one more, and a round asks for four at most


def test_whole_images_have_one_score_each() -> None:
    seen = load_of(unit="image", information="entropy", cost="none", fusion="none", images_per_round=2)
    assert seen.most_proposals == 4


def test_a_budget_of_clicks_may_ask_for_a_window_a_click() -> None:
    seen = load_of(clicks_per_round=3)
    assert seen.queries == 3
    assert (seen.asked_px(1), seen.asked_px(9)) == (3 * 1024, 20352)


def test_a_seed_of_all_is_the_pool() -> None:
    seen = load_of(seed_images="all")
    assert (seen.seed_images, seen.seed_px, seen.labelled_images(0)) == (4, 20352, 4)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_suppression_never_leaves_more_windows_than_fit_side_by_side(
    rows: int, columns: int, k: int, seed: int
) -> None:
    shape = candidate_shape(8 * rows, 8 * columns, 8 * k)
    taken, _ = suppress(np.random.default_rng(seed).random(shape, np.float32), k)
    assert len(taken) <= (rows // k) * (columns // k)


@pytest.mark.parametrize("shard_images", [1, 2])
def test_a_shard_holds_images_of_one_size(shard_images: int) -> None:
    settings = load_of().settings
    smaller = settings.model_copy(
        update={"compute": settings.compute.model_copy(update={"shard_images": shard_images})}
    )
    assert Workload(smaller, SIZES, 3, 5).shard_cells == shard_images * 8 * 12


def test_steps_of_ten_images_in_two_rounds() -> None:
    settings = small_settings(Path("campaign"))
    load = Workload(settings, [(60, 100)] * 10, eval_images=3, classes=5)
    assert load.queries == 10  # 6000 px hold ten windows of 576 px
    assert [load.labelled_images(number) for number in (0, 1, 2)] == [2, 10, 10]
    assert [load.steps(number) for number in (0, 1, 2)] == [12, 20, 20]  # 12 steps: six epochs of two, two of ten
    batches = settings.model_copy(update={"training": settings.training.model_copy(update={"batch_images": 4})})
    load = Workload(batches, [(60, 100)] * 10, eval_images=3, classes=5)
    assert [load.steps(number) for number in (0, 1)] == [12, 12]  # of 2 images, of 4 + 4 + 2
    assert load.unlabelled_images(1) == 8  # the seed set has left the pool; regions leave the rest of their images


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed_images": 4}, r"acquisition\.seed_images = 4: the pool has 3 images; lower it to so many at most, or"),
        ({"window_px": 48}, r"acquisition\.window_px = 48: fits into no .* \(height x width 32x40, 24x40\); lower it"),
        ({"images_per_round": 0.4}, r"images_per_round = 0\.4 is a budget of 469 pixels a round, less than one query"),
    ],
)
def test_what_the_pool_cannot_serve_is_refused(values: dict[str, object], expected: str) -> None:
    def load(**acquisition: object) -> Workload:
        sizes = [(32, 40), (24, 40), (32, 40)]
        return Workload(small_settings(Path("campaign"), **acquisition), sizes, eval_images=3, classes=2)

    load().refuse_impossible()
    load(seed_images=3, window_px=32).refuse_impossible()
    with pytest.raises(ValueError, match=expected) as got:
        load(**values).refuse_impossible()
    assert isinstance(got.value, CerealsError)
