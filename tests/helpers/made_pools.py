"""Pools of images that there are not."""

from collections import Counter
from collections.abc import Iterable

from tasks.store import tables
from tasks.store.pool import Pool, group_name

Size = tuple[int, int]


def pool_of(sizes: Iterable[Size], shard_images: int) -> Pool:
    """A pool of images of these heights and widths in pixels, their ids in this order."""
    rows: Counter[Size] = Counter()
    table = []
    for number, size in enumerate(sizes):
        group = group_name(*size)
        table.append(dict(zip(tables.POOL.names, (f"{number:03d}", *size, group, rows[size]), strict=True)))
        rows[size] += 1
    return Pool(tables.POOL.of(table), shard_images)


SQUARE, FLAT = (16, 16), (9, 20)


POOL = pool_of([SQUARE, FLAT, SQUARE, SQUARE, FLAT], 2)
