"""Masks without polygons, in CamVid's layout: what an annotator would have clicked is traced along the contours."""

from pathlib import Path

import cv2
import numpy as np

from cereals_core.data_settings import MasksData
from cereals_core.datasets.files import (
    Split,
    read_image,
    read_mask,
    read_text,
    refuse,
    repeated_ids,
    scaled_truth,
    split_name,
)
from cereals_core.errors import DataError
from cereals_core.grid import VOID
from cereals_core.shapes import Float32, UInt8
from cereals_core.truth import Truth

SHORT_NUMBERS = 2**16
"""Components that numbers of 16 bits tell apart."""


class MaskImages:
    """One split: stems in `<split>.txt`, pictures in `<split>/` (JPEG or PNG), masks in `<split>annot/` (PNG).

    Mask values 0, 1, ... are the classes of the settings, in their order; every other value is void.
    """

    def __init__(self, data: MasksData, split: Split) -> None:
        name = split_name(data, split)
        stems = data.root / f"{name}.txt"
        self._data, self._images, self._masks = data, data.root / name, data.root / f"{name}annot"
        self.index_files = [stems]
        self.class_names = data.class_names
        self.image_ids = sorted(line.strip() for line in read_text(stems).splitlines() if line.strip())
        problems = repeated_ids(stems, self.image_ids)
        if not self.image_ids:
            problems.append(f"{stems}: lists no image, expected a file stem a line; add some or choose another split")
        refuse(problems)

    def image(self, image_id: str) -> UInt8[np.ndarray, "h w 3"]:
        """Read one RGB image."""
        return read_image(_picture(self._images, image_id), self._data.scale)

    def truth(self, image_id: str) -> Truth:
        """Read one mask and trace its contours at full size; each vertex weighs `clicks_per_vertex` times as much."""
        mask = read_mask(self._mask(image_id))
        labels = np.where(mask < len(self.class_names), mask, VOID).astype(np.uint8)
        clicks = trace_clicks(labels, self._data.contour_epsilon_px, self._data.speck_px)
        clicks[:, 2] *= self._data.clicks_per_vertex
        return scaled_truth(Truth(labels, clicks), self._data.scale)

    def files(self, image_id: str) -> list[Path]:
        """List the image's picture and mask."""
        return [_picture(self._images, image_id), self._mask(image_id)]

    def _mask(self, image_id: str) -> Path:
        return self._masks / f"{image_id}.png"


def trace_clicks(labels: UInt8[np.ndarray, "h w"], epsilon_px: float, speck_px: int) -> Float32[np.ndarray, "clicks 3"]:
    """Estimate an annotator's clicks from labels: rows (y, x, weight) at pixel centres.

    Each class's areas, void included, lose their specks and pinholes (below `speck_px` pixels); their contours are
    simplified by Douglas and Peucker's method to within `epsilon_px`. A vertex weighs 0.5, since the area on the other
    side of the edge has one there too; in a corner of the image it weighs 1, since there is no other side. Our choice.
    """
    points: list[np.ndarray] = [np.empty((0, 2))]
    for label in np.unique(labels):
        area = _without_specks((labels == label).astype(np.uint8), speck_px, connectivity=8)
        area = 1 - _without_specks(1 - area, speck_px, connectivity=4)
        contours, _ = cv2.findContours(area, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        points.extend(cv2.approxPolyDP(contour, epsilon_px, True)[:, 0, ::-1] for contour in contours)
    vertices = np.concatenate(points)
    last = np.array(labels.shape) - 1
    in_corner = ((vertices == 0) | (vertices == last)).all(axis=1)
    return np.column_stack([vertices + 0.5, np.where(in_corner, 1.0, 0.5)]).astype(np.float32)


def _without_specks(area: UInt8[np.ndarray, "h w"], speck_px: int, connectivity: int) -> UInt8[np.ndarray, "h w"]:
    apart = (
        2 if connectivity == 8 else 1
    )  # pixels that do not touch: every second of a row, in every or every second row
    most = (area.shape[0] + apart - 1) // apart * ((area.shape[1] + 1) // 2)
    kind = cv2.CV_16U if most < SHORT_NUMBERS else cv2.CV_32S  # short numbers take a third of the time
    _, components, statistics, _ = cv2.connectedComponentsWithStats(area, connectivity=connectivity, ltype=kind)
    kept = area.copy()
    for number in np.flatnonzero(statistics[:, cv2.CC_STAT_AREA] < speck_px):
        x, y, width, height = statistics[number, :4]
        around = slice(y, y + height), slice(x, x + width)
        kept[around][components[around] == number] = 0
    return kept


def _picture(folder: Path, stem: str) -> Path:
    for suffix in (".jpg", ".png", ".jpeg"):
        if (file := folder / f"{stem}{suffix}").exists():
            return file
    raise DataError(f"{folder / stem}: no picture with suffix .jpg, .png or .jpeg; restore it or remove the stem")
