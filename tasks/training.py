"""train-seg and train-cost: both networks, from the answers so far, going on from the last epoch that was saved."""

import hashlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

import numpy as np
import torch
from torch import nn

from cereals_core.errors import DataError, ProductError
from cereals_core.grid import VOID
from cereals_core.labelled import ClickTarget, LabelTarget, Target
from cereals_core.location import is_on_disk
from cereals_core.models.base import Network
from cereals_core.models.build import build_network
from cereals_core.network_settings import Training
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.training import (
    Loss,
    Trainer,
    balanced_weights,
    cost_loss,
    segmentation_loss,
    weighted_segmentation_loss,
)
from tasks.pages.wording import plural
from tasks.running.device import precision_of, prepare_device
from tasks.running.images import KEPT_SHARE, LabelledImages
from tasks.running.inputs import Samples, labelled_samples
from tasks.running.stage import stage
from tasks.running.takes import COST, SEGMENTATION, training
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.answers import read_answers
from tasks.store.layout import WEIGHTS
from tasks.store.pool import open_pool
from tasks.store.products import Product
from tasks.store.storage import read_whole, written_whole

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_EVERY_S = 60.0
Weights = dict[str, torch.Tensor]
HASH_BYTES = 32
"""Length of the SHA-256 that a checkpoint starts with."""


