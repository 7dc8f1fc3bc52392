from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_campaign import small_settings
from strategies import FEW, images_with_boxes, label_maps

from cereals_core.clicks import RegionCost
from cereals_core.errors import CerealsError
from cereals_core.grid import VOID, Box
from cereals_core.oracle import Answer
from tasks.store import tables
from tasks.store.answers import answer_row, read_answers
from tasks.store.layout import ANSWERS, LEDGER, Campaign
from tasks.store.ledger import Ledger, box_of
from tasks.store.pool import PoolImage
from tasks.store.products import Product

NO_COST = RegionCost(vertices=0, crossings=0, components=0)


def ledger_of(folder: Path, regions: list[tuple[str, Box, float]]) -> Ledger:
    """A ledger of regions (image id, box, vertices)."""
    rows = [{"round": 0, "image_id": name, **box._asdict(), "vertices": clicks} for name, box, clicks in regions]
    tables.write_table(folder / LEDGER, tables.LEDGER, rows)
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


def write_answers(folder: Path, asked: list[list[Answer]]) -> Campaign:
    """A campaign with the answers of its seed set and of its rounds."""
    campaign = Campaign(folder, small_settings(folder))
    stages = [("seed-set", None), *(("oracle-query", number) for number in range(len(asked) - 1))]
    for (name, number), answers in zip(stages, asked, strict=True):
        campaign.stage(name, number).mkdir(parents=True)
        rows = [answer_row(answer) for answer in answers]
        tables.write_table(campaign.stage(name, number) / ANSWERS, tables.ANSWERS, rows)
    return campaign


SEED_ANSWER = Answer("a", Box(0, 0, 2, 3), np.array([[0, 1, VOID], [2, 2, 2]], np.uint8), np.zeros((0, 3)), NO_COST)
ASKED = Answer("b", Box(8, 16, 1, 1), np.array([[5]], np.uint8), np.array([[8.25, 16, 0.5], [8, 16, 1]]), NO_COST)
LATER = Answer("a", Box(0, 8, 1, 1), np.array([[VOID]], np.uint8), np.zeros((0, 3), np.float32), NO_COST)


def test_answers_by_hand(tmp_path: Path) -> None:
    campaign = write_answers(tmp_path, [[SEED_ANSWER], [ASKED, LATER]])
    ((box, labels, clicks),) = read_answers(campaign, 0)["a"]
    assert box == Box(0, 0, 2, 3)
    assert labels.tolist() == [[0, 1, VOID], [2, 2, 2]]
    assert (str(labels.dtype), str(clicks.dtype), clicks.shape) == ("uint8", "float32", (0, 3))
    assert read_answers(campaign, 0).keys() == {"a"}
    answers = read_answers(campaign, 1)
    assert [box for box, _, _ in answers["a"]] == [SEED_ANSWER.box, LATER.box]
    ((_, labels, clicks),) = answers["b"]
    assert labels.tolist() == [[5]]
    assert clicks.tolist() == [[8.25, 16, 0.5], [8, 16, 1]]


def test_answers_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    campaign = write_answers(tmp_path, [[SEED_ANSWER], [ASKED]])
    with pytest.raises(RuntimeError, match=r"rounds/001/oracle-query/answers\.parquet: not readable"):
        read_answers(campaign, 2)
    file = campaign.stage("seed-set", None) / ANSWERS
    damaged = bytearray(file.read_bytes())
    damaged[file.read_bytes().index(b"IDAT")] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CerealsError, match=r"seed-set/answers\.parquet: not readable"):
        read_answers(campaign, 0)


@st.composite
def drawn_answers(draw: st.DrawFn) -> Answer:
    labels = draw(label_maps(19))
    corner = draw(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)))
    numbers = st.floats(width=32, allow_nan=False)
    clicks = draw(hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(3)), elements=numbers))
    return Answer(draw(st.text(max_size=3)), Box(*corner, *labels.shape), labels, clicks, NO_COST)


def stored(answers: list[Answer]) -> list[tuple[Any, ...]]:
    """What should come back: nested lists, in the order of the answers."""
    return [(answer.box, answer.labels.tolist(), answer.clicks.tolist()) for answer in answers]


@FEW
@given(st.lists(st.lists(drawn_answers(), max_size=4), min_size=1, max_size=3))
def test_every_answer_comes_back(tmp_path_factory: pytest.TempPathFactory, asked: list[list[Answer]]) -> None:
    campaign = write_answers(tmp_path_factory.mktemp("answers"), asked)
    for rounds in range(len(asked)):
        listed = [answer for answers in asked[: rounds + 1] for answer in answers]
        found: dict[str, list[tuple[Any, ...]]] = {
            name: [(box, labels.tolist(), clicks.tolist()) for box, labels, clicks in answers]
            for name, answers in read_answers(campaign, rounds).items()
        }
        names: set[str] = {answer.image_id for answer in listed}
        assert found == {name: stored([answer for answer in listed if answer.image_id == name]) for name in names}


def test_labels_of_a_view_into_an_image_come_back(tmp_path: Path) -> None:
    whole = np.arange(64, dtype=np.uint8).reshape(8, 8)
    answer = Answer("a", Box(2, 2, 4, 3), whole[2:6, 2:5], np.zeros((0, 3), np.float32), NO_COST)
    ((_, labels, _),) = read_answers(write_answers(tmp_path, [[answer]]), 0)["a"]
    np.testing.assert_array_equal(labels, whole[2:6, 2:5])
