"""`ssdd completion`: a script that lets a shell complete commands, options and file names."""

import argparse
import importlib

import shtab

from ssdd_lightning.pipeline.experiments import packaged_experiments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd completion`."""
    parser.add_argument("shell", choices=shtab.SUPPORTED_SHELLS, help="the shell to write the script for")


def run(args: argparse.Namespace) -> int:
    """Print the script.

    Returns:
        The exit status, 0.
    """
    print(shtab.complete(whole_parser(), args.shell))
    return 0


def whole_parser() -> argparse.ArgumentParser:
    """Every command in one parser; of the stages' options those that do not depend on the stage."""
    from ssdd_lightning.cli.main import FILE_COMMANDS, STAGE_COMMANDS

    whole = argparse.ArgumentParser(prog="ssdd")
    commands = whole.add_subparsers()
    for name, (module, text) in FILE_COMMANDS.items():
        importlib.import_module(module).add_arguments(commands.add_parser(name, help=text))
    stages = [f"{name}/{stage}" for name in packaged_experiments() for stage in ("classification", "static", "dynamic")]
    for name, text in STAGE_COMMANDS.items():
        stage = commands.add_parser(name, help=text)
        stage.add_argument("--config", choices=stages, help="YAML of the stage")
        stage.add_argument("--ckpt_path", help="checkpoint").complete = shtab.FILE  # type: ignore[attr-defined]
        for option in ("--data.root", "--trainer.default_root_dir", "--output.output_dir"):
            stage.add_argument(option, help="folder").complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        for option in ("--trainer.max_epochs", "--trainer.devices", "--trainer.precision", "--trainer.logger"):
            stage.add_argument(option)
    return whole
