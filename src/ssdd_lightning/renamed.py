"""Options under the names they had in version 0.1: accepted for one more version, with a warning."""

from collections.abc import Mapping, Sequence
from typing import Any

from ssdd_lightning.errors import InputError

_AUGMENTATION = ("crop_size", "resize", "keep_aspect", "flip", "color_jitter")
_OPTIMIZATION = ("learning_rate", "new_learning_rate", "momentum", "weight_decay", "double_bias_rate")
_BIASES = ("dd_bias", "class_bias", "background_bias", "failed_ratio")
_MODEL = {
    **{name: f"optimization.{name}" for name in _OPTIMIZATION},
    "schedule": "optimization.lr_scheduler",
    "test_scales": "testing.scales",
    "test_flip": "testing.flip",
    "test_crf": "testing.crf",
    "crf_iterations": "refinement.crf_iterations",
    "alpha": "refinement.alpha",
    **{f"ssdd.init_args.{name}": f"ssdd.init_args.biases.{name}" for name in _BIASES},
}
RENAMED = {
    **{f"model.init_args.{old}": f"model.init_args.{new}" for old, new in _MODEL.items()},
    **{f"data.{name}": f"data.augmentation.{name}" for name in _AUGMENTATION},
    **{f"data.{phase}_split": f"data.splits.{phase}" for phase in ("train", "val", "test", "predict")},
}
"""Old dotted name -> new one."""
_LOSSES = {"per_class", "bad_sample_rule", "exclude_bad_from_diff2", "balanced", "average", "sub_branch"}
"""What was in `losses` of `model.init_args`; `per_class` and `sub_branch.alpha` are elsewhere now."""
GONE: Mapping[str, str | float | None] = {
    "refinement.second_dd_bias": None,
    "refinement.warm_up": 0.0,
    "sub_target": "d1",
    "diff2_target": "d1",
    "bad_sample_rule": "any",
    "exclude_bad_from_diff2": True,
    "balanced_difference_loss": True,
    "average_difference_loss": False,
}
"""Options of `model.init_args` that are no more, and the value that the code always has now.

They mattered in training alone, so checkpoints load without them.
"""


def with_new_names(content: Mapping[str, Any], where: str | None) -> dict[str, Any]:
    """A configuration with every option under its new name.

    Args:
        content: Sections of a YAML file, nested.
        where: The file, for the warning; None for no warning, where nobody can edit the names.
    """
    result = _copy(content)
    for old, new in RENAMED.items():
        *sections, name = old.split(".")
        owner: Any = result
        for section in sections:
            owner = owner.get(section) if isinstance(owner, dict) else None
        if not isinstance(owner, dict) or name not in owner:
            continue
        if where is not None:
            _warn(old, new, where)
        value, target = owner.pop(name), result
        *sections, name = new.split(".")
        for section in sections:
            if target.get(section) is None:
                target[section] = {}
            target = target[section]
            if not isinstance(target, dict):
                source = where or "the checkpoint"
                raise InputError(f"{source}: expected options below {section}, found {target!r} beside the old {old}.")
        target.setdefault(name, value)
    return result


def checkpoint_with_new_names(content: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint whose hyper-parameters have their new names.

    Args:
        content: The checkpoint.
    """
    given = content.get("hyper_parameters")
    if not isinstance(given, Mapping):
        return dict(content)
    named = with_new_names({"model": {"init_args": given}}, None)["model"]["init_args"]
    if named != given and named.get("crf", ...) is None:
        del named["crf"]  # null meant the default values
    losses = named.get("losses")
    if isinstance(losses, dict) and losses.keys() <= _LOSSES:
        del named["losses"]
        named.setdefault("per_class_loss", losses.get("per_class", True))
        alpha = (losses.get("sub_branch") or {}).get("alpha")
        if alpha is not None and isinstance(named.get("refinement"), dict):  # the others had it without a use
            named["refinement"].setdefault("alpha", alpha)
    for option in GONE:
        section, _, name = option.rpartition(".")
        owner = named.get(section) if section else named
        if isinstance(owner, dict):
            owner.pop(name, None)
    return {**content, "hyper_parameters": named}


def words_with_new_names(words: Sequence[str]) -> list[str]:
    """Command-line words with every option under its new name."""
    result = []
    for word in words:
        option, equals, value = word.partition("=")
        new = _new_name(option.removeprefix("--")) if option.startswith("--") else None
        if new is not None:
            _warn(option.removeprefix("--"), new, "the command line")
        result.append(word if new is None else f"--{new}{equals}{value}")
    return result


def _new_name(option: str) -> str | None:
    """New name of an option, which may leave out `init_args`."""
    full = option.replace("model.", "model.init_args.", 1).replace("ssdd.", "ssdd.init_args.", 1)
    return RENAMED.get(option) or (None if "init_args" in option else RENAMED.get(full))


def _copy(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in content.items()}


def _warn(old: str, new: str, where: str) -> None:
    from pytorch_lightning.utilities import rank_zero_warn  # it takes seconds to load

    rank_zero_warn(
        f"{old} ({where}) is called {new} now; the old name will go with the next version.", category=FutureWarning
    )