def _note(unit: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda facts: (
        f"{plural(facts['images'], 'image')}, {plural(facts['epochs'], 'epoch')}, {plural(facts['steps'], 'step')}, "
        f"loss {facts['loss']:.4f} {unit}"
        + (", cut by training.max_steps before it had converged" if facts.get("was_cut") else "")
    )


_DEPENDS_ON = ("seed", "data", "model", "training")


@stage(
    "train-seg",
    version=1,
    depends_on=_DEPENDS_ON,
    gpu=True,
    asks=False,
    takes=training(SEGMENTATION),
    note=_note("nats"),
)
def train_seg(
    work: Work, pool: Product, ledger: Product, pretrained: Product | None = None, features: Product | None = None
) -> None:
    """Train the segmentation network on everything labelled so far, from scratch or from pretrained weights."""
    settings = work.campaign.settings
    model = build_network(settings.model, len(pool.facts["class_names"]))
    _initialise(work, model)
    if pretrained is not None and features is None:
        load_into(model, pretrained, partial(model.load_state_dict, strict=False))
    samples = _samples(work, pool, features, LabelTarget)
    counts = [np.bincount(cells.ravel(), minlength=VOID + 1) for cells in samples.targets.values()]
    cells = np.sum(counts, axis=0)[: len(pool.facts["class_names"])].tolist()
    is_balanced = settings.training.class_weights == "balanced"
    _train(
        work, model, weighted_segmentation_loss(balanced_weights(cells)) if is_balanced else segmentation_loss, samples
    )
    work.facts.update(cells=cells)


@stage(
    "train-cost",
    version=1,
    depends_on=_DEPENDS_ON,
    gpu=True,
    wanted=lambda settings: settings.acquisition.cost == "learned",
    takes=training(COST),
    note=_note("clicks²"),
)
def train_cost(work: Work, pool: Product, ledger: Product, model: Product, features: Product | None = None) -> None:
    """Train the cost network on the clicks recorded so far, from the segmentation network's weights."""
    settings = work.campaign.settings
    cost_model = build_network(settings.model, 1)
    _initialise(work, cost_model)
    cost_model.copy_all_but_scores(load_model(settings, len(pool.facts["class_names"]), model))
    _train(work, cost_model, cost_loss, _samples(work, pool, features, ClickTarget))


def load_model(settings: CampaignSettings, outputs: int, product: Product) -> Network:
    """Load the network that a product of train-seg or train-cost holds, on the CPU; ProductError as for `load_into`.

    `outputs`: one a class, or 1 for the cost network.
    """
    model = build_network(settings.model, outputs)
    load_into(model, product)
    return model


def load_into(model: nn.Module, product: Product, load: Callable[[Weights], object] | None = None) -> None:
    """Load the weights of a product into a network; ProductError when they are damaged, or those of another network."""
    file = product / WEIGHTS
    try:
        weights = torch.load(_checked(file), map_location="cpu", weights_only=True)
        (load or model.load_state_dict)(weights)
    except Exception as error:  # noqa: BLE001  (damaged files fail in many ways)
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise ProductError(
            f"{file}: no weights of this network ({told}); remove {product.folder} and run again"
        ) from None


def _checked(file: Path) -> BytesIO | Path:
    """Return what torch may load; in an object store, where finding a product hashes none, checksums are compared."""
    if is_on_disk(file):
        return file
    content = BytesIO(read_whole(file))
    if ZipFile(content).testzip() is not None:  # torch does not look at checksums
        raise BadZipFile("a checksum differs")
    content.seek(0)
    return content


def _initialise(work: Work, model: Network) -> None:
    seed = int(rng(work.campaign.settings.seed, work.stage, work.number, "weights").integers(2**63))
    model.initialise(torch.Generator().manual_seed(seed))


def _samples(work: Work, pool: Product, features: Product | None, kind: type[Target]) -> Samples:
    """Open every image that teaches anything, from all answers so far, in the order of the pool."""
    sizes = {image.image_id: image.size for image in open_pool(work.campaign, pool).images}
    made: dict[str, Target] = {}
    for image_id, box, labels, clicks in read_answers(work.campaign, work.number):
        if image_id not in made:
            made[image_id] = kind(*sizes[image_id])
        made[image_id].add(box, labels, clicks)
    targets = {image_id: made[image_id].cells for image_id in sizes if image_id in made and made[image_id].teaches}
    if not targets:
        raise DataError("nothing but void is labelled so far: enlarge acquisition.seed_images")
    return labelled_samples(work.campaign, pool, features, targets)


def _train(work: Work, model: Network, loss: Loss, samples: Samples) -> None:
    settings = work.campaign.settings
    device = prepare_device(settings.compute)
    trainer = Trainer(
        model.to(device),
        loss,
        for_clicks(settings.training) if loss is cost_loss else settings.training,
        settings.model.dropout,
        lambda epoch: rng(settings.seed, work.stage, work.number, epoch),
        precision_of(settings.model),
    )
    _run(work, trainer, samples)
    _save({key: value.cpu() for key, value in trainer.best_weights.items()}, work.folder / WEIGHTS)
    tables.HISTORY.write(work.folder, [vars(epoch) for epoch in trainer.history])
    work.facts.update(
        images=len(samples),
        epochs=len(trainer.history),
        steps=trainer.steps,
        loss=trainer.best.loss,
        was_cut=trainer.was_cut,
    )


def for_clicks(training: Training) -> Training:
    """Return how the cost network is trained: clicks of a picture that is scaled or recoloured are not known."""
    return training.model_copy(update={"augment": tuple(each for each in training.augment if each == "flip")})


def _run(work: Work, trainer: Trainer, samples: Samples) -> None:
    """Train to the end, from a checkpoint if there is one, saving one now and then."""
    checkpoint = work.folder / CHECKPOINT
    _restore(trainer, checkpoint)
    saved_at, first = time.monotonic(), len(trainer.history)
    steps, is_moved = trainer.settings.steps, trainer.device.type == "cuda" and not trainer.settings.augment
    with work.track(steps or trainer.settings.max_steps, "steps", trainer.steps, at_most=not steps) as advance:
        while not trainer.finished:
            before, epoch = trainer.steps, trainer.run_epoch(samples, samples.in_order)
            if is_moved and epoch.epoch == first and isinstance(samples, LabelledImages):
                # what steps need is taken by now
                samples.move_to(trainer.device, KEPT_SHARE * torch.cuda.mem_get_info(trainer.device)[0])
            if time.monotonic() - saved_at > CHECKPOINT_EVERY_S:
                _save_checkpoint(trainer, checkpoint)
                saved_at = time.monotonic()
            advance(f"epoch {epoch.epoch + 1}, loss {epoch.loss:.4g}", epoch.steps - before)
    checkpoint.unlink(missing_ok=True)


def _save(state: dict[str, Any], file: Path) -> None:
    with written_whole(file) as stream:
        torch.save(state, stream)


class _Hashed:
    """A stream that hashes what is written to it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.sha256, self.stream = hashlib.sha256(), stream

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self.stream.write(content)

    def flush(self) -> None:
        self.stream.flush()


def _save_checkpoint(trainer: Trainer, checkpoint: Path) -> None:
    """Save all that is needed to go on, behind its hash: torch compares no checksum when it loads."""
    with written_whole(checkpoint) as stream:
        stream.write(bytes(HASH_BYTES))
        hashed = _Hashed(stream)
        torch.save(trainer.state(), cast(IO[bytes], hashed))
        stream.seek(0)
        stream.write(hashed.sha256.digest())


def _restore(trainer: Trainer, checkpoint: Path) -> None:
    """Go on from a checkpoint if a whole one is there; a damaged one is removed and training starts again.

    ProductError for one that is whole and of another training, which is removed as well.
    """
    try:
        with checkpoint.open("rb") as stream:
            digest = stream.read(HASH_BYTES)
            if hashlib.file_digest(stream, "sha256").digest() == digest:
                stream.seek(HASH_BYTES)
                trainer.restore(torch.load(stream, map_location="cpu", weights_only=True))
                return
    except FileNotFoundError:
        return
    except Exception as error:  # noqa: BLE001  (what it holds may be anything)
        checkpoint.unlink()
        told = next(iter(str(error).splitlines()), type(error).__name__)
        raise ProductError(f"{checkpoint}: of another training ({told}), and removed; run again") from None
    checkpoint.unlink()
