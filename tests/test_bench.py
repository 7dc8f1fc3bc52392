"""Benchmarks, off by default: `make bench`."""

from pathlib import Path

import pytest
from prefect import flow

from cereals_core.settings_files import parse_settings
from flows.round import Given, run_round
from tasks.history import product_of
from tasks.layout import Campaign
from tasks.oracle import seed_set
from tasks.start import check_pool

IMAGES = 200
STAGES = ("info-map", "cost-map", "region-fusion", "nms", "oracle-query")


@flow(validate_parameters=False)
def first_round(campaign: Campaign) -> None:
    """Round 0 alone: the next one would only train on more images."""
    pool = check_pool(campaign)
    run_round(campaign, 0, Given(pool, None, None), seed_set(campaign, pool=pool))


@pytest.mark.bench
@pytest.mark.usefixtures("prefect_server")
def test_maps_and_selection_of_full_size_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images a second and peak memory of each stage from maps to queries, on drawn streets of 1024 x 2048 px."""
    settings = parse_settings(
        {
            "name": "full-size",
            "folder": str(tmp_path / "campaign"),
            "data": {"format": "synthetic", "pool_images": IMAGES, "eval_images": 1, "height": 1024, "width": 2048},
            "model": {"width": 0.125},
            "training": {"max_steps": 4},
            "acquisition": {"seed_images": 2, "images_per_round": 5, "information": "entropy"},
        },
        "benchmark",
    )
    campaign = Campaign(settings.path, settings)
    first_round(campaign)
    products = {name: product_of(campaign, name, 0) for name in STAGES}
    with capsys.disabled():
        print(f"\n{IMAGES} images of 1024 x 2048 px, FCN8s at width 0.125, windows of 128 px\n")
        print("| stage | seconds | images/s | peak memory | written |\n|---|---|---|---|---|")
        for name, product in products.items():
            peak, written = (
                f"{count / 2**20:,.0f} MiB" for count in (product.facts["peak_bytes"], product.total_bytes)
            )
            print(f"| {name} | {product.elapsed_s:.1f} | {IMAGES / product.elapsed_s:.1f} | {peak} | {written} |")
    assert max(products[name].facts["peak_bytes"] for name in ("region-fusion", "nms")) < 2 << 30
