"""What other projects' files of scores mean: which channel is which class, and whether background is among them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.containers import only_array

CHANNELS = ("all", "foreground", "present", "present-foreground")
"""What the channels of a plain array can be: all classes with or without background, or those of the image's labels."""
SCORE_KEYS = ("high_res", "attn_highres", "highres", "cam")
"""Where IRN, CLIP-ES and their descendants keep the scores, the best first."""


@dataclass(frozen=True)
class Scores:
    """Scores of one image as a file has them.

    Args:
        class_indices: The dataset's own index of each channel, in the file's order; 0 is background and may be missing.
        values: n x h x w of any number type.
    """

    class_indices: list[int]
    values: npt.NDArray[Any]


@dataclass(frozen=True)
class Context:
    """What a reader must know besides the file's content.

    Args:
        path: The file, for messages.
        num_classes: Classes of the dataset, background included.
        labels: The image's foreground classes by dataset index, ascending; None if unknown.
        channels: One of `CHANNELS`, or None to tell it from their number.
        key: Which of several arrays holds the scores.
    """

    path: Path
    num_classes: int
    labels: tuple[int, ...] | None = None
    channels: str | None = None
    key: str | None = None


def read_psa_cam(content: Any, context: Context) -> Scores:  # noqa: ANN401
    """PSA's `out_cam`: a dict of foreground class, counted from 0, -> H x W."""
    return _from_dict(content, context, first=1)


def read_psa_aff(content: Any, context: Context) -> Scores:  # noqa: ANN401
    """PSA's `out_aff`, `out_aff_crf` and its CRF folders: a dict of class, 0 = background, -> H x W.

    The SSDD repository's `out_aff_crf` is a plain array over background and the image's own classes.
    """
    if isinstance(content, np.ndarray):
        channels = "present" if context.channels is None else context.channels
        return Scores(_channel_classes(len(content), channels, context), _three_d(content, context))
    return _from_dict(content, context, first=0)


def read_irn(content: Any, context: Context) -> Scores:  # noqa: ANN401
    """IRN's files: a dict with `keys`, foreground classes counted from 0, and `high_res` or `cam`, n x h x w."""
    if not isinstance(content, dict) or "keys" not in content:
        raise InputError(
            f"{context.path}: expected IRN's dict with `keys` and {' or '.join(SCORE_KEYS)}, found "
            f"{_describe(content)}; choose another `--from`."
        )
    key = context.key or next((name for name in SCORE_KEYS if name in content), None)
    values = _three_d(only_array({k: v for k, v in content.items() if k != "keys"}, context.path, key), context)
    class_indices = [
        _class_index(index, context, first=1) for index in np.ravel(_array(content["keys"], context)).tolist()
    ]
    if len(class_indices) != len(values):
        raise InputError(
            f"{context.path}: `keys` names {len(class_indices)} classes, but there are {len(values)} channels."
        )
    return Scores(class_indices, values)


def _array(value: Any, context: Context) -> npt.NDArray[Any]:  # noqa: ANN401
    try:
        return np.asarray(value)
    except ValueError as error:  # lists of different lengths
        raise InputError(
            f"{context.path}: expected arrays of numbers, found {type(value).__name__} ({error})."
        ) from error


def read_array(content: Any, context: Context) -> Scores:  # noqa: ANN401
    """A plain C x H x W array of logits or probabilities, with a leading axis of 1 if it likes."""
    values = _three_d(only_array(content, context.path, context.key), context)
    return Scores(_channel_classes(len(values), context.channels, context), values)


READERS: dict[str, Callable[[Any, Context], Scores]] = {
    "psa-cam": read_psa_cam,
    "psa-aff": read_psa_aff,
    "irn": read_irn,
    "arrays": read_array,
}
"""How the content of a file becomes scores, by the name of the format."""


def _from_dict(content: Any, context: Context, first: int) -> Scores:  # noqa: ANN401
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"{context.path}: expected PSA's dict of class index -> H x W array, found {_describe(content)}; choose "
            "another `--from`."
        )
    class_indices = [_class_index(key, context, first) for key in content]
    maps = [_array(value, context) for value in content.values()]
    shapes = {array.shape for array in maps}
    if len(shapes) != 1 or maps[0].ndim != 2 or not maps[0].size:
        raise InputError(f"{context.path}: expected H x W arrays of one size, found the shapes {sorted(shapes)}.")
    return Scores(class_indices, np.stack(maps))


def _class_index(key: object, context: Context, first: int) -> int:
    """Dataset index of a file's own; `first` is the dataset index of the file's 0."""
    index = int(key) + first if isinstance(key, (int, np.integer)) and not isinstance(key, bool) else -1
    if first <= index < context.num_classes:
        return index
    raise InputError(
        f"{context.path}: {key!r} is no class index; expected 0..{context.num_classes - 1 - first}, counted from the "
        f"{'first foreground class' if first else 'background'}. Choose another `--from` or give `--classes`."
    )


def _channel_classes(count: int, channels: str | None, context: Context) -> list[int]:
    """Dataset index of each channel of a plain array."""
    labels = context.labels
    meanings = {"all": list(range(context.num_classes)), "foreground": list(range(1, context.num_classes))}
    if labels is not None:
        meanings |= {"present": [0, *labels], "present-foreground": list(labels)}
    elif channels is not None and channels not in meanings:
        raise InputError(f"{context.path}: {channels} channels are those of the image's labels; give `--labels`.")
    fitting = [meanings[name] for name in ([channels] if channels else meanings) if len(meanings[name]) == count]
    if fitting and all(class_indices == fitting[0] for class_indices in fitting):
        return fitting[0]
    counts = ", ".join(f"{len(class_indices)} ({name})" for name, class_indices in meanings.items())
    raise InputError(
        f"{context.path} has {count} channels, which "
        + ("fits several meanings; " if fitting else "fits no meaning; ")
        + f"expected {counts}{'' if labels else ', or the labelled class_indices alone with `--labels`'}. "
        "Choose with `--channels`, or give the dataset's `--classes`."
    )


def _three_d(values: npt.NDArray[Any], context: Context) -> npt.NDArray[Any]:
    if values.ndim == 4 and len(values) == 1:
        values = values[0]
    if values.ndim != 3 or not values.size:
        raise InputError(f"{context.path}: expected scores C x H x W, found the shape {values.shape}.")
    return values


def _describe(content: object) -> str:
    if isinstance(content, np.ndarray):
        return f"an array of shape {content.shape}"
    if isinstance(content, dict):
        return f"a dict with {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    return repr(content)[:80]
