"""A whole run as one product, so that a finished run is recognised before any network is built."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ssdd_lightning.constants import WEIGHT_OPTIONS
from ssdd_lightning.data.splits import Splits
from ssdd_lightning.pipeline.photos import Photos
from ssdd_lightning.pipeline.steps import Step
from ssdd_lightning.storage.fingerprints import digest_of, fingerprints
from ssdd_lightning.storage.ledger import WRITTEN, Item, Ledger, Recipe
from ssdd_lightning.storage.score_maps import SUFFIX

GUIDES = ("knowledge", "advice", "maps")
PHASES = tuple(field.name for field in fields(Splits))


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


def sources_of(steps: Iterable[Step], photos: Photos) -> list[Path]:
    """Every file that the stages of a run read and that none of them makes, by their own settings.

    Args:
        steps: All steps.
        photos: What they work on.
    """
    steps = list(steps)
    made = {step.folder / "checkpoints" for step in steps}
    folders = {step.folder for step in steps}
    found: list[Path] = []
    seen: set[tuple[str, ...]] = set()
    for step in steps:
        content = step.settings()
        data, arguments = content.get("data") or {}, (content.get("model") or {}).get("init_args") or {}
        named = [data.get("labels"), *map(arguments.get, WEIGHT_OPTIONS)]
        paths = [Path(value) for value in named if isinstance(value, str)]
        found += [path for path in paths if path.parent not in made]
        given = {Path(data[guide]) for guide in GUIDES if data.get(guide)} - folders
        found += [path for folder in sorted(given) for path in sorted(folder.glob("*.png"))]
        for split in [photos.split(data, phase) for phase in PHASES] if "data" in content else []:
            key = (split, str(data.get("truth")), str(data.get("class_names")))
            found += photos.files(data, split) if key not in seen else []
            seen.add(key)
    return list(dict.fromkeys(found))


def _files_by_image(folders: Iterable[Path]) -> dict[str, list[Path]]:
    """Masks, score maps and difference maps in folders and their direct subfolders, by image name."""
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(folders):
        for path in sorted((*folder.glob("*.png"), *folder.glob("d_*/*.png")), key=str):
            found.setdefault(path.name.removesuffix(SUFFIX).removesuffix(".png"), []).append(path)
    return found
