"""Scenes of the synthetic devkit: background, clutter, animals, light and camera, with the ground truth mask."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ssdd_lightning.data.synthetic_objects import SUPERSAMPLING, Animal, Raster, class_look
from ssdd_lightning.data.synthetic_shapes import (
    Bytes,
    Floats,
    Polygon,
    blob,
    fractal_noise,
    pattern_value,
    ribbon,
    surface,
)

VOID = 255
_MIN_VISIBLE = 0.45  # an animal hidden more than this is left out of the scene

# RGB of grounds and walls, and of skies.
_GROUNDS = np.array(
    [
        (96, 124, 62), (128, 140, 84), (120, 92, 62), (176, 150, 108), (132, 128, 122), (196, 186, 172),
        (84, 78, 70), (150, 104, 82), (110, 122, 132), (214, 206, 190),
    ],
    np.float32,
)  # fmt: skip
_SKIES = np.array([(150, 184, 222), (206, 216, 226), (176, 180, 184), (120, 158, 200)], np.float32)


class Box(NamedTuple):
    """A visible animal: class index and bounding box in pixels, both corners inside it."""

    label: int
    left: int
    top: int
    right: int
    bottom: int
    truncated: bool


class Scene(NamedTuple):
    """image: H x W x 3 uint8 RGB. mask: H x W uint8, class indices, 0 and 255. boxes: the visible animals."""

    image: Bytes
    mask: Bytes
    boxes: list[Box]


class _Placed(NamedTuple):
    label: int
    animal: Animal
    raster: Raster


def render_scene(rng: np.random.Generator, height: int, width: int, primary: int, labels: Sequence[int]) -> Scene:
    """Draw one photo.

    Args:
        rng: the only source of randomness.
        height: image height in pixels.
        width: image width in pixels.
        primary: class index that is certain to be visible.
        labels: class indices further animals are drawn from.

    Returns:
        The scene. Its boxes name exactly the classes of its mask.
    """
    while True:
        scene = _draw(rng, height, width, primary, labels)
        if primary in {box.label for box in scene.boxes}:  # else a post or the frame hides it
            return scene


def _draw(rng: np.random.Generator, height: int, width: int, primary: int, labels: Sequence[int]) -> Scene:
    image = _background(rng, height, width, class_look(primary).outdoors)
    _clutter(image, rng)
    if rng.random() < 0.5:  # the lens is focused on the animals
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.6, 0.02 * min(height, width)))
    owner, placed = _arrange(rng, height, width, primary, labels)
    for number, item in enumerate(placed, start=1):
        _cast_shadow(image, item.raster, rng)
        _composite(image, item, owner, number, rng)
    _foreground(image, owner, rng)
    mask, boxes = _annotate(owner, [item.label for item in placed])
    return Scene(_photograph(image, rng), mask, boxes)


def _background(rng: np.random.Generator, height: int, width: int, outdoors: float) -> Floats:
    """Ground alone, or ground below a sky or a wall."""
    image = surface(rng, height, width, _GROUNDS, rng.uniform(0.04, 0.16))
    if rng.random() < 0.3:
        return image
    horizon = int(height * rng.uniform(0.15, 0.6))
    palette, rough = (_SKIES, 0.01) if rng.random() < outdoors else (_GROUNDS, rng.uniform(0.01, 0.06))
    far = surface(rng, height, width, palette, rough)
    edge = horizon + height * rng.uniform(0, 0.04) * fractal_noise(rng, 1, width, cell=width / 4)
    above = np.clip((edge - np.arange(height, dtype=np.float32)[:, None]) / rng.uniform(1, 4), 0, 1)
    image += above[..., None] * (far - image)
    return image


def _clutter(image: Floats, rng: np.random.Generator) -> None:
    """Shapes of no class: stones and bushes, posts, boxes, now and then with a pattern."""
    height, width = image.shape[:2]
    for _ in range(rng.integers(1, 7)):
        centre = (rng.uniform(0, width), rng.uniform(0.1 * height, height))
        size = min(height, width) * rng.uniform(0.04, 0.22)
        kind = rng.integers(4)
        if kind == 0:
            path = np.linspace(centre, (centre[0] + rng.uniform(-9, 9), 0), 4)
            shape = ribbon(path, 0.3 * size, 0.2 * size)
        elif kind == 1:
            shape = blob(centre, (size, size * rng.uniform(0.5, 1.8)), exponent=8.0)
        else:
            shape = blob(centre, (size * rng.uniform(0.7, 1.6), size))
            shape += rng.uniform(-0.18, 0.18, shape.shape) * size
        _paint_shape(image, shape, rng)


def _paint_shape(image: Floats, shape: Polygon, rng: np.random.Generator) -> None:
    height, width = image.shape[:2]
    cover = np.zeros((height, width), np.uint8)
    cv2.fillPoly(cover, [np.round(shape * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    left, top, w, h = cv2.boundingRect(cover)
    if not w:
        return
    window = (slice(top, top + h), slice(left, left + w))
    colours = surface(rng, h, w, _GROUNDS, rng.uniform(0.03, 0.15))
    colours *= np.linspace(1.15, 0.75, h, dtype=np.float32)[:, None, None]
    if rng.random() < 0.2:
        u, v = np.meshgrid(np.linspace(-1, 1, w, dtype=np.float32), np.linspace(-1, 1, h, dtype=np.float32))
        kind, scale = int(rng.integers(8)), rng.uniform(1.0, 2.5)
        colours *= 1 + rng.uniform(0.1, 0.4) * pattern_value(kind, u, v, scale, 0.0)[..., None]
    alpha = cover[window].astype(np.float32)[..., None] / 255
    image[window] += alpha * (colours - image[window])


def _arrange(
    rng: np.random.Generator, height: int, width: int, primary: int, labels: Sequence[int]
) -> tuple[Bytes, list[_Placed]]:
    """Place 1 to 3 animals of 1 or 2 classes, the lower in front of the higher.

    Returns:
        owner: supersampled canvas, 0 or the animal's number from 1; the animals in drawing order.
    """
    second = primary if rng.random() < 0.45 else int(rng.choice(labels))
    wanted = [primary, second, int(rng.choice([primary, second]))][: rng.choice([1, 2, 3], p=[0.5, 0.3, 0.2])]
    placed = [_place(rng, height, width, label, first=not n) for n, label in enumerate(wanted)]
    while True:
        order = sorted(placed, key=lambda item: item.raster.window[0].stop)
        owner = np.zeros_like(placed[0].raster.parts)
        for number, item in enumerate(order, start=1):
            owner[item.raster.parts > 0] = number
        counts = np.bincount(owner.ravel(), minlength=len(order) + 1)[1:]
        whole = np.array([np.count_nonzero(item.raster.parts) for item in order])
        if len(placed) == 1 or (counts > _MIN_VISIBLE * whole).all():
            return owner, order
        placed.pop()


def _place(rng: np.random.Generator, height: int, width: int, label: int, first: bool) -> _Placed:
    animal = Animal(class_look(label), rng)
    smallest, largest = (0.32, 1.3) if first else (0.2, 0.7)
    size = min(height, width) * np.exp(rng.uniform(np.log(smallest), np.log(largest)))
    tilt = rng.uniform(-0.2, 0.2)
    turn = np.array([(np.cos(tilt), -np.sin(tilt)), (np.sin(tilt), np.cos(tilt))])
    matrix = size * turn @ np.diag([rng.choice([-1.0, 1.0]), 1.0])
    low, high = animal.bounds(matrix)
    outside = rng.choice([0.0, 0.2], p=[0.65, 0.35])  # how much of the animal the frame may cut off
    room = np.array([width, height]) - (high - low)
    start, end = np.minimum(0, room), np.maximum(0, room)
    start, end = start - outside * (high - low), end + outside * (high - low)
    offset = rng.uniform(start, end) - low
    if first:  # whoever took the picture got the face into it
        face, margin = matrix @ animal.head_at + offset, min(size * animal.head_size, min(height, width) / 2)
        offset += np.clip(face, margin, np.array([width, height]) - margin) - face
    return _Placed(label, animal, animal.rasterise(matrix, offset, height, width))


def _image_window(window: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = window
    s = SUPERSAMPLING
    return slice(rows.start // s, rows.stop // s), slice(columns.start // s, columns.stop // s)


def _cast_shadow(image: Floats, raster: Raster, rng: np.random.Generator) -> None:
    """Darken the ground below the animal."""
    rows, columns = _image_window(raster.window)
    reach = columns.stop - columns.start
    shade = np.zeros(image.shape[:2], np.float32)
    centre = ((columns.start + columns.stop) // 2 + int(rng.integers(-6, 7)), rows.stop - 2)
    cv2.ellipse(shade, centre, (max(reach // 2, 2), max(reach // 9, 2)), 0, 0, 360, 1.0, -1)
    shade = cv2.blur(shade, (reach // 10 * 2 + 1, reach // 20 * 2 + 1))
    image *= 1 - rng.uniform(0.1, 0.55) * shade[..., None]


def _composite(image: Floats, item: _Placed, owner: Bytes, number: int, rng: np.random.Generator) -> None:
    """Blend an animal in, with anti-aliased edges, part of its outline close to the background's colour."""
    rows, columns = _image_window(item.raster.window)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    colours = item.animal.paint(item.raster, rng)
    cover = (item.raster.parts[item.raster.window] > 0).astype(np.float32)
    alpha = cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA)[..., None]
    colours = cv2.resize(colours * cover[..., None], (width, height), interpolation=cv2.INTER_AREA)
    colours /= np.maximum(alpha, 1e-3)
    below = image[rows, columns]
    if rng.random() < 0.65:
        colours = _camouflage(colours, below, rng)
    below += alpha * (colours - below)


