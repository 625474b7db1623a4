"""The ledger of Lightning's commands: the inputs of a fit, a test or a prediction, and what is finished."""

import time
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info

from ssdd_lightning.callbacks.checkpoint import before
from ssdd_lightning.callbacks.writers import product_path
from ssdd_lightning.constants import WEIGHT_OPTIONS
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.dataset import Record
from ssdd_lightning.renamed import GONE
from ssdd_lightning.stages.base import Batch, Stage
from ssdd_lightning.storage.fingerprints import digest_of, fingerprint, fingerprints
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.masks import read_mask

DATA_SETTINGS = ("classes", "augmentation", "batch_size")
"""Options of `data` that decide a fit; the files that the others name are fingerprinted instead."""
TRAINER_SETTINGS = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "max_time",
    "limit_train_batches",
    "overfit_batches",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "sync_batchnorm",
    "precision",
)
"""Options of the trainer that decide a fit."""
CHECKPOINT_SETTINGS = ("monitor", "mode", "save_top_k", "every_n_epochs")
"""Options of the checkpoints that decide which one is the last."""
SCORES = ("train/", "val/")
"""What an entry keeps of the numbers that a fit logged."""
NOTES = {
    "test": "image-level labels were not used: every class of the network could be predicted",
    "predict": "image-level labels were used: only an image's own classes could be predicted",
}


def fit_recipe(config: Mapping[str, Any], records: list[Record], only_used: Sequence[str] = ()) -> Recipe:
    """What decides the checkpoint of a fit.

    Args:
        config: The configuration of `ssdd fit` as plain values.
        records: The training images.
        only_used: Options of the stage that do not, see `Stage.only_used`.
    """
    model = {**config["model"], "init_args": dict(config["model"].get("init_args", {}))}
    inputs = {
        "the training images": digest_of(f"{r.name} {d}" for r, d in _with_digests(records, lambda r: r.image)),
        "the image-level labels": digest_of(f"{record.name} {record.labels}" for record in records),
    }
    for guide in sorted({key for record in records for key in record.guides}):
        inputs[f"data.{guide}"] = digest_of(
            f"{r.name} {d}" for r, d in _with_digests(records, lambda r, key=guide: r.guides[key])
        )
    for option in WEIGHT_OPTIONS:
        source = model["init_args"].get(option)
        if source is not None and Path(source).is_file():
            inputs[f"model.init_args.{option}"] = fingerprint(Path(model["init_args"].pop(option)))
    callbacks = config["trainer"].get("callbacks") or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]  # Lightning takes one without a list
    settings = {
        "seed_everything": config.get("seed_everything"),
        "model": model,
        "data": {key: config["data"].get(key) for key in DATA_SETTINGS},
        "trainer": {key: config["trainer"].get(key) for key in TRAINER_SETTINGS},
        "callbacks": [entry for entry in callbacks if not _is_ours(entry)],
        "checkpoint": {key: config.get("checkpoint", {}).get(key) for key in CHECKPOINT_SETTINGS},
    }
    regardless = tuple(f"model.init_args.{option}" for option in only_used)
    return Recipe(settings, inputs, regardless, {f"model.init_args.{option}": value for option, value in GONE.items()})


def _is_ours(callback: Mapping[str, Any]) -> bool:
    """Whether a callback only shows or writes something."""
    return str(callback.get("class_path", "")).startswith("ssdd_lightning.")


def _with_digests(records: list[Record], path_of: Any) -> list[tuple[Record, str]]:  # noqa: ANN401
    return list(zip(records, fingerprints([path_of(record) for record in records]), strict=True))


def files_ledger(
    stage: Stage, data: WeakDataModule, command: str, folder: Path, checkpoint: Path, precision: object, rank: int
) -> Ledger:
    """The ledger of the masks or score maps that `test` or `predict` writes.

    Args:
        stage: What makes them.
        data: Set up for the command.
        command: test or predict.
        folder: Where they lie.
        checkpoint: Where the weights come from.
        precision: Of the trainer, as it was asked for: a processor without bfloat16 takes another.
        rank: Number of this process.
    """
    settings = {
        "stage": type(stage).__name__,
        "protocol": stage.protocol(),
        "precision": str(precision),
        "classes": data.class_indices,
        "note": NOTES[command],
    }
    records = {record.name: record for record in data.datasets[command].records}  # type: ignore[index]
    whats = stage.predicts if command == "predict" else ("mask",)

    def item(name: str) -> Item:
        """The inputs and outputs of one image."""
        record = records[name]
        guides = [*record.guides.values(), *([] if record.maps is None else [record.maps])]
        truth = [] if record.mask is None else [record.mask]  # decides the score
        sources = (record.image, *(guides if command == "predict" else truth))
        labels = str(record.labels) if command == "predict" else ""
        return Item(sources, tuple(product_path(folder, what, name) for what in whats), labels)

    recipe = Recipe(settings, {"the checkpoint": fingerprint(checkpoint)})
    return Ledger(folder, command, recipe, Items(records, item), rank)


