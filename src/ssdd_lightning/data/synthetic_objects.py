"""The animals of the synthetic devkit: class appearance, geometry and textures.

A class is told by its head (pattern, outline, ears); body, legs and tail wear coats that classes share. That
mirrors what weak supervision meets on photos: a small discriminative part and a large unremarkable rest.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from ssdd_lightning.data.synthetic_shapes import (
    Bytes,
    Floats,
    Polygon,
    blob,
    fractal_noise,
    pattern_value,
    ribbon,
)

SUPERSAMPLING = 2
_SHIFT_BITS = 4  # fixed-point bits of OpenCV's sub-pixel polygon corners

FAR_LEG, TAIL, BODY, NEAR_LEG, NECK, EAR, HEAD, DARK = range(1, 9)
# Brightness of each part relative to the coat; index 0 is "no part".
_PART_TONE = np.array([0.0, 0.62, 0.9, 1.0, 0.88, 0.97, 0.8, 1.0, 0.12], np.float32)

# RGB. Several resemble soil, stone and straw of the backgrounds, on purpose.
_COATS = np.array(
    [
        (112, 74, 44), (168, 112, 60), (206, 172, 124), (58, 48, 44), (128, 124, 120), (222, 214, 202),
        (150, 70, 40), (92, 96, 84), (184, 150, 140), (86, 60, 72),
    ],
    np.float32,
)  # fmt: skip

# Half width, half height, exponent and taper of the heads, in head sizes.
_OUTLINES = (
    (1.0, 1.0, 2.0, 0.0),
    (0.8, 1.15, 2.0, 0.3),
    (0.95, 0.95, 6.0, 0.0),
    (1.15, 1.15, 1.15, 0.0),
    (1.2, 0.85, 2.6, -0.25),
)


class Part(NamedTuple):
    """A polygon (N x 2, object coordinates: body length 1, y down) and the part it belongs to."""

    kind: int
    polygon: Polygon


class Raster(NamedTuple):
    """An animal on the supersampled canvas.

    parts: sH x sW uint8, part kind, 0 where the animal is not. window: the bounding box as slices.
    head_u, head_v: head coordinates over the window, about -1..1 on the head.
    """

    parts: Bytes
    window: tuple[slice, slice]
    head_u: Floats
    head_v: Floats


@dataclass(frozen=True)
class Look:
    """What all animals of a class have in common; lengths are in body lengths."""

    pattern: int
    outline: int
    ears: int
    frequency: float
    head_size: float
    body_height: float
    legs: int
    leg_length: float
    leg_width: float
    tail_length: float
    tail_curl: float
    neck: float
    coats: tuple[int, ...]
    outdoors: float


@cache
def class_look(index: int) -> Look:
    """Appearance of class `index` (>= 1); the first 200 classes all differ in pattern, outline or ears."""
    rng = np.random.default_rng([1907, index])
    return Look(
        pattern=index % 8,
        outline=(index + index // 8) % 5,
        ears=(index + index // 8 + index // 40) % 5,
        frequency=rng.uniform(0.85, 1.2),
        head_size=rng.uniform(0.22, 0.3),
        body_height=rng.uniform(0.2, 0.32),
        legs=int(rng.choice([2, 3, 3, 4, 4])),
        leg_length=rng.uniform(0.3, 0.5),
        leg_width=rng.uniform(0.035, 0.07),
        tail_length=rng.uniform(0.2, 0.6),
        tail_curl=rng.uniform(-1.2, 1.2),
        neck=rng.uniform(0.08, 0.26),
        coats=tuple(int(coat) for coat in rng.choice(len(_COATS), 5, replace=False)),
        outdoors=rng.uniform(0.35, 0.9),
    )


def _curve(start: tuple[float, float], bend: tuple[float, float], end: tuple[float, float]) -> Polygon:
    t = np.linspace(0, 1, 9)[:, None]
    return (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(bend) + t**2 * np.array(end)


def _legs(look: Look, rng: np.random.Generator, length: float) -> list[Part]:
    parts = []
    spots = np.linspace(-0.4, 0.38, look.legs) * length + rng.uniform(-0.05, 0.05, look.legs)
    reach = look.leg_length * rng.uniform(0.85, 1.1)
    for number, x in enumerate(spots):
        far = number % 2 == 1 and look.legs > 2
        swing = rng.uniform(-0.16, 0.16)
        foot = (x + swing, look.body_height + reach * (0.88 if far else 1.0))
        path = _curve((x, 0.05), (x - swing, look.body_height + 0.4 * reach), foot)
        parts.append(Part(FAR_LEG if far else NEAR_LEG, ribbon(path, 2.2 * look.leg_width, look.leg_width)))
    return parts


def _tail(look: Look, rng: np.random.Generator, length: float) -> Part:
    curl = look.tail_curl + rng.uniform(-0.5, 0.5)
    reach = look.tail_length * rng.uniform(0.7, 1.2)
    root = (-0.42 * length, -0.3 * look.body_height)
    bend = (root[0] - 0.6 * reach, root[1] + 0.2 * curl)
    end = (root[0] - reach * 0.8, root[1] - 0.7 * curl * reach)
    return Part(TAIL, ribbon(_curve(root, bend, end), 0.06, 0.035))


def _ears(kind: int, size: float) -> list[Part]:
    if kind == 0:  # pointed
        shape = np.array([(0.15, -0.7), (0.95, -0.35), (0.85, -1.5)])
    elif kind == 1:  # round
        shape = blob((0.85, -0.75), (0.42, 0.42))
    elif kind == 2:  # hanging
        shape = ribbon(_curve((0.7, -0.6), (1.4, -0.5), (1.25, 0.75)), 0.45, 0.35)
    elif kind == 3:  # horns
        shape = ribbon(_curve((0.35, -0.75), (1.3, -0.9), (1.1, -1.7)), 0.34, 0.06)
    else:  # long, upright
        shape = ribbon(_curve((0.3, -0.7), (0.55, -1.5), (0.4, -2.1)), 0.36, 0.22)
    return [Part(EAR, size * shape), Part(EAR, size * shape * (-1, 1))]


def _head(look: Look, size: float) -> list[Part]:
    width, height, exponent, taper = _OUTLINES[look.outline]
    outline = blob((0, 0), (width * size, height * size), exponent, taper)
    eye = blob((0.4 * size, -0.25 * size), (0.13 * size, 0.15 * size))
    nose = blob((0, 0.5 * size), (0.18 * size, 0.12 * size))
    return [
        *_ears(look.ears, size),
        Part(HEAD, outline),
        *(Part(DARK, x) for x in (eye, eye * (-1, 1), nose)),
    ]


def _rotation(angle: float) -> Polygon:
    return np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])


class Animal:
    """One animal: its parts in object coordinates, and where its head is.

    Args:
        look: the class's appearance.
        rng: decides on pose, foreshortening and proportions.
    """

    def __init__(self, look: Look, rng: np.random.Generator) -> None:
        self.look = look
        length = rng.uniform(0.6, 1.0)  # seen more or less from the front
        height = look.body_height * rng.uniform(0.88, 1.15)
        self.head_size = look.head_size * rng.uniform(0.85, 1.15)
        self.head_angle = rng.uniform(-0.35, 0.35)
        reach = look.neck * rng.uniform(0.6, 1.3) + 0.6 * self.head_size
        self.head_at = np.array([0.42 * length + 0.55 * reach, -0.4 * height - reach])
        turn = _rotation(self.head_angle).T
        head = [Part(kind, polygon @ turn + self.head_at) for kind, polygon in _head(look, self.head_size)]
        neck = np.linspace((0.3 * length, -0.2 * height), self.head_at, 5)
        legs = _legs(look, rng, length) if rng.random() > 0.12 else []  # else it lies
        body = blob((0, 0), (0.5 * length, height), rng.uniform(2.0, 2.8), rng.uniform(-0.1, 0.1))
        self.parts = [
            *(leg for leg in legs if leg.kind == FAR_LEG),
            _tail(look, rng, length),
            Part(BODY, body),
            *(leg for leg in legs if leg.kind == NEAR_LEG),
            Part(NECK, ribbon(neck, 1.1 * height, 1.1 * self.head_size)),
            *head,
        ]

    def bounds(self, matrix: Polygon) -> Polygon:
        """Lower and upper corner (2 x 2) of the animal after the linear map `matrix` (2 x 2)."""
        corners = np.concatenate([part.polygon for part in self.parts]) @ matrix.T
        return np.stack([corners.min(axis=0), corners.max(axis=0)])

    def rasterise(self, matrix: Polygon, offset: Polygon, height: int, width: int) -> Raster:
        """Draw on a supersampled canvas of an image of height x width; pixel = matrix @ object + offset."""
        canvas = np.zeros((SUPERSAMPLING * height, SUPERSAMPLING * width), np.uint8)
        for kind, polygon in self.parts:
            pixels = SUPERSAMPLING * (polygon @ matrix.T + offset) * 2**_SHIFT_BITS
            cv2.fillPoly(canvas, [np.round(pixels).astype(np.int32)], kind, shift=_SHIFT_BITS)
        window = _even_window(canvas)
        x = np.arange(window[1].start, window[1].stop, dtype=np.float32) / SUPERSAMPLING
        y = np.arange(window[0].start, window[0].stop, dtype=np.float32) / SUPERSAMPLING
        to_head = _rotation(-self.head_angle) @ np.linalg.inv(matrix) / self.head_size
        origin = matrix @ self.head_at + offset
        grid_x, grid_y = np.meshgrid(x - np.float32(origin[0]), y - np.float32(origin[1]))
        (a, b), (c, d) = to_head.astype(np.float32)
        return Raster(canvas, window, a * grid_x + b * grid_y, c * grid_x + d * grid_y)

    def paint(self, raster: Raster, rng: np.random.Generator) -> Floats:
        """Colours (h x w x 3, 0..255) over the raster's window, lit from above."""
        parts = raster.parts[raster.window]
        height, width = parts.shape
        coat = _COATS[rng.choice(self.look.coats)] * rng.uniform(0.8, 1.2) + rng.uniform(-12, 12, 3)
        coat = coat.astype(np.float32)
        tone = _PART_TONE[parts]
        fur = fractal_noise(rng, height, width, cell=rng.uniform(6, 14), octaves=3)
        tone *= 1 + rng.uniform(0.04, 0.1) * fur
        tone *= np.linspace(1.18, 0.8, height, dtype=np.float32)[:, None]
        colours = tone[..., None] * coat
        _patch_coat(colours, parts, rng)
        self._mark_head(colours, raster, coat, rng)
        return colours

    def _mark_head(self, colours: Floats, raster: Raster, coat: Floats, rng: np.random.Generator) -> None:
        """Draw the class's pattern in light and dark tones of the animal's own coat."""
        head = raster.parts[raster.window] == HEAD
        frequency = self.look.frequency * rng.uniform(0.9, 1.1)
        u, v, tone = raster.head_u[head], raster.head_v[head], colours[head]
        if not len(u):  # the head lies outside the image
            return
        value = pattern_value(self.look.pattern, u, v, frequency, rng.uniform(-0.7, 0.7))
        light = 0.6 * coat + 0.4 * np.array([235, 225, 205], np.float32)
        dark = 0.35 * coat
        mix = (0.5 + 0.5 * rng.uniform(0.45, 0.95) * value)[:, None]
        marked = (mix * light + (1 - mix) * dark) * (tone.mean(axis=1, keepdims=True) / tone.mean())
        colours[head] = marked


def _patch_coat(colours: Floats, parts: Bytes, rng: np.random.Generator) -> None:
    """Patches of another coat on the body, none, faint or strong: it varies by animal, not by class."""
    strength = rng.choice([0.0, 0.25, 0.7])
    if strength == 0:
        return
    height, width = parts.shape
    patches = fractal_noise(rng, height, width, cell=max(height, width) / rng.uniform(3, 7), octaves=2)
    soft = np.float32(strength) * np.clip(3 * (patches - 0.6), 0, 1)
    soft *= parts < EAR
    colours += soft[..., None] * (_COATS[rng.integers(len(_COATS))] - colours)


def _even_window(canvas: Bytes) -> tuple[slice, slice]:
    """The bounding box of the non-zero pixels, widened to whole image pixels."""
    x, y, width, height = cv2.boundingRect(canvas)
    s = SUPERSAMPLING
    return (slice(y // s * s, -(-(y + height) // s) * s), slice(x // s * s, -(-(x + width) // s) * s))
