"""The tables on disk: Parquet files of a name and schema each; page checksums are written and verified."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from cereals_core.cost_baselines import PREDICTORS
from cereals_core.errors import ProductError
from tasks.store.storage import written_whole

Rows = Any
"""A table, or a sequence of rows as mappings."""


class Folder(Protocol):
    """A folder, or a product."""

    def __truediv__(self, name: str) -> Path:
        """Return the file of this name."""


class Table:
    """A kind of table: the name of its file, and its columns."""

    def __init__(self, file: str, *columns: tuple[str, pa.DataType]) -> None:
        self.file, self.schema = file, pa.schema(columns)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    def of(self, rows: Rows) -> pa.Table:
        """Make a table of rows, or bring one to this schema."""
        return rows.cast(self.schema) if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), self.schema)

    def write(self, folder: Path, rows: Rows) -> None:
        """Write the whole table."""
        with self.writing(folder) as add:
            add(rows)

    @contextmanager
    def writing(self, folder: Path) -> Iterator[Callable[[Rows], None]]:
        """Write the table part by part: yields the function that adds rows, as a row group of their own."""
        with (
            written_whole(folder / self.file) as stream,
            pq.ParquetWriter(stream, self.schema, compression="zstd", write_page_checksum=True) as writer,
        ):
            yield lambda rows: writer.write_table(self.of(rows))

    def read(self, folder: Folder) -> pa.Table:
        """Read the table; ProductError names the file when it is damaged or has another schema."""
        return pa.concat_tables([*self.parts(folder)] or [self.schema.empty_table()])

    def parts(self, folder: Folder) -> Iterator[pa.Table]:
        """Read the table part by part, as it was written; errors as in `read`."""
        file = folder / self.file
        try:
            with file.open("rb") as stream, pq.ParquetFile(stream, page_checksum_verification=True) as source:
                if not source.schema_arrow.equals(self.schema):
                    raise ProductError(
                        f"{file}: columns are {_columns(source.schema_arrow)}, expected {_columns(self.schema)}; "
                        "remove its folder, then `cereals run` makes it again"
                    )
                for index in range(source.num_row_groups):
                    yield source.read_row_group(index)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ProductError(
                f"{file}: not readable ({error}); remove its folder, then `cereals run` makes it again"
            ) from None


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)


_BOX = [("y", pa.int32()), ("x", pa.int32()), ("height", pa.int32()), ("width", pa.int32())]

POOL = Table(
    "pool.parquet",
    ("image_id", pa.string()),
    ("height", pa.int32()),
    ("width", pa.int32()),
    ("group", pa.string()),
    ("row", pa.int32()),
)
"""Images of the pool in the order of their ids; `group` and `row` say where each one's maps are."""

LEDGER = Table(
    "ledger.parquet",
    ("round", pa.int32()),
    ("rank", pa.int32()),
    ("image_id", pa.string()),
    *_BOX,
    ("score", pa.float32()),
    ("information", pa.float64()),
    ("predicted_clicks", pa.float64()),
    ("vertices", pa.float64()),
    ("crossings", pa.int64()),
    ("components", pa.int64()),
)
"""One row for each region answered; the seed set has round -1. Null where no score, information or prediction was made.
Boxes in pixels; information in nats, summed over the region's cells; predicted_clicks, vertices (c_p), crossings (c_i)
and components (c_c) in clicks."""

ANSWERS = Table(
    "answers.parquet", ("image_id", pa.string()), *_BOX, ("labels_png", pa.binary()), ("clicks", pa.list_(pa.float32()))
)
"""What the oracle returned: labels of the region as an 8-bit PNG, clicks as (y, x, weight) one after the other."""

EXTENTS = Table(
    "extents.parquet",
    ("image_rank", pa.int32()),
    ("candidates", pa.int64()),
    ("information_low", pa.float32()),
    ("information_high", pa.float32()),
    ("cost_low", pa.float32()),
    ("cost_high", pa.float32()),
)
"""Index of the image in the pool table, its regions that may be asked for, and the smallest and largest sum of each map
over them, or of a whole image its mean: null without a map, +inf and -inf without a candidate."""

PROPOSALS = Table(
    "proposals.parquet",
    ("image_rank", pa.int32()),
    ("y", pa.int32()),
    ("x", pa.int32()),
    ("score", pa.float32()),
    ("spend", pa.float64()),
    ("information", pa.float64()),
    ("predicted_clicks", pa.float64()),
)
"""The best regions left by suppression: index of the image in the pool table, corner in pixels, fused score, what it
takes from the round's budget, in pixels or predicted clicks, and the sums of both maps over it, null without a map."""

QUERIES = Table(
    "queries.parquet",
    ("rank", pa.int32()),
    ("image_id", pa.string()),
    *_BOX,
    ("score", pa.float32()),
    ("information", pa.float64()),
    ("predicted_clicks", pa.float64()),
)
"""The regions asked for, the best first."""

METRICS = Table(
    "metrics.parquet",
    ("round", pa.int32()),
    ("miou", pa.float64()),
    ("clicks", pa.float64()),
    ("pixels", pa.int64()),
    ("regions", pa.int64()),
    ("images", pa.int64()),
)
"""One row: mIoU on the evaluation split, and what the labels it was trained on have cost."""

RESULTS = Table(
    "results.parquet",
    ("arm", pa.string()),
    ("seed", pa.int64()),
    ("round", pa.int32()),
    ("miou", pa.float64()),
    ("clicks", pa.float64()),
    ("pixels", pa.int64()),
)
"""Points of all curves of a study."""

CLASSES = Table("classes.parquet", ("class_name", pa.string()), ("iou", pa.float64()))
HISTORY = Table("history.parquet", ("epoch", pa.int32()), ("steps", pa.int32()), ("loss", pa.float64()))

COST_REGIONS = Table(
    "regions.parquet",
    ("sample", pa.string()),
    ("image_id", pa.string()),
    *_BOX,
    ("true", pa.float64()),
    *((predictor, pa.float64()) for predictor in PREDICTORS),
)
"""Regions whose cost was predicted, "queried" in this round or "random" ones of the evaluation split: their true clicks
(c_p), and what each predictor made of them."""

COST_AGREEMENT = Table(
    "agreement.parquet",
    ("sample", pa.string()),
    ("predictor", pa.string()),
    ("regions", pa.int64()),
    ("spearman", pa.float64()),
    ("pearson", pa.float64()),
    ("bias", pa.float64()),
    ("mean_absolute_error", pa.float64()),
    ("sum_ratio", pa.float64()),
)
"""How each predictor agrees with the true clicks of each sample, as `evaluation.CostAgreement` tells; NaN where a
figure is not defined."""
