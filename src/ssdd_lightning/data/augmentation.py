"""Random augmentation of training images."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError


@dataclass(frozen=True)
class Augmentation:
    """Random resize, crop, flip and colour jitter of training images.

    Args:
        crop_size: Side of the square crop in pixels.
        resize: Smallest and largest longest side in pixels, drawn uniformly; None keeps the image's size.
        keep_aspect: Keep the aspect ratio when resizing; false makes squares, as the authors' code does.
        flip: Mirror half of the images horizontally.
        color_jitter: Strengths of brightness, contrast, saturation and hue jitter.
        transform: A transform of your own in place of all this, called as `TrainTransform` is and returning the same.

    Raises:
        InputError: A value is out of range.
    """

    crop_size: int = 448
    resize: tuple[int, int] | None = None
    keep_aspect: bool = True
    flip: bool = True
    color_jitter: tuple[float, float, float, float] = (0.3, 0.3, 0.3, 0.1)
    transform: Callable[..., dict[str, npt.NDArray[np.uint8]]] | None = None

    def __post_init__(self) -> None:
        if self.crop_size < 1:
            raise InputError(f"crop_size: expected at least 1 pixel, found {self.crop_size}.")
        if self.resize is not None and not 1 <= self.resize[0] <= self.resize[1]:
            raise InputError(f"resize: expected [smallest, largest] longest side in pixels, found {list(self.resize)}.")
        if len(self.color_jitter) != 4 or min(self.color_jitter) < 0 or self.color_jitter[3] > 0.5:
            raise InputError(
                "color_jitter: expected four strengths >= 0 (brightness, contrast, saturation, hue <= 0.5), "
                f"found {list(self.color_jitter)}."
            )
