"""A whole run as one product, so that a finished run is recognised before any network is built."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from ssdd_lightning.data.splits import Splits, find_list, read_list
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.steps import Step
from ssdd_lightning.storage.fingerprints import digest_of, fingerprints
from ssdd_lightning.storage.ledger import WRITTEN, Item, Ledger, Recipe
from ssdd_lightning.storage.score_maps import SUFFIX


def run_ledger(folder: Path, steps: Iterable[Step], settings: Mapping[str, Any], sources: Sequence[Path]) -> Ledger:
    """The ledger of a run: everything it reads, and everything that its steps wrote.

    It tells whether something may be left to do. The ledgers of the steps tell what.

    Args:
        folder: Where the entry lies, with `results.json` and `pictures`.
        steps: All steps.
        settings: What decides the run besides the settings of its steps.
        sources: Every file that it reads: photos, labels, ground truth, lists, weights.
    """
    steps = list(steps)
    there = [path for path in dict.fromkeys(sources) if path.is_file()]
    inputs = {
        "the names of its files": digest_of(str(path) for path in there),
        "its files": digest_of(fingerprints(there)),
    }
    chosen = {**settings, **{f"{step.command} {step.name}": step.settings() for step in steps}}
    written = _files_by_image(step.folder for step in steps)
    items = {name: Item((), tuple(files)) for name, files in written.items()}
    entries = [step.entry for step in steps]
    checkpoints = [step.folder / "checkpoints" / "last.ckpt" for step in steps if step.command == "fit"]
    pictures = sorted((folder / "pictures").glob("*.png"))
    items["the steps of the run"] = Item((), (*entries, *checkpoints, folder / "results.json", *pictures))
    inputs[WRITTEN] = digest_of(written)
    return Ledger(folder, "run", Recipe(chosen, inputs), items)


def sources_of(steps: Iterable[Step], devkit: Path, own_splits: tuple[str, str]) -> list[Path]:
    """Every file that the stages of a run read and that none of them makes, by their own settings.

    Args:
        steps: All steps.
        devkit: Where the photos lie.
        own_splits: The dataset's own splits, see `DEVKITS`.
    """
    steps = list(steps)
    made = {step.folder / "checkpoints" for step in steps}
    found = [devkit / "labels.json"]  # of datasets that bring their labels so
    splits: dict[tuple[object, str], None] = {}
    for step in steps:
        content = step.settings()
        data, arguments = content.get("data") or {}, (content.get("model") or {}).get("init_args") or {}
        named = [data.get("labels"), arguments.get("backbone_weights"), arguments.get("static_checkpoint")]
        paths = [Path(value) for value in named if isinstance(value, str)]
        found += [path for path in paths if path.parent not in made]
        if "data" in content:
            own = Splits(**(data.get("splits") or {})).or_else(*own_splits)
            splits |= dict.fromkeys((split, str(data.get("truth"))) for split in astuple(own))
    for split, truth in splits:
        found += photos_of([split], devkit, truth)
    return list(dict.fromkeys(found))


def photos_of(splits: Iterable[object], devkit: Path, truth: str) -> list[Path]:
    """Lists of splits, and the photo, annotation and ground truth of every image in them, as far as they are there."""
    found: list[Path] = []
    for split in splits:
        try:
            path = find_list(str(split), devkit / "ImageSets" / "Segmentation")
            names = read_list(path)
        except InputError:
            continue  # whoever needs it says so
        found.append(path)
        for name in names:
            found += [devkit / "JPEGImages" / f"{name}.jpg", devkit / "Annotations" / f"{name}.xml"]
            found.append(devkit / truth / f"{name}.png")
    return found


def _files_by_image(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Masks, score maps and difference maps in folders and their direct subfolders, by image name."""
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        for path in sorted((*folder.glob("*.png"), *folder.glob("d_*/*.png")), key=str):
            found.setdefault(path.name.removesuffix(SUFFIX).removesuffix(".png"), []).append(path)
    return found
