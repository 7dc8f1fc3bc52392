"""What this machine takes for each stage of a campaign: measured on some of its images, with its own settings."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from cereals_core.datasets import open_images
from cereals_core.datasets.base import ImageSource
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings, SyntheticData
from tasks.forecast.outlook import Size
from tasks.forecast.planning import NETWORKS, TRAININGS, Rates, Workload
from tasks.forecast.timing import LIMIT_S, Timed, disk_rates
from tasks.forecast.trial import Trial
from tasks.running.images import kept_at_most_bytes
from tasks.running.prefetch import THREADS
from tasks.telling.progress import track

MOST_IMAGES, FEW_IMAGES = 300, 20
"""Images that are read where the sizes of all are unknown, and where they are known."""


@dataclass(frozen=True)
class Images:
    """Sizes of the pool's images; those that were read, with their sizes; and the seconds that one took."""

    sizes: list[Size]
    read: Mapping[str, Size]
    are_known: bool
    image_s: float


def look_at_images(settings: CampaignSettings, known: Mapping[str, Size] | None) -> Images:
    """Read some images of the pool, drawn at random; their sizes stand for all if `known` does not tell those."""
    source = open_images(settings.data, "pool")
    if known is None and isinstance(settings.data, SyntheticData):
        known = dict.fromkeys(source.image_ids, (settings.data.height, settings.data.width))
    order = rng(settings.seed, "plan", "images").permutation(len(source.image_ids))
    ids = [source.image_ids[index] for index in order[: MOST_IMAGES if known is None else FEW_IMAGES]]
    read, image_s = _read(source, ids)
    sizes = list((read if known is None else known).values())
    repeated = sizes * -(-len(source.image_ids) // len(sizes))
    are_known = len(sizes) == len(source.image_ids)
    return Images(repeated[: len(source.image_ids)], read, are_known, image_s)


def _read(source: ImageSource, image_ids: list[str]) -> tuple[dict[str, Size], float]:
    """Sizes of these images, as far as the time goes, and seconds an image; the first one is slower."""
    sizes: dict[str, Size] = {}
    elapsed_s: list[float] = []
    with track("read", len(image_ids), "images", at_most=True) as advance:
        for image_id in image_ids:
            started = time.perf_counter()
            height, width, _ = source.image(image_id).shape
            elapsed_s.append(time.perf_counter() - started)
            sizes[image_id] = height, width
            advance()
            if sum(elapsed_s) > LIMIT_S:
                break
    return sizes, mean(elapsed_s[1:] or elapsed_s)


def measure(
    settings: CampaignSettings, folder: Path, workload: Workload, images: Images, stages: Collection[str]
) -> Rates:
    """Measure what these stages take; `folder` is the campaign's, on whose disk some bytes are written and read."""
    trial = Trial(settings, workload, images.read)
    found: dict[str, Timed] = {}
    wanted: list[tuple[str, Callable[[], Timed]]] = [(name, trial.calls[name]) for name in stages]
    wanted += [(f"{name} of regions", call) for name, call in trial.part_calls.items() if name in stages]
    wanted += [("edges", trial.edges)] if "evaluate-cost" in stages else []
    with track("measure", len(wanted) + 1, "rates") as advance:
        for name, call in wanted:
            found[name] = call()
            advance(f"{name}: {1000 * found[name].unit_s:.3g} ms")
        write_bytes_s, read_bytes_s = disk_rates(folder)
        advance()
    return Rates(
        unit_s={name: found[name].unit_s for name in stages},
        part_s={name: found[f"{name} of regions"].unit_s for name in TRAININGS if f"{name} of regions" in found},
        edges_s=found["edges"].unit_s if "edges" in found else 0.0,
        image_s=images.image_s,
        readers=THREADS,
        kept_bytes=kept_at_most_bytes(),
        write_bytes_s=write_bytes_s,
        read_bytes_s=read_bytes_s,
        waiting=frozenset(name for name in NETWORKS if name in found and found[name].waits),
    )
