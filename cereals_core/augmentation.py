"""Changed copies of training samples: flipped, scaled, recoloured; every draw is from the caller's stream.

Ranges are our choice, those of common recipes for street scenes.
"""

from typing import Any

import cv2
import numpy as np

from cereals_core.grid import STRIDE_PX
from cereals_core.shapes import Float64, Shaped, UInt8

Cells = Shaped[np.ndarray, "_ _"]
SCALES = (0.5, 2.0)
"""Smallest and largest scale of a crop; logarithms of scales are uniform."""
COLOURS = 0.3
"""Most that brightness, contrast and saturation are multiplied or divided by, less 1."""


def flipped(image: Any, target: Cells) -> tuple[Any, Cells]:
    """Mirror an image, or features of it, left to right, and its target; columns of less than a cell are left out."""
    if isinstance(image, tuple):
        return tuple(_mirrored(each) for each in image), _mirrored(target)
    whole = image.shape[1] // STRIDE_PX or target.shape[1]
    return _mirrored(image[:, : whole * STRIDE_PX]), _mirrored(target[:, :whole])


def _mirrored(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values[:, ::-1])


def changed_colours(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Change brightness, contrast and saturation of an image, RGB, each by a factor drawn between 1 / 1.3 and 1.3."""
    brightness, contrast, saturation = np.exp(rng.uniform(-1, 1, 3) * np.log1p(COLOURS))
    changed = image.astype(np.float32) * np.float32(brightness)
    changed = (changed - changed.mean()) * np.float32(contrast) + changed.mean()
    grey = changed.mean(axis=2, keepdims=True)
    changed = (changed - grey) * np.float32(saturation) + grey
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


def scaled_crop(
    image: UInt8[np.ndarray, "h w 3"],
    target: Cells,
    centre: Float64[np.ndarray, "2"],
    inner_cells: int,
    context_cells: int,
    rng: np.random.Generator,
    unlabelled: np.generic,
) -> tuple[UInt8[np.ndarray, "_ _ 3"], Cells]:
    """Cut a square around a place of an image at a scale that is drawn; beyond the image it is mirrored.

    `centre`: in cells. The square has `inner_cells` a side with `context_cells` around them, and the place moves by up
    to half of the inner ones. Targets are those of the source cell in which each cell's centre falls, `unlabelled` in
    the context and beyond the image.
    """
    scale, cells = float(np.exp(rng.uniform(*np.log(SCALES)))), inner_cells + 2 * context_cells
    middle = np.clip(centre + rng.uniform(-0.5, 0.5, 2) * inner_cells / scale, 0, target.shape)
    corner = middle - cells / 2 / scale
    rows, columns = (np.floor(start + (np.arange(cells) + 0.5) / scale).astype(np.intp) for start in corner)
    inside = [(each >= 0) & (each < side) for each, side in zip((rows, columns), target.shape, strict=True)]
    inner = np.pad(np.ones((inner_cells, inner_cells), bool), context_cells)
    near = [np.clip(each, 0, side - 1) for each, side in zip((rows, columns), target.shape, strict=True)]
    counted = inner & inside[0][:, None] & inside[1]
    y, x = corner * STRIDE_PX + 0.5 / scale - 0.5  # OpenCV counts from the centre of a pixel
    matrix, side_px = np.array([[1 / scale, 0, x], [0, 1 / scale, y]], np.float32), cells * STRIDE_PX
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    pixels = cv2.warpAffine(image, matrix, (side_px, side_px), flags=how, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(pixels), np.where(counted, target[near[0][:, None], near[1]], unlabelled)
