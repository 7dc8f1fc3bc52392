"""Where networks run: device, precision, threads."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cereals_core.errors import SettingsError
from cereals_core.network_settings import Model
from cereals_core.settings import Compute
from tasks.running.memory import keep_freed_memory


def prepare_device(compute: Compute) -> torch.device:
    """Set CPU threads and reproducible kernels, and return the device the settings ask for."""
    keep_freed_memory()
    torch.set_num_threads(compute.cpu_threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    if compute.device == "cuda" and not torch.cuda.is_available():
        raise SettingsError('compute.device = "cuda": this machine has no CUDA device; set it to "auto" or "cpu"')
    wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted if compute.device == "auto" else compute.device)


def precision_of(model: Model) -> torch.dtype:
    """Return the number format of the networks' arithmetic."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[model.precision]


def fetched(made: Iterable[Sequence[Tensor]]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield results of a device, in main memory; each comes over while the device is at work on the next one."""
    waiting: tuple[list[Tensor], torch.cuda.Event | None] | None = None
    for tensors in made:
        started = [each.to("cpu", non_blocking=True) for each in tensors], _event() if tensors[0].is_cuda else None
        if waiting is not None:
            yield _arrived(*waiting)
        waiting = started
    if waiting is not None:
        yield _arrived(*waiting)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event()
    event.record()
    return event


def _arrived(tensors: Sequence[Tensor], event: torch.cuda.Event | None) -> tuple[np.ndarray, ...]:
    if event is not None:
        event.synchronize()
    return tuple(each.numpy() for each in tensors)
