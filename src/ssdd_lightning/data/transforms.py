"""Joint augmentation of an image and its guides. The only file that knows albumentations."""

import os
import random
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else importing it asks the network for a newer one
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


class TrainTransform:
    """Random resize, flip, crop and colour jitter; image, un-jittered image and guides stay aligned.

    Score maps are warped as scores (bilinear) and decided by argmax after the crop; masks are warped by the nearest
    pixel, centre to centre. Where the image is smaller than the crop it lies at a random place on a canvas of
    `PAD_COLOUR`, and every mask is 255 there. All draws of a view come from one seed.

    Args:
        augmentation: What is drawn, and from what range.
    """

    def __init__(self, augmentation: Augmentation) -> None:
        crop_size = augmentation.crop_size
        shape: list[albumentations.BasicTransform] = []
        if augmentation.resize is not None:
            shape.append(_RandomResize(augmentation.resize, augmentation.keep_aspect))
        if augmentation.flip:
            shape.append(albumentations.HorizontalFlip(p=0.5))
        targets = {"knowledge_map": "image", "advice_map": "image", "knowledge": "mask", "advice": "mask"}
        self._warp = albumentations.Compose([*shape, _RandomWindow(crop_size)], additional_targets=targets)
        brightness, contrast, saturation, hue = augmentation.color_jitter
        self._jitter = albumentations.ColorJitter(brightness, contrast, saturation, hue, p=1.0)
        pad = albumentations.PadIfNeeded(crop_size, crop_size, position="random", fill=PAD_COLOUR, fill_mask=IGNORE)
        targets = {"image_raw": "image", "knowledge": "mask", "advice": "mask", "valid": "mask"}
        self._pad = albumentations.Compose([pad], additional_targets=targets)

    def __call__(
        self, image: npt.NDArray[np.uint8], guides: Mapping[str, Guide], present: npt.NDArray[np.uint8], seed: int
    ) -> View:
        """Draw one augmented view.

        Args:
            image: H x W x 3 uint8 RGB.
            guides: `knowledge` and `advice`, of the image's size.
            present: Network index of each channel of the maps.
            seed: The same seed, the same view.

        Returns:
            `image`, `image_raw`, the guides as masks, and `valid`, all `crop_size` square.
        """
        self._reseed(seed)
        keys = {key: key if guide.ndim == 2 else f"{key}_map" for key, guide in guides.items()}
        warped = self._warp(image=image, **{keys[key]: guide for key, guide in guides.items()})
        masks = {key: guide_to_mask(warped[keys[key]], present) for key in guides}
        raw = warped["image"]
        masks["valid"] = np.ones(raw.shape[:2], np.uint8)
        # jittered before it is padded: the padding's colour stays, and does not weigh in the contrast's mean
        padded: View = self._pad(image=self._jitter(image=raw)["image"], image_raw=raw, **masks)
        padded["valid"] = (padded["valid"] != IGNORE).astype(np.uint8)
        return padded

    def _reseed(self, seed: int) -> None:
        """Give all transforms one fresh source of randomness (albumentations ignores the global ones)."""
        numbers, choices = np.random.default_rng(seed), random.Random(seed)
        for transform in (self._warp, self._jitter, self._pad):
            transform.set_random_state(numbers, choices)


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


class _RandomResize(albumentations.DualTransform):
    """Resize to a random longest side: images and maps bilinear (by area when shrinking), masks nearest."""

    def __init__(self, longest_side: tuple[int, int], keep_aspect: bool) -> None:
        super().__init__(p=1.0)
        self.longest_side = longest_side
        self.keep_aspect = keep_aspect

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the new size."""
        side = self.py_random.randint(*self.longest_side)
        height, width = params["shape"][:2]
        if not self.keep_aspect:
            return {"size": (side, side)}
        scale = side / max(height, width)
        return {"size": (max(1, round(width * scale)), max(1, round(height * scale)))}

    def apply(self, img: npt.NDArray[Any], size: tuple[int, int], **params: object) -> npt.NDArray[Any]:
        """Resize an image or maps to `size` (width, height)."""
        shrinks = size[0] * size[1] < img.shape[0] * img.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        # OpenCV's INTER_AREA takes four channels at most, and an image may show more classes
        groups = [img[..., first : first + 4] for first in range(0, img.shape[2], 4)]
        return np.dstack([cv2.resize(group, size, interpolation=method) for group in groups])

    def apply_to_mask(self, mask: npt.NDArray[Any], size: tuple[int, int], **params: object) -> npt.NDArray[Any]:
        """Resize a mask; INTER_NEAREST would shift it by half a pixel against the image."""
        return cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)


class _RandomWindow(albumentations.DualTransform):
    """Cut a random window of at most `side`; an axis that is shorter stays whole (and is padded later)."""

    def __init__(self, side: int) -> None:
        super().__init__(p=1.0)
        self.side = side

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw the window's corner."""
        height, width = params["shape"][:2]
        return {
            "top": self.py_random.randint(0, max(0, height - self.side)),
            "left": self.py_random.randint(0, max(0, width - self.side)),
        }

    def apply(self, img: npt.NDArray[Any], top: int, left: int, **params: object) -> npt.NDArray[Any]:
        """Cut the window out of an image, maps or a mask."""
        return img[top : top + self.side, left : left + self.side]
