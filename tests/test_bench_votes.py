"""Benchmark, off by default: dropout samples by one pass of the trunk against as many whole passes."""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from cereals_core.information import quantise, vote_entropy
from cereals_core.models.dropout import draw_masks
from cereals_core.models.fcn8s import FCN8s
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng

SAMPLES, DROPOUT, WIDTH, CLASSES = 20, 0.5, 0.25, 19


def by_whole_passes(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    stream, pixels = rng(0, "votes"), torch.from_numpy(image)[None].permute(0, 3, 1, 2).to(predictor.device)
    shapes = predictor.model.mask_shapes(*image.shape[:2])

    def samples() -> Iterator[torch.Tensor]:
        for _ in range(SAMPLES):
            yield predictor.model(pixels, draw_masks(stream, shapes, DROPOUT, predictor.device))

    with torch.inference_mode():
        return quantise(vote_entropy(samples())[0].cpu().numpy())


def by_one_trunk(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    streams = [rng(0, "votes")]
    return predictor.sampled_information(image[None], vote_entropy, SAMPLES, DROPOUT, streams)[0].cpu().numpy()


def timed(
    way: Callable[[Predictor, np.ndarray], np.ndarray], predictor: Predictor, image: np.ndarray
) -> tuple[np.ndarray, float]:
    """The map, and the seconds it took."""
    started = time.perf_counter()
    votes = way(predictor, image)
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
        (votes, fast_s), (expected, slow_s) = (timed(way, predictor, image) for way in (by_one_trunk, by_whole_passes))
        np.testing.assert_array_equal(votes, expected)
        assert (votes > 0).any()
        rows.append(f"| {height} x {width} | {fast_s:.2f} | {slow_s:.2f} | {slow_s / fast_s:.1f} |")
    with capsys.disabled():
        print(f"\nVote entropy of {SAMPLES} samples, FCN8s at width {WIDTH}, {torch.get_num_threads()} threads\n")
        print("| image, px | one trunk, s | whole passes, s | ratio |\n|---|---|---|---|", *rows, sep="\n")
