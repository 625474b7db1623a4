"""Noise, materials, patterns and outlines from which the synthetic devkit is drawn."""

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Polygon = npt.NDArray[np.float64]

_ANGLES = np.linspace(0, 2 * np.pi, 36, endpoint=False)
_COS, _SIN = np.cos(_ANGLES), np.sin(_ANGLES)


def fractal_noise(rng: np.random.Generator, height: int, width: int, cell: float, octaves: int = 3) -> Floats:
    """H x W noise of roughly zero mean and unit variance; the coarsest octave has cells of `cell` pixels."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        size = max(cell / 2**octave, 1.0)
        grid = rng.standard_normal((int(height / size) + 2, int(width / size) + 2), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR) * 0.65**octave
    return total


def pattern_value(kind: int, u: Floats, v: Floats, frequency: float, phase: float) -> Floats:
    """Pattern number `kind` (modulo 8) at the coordinates (u, v), soft-edged, in -1..1."""
    k = 7.0 * frequency
    waves = (
        lambda: np.sin(k * u + phase),
        lambda: np.sin(0.8 * k * u + phase) * np.sin(0.8 * k * v + phase),
        lambda: np.cos(0.9 * k * u + phase) + np.cos(0.9 * k * v) - 0.75,
        lambda: np.cos(1.15 * k * np.hypot(u, v) + phase / 4),
        lambda: np.sin(k * (v + 0.6 * np.abs(np.mod(1.7 * u + 10, 1) - 0.5)) + phase),
        lambda: np.sin(round(5 * frequency) * np.arctan2(v, u) + phase),
        lambda: (0.3 - np.abs(u)) * 4 + 0.2 * np.sin(k * v),
        lambda: np.sin(0.9 * k * v + phase) + 0.5 * np.sign(u),
    )
    return np.asarray(np.tanh(3.0 * waves[kind % len(waves)]()), np.float32)


def _tint(rng: np.random.Generator, palette: Floats) -> Floats:
    colour = palette[rng.integers(len(palette))] * rng.uniform(0.75, 1.15) + rng.uniform(-14, 14, 3)
    return colour.astype(np.float32)


def surface(rng: np.random.Generator, height: int, width: int, palette: Floats, rough: float) -> Floats:
    """H x W x 3 of one material: two related colours mixed by coarse noise, roughened by fine noise."""
    first, second = _tint(rng, palette), _tint(rng, palette)
    short = min(height, width)
    coarse = fractal_noise(rng, height, width, cell=short / rng.uniform(1.5, 4), octaves=3)
    mix = np.clip(0.5 + 0.3 * coarse, 0, 1) * rng.uniform(0.2, 0.8)
    fine = fractal_noise(rng, height, width, cell=rng.uniform(2, 6), octaves=2)
    colours = mix[..., None] * (second - first)
    colours += first
    colours *= (1 + rough * fine)[..., None]
    return np.asarray(colours, np.float32)


def blob(centre: tuple[float, float], radii: tuple[float, float], exponent: float = 2.0, taper: float = 0.0) -> Polygon:
    """A superellipse: exponent 2 is an ellipse, 1 a diamond, large a box; `taper` narrows its lower end."""
    scale = (np.abs(_COS) ** exponent + np.abs(_SIN) ** exponent) ** (-1 / exponent)
    x, y = scale * _COS, scale * _SIN
    return np.stack([centre[0] + radii[0] * x * (1 - taper * y), centre[1] + radii[1] * y], axis=1)


def ribbon(points: Polygon, start: float, end: float) -> Polygon:
    """The outline of a path (N x 2) whose width goes from `start` to `end`."""
    step = np.gradient(points, axis=0)
    normal = np.stack([-step[:, 1], step[:, 0]], axis=1) / np.maximum(np.hypot(*step.T), 1e-9)[:, None]
    half = np.linspace(start, end, len(points))[:, None] / 2
    return np.concatenate([points + half * normal, (points - half * normal)[::-1]])
