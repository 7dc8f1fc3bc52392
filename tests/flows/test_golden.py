"""Golden ledgers: the same settings ask for the same regions, from one version of the code to the next.

The campaigns run on one thread with the arithmetic of the oldest 64-bit processors, so that every x86-64 machine comes
to the same bits. A change that is meant to alter ledgers names itself so in CHANGELOG.md and writes them anew:
`python tests/flows/test_golden.py`.
"""

import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from checkout import GOLDEN, ROOT, SEARCH
from small_campaign import small_settings

SAME_BITS = {
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}
CAMPAIGNS: dict[str, dict[str, object]] = {
    "cereals-entropy": {},
    "cereals-g3": {"strategy": "cereals-g3", "dropout_samples": 4, "information": "vote_entropy"},
    "bald-clicks": {"strategy": "bald-regions", "dropout_samples": 4, "information": "bald", "clicks_per_round": 90},
}
LEARNS = "cereals-entropy"
"""The one that asks twice, the second time of networks that have seen its first answers."""


def run_and_write(folder: Path) -> None:
    """Run the campaigns in this process and write their ledgers as CSV."""
    from flows.campaign import run_campaign

    torch.backends.mkldnn.set_flags(False)  # it sums in blocks that depend on the processor's caches
    for name, acquisition in CAMPAIGNS.items():
        settings = small_settings(folder / "campaigns" / name, **acquisition)
        rounds = 2 if name == LEARNS else 1
        run_campaign(settings.model_copy(update={"stop": settings.stop.model_copy(update={"rounds": rounds})}))
        rows = pq.read_table(settings.path / "ledger.parquet").to_pylist()
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Path:
    from prefect.settings import PREFECT_API_URL

    folder = tmp_path_factory.mktemp("golden")
    environment = os.environ | SAME_BITS | {"PREFECT_API_URL": PREFECT_API_URL.value(), "PYTHONPATH": SEARCH}
    subprocess.run([sys.executable, __file__, folder], env=environment, cwd=ROOT, check=True)
    return folder


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_a_seeded_campaign_asks_what_it_always_asked(ledgers: Path, name: str) -> None:
    assert (ledgers / f"{name}.csv").read_text() == (GOLDEN / f"{name}.csv").read_text()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_and_write(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            subprocess.run(
                [sys.executable, __file__, made], env=os.environ | SAME_BITS | {"PYTHONPATH": SEARCH}, check=True
            )
            GOLDEN.mkdir(exist_ok=True)
            for ledger in Path(made).glob("*.csv"):
                (GOLDEN / ledger.name).write_text(ledger.read_text())
