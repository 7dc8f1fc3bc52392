from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_pools import FLAT, POOL, SQUARE, pool_of
from strategies import FEW

from cereals_core.acquisition import Budget
from cereals_core.acquisition_settings import Acquisition
from cereals_core.errors import CerealsError
from cereals_core.grid import map_shape
from tasks.store.maps import MapStore
from tasks.store.pool import SHARDS_A_BATCH, Pool, PoolImage, Shard, batches

pools = st.builds(
    pool_of, st.lists(st.sampled_from([SQUARE, FLAT, (24, 8)]), min_size=1, max_size=20), st.integers(1, 7)
)


def maps_of(shard: Shard) -> np.ndarray:
    """Maps that tell images and cells apart: 100 x rank + cell."""
    rows, columns = map_shape(shard.height, shard.width)
    ranks = np.array([image.rank for image in shard.images], np.float16)
    return 100 * ranks[:, None, None] + np.arange(rows * columns, dtype=np.float16).reshape(rows, columns)


def written(folder: Path, pool: Pool = POOL) -> MapStore:
    store = MapStore.create(folder / "maps.zarr", pool)
    for shard in pool.shards():
        store.write(shard, maps_of(shard))
    return store


def test_the_shards_of_five_images_of_two_sizes() -> None:
    assert POOL.images[4] == PoolImage(rank=4, image_id="004", height=9, width=20, group="9x20", row=1)
    shards = POOL.shards()
    assert [[image.rank for image in shard.images] for shard in shards] == [[0, 2], [3], [1, 4]]
    assert [(shard.group, shard.index) for shard in shards] == [("16x16", 0), ("16x16", 1), ("9x20", 0)]
    assert [shard.rows for shard in shards] == [slice(0, 2), slice(2, 3), slice(0, 2)]
    assert (shards[2].height, shards[2].width) == FLAT
    assert POOL.budget(Acquisition(unit="image", images_per_round=2)) == Budget(
        2 * (3 * 256 + 2 * 180) / 5, "pixels", 180
    )


@given(pools)
def test_every_image_is_in_one_shard_of_its_size(pool: Pool) -> None:
    shards = pool.shards()
    assert sorted(image.rank for shard in shards for image in shard.images) == list(range(len(pool.images)))
    assert len({(shard.group, shard.index) for shard in shards}) == len(shards)
    for shard in shards:
        assert 1 <= len(shard.images) <= pool.shard_images
        assert {(image.height, image.width) for image in shard.images} == {(shard.height, shard.width)}
        assert [image.row for image in shard.images] == list(range(shard.rows.start, shard.rows.stop))
        assert shard.rows.start == shard.index * pool.shard_images
        assert [image.rank for image in shard.images] == sorted(image.rank for image in shard.images)
    for group, images in pool.groups.items():
        rows = [shard.rows for shard in shards if shard.group == group]
        assert [row for part in rows for row in range(part.start, part.stop)] == list(range(len(images)))
        full = [part.stop - part.start == pool.shard_images for part in rows]
        assert all(full[:-1])


def test_maps_come_back_by_shard_and_by_image(tmp_path: Path) -> None:
    store = MapStore.create(tmp_path / "maps.zarr", POOL)
    first, last, flat = POOL.shards()
    assert not any(store.has(shard) for shard in POOL.shards())
    store.write(last, maps_of(last))
    assert [store.has(shard) for shard in (first, last, flat)] == [False, True, False]
    assert store.read(last).tolist() == [[[300, 301], [302, 303]]]
    assert store.read_image(POOL.images[3]).tolist() == [[300, 301], [302, 303]]
    assert store.read(last).dtype == np.float16


def test_what_was_not_written_is_nan(tmp_path: Path) -> None:
    store = MapStore.create(tmp_path / "maps.zarr", POOL)
    first, last, flat = POOL.shards()
    store.write(last, np.full((1, 2, 2), np.nan, np.float16))
    assert not store.has(last)
    for shard in (first, last, flat):
        assert np.isnan(store.read(shard)).all()
    store.write(flat, np.stack([np.full((2, 3), np.nan), np.ones((2, 3))]))
    assert store.has(flat)
    assert np.isnan(store.read_image(POOL.images[1])).all()
    assert (store.read_image(POOL.images[4]) == 1).all()


