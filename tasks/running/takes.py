"""What a stage takes of a machine, told before it runs: work, memory, disk, and the settings that would lower them."""

from collections.abc import Callable
from dataclasses import dataclass

from cereals_core.settings import CampaignSettings, Model, SyntheticData
from cereals_core.workload import Workload
from tasks.running.prefetch import AHEAD

IMAGES_READ = AHEAD + 2
"""Images in memory at a time where they are read ahead: those waiting or being decoded, and those in hand."""
IMAGE_BYTES, TRUTH_BYTES = 3, 2
"""Bytes of a pixel of an image, and of its labels and clicks."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a stage holds at its peak.

    `tensors` where networks run; `arrays` in main memory beside them; `checkpoint` of what a training saves, twice on
    disk while it is written.
    """

    tensors: float = 0.0
    arrays: float = 0.0
    checkpoint: float = 0.0


@dataclass(frozen=True)
class Takes:
    """What a stage takes at most; what comes before the first round counts as round 0.

    `units(workload, round)`: how many of `unit` it works through.
    `disk_bytes(workload, round)`: what it leaves. `lighter(settings)` and `faster(settings)`: what to change for less
    memory, and for less time; empty if nothing would help.
    """

    unit: str = "image"
    units: Callable[[Workload, int], int] = lambda load, number: load.images
    memory: Callable[[Workload], Memory] = lambda load: Memory()
    disk_bytes: Callable[[Workload, int], float] = lambda load, number: 0.0
    lighter: Callable[[CampaignSettings], str] = lambda settings: lower_pixels(settings)
    faster: Callable[[CampaignSettings], str] = lambda settings: ""


NOTHING = Takes()
"""A stage that goes over the pool and holds nothing of it."""


def lower(**settings: object) -> str:
    """Write the advice to lower a setting, given as section__key=value."""
    return " or ".join(f"lower {key.replace('__', '.')} = {value:,}" for key, value in settings.items())


def smaller_network(model: Model, cost: bool = False) -> str:
    """Write the advice to take a smaller network; the cost network is always FCN8s."""
    if cost or model.name == "fcn8s":
        return f"lower model.width = {model.width:g}"
    return f'take a smaller model.name than "{model.name}"'


def lower_pixels(settings: CampaignSettings) -> str:
    """Write the advice to read smaller images."""
    data = settings.data
    return (
        f"lower data.height = {data.height}"
        if isinstance(data, SyntheticData)
        else f"lower data.scale = {data.scale:g}"
    )
