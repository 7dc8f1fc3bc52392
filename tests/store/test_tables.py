from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from cereals_core.errors import CerealsError
from tasks.store import tables
from tasks.store.tables import Table

TABLES = {name: value for name, value in vars(tables).items() if isinstance(value, Table)}
ROWS = [
    {
        "image_rank": rank,
        "y": 8 * rank,
        "x": 16,
        "score": 0.5 - rank / 64,
        "spend": 64.0,
        "information": 2.5,
        "predicted_clicks": None,
        "predicted_class": None,
    }
    for rank in range(40)
]
VALUES: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.string(): st.text(),
    pa.binary(): st.binary(),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): st.floats(allow_nan=False),
    pa.bool_(): st.booleans(),
    pa.list_(pa.float32()): st.lists(st.floats(width=32, allow_nan=False), max_size=6),
}


def rows_of(schema: pa.Schema) -> st.SearchStrategy[list[dict[str, Any]]]:
    row = st.fixed_dictionaries({field.name: st.none() | VALUES[field.type] for field in schema})
    return st.lists(row, max_size=4)


def written(folder: Path, rows: list[Mapping[str, Any]] | list[dict[str, Any]] = ROWS) -> Path:
    tables.PROPOSALS.write(folder, rows)
    return folder / "proposals.parquet"


def test_two_rows_by_hand(tmp_path: Path) -> None:
    file = written(tmp_path, ROWS[:2])
    table = tables.PROPOSALS.read(file.parent)
    assert table.schema.equals(tables.PROPOSALS.schema)
    assert table.to_pydict() == {
        "image_rank": [0, 1],
        "y": [0, 8],
        "x": [16, 16],
        "score": [0.5, 0.484375],
        "spend": [64.0, 64.0],
        "information": [2.5, 2.5],
        "predicted_clicks": [None, None],
        "predicted_class": [None, None],
    }


def test_an_empty_table_keeps_its_columns(tmp_path: Path) -> None:
    table = tables.PROPOSALS.read(written(tmp_path, []).parent)
    assert table.num_rows == 0
    assert table.schema.equals(tables.PROPOSALS.schema)


def test_what_has_no_value_is_null(tmp_path: Path) -> None:
    tables.LEDGER.write(tmp_path, [{"round": -1, "image_id": "a", "y": 0}])
    (row,) = tables.LEDGER.read(tmp_path).to_pylist()
    assert {name for name, value in row.items() if value is None} == set(tables.LEDGER.names) - {
        "round",
        "image_id",
        "y",
    }


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
@FEW
@given(data=st.data())
def test_every_table_comes_back(tmp_path_factory: pytest.TempPathFactory, table: Table, data: st.DataObject) -> None:
    folder, copy = tmp_path_factory.mktemp("table"), tmp_path_factory.mktemp("copy")
    rows = data.draw(rows_of(table.schema))
    table.write(folder, rows)
    assert table.read(folder).to_pylist() == rows
    table.write(copy, table.read(folder))
    assert (copy / table.file).read_bytes() == (folder / table.file).read_bytes()


@FEW
@given(st.lists(st.integers(0, 5), max_size=6))
def test_a_table_written_in_parts_is_read_in_parts(tmp_path_factory: pytest.TempPathFactory, sizes: list[int]) -> None:
    folder, rows = tmp_path_factory.mktemp("parts"), iter(ROWS)
    with tables.PROPOSALS.writing(folder) as add:
        for size in sizes:
            add([next(rows) for _ in range(size)])
    assert [len(part) for part in tables.PROPOSALS.parts(folder)] == sizes
    assert tables.PROPOSALS.read(folder).to_pylist() == ROWS[: sum(sizes)]


def assert_refused(file: Path, text: str, table: Table = tables.PROPOSALS) -> None:
    with pytest.raises(RuntimeError, match=text) as got:
        Table(file.name, **dict(zip(table.schema.names, table.schema.types, strict=True))).read(file.parent)
    assert isinstance(got.value, CerealsError)
    assert str(got.value).startswith(f"{file}: ")
    assert str(got.value).endswith("remove its folder, then `cereals run` makes it again")


def test_another_schema_is_refused_with_both(tmp_path: Path) -> None:
    file = written(tmp_path)
    assert_refused(
        file, "columns are image_rank int32, .*, expected epoch int32, steps int32, loss double", tables.HISTORY
    )
    wide = tables.PROPOSALS.schema.set(3, pa.field("score", pa.float64()))
    wider = Table("proposals.parquet", **dict(zip(wide.names, wide.types, strict=True)))
    assert_refused(file, "x int32, score float, spend .* expected .* x int32, score double, spend", wider)


def test_no_table_and_no_parquet_are_refused(tmp_path: Path) -> None:
    assert_refused(tmp_path / "none.parquet", r"not readable \(.*No such file")
    (tmp_path / "text.parquet").write_text("image_rank,y,x,score\n")
    assert_refused(tmp_path / "text.parquet", "not readable")
    assert_refused(tmp_path, "not readable")


@pytest.mark.parametrize("kept", [0, 3, 4, 100, -200, -8, -1])
def test_a_truncated_table_is_refused(tmp_path: Path, kept: int) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:kept])
    assert_refused(file, "not readable")


@pytest.mark.parametrize("column", range(4))
def test_a_flipped_byte_in_a_page_is_refused(tmp_path: Path, column: int) -> None:
    file = written(tmp_path)
    chunk = pq.read_metadata(file).row_group(0).column(column)
    end = chunk.dictionary_page_offset + chunk.total_compressed_size
    damaged = bytearray(file.read_bytes())
    for last_byte_of_page in (chunk.data_page_offset - 1, end - 1):
        damaged[last_byte_of_page] ^= 1
        file.write_bytes(damaged)
        assert_refused(file, "not readable.*CRC checksum verification failed")
        damaged[last_byte_of_page] ^= 1


def test_a_flipped_bit_in_any_byte_is_refused_or_does_no_harm(tmp_path: Path) -> None:
    file = written(tmp_path, ROWS[:3])
    whole = file.read_bytes()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= (1, 16, 128)[position % 3]
        file.write_bytes(damaged)
        try:
            assert tables.PROPOSALS.read(tmp_path).to_pylist() == ROWS[:3]
        except CerealsError:
            refused += 1
    assert refused > len(whole) / 2
