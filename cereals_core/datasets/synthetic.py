"""Street scenes drawn from a seed: pictures with exact polygons, for tests, demonstrations and machines without data.

A scene is built in metres (x to the right, up, z into the picture; the road bends with z^2), projected by a pinhole
camera 1.5 m above the road, and painted from far to near. Everything here is our choice. Small things that cost many
clicks (people, signs, poles) are rare and stand in groups.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cereals_core.data_settings import SyntheticData
from cereals_core.datasets.files import Split
from cereals_core.datasets.polygons import Polygon, Ring, fill, polygon_truth
from cereals_core.grid import VOID
from cereals_core.seeding import rng
from cereals_core.shapes import Float64, Int16, Real, UInt8
from cereals_core.truth import Truth

CLASS_NAMES = ("road", "sidewalk", "building", "pole", "traffic sign", "vegetation", "sky", "person", "car")
ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = range(len(CLASS_NAMES))

_CAMERA_M, _FAR_M = 1.5, 150.0
_FINE_GRAIN, _COARSE_GRAIN = np.full((2, 256), 8, np.uint8)
"""Amplitude of noise, in grey levels, of each label: per pixel, and smoothed over 1/32 of the image's height."""
_FINE_GRAIN[: len(CLASS_NAMES)] = 10, 9, 11, 6, 6, 22, 3, 12, 8
_COARSE_GRAIN[: len(CLASS_NAMES)] = 14, 12, 14, 5, 5, 45, 12, 12, 10

# Outlines (side, up), in units of the thing's height, standing on (0, 0).
_WALKER = np.array(
    [(-0.17, 0), (-0.14, 0.25), (-0.12, 0.48), (-0.17, 0.5), (-0.15, 0.8), (-0.05, 0.85), (-0.07, 0.95), (0, 1),
     (0.07, 0.95), (0.05, 0.85), (0.15, 0.8), (0.18, 0.52), (0.12, 0.48), (0.16, 0), (0.07, 0), (0.02, 0.4), (-0.07, 0)]
)  # fmt: skip
_LEGS, _HEAD = [0, 1, 2, 12, 13, 14, 15, 16], [5, 6, 7, 8, 9]
_CAR_BACK = np.array(
    [(-0.62, 0), (-0.64, 0.5), (-0.58, 0.62), (-0.45, 0.95), (-0.3, 1), (0.3, 1), (0.45, 0.95), (0.58, 0.62),
     (0.64, 0.5), (0.62, 0), (0.45, 0), (0.42, 0.12), (-0.42, 0.12), (-0.45, 0)]
)  # fmt: skip
_CAR_SIDE = np.array(
    [(-1.45, 0.15), (-1.48, 0.5), (-1.35, 0.62), (-0.75, 0.68), (-0.3, 0.98), (0.5, 1), (1.1, 0.68), (1.42, 0.62),
     (1.45, 0.15), (1.1, 0.12), (1.0, 0), (0.78, 0), (0.68, 0.12), (-0.72, 0.12), (-0.82, 0), (-1.04, 0), (-1.14, 0.12)]
)  # fmt: skip
_REAR_WINDOW = np.array([(-0.46, 0.64), (-0.38, 0.92), (0.38, 0.92), (0.46, 0.64)])
_SIDE_WINDOW = np.array([(-0.6, 0.68), (-0.25, 0.92), (0.45, 0.93), (0.85, 0.68)])
_CORNERS = np.array([(0, 0), (0, 1), (1, 1), (1, 0)])
_PATCH = np.array([(-1, 0, 0), (-1, 0, 1), (1, 0, 1), (1, 0, 0)])
_BOX = np.array([(-0.5, 0), (-0.5, 1), (0.5, 1), (0.5, 0)])
_ROUND = np.array([(np.sin(angle) / 2, 0.5 - np.cos(angle) / 2) for angle in np.arange(8) * np.pi / 4])
_TRIANGLE = np.array([(-0.55, 0), (0, 1), (0.55, 0)])


@dataclass(frozen=True)
class _Shape:
    """Areas of one class and colour: rings in pixels; only annotated ones are part of the truth."""

    label: int
    colour: Real[np.ndarray, "3"]
    rings: Float64[np.ndarray, "n vertices 2"]
    annotated: bool = True


def _detail(label: int, colour: Real[np.ndarray, "3"], rings: Float64[np.ndarray, "n vertices 2"]) -> _Shape:
    return _Shape(label, colour, rings, annotated=False)


