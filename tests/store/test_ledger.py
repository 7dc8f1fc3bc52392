from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from strategies import FEW, images_with_boxes

from cereals_core.grid import Box
from tasks.store import tables
from tasks.store.ledger import Ledger, box_of
from tasks.store.pool import PoolImage
from tasks.store.products import Product


def ledger_of(folder: Path, regions: list[tuple[str, Box, float]]) -> Ledger:
    """A ledger of regions (image id, box, vertices)."""
    rows = [{"round": 0, "image_id": name, **box._asdict(), "vertices": clicks} for name, box, clicks in regions]
    tables.LEDGER.write(folder, rows)
    return Ledger(Product(folder, "digest", "fingerprint", "oracle-query", elapsed_s=0, total_bytes=0))


def image(image_id: str, height: int = 20, width: int = 24) -> PoolImage:
    return PoolImage(0, image_id, height, width, "20x24", 0)


def test_a_ledger_by_hand(tmp_path: Path) -> None:
    regions = [("b", Box(0, 0, 20, 24), 7.0), ("a", Box(8, 0, 8, 8), 2.5), ("a", Box(0, 16, 16, 8), 0.0)]
    ledger = ledger_of(tmp_path, regions)
    assert ledger.boxes == {"a": [Box(8, 0, 8, 8), Box(0, 16, 16, 8)], "b": [Box(0, 0, 20, 24)]}
    assert ledger.clicks == 9.5
    assert ledger.pixels == 480 + 64 + 128
    assert [ledger.is_full(image(name)) for name in ("a", "b", "c")] == [False, True, False]
    assert ledger.labelled_cells(image("a")).astype(int).tolist() == [[0, 0, 1], [1, 0, 1], [0, 0, 0]]
    assert ledger.labelled_cells(image("b")).all()
    assert not ledger.labelled_cells(image("c")).any()
    assert ledger.boxes.keys() == {"a", "b"}


def test_an_image_is_full_once_its_last_region_is_there(tmp_path: Path) -> None:
    parts = [("a", Box(0, 0, 16, 24), 0.0), ("a", Box(16, 0, 4, 16), 0.0), ("a", Box(16, 16, 4, 8), 0.0)]
    assert [ledger_of(tmp_path, parts[:count]).is_full(image("a")) for count in range(4)] == [False, False, False, True]


def test_an_empty_ledger(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path, [])
    assert (ledger.clicks, ledger.pixels) == (0, 0)
    assert not ledger.is_full(image("a"))
    assert ledger.labelled_cells(image("a")).shape == (3, 3)


@FEW
@given(images_with_boxes())
def test_a_ledger_equals_the_loop(tmp_path_factory: pytest.TempPathFactory, drawn: tuple[int, int, list[Box]]) -> None:
    height, width, boxes = drawn
    ledger = ledger_of(tmp_path_factory.mktemp("ledger"), [("a", box, 0.5) for box in boxes])
    pixels = {(box.y + i, box.x + j) for box in boxes for i in range(box.height) for j in range(box.width)}
    assert ledger.pixels == len(pixels)
    assert ledger.clicks == len(boxes) / 2
    assert ledger.is_full(image("a", height, width)) == (len(pixels) == height * width)
    cells = ledger.labelled_cells(image("a", height, width))
    assert {(int(y), int(x)) for y, x in np.argwhere(cells)} == {(y // 8, x // 8) for y, x in pixels}


def test_the_region_of_a_row() -> None:
    assert box_of({"rank": 3, "width": 4, "height": 3, "x": 2, "y": 1}) == Box(1, 2, 3, 4)
