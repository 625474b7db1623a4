"""Drawn photos with their true masks: what makes weak supervision hard on VOC, and no more.

Each element of a scene stands for a difficulty of VOC's photos:

- **A head that tells the class, a body that does not.** Classes differ in the pattern and the ears of the head;
  bodies, legs and coats are the same for all. A classifier needs the head alone, so activation maps light it up
  and fade over the body, as they do for faces and wheels.
- **Sizes from a small thing far away to a head that fills the frame.** The cells of an activation map are large against
  a small animal, so its blob runs far over the border, and they miss the rest of a large one.
- **Coats from the background's own palette, mixed with the colour behind the animal.** A dense CRF draws a clear
  border exactly, and eats or spills over an unclear one.
- **One to three animals of one or two classes, one before the other.** Image labels do not say which is which.
- **Clutter: stones, boxes and bushes** in the same palette, one now and then before an animal. A clear border is not
  always an object's.
- **Ground and often sky, smooth or rough; shade under the animal.** A background is neither one colour nor free of
  edges.
- **Light that falls off, blur, noise, JPEG.** Colours vary within a surface.

Three ranges are fitted to photos of six of VOC's classes. Sizes: animals cover less than 6, 12, 25, 42 and 59 % of the
photo in 10, 25, 50, 75 and 90 % of 400 true masks, here 7, 14, 24, 45 and 62 %. Places: the frame cuts an animal in
54 % of these masks, here in 57 %. The share of the colour behind: the step of colour over a border is below 17, 30, 49,
77 and 102 of 255 in as many of 120 photos, here 20, 29, 43, 59 and 79. At the same width photos have more detail.

There is nothing thinner than a leg: at the demo's 160 pixels a cell of the activation maps is 16 wide, so that tails
and horns would be lost in all masks alike and say nothing about refinement.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Polygon = npt.NDArray[np.float64]

VOID = 255
_HEAD = np.array([0.46, -0.36])  # where the head is and how large, in body lengths
_HEAD_SIZE = 0.22

# RGB of earth, stone, grass, straw, fur, wood and snow: for grounds, clutter and coats alike.
_PALETTE = np.array(
    [
        (112, 74, 44), (168, 112, 60), (206, 172, 124), (62, 54, 50), (130, 126, 120), (222, 214, 202),
        (150, 78, 48), (92, 100, 84), (128, 140, 84), (96, 124, 62),
    ]
)  # fmt: skip
_SKIES = np.array([(150, 184, 222), (206, 216, 226), (176, 180, 184), (120, 158, 200)])


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


def render_scene(rng: np.random.Generator, height: int, width: int, primary: int, labels: Sequence[int]) -> Scene:
    """Draw one photo.

    Args:
        rng: The only source of randomness.
        height: Image height in pixels.
        width: Image width in pixels.
        primary: Class index that is certain to be visible.
        labels: Class indices from which further animals are drawn.

    Returns:
        The scene. Its boxes name exactly the classes of its mask.
    """
    scene = None
    while scene is None:
        scene = _draw(rng, height, width, primary, labels)
    return scene


def _draw(rng: np.random.Generator, height: int, width: int, primary: int, labels: Sequence[int]) -> Scene | None:
    """A scene, unless something in it hides the primary class or more than half of an animal."""
    image = _surface(rng, height, width, _PALETTE)
    if rng.random() < 0.6:
        horizon = np.full(width, rng.uniform(0.15, 0.5) * height) + 3 * _noise(rng, 1, width, width / 4)[0]
        above = (np.arange(height)[:, None] < horizon).astype(np.float32)
        _blend(image, _surface(rng, height, width, _SKIES if rng.random() < 0.6 else _PALETTE), above)
    for _ in range(rng.integers(1, 6)):
        _blend(image, _surface(rng, height, width, _PALETTE), _clutter(rng, height, width))
    second = primary if rng.random() < 0.5 else int(rng.choice(labels))
    animals = [primary, second, second][: rng.choice([1, 2, 3], p=[0.5, 0.35, 0.15])]
    owner, areas = np.zeros((height, width), np.uint8), []
    for number, label in enumerate(animals, start=1):
        cover = _animal(image, rng, label, largest=1.5 if number == 1 else 0.7)
        owner[cover > 0.5] = number
        areas.append(np.count_nonzero(cover > 0.5))
    if rng.random() < 0.2:
        cover = _clutter(rng, height, width)
        _blend(image, _surface(rng, height, width, _PALETTE), cover)
        owner[cover > 0.5] = 0
    mask, boxes = _annotate(owner, animals)
    visible = np.bincount(owner.ravel(), minlength=len(animals) + 1)[1:]
    if primary not in {box.label for box in boxes} or (visible < np.array(areas) / 2).any():
        return None
    return Scene(_photograph(image, rng), mask, boxes)


def _noise(rng: np.random.Generator, height: int, width: int, cell: float) -> Floats:
    """H x W noise of about zero mean and unit variance in three octaves, the coarsest of `cell` pixels."""
    total = np.zeros((height, width), np.float32)
    for size in (cell, max(cell / 2, 1), max(cell / 4, 1)):
        grid = rng.standard_normal((int(height / size) + 2, int(width / size) + 2), dtype=np.float32)
        total += 0.8 * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    return total


def _surface(rng: np.random.Generator, height: int, width: int, palette: npt.NDArray[np.int64]) -> Floats:
    """H x W x 3 of one material: a colour that varies slowly, with fine grain."""
    colour = palette[rng.integers(len(palette))] * rng.uniform(0.8, 1.15) + rng.uniform(-12, 12, 3)
    coarse = rng.uniform(0.03, 0.15) * _noise(rng, height, width, min(height, width) / 2)
    fine = rng.uniform(0.02, 0.2) * _noise(rng, height, width, rng.uniform(2, 8))
    return np.asarray(colour * (1 + coarse + fine)[..., None], np.float32)


def _blend(image: Floats, colours: Floats, cover: Floats) -> None:
    image += cover[..., None] * (colours - image)


def _fill(polygons: Sequence[Polygon], height: int, width: int) -> Floats:
    """H x W: how much of each pixel the polygons (N x 2, x and y in pixels) cover, in 0..1."""
    canvas = np.zeros((height, width), np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [np.round(16 * polygon).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(canvas / 255, np.float32)


def _blob(centre: npt.ArrayLike, radii: npt.ArrayLike, exponent: float = 2.0) -> Polygon:
    """A superellipse: exponent 2 is an ellipse, a large one a box."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    norm = (np.abs(ring) ** exponent).sum(1, keepdims=True) ** (1 / exponent)
    return np.array(centre) + np.array(radii) * ring / norm


