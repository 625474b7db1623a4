"""The photos of a run: a devkit in VOC's layout, or a plain folder of one's own."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ssdd_lightning.data.choice import DEVKITS
from ssdd_lightning.data.layout import TRUTH, Devkit, Location, PhotoFolder
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.score_maps import mask_path


@dataclass(frozen=True)
class Photos:
    """Where photos, labels and ground truth of a run lie.

    Args:
        location: The devkit or the folder.
        settings: What every stage is told of it.
        dataset: voc, coco or folder.
    """

    location: Location
    settings: Mapping[str, Any]
    dataset: str

    @property
    def own(self) -> bool:
        """Whether they are photos of a plain folder."""
        return isinstance(self.location, PhotoFolder)

    @property
    def images(self) -> Path:
        """Folder of photos."""
        return self.location.images

    @property
    def truth(self) -> Path | None:
        """Folder of ground truth masks, for scoring only; None if there is none."""
        return self.location.masks

    def split(self, data: Mapping[str, Any], phase: str) -> str:
        """The images of a phase, see `split_of`."""
        return split_of(data, self.dataset, phase)

    def files(self, data: Mapping[str, Any], split: str) -> list[Path]:
        """Every file that a stage may read for a split, whether it is there or not; see `split`."""
        if isinstance(self.location, Devkit):
            return replace(self.location, truth=str(data.get("truth"))).files(split)
        return [*map(Path, filter(None, [data.get("class_names")])), *self.location.files(split)]

    def scored(self, names: Sequence[str]) -> list[str]:
        """Those of some images that are to be scored: a devkit has ground truth of all or none."""
        truth = self.truth
        if truth is None:
            return []
        return [name for name in names if not self.own or mask_path(truth, name).is_file()]


@dataclass(frozen=True)
class GivenData:
    """Where a user says that photos, labels and ground truth lie; None goes by the YAML.

    Args:
        root: Folder that holds a devkit.
        labels: File of image-level labels; without one in the YAML either, the devkit's annotations count.
        truth: Ground truth, for scoring only: a folder in the devkit, or the path of one beside photos of one's own.
    """

    root: Path | None = None
    labels: Path | None = None
    truth: str | None = None


def find_photos(data: Mapping[str, Any], dataset: str, given: GivenData = GivenData()) -> Photos:
    """Find the photos of a run.

    Args:
        data: The section `data` of an experiment; what it says counts where nothing is given.
        dataset: voc, coco or folder.
        given: What the user says.

    Raises:
        InputError: A devkit is given for photos of one's own, nothing says where those lie, or there is no such folder.
    """
    if dataset in DEVKITS:
        truth = given.truth or str(data.get("truth") or TRUTH)
        devkit = Devkit(given.root or Path(data.get("root") or "."), given.labels, truth)
        devkit.folder  # noqa: B018 - an InputError if there is none
        return Photos(devkit, _settings(asdict(devkit)), dataset)
    if given.root is not None:
        raise InputError("--root: this experiment is of photos of your own; give --images and --labels.")
    own = given.labels or data.get("labels")
    if not data.get("images") or not own:
        raise InputError(
            "expected --images and --labels for photos of your own, or --config with the data.yaml of `ssdd prepare "
            "folder`."
        )
    masks = given.truth or data.get("truth")
    location = PhotoFolder(Path(data["images"]), Path(own), None if masks is None else Path(masks))
    return Photos(location, _settings(asdict(given)), dataset)


def split_of(data: Mapping[str, Any], dataset: str, phase: str) -> str:
    """The images of a phase: name or path of a list; "" for all that are labelled.

    Args:
        data: The section `data` of a stage's configuration.
        dataset: voc, coco or folder.
        phase: train, val, test or predict.
    """
    own = DEVKITS.get(dataset, ("", ""))[phase in ("val", "test")]
    return str((data.get("splits") or {}).get(phase) or own)


def _settings(given: Mapping[str, Any]) -> dict[str, Any]:
    return {f"data.{key}": str(value) for key, value in given.items() if value is not None}
