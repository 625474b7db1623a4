"""Predictions to disk: what a stage's `predict_step` or `test_step` returns becomes PNG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from torch import Tensor

from ssdd_lightning.callbacks.indices import dataset_indices, to_dataset
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, mask_path, write_map

DIFFERENCES = ("d_knowledge", "d_advice")
CONTENTS = ("mask", "map", *DIFFERENCES)


class PredictionWriter(BasePredictionWriter):
    """Writes each batch of predictions immediately, so that memory does not grow.

    A prediction is a dictionary with `name`, a list of B names, and any of
    - `mask`: B masks, H x W long, network indices or 255; written to `<output_dir>/<name>.png`;
    - `map`, with `map_classes`: B score maps, n x H x W floats in [0, 1], and the n network indices of their
      channels, 1-D long; written to `<output_dir>/<name>.map.png`;
    - `d_knowledge`, `d_advice`: B difference maps, H x W floats in [0, 1]; written as 8-bit grey to
      `<output_dir>/d_knowledge/<name>.png` and `<output_dir>/d_advice/<name>.png`.
    Files carry the dataset's own class indices, taken from the data module. No file is ever half written, and
    in distributed runs each process writes its own images. `ssdd test` writes what its step returns, if any.

    Args:
        output_dir: Folder to write to; created where it does not exist, files of the same name are replaced. None
            means `predictions` (`predict`) or `test` under the trainer's `default_root_dir`.
    """

    def __init__(self, output_dir: Path | str | None = None) -> None:
        super().__init__(write_interval="batch")
        self._chosen = None if output_dir is None else Path(output_dir)
        self.output_dir = self._chosen or Path("predictions")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before the work rather than after it if the folder cannot be written or the classes are unknown."""
        super().setup(trainer, pl_module, stage)
        if stage in {"predict", "test"}:
            dataset_indices(trainer)
            self.output_dir = self.folder_of(trainer, stage)
            _make_folder(self.output_dir)

    def folder_of(self, trainer: Trainer, command: str) -> Path:
        """Where the files of `test` or `predict` go."""
        return self._chosen or Path(trainer.default_root_dir) / ("predictions" if command == "predict" else "test")

    def _refuse_untrained(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to replace masks by those of an untrained network."""
        there = next((path for path in self.output_dir.glob("*.png") if not path.name.startswith(".")), None)
        if there is not None and not getattr(pl_module, "trained", True):
            raise InputError(
                f"expected a trained {type(pl_module).__name__}, found random weights; their files would replace those "
                f"in {self.output_dir}, such as {there.name}; give the trainer a ckpt_path, or another output_dir."
            )

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what should not be written before anything is."""
        self._refuse_untrained(trainer, pl_module)

    on_test_start = on_predict_start

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,  # noqa: ANN401 - whatever the stage returns
        batch_indices: Sequence[int] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write one batch of `predict`.

        Raises:
            InputError: The stage returned nothing that can be written, or values out of range.
        """
        if not _is_writable(prediction):
            raise InputError(
                f"{type(pl_module).__name__}.predict_step should return a dict with 'name' and any of "
                f"{', '.join(CONTENTS)} for PredictionWriter, found {_describe(prediction)}."
            )
        self._write(prediction, trainer)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write one batch of `test`, if the step returned something to write."""
        if _is_writable(outputs):
            self._write(outputs, trainer)  # type: ignore[arg-type]

    def _write(self, prediction: Mapping[str, Any], trainer: Trainer) -> None:
        indices = dataset_indices(trainer)
        names = prediction["name"]
        for key in CONTENTS:
            if len(prediction.get(key, names)) != len(names):
                raise InputError(f"a prediction has {len(names)} names but {len(prediction[key])} of {key!r}.")
        for name, mask in zip(names, prediction.get("mask", ()), strict=False):
            write_mask(product_path(self.output_dir, "mask", name), to_dataset(_array(mask), indices))
        if "map" in prediction:
            for name, scores, channels in zip(names, prediction["map"], prediction["map_classes"], strict=True):
                classes = to_dataset(_array(channels), indices).tolist()
                write_map(product_path(self.output_dir, "map", name), classes, _array(scores).astype(np.float32))
        for key in DIFFERENCES:
            for name, difference in zip(names, prediction.get(key, ()), strict=False):
                write_difference(product_path(self.output_dir, key, name), _array(difference))


def product_path(folder: Path, what: str, name: str) -> Path:
    """Path of a product of an image: its mask, its score maps, or one of its difference maps."""
    if what == "map":
        return map_path(folder, name)
    return mask_path(folder if what == "mask" else folder / what, name)


def write_difference(path: Path, difference: npt.NDArray[np.floating]) -> None:
    """Write a difference map as an 8-bit grey PNG, 255 = certainly a difference.

    Args:
        path: File to write, `.png`; it appears at once or not at all.
        difference: H x W floats in [0, 1].

    Raises:
        InputError: A value is NaN or out of range, or the file cannot be written.
    """
    low, high = float(difference.min()), float(difference.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise InputError(f"cannot write {path}: expected differences in [0, 1], found {low}..{high}.")
    levels = np.rint(difference * 255).astype(np.uint8)
    with atomic_write(path) as stream:
        # measured on a smooth 500 x 375 map: a third of the default level's time for 8 % more bytes
        Image.fromarray(levels).save(stream, format="PNG", compress_level=4)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _is_writable(outputs: object) -> bool:
    return isinstance(outputs, Mapping) and "name" in outputs and any(key in outputs for key in CONTENTS)


def _describe(prediction: object) -> str:
    return f"a dict with {sorted(prediction)}" if isinstance(prediction, dict) else type(prediction).__name__


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {folder} ({error}); choose another output_dir.") from error
