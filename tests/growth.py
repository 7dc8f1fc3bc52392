"""Selection on made maps of one pool size, in a process of its own: `python tests/growth.py FOLDER IMAGES`.

Prints JSON: seconds of each stage from maps to queries, the peak of the process, and the seconds that it takes to read
both maps once, file by file, when the system has forgotten them.
"""

import json
import os
import sys
import time
from pathlib import Path

from made_round import made_campaign, make, run

from tasks import tables
from tasks.layout import MAPS, PROPOSALS
from tasks.memory import peak_bytes, reset_peak
from tasks.oracle import best_queries
from tasks.products import Product
from tasks.selection import nms, region_fusion
from tasks.start import open_pool

BUFFER_BYTES = 8 << 20


def forget(product: Product) -> list[Path]:
    """The files of a product's maps, none of which the system keeps in memory from now on."""
    files = sorted(file for file in (product / MAPS).rglob("*") if file.is_file())
    for file in files:
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return files


def read_once(products: list[Product]) -> float:
    """Seconds to read all maps, one file after the other."""
    files, buffer = [file for product in products for file in forget(product)], bytearray(BUFFER_BYTES)
    started = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return time.perf_counter() - started


def measure(folder: Path, images: int) -> dict[str, float]:
    """What is printed."""
    campaign = made_campaign(folder, images)
    inputs = make(campaign)
    maps = [inputs["information"], inputs["cost"]]
    read_s = read_once(maps)
    for product in maps:
        forget(product)
    reset_peak()
    started = time.perf_counter()
    scales = run(campaign, region_fusion, inputs)
    fused_at = time.perf_counter()
    proposals = run(campaign, nms, {**inputs, "scales": scales})
    suppressed_at = time.perf_counter()
    found = tables.read_table(proposals / PROPOSALS, tables.PROPOSALS)
    queries = best_queries(campaign.settings.acquisition, open_pool(campaign, inputs["pool"]), found)
    ended = time.perf_counter()
    return {
        "images": images,
        "map_bytes": sum(product.total_bytes for product in maps),
        "read_s": read_s,
        "region_fusion_s": fused_at - started,
        "nms_s": suppressed_at - fused_at,
        "queries_s": ended - suppressed_at,
        "queries": len(queries),
        "peak_bytes": peak_bytes(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
