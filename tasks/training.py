"""train-seg and train-cost: both networks, from the answers so far, going on from the last epoch that was saved."""

import hashlib
import time
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

import torch

from cereals_core.errors import DataError, ProductError
from cereals_core.labelled import ClickTarget, LabelTarget, Target
from cereals_core.location import is_on_disk
from cereals_core.models.base import Network
from cereals_core.models.build import build_cost_network, build_network
from cereals_core.models.fcn8s import FCN8s
from cereals_core.models.pretrained import load_pretrained
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.training import Loss, Trainer, cost_loss, segmentation_loss
from tasks.pages.wording import plural
from tasks.running.device import precision_of, prepare_device
from tasks.running.images import KEPT_SHARE, LabelledImages, pool_images
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
        f"{plural(facts['images'], 'image')}, {facts['epochs']:,} epochs, {facts['steps']:,} steps, "
        f"loss {facts['loss']:.4f} {unit}"
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
def train_seg(work: Work, pool: Product, ledger: Product, pretrained: Product | None = None) -> None:
    """Train the segmentation model on everything labelled so far, from scratch or from pretrained weights."""
    model = build_network(work.campaign.settings.model, len(pool.facts["class_names"]))
    _initialise(work, model)
    if pretrained is not None:
        load_into(model, pretrained, load_pretrained)
    _train(work, model, segmentation_loss, _samples(work, pool, LabelTarget))


@stage(
    "train-cost",
    version=1,
    depends_on=_DEPENDS_ON,
    gpu=True,
    wanted=lambda settings: settings.acquisition.cost == "learned",
    takes=training(COST),
    note=_note("clicks²"),
)
def train_cost(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Train the cost model on the clicks recorded so far, from the segmentation model's weights if that is FCN8s."""
    settings = work.campaign.settings
    cost_model = build_cost_network(settings.model)
    _initialise(work, cost_model)
    segmentation = load_model(settings, len(pool.facts["class_names"]), model)
    if isinstance(segmentation, FCN8s):
        cost_model.copy_all_but_scores(segmentation)
    _train(work, cost_model, cost_loss, _samples(work, pool, ClickTarget))


def load_model(settings: CampaignSettings, outputs: int, product: Product) -> Network:
    """Load the segmentation network that a product of train-seg holds, on the CPU; ProductError as for `load_into`."""
    model = build_network(settings.model, outputs)
    load_into(model, product)
    return model


def load_cost_model(settings: CampaignSettings, product: Product) -> FCN8s:
    """Load the cost network that a product of train-cost holds, on the CPU; ProductError as for `load_into`."""
    model = build_cost_network(settings.model)
    load_into(model, product)
    return model


def load_into(model: Network, product: Product, load: Callable[[Network, Weights], object] | None = None) -> None:
    """Load the weights of a product into a network; ProductError when they are damaged, or those of another network."""
    file = product / WEIGHTS
    try:
        weights = torch.load(_checked(file), map_location="cpu", weights_only=True)
        if load is None:
            model.load_state_dict(weights)
        else:
            load(model, weights)
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


def _samples(work: Work, pool: Product, kind: type[Target]) -> LabelledImages:
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
    return LabelledImages(pool_images(work.campaign.settings.data, pool), targets)


def _train(work: Work, model: Network, loss: Loss, samples: LabelledImages) -> None:
    settings = work.campaign.settings
    device = prepare_device(settings.compute)
    trainer = Trainer(
        model.to(device),
        loss,
        settings.training,
        settings.model.dropout,
        lambda epoch: rng(settings.seed, work.stage, work.number, epoch),
        precision_of(settings.model),
    )
    _run(work, trainer, samples)
    _save({key: value.cpu() for key, value in trainer.best_weights.items()}, work.folder / WEIGHTS)
    tables.HISTORY.write(work.folder, [vars(epoch) for epoch in trainer.history])
    steps, loss_value = trainer.history[-1].steps, trainer.best.loss
    work.facts.update(images=len(samples), epochs=len(trainer.history), steps=steps, loss=loss_value)


def _run(work: Work, trainer: Trainer, samples: LabelledImages) -> None:
    """Train to the end, from a checkpoint if there is one, saving one now and then."""
    checkpoint = work.folder / CHECKPOINT
    _restore(trainer, checkpoint)
    saved_at, first = time.monotonic(), len(trainer.history)
    with work.track(trainer.settings.max_steps, "steps", trainer.steps, at_most=True) as advance:
        while not trainer.finished:
            before, epoch = trainer.steps, trainer.run_epoch(samples, samples.in_order)
            if epoch.epoch == first and trainer.device.type == "cuda":  # what steps need is taken by now
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
