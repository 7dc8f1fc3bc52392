"""`cereals replay`: a past round's queries chosen again, as a table and as a file."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.pages.text import table
from tasks.pages.wording import clicks
from tasks.replay import Reselection
from tasks.store.ledger import Row
from tasks.store.tables import QUERIES

HEADER = ("variant", "queries", "kept", "new", "same pixels", "information", "predicted clicks", "change", "seconds")
SUMS = ("information", "predicted_clicks")


def replay_table(made: Iterable[Reselection]) -> str:
    """Set a table of variants, below the line of what was asked."""
    made = list(made)
    asked = made[0].asked
    first = ["(as asked)", str(len(asked)), *[""] * 3, *(_sum(asked, name) for name in SUMS), "", ""]
    return table(list(HEADER), [first, *(_row(each) for each in made)])


def replay_changes(each: Reselection, most: int = 10) -> str:
    """List the best `most` regions that a variant would ask for anew, and the best `most` that it would drop."""
    lines = [f"{each.variant.name}: {len(each.new)} new, {len(each.dropped)} dropped"]
    for sign, queries in (("+", each.new), ("-", each.dropped)):
        lines += [f"  {sign} {_region(query)}" for query in queries[:most]]
        lines += [f"  {sign} and {len(queries) - most} more"] if len(queries) > most else []
    return "\n".join(lines)


def write_queries(made: Iterable[Reselection], file: Path) -> None:
    """Write all queries of all variants as Parquet, with the variant's name in the first column."""
    schema = QUERIES.schema.insert(0, pa.field("variant", pa.string()))
    rows = [{"variant": each.variant.name, **query} for each in made for query in each.queries]
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)


def _row(each: Reselection) -> list[str]:
    before, now = (sum(query["predicted_clicks"] or 0 for query in queries) for queries in (each.asked, each.queries))
    pixels = sum(query["height"] * query["width"] for query in each.queries)
    return [
        each.variant.name,
        str(len(each.queries)),
        str(each.kept),
        str(len(each.new)),
        f"{each.shared_pixels / pixels:.0%}" if pixels else "",
        *(_sum(each.queries, name) for name in SUMS),
        f"{now / before - 1:+.0%}" if before > 0 else "",
        f"{each.elapsed_s:.2f}",
    ]


def _sum(queries: Iterable[Row], column: str) -> str:
    known = [query[column] for query in queries if query[column] is not None]
    return clicks(sum(known)) if known else ""


def _region(query: Row) -> str:
    predicted = query["predicted_clicks"]
    cost = "" if predicted is None else f", {clicks(predicted)} predicted clicks"
    return f"{query['image_id']} (y {query['y']}, x {query['x']}), score {query['score']:.4f}{cost}"
