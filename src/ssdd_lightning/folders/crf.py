"""A folder of score maps through the dense CRF: all cores or a GPU, constant memory, resumable."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from ssdd_lightning.crf.inference import check_run, dense_crf
from ssdd_lightning.crf.settings import CRFSettings, resolve_settings
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.cam import cam_background
from ssdd_lightning.storage.images import IMAGE_SUFFIXES, find_images
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_image, write_mask
from ssdd_lightning.storage.score_maps import SUFFIX, map_path, mask_path, read_map, write_map
from ssdd_lightning.storage.threads import cores, in_threads

WRITES = ("maps", "masks", "both")


@dataclass(frozen=True)
class _Job:
    images: dict[str, Path]
    maps: Path
    out: Path
    settings: CRFSettings
    iterations: int
    write: str
    device: torch.device
    background_alpha: float | None


def refine_folder(
    images: Path,
    maps: Path,
    out: Path,
    preset: str = "psa",
    iterations: int = 10,
    write: str = "maps",
    num_workers: int | None = None,
    device: str = "cpu",
    settings: CRFSettings | None = None,
    progress: bool = True,
    background_alpha: float | None = None,
) -> int:
    """Refine every score map of a folder by the dense CRF on its image.

    A map's channels are divided by their sum first; a pixel where all are 0 counts as undecided (all equal).
    What the ledger in `out/crf.json` calls finished is left as it is, so an interrupted run goes on where it stopped
    and another map, photo or setting makes anew what depends on it.

    Args:
        images: Folder of `<name>.jpg`, `.jpeg`, `.bmp` or `.png`.
        maps: Folder of `<name>.map.png`, see `ssdd_lightning.storage.score_maps`.
        out: Folder for the results, created if need be; not the folder of the maps.
        preset: Published widths and weights: psa, deeplab, dupl or mctformer.
        iterations: Mean-field steps.
        write: maps (`<name>.map.png`), masks (`<name>.png`, the most probable class) or both.
        num_workers: Threads, one image each; None means one a core.
        device: Where the CRF runs: cpu, cuda, cuda:1, ...
        settings: Own widths and weights, in place of the preset.
        progress: Whether to show a bar.
        background_alpha: Score the background as (1 - largest class score) ** background_alpha, in place of the maps'
            own; None keeps theirs.

    Returns:
        How many maps were refined by this run, those skipped not counted.

    Raises:
        InputError: A folder, map or image is missing or damaged, sizes differ, an option is unknown, or another run
            works in `out`.
    """
    check_run(iterations, "lattice")
    if write not in WRITES:
        raise InputError(f"unknown kind of CRF output {write!r}; choose one of {', '.join(WRITES)}.")
    if num_workers is not None and num_workers < 1:
        raise InputError(f"the number of CRF workers must be 1 or more; found {num_workers}.")
    if background_alpha is not None and not background_alpha > 0:
        raise InputError(f"the background's exponent must be more than 0; found {background_alpha}.")
    names = _map_names(maps, out)
    chosen = resolve_settings(preset) if settings is None else settings
    job = _Job(
        _image_paths(images, names), maps, out, chosen, iterations, write, _checked_device(device), background_alpha
    )
    with locked(out):
        ledger = Ledger(out, "crf", Recipe(_settings(job)), {name: _item(job, name) for name in names})
        pending = ledger.pending()
        if pending or not ledger.finished:
            with ledger.working():
                done = in_threads(lambda name: _refine(job, name), pending, num_workers or cores())
                for name in tqdm(done, "CRF", len(pending), unit="image", disable=not progress):
                    ledger.done([name])
                ledger.close()
    return len(pending)


def _map_names(maps: Path, out: Path) -> list[str]:
    if not maps.is_dir():
        raise InputError(f"folder of maps {maps} does not exist; check the path.")
    if out.resolve() == maps.resolve():
        raise InputError(f"the CRF would overwrite its own input in {maps}; choose another output folder.")
    names = sorted(path.name[: -len(SUFFIX)] for path in maps.glob(f"[!.]*{SUFFIX}"))
    if not names:
        raise InputError(f"folder {maps} holds no score maps; expected <name>{SUFFIX} files.")
    return names


def _image_paths(images: Path, names: list[str]) -> dict[str, Path]:
    """Path of every name's image; complains before hours of work, not after."""
    found = find_images(images)
    missing = [name for name in names if name not in found]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} maps have no image: {images / missing[0]}{IMAGE_SUFFIXES[0]} "
            f"does not exist (nor {', '.join(IMAGE_SUFFIXES[1:])}); check the image folder."
        )
    return found


def _checked_device(device: str) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"the CRF cannot run on device {device!r} ({str(error).splitlines()[0]}).") from error


def _settings(job: _Job) -> dict[str, Any]:
    """What the results depend on, kept beside them."""
    chosen = {"iterations": job.iterations, "background_alpha": job.background_alpha, "write": job.write}
    return {**asdict(job.settings), **chosen}


def _item(job: _Job, name: str) -> Item:
    paths = {"maps": [map_path], "masks": [mask_path], "both": [map_path, mask_path]}[job.write]
    return Item((map_path(job.maps, name), job.images[name]), tuple(path_of(job.out, name) for path_of in paths))


def _refine(job: _Job, name: str) -> str:
    """Refine one map; return its name."""
    source = map_path(job.maps, name)
    classes, scores = read_map(source)
    image = read_image(job.images[name])
    if image.shape[:2] != scores.shape[1:]:
        raise InputError(
            f"map {source} is {scores.shape[2]} x {scores.shape[1]} pixels, its image {job.images[name]} "
            f"{image.shape[1]} x {image.shape[0]}; write the map at the image's size."
        )
    if job.background_alpha is not None:
        classes, scores = _with_background(classes, scores, job.background_alpha, source)
    refined = dense_crf(
        torch.from_numpy(image).permute(2, 0, 1)[None].to(job.device),
        torch.from_numpy(_normalised(scores))[None].to(job.device),
        iterations=job.iterations,
        settings=job.settings,
    )[0]
    _write(job, name, classes, refined.cpu().numpy())
    return name


def _with_background(
    classes: list[int], scores: npt.NDArray[np.float32], alpha: float, source: Path
) -> tuple[list[int], npt.NDArray[np.float32]]:
    """Maps whose background is made from the classes' scores; one is put in front where there was none."""
    foreground = scores[classes[0] == 0 :]
    if not len(foreground):
        raise InputError(f"map {source} holds the background alone, so there is nothing to score it by.")
    background = cam_background(torch.from_numpy(foreground)[None], alpha)[0].numpy()
    return [0, *classes[classes[0] == 0 :]], np.concatenate((background, foreground))


def _normalised(scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Channels that sum to one; all equal where every channel is 0."""
    total = scores.sum(0, keepdims=True)
    return np.where(total > 0, scores / np.where(total > 0, total, 1), 1 / scores.shape[0]).astype(np.float32)


def _write(job: _Job, name: str, classes: list[int], refined: npt.NDArray[np.float32]) -> None:
    if job.write in ("maps", "both"):
        write_map(map_path(job.out, name), classes, refined.clip(0, 1))
    if job.write in ("masks", "both"):
        write_mask(mask_path(job.out, name), np.array(classes)[refined.argmax(0)])
