"""Two campaigns of one recipe against each other: every table, map, weight and answer, bit for bit."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zarr

from tasks.store.products import MANIFEST, find_product

UNREAD = frozenset({"train-seg", "train-cost", "info-map", "cost-map", "region-fusion", "nms"})
"""Stages whose product nothing reads once its round is finished: damage may stay there, if a reader would notice."""
MEASURED = re.compile(r'(<th scope="row">[a-z-]+</th>)(<td class="n">[^<]*</td>){3}')
"""Time, size and memory of a stage in a report."""


def differences(wanted: Path, got: Path, reports: bool = True) -> list[str]:
    """What `got` lacks, has besides or has otherwise than `wanted`; empty if they agree. `reports`: theirs as well."""
    found = [line for stage in _stages(wanted) for line in _in_stage(stage, wanted, got)]
    if reports and _timeless(wanted / "report.html") != _timeless(got / "report.html"):
        found.append("report.html differs")
    return [*_in_folder(wanted, got), *found]


def unnoticed(folder: Path) -> list[Path]:
    """Products that a reader would refuse, which the campaign did not need."""
    return [folder / stage for stage in _stages(folder) if find_product(folder / stage) is None]


def _stages(folder: Path) -> list[Path]:
    places = sorted({path.parent for path in folder.rglob(MANIFEST)})
    return [place.relative_to(folder) for place in places if not place.name.startswith(".")]


def _in_folder(wanted: Path, got: Path) -> Iterator[str]:
    if (wanted / "ledger.parquet").read_bytes() != _bytes(got / "ledger.parquet"):
        yield "ledger.parquet differs"
    for path in sorted(got.rglob(".*")):
        if not any(part.startswith(".") for part in path.relative_to(got).parts[:-1]):
            yield f"{path.relative_to(got)} is left over"


def _in_stage(stage: Path, wanted: Path, got: Path) -> Iterator[str]:
    if find_product(got / stage) is None:
        if stage.name not in UNREAD:
            yield f"{stage} is no valid product"
        return
    if stage.name == "report":
        return
    for file in sorted((wanted / stage).iterdir()):
        if file.name == "maps.zarr":
            yield from _in_maps(file, got / stage / file.name, stage)
        elif file.name != MANIFEST and file.read_bytes() != _bytes(got / stage / file.name):
            yield f"{stage / file.name} differs"


def _in_maps(wanted: Path, got: Path, stage: Path) -> Iterator[str]:
    for group in sorted(path.name for path in wanted.iterdir()):
        ours, theirs = (np.asarray(zarr.open_array(store / group, mode="r")[:]) for store in (wanted, got))
        if ours.tobytes() != theirs.tobytes():
            yield f"{stage / wanted.name / group} differs"


def _bytes(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _timeless(file: Path) -> str | None:
    """A report without the figures that say how long something took or how large it was, and without its place."""
    if not file.is_file():
        return None
    return MEASURED.sub(r"\1", file.read_text(errors="replace")).replace(str(file.parent), "")
