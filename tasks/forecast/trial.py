"""A trial: the campaign's own stages on a few images, to see from their manifests what this machine takes.

Truth that is read is that of the split for evaluation, whose images stand for the pool's; the pool's is not looked at.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from cereals_core.data_settings import SyntheticData
from cereals_core.datasets import open_images
from cereals_core.datasets.base import ImageSource
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings, Stop
from cereals_core.workload import Size, Workload
from tasks.forecast.times import Paces
from tasks.stages import runs_of
from tasks.store.history import product_of, products_made
from tasks.store.layout import Campaign
from tasks.telling.progress import track

MOST_IMAGES, FEW_IMAGES = 300, 20
"""Images that are read where the sizes of all are unknown, and where they are known."""
READING_S = 3.0
"""So long images are read at most."""
WORKING_S = 8.0
"""So long a trial trains, and so long it maps and evaluates, as far as its least numbers allow."""
FIRST_TRIED, LEAST_TRIED, MOST_TRIED = 2, 6, 40
"""Images and steps of the first trial, whose times count for nothing but the size of the second; and of that."""


@dataclass(frozen=True)
class Images:
    """Sizes of the pool's images, how many of them were read, whether those stand for others, and seconds of one."""

    sizes: list[Size]
    read: int
    are_known: bool
    image_s: float


def look_at_images(settings: CampaignSettings, known: Mapping[str, Size] | None) -> Images:
    """Read some images of the pool, drawn at random; their sizes stand for all if `known` does not tell those."""
    source = open_images(settings.data, "pool")
    if known is None and isinstance(settings.data, SyntheticData):
        known = dict.fromkeys(source.image_ids, (settings.data.height, settings.data.width))
    order = rng(settings.seed, "forecast", "images").permutation(len(source.image_ids))
    ids = [source.image_ids[index] for index in order[: MOST_IMAGES if known is None else FEW_IMAGES]]
    read, image_s = _read(source, ids)
    sizes = read if known is None else list(known.values())
    repeated = sizes * -(-len(source.image_ids) // len(sizes))
    return Images(repeated[: len(source.image_ids)], len(read), len(sizes) == len(source.image_ids), image_s)


def _read(source: ImageSource, image_ids: list[str]) -> tuple[list[Size], float]:
    """Read the sizes of these images, as far as the time goes, and tell seconds an image; the first one is slower."""
    sizes: list[Size] = []
    elapsed_s: list[float] = []
    with track("read", len(image_ids), "images", at_most=True) as advance:
        for image_id in image_ids:
            started = time.perf_counter()
            height, width, _ = source.image(image_id).shape
            elapsed_s.append(time.perf_counter() - started)
            sizes.append((height, width))
            advance()
            if sum(elapsed_s) > READING_S:
                break
    return sizes, mean(elapsed_s[1:] or elapsed_s)


def try_out(load: Workload, run: Callable[[Campaign], None]) -> Paces:
    """Run small campaigns like this one in a folder that goes again, and tell the pace of their stages."""
    with tempfile.TemporaryDirectory(prefix="cereals-") as folder:
        first = _trial(load.settings, Path(folder) / "first", FIRST_TRIED, FIRST_TRIED)
        run(first)
        images, steps = _affordable(first)
        second = _trial(load.settings, Path(folder) / "second", images, steps)
        run(second)
        pool = product_of(second, "pool", None).facts
        return Paces(list(products_made(second)), load.mean_px * pool["images"] / pool["pixels"])


def _trial(settings: CampaignSettings, folder: Path, images: int, steps: int) -> Campaign:
    """Make a small campaign, in one process: so many images of either split, trainings of so many steps."""
    wanted, rounds = settings.acquisition, 2 if settings.training.method == "cropping" else 1
    part = max(images // 10, 1)  # few, so that steps are many beside the images that they read first
    changed = {
        "folder": str(folder),
        "data": settings.data.few(images),
        "training": settings.training.model_copy(
            update={"max_steps": steps, "steps": steps if settings.training.steps else None}
        ),
        "acquisition": wanted.model_copy(
            update={"seed_images": "all" if wanted.seed_images == "all" else part, "images_per_round": part}
        ),
        "stop": Stop(rounds=min(rounds, settings.stop.rounds)),
        "compute": settings.compute.model_copy(update={"cluster": "none"}),
    }
    return Campaign(folder, settings.model_copy(update=changed))


def _affordable(trial: Campaign) -> tuple[int, int]:
    """Choose images and steps that take about WORKING_S each, by the pace of a first trial."""
    paces, unit_s = Paces(products_made(trial)), {"image": 0.0, "step": 0.0}
    for stage, number in runs_of(trial.settings):
        pace = paces.of(stage, number or 0)
        if stage.gpu and pace is not None:
            unit_s[stage.takes.unit] += pace.unit_s
    images, steps = (min(max(int(WORKING_S / max(each, 1e-6)), LEAST_TRIED), MOST_TRIED) for each in unit_s.values())
    return images, steps
