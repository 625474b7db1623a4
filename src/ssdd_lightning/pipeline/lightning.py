"""LightningCLI for the stages, with its pitfalls handled."""

import logging
import re
import sys
import traceback
from argparse import ArgumentError
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import _typehints
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only

from ssdd_lightning.callbacks import Interruption, PredictionWriter
from ssdd_lightning.callbacks.bookkeeping import FilesBookkeeping, FitBookkeeping, files_ledger, fit_recipe
from ssdd_lightning.callbacks.checkpoint import LAST, RunCheckpoint, before, put_back, whole_checkpoint
from ssdd_lightning.callbacks.lines import EpochLines
from ssdd_lightning.callbacks.wandb_run import RememberRun, go_on, own_run, settle
from ssdd_lightning.callbacks.watch import Watch
from ssdd_lightning.data.choice import OPTION, data_module_class, dataset_name
from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.errors import InputError, Interrupted, end_of_worker
from ssdd_lightning.nn.cpu import bfloat16_slowdown
from ssdd_lightning.pipeline.config import (
    StageConfig,
    checkpoint_folder,
    chosen_dataset,
    find_checkpoint,
    with_contents,
)
from ssdd_lightning.pipeline.config_errors import config_sentence
from ssdd_lightning.pipeline.provenance import told_config
from ssdd_lightning.pipeline.quiet import quiet
from ssdd_lightning.pipeline.resuming import check_checkpoint, restoring, resuming
from ssdd_lightning.pipeline.status import LiveStream
from ssdd_lightning.renamed import checkpoint_with_new_names, words_with_new_names
from ssdd_lightning.stages import Stage
from ssdd_lightning.stages.base import describe_checkpoint
from ssdd_lightning.stages.bounded import bounded_by
from ssdd_lightning.stages.loss_guard import allowed_skips
from ssdd_lightning.stages.trusted import is_known, names_in, only_trusted
from ssdd_lightning.storage.decoding import decoding, reason
from ssdd_lightning.storage.ledger import Ledger
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.safe_torch import load_torch

ON_NAN = "what a fit does at a loss that is NaN, infinite or diverged: stop, or skip:N to leave out up to N steps"
_NOT_BUILT = re.compile(r"Problem with given class_path '([^']+)':\s*(.+)")
"""What jsonargparse says of a class whose constructor fails, such as a logger whose package is not installed."""


MIXED = {"bf16-mixed": "bf16-mixed", "bf16": "bf16-mixed", "16-mixed": "16-mixed", "16": "16-mixed"}
"""Spellings of the mixed precisions, both of which are bfloat16 on a processor."""
SINGLE = "32-true"
EMULATED = 2.0
"""A processor that takes so many times longer in bfloat16 emulates it (6 to 9 times were measured). One that has
instructions for it takes 0.6 to 0.9 times as long, somewhat more beside other work, which must not decide."""