class FilesBookkeeping(Callback):
    """Leaves finished images out of the data, and notes each image whose files were written.

    Args:
        ledger: See `files_ledger`.
        data: The data module of the run.
    """

    def __init__(self, ledger: Ledger, data: WeakDataModule) -> None:
        self.ledger = ledger
        self.data = data
        self._left_out: list[Record] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let process 0 decide what is pending; the data module was set up before."""
        pending = self.ledger.pending()
        if len(pending) < trainer.world_size:  # each process needs an image
            pending = [*pending, *(name for name in self.ledger.items if name not in pending)][: trainer.world_size]
        names = set(trainer.strategy.broadcast(pending))
        self._left_out = self.data.keep(self.ledger.name, names)
        if trainer.is_global_zero:
            self.ledger.begin()
        trainer.strategy.barrier("ledger")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the masks that an earlier run finished: a score is of all images."""
        table = self.data.table.to_network()
        for record in self._left_out[trainer.global_rank :: trainer.world_size]:
            found = read_mask(product_path(self.ledger.folder, "mask", record.name))
            truth = read_mask(record.mask)  # type: ignore[arg-type]
            masks = (torch.from_numpy(table[mask]).long()[None].to(pl_module.device) for mask in (found, truth))
            pl_module.test_iou.update(*masks)  # type: ignore[operator, union-attr]

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Batch, *_: object
    ) -> None:
        """Note what was written."""
        self.ledger.done(batch["name"])

    on_predict_batch_end = on_test_batch_end  # type: ignore[assignment]

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the entry, when all processes are done."""
        wait_for_all(trainer)
        if not trainer.is_global_zero:
            return
        scores = {name: float(value) for name, value in trainer.callback_metrics.items()}
        total, earlier = len(self.ledger.items), len(self._left_out)
        self.ledger.close(
            {
                "images": total,
                "finished_earlier": earlier,
                "image_labels": self.ledger.name == "predict",
                "scores": scores if self.ledger.name == "test" else {},
            }
        )
        of_them = f", {earlier} of them by an earlier run" if earlier else ""
        rank_zero_info(f"{total} images in {self.ledger.folder}{of_them}; {NOTES[self.ledger.name]}.")

    on_predict_end = on_test_end

    def on_exception(self, *_: object) -> None:
        """Keep the seconds up to the interruption."""
        self.ledger.tick(0)


def wait_for_all(trainer: Trainer) -> None:
    """Wait until every process is here; unlike in a plain barrier, signals are handled meanwhile."""
    if trainer.world_size > 1:
        barrier = torch.distributed.barrier(async_op=True)
        while not barrier.is_completed():
            time.sleep(0.05)


class FitBookkeeping(Callback):
    """Notes that a fit has begun, and that it is finished.

    Args:
        ledger: The fit's entry.
        last: Where its last checkpoint lies.
        goes_on: Whether the fit continues from it. If not, it is another fit's, and is kept as `replaced-1.ckpt`.
    """

    def __init__(self, ledger: Ledger, last: Path, goes_on: bool) -> None:
        self.ledger = ledger
        self.last = last
        self.goes_on = goes_on

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the entry, once everything that can fail at the start has succeeded."""
        if trainer.is_global_zero:
            if not self.goes_on and self.last.is_file():
                kept = next(p for n in count(1) if not (p := self.last.with_name(f"replaced-{n}.ckpt")).exists())
                self.last.replace(kept)
                print(f"fit: the earlier checkpoint is kept as {kept}.", flush=True)
            if not self.goes_on:
                before(self.last).unlink(missing_ok=True)  # of another fit: nothing may continue from it
            if trainer.ckpt_path is not None:
                self.ledger.difference = None  # it continues from there, whatever the folder held
            self.ledger.begin()

    def on_train_batch_end(self, *_: object) -> None:
        """Keep the seconds."""
        self.ledger.tick()

    def on_exception(self, *_: object) -> None:
        """Keep the seconds up to the interruption."""
        self.ledger.tick(0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the entry with losses and scores; times and sums over some steps differ in a resumed fit."""
        scores = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith(SCORES)}
        if trainer.is_global_zero:
            self.ledger.close({"epochs": trainer.current_epoch, "steps": trainer.global_step, "scores": scores})
