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

    def __init__(self, file: str, /, **columns: pa.DataType) -> None:
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


TEXT, INT32, INT64, FLOAT32, FLOAT64 = pa.string(), pa.int32(), pa.int64(), pa.float32(), pa.float64()
_BOX = {"y": INT32, "x": INT32, "height": INT32, "width": INT32}

POOL = Table("pool.parquet", image_id=TEXT, height=INT32, width=INT32, group=TEXT, row=INT32)
"""Images of the pool in the order of their ids; `group` and `row` say where each one's maps are."""

FILES = Table("files.parquet", split=TEXT, file=TEXT, size_bytes=INT64, modified_ns=INT64, digest=pa.binary())
"""Files of both splits as they were: path below the data set's root, size, last change, BLAKE2b of the content."""

LEDGER = Table(
    "ledger.parquet",
    round=INT32,
    rank=INT32,
    image_id=TEXT,
    **_BOX,
    score=FLOAT32,
    information=FLOAT64,
    predicted_clicks=FLOAT64,
    vertices=FLOAT64,
    crossings=INT64,
    components=INT64,
)
"""One row for each region answered; the seed set has round -1. Null where no score, information or prediction was made.
Boxes in pixels; information in the measure's unit, summed over the region's cells; predicted_clicks, as floored by
`spending.Spending`, vertices (c_p), crossings (c_i) and components (c_c) in clicks."""

ANSWERS = Table("answers.parquet", image_id=TEXT, **_BOX, labels_png=pa.binary(), clicks=pa.list_(FLOAT32))
"""What the oracle returned: labels of the region as an 8-bit PNG, clicks as (y, x, weight) one after the other."""

EXTENTS = Table(
    "extents.parquet",
    image_rank=INT32,
    candidates=INT64,
    information_low=FLOAT32,
    information_high=FLOAT32,
    cost_low=FLOAT32,
    cost_high=FLOAT32,
)
"""Index of the image in the pool table, its regions that may be asked for, and the smallest and largest sum of each map
over them, or of a whole image its mean: null without a map, +inf and -inf without a candidate."""

PROPOSALS = Table(
    "proposals.parquet",
    image_rank=INT32,
    y=INT32,
    x=INT32,
    score=FLOAT32,
    spend=FLOAT64,
    information=FLOAT64,
    predicted_clicks=FLOAT64,
    predicted_class=INT32,
)
"""The best regions left by suppression: index of the image in the pool table, corner in pixels, fused score, what it
takes from the round's budget, in pixels or predicted clicks, the sums of both maps over it, predicted clicks floored,
and its class; null without a map."""

QUERIES = Table(
    "queries.parquet", rank=INT32, image_id=TEXT, **_BOX, score=FLOAT32, information=FLOAT64, predicted_clicks=FLOAT64
)
"""The regions asked for, the best first."""

METRICS = Table("metrics.parquet", round=INT32, miou=FLOAT64, clicks=FLOAT64, pixels=INT64, regions=INT64, images=INT64)
"""One row: mIoU on the evaluation split, and what the labels it was trained on have cost."""

_CAMPAIGN = {"arm": TEXT, "seed": INT64, "round": INT32}

RESULTS = Table(
    "results.parquet",
    **_CAMPAIGN,
    definition=TEXT,
    upper_bound=pa.bool_(),
    ended=pa.bool_(),
    miou=FLOAT64,
    clicks=FLOAT64,
    crossings=INT64,
    components=INT64,
    pixels=INT64,
    steps=INT64,
    epochs=INT64,
)
"""Points of all curves of a study: how the arm is defined, whether it saw true costs and the campaign has ended, what
the labels of a round had cost, as LEDGER counts it, and how long the training on them was."""

CLASS_RESULTS = Table("class_results.parquet", **_CAMPAIGN, class_name=TEXT, iou=FLOAT64, cells=INT64)
"""IoU of every class in every round of a study, and its labelled cells of 8 x 8 px."""

CLASSES = Table("classes.parquet", class_name=TEXT, iou=FLOAT64)
HISTORY = Table("history.parquet", epoch=INT32, steps=INT32, loss=FLOAT64)

COST_REGIONS = Table(
    "regions.parquet", sample=TEXT, image_id=TEXT, **_BOX, true=FLOAT64, **dict.fromkeys(PREDICTORS, FLOAT64)
)
"""Regions whose cost was predicted, "queried" in this round or "random" ones of the evaluation split: their true clicks
(c_p), and what each predictor made of them."""

COST_AGREEMENT = Table(
    "agreement.parquet",
    sample=TEXT,
    predictor=TEXT,
    regions=INT64,
    spearman=FLOAT64,
    pearson=FLOAT64,
    bias=FLOAT64,
    mean_absolute_error=FLOAT64,
    sum_ratio=FLOAT64,
)
"""How each predictor agrees with the true clicks of each sample, as `evaluation.CostAgreement` tells; NaN where a
figure is not defined."""
