"""A whole run as one product: whether anything may have changed, asked before torch builds a single network."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ssdd_lightning.pipeline.steps import Step
from ssdd_lightning.storage.fingerprints import digest_of, fingerprint
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.score_maps import SUFFIX


def run_ledger(
    folder: Path, steps: Iterable[Step], photos: Mapping[str, tuple[Path, ...]], inputs: Iterable[Path], results: Path
) -> Ledger:
    """The ledger of a run: all of its images, and everything that its steps wrote for each.

    It says that nothing is left to do, or that something may be. What that is, the ledgers of the steps know.

    Args:
        folder: Where the entry lies.
        steps: All steps.
        photos: Name of each image -> its photo, annotation and ground truth.
        inputs: Files that concern all images: labels, lists, weights.
        results: What the run writes at its end.
    """
    steps = list(steps)
    written = _files_by_image(step.folder for step in steps)
    items = {name: Item(tuple(files), tuple(written.get(name, ()))) for name, files in photos.items()}
    entries = [step.entry for step in steps if step.entry.is_file()]
    checkpoints = [path for step in steps for path in sorted(step.folder.glob("checkpoints/last.ckpt"))]
    items["the steps of the run"] = Item(tuple(entries), (*checkpoints, results))
    settings = {f"{step.command} {step.name}": step.settings() for step in steps}
    found = {str(path): fingerprint(path) for path in inputs if path.is_file()}
    return Ledger(folder, "run", Recipe(settings, {**found, "the images": digest_of(photos)}), items)


def _files_by_image(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Masks, score maps and difference maps in folders and the folders right below, by the image's name."""
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        for path in sorted((*folder.glob("*.png"), *folder.glob("d_*/*.png"))):
            found.setdefault(path.name.removesuffix(SUFFIX).removesuffix(".png"), []).append(path)
    return found


def weights_of(steps: Iterable[Step]) -> list[Path]:
    """Files of weights that the settings of steps name."""
    named: list[Any] = []
    for step in steps:
        arguments = step.settings().get("model", {}).get("init_args", {})
        named += [arguments.get("backbone_weights"), arguments.get("static_checkpoint")]
    return [Path(value) for value in dict.fromkeys(named) if isinstance(value, str)]