def _camouflage(colours: Floats, below: Floats, rng: np.random.Generator) -> Floats:
    """Let one side of the animal take on the local background colour."""
    height, width = below.shape[:2]
    local = cv2.blur(below, (max(width // 4, 1), max(height // 4, 1)))
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    side = math.cos(angle) * x + math.sin(angle) * y
    side += 0.3 * fractal_noise(rng, height, width, cell=width / 3, octaves=1)
    weight = np.clip(2 * side, 0, 1)[..., None] * rng.uniform(0.4, 0.85)
    detail = 0.6 * (colours - colours.mean(axis=(0, 1)))
    return np.asarray(colours + weight * (local + detail - colours), np.float32)


def _foreground(image: Floats, owner: Bytes, rng: np.random.Generator) -> None:
    """A post, or blades of grass, in front of everything in a few of the scenes."""
    height, width = image.shape[:2]
    roll = rng.random()
    if roll < 0.12:
        x = rng.uniform(0.1, 0.9) * width
        wide = rng.uniform(0.015, 0.05) * width
        paths = [ribbon(np.linspace((x, -5), (x + rng.uniform(-8, 8), height + 5), 3), wide, wide)]
    elif roll < 0.3:
        roots = rng.uniform(0, width, 30)
        tips = np.stack([roots + rng.uniform(-5, 5, 30), height * rng.uniform(0.8, 0.97, 30)], axis=1)
        blades = np.linspace(np.stack([roots, np.full(30, height + 3)], axis=1), tips, 3, axis=1)
        paths = [ribbon(blade, 2.5, 0.5) for blade in blades]
    else:
        return
    cover = np.zeros_like(owner)
    for path in paths:
        cv2.fillPoly(cover, [np.round(path * SUPERSAMPLING * 16).astype(np.int32)], 1, shift=4)
    owner[cover > 0] = 0
    alpha = cv2.resize(cover.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)[..., None]
    image += alpha * (surface(rng, height, width, _GROUNDS, 0.1) - image)


def _annotate(owner: Bytes, labels: Sequence[int]) -> tuple[Bytes, list[Box]]:
    """The mask (class indices, void where a pixel holds several owners) and the boxes of what is visible.

    Animals of which next to nothing remains visible become void, so that boxes and mask name the same
    classes.
    """
    corners = np.stack([owner[y::SUPERSAMPLING, x::SUPERSAMPLING] for y in (0, 1) for x in (0, 1)])
    owner_of = corners[0]
    mixed = (corners != owner_of).any(axis=0)
    height, width = owner_of.shape
    thickness = 1 + min(height, width) // 250  # VOC's void line is about 5 pixels at 500 x 375
    if thickness > 1:
        mixed = cv2.dilate(mixed.astype(np.uint8), np.ones((thickness, thickness), np.uint8)) > 0
    mask = np.array([0, *labels], np.uint8)[owner_of]
    mask[mixed] = VOID
    boxes = []
    for number, label in enumerate(labels, start=1):
        own = owner_of == number
        if np.count_nonzero(own & ~mixed) < max(16, height * width // 500):
            mask[own] = VOID
            continue
        left, top, w, h = cv2.boundingRect(own.astype(np.uint8))
        cut = left == 0 or top == 0 or left + w == width or top + h == height
        boxes.append(Box(label, left, top, left + w - 1, top + h - 1, cut))
    return mask, boxes


def _photograph(image: Floats, rng: np.random.Generator) -> Bytes:
    """Light falling off across the picture, white balance, contrast, lens blur and sensor noise."""
    height, width = image.shape[:2]
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    light = 1 + rng.uniform(0, 0.3) * (math.cos(angle) * x + math.sin(angle) * y)
    light -= rng.uniform(0, 0.15) * (x**2 + y**2)  # vignetting
    balance = rng.uniform(0.9, 1.1, 3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.15))
    photo = np.clip(image * light[..., None] * balance / 255, 0, 1)
    photo = cv2.pow(photo, rng.uniform(0.8, 1.25))
    photo = cv2.GaussianBlur(photo, (3, 3), rng.uniform(0.2, 0.8)) * 255
    grain = rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(rng.uniform(1.5, 7))
    return np.asarray(np.clip(photo + grain, 0, 255), np.uint8)
