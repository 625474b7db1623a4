"""Which classes a checkpoint may name. A file of weights must not decide what code is imported and called."""

import importlib
import importlib.abc
import importlib.util
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import is_dataclass
from typing import Any, get_type_hints
from unittest.mock import patch

from jsonargparse import _actions, _optionals, _typehints
from lightning_fabric.plugins import ClusterEnvironment
from pytorch_lightning import Callback, LightningDataModule
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import CheckpointIO, LayerSync, Precision
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import Strategy
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssdd_lightning.errors import InputError, shown
from ssdd_lightning.stages.hyperparameters import INSTANTIATOR

OURS = "ssdd_lightning"
TRUSTED = (OURS, "torch", "pytorch_lightning", "lightning", "lightning_fabric")
"""Packages whose classes a checkpoint may name."""
TRUSTED_IN_CONFIGS = (*TRUSTED, "torchmetrics", "timm", "segmentation_models_pytorch")
"""Packages whose classes a configuration may name under `--trusted_classes`."""
_BUILT = (nn.Module, Optimizer, LRScheduler)
"""What a checkpoint may name."""
_CONFIGURED = (
    *(*_BUILT, LightningDataModule, Callback, Logger, Profiler, Strategy, Accelerator),
    *(Precision, ClusterEnvironment, CheckpointIO, LayerSync),
)
"""What a configuration may name under `--trusted_classes`."""
_LONGEST = 300
"""Characters of an import path."""
_NO_FILE = "fF"
"""A mode of jsonargparse that no file has: a file, and no file."""
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_CLASS_KEYS = ("class_path", "_class_path", "_instantiator")


def import_modules(names: Sequence[str]) -> None:
    """Import modules that the user names, so that checkpoints may name what is in them.

    Raises:
        InputError: One cannot be imported.
    """
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, TypeError, ValueError) as error:  # the latter for "" and ".x"
            raise InputError(
                f"--import: cannot import {name} ({error}); for a file in this folder, set PYTHONPATH=. and leave out "
                "its suffix."
            ) from error


@contextmanager
def only_trusted(hyper_parameters: object, source: str, named: Collection[str] = ()) -> Iterator[None]:
    """Build a stage from a checkpoint's hyper-parameters without importing or calling what only they name.

    They may name classes of networks, optimizers and schedules: of this package, torch and Lightning, and of modules
    that are imported already; and functions that say that they return one, but none of torch and Lightning. Everything
    else is refused, before or while the block builds. Texts stay texts meanwhile: jsonargparse would read YAML in them,
    and files and addresses of that name, which could name anything.

    Args:
        hyper_parameters: As the checkpoint has them.
        source: The checkpoint, for the message.
        named: What the user named himself, such as in a YAML file.

    Raises:
        InputError: They name something else.
    """
    unknown = [text for key, text in names_in(hyper_parameters) if text not in named and _refused(key, text, source)]
    guard = _Guard(unknown)
    sys.meta_path.insert(0, guard)
    try:
        with (
            patch.object(_actions, "parse_value_or_config", _as_it_is),
            patch.object(_typehints, "parse_value_or_config", _as_it_is),
            patch.object(_optionals, "_config_read_mode", _NO_FILE),
        ):
            yield
    finally:
        sys.meta_path.remove(guard)
        if guard.asked is not None:
            raise InputError(_sentence(source, guard.asked)) from None


def check_trusted(content: object) -> None:
    """Refuse a configuration that names anything but what a trainer is built of in well-known packages.

    These are networks, optimizers, schedules, callbacks, loggers and Lightning's other parts.

    Args:
        content: The configuration, nested.

    Raises:
        InputError: It names something else that can be imported.
    """
    for key, text in names_in(content):
        if "." not in text:  # a short name, which the parser looks for among the classes that are loaded
            continue
        found = _loaded(text) if _import_trusted(text, TRUSTED_IN_CONFIGS) else None
        known = found is not None and _home(found) in TRUSTED_IN_CONFIGS
        if known and (_allowed(found, _CONFIGURED) or (_home(found) == OURS and is_dataclass(found))):
            continue
        if key in _CLASS_KEYS or found is not None or _importable(text.partition(".")[0]):
            raise InputError(
                f"--trusted_classes: the configuration names {text:.80}, which is no network, optimizer, callback or "
                f"other part of a trainer in {', '.join(TRUSTED_IN_CONFIGS)}; leave the option out only if you trust "
                "whoever wrote it."
            )