@FEW
@given(pools, st.randoms(use_true_random=False))
def test_shards_written_in_any_order_equal_one_array_a_group(
    tmp_path_factory: pytest.TempPathFactory, pool: Pool, random: Random
) -> None:
    folder = tmp_path_factory.mktemp("maps") / "maps.zarr"
    expected = {
        group: np.full((len(images), *map_shape(images[0].height, images[0].width)), np.nan, np.float16)
        for group, images in pool.groups.items()
    }
    shards = pool.shards()
    random.shuffle(shards)
    kept, left = shards[: len(shards) // 2 + 1], shards[len(shards) // 2 + 1 :]
    for shard in kept:
        MapStore.create(folder, pool).write(shard, maps_of(shard))
        expected[shard.group][shard.rows] = maps_of(shard)
    store = MapStore(folder)
    for shard in shards:
        np.testing.assert_array_equal(store.read(shard), expected[shard.group][shard.rows])
    for image in pool.images:
        np.testing.assert_array_equal(store.read_image(image), expected[image.group][image.row])
    assert [store.has(shard) for shard in kept + left] == [True] * len(kept) + [False] * len(left)


def test_a_store_of_the_same_shape_goes_on_and_any_other_starts_anew(tmp_path: Path) -> None:
    written(tmp_path)
    again = MapStore.create(tmp_path / "maps.zarr", POOL)
    assert all(again.has(shard) for shard in POOL.shards())
    by_three = pool_of([SQUARE, FLAT, SQUARE, SQUARE, FLAT], 3)
    other = MapStore.create(tmp_path / "maps.zarr", by_three)
    square, flat = by_three.shards()
    assert not other.has(square)
    assert np.isnan(other.read(square)).all()
    assert other.has(flat)  # its two images are one chunk as before
    smaller = pool_of([(9, 12)] * 2, 3)
    (metadata,) = (tmp_path / "maps.zarr" / flat.group).glob("zarr.json")
    MapStore.create(tmp_path / "other.zarr", smaller)
    metadata.write_bytes((tmp_path / "other.zarr" / "9x12" / "zarr.json").read_bytes())
    anew = MapStore.create(tmp_path / "maps.zarr", by_three)
    assert not anew.has(flat)
    assert anew.read(flat).shape == (2, 2, 3)


CHUNK, METADATA = Path("maps.zarr/16x16/c/0/0/0"), Path("maps.zarr/16x16/zarr.json")


def assert_damaged(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"maps\.zarr/16x16: ") as got:
        MapStore(folder / "maps.zarr").read(POOL.shards()[0])
    assert isinstance(got.value, CerealsError)
    assert str(got.value).endswith(f"; remove {folder} and run again")
    flat = POOL.shards()[2]
    np.testing.assert_array_equal(MapStore(folder / "maps.zarr").read(flat), maps_of(flat))


@given(st.integers(0, 19), st.integers(0, 7))
def test_every_flipped_bit_of_a_chunk_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, position: int, bit: int
) -> None:
    folder = tmp_path_factory.mktemp("flip")
    written(folder)
    damaged = bytearray((folder / CHUNK).read_bytes())
    assert len(damaged) == 20
    damaged[position] ^= 1 << bit
    (folder / CHUNK).write_bytes(damaged)
    assert_damaged(folder)


@pytest.mark.parametrize("kept", [0, 3, 4, 12, 19])
def test_a_truncated_chunk_is_noticed(tmp_path: Path, kept: int) -> None:
    written(tmp_path)
    (tmp_path / CHUNK).write_bytes((tmp_path / CHUNK).read_bytes()[:kept])
    assert_damaged(tmp_path)


METADATA_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda found: b"",
    "truncated": lambda found: found[:-2],
    "no object": lambda found: b"[]",
    "no keys": lambda found: b"{}",
    "a group": lambda found: b'{"zarr_format": 3, "node_type": "group"}',
    "a key misspelt": lambda found: found.replace(b'"data_type"', b'"data_typf"'),
    "no text": lambda found: b"\xff" + found,
}


@pytest.mark.parametrize("damage", METADATA_DAMAGE.values(), ids=METADATA_DAMAGE.keys())
def test_damaged_metadata_are_refused_on_reading_and_start_anew_on_writing(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    written(tmp_path)
    (tmp_path / METADATA).write_bytes(damage((tmp_path / METADATA).read_bytes()))
    assert_damaged(tmp_path)
    store = MapStore.create(tmp_path / "maps.zarr", POOL)
    assert [store.has(shard) for shard in POOL.shards()] == [False, False, True]


def test_a_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / METADATA).unlink()
    assert_damaged(tmp_path)


def test_batches_hold_every_shard_once_in_order() -> None:
    shards = pool_of([SQUARE] * 70, 3).shards()
    made = batches(shards)
    assert [shard for batch in made for shard in batch] == shards
    assert {len(batch) for batch in made[:-1]} == {SHARDS_A_BATCH}
