"""Two folders of masks and a folder of difference maps become a folder of merged masks (Eq. 3, 4 and 17)."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssdd_lightning.constants import IGNORE
from ssdd_lightning.data.dataset import check_exist
from ssdd_lightning.errors import InputError, check_folder
from ssdd_lightning.evaluation.folder import prediction_path, read_prediction
from ssdd_lightning.functional.refinement import MergeBiases, ssdd_merge
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe, asked_for
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import mask_path
from ssdd_lightning.storage.team import ALONE, Team


class MergeInput(NamedTuple):
    """What the merge of one image needs; masks by the dataset's own class indices.

    Attributes:
        knowledge: 1 x H x W long, 255 = ignore.
        advice: 1 x H x W long, 255 = ignore.
        d_knowledge: 1 x H x W float in [0, 1].
        d_advice: 1 x H x W float in [0, 1].
        image_labels: 1 x C bool: the classes that either mask shows; a merge ignores the others.
    """

    knowledge: Tensor
    advice: Tensor
    d_knowledge: Tensor
    d_advice: Tensor
    image_labels: Tensor

    def merged(self, biases: MergeBiases) -> Tensor:
        """Merge (1 x H x W long)."""
        return ssdd_merge(*self, biases)


@dataclass(frozen=True)
class MergeFolders:
    """The input folders of a merge.

    Args:
        knowledge: Folder of masks `<name>.png` or score maps `<name>.map.png` (arg max).
        advice: The same for the advice.
        differences: Folder with `d_knowledge/<name>.png` and `d_advice/<name>.png`, 8-bit grey, as the static stage's
            `predict` writes them.

    Raises:
        InputError: A folder does not exist.
    """

    knowledge: Path
    advice: Path
    differences: Path

    def __post_init__(self) -> None:
        for folder in (self.knowledge, self.advice, *self._maps()):
            check_folder(folder, remedy="run `ssdd predict` of the static stage first")

    def names(self) -> list[str]:
        """Names of all images with difference maps, sorted, without leftovers of earlier runs; see `asked_for`.

        Raises:
            InputError: There is none.
        """
        names = asked_for(self.differences, sorted(path.stem for path in self._maps()[0].glob("[!.]*.png")))
        if not names:
            raise InputError(f"folder {self._maps()[0]} holds no difference maps; expected <name>.png files.")
        return names

    def read(self, name: str) -> MergeInput:
        """Read the parts of one image.

        Raises:
            InputError: A file is missing or damaged, or sizes differ.
        """
        masks = [read_prediction(folder, name) for folder in (self.knowledge, self.advice)]
        differences = [read_mask(mask_path(folder, name)) for folder in self._maps()]
        shapes = [array.shape for array in (*masks, *differences)]
        if len(set(shapes)) > 1:
            raise InputError(
                f"masks and difference maps of {name} differ in size: {shapes} in {self.knowledge}, {self.advice}, "
                f"{' and '.join(str(folder) for folder in self._maps())}; make them of the same images."
            )
        knowledge, advice = (torch.from_numpy(mask.astype(np.int64))[None] for mask in masks)
        d_knowledge, d_advice = (torch.from_numpy(d)[None].float() / 255 for d in differences)
        return MergeInput(knowledge, advice, d_knowledge, d_advice, _shown(knowledge, advice))

    def files(self, name: str) -> tuple[Path, ...]:
        """Where the parts of one image lie.

        Raises:
            InputError: One is missing.
        """
        guides = [prediction_path(folder, name) for folder in (self.knowledge, self.advice)]
        found = (*guides, *(mask_path(folder, name) for folder in self._maps()))
        check_exist(found, f"part of {name}", "make all parts of the same images")
        return found

    def _maps(self) -> tuple[Path, Path]:
        return self.differences / "d_knowledge", self.differences / "d_advice"


def merge_folder(
    folders: MergeFolders, out: Path, biases: MergeBiases, progress: bool = True, team: Team = ALONE
) -> int:
    """Merge every image that has difference maps and write the masks `<name>.png`; finished ones are skipped.

    Args:
        folders: The parts.
        out: Folder for the masks; may be the folder of the difference maps, whose masks are then replaced.
        biases: Biases of the merge.
        progress: Whether to show a bar.
        team: The processes that share the images.

    Returns:
        Number of masks.

    Raises:
        InputError: A part is missing or damaged.
    """
    if out.resolve() in (folders.knowledge.resolve(), folders.advice.resolve()):
        raise InputError(f"the merge would overwrite its own input in {out}; choose another output folder.")
    names = folders.names()
    with locked(out, team.rank):
        items = {name: Item(folders.files(name), (mask_path(out, name),)) for name in names}
        ledger = Ledger(out, "merge", Recipe({"biases": asdict(biases)}), items, team.rank)

        def merge(name: str) -> None:
            write_mask(mask_path(out, name), folders.read(name).merged(biases)[0].numpy().astype(np.uint8))

        ledger.make_each(merge, 1, progress, team)
    return len(names)


def _shown(knowledge: Tensor, advice: Tensor) -> Tensor:
    counts = torch.bincount(torch.cat((knowledge.flatten(), advice.flatten())), minlength=IGNORE + 1)
    labels = counts[None, :IGNORE] > 0
    labels[:, 0] = True
    return labels