@contextmanager
def only_trusted_imports() -> Iterator[None]:
    """Let jsonargparse import only what `check_trusted` lets pass, whether a text, a file or an address names it."""
    original = _typehints.import_object

    def checked(name: str, *options: Any, **more: Any) -> Any:  # noqa: ANN401
        """Check a name, then import it."""
        check_trusted({_CLASS_KEYS[0]: name})
        return original(name, *options, **more)

    with patch.object(_actions, "import_object", checked), patch.object(_typehints, "import_object", checked):
        yield


def is_held() -> bool:
    """Whether `only_trusted_imports` holds, so that a new process has to be held, too."""
    return bool(_typehints.import_object.__module__ == __name__)


def is_known(text: str) -> bool:
    """Whether a name is of the packages whose classes a checkpoint may name."""
    return text.partition(".")[0] in TRUSTED


def names_in(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text that could be an import path, with the key that it stands under."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            yield from names_in(part, str(inner))
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from names_in(part, key)
    elif isinstance(value, str) and (key in _CLASS_KEYS or _NAME.fullmatch(value)):
        yield key, value


def _as_it_is(value: Any, *_: object, **__: object) -> tuple[Any, None]:  # noqa: ANN401
    """In place of jsonargparse's reading of YAML in a text, or in the file that it names."""
    return value, None


def _importable(package: str) -> bool:
    return package in sys.modules or importlib.util.find_spec(package) is not None


def _refused(key: str, text: str, source: str) -> bool:
    """Whether a name must not be imported: it is unknown here. A name that is known and not allowed raises."""
    if key == "_instantiator":
        if text != INSTANTIATOR:
            raise InputError(_sentence(source, text))
        return False
    if key in _CLASS_KEYS:
        _import_trusted(text, TRUSTED)
    found = _loaded(text)
    if found is None and (key not in _CLASS_KEYS or "." not in text):  # `SSDD`: the parser looks among known classes
        return True
    if found is None or (callable(found) and not _allowed(found, _BUILT)):
        raise InputError(_sentence(source, text))
    return False


def _allowed(found: Any, kinds: tuple[type, ...]) -> bool:  # noqa: ANN401
    """Whether it is a class of these kinds, or a function, no library's, that says that it returns one."""
    if not isinstance(found, type):
        if _home(found) in TRUSTED_IN_CONFIGS and _home(found) != OURS:
            return False
        try:
            found = get_type_hints(found).get("return")
        except Exception:  # no function, or one of types that are not there
            return False
    return isinstance(found, type) and issubclass(found, kinds)


def _home(found: Any) -> str:  # noqa: ANN401
    return str(getattr(found, "__module__", None) or "builtins").partition(".")[0]


def _import_trusted(text: str, packages: Sequence[str]) -> bool:
    """Import the module of a name if it is in a package that is trusted; whether it is."""
    package, *parts = text.split(".")
    if package not in packages or len(text) > _LONGEST or any(part.startswith("_") for part in parts):
        return False
    for end in range(len(parts), 0, -1):
        try:
            importlib.import_module(".".join((package, *parts[: end - 1])))
        except Exception:  # it is not there, or does not load here
            continue
        break
    return True


def _loaded(text: str) -> Any:  # noqa: ANN401
    """What a name stands for among the modules that are loaded; None if it is nothing."""
    parts = text.split(".") if len(text) <= _LONGEST else []
    for end in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:end]))
        if found is not None:
            try:
                for part in parts[end:]:
                    found = getattr(found, part)
            except Exception:  # no such attribute, or torch.classes, which looks for more
                return None
            return found
    return None


def _sentence(source: str, text: str) -> str:
    module = text.rpartition(".")[0] or text
    return (
        f"{source} names {shown(text)}, but a checkpoint may name only networks, optimizers and schedules of "
        f"ssdd_lightning, torch and Lightning; if you trust the module {module:.80}, import it before, or add "
        f"`--import {module:.80}` (a function of it has to say that it returns one)."
    )


class _Guard(importlib.abc.MetaPathFinder):
    """Refuses to import modules that only a checkpoint names."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.asked: str | None = None

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> None:
        """Find nothing; raise if a checkpoint named this module or one inside it."""
        asked = next((name for name in self.names if f"{name}.".startswith(f"{fullname}.")), None)
        if asked is not None:
            self.asked = asked
            raise ImportError(f"{fullname} is named by a checkpoint alone")
