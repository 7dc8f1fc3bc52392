"""Selection on made maps of one pool size, in a process of its own: `python tests/helpers/growth.py FOLDER IMAGES`.

Prints JSON: seconds of each stage from maps to queries, the largest memory of this process and those that it starts
(pages that they share count once), and the seconds that it takes to read both maps once, file by file, when the system
has forgotten them.
"""

import json
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
from made_round import made_campaign, make, run

from tasks.scoring import best_queries
from tasks.selection import nms, region_fusion
from tasks.store import tables
from tasks.store.layout import MAPS
from tasks.store.pool import open_pool
from tasks.store.products import Product

BUFFER_BYTES = 8 << 20
LOOK_EVERY_S = 0.2


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


class Watch:
    """Looks at the memory of this process and its children every now and then, until the block ends."""

    def __init__(self) -> None:
        self.peak_bytes, self._ended = 0, threading.Event()

    def __enter__(self) -> "Watch":
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        this = psutil.Process()
        while not self._ended.wait(LOOK_EVERY_S):
            with suppress(psutil.NoSuchProcess):  # one that ends just now
                all_of_them = [this, *this.children(recursive=True)]
                self.peak_bytes = max(self.peak_bytes, sum(each.memory_full_info().pss for each in all_of_them))


def measure(folder: Path, images: int) -> dict[str, float]:
    """What is printed."""
    campaign = made_campaign(folder, images)
    inputs = make(campaign)
    maps = [inputs["information"], inputs["cost"]]
    read_s = read_once(maps)
    for product in maps:
        forget(product)
    with Watch() as watch:
        started = time.perf_counter()
        scales = run(campaign, region_fusion, inputs)
        fused_at = time.perf_counter()
        proposals = run(campaign, nms, {**inputs, "scales": scales})
        suppressed_at = time.perf_counter()
        found = tables.PROPOSALS.read(proposals)
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
        "peak_bytes": watch.peak_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))