class SaveRunConfig(SaveConfigCallback):
    """Writes the configuration of a fit into the run's own folder and passes it to the logger.

    Lightning's own callback writes `./config.yaml` if there is no log folder, shares one file among all W&B runs, and
    lets a later `test` overwrite it.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save once, at the start of a fit."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)  # a broadcast: every process must call it
        if isinstance(trainer.logger, WandbLogger):
            folder = Path(trainer.default_root_dir)  # its own may be of all stages
        if stage != "fit" or not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "config.yaml"
        self.parser.save(self.config, path, skip_none=False, overwrite=True, multifile=False)
        config = yaml.safe_load(path.read_text())  # `self.config` holds objects of the parser too
        data = trainer.datamodule  # type: ignore[attr-defined]
        for logger in trainer.loggers:
            logger.log_hyperparams(told_config(config, type(pl_module).__name__, data))


class SSDDCommandLine(LightningCLI):
    """Command line for any stage; the number of classes comes from the data."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link the number of classes, and add the callbacks of every run, which write to `trainer.default_root_dir`.

        The checkpoint kept is that of the last epoch: choosing the best one would need ground truth masks.
        """
        help_text = "dataset: voc, coco, or folder for your own photos; decides the options of data"
        parser.add_argument(OPTION, type=str | None, default=dataset_name(self.datamodule_class), help=help_text)
        parser.add_argument("--on_nan", type=str, default="stop", help=ON_NAN)
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
        parser.link_arguments("trainer.default_root_dir", "checkpoint.dirpath", compute_fn=checkpoint_folder)

    keep = False
    """Whether what there is counts as finished, although what it was made from changed."""
    steps = 0
    """Steps of the fit that left the checkpoint."""
    bounds: AbstractContextManager[None] = nullcontext()
    """How large a network may be built."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:  # noqa: ANN401
        """Parse words or take values; Lightning's version also warns if the process has arguments of its own."""
        try:
            if isinstance(args, StageCall):
                self.keep = args.keep
                self.config = parser.parse_object(args.values())
            else:
                self.config = parser.parse_args(with_contents(words_with_new_names(args)))
        except ArgumentError as error:
            words = self._words_of(args)
            raise InputError(config_sentence(str(error), words, self._option_names(words))) from None
        subcommand = self.config.get("subcommand")
        seed = (self.config[subcommand] if subcommand else self.config).get("seed_everything")
        if type(seed) is int and not 0 <= seed < 1 << 32:
            raise InputError(f"seed_everything: expected 0 to {(1 << 32) - 1}, found {seed}.")
        checkpoint = self.config[subcommand].get("ckpt_path") if subcommand else None
        if subcommand:
            config = self.config[subcommand]
            folder, root = config.checkpoint.dirpath, config.trainer.default_root_dir
            checkpoint = config.ckpt_path = find_checkpoint(subcommand, checkpoint, folder, root)
        if checkpoint is not None:
            content = check_checkpoint(Path(checkpoint), resumed=subcommand == "fit")
            with decoding(f"the checkpoint {checkpoint}", "expected a file that `ssdd fit` wrote"):
                rank_zero_info(describe_checkpoint(Path(checkpoint), content))
                self.steps = int(content.get("global_step", 0))

    def _parse_ckpt_path(self) -> None:
        """Take over the hyper-parameters of a checkpoint, which may name only what is trusted or in the YAML.

        How a network is used (`Stage.only_used`) is as words and YAML files say, or by default.

        Raises:
            InputError: They name something else, or do not fit the stage.
        """
        config: Any = self.config.get(self.config.get("subcommand") or "") or {}
        path = config.get("ckpt_path")
        if path is None:
            return
        content = checkpoint_with_new_names(load_torch(Path(path), mmap=True))
        given = content.get("hyper_parameters")
        if not given:
            return
        asked = config.model.clone()
        hyper_parameters = {name: value for name, value in given.items() if name != "_instantiator"}
        named = {text for _, text in names_in(config.as_dict())}
        own = [text for key, text in names_in(given) if key == "class_path" and text in named and not is_known(text)]
        if not own:  # a network of one's own may leave frozen parts out of its checkpoints
            self.bounds = bounded_by(content.get("state_dict"), f"the checkpoint {path}")
        with only_trusted(given, f"the checkpoint {path}", named):
            try:
                stage = hyper_parameters.pop("_class_path")
                model = {"class_path": stage, "dict_kwargs": hyper_parameters}
                self.config = self.parser.parse_object({self.config["subcommand"]: {"model": model}}, self.config)
            except (ArgumentError, TypeError, ValueError, LookupError, AttributeError) as error:
                raise InputError(
                    f"the hyper-parameters of {path} fit no stage here ({reason(error)}); use the version that wrote "
                    "it, or train again."
                ) from error
            built = self.config[self.config["subcommand"]].model
            for option in getattr(_typehints.import_object(built.class_path), "only_used", ()):
                key = f"init_args.{option}"
                if key in asked and key in built:
                    built[key] = asked[key]

    def _words_of(self, args: Any) -> list[str]:  # noqa: ANN401
        """The subcommand and its options, as on a command line."""
        words = args.words() if isinstance(args, StageCall) else list(args)
        return words if words[0] in self.subcommands() else ["fit", *words]

    def _option_names(self, args: Sequence[str]) -> list[str]:
        """Dotted names of a subcommand's options."""
        parser = getattr(self, "_subcommand_parsers", {}).get(args[0], self.parser)
        return [action.dest for action in parser._actions if action.option_strings]

    def instantiate_classes(self) -> None:
        """Build data, model and trainer; an InputError of a constructor is freed from jsonargparse's wrapping.

        Raises:
            InputError: A constructor's own, or the trainer asks for a device or a package that is not here.
        """
        try:
            with self.bounds:
                super().instantiate_classes()
        except (MisconfigurationException, ModuleNotFoundError) as error:
            raise InputError(_trainer_sentence(error)) from error
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, InputError):
                cause = cause.__cause__
            told = _NOT_BUILT.search(str(error))
            if cause is None and told:
                raise InputError(f"{told[1]} cannot be built: {told[2].strip().rstrip('.')}.") from error
            raise cause or _not_built(error) from error
        except TypeError as error:
            raise _not_built(error) from error
        config = self.config[self.subcommand] if self.subcommand else self.config
        allowed_skips(config["on_nan"])
        self.model.loss_guard.on_nan = config["on_nan"]
        self.model._log_hyperparams = False  # `SaveRunConfig` logs them, each once
        for logger in self._wandb_loggers():
            settle(logger, Path(self.trainer.default_root_dir), type(self.model).__name__)

    def instantiate_trainer(self, **options: Any) -> Trainer:  # noqa: ANN401
        """Build the trainer, on a processor without instructions for bfloat16 in single precision."""
        config = self._get(self.config_init, "trainer")
        on_cpu = config.accelerator == "cpu" or (config.accelerator == "auto" and not _accelerated())
        mixed = MIXED.get(str(config.precision))
        if mixed and on_cpu and (times := bfloat16_slowdown()) > EMULATED:
            rank_zero_info(
                f"{mixed} is {times:.1f} times slower than {SINGLE} on this processor, so {SINGLE} is used instead."
            )
            options["precision"] = SINGLE
        return super().instantiate_trainer(**options)

    def _wandb_loggers(self) -> list[WandbLogger]:
        return [logger for logger in self.trainer.loggers if isinstance(logger, WandbLogger)]

    def _go_on_logging(self, checkpoint: str | Path | None) -> None:
        """Log into the run of the fit that left a checkpoint in this folder, after its last step."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.steps
        root = Path(self.trainer.default_root_dir)
        if checkpoint is None or not Path(checkpoint).resolve().is_relative_to(root.resolve()):
            return
        for logger in self._wandb_loggers():
            go_on(logger, root)

    def before_validate(self) -> None:
        """Log the scores of a fit's checkpoint into its run."""
        self._go_on_logging(self.config["validate"].ckpt_path)

    def before_instantiate_classes(self) -> None:
        """Show tqdm's bar on a terminal, as all other commands do, and a line an epoch elsewhere.

        A bar of the user's choice, or none, stays. Lightning takes rich's wherever rich is installed. Below the live
        table of a run there is room for one line.
        """
        config = self.config[self.subcommand] if self.subcommand else self.config
        given = config.trainer.get("callbacks") or []
        chosen = [str(entry.get("class_path", "")) for entry in (given if isinstance(given, list) else [given])]
        wanted = config.trainer.get("enable_progress_bar")
        if wanted is not False and not any("ProgressBar" in c for c in chosen):
            live = isinstance(sys.stderr, LiveStream)
            bar = not live and bool(wanted or sys.stderr.isatty())
            config.trainer["enable_progress_bar"] = bar
            shown = TQDMProgressBar() if bar else EpochLines(each_batch=live)
            self.trainer_defaults["callbacks"] = [*self.trainer_defaults["callbacks"], shown]
        if self.subcommand == "predict":
            config.trainer.logger = False  # it has nothing to log

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Name the subcommands, and their arguments that are not options."""
        hidden = LightningCLI.subcommands()
        return {**hidden, "predict": hidden["predict"] | {"return_predictions"}}

    def fit(self, model: Stage, datamodule: WeakDataModule, ckpt_path: str | None = None, **options: Any) -> None:  # noqa: ANN401
        """Run `fit` unless it is finished; an interrupted one continues from its last checkpoint.

        Args:
            model: The stage.
            datamodule: Its data.
            ckpt_path: A checkpoint to continue from, whatever made it; None lets the ledger decide.
            **options: Further arguments of `Trainer.fit`.
        """
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)
            return
        root = Path(self.trainer.default_root_dir)
        with locked(root, _rank()):
            ledger = self.ledger("fit")
            folder = self.trainer.checkpoint_callback.dirpath  # type: ignore[union-attr]
            last = Path(folder or root / "checkpoints") / f"{LAST}.ckpt"
            if self.keep and last.is_file() and ledger.earlier is not None:
                if not ledger.earlier["finished"]:
                    raise InputError(f"--keep: the fit in {root} is not finished, so there is nothing to keep yet.")
                ledger.accept()
            found = whole_checkpoint(last) if ckpt_path is None and ledger.begun else None
            if ledger.finished and found == last:
                rank_zero_info(f"fit: {root} is finished, nothing to do.")
                return
            if found is not None:
                check_checkpoint(found, resumed=True)
                ckpt_path = str(found)
                rank_zero_info(f"fit: continuing from {found}.")
                if found != last and _rank() == 0:
                    ckpt_path = str(put_back(last))
            goes_on = ckpt_path is not None and Path(ckpt_path).resolve() in (last.resolve(), before(last).resolve())
            self._go_on_logging(last if goes_on else None)
            self.trainer.callbacks.append(FitBookkeeping(ledger, last, goes_on))  # type: ignore[attr-defined]
            with nullcontext() if ckpt_path is None else resuming(self.trainer, Path(ckpt_path)):
                self.trainer.fit(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)
            if goes_on and self.trainer.state.finished and not ledger.finished:
                ledger.close({"epochs": self.trainer.current_epoch, "steps": self.trainer.global_step})

    def test(self, **arguments: Any) -> None:  # noqa: ANN401
        """Run `test` on the images that are not finished."""
        self._write_files("test", **arguments)

    def predict(self, **arguments: Any) -> None:  # noqa: ANN401
        """Run `predict` on the images that are not finished; results go to disk and are not kept in memory."""
        self._write_files("predict", return_predictions=False, **arguments)

    def _write_files(
        self,
        command: Literal["test", "predict"],
        model: Stage,
        datamodule: WeakDataModule,
        ckpt_path: str,
        **options: Any,  # noqa: ANN401
    ) -> None:
        with locked(self._output_folder(command), _rank()):
            ledger = self.ledger(command, Path(ckpt_path))
            if self.keep:
                ledger.accept()
            if ledger.finished:
                found = f"all {len(ledger.items)} images are finished in {ledger.folder}"
                rank_zero_info(f"{command}: {found}, nothing to do.")
                return
            self.trainer.callbacks.append(FilesBookkeeping(ledger, datamodule))  # type: ignore[attr-defined]
            self._go_on_logging(ckpt_path)
            getattr(self.trainer, command)(model, datamodule=datamodule, ckpt_path=ckpt_path, **options)

    def ledger(self, command: Literal["fit", "test", "predict"], checkpoint: Path | None = None) -> Ledger:
        """The ledger of a command with these objects.

        Args:
            command: fit, test or predict.
            checkpoint: Where the weights of `test` and `predict` come from.
        """
        self.datamodule.setup(command)
        if command == "fit":
            parser = self._parser("fit") if self.subcommand else self.parser
            config = yaml.safe_load(
                parser.dump(self.config["fit"] if self.subcommand else self.config, skip_none=False)
            )
            recipe = fit_recipe(config, self.datamodule.datasets["train"].records, self.model.only_used)
            return Ledger(Path(self.trainer.default_root_dir), "fit", recipe, rank=_rank())
        folder = self._output_folder(command)
        asked = (self.config[self.subcommand] if self.subcommand else self.config).trainer.precision
        # what was asked for, whatever this processor does: a run may move
        precision = MIXED.get(str(asked), self.trainer.precision)
        return files_ledger(self.model, self.datamodule, command, folder, checkpoint, precision, _rank())  # type: ignore[arg-type]

    def _output_folder(self, command: str) -> Path:
        writer = next(c for c in self.trainer.callbacks if isinstance(c, PredictionWriter))  # type: ignore[attr-defined]
        return writer.folder_of(self.trainer, command)


def _accelerated() -> bool:
    """Whether the trainer finds something faster than the CPU by itself."""
    return torch.cuda.is_available() or torch.backends.mps.is_available()


def _trainer_sentence(error: Exception) -> str:
    return f"the trainer cannot be built: {reason(error)}; change its options, or install it."


def _not_built(error: Exception) -> Exception:
    """The error as a sentence if Lightning itself raised it, of its options; others are defects and stay."""
    frames = list(traceback.walk_tb(error.__traceback__))
    module = str(frames[-1][0].f_globals.get("__name__")) if frames else ""
    ours = not module.startswith(("pytorch_lightning.", "lightning_fabric."))
    return error if ours else InputError(_trainer_sentence(error))


def _rank() -> int:
    """Rank of this process, known before the process group exists."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