class SyntheticStreets:
    """One split of generated streets; each image depends on (seed, split, its number) and the image size alone."""

    def __init__(self, data: SyntheticData, split: Split) -> None:
        count = data.pool_images if split == "pool" else data.eval_images
        self.image_ids = [f"{split}-{number:06d}" for number in range(count)]
        self.class_names, self._seed, self._size = CLASS_NAMES, data.seed, (data.height, data.width)
        self.index_files: list[Path] = []

    def files(self, image_id: str) -> list[Path]:
        """List no file: scenes are drawn."""
        return []

    def image(self, image_id: str) -> UInt8[np.ndarray, "h w 3"]:
        """Draw one RGB image."""
        return _draw(self._scene(image_id), self._size, rng(self._seed, "street-grain", image_id))

    def truth(self, image_id: str) -> Truth:
        """Paint one image's polygons; their vertices are its clicks."""
        return polygon_truth(self.polygons(image_id), self._size, VOID)

    def polygons(self, image_id: str) -> list[Polygon]:
        """Return the annotated polygons in paint order; vertices are multiples of 1/16 px inside the image."""
        return [Polygon(shape.label, shape.rings[0]) for shape in self._scene(image_id) if shape.annotated]

    def _scene(self, image_id: str) -> list[_Shape]:
        return _Street(rng(self._seed, "street", image_id), self._size).shapes()


