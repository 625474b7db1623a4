"""The arithmetic of SSDD as pure functions: batched, device-agnostic, without a loop over images or classes."""

from ssdd_lightning.crf.inference import dense_crf
from ssdd_lightning.functional.affinity import (
    affinity_loss,
    confident_labels,
    half_plane_offsets,
    pair_affinity,
    pair_labels,
)
from ssdd_lightning.functional.cam import cam_background, normalize_cam, propagate_cam, sum_cams
from ssdd_lightning.functional.losses import difference_loss, difference_losses, segmentation_loss
from ssdd_lightning.functional.par import pixel_adaptive_refinement
from ssdd_lightning.functional.random_walk import random_walk
from ssdd_lightning.functional.refinement import (
    MergeBiases,
    bad_samples,
    difference_target,
    failed_classes,
    merge_bias,
    present_argmax,
    ssdd_merge,
    valid_pixels,
)
from ssdd_lightning.functional.totals import over_processes

__all__ = [
    "MergeBiases",
    "affinity_loss",
    "bad_samples",
    "cam_background",
    "confident_labels",
    "dense_crf",
    "difference_loss",
    "difference_losses",
    "difference_target",
    "failed_classes",
    "half_plane_offsets",
    "merge_bias",
    "normalize_cam",
    "over_processes",
    "pair_affinity",
    "pair_labels",
    "pixel_adaptive_refinement",
    "present_argmax",
    "propagate_cam",
    "random_walk",
    "segmentation_loss",
    "ssdd_merge",
    "sum_cams",
    "valid_pixels",
]
