"""LightningCLI for the stages, with its pitfalls handled."""

import logging
import warnings
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar, TQDMProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from ssdd_lightning.callbacks import Interruption, PredictionWriter
from ssdd_lightning.callbacks.bookkeeping import FilesBookkeeping, FitBookkeeping, files_ledger, fit_recipe
from ssdd_lightning.callbacks.checkpoint import LAST, RunCheckpoint
from ssdd_lightning.config_errors import check_config_files, config_sentence
from ssdd_lightning.data.choice import OPTION, chosen_dataset, data_module_class, dataset_name
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.data.safe_torch import load_torch
from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.stages import Stage
from ssdd_lightning.storage.ledger import Ledger
from ssdd_lightning.storage.lock import locked


class SaveRunConfig(SaveConfigCallback):
    """Write the configuration of a fit into the run's own folder, and hand it to the logger.

    Lightning's default writes `./config.yaml` when there is no log folder, one file for all runs of W&B, and lets a
    later `test` overwrite it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once, at the start of a fit."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # a broadcast, which every process must ask for
        if stage != "fit" or not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.yaml"
        self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)
        for logger in trainer.loggers:
            logger.log_hyperparams(yaml.safe_load(path.read_text()))  # `self.config` holds objects of the parser too


class SSDDCommandLine(LightningCLI):
    """Any stage as model; the number of classes comes from the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the number of classes; add the callbacks every run has, all under `trainer.default_root_dir`.

        `checkpoints/last.ckpt` is the end of the last epoch: choosing a best one would need pixel truth.
        """
        help_text = "dataset: voc, coco, or folder for your own photos; decides the options of `data`"
        parser.add_argument(OPTION, type=str | None, default=dataset_name(self.datamodule_class), help=help_text)
        parser.link_arguments("data.num_classes", "model.init_args.num_classes", apply_on="instantiate")
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "checkpoint.filename": LAST,
                "checkpoint.enable_version_counter": False,
                "checkpoint.save_on_train_epoch_end": True,  # else an epoch without validation leaves no checkpoint
            }
        )
        parser.add_lightning_class_args(PredictionWriter, "output")
        parser.link_arguments("trainer.default_root_dir", "checkpoint.dirpath", compute_fn=_checkpoint_folder)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse the words given; Lightning's own also warns whenever the process has arguments of its own."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            words = args if args[0] in self.subcommands() else ["fit", *args]
            raise InputError(config_sentence(str(error), words, self._option_names(words))) from None
        subcommand = self.config.get("subcommand")
        checkpoint = self.config[subcommand].get("ckpt_path") if subcommand else None
        if checkpoint == "last" or (subcommand in ("validate", "test", "predict") and checkpoint is None):
            checkpoint = self.config[subcommand].ckpt_path = _last_checkpoint(self.config[subcommand])
        if checkpoint is not None and not Path(checkpoint).is_file():
            raise InputError(
                f"expected a checkpoint at {checkpoint}, found no file; run `ssdd fit` first or correct it."
            )
        if checkpoint is not None:
            _check_checkpoint(Path(checkpoint), resumed=subcommand == "fit")

    def _option_names(self, args: Sequence[str]) -> list[str]:
        """Dotted names of a subcommand's options."""
        parser = getattr(self, "_subcommand_parsers", {}).get(args[0], self.parser)
        return [action.dest for action in parser._actions if action.option_strings]

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; an InputError of a constructor is freed from jsonargparse's wrapping."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__
            raise cause or error from None

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Show tqdm's bar, as all other commands do, unless the user chose another one or none.

        Lightning takes rich's instead wherever rich is installed, and that one writes nothing into a log file before
        the end of the training.
        """
        given = config.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in given):
            callbacks.append(TQDMProgressBar())
        return super()._instantiate_trainer(config, callbacks)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the subcommands and the arguments that are no options of theirs."""
        hidden = LightningCLI.subcommands()
        return {**hidden, "predict": hidden["predict"] | {"return_predictions"}}

    def fit(self, model: Stage, datamodule: WeakDataModule, ckpt_path: str | None = None, **options: Any) -> None:  # noqa: ANN401
        """Run `fit`, unless it is finished; an interrupted one goes on at its last checkpoint.

        Args:
            model: The stage.
            datamodule: Its data.
            ckpt_path: A checkpoint to go on from, whatever made it; None leaves it to the ledger.
            **options: Others of `Trainer.fit`.
        """
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)
            return
        datamodule.setup("fit")
        config = yaml.safe_load(self._parser("fit").dump(self.config["fit"], skip_none=False))
        recipe = fit_recipe(config, datamodule.datasets["train"].records)
        root, rank = Path(self.trainer.default_root_dir), _rank()
        with locked(root) if rank == 0 else nullcontext():
            ledger = Ledger(root, "fit", recipe, rank=rank)
            folder = self.trainer.checkpoint_callback.dirpath  # type: ignore[union-attr]
            last = Path(folder or root / "checkpoints") / f"{LAST}.ckpt"
            if ckpt_path is None and ledger.finished and last.is_file():
                rank_zero_info(f"fit: finished in {root}, nothing to do.")
                return
            if ckpt_path is None and ledger.begun and last.is_file():
                _check_checkpoint(last, resumed=True)
                ckpt_path = str(last)
                rank_zero_info(f"fit: going on at {last}.")
            goes_on = ckpt_path is not None and Path(ckpt_path).resolve() == last.resolve()
            stale = last if last.is_file() and not goes_on and not ledger.begun else None
            self.trainer.callbacks.append(FitBookkeeping(ledger, stale))  # type: ignore[attr-defined]
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)
            if goes_on and self.trainer.state.finished and not ledger.finished:
                ledger.close({"epochs": self.trainer.current_epoch, "steps": self.trainer.global_step})

    def test(self, **arguments: Any) -> None:  # noqa: ANN401
        """Run `test` on the images that are not finished."""
        self._write_files("test", **arguments)

    def predict(self, **arguments: Any) -> None:  # noqa: ANN401
        """Run `predict` on the images that are not finished; its product is on disk, so nothing is kept in memory."""
        self._write_files("predict", return_predictions=False, **arguments)

    def _write_files(
        self,
        command: Literal["test", "predict"],
        model: Stage,
        datamodule: WeakDataModule,
        ckpt_path: str,
        **options: Any,  # noqa: ANN401
    ) -> None:
        datamodule.setup(command)
        writer = next(c for c in self.trainer.callbacks if isinstance(c, PredictionWriter))  # type: ignore[attr-defined]
        folder, rank = writer.folder_of(self.trainer, command), _rank()
        with locked(folder) if rank == 0 else nullcontext():
            precision = self.trainer.precision
            ledger = files_ledger(model, datamodule, command, folder, Path(ckpt_path), precision, rank)
            if ledger.finished:
                rank_zero_info(f"{command}: all {len(ledger.items)} images are finished in {folder}, nothing to do.")
                return
            self.trainer.callbacks.append(FilesBookkeeping(ledger, datamodule))  # type: ignore[attr-defined]
            getattr(self.trainer, command)(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)