@dataclass(frozen=True)
class StageCall:
    """A stage command, given as values instead of command-line words.

    Args:
        command: fit, validate, test or predict; None builds the objects of a fit and runs nothing.
        config: YAML files and settings.
        keep: Accept the product as it is, even if its inputs changed.
    """

    command: str | None
    config: StageConfig
    keep: bool = False

    def values(self) -> dict[str, Any]:
        """The values in the form that the parser takes."""
        content = self.config.content()
        return content if self.command is None else {"subcommand": self.command, self.command: content}

    def words(self) -> list[str]:
        """The same as command-line words, for messages."""
        return [self.command or "fit", *self.config.words()]


def run_command(words: Sequence[str]) -> SSDDCommandLine:
    """Run `fit`, `validate`, `test` or `predict` as the command line does.

    Args:
        words: The subcommand and its options.

    Returns:
        The command line object, with the trainer and the model that ran.
    """
    return _command_line(list(words), data_module_class(chosen_dataset(words)), run=True)


def run_stage(command: str, config: StageConfig, keep: bool = False) -> SSDDCommandLine:
    """Run `fit`, `validate`, `test` or `predict` of a stage.

    Args:
        command: Which of them.
        config: YAML files and settings.
        keep: Accept the product as it is, even if its inputs changed.

    Returns:
        As `run_command`.
    """
    return _command_line(StageCall(command, config, keep), _data_of(config), run=True)


