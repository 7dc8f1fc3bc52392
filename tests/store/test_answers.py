from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_campaign import small_settings
from strategies import FEW, label_maps

from cereals_core.clicks import RegionCost
from cereals_core.errors import CerealsError
from cereals_core.grid import VOID, Box
from cereals_core.oracle import Answer
from tasks.store import answers, tables
from tasks.store.answers import read_answers, writing_answers
from tasks.store.layout import Campaign

NO_COST = RegionCost(vertices=0, crossings=0, components=0)


def write_answers(folder: Path, asked: list[list[Answer]]) -> Campaign:
    """A campaign with the answers of its seed set and of its rounds."""
    campaign = Campaign(folder, small_settings(folder))
    stages = [("seed-set", None), *(("oracle-query", number) for number in range(len(asked) - 1))]
    for (name, number), some in zip(stages, asked, strict=True):
        campaign.stage(name, number).mkdir(parents=True)
        with writing_answers(campaign.stage(name, number)) as take:
            for each in some:
                take(each)
    return campaign


SEED_ANSWER = Answer("a", Box(0, 0, 2, 3), np.array([[0, 1, VOID], [2, 2, 2]], np.uint8), np.zeros((0, 3)), NO_COST)
ASKED = Answer("b", Box(8, 16, 1, 1), np.array([[5]], np.uint8), np.array([[8.25, 16, 0.5], [8, 16, 1]]), NO_COST)
LATER = Answer("a", Box(0, 8, 1, 1), np.array([[VOID]], np.uint8), np.zeros((0, 3), np.float32), NO_COST)


def test_answers_by_hand(tmp_path: Path) -> None:
    campaign = write_answers(tmp_path, [[SEED_ANSWER], [ASKED, LATER]])
    ((image_id, box, labels, clicks),) = read_answers(campaign, 0)
    assert (image_id, box) == ("a", Box(0, 0, 2, 3))
    assert labels.tolist() == [[0, 1, VOID], [2, 2, 2]]
    assert (str(labels.dtype), str(clicks.dtype), clicks.shape) == ("uint8", "float32", (0, 3))
    found = list(read_answers(campaign, 1))
    assert [(image_id, box) for image_id, box, _, _ in found] == [
        ("a", SEED_ANSWER.box),
        ("b", ASKED.box),
        ("a", LATER.box),
    ]
    _, _, labels, clicks = found[1]
    assert labels.tolist() == [[5]]
    assert clicks.tolist() == [[8.25, 16, 0.5], [8, 16, 1]]


def test_answers_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    campaign = write_answers(tmp_path, [[SEED_ANSWER], [ASKED]])
    with pytest.raises(RuntimeError, match=r"rounds/001/oracle-query/answers\.parquet: not readable"):
        list(read_answers(campaign, 2))
    file = campaign.stage("seed-set", None) / tables.ANSWERS.file
    damaged = bytearray(file.read_bytes())
    damaged[file.read_bytes().index(b"IDAT")] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(CerealsError, match=r"seed-set/answers\.parquet: not readable"):
        list(read_answers(campaign, 0))


@st.composite
def drawn_answers(draw: st.DrawFn) -> Answer:
    labels = draw(label_maps(19))
    corner = draw(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)))
    numbers = st.floats(width=32, allow_nan=False)
    clicks = draw(hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(3)), elements=numbers))
    return Answer(draw(st.text(max_size=3)), Box(*corner, *labels.shape), labels, clicks, NO_COST)


def stored(answer: Answer) -> tuple[Any, ...]:
    """What should come back: nested lists."""
    return answer.image_id, answer.box, answer.labels.tolist(), answer.clicks.tolist()


@FEW
@given(st.lists(st.lists(drawn_answers(), max_size=4), min_size=1, max_size=3))
def test_every_answer_comes_back(tmp_path_factory: pytest.TempPathFactory, asked: list[list[Answer]]) -> None:
    campaign = write_answers(tmp_path_factory.mktemp("answers"), asked)
    for rounds in range(len(asked)):
        listed = [answer for some in asked[: rounds + 1] for answer in some]
        found = [
            (*where, labels.tolist(), clicks.tolist()) for *where, labels, clicks in read_answers(campaign, rounds)
        ]
        assert found == [stored(answer) for answer in listed]


@pytest.mark.parametrize("held_bytes", [0, 200, 1 << 30])
def test_answers_are_written_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_bytes: int) -> None:
    monkeypatch.setattr(answers, "HELD_BYTES", held_bytes)
    many = [replace(ASKED, image_id=f"{number}") for number in range(20)]
    campaign = write_answers(tmp_path, [many])
    assert [name for name, *_ in read_answers(campaign, 0)] == [answer.image_id for answer in many]
    groups = pq.read_metadata(campaign.stage("seed-set", None) / tables.ANSWERS.file).num_row_groups
    assert {0: groups > 20, 200: 1 < groups < 20, 1 << 30: groups == 1}[held_bytes]


def test_labels_of_a_view_into_an_image_come_back(tmp_path: Path) -> None:
    whole = np.arange(64, dtype=np.uint8).reshape(8, 8)
    answer = Answer("a", Box(2, 2, 4, 3), whole[2:6, 2:5], np.zeros((0, 3), np.float32), NO_COST)
    ((_, _, labels, _),) = read_answers(write_answers(tmp_path, [[answer]]), 0)
    np.testing.assert_array_equal(labels, whole[2:6, 2:5])
