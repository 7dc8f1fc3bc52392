"""Benchmark, off by default: dropout samples by one pass of the trunk against as many whole passes."""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from plain_round import whole_passes

from cereals_core.information import vote_entropy
from cereals_core.models.fcn8s import FCN8s
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng

SAMPLES, DROPOUT, WIDTH, CLASSES = 20, 0.5, 0.25, 19


def timed(way: Callable[..., torch.Tensor], image: np.ndarray) -> tuple[np.ndarray, float]:
    """The map by one way, and the seconds it took."""
    started = time.perf_counter()
    votes = way(image[None], vote_entropy, SAMPLES, DROPOUT, [rng(0, "votes")]).half().cpu().numpy()
    return votes, time.perf_counter() - started


@pytest.mark.bench
def test_one_trunk_pass_gives_the_votes_of_whole_passes_sooner(capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds an image of both ways, whose maps are equal bit for bit."""
    model = FCN8s(CLASSES, WIDTH)
    model.initialise(torch.Generator().manual_seed(0))
    predictor = Predictor(model.to("cuda" if torch.cuda.is_available() else "cpu"))
    rows = []
    for height, width in ((512, 1024), (1024, 2048)):
        image = rng(0, "image", height).integers(0, 256, (height, width, 3), np.uint8)
        predictor.information(image[None], lambda logits: logits[:, 0])  # the first pass is slower than all others
        ways = predictor.sampled_information, partial(whole_passes, predictor)
        (votes, fast_s), (expected, slow_s) = (timed(way, image) for way in ways)
        np.testing.assert_array_equal(votes, expected)
        assert (votes > 0).any()
        rows.append(f"| {height} x {width} | {fast_s:.2f} | {slow_s:.2f} | {slow_s / fast_s:.1f} |")
    with capsys.disabled():
        print(f"\nVote entropy of {SAMPLES} samples, FCN8s at width {WIDTH}, {torch.get_num_threads()} threads\n")
        print("| image, px | one trunk, s | whole passes, s | ratio |\n|---|---|---|---|", *rows, sep="\n")
