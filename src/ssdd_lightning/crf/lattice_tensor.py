"""The permutohedral lattice and mean field as tensor code: any device, a whole batch of any sizes at once.

Adams, Baek and Davis, Fast High-Dimensional Filtering Using the Permutohedral Lattice (2010), with the
simplex rounding, the order of the blurs and the scale of pydensecrf, so both give the same probabilities.
All pixels of a batch stand in one long list; the number of the image is part of a lattice point's key, so
images never mix and the device is waited for once a batch, not once an image.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ssdd_lightning.crf.cache import BoundedCache
from ssdd_lightning.crf.features import Features, bilateral_features, spatial_features
from ssdd_lightning.crf.settings import SMALLEST_PROBABILITY, CRFSettings


@dataclass(frozen=True)
class Lattice:
    """A sparse lattice under a list of P pixels.

    Args:
        points: P x (d+1) long, the lattice points around each pixel, 0..M-1.
        weights: P x (d+1) float, barycentric weights of those points.
        neighbours: (d+1) x 2 x M long, both neighbours of each point along each axis, M where there is none.
        norm: P x 1 float, 1/sqrt of the filtered ones: the symmetric normalisation.
    """

    points: Tensor
    weights: Tensor
    neighbours: Tensor
    norm: Tensor

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(part.nbytes for part in (self.points, self.weights, self.neighbours, self.norm))

    def smooth(self, values: Tensor) -> Tensor:
        """Filter P x C values with the normalised kernel; returns P x C."""
        return _blur(self.points, self.weights, self.neighbours, values * self.norm) * self.norm


_spatial_lattices: BoundedCache[Lattice] = BoundedCache(256 * 2**20)


def refine_tensor(
    images: list[Tensor], probabilities: list[Tensor], present: Tensor, settings: CRFSettings, iterations: int
) -> list[Tensor]:
    """Mean field of the dense CRF over a batch in tensor code.

    Args and returns as in `ssdd_lightning.crf.lattice.refine_lattice`.
    """
    device = probabilities[0].device
    sizes = [(p.shape[1], p.shape[2]) for p in probabilities]
    spatial = _concatenate([_cached_spatial_lattice(h, w, settings.gaussian_sxy, device) for h, w in sizes])
    bilateral = _bilateral_lattice(images, settings)
    flat = torch.cat([p.flatten(1).T for p in probabilities]).float()
    pixels = torch.tensor([h * w for h, w in sizes], device=device)
    taking_part = present.to(device).repeat_interleave(pixels, dim=0, output_size=flat.shape[0])
    unary = flat.clamp(SMALLEST_PROBABILITY, 1).log().masked_fill(~taking_part, -math.inf)
    result = unary.softmax(1)
    for _ in range(iterations):
        pull = settings.gaussian_compat * spatial.smooth(result)
        pull += settings.bilateral_compat * bilateral.smooth(result)
        result = (unary + pull).softmax(1)
    pieces = torch.split(result, [h * w for h, w in sizes])
    return [piece.T.reshape(-1, h, w) for piece, (h, w) in zip(pieces, sizes, strict=True)]


def _cached_spatial_lattice(height: int, width: int, sxy: float, device: torch.device) -> Lattice:
    make = partial(_spatial_lattice, height, width, sxy, device)
    return _spatial_lattices.get((height, width, sxy, device), make)


def _spatial_lattice(height: int, width: int, sxy: float, device: torch.device) -> Lattice:
    features = spatial_features(height, width, (sxy, sxy))
    return _build([_pixel_features(features, height, width, None, device)], features)


def _bilateral_lattice(images: list[Tensor], settings: CRFSettings) -> Lattice:
    height, width = (max(image.shape[axis] for image in images) for axis in (1, 2))
    sxy, srgb = settings.bilateral_sxy, settings.bilateral_srgb
    features = bilateral_features(height, width, (sxy, sxy), (srgb, srgb, srgb))
    pixels = [_pixel_features(features, i.shape[1], i.shape[2], i, i.device) for i in images]
    return _build(pixels, features)


def _pixel_features(features: Features, height: int, width: int, image: Tensor | None, device: torch.device) -> Tensor:
    """H*W x d features of one image; taken from tables, as CUDA's division by a number rounds differently."""
    columns, rows = (torch.from_numpy(table).to(device) for table in (features.columns, features.rows))
    parts = [columns[:width].repeat(height), rows[:height].repeat_interleave(width)]
    if image is not None:
        palette = torch.from_numpy(features.palette).to(device)
        parts += [table[channel.flatten().long()] for table, channel in zip(palette, image, strict=True)]
    return torch.stack(parts, 1)