class _Street:
    """A scene under construction: things with their distance, each a group of shapes."""

    def __init__(self, generator: np.random.Generator, size: tuple[int, int]) -> None:
        self.rng, self.size = generator, size
        self.uniform: Callable[[float, float], float] = generator.uniform
        self.horizon, self.centre = size[0] * self.uniform(0.38, 0.46), size[1] * self.uniform(0.4, 0.6)
        self.focal, self.bend = size[0] * 1.2, self.uniform(-0.0015, 0.0015)
        self.road_m, self.walk_m = self.uniform(3.5, 5.5), self.uniform(2.5, 4.5)
        self.things: list[tuple[float, list[_Shape]]] = []

    def shapes(self) -> list[_Shape]:
        """Build the street and return its shapes in paint order, far ones first."""
        self._ground()
        for side in (-1, 1):
            self._houses(side)
            for z in self._places(7, 0.6):
                self._tree(side * (self.road_m + self.walk_m * self.uniform(0.4, 0.9)), z)
            for z in self._places(9, 0.8):
                self._pole(side * (self.road_m + 0.4), z)
            for z in self._places(5, 0.45):
                self._car(side * (self.road_m - 1.2), z, _CAR_BACK, _REAR_WINDOW)
        self._people()
        if self.rng.random() < 0.3:
            self._car(self.uniform(-6, 6), self.uniform(14, 40), _CAR_SIDE, _SIDE_WINDOW)
        self.things.sort(key=lambda thing: -thing[0])
        self.things.append((0, self._bonnet()))
        return [shape for _, shapes in self.things for shape in shapes]

    def _places(self, spacing_m: float, share: float) -> Float64[np.ndarray, "places"]:
        places = np.arange(self.uniform(5, 5 + spacing_m), 70, spacing_m)
        return np.asarray(places[self.rng.random(len(places)) < share])

    def _colour(self, *base: float, spread: float = 18) -> Float64[np.ndarray, "3"]:
        return np.array(base) + self.rng.normal(0, spread, 3) / 2 + self.rng.normal(0, spread)

    def _project(self, points_m: Real[np.ndarray, "*n 3"]) -> Float64[np.ndarray, "*n 2"]:
        """Project points (x, up, z) in metres to (y, x) in pixels."""
        x, up, z = points_m[..., 0], points_m[..., 1], points_m[..., 2]
        pixels = np.empty((*points_m.shape[:-1], 2))
        pixels[..., 0] = self.horizon + self.focal * (_CAMERA_M - up) / z
        pixels[..., 1] = self.centre + self.focal * (x / z + self.bend * z)
        return pixels

    def _outline(self, label: int, colour: Real[np.ndarray, "3"], ring: Ring) -> list[_Shape]:
        """Cut an annotated shape at the image's edges; nothing if what is left is too small to be annotated."""
        ring = np.round(_cut(ring, self.size) * 16) / 16
        height, width = ring.max(axis=0, initial=0) - ring.min(axis=0, initial=max(self.size))
        return [_Shape(label, colour, ring[None])] if height >= 4 + self.size[0] / 128 and width >= 1 else []

    def _upright(self, outline: Ring, x: float, z: float, up: float = 0) -> Ring:
        """Project an outline in metres that faces the camera and stands `up` above the road at (x, z)."""
        return self._project(np.column_stack([outline, np.zeros(len(outline))]) + np.array((x, up, z)))

    def _ground(self) -> None:
        height, width = self.size
        z = np.geomspace(1, _FAR_M, 12)
        left, right = (np.column_stack([np.full(12, side * self.road_m), np.zeros(12), z]) for side in (-1, 1))
        road, line = self._project(np.concatenate([left, right[::-1]])), self.horizon + 1
        sky, walk = self._colour(165, 190, 220, spread=25), self._colour(135, 125, 120, spread=14)
        asphalt = self._colour(95, 95, 100, spread=14)
        stripes = np.array([_PATCH * (0.1, 1, 2) + (0, 0, start) for start in range(4, 70, 6)])
        self.things.append((np.inf, [
            *self._outline(SKY, sky, _CORNERS * (line, width)),
            *self._outline(SIDEWALK, walk, _CORNERS * (height - line, width) + (line, 0)),
            *self._outline(ROAD, asphalt, road),
            _detail(ROAD, asphalt + 90, self._project(stripes)),
        ]))  # fmt: skip
        crowns = self.horizon - height * self.rng.uniform(0.01, 0.06, 24)
        hedge = np.concatenate([np.column_stack([crowns, np.linspace(0, width, 24)]), [(line, width), (line, 0)]])
        self.things.append((_FAR_M, self._outline(VEGETATION, self._colour(70, 95, 60), hedge)))

    def _houses(self, side: int) -> None:
        wall_x, z = side * (self.road_m + self.walk_m), self.uniform(1, 4)
        while z < 100:
            depth, height = self.uniform(8, 22), self.uniform(6, 20)
            if self.rng.random() < 0.8:
                self._house(wall_x, z, z + depth, height, side)
            z += depth + (self.uniform(0, 10) if self.rng.random() < 0.3 else 0)

    def _house(self, x: float, near: float, far: float, height: float, side: int) -> None:
        colour = self._colour(150, 135, 120, spread=28)
        front = self._upright(_BOX * (40, height), x + side * 20, near)
        ridge = [(x, height, far), (x, height + self.uniform(0, 3), (near + far) / 2), (x, height, near)]
        wall = self._project(np.array([(x, 0, near), (x, 0, far), *ridge]))
        z, up = np.meshgrid(np.arange(near + 1, far - 2, 2.6), np.arange(1, height - 2, 3))
        corners = np.array([(x, 0, 0), (x, 1.7, 0), (x, 1.7, 1.3), (x, 0, 1.3)])
        windows = np.stack([np.zeros(z.size), up.ravel(), z.ravel()], axis=-1)[:, None] + corners
        self.things.append((far, [
            *self._outline(BUILDING, colour * 0.85, front),
            *self._outline(BUILDING, colour, wall),
            _detail(BUILDING, self._colour(70, 80, 95), self._project(windows)),
        ]))  # fmt: skip

    def _tree(self, x: float, z: float) -> None:
        radius, top, angles = self.uniform(1.2, 2.8), self.uniform(3, 5), np.arange(0, 6.2, self.uniform(0.25, 0.5))
        radii = radius * self.rng.uniform(0.75, 1.1, len(angles))
        crown = np.column_stack([radii * np.sin(angles), radii * np.cos(angles)])
        bark, green = self._colour(80, 65, 50), self._colour(60, 90, 45, spread=20)
        self.things.append((z, [
            *self._outline(VEGETATION, bark, self._upright(_BOX * (0.3, top), x, z)),
            *self._outline(VEGETATION, green, self._upright(crown, x, z, up=top + radius / 2)),
        ]))  # fmt: skip

    def _pole(self, x: float, z: float) -> None:
        height, grey = self.uniform(3, 7), self._colour(110, 110, 110, spread=25)
        pole = self._outline(POLE, grey, self._upright(_BOX * (0.16, height), x, z))
        sign = self._sign(x, z) if self.rng.random() < 0.5 else []
        self.things.append((z, pole + sign))

    def _sign(self, x: float, z: float) -> list[_Shape]:
        outline = (_ROUND, _TRIANGLE, _BOX)[self.rng.integers(3)] * self.uniform(0.6, 1)
        colour = np.array([(190, 40, 40), (40, 70, 170), (225, 190, 40)])[self.rng.integers(3)] * self.uniform(0.7, 1)
        plate = self._outline(SIGN, colour, self._upright(outline, x, z, up=2.2))
        middle = outline.mean(axis=0)
        inner = self._upright((outline - middle) * 0.6 + middle, x, z, up=2.2)
        return [*plate, _detail(SIGN, colour + 110, inner[None])] if plate else []

    def _car(self, x: float, z: float, outline: Ring, window: Real[np.ndarray, "4 2"]) -> None:
        paint, height = self.rng.uniform(20, 230, 3) * 0.6 + self.uniform(0, 90), self.uniform(1.4, 1.75)
        body = self._outline(CAR, paint, self._upright(outline * height, x, z))
        if not body:
            return
        shadow = self._project(_PATCH * (1, 1, 3.3) + (x, 0, z - 0.3))
        lamps = [_BOX * 0.14 + (side * 0.5, 0.42) for side in (-1, 1)] if outline is _CAR_BACK else []
        self.things.append((z, [
            _detail(ROAD, np.full(3, 40.0), shadow[None]),
            *body,
            _detail(CAR, np.full(3, 45.0), self._upright(window * height, x, z)[None]),
            *(_detail(CAR, np.array([170, 30, 30]), self._upright(lamp * height, x, z)[None]) for lamp in lamps),
        ]))  # fmt: skip

    def _people(self) -> None:
        for _ in range(self.rng.integers(0, 4)):
            x, z = self.rng.choice((-1, 1)) * self.uniform(0.5, self.road_m + self.walk_m - 0.5), self.uniform(7, 30)
            for _ in range(self.rng.integers(1, 6)):
                self._person(x + self.uniform(-1.5, 1.5), z + self.uniform(-2, 2))

    def _person(self, x: float, z: float) -> None:
        height = self.uniform(1.5, 1.9)
        coat, skin = self.rng.uniform(20, 200, 3), self._colour(190, 150, 125)
        walker = _WALKER * (self.rng.choice((-height, height)), height)
        body = self._outline(PERSON, coat, self._upright(walker, x, z))
        if body:
            legs, head = (self._upright(walker[part], x, z)[None] for part in (_LEGS, _HEAD))
            self.things.append((z, [*body, _detail(PERSON, coat * 0.5, legs), _detail(PERSON, skin, head)]))

    def _bonnet(self) -> list[_Shape]:
        """Draw the bonnet of the car that carries the camera, which is void."""
        height, width = self.size
        ring = np.array([(1, 0), (0.955, 0.04), (0.935, 0.2), (0.93, 0.5), (0.935, 0.8), (0.955, 0.96), (1, 1)])
        return self._outline(VOID, self._colour(60, 60, 65), ring * (height, width))


