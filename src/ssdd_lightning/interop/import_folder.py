"""A folder of another project's files becomes our score maps or masks: streaming, on all cores, resumable."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssdd_lightning.data.classes import VOC, ClassTable, class_table
from ssdd_lightning.data.guides import check_values
from ssdd_lightning.data.labels import Labels, read_label_file
from ssdd_lightning.errors import InputError, check_size, listed
from ssdd_lightning.interop.colours import read_any_mask
from ssdd_lightning.interop.containers import load_arrays
from ssdd_lightning.interop.conversion import Conversion, convert
from ssdd_lightning.interop.detection import FORMATS, MASKS, detect_format, find_sources
from ssdd_lightning.interop.formats import CHANNELS, READERS, Context
from ssdd_lightning.storage.images import find_images, image_size
from ssdd_lightning.storage.ledger import Item, Items, Ledger, Recipe
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, mask_path, write_map
from ssdd_lightning.storage.team import ALONE, Team
from ssdd_lightning.storage.threads import cores


@dataclass(frozen=True)
class ImportOptions:
    """How to read a folder.

    Args:
        format: psa-cam, psa-aff, irn, arrays or masks; None tells it from the files where it can.
        labels: File of image-level labels: channels of other classes are dropped.
        classes: File of class names or their number, see `class_table`; None means VOC's.
        alpha: Exponent of the background of files without one, (1 - max) ** alpha.
        logits: Scores are logits; softmax over the channels that are kept.
        channels: What a plain array's channels are, one of `CHANNELS`; None tells it from their number.
        key: Which of several arrays in a file holds the scores.
        stretch: Resize scores of another aspect ratio than the image's too.
    """

    format: str | None = None
    labels: Path | None = None
    classes: str | None = None
    alpha: float = 4.0
    logits: bool = False
    channels: str | None = None
    key: str | None = None
    stretch: bool = False

    def __post_init__(self) -> None:
        if self.format not in (None, *FORMATS):
            raise InputError(f"unknown format {self.format!r}; choose one of {', '.join(FORMATS)}.")
        if self.channels not in (None, *CHANNELS):
            raise InputError(f"unknown meaning of channels {self.channels!r}; choose one of {', '.join(CHANNELS)}.")
        if not self.alpha > 0:
            raise InputError(f"alpha: expected an exponent above 0, found {self.alpha}.")


def import_folder(
    source: Path,
    images: Path,
    out: Path,
    options: ImportOptions | None = None,
    num_workers: int | None = None,
    progress: bool = True,
    team: Team = ALONE,
) -> int:
    """Turn every file of a folder into `<name>.map.png`, or every mask into an indexed `<name>.png`.

    What the ledger in `out/import.json` calls finished is kept, so an interrupted run continues where it stopped. A
    changed file, photo or option redoes what depends on it.

    Args:
        source: Folder of files of one format, named like the images.
        images: Folder of the photos: score maps are written at their size.
        out: Folder to write, created if need be.
        options: How to read the files.
        num_workers: Threads, one image each; None means one per core.
        progress: Whether to show a bar.
        team: The processes that share the files.

    Returns:
        How many files were written by this run.

    Raises:
        InputError: A file is missing, damaged, dangerous, of another size, class count or range than expected.
    """
    options = options or ImportOptions()
    if out.resolve() in (source.resolve(), images.resolve()):
        raise InputError(
            f"the import would write into {out}, which is one of its inputs; choose another output folder."
        )
    kind = options.format or detect_format(source)
    sources = find_sources(source, kind)
    table = VOC if options.classes is None else class_table(options.classes)
    labels = None if options.labels is None else read_label_file(options.labels, table)
    photos = find_images(images)
    _check_named(sources, photos, f"image in {images}")
    if labels is not None:
        _check_named(sources, labels, f"label in {options.labels}")
    job = _Job(kind, sources, photos, labels, table, out, options)
    with locked(out, team.rank):
        ledger = Ledger(out, "import", Recipe(_settings(job)), Items(sources, job.item), team.rank)
        return ledger.make_each(job.convert, num_workers or cores(team), progress, team)


@dataclass(frozen=True)
class _Job:
    kind: str
    sources: Mapping[str, Path]
    photos: Mapping[str, Path]
    labels: Mapping[str, Labels] | None
    table: ClassTable
    out: Path
    options: ImportOptions

    def item(self, name: str) -> Item:
        """What decides the result of one file, and where it lies."""
        labels = "" if self.labels is None else str(self.labels[name])
        return Item((self.sources[name], self.photos[name]), (self._target(name),), labels)

    def convert(self, name: str) -> None:
        """Convert one file."""
        (self._mask if self.kind == MASKS else self._map)(name, self._target(name))

    def _target(self, name: str) -> Path:
        return (mask_path if self.kind == MASKS else map_path)(self.out, name)

    def _mask(self, name: str, target: Path) -> None:
        path = self.sources[name]
        mask = read_any_mask(path)
        check_size(mask.shape, image_size(self.photos[name]), f"mask {path}", f"its image {self.photos[name]}")
        check_values(mask, path, self.table)
        write_mask(target, mask)

    def _map(self, name: str, target: Path) -> None:
        path, options = self.sources[name], self.options
        labels = None if self.labels is None else self.labels[name]
        context = Context(path, len(self.table.names), labels, options.channels, options.key)
        scores = READERS[self.kind](load_arrays(path), context)
        how = Conversion(options.alpha, options.logits, options.stretch)
        write_map(target, *convert(scores, image_size(self.photos[name]), labels, how, path))


def _check_named(names: Mapping[str, object], known: Mapping[str, object], what: str) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        what = f"{len(missing)} of {len(names)} files have no {what}"
        raise InputError(f"{what}: {listed(missing)}; complete it or remove them.")


def _settings(job: _Job) -> dict[str, Any]:
    files = {"labels", "classes"}  # the labels are the images' own, the classes are told by name
    chosen = {key: value for key, value in asdict(job.options).items() if key not in files}
    return {**chosen, "format": job.kind, "classes": list(job.table.names)}
