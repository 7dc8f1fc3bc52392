import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from cereals_core.data_settings import SyntheticData
from cereals_core.errors import DataError
from cereals_core.seeding import rng
from tasks.running import images
from tasks.running.images import KEPT_SHARE, LabelledImages, kept_at_most_bytes, pool_images
from tasks.store.products import Product

COUNT, HEIGHT, WIDTH = 4, 6, 9
IMAGE_BYTES = HEIGHT * WIDTH * 3
WAIT_S = 10


class Counted:
    """Images of noise that count how often each was decoded."""

    class_names: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.image_ids: Sequence[str] = [f"image{index}" for index in range(COUNT)]
        self.decoded: Counter[str] = Counter()

    def image(self, image_id: str) -> np.ndarray:
        self.decoded[image_id] += 1
        return noise(image_id)


def noise(image_id: str) -> np.ndarray:
    return rng(0, image_id).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def labelled(source: Counted) -> LabelledImages:
    return LabelledImages(source, {each: np.full((1, 2), index) for index, each in enumerate(source.image_ids)})


def room_for(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(images, "available_bytes", lambda: round(count * IMAGE_BYTES / KEPT_SHARE))


def assert_samples(samples: LabelledImages, order: Sequence[int]) -> None:
    taken = list(samples.in_order(order))
    for (image, target), index in zip(taken, order, strict=True):
        np.testing.assert_array_equal(image, noise(samples.image_ids[index]))
        np.testing.assert_array_equal(target, [[index, index]])


@pytest.mark.parametrize(("room", "decoded"), [(4, [1, 1, 1, 1]), (2.5, [1, 3, 1, 3]), (0, [3, 3, 3, 3])])
def test_images_are_decoded_once_as_long_as_there_is_room(
    monkeypatch: pytest.MonkeyPatch, room: float, decoded: list[int]
) -> None:
    """Two are taken one after the other, so that it is known which of them are kept."""
    room_for(monkeypatch, room)
    source = Counted()
    samples = labelled(source)
    assert len(samples) == COUNT
    for index in (0, 2):
        samples[index]
    for order in ([3, 0, 2, 1], [0, 1, 2, 3], [1, 3, 0, 2]):
        assert_samples(samples, order)
    once_more = [int(room == 0 and index in (0, 2)) for index in range(COUNT)]
    assert [source.decoded[each] for each in source.image_ids] == list(np.add(decoded, once_more))


def test_room_that_appears_or_goes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    room_for(monkeypatch, 0)
    source = Counted()
    samples = labelled(source)
    samples[0]
    room_for(monkeypatch, 1)
    samples[0]
    samples[0]
    assert source.decoded["image0"] == 2
    samples[1]
    samples[1]
    assert source.decoded["image1"] == 2


def test_the_next_image_is_decoded_while_the_first_is_worked_on(monkeypatch: pytest.MonkeyPatch) -> None:
    room_for(monkeypatch, 0)
    began = threading.Event()

    class Watched(Counted):
        def image(self, image_id: str) -> np.ndarray:
            if image_id == "image3":
                began.set()
            return super().image(image_id)

    taken = labelled(Watched()).in_order([0, 3])
    next(taken)
    assert began.wait(WAIT_S)


def test_what_is_in_memory_needs_no_thread() -> None:
    samples = labelled(Counted())
    list(samples.in_order(range(COUNT)))
    before = threading.active_count()
    taken = samples.in_order(range(COUNT))
    next(taken)
    assert threading.active_count() == before


@pytest.mark.parametrize(("room", "moved"), [(0, 0), (2.5, 2), (4, 4), (99, 4)])
def test_as_many_images_as_have_room_move_to_where_the_network_is(room: float, moved: int) -> None:
    source = Counted()
    samples = labelled(source)
    list(samples.in_order(range(COUNT)))
    samples.move_to(torch.device("cpu"), room * IMAGE_BYTES)
    assert sum(isinstance(image, torch.Tensor) for image, _ in samples) == moved
    assert_samples(samples, [3, 0, 2, 1])
    assert set(source.decoded.values()) == {1}


def test_images_that_are_not_kept_do_not_move(monkeypatch: pytest.MonkeyPatch) -> None:
    room_for(monkeypatch, 0)
    samples = labelled(Counted())
    list(samples.in_order(range(COUNT)))
    samples.move_to(torch.device("meta"), 99 * IMAGE_BYTES)
    assert_samples(samples, range(COUNT))


def test_a_broken_image_is_told_by_its_reader() -> None:
    class Broken(Counted):
        def image(self, image_id: str) -> np.ndarray:
            raise DataError(f"{image_id}.png: cannot be read")

    with pytest.raises(DataError, match=r"image1\.png"):
        list(labelled(Broken()).in_order([1, 0]))


def test_the_limit_is_a_share_of_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "available_bytes", lambda: 1000)
    assert kept_at_most_bytes() == 250


@pytest.mark.parametrize(("room", "decoded"), [(4, 1), (3.9, 2)])
def test_a_pool_that_fits_into_memory_is_decoded_once_in_a_process(
    monkeypatch: pytest.MonkeyPatch, room: float, decoded: int
) -> None:
    room_for(monkeypatch, room)
    sources: list[Counted] = []

    def opened(data: SyntheticData, split: str) -> Counted:
        sources.append(Counted())
        return sources[-1]

    monkeypatch.setattr(images, "open_images", opened)
    data = SyntheticData(format="synthetic", pool_images=COUNT, eval_images=1, height=32, width=32)
    pool = Product(Path(), "", "", "", 0.0, 0, facts={"pixels": COUNT * HEIGHT * WIDTH})
    images._kept_images.cache_clear()
    for _ in range(2):
        source = pool_images(data, pool)
        for image_id in source.image_ids:
            np.testing.assert_array_equal(source.image(image_id), noise(image_id))
    assert sum((each.decoded for each in sources), Counter()) == dict.fromkeys(source.image_ids, decoded)
    images._kept_images.cache_clear()