def _cut(ring: Ring, size: tuple[int, int]) -> Real[np.ndarray, "kept 2"]:
    """Cut a ring to the image, one image edge after the other (Sutherland and Hodgman 1974)."""
    for axis, sign, offset in ((0, 1, 0), (0, -1, size[0]), (1, 1, 0), (1, -1, size[1])):
        inside_by = sign * ring[:, axis] + offset
        if inside_by.min(initial=0) >= 0:
            continue
        following, next_by = np.roll(ring, -1, axis=0), np.roll(inside_by, -1)
        crosses = inside_by * next_by < 0
        share = inside_by / np.where(crosses, inside_by - next_by, 1)
        candidates = np.stack([ring, ring + share[:, None] * (following - ring)], axis=1)
        ring = candidates[np.stack([inside_by >= 0, crosses], axis=1)]
    return ring


def _draw(scene: list[_Shape], size: tuple[int, int], generator: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    canvas = np.zeros(size, np.uint16)
    for number, shape in enumerate(scene):
        fill(canvas, shape.rings, number)
    labels = np.array([shape.label for shape in scene], np.uint8)
    light = generator.uniform(0.65, 1.1) * generator.uniform(0.92, 1.08, 3)
    colours = np.clip(np.array([shape.colour for shape in scene]) * light, 0, 255).astype(np.uint8)
    grain = _grain(np.take(labels, canvas), generator)
    image = cv2.add(np.take(colours, canvas, axis=0), cv2.merge([grain, grain, grain]), dtype=cv2.CV_8U)
    return np.asarray(cv2.GaussianBlur(image, (3, 3), 0.6))


def _grain(labels: UInt8[np.ndarray, "h w"], generator: np.random.Generator) -> Int16[np.ndarray, "h w"]:
    """Draw noise of each pixel's class and uneven light, in grey levels."""
    fine = generator.integers(-128, 128, labels.shape, np.int8)
    coarse, light = (
        cv2.resize(generator.integers(0, 256, (rows, 2 * rows), np.uint8), labels.shape[::-1]).astype(np.int16) - 128
        for rows in (32, 4)
    )
    return (fine * cv2.LUT(labels, _FINE_GRAIN) + coarse * cv2.LUT(labels, _COARSE_GRAIN) + light * 16) >> 7
