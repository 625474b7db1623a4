"""The arithmetic of SSDD as pure functions: batched, device-agnostic, without a loop over images or classes."""

from ssdd_lightning.functional.cam import cam_background, normalize_cam, sum_cams
from ssdd_lightning.functional.dense_crf import dense_crf
from ssdd_lightning.functional.losses import difference_loss, segmentation_loss
from ssdd_lightning.functional.refinement import (
    bad_samples,
    difference_target,
    failed_classes,
    merge_bias,
    present_argmax,
    ssdd_merge,
    valid_pixels,
)

__all__ = [
    "bad_samples",
    "cam_background",
    "dense_crf",
    "difference_loss",
    "difference_target",
    "failed_classes",
    "merge_bias",
    "normalize_cam",
    "present_argmax",
    "segmentation_loss",
    "ssdd_merge",
    "sum_cams",
    "valid_pixels",
]
