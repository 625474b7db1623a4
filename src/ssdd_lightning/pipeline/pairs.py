"""Which images of two folders of masks can be refined: those with a photo, knowledge, advice and labels."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.labels import Labels
from ssdd_lightning.errors import InputError, check_folder, listed
from ssdd_lightning.evaluation.folder import read_prediction
from ssdd_lightning.storage.listing import predicted_names
from ssdd_lightning.storage.threads import with_bar


def guide_names(folder: Path, what: str) -> set[str]:
    """Names of all images with a mask or maps in a folder.

    Args:
        folder: The folder.
        what: `knowledge` or `advice`, for the message.

    Raises:
        InputError: The folder does not exist or holds none.
    """
    check_folder(folder, f"{what} folder")
    return set(predicted_names(folder))


def complete_names(parts: Mapping[str, Collection[str]], guides: Sequence[str], skip_missing: bool) -> list[str]:
    """Find the images that have every part.

    Args:
        parts: What an image needs ("image", "knowledge", ...) -> names that have it.
        guides: Parts that decide which images count; images in none of them are dropped silently.
        skip_missing: Continue with the complete images; otherwise anything missing is an error.

    Returns:
        The complete names, sorted.

    Raises:
        InputError: Something is missing, counted by part with the first few names.
    """
    names = sorted(set().union(*(parts[part] for part in guides)))
    lacking = {part: [name for name in names if name not in having] for part, having in parts.items()}
    incomplete = set().union(*lacking.values())
    complete = [name for name in names if name not in incomplete]
    if not incomplete:
        return complete
    said = "; ".join(f"{len(some)} without {part} ({listed(some)})" for part, some in lacking.items() if some)
    text = f"{len(incomplete)} of {len(names)} images are incomplete: {said}"
    if not complete:
        raise InputError(f"{text}; none is left; check that the folders belong together and use the same file names.")
    if not skip_missing:
        raise InputError(f"{text}; complete the folders, or leave these images out with `--skip-missing`.")
    print(f"{text}; continuing with the other {len(complete)}.")
    return complete


def shown_labels(folder: Path, names: Sequence[str], progress: bool = True) -> dict[str, Labels]:
    """Take the foreground classes in an image's mask, or in the arg max of its score maps, as its labels.

    Args:
        folder: Folder of masks or maps.
        names: Images.
        progress: Whether to show a bar.
    """

    def shown(name: str) -> Labels:
        values = np.unique(read_prediction(folder, name)).tolist()
        return tuple(value for value in values if value not in (0, IGNORE))

    return dict(zip(names, with_bar(shown, names, "classes shown", progress=progress), strict=True))
