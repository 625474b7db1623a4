"""`ssdd package`: a trained network as a file for other programs."""

import argparse

from ssdd_lightning.cli.options import CLASSES, add_modules, add_options

FORMS = {"onnx": "model.onnx", "pt2": "model.pt2", "safetensors": "model"}
"""Form -> name of what is written, unless another is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ssdd package`."""
    options = {
        "checkpoint FILE": "checkpoint of the baseline, static or dynamic stage",
        "--to FORM": "onnx (for onnxruntime and others), pt2 (torch.export), safetensors (a folder with a model card)",
        "--out FILE|DIR": "what to write (default: model.onnx, model.pt2 or model beside the checkpoint)",
        "--license NAME": "licence of the weights in the model card, by the hub's name, such as apache-2.0",
        CLASSES: "file of class names, or their number, for checkpoints that do not store their classes",
    }
    add_options(parser, options, ("to",), {"to": sorted(FORMS)}, license="unknown")
    add_modules(parser)


def run(args: argparse.Namespace) -> int:
    """Write the network, compare it with the original and print the largest difference.

    Returns:
        The exit status, 0.

    Raises:
        InputError: The checkpoint or an option is wrong, or a package is not installed.
    """
    import torch

    from ssdd_lightning.folders.package import card_values, package
    from ssdd_lightning.folders.segment_checkpoint import load_stage

    stage, classes = load_stage(args.checkpoint, torch.device("cpu"), args.classes, args.modules)
    out = args.out or args.checkpoint.parent / FORMS[args.to]
    card = card_values(args.checkpoint, args.license) if args.to == "safetensors" else {}
    difference = package(stage, classes, args.to, out, card)
    what = "logits" if args.to == "safetensors" else "probabilities"
    print(f"{out} is written; on a random image of another size its {what} differ by at most {difference:.2g}.")
    return 0
