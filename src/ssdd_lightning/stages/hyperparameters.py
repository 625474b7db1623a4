"""Arguments of a stage as plain values, so that a checkpoint of a stage built in Python loads like one from a YAML."""

import inspect
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn
from torch import nn

INSTANTIATOR = "pytorch_lightning.cli.instantiate_module"
"""What builds a stage from plain values: the function by which Lightning builds it from a YAML."""


def plain_hyperparameters(stage: type, given: dict[str, Any]) -> dict[str, Any]:
    """Write a stage's arguments as a YAML has them; a checkpoint may hold nothing else.

    A class becomes its import path, a `functools.partial` of a class its import path and arguments.

    Args:
        stage: The stage's class.
        given: Its arguments, as `save_hyperparameters` collected them.

    Examples:
        >>> plain_hyperparameters(dict, {"network": partial(dict, width=8)})["network"]
        {'class_path': 'builtins.dict', 'init_args': {'width': 8}}
    """
    if "_instantiator" in given:
        return given
    return {"_instantiator": INSTANTIATOR, "_class_path": _path(stage), **plain_arguments(stage, given)}


def plain_arguments(stage: type, given: dict[str, Any]) -> dict[str, Any]:
    """Write arguments as a YAML has them.

    What cannot be written so, such as a lambda or a network that was built already, is left out with a warning;
    `load_from_checkpoint` then wants it as an argument.

    Args:
        stage: Whose arguments they are.
        given: Arguments by name.
    """
    result: dict[str, Any] = {}
    for name, value in given.items():
        try:
            result[name] = _plain(value)
        except TypeError as error:
            rank_zero_warn(
                f"the checkpoint will not keep the argument {name} of {stage.__name__}: {error}. Give it to "
                f"load_from_checkpoint again, or build it by a class or a functools.partial of one."
            )
    return result


def _plain(value: Any) -> Any:  # noqa: ANN401
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, partial):
        positional = dict(zip(inspect.signature(value.func).parameters, value.args, strict=False))
        return {"class_path": _path(value.func), "init_args": _plain({**positional, **value.keywords})}
    if isinstance(value, type):
        return {"class_path": _path(value)}
    if callable(value) and "<" not in getattr(value, "__qualname__", "<"):
        return _path(value)
    if isinstance(value, nn.Module) and getattr(value, "_hub_mixin_config", None):  # huggingface_hub's note
        return {"class_path": _path(type(value)), "init_args": _plain(value._hub_mixin_config)}
    if isinstance(value, nn.Module):
        raise TypeError(f"a {type(value).__name__} that was built already does not say from what")
    raise TypeError(f"{value!r} is neither a plain value nor an importable class")


def _path(value: Any) -> str:  # noqa: ANN401
    if "<" in value.__qualname__:
        raise TypeError(f"{value.__qualname__} cannot be imported")
    return f"{value.__module__}.{value.__qualname__}"