def _clutter(rng: np.random.Generator, height: int, width: int) -> Floats:
    """The cover of one thing of no class: a stone, a box or a bush."""
    radii = min(height, width) * rng.uniform(0.05, 0.22) * rng.uniform(0.6, 1.6, 2)
    shape = _blob(rng.uniform((0, 0.2 * height), (width, height)), radii, rng.choice([2.0, 8.0]))
    return _fill([shape + rng.choice([0, 0.12]) * radii * rng.uniform(-1, 1, shape.shape)], height, width)


def _animal(image: Floats, rng: np.random.Generator, label: int, largest: float) -> Floats:
    """Draw one animal into the image.

    Returns:
        H x W float in 0..1, how much of each pixel it covers.
    """
    height, width = image.shape[:2]
    size = min(height, width) * np.exp(rng.uniform(np.log(0.25), np.log(largest)))
    tilt = rng.uniform(-0.2, 0.2)
    turn = np.array([(np.cos(tilt), -np.sin(tilt)), (np.sin(tilt), np.cos(tilt))])
    matrix = size * turn * (rng.choice([-1, 1]), 1)
    frame, middle = np.array([width, height]), _HEAD / 2
    reach = np.minimum(rng.uniform(0.45, 0.75) * size, frame / 2)  # the frame cuts some animals
    at = rng.uniform(reach, frame - reach) - matrix @ middle
    margin = np.minimum(size / 4, frame / 2)
    face = np.clip(at + matrix @ _HEAD, margin, frame - margin)  # whoever took the picture got the face into it
    origin = face - matrix @ _HEAD
    body, head = (_fill([p @ matrix.T + origin for p in part], height, width) for part in (_body(rng), _head(label)))
    cover = np.maximum(body, head)
    _shade(image, cover, rng)
    coat = _surface(rng, height, width, _PALETTE)
    coat += rng.uniform(0, 0.4) * (image[cover > 0.5].mean(0) - coat.mean((0, 1)))
    coat *= np.linspace(1.15, 0.85, height, dtype=np.float32)[:, None, None]
    y, x = np.mgrid[:height, :width]
    u, v = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix) / _HEAD_SIZE, np.stack([x - face[0], y - face[1]]))
    _blend(image, coat, body)
    _blend(image, coat * _marking(rng, label, u, v)[..., None], head)
    return cover


