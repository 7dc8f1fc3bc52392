"""Pictures on disk: read whole or refused, and brought to the scale the settings ask for."""

import json
from collections import Counter
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from cereals_core.data_settings import CityscapesData, CocoData, MasksData
from cereals_core.errors import DataError
from cereals_core.shapes import UInt8
from cereals_core.truth import Truth

Split = Literal["pool", "eval"]
SMALLEST_SIDE_PX = 32
"""Least height and width of a scaled image: what the networks' five poolings leave one pixel of."""


def split_name(data: CocoData | MasksData | CityscapesData, split: Split) -> str:
    """Return the name on disk of the split that the campaign uses as its pool or for evaluation."""
    return data.pool_split if split == "pool" else data.eval_split


def refuse(problems: list[str]) -> None:
    """Raise one DataError with every problem, a line each; return if there are none."""
    if problems:
        raise DataError("\n".join(problems))


def repeated_ids(origin: Path, image_ids: Iterable[str]) -> list[str]:
    """Return one problem for each image id that occurs more than once; an id is a file's stem."""
    counts = Counter(image_ids)
    return [
        f"{origin}: image id {image_id} occurs {count} times, expected once; rename or remove the others"
        for image_id, count in sorted(counts.items())
        if count > 1
    ]


def read_image(file: Path, scale: float) -> UInt8[np.ndarray, "h w 3"]:
    """Read a picture as RGB and shrink it to `scale` in (0, 1] of its size by area interpolation.

    The pixels are taken as stored: an EXIF orientation is ignored, since masks and polygons belong to stored pixels.
    DataError if the file is missing, cannot be decoded or is cut short (decoders fill the rest with grey).
    """
    content = np.frombuffer(_read_whole(file), np.uint8)
    image = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DataError(f"{file}: not a picture that can be decoded; replace it by an intact copy")
    height, width = _scaled_shape(image.shape[:2], scale)
    if (height, width) != image.shape[:2]:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(image)


def read_mask(file: Path) -> UInt8[np.ndarray, "h w"]:
    """Read a mask's values; of a palette picture these are the indices, not the colours.

    DataError if the file is missing, cut short, cannot be decoded or is not a single channel of at most 8 bits.
    """
    content = _read_whole(file)
    try:
        with Image.open(BytesIO(content)) as picture:
            mask = np.array(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file}: not a mask that can be decoded ({error}); replace it by an intact copy") from None
    if mask.ndim != 2 or mask.dtype not in (np.uint8, np.bool_):
        raise DataError(
            f"{file}: {picture.mode} picture; expected one channel of at most 8 bits, or a palette; save it as such"
        )
    return mask.astype(np.uint8)


def read_json(file: Path) -> Any:
    """Read a JSON file; DataError if it is missing or broken."""
    content = _read_bytes(file)
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{file}: not valid JSON ({error}); replace it by an intact copy") from None


def read_text(file: Path) -> str:
    """Read a UTF-8 text file; DataError if it is missing or no text."""
    try:
        return _read_bytes(file).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error}); save it as such") from None


def scaled_truth(truth: Truth, scale: float) -> Truth:
    """Scale truth to the size that `read_image` gives its image.

    Labels are taken by nearest neighbour, click coordinates multiplied. `scale` is in (0, 1]. Weights stay as they are:
    an annotator clicks as often whatever the scale.
    """
    old = truth.labels.shape
    new = _scaled_shape(old, scale)
    if new == old:
        return truth
    labels = cv2.resize(truth.labels, (new[1], new[0]), interpolation=cv2.INTER_NEAREST_EXACT)
    factors = np.array([new[0] / old[0], new[1] / old[1], 1])
    return Truth(np.asarray(labels), (truth.clicks * factors).astype(np.float32))


def _scaled_shape(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    height, width = (max(SMALLEST_SIDE_PX, round(side * scale)) for side in shape)
    return height, width


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; restore the file, or correct data.root and the splits") from None


def _read_whole(file: Path) -> bytes:
    content = _read_bytes(file)
    jpeg_cut = content.startswith(b"\xff\xd8") and content.rfind(b"\xff\xd9") <= content.rfind(b"\xff\xda")
    png_cut = content.startswith(b"\x89PNG") and b"IEND" not in content
    if jpeg_cut or png_cut:
        raise DataError(f"{file}: cut short, {len(content)} bytes without an end mark; replace it by an intact copy")
    return content