def _build(pixels: list[Tensor], features: Features) -> Lattice:
    """Lattice under the pixels of all images, P_i x d features an image."""
    counts = [len(own) for own in pixels]
    # pydensecrf pads to four pixels with zero features; the points around them exist and conduct the blur
    padded = [i for i, count in enumerate(counts) if count % 4]
    everything = torch.cat([*pixels, pixels[0].new_zeros(len(padded), features.corners - 1)])
    device, total = everything.device, sum(counts)
    image = torch.tensor(list(range(len(counts))) + padded, device=device)
    repeats = torch.tensor(counts + [1] * len(padded), device=device)
    image = image.repeat_interleave(repeats, output_size=len(everything))
    low, strides, apart = features.packing(len(counts))
    step = torch.from_numpy(strides).to(device)
    nearest, rank, weights = _enclosing_simplex(everything)
    start = ((nearest[:, :-1] - torch.from_numpy(low).to(device)) * step).sum(1) + image * apart
    keys, points = torch.unique(_point_keys(start, rank, step), return_inverse=True)
    points, weights = points[:total], weights[:total]
    neighbours = _neighbours(keys, step)
    norm = (_blur(points, weights, neighbours, torch.ones_like(weights[:, :1])) + 1e-20).rsqrt()
    return Lattice(points, weights, neighbours, norm)


def _enclosing_simplex(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Nearest 0-coloured point in units of d+1, rank of each coordinate, weights; each P x (d+1)."""
    d = features.shape[1]
    inverse = float(np.float32(1) / np.float32(d + 1))
    elevated = _elevate(features)
    nearest = (elevated * inverse).round()
    excess = nearest.sum(1, keepdim=True)
    rest = elevated - nearest * (d + 1)
    rank = torch.zeros_like(rest)
    for i in range(d):  # of two equal coordinates the first ranks as the larger, so no sort will do
        below = (rest[:, i : i + 1] < rest[:, i + 1 :]).float()
        rank[:, i] += below.sum(1)
        rank[:, i + 1 :] += 1 - below
    rank += excess
    wrap = (rank < 0).float() - (rank > d).float()
    rank, nearest = rank + wrap * (d + 1), nearest + wrap
    parts = ((elevated - nearest * (d + 1)) * inverse).sort(1).values
    weights = torch.cat([parts[:, :1] + (1 - parts[:, -1:]), parts.diff(dim=1)], 1)
    return nearest.long(), rank.long(), weights


def _elevate(features: Tensor) -> Tensor:
    """P x d features on the plane where the d+1 coordinates sum to 0, in pydensecrf's order of operations."""
    so_far = torch.zeros_like(features[:, 0])
    columns = []
    for i in range(features.shape[1], 0, -1):
        columns.append(so_far - i * features[:, i - 1])
        so_far = so_far + features[:, i - 1]
    return torch.stack([so_far, *columns[::-1]], 1)


def _point_keys(start: Tensor, rank: Tensor, step: Tensor) -> Tensor:
    """Keys of the d+1 points around each pixel, from the sum of its nearest 0-coloured point; P x (d+1).

    Going up a colour, the coordinate of highest rank so far unmoved falls by one unit.
    """
    corners = len(step) + 1
    last = step.new_zeros(1)  # the last coordinate has no part in the key
    falls = torch.empty_like(rank).scatter_(1, rank, torch.cat([step, last]).expand_as(rank)).flip(1)
    fallen = torch.cat([torch.zeros_like(falls[:, :1]), falls[:, :-1].cumsum(1)], 1)
    return (start[:, None] - fallen) * corners + torch.arange(corners, device=start.device)


def _neighbours(keys: Tensor, step: Tensor) -> Tensor:
    """Both neighbours along every axis as indices into the sorted keys; (d+1) x 2 x M.

    One coordinate moves by d, the others by 1 against it.
    """
    corners = len(step) + 1
    own = torch.cat([step, step.new_zeros(1)])[:, None] * corners
    carry = step.sum() * corners - corners
    colour = keys % corners
    down = keys - 1 - (colour == 0).long() * carry + own
    up = keys + 1 + (colour == corners - 1).long() * carry - own
    wanted = torch.stack([down, up], 1)
    index = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
    return torch.where(keys[index] == wanted, index, len(keys))


def _blur(points: Tensor, weights: Tensor, neighbours: Tensor, values: Tensor) -> Tensor:
    """Splat P x C values on the lattice, blur by 0.5, 1, 0.5 along each axis in turn, slice back."""
    corners = points.shape[1]
    grid = values.new_zeros(neighbours.shape[2] + 1, values.shape[1])  # the last row stays 0: no neighbour
    for corner in range(corners):
        grid.index_add_(0, points[:, corner], values * weights[:, corner, None])
    for before, after in neighbours:
        grid[:-1] += 0.5 * (grid[before] + grid[after])
    result = torch.zeros_like(values)
    for corner in range(corners):
        result += grid[points[:, corner]] * weights[:, corner, None]
    return result * (1 / (1 + 2.0 ** (1 - corners)))


def _concatenate(lattices: list[Lattice]) -> Lattice:
    """The lattices of several images as one."""
    points = [lattice.neighbours.shape[2] for lattice in lattices]
    starts = [sum(points[:i]) for i in range(len(points))]
    moved = [
        torch.where(lattice.neighbours == own, sum(points), lattice.neighbours + start)
        for lattice, own, start in zip(lattices, points, starts, strict=True)
    ]
    return Lattice(
        torch.cat([lattice.points + start for lattice, start in zip(lattices, starts, strict=True)]),
        torch.cat([lattice.weights for lattice in lattices]),
        torch.cat(moved, 2),
        torch.cat([lattice.norm for lattice in lattices]),
    )
