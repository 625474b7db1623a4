"""Pictures of the refinement during training, for W&B, TensorBoard or files."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import default_collate

from ssdd_lightning.callbacks.indices import dataset_indices, to_dataset
from ssdd_lightning.callbacks.panels import (
    DIFFERENCES,
    IGNORED,
    TITLES,
    Picture,
    Row,
    heat_of,
    mask_of,
    panel,
    write_panel,
)
from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.errors import InputError

if TYPE_CHECKING:
    from ssdd_lightning.stages.base import Stage

Shown = Mapping[str, Tensor]
"""What a stage shows of a batch."""


class RefinementPictures(Callback):
    """Shows photo, K, d_K, A, d_A, refined mask, prediction and ground truth.

    At the end of a training epoch it shows some training photos, whole and always the same ones, with their ground
    truth if there is any (`WeakDataModule.to_look_at`, `Stage.look`); nothing is learnt from them. After a validation
    it shows that one's last batch (`Stage.pictures`), and so it does in training for stages and data that are not
    this package's: None, or tensors in a dictionary with `image`, B x 3 x H x W uint8, and any of `knowledge`,
    `advice`, `refined`, `prediction`, `truth`, B x h x w long network indices or 255, and `d_knowledge`, `d_advice`,
    B x h x w floats in [0, 1]. Weights & Biases receives each photo with its masks as overlays to be
    switched on and off, and its difference maps after it; TensorBoard one tall picture. Both call it `pictures/train`
    or `pictures/val`. For any other logger, and without one, the tall picture becomes a file,
    `pictures/epoch_003_train.png` in the first logger's own folder.

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
        if trainer.is_last_batch and _looks(trainer, pl_module) is None:
            self._show(trainer, "train", pl_module.pictures)  # type: ignore[arg-type]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show some training photos."""
        looks = _looks(trainer, pl_module)
        if looks is not None:
            self._show(trainer, "train", lambda: self._look(trainer, *looks))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the last batch of the validation."""
        self._show(trainer, "val", pl_module.pictures)  # type: ignore[arg-type]

    def _show(self, trainer: Trainer, phase: str, shown: Callable[[], Shown | list[Shown] | None]) -> None:
        if trainer.sanity_checking or trainer.current_epoch % self.every_n_epochs:
            return
        folder = Path(trainer.log_dir or trainer.default_root_dir) / "pictures"  # every process must ask for it
        found = shown() or []  # so must it run the network, whose weights may lie in all of them
        if not trainer.is_global_zero:
            return
        batches = found if isinstance(found, list) else [found]
        rows = [row for tensors in batches for row in self._rows(tensors, trainer)]
        if rows:
            name = f"epoch_{trainer.current_epoch:03}_{phase}.png"
            send_rows(trainer, f"pictures/{phase}", rows, folder / name)

    def _look(self, trainer: Trainer, stage: "Stage", data: WeakDataModule) -> list[Shown]:
        """What the stage makes of some training photos, beside their ground truth."""
        shown: list[Shown] = []
        photos = data.to_look_at(self.num_images)
        modes = {module: module.training for module in stage.modules()}
        stage.eval()
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            for index in range(len(photos)):
                try:
                    photo = photos[index]
                except InputError as error:  # its ground truth, say, which the training itself does not need
                    rank_zero_warn(f"A photo is left out of the pictures: {error}")
                    continue
                batch = trainer.strategy.batch_to_device(default_collate([photo]), stage.device)
                tensors = stage.look(batch)
                if tensors:
                    shown.append({**tensors, **({"truth": batch["mask"]} if "mask" in batch else {})})
        for module, training in modes.items():
            module.training = training
        return shown

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


def _looks(trainer: Trainer, stage: Any) -> "tuple[Stage, WeakDataModule] | None":  # noqa: ANN401
    """Stage and data, if both are such that whole photos can be shown."""
    data = getattr(trainer, "datamodule", None)
    return (stage, data) if callable(getattr(stage, "look", None)) and isinstance(data, WeakDataModule) else None


def send_rows(trainer: Trainer, key: str, rows: Sequence[Row], path: Path) -> None:
    """Hand photos with their masks to every logger that takes pictures; to a file for the others.

    Args:
        trainer: Whose loggers and global step count.
        key: Name of the picture for the loggers.
        rows: See `panel`; masks by the dataset's class indices.
        path: The file, if there is no logger or one that takes no pictures.
    """
    names = _class_names(trainer)
    loggers: Sequence[Logger | None] = trainer.loggers or [None]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            images, options = _overlays(rows, names)
            logger.log_image(key, images, step=trainer.global_step, **options)
        elif isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, panel(rows, names), trainer.global_step, dataformats="HWC")
        else:
            write_panel(path, rows, names)


def _overlays(rows: Sequence[Row], names: Mapping[int, str]) -> tuple[list[Picture], dict[str, list[Any]]]:
    """Photos and difference maps in a row, all of the photos' size, and the masks upon the photos."""
    images: list[Picture] = []
    captions: list[str] = []
    masks: list[dict[str, Any] | None] = []
    labels = {**names, IGNORE: IGNORED}
    for row in rows:
        photo = row["image"].astype(np.uint8)
        size = photo.shape[1], photo.shape[0]
        shown = [key for key in TITLES if key in row and key != "image" and key not in DIFFERENCES]
        images.append(photo)
        captions.append(TITLES["image"])
        masks.append({k: {"mask_data": mask_of(row[k], size), "class_labels": labels} for k in shown})  # type: ignore[arg-type]
        for key in (key for key in DIFFERENCES if key in row):
            images.append(heat_of(row[key], size))  # type: ignore[arg-type]
            captions.append(TITLES[key])
            masks.append(None)
    return images, {"caption": captions, "masks": masks}


def _class_names(trainer: Trainer) -> dict[int, str]:
    """Names by dataset index, as far as the data module knows them."""
    data = getattr(trainer, "datamodule", None)
    return dict(zip(getattr(data, "class_indices", ()), getattr(data, "class_names", ()), strict=False))
