"""Pictures of the refinement during training, for W&B, TensorBoard or files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from ssdd_lightning.callbacks.indices import dataset_indices, to_dataset
from ssdd_lightning.callbacks.panels import DIFFERENCES, TITLES, panel
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write


class RefinementPictures(Callback):
    """Shows image, K, d_K, A, d_A, the refined mask and, in validation, the ground truth.

    After the last batch of a training epoch and after each validation it asks the stage for `pictures()`:
    None, or the last batch's tensors in a dictionary with `image`, B x 3 x H x W uint8, and any of
    `knowledge`, `advice`, `refined`, `truth`, B x h x w long network indices or 255, and `d_knowledge`,
    `d_advice`, B x h x w floats in [0, 1]. Weights & Biases and TensorBoard receive one tall picture,
    `pictures/train` or `pictures/val`. Without either of these loggers it becomes a file,
    `pictures/epoch_003_train.png` in the logger's own folder.

    Args:
        num_images: How many images of the batch to show at most.
        every_n_epochs: Show every n-th epoch, the first included.
    """

    def __init__(self, num_images: int = 8, every_n_epochs: int = 1) -> None:
        if num_images < 1 or every_n_epochs < 1:
            raise InputError(
                f"num_images and every_n_epochs must be at least 1, found {num_images} and {every_n_epochs}."
            )
        self.num_images = num_images
        self.every_n_epochs = every_n_epochs

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before the first epoch rather than after it."""
        if not callable(getattr(pl_module, "pictures", None)):
            raise InputError(f"{type(pl_module).__name__} has no pictures() to show; leave out RefinementPictures.")

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Show the epoch's last batch now: validation comes before the end of the training epoch."""
        if trainer.is_last_batch:
            self._show(trainer, pl_module, "train")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last batch of the validation."""
        self._show(trainer, pl_module, "val")

    def _show(self, trainer: Trainer, pl_module: LightningModule, phase: str) -> None:
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"  # every process must ask for it
        tensors = pl_module.pictures() if trainer.is_global_zero else None  # type: ignore[operator]
        if tensors:
            name = f"epoch_{trainer.current_epoch:03}_{phase}.png"
            picture = panel(self._rows(tensors, trainer), _class_names(trainer))
            send_picture(trainer, f"pictures/{phase}", picture, folder / name)

    def _rows(self, tensors: Mapping[str, Tensor], trainer: Trainer) -> list[dict[str, npt.NDArray[Any]]]:
        """Split the batch into images on the CPU, masks by the dataset's class indices."""
        unknown = sorted(set(tensors) - set(TITLES))
        if unknown:
            raise InputError(f"pictures() returned {unknown[0]!r}; expected some of {', '.join(TITLES)}.")
        indices = dataset_indices(trainer)
        columns = {}
        for key, tensor in tensors.items():
            values = tensor[: self.num_images].detach().cpu()
            if key == "image":
                columns[key] = values.permute(0, 2, 3, 1).numpy()
            else:
                columns[key] = values.float().numpy() if key in DIFFERENCES else to_dataset(values.numpy(), indices)
        count = len(columns["image"])
        return [{key: values[index] for key, values in columns.items()} for index in range(count)]


def send_picture(trainer: Trainer, key: str, picture: npt.NDArray[np.uint8], path: Path) -> None:
    """Hand a picture to every logger that takes pictures; to a file if there is none.

    Args:
        trainer: Whose loggers and global step count.
        key: Name of the picture for the loggers.
        picture: H x W x 3 uint8 RGB.
        path: The file, if no logger takes pictures.
    """
    shown = False
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [picture], step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, trainer.global_step, dataformats="HWC")
        else:
            continue
        shown = True
    if not shown:
        with atomic_write(path) as stream:
            Image.fromarray(picture).save(stream, format="PNG")


def _class_names(trainer: Trainer) -> dict[int, str]:
    """Names by dataset index, as far as the data module knows them."""
    data = getattr(trainer, "datamodule", None)
    return dict(zip(getattr(data, "class_indices", ()), getattr(data, "class_names", ()), strict=False))
