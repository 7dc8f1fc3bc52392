"""How benchmarks measure, and where they are kept: `docs/benchmarks/<machine>.json`, and a page beside it."""

import datetime
import os
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from checkout import ROOT
from torch.utils.flop_counter import FlopCounterMode

from cereals_core.datasets.base import ImageSource
from cereals_core.models.base import Network
from tasks.pages.benchmarks import Machine, Measured, benchmark_markdown, read, with_rows, write

FOLDER = ROOT / "docs/benchmarks"
ROUNDS = 3
"""Times that each way is measured."""
DISK_BYTES = 1 << 30


def elapsed(call: Callable[[], object]) -> float:
    """Seconds of a call, with what it left a CUDA device to do."""
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def side_by_side(ways: Sequence[Callable[[], object]], rounds: int = ROUNDS) -> list[float]:
    """Seconds of each way, taken in turn: the fastest, since others on the machine only add to it."""
    seconds = [[elapsed(way) for way in ways] for _ in range(rounds)]
    return [min(each) for each in zip(*seconds, strict=True)]


def keep(*rows: Measured) -> None:
    """Put these rows into the table of machines of this kind, as of this processor and day."""
    file = FOLDER / f"{this_machine().name}.json"
    runs = with_rows(read(file) if file.exists() else [], this_machine(), rows)
    write(file, runs)
    file.with_suffix(".md").write_text(benchmark_markdown(runs))


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """The machine, with its peaks as they are in this run."""
    cores = len(os.sched_getaffinity(0))
    on_cuda = torch.cuda.is_available()
    name = torch.cuda.get_device_name().lower().replace(" ", "-") if on_cuda else f"cpu-{cores}-cores"
    return Machine(
        name=name,
        processor=torch.cuda.get_device_name() if on_cuda else _processor(),
        cores=cores,
        torch=torch.__version__,
        day=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        peak_flops=_peak_flops("cuda" if on_cuda else "cpu"),
        memory_bytes_s=_memory_bytes_s(),
        disk_bytes_s=_disk_bytes_s(),
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _peak_flops(device: str) -> float:
    """Best of some products of large matrices in float32."""
    a, size = torch.rand(2048, 2048, device=device), 2048

    def product() -> None:
        torch.mm(a, a).sum().item()

    return 2 * size**3 / min(elapsed(product) for _ in range(12))


def _memory_bytes_s() -> float:
    """Bytes read and written by copying an array much larger than caches."""
    source = np.ones(1 << 25)
    target = np.empty_like(source)
    return 2 * source.nbytes / min(elapsed(lambda: np.copyto(target, source)) for _ in range(5))


def _disk_bytes_s() -> float:
    """Bytes read from a file that the system has forgotten."""
    with tempfile.NamedTemporaryFile(buffering=0) as file:
        chunk = os.urandom(1 << 24)
        for _ in range(DISK_BYTES // len(chunk)):
            file.write(chunk)
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        started = time.perf_counter()
        while file.read(1 << 22):
            pass
        return DISK_BYTES / (time.perf_counter() - started)


def allowed(bare: float, source: ImageSource, *apart: Callable[[], object]) -> float:
    """Images a second that the machine allows: decoding an image, and other work apart from it, take its cores too.

    On few cores it is the less, the faster the arithmetic is; a processor with faster matrix units decodes no faster.
    """
    work = (lambda: source.image(source.image_ids[0]), *apart)
    return 1 / (1 / bare + sum(min(elapsed(each) for _ in range(5)) for each in work) / this_machine().cores)


def forward_flops(network: Network, height: int, width: int) -> int:
    """Operations of a pass over one image."""
    with FlopCounterMode(display=False) as counter, torch.device("meta"):
        network.to("meta")(torch.zeros((1, 3, height, width)))
    return int(counter.get_total_flops())