def build_stage(config: StageConfig) -> SSDDCommandLine:
    """Build model, data and trainer without output and run nothing, so that their constructors find mistakes early.

    Args:
        config: YAML files and settings of a fit.
    """
    logging.disable(logging.INFO)  # the run itself will say what the trainer says of the machine
    try:
        return _command_line(StageCall(None, config), _data_of(config), run=False)
    finally:
        logging.disable(logging.NOTSET)


def stage_ledger(command: Literal["fit", "test", "predict"], config: StageConfig) -> Ledger:
    """The ledger of a stage's command; nothing is run.

    Args:
        command: Which one.
        config: YAML files and settings.
    """
    line = build_stage(config)
    root = line.trainer.default_root_dir
    return line.ledger(command, None if command == "fit" else Path(checkpoint_folder(root)) / f"{LAST}.ckpt")


def _data_of(config: StageConfig) -> type[WeakDataModule]:
    return data_module_class(str(config.content().get(OPTION.lstrip("-")) or "voc"))


def _command_line(args: list[str] | StageCall, data: type[WeakDataModule], run: bool) -> SSDDCommandLine:
    torch.set_float32_matmul_precision("high")
    # no abbreviations: a misspelt option could pass for another one
    strict = {"allow_abbrev": False, "exit_on_error": False}
    interruption = Interruption()
    with quiet(), own_run(), restoring():
        try:
            return SSDDCommandLine(
                Stage,
                data,
                subclass_mode_model=True,
                save_config_callback=SaveRunConfig,
                auto_configure_optimizers=False,
                trainer_defaults={"callbacks": [interruption, Watch(), RememberRun()]},
                seed_everything_default=0,
                parser_kwargs={**strict, **{name: dict(strict) for name in SSDDCommandLine.subcommands()}},
                args=args,
                run=run,
            )
        except Exception as error:
            ended_by = end_of_worker(error)
            if interruption.signum is not None and (ended_by is not None or isinstance(error, RuntimeError)):
                raise Interrupted(interruption.signum) from error  # the same signal ended torch's loader workers
            if ended_by is not None:
                raise InputError(
                    f"a loader process ended ({ended_by}): memory or /dev/shm was short, or somebody killed it. "
                    "Run the same command again to continue, with fewer of them if it happens again "
                    "(--data.num_workers)."
                ) from error
            if isinstance(error, MisconfigurationException):  # found late, such as limits of batches
                raise InputError(_trainer_sentence(error)) from error
            raise
