"""The experiments that the package brings: their YAML files by name, and copies of them to edit."""

import difflib
from os.path import isdir, isfile
from pathlib import Path

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.files import write_text

PACKAGED = Path(__file__).parents[1] / "experiments"
"""One folder for each experiment, with one YAML file for each stage and those that they extend."""


def packaged_experiments() -> list[str]:
    """Names of the experiments that come with the package.

    Example:
        >>> "voc2012" in packaged_experiments()
        True
    """
    return sorted(path.name for path in PACKAGED.iterdir() if (path / "static.yaml").is_file())


def experiment_folder(given: Path) -> Path:
    """Find the folder of an experiment.

    Args:
        given: A folder, or the name of an experiment of the package. A folder of that name here comes first.

    Raises:
        InputError: It is neither.
    """
    if isdir(given):  # noqa: PTH112 - of a name that is too long, too, where Path.is_dir raises
        return given
    if str(given) in packaged_experiments():
        return PACKAGED / given
    words = [part.lower().removesuffix(".yaml") for part in reversed(given.parts)]
    close = [name for word in words for name in difflib.get_close_matches(word, packaged_experiments(), 1, 0.8)]
    meant = f"; did you mean {close[0]}?" if close else "."
    raise InputError(
        f"expected a folder with one YAML per stage, or an experiment of the package "
        f"({', '.join(packaged_experiments())}), found neither at {given}{meant}"
    )


def config_file(given: Path, folder: Path = Path()) -> Path:
    """Find a stage's YAML file.

    Args:
        given: Path of a file; or `EXPERIMENT/STAGE` of the package, such as voc2012/dynamic, with or without `.yaml`.
            A file of that name in the folder comes first.
        folder: Where the path begins.

    Returns:
        The path; as given if there is no such file, which whoever reads it says.
    """
    names = [given] if given.suffix or not given.name else [given, given.with_suffix(".yaml")]
    named = len(given.parts) == 2 and given.parts[0] in packaged_experiments()
    places = (folder, PACKAGED) if named else (folder,)
    return next((place / name for place in places for name in names if is_there(place / name)), folder / given)


def is_there(path: Path) -> bool:
    """Whether there is a file; of a name that is too long, too, where Path.is_file raises."""
    return isfile(path)  # noqa: PTH113


def config_like(given: Path) -> str | None:
    """Name of the packaged YAML file that was probably meant, if one is like it.

    Example:
        >>> config_like(Path("voc2012/dynamc"))
        'voc2012/dynamic'
    """
    names = [f"{name}/{path.stem}" for name in packaged_experiments() for path in (PACKAGED / name).glob("*.yaml")]
    return next(iter(difflib.get_close_matches(str(given).removesuffix(".yaml"), names, n=1, cutoff=0.8)), None)


def write_experiment(name: str, out: Path) -> list[Path]:
    """Copy an experiment's YAML files into a folder; files that are the same already stay.

    Args:
        name: One of `packaged_experiments`.
        out: Folder, created if need be.

    Returns:
        The files.

    Raises:
        InputError: There is no such experiment, or a file there says something else; nothing is written then.
    """
    if name not in packaged_experiments():
        raise InputError(f"unknown experiment {name!r}; choose one of {', '.join(packaged_experiments())}.")
    texts = {out / path.name: path.read_text() for path in sorted((PACKAGED / name).glob("*.yaml"))}
    for path, text in texts.items():
        if path.exists() and not (path.is_file() and path.read_text(errors="replace") == text):
            raise InputError(f"{path} exists and says something else; move it away, or choose another --out.")
    for path, text in texts.items():
        write_text(path, text)
    return list(texts)
