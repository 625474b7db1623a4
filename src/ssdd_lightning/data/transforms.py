"""Joint augmentation of an image and its guides."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import albumentations
import cv2
import numpy as np
import numpy.typing as npt

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.augmentation import Augmentation
from ssdd_lightning.data.guides import Guide, guide_to_mask

PAD_COLOUR = (124, 116, 104)
"""RGB, the mean of ImageNet: where a crop sticks out of its image."""

View = dict[str, npt.NDArray[np.uint8]]
"""`image` and `image_raw` H x W x 3 uint8 RGB, every guide as H x W uint8 in network indices; in training
also `valid`, H x W uint8, 0 on padding and 1 on the photo."""
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Axis:
    """One axis of a view: which pixels of the photo it shows, how large, and where on the canvas.

    Args:
        first: First pixel, after the reduction.
        count: Number of pixels, after the reduction.
        length: What they are resized to.
        offset: Where they begin on the canvas.
    """

    first: int
    count: int
    length: int
    offset: int

    def nearest(self, reduction: int) -> npt.NDArray[np.intp]:
        """Pixel of the unreduced photo at the centre of each of the `length` pixels."""
        centres = (np.arange(self.length) + 0.5) * (self.count / self.length)
        return np.asarray(reduction * (self.first + centres), np.intp)

    def part(self, reduction: int = 1) -> slice:
        """The pixels, of a photo that is larger by `reduction`."""
        return slice(self.first * reduction, (self.first + self.count) * reduction)

    def margins(self, side: int) -> tuple[int, int]:
        """Padding before and after them on a canvas of `side`."""
        return self.offset, side - self.offset - self.length


@dataclass(frozen=True)
class Window:
    """All that is drawn for one view.

    Args:
        reduction: Whole factor, a power of two, by which the photo is made smaller before anything else.
        rows: Down.
        columns: Across.
        flip: Whether it is mirrored.
        colours: Seed of the colour jitter.
    """

    reduction: int
    rows: Axis
    columns: Axis
    flip: bool
    colours: int


class TrainTransform:
    """Random resize, flip, crop and colour jitter; image, un-jittered image and guides stay aligned.

    A view is one window of the photo, cut and resized in one go. A photo at least twice as large as needed is first
    reduced by a power of two (by area), which the decoder of a JPEG does in less time than a whole decoding; the rest
    is bilinear. Score maps are warped as scores and decided by argmax after the crop; masks are warped by the nearest
    pixel, centre to centre. Where the image is smaller than the crop it lies at a random place on a canvas of
    `PAD_COLOUR`, and every mask is 255 there. All draws of a view come from one seed.

    Args:
        augmentation: What is drawn, and from what range.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation
        brightness, contrast, saturation, hue = augmentation.color_jitter
        self._jitter = albumentations.ColorJitter(brightness, contrast, saturation, hue, p=1.0)

    def __call__(self, image: Pixels, guides: Mapping[str, Guide], present: Pixels, seed: int) -> View:
        """Draw one augmented view.

        Args:
            image: H x W x 3 uint8 RGB.
            guides: `knowledge` and `advice`, of the image's size.
            present: Network index of each channel of the maps.
            seed: The same seed, the same view.

        Returns:
            `image`, `image_raw`, the guides as masks, and `valid`, all `crop_size` square.
        """
        window = self.draw(image.shape[0], image.shape[1], seed)
        return self.cut(_reduced(image, window.reduction), guides, present, window)

    def draw(self, height: int, width: int, seed: int) -> Window:
        """Draw what a view shows of a photo, whose pixels are not needed for it.

        Args:
            height: Of the photo in pixels.
            width: Of the photo in pixels.
            seed: The same seed, the same window.
        """
        augmentation, draws = self.augmentation, random.Random(seed)
        size = height, width
        if augmentation.resize is not None:
            side = draws.randint(*augmentation.resize)
            scale = side / max(height, width)
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            size = size if augmentation.keep_aspect else (side, side)
        shrinks = min(height / size[0], width / size[1])
        reduction = 1 << max(0, int(shrinks).bit_length() - 1)
        flip = augmentation.flip and draws.random() < 0.5
        rows, columns = (
            _drawn_axis(side // reduction, length, augmentation.crop_size, draws)
            for side, length in zip((height, width), size, strict=True)
        )
        return Window(reduction, rows, columns, flip, draws.getrandbits(32))

    def cut(self, image: Pixels, guides: Mapping[str, Guide], present: Pixels, window: Window) -> View:
        """Make a view that is drawn.

        Args:
            image: The photo, reduced by `window.reduction`: H // reduction x W // reduction x 3 uint8 RGB.
            guides: As in a call; not reduced.
            present: As in a call.
            window: From `draw`.
        """
        raw = _flipped(_resized(image[window.rows.part(), window.columns.part()], window), window)
        # albumentations ignores the global sources of randomness
        self._jitter.set_random_state(np.random.default_rng(window.colours), random.Random(window.colours))
        view = {"image": self._jitter(image=raw)["image"], "image_raw": raw}
        view.update({key: _cut_guide(guide, present, window) for key, guide in guides.items()})
        view["valid"] = np.ones(raw.shape[:2], np.uint8)
        side, fill = self.augmentation.crop_size, {"image": PAD_COLOUR, "image_raw": PAD_COLOUR, "valid": (0,)}
        if raw.shape[:2] == (side, side):
            return view
        # jittered before it is padded: the padding's colour stays, and does not weigh in the contrast's mean
        return {key: _padded(array, side, fill.get(key, (IGNORE,)), window) for key, array in view.items()}


class PlainTransform:
    """The image as it is and the guides as masks: evaluation and prediction."""

    def __call__(
        self, image: npt.NDArray[np.uint8], guides: Mapping[str, Guide], present: npt.NDArray[np.uint8], seed: int = 0
    ) -> View:
        """Return `image` and `image_raw` (one array) and the guides as masks; arguments as in training."""
        masks = {key: guide_to_mask(guide, present) for key, guide in guides.items()}
        return {"image": image, "image_raw": image, **masks}


class SmallTransform(PlainTransform):
    """The image and the guides as masks, made smaller if need be: to look at.

    Args:
        side: Longest side in pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(
        self, image: npt.NDArray[np.uint8], guides: Mapping[str, Guide], present: npt.NDArray[np.uint8], seed: int = 0
    ) -> View:
        """Return what `PlainTransform` does, and `valid`."""
        view = super().__call__(image, guides, present)
        view["valid"] = np.ones(image.shape[:2], np.uint8)
        scale = self.side / max(image.shape[:2])
        if scale < 1:
            size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
            methods = {2: cv2.INTER_NEAREST_EXACT, 3: cv2.INTER_AREA}
            view = {key: cv2.resize(array, size, interpolation=methods[array.ndim]) for key, array in view.items()}
        return view


def _drawn_axis(count: int, length: int, crop: int, draws: random.Random) -> Axis:
    """Draw a window of `crop` out of `length` pixels that `count` pixels are resized to, or a place for all of them."""
    if length <= crop:
        return Axis(0, count, length, draws.randint(0, crop - length))
    shown = max(1, round(crop * count / length))
    return Axis(draws.randint(0, count - shown), shown, crop, 0)


def _reduced(array: npt.NDArray[Any], reduction: int) -> npt.NDArray[Any]:
    """Mean of each `reduction` x `reduction` pixels; what is left over at the right and at the bottom is left out."""
    if reduction == 1:
        return array
    height, width = (side // reduction for side in array.shape[:2])
    whole = array[: height * reduction, : width * reduction]
    return cast(npt.NDArray[Any], cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA))


def _resized(part: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    """Resize the part of an image or a score map that a window shows."""
    rows, columns = window.rows, window.columns
    if part.shape[:2] == (rows.length, columns.length):
        return part
    # an aspect ratio that is not kept may leave one axis more than twice as long as needed
    shrinks = max(rows.count / rows.length, columns.count / columns.length)
    method = cv2.INTER_AREA if shrinks > 2 else cv2.INTER_LINEAR
    return cast(npt.NDArray[Any], cv2.resize(part, (columns.length, rows.length), interpolation=method))


def _flipped(array: npt.NDArray[Any], window: Window) -> npt.NDArray[Any]:
    return cast(npt.NDArray[Any], cv2.flip(array, 1)) if window.flip else array


def _cut_guide(guide: Guide, present: Pixels, window: Window) -> Pixels:
    """The part of a guide that a window shows, as a mask."""
    rows, columns, reduction = window.rows, window.columns, window.reduction
    if guide.ndim == 2:
        across = columns.nearest(reduction)
        mask = guide.take(rows.nearest(reduction), 0).take(across[::-1] if window.flip else across, 1)
        return mask.astype(np.uint8, copy=False)
    parts = guide[rows.part(reduction), columns.part(reduction)]
    planes = [_resized(_reduced(parts[..., n], reduction), window) for n in range(guide.shape[2])]
    return _flipped(guide_to_mask(np.stack(planes).transpose(1, 2, 0), present), window)


def _padded(array: Pixels, side: int, fill: tuple[int, ...], window: Window) -> Pixels:
    (top, bottom), (left, right) = window.rows.margins(side), window.columns.margins(side)
    canvas = cv2.copyMakeBorder(array, top, bottom, left, right, cv2.BORDER_CONSTANT, value=fill)
    return cast(Pixels, canvas)