def _check_checkpoint(path: Path, resumed: bool) -> None:
    """Open it once: Lightning answers a damaged one with a traceback."""
    try:
        content = load_torch(path, mmap=True)
    except InputError as error:
        raise InputError(f"cannot read the checkpoint {path}: {error}.") from error
    states = content.get("optimizer_states", []) if isinstance(content, dict) else None
    whole = isinstance(states, list) and all(isinstance(o, dict) and isinstance(o.get("state"), dict) for o in states)
    if not whole or not all(isinstance(content.get(part, {}), dict) for part in ("state_dict", "callbacks", "loops")):
        raise InputError(f"{path} is no checkpoint, or a damaged one; expected a file that `ssdd fit` wrote.")
    if "state_dict" not in content:
        raise InputError(f"{path} is no checkpoint; expected a file that `ssdd fit` or `ssdd convert-weights` wrote.")
    if resumed and "optimizer_states" not in content:
        raise InputError(
            f"{path} holds weights, but no training to go on with; give it as backbone_weights of the model."
        )


def _rank() -> int:
    """Number of this process, known before the processes know each other."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


def _last_checkpoint(config: Namespace) -> str:
    """The checkpoint that the run of these options left."""
    path = Path(config.checkpoint.dirpath or _checkpoint_folder(config.trainer.default_root_dir)) / "last.ckpt"
    if not path.is_file():
        raise InputError(
            f"expected the checkpoint of a trained stage, found none at {path}; run `ssdd fit` first, or name one with "
            "--ckpt_path."
        )
    rank_zero_info(f"The checkpoint of this run is {path}; another one is named by --ckpt_path.")
    return str(path)


def _checkpoint_folder(root: str | Path | None) -> str:
    return str(Path(root or ".") / "checkpoints")


def run_stage(args: Sequence[str], data: type[WeakDataModule] | None = None) -> SSDDCommandLine:
    """Run `fit`, `validate`, `test` or `predict`.

    Args:
        args: the subcommand and its options.
        data: class of the data module, whose arguments are the options of `data`; None goes by `--dataset`, or the
            `dataset` of a YAML file, or else takes VOC's.

    Returns:
        The command line object, with the trainer and the model that ran.
    """
    return _command_line(args, data, run=True)


def build_stage(args: Sequence[str], data: type[WeakDataModule] | None = None) -> SSDDCommandLine:
    """Build model, data and trainer in silence and run nothing: mistakes that their constructors see come to light.

    Args:
        args: options of `fit`, without the subcommand.
        data: as for `run_stage`.
    """
    logging.disable(logging.INFO)  # what the trainer says of the machine will be said by the run itself
    try:
        return _command_line(args, data, run=False)
    finally:
        logging.disable(logging.NOTSET)


def _command_line(args: Sequence[str], data: type[WeakDataModule] | None, run: bool) -> SSDDCommandLine:
    torch.set_float32_matmul_precision("high")
    check_config_files(args)
    # abbreviations: a misspelt option that begins like another one would pass for it
    strict = {"allow_abbrev": False, "exit_on_error": False}
    interruption = Interruption()
    with warnings.catch_warnings():
        # Lightning calls three functions of jsonargparse that newer versions announce to drop. So does SaveRunConfig:
        # without `skip_none` nulls would not be written, and the new name of it came with jsonargparse 4.49.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="pytorch_lightning.cli")
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=r"\s*skip_none parameter")
        # torchmetrics: such classes have no weight in the classifier's average precision
        warnings.filterwarnings("ignore", message="No positive samples found in target")
        warnings.filterwarnings("ignore", message=".*LeafSpec", module="pytorch_lightning.utilities._pytree")
        try:
            return SSDDCommandLine(
                Stage,
                data or data_module_class(chosen_dataset(args)),
                subclass_mode_model=True,
                save_config_callback=SaveRunConfig,
                auto_configure_optimizers=False,
                trainer_defaults={"callbacks": [interruption]},
                seed_everything_default=0,
                parser_kwargs={**strict, **{name: dict(strict) for name in SSDDCommandLine.subcommands()}},
                args=list(args),
                run=run,
            )
        except RuntimeError as error:  # torch's, of loader workers that the same signal ended
            if interruption.signum is None:
                raise
            raise Interrupted(interruption.signum) from error