def _body(rng: np.random.Generator) -> list[Polygon]:
    """Trunk, neck and two or no legs, in body lengths with y downwards; the same for every class."""
    length, thick, legs = rng.uniform(0.35, 0.5), rng.uniform(0.24, 0.32), rng.uniform(0.15, 0.4)
    neck = np.array([(0, -0.2), (0.3, 0.2), (0.6, -0.3), (0.3, -0.5)])
    parts = [_blob((0, 0), (length, thick), rng.uniform(2, 3)), neck]
    if rng.random() < 0.8:  # else it lies
        parts += [_blob((x * length + rng.uniform(-0.08, 0.08), thick), (0.08, legs), 4) for x in (-0.65, 0.65)]
    return parts


def _head(label: int) -> list[Polygon]:
    """Head and ears."""
    ear = (
        np.array([(0.3, -0.85), (0.95, -0.35), (0.95, -1.35)]),  # pointed
        _blob((0.85, -0.8), (0.4, 0.4)),  # round
        _blob((1.05, 0.1), (0.3, 0.75)),  # hanging
    )[label // 6 % 3]
    return [_HEAD + _HEAD_SIZE * part for part in (_blob((0, 0), (1, 1), 2.5), ear, ear * (-1, 1))]


def _marking(rng: np.random.Generator, label: int, u: Polygon, v: Polygon) -> Floats:
    """H x W brightness of the head: the class's pattern around 1. The first 90 classes have different heads.

    Args:
        rng: Varies the pattern's width and contrast.
        label: Class index.
        u: H x W, to the right of the head's middle, in head sizes.
        v: H x W, below it.
    """
    k = 5.5 * (1 + 0.2 * (label // 18 % 5)) * rng.uniform(0.9, 1.1)
    wave = (
        lambda: np.sin(k * u),
        lambda: np.sin(k * v),
        lambda: np.sin(k * u) * np.sin(k * v),
        lambda: np.cos(k * np.hypot(u, v)),
        lambda: np.sin(round(k) * np.arctan2(v, u)),
        lambda: np.sin(k * (v + np.abs(u))),
    )[label % 6]()
    return np.asarray(1 + rng.uniform(0.25, 0.5) * np.tanh(3 * wave), np.float32)


def _shade(image: Floats, cover: Floats, rng: np.random.Generator) -> None:
    """Darken the ground below an animal."""
    left, top, width, height = cv2.boundingRect((cover > 0).astype(np.uint8))
    shade = np.zeros(image.shape[:2], np.float32)
    cv2.ellipse(shade, (left + width // 2, top + height), (width // 2 + 1, width // 8 + 1), 0, 0, 360, 1.0, -1)
    image *= 1 - rng.uniform(0, 0.5) * cv2.GaussianBlur(shade, (0, 0), 0.05 * width + 1)[..., None]


def _annotate(owner: Bytes, labels: Sequence[int]) -> tuple[Bytes, list[Box]]:
    """The mask, void along every border, and the boxes of what is visible.

    Animals of which next to nothing is visible become void, so that boxes and mask name the same classes.
    """
    height, width = owner.shape
    size = 3 + 2 * (min(height, width) // 250)  # VOC's void line is about 5 pixels wide at 500 x 375
    square = np.ones((size, size), np.uint8)
    border = cv2.dilate(owner, square) != cv2.erode(owner, square)
    mask = np.array([0, *labels], np.uint8)[owner]
    mask[border] = VOID
    boxes = []
    for number, label in enumerate(labels, start=1):
        own = owner == number
        if np.count_nonzero(own & ~border) < max(16, height * width // 500):
            mask[own] = VOID
            continue
        left, top, w, h = cv2.boundingRect(own.astype(np.uint8))
        cut = left == 0 or top == 0 or left + w == width or top + h == height
        boxes.append(Box(label, left, top, left + w - 1, top + h - 1, cut))
    return mask, boxes


def _photograph(image: Floats, rng: np.random.Generator) -> Bytes:
    """Light that falls off across the picture, white balance, lens blur and sensor noise."""
    height, width = image.shape[:2]
    slope = rng.uniform(-0.25, 0.25, 2)
    light = 1 + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)
    photo = image * light[..., None] * rng.uniform(0.9, 1.1, 3) * rng.uniform(0.8, 1.15)
    photo = cv2.GaussianBlur(photo, (0, 0), rng.uniform(0.3, 0.6))
    return np.asarray(np.clip(photo + rng.uniform(1, 6) * rng.standard_normal(photo.shape), 0, 255), np.uint8)
