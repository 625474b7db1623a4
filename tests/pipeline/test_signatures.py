import inspect
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import ssdd_lightning
from ssdd_lightning.data.choice import DATASETS
from ssdd_lightning.pipeline.signatures import SECTIONS, Built, ClassSource, find_class
from tests.helpers.processes import python

CLASSES = [
    *(f"ssdd_lightning.{name}" for name in ssdd_lightning.__all__ if name != "InputError"),
    *(".".join(parts) for parts in DATASETS.values()),
    *SECTIONS.values(),
    "ssdd_lightning.callbacks.RefinementPictures",
    "ssdd_lightning.crf.CRFOptions",
    "pytorch_lightning.callbacks.EarlyStopping",
    *(f"ssdd_lightning.stages.values.{name}" for name in ("Optimization", "TestProtocol", "LabelRefinement")),
]


def imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def same(read: Any, real: Any) -> bool:
    """Whether a default that was read from the source is the one of the imported class."""
    if isinstance(read, ClassSource):
        return inspect.isclass(real) and read.name == real.__name__
    if isinstance(read, Built):
        own = {field.name: field.default for field in fields(real)}
        given = {name: getattr(real, name) for name, default in own.items() if getattr(real, name) != default}
        return is_dataclass(real) and {k: v for k, v in read.given.items() if v != own[k]} == given
    return bool(read == real)


@pytest.mark.parametrize("path", CLASSES)
def test_the_source_says_what_the_class_takes(path: str) -> None:
    source, real = find_class(path), inspect.signature(imported(path)).parameters
    named = {name: p for name, p in real.items() if p.kind is not p.VAR_KEYWORD}
    assert not source.is_open
    assert set(named) <= set(source.arguments)
    if len(named) == len(real):
        assert list(source.arguments) == list(named)
    for name, parameter in named.items():
        default = None if parameter.default is parameter.empty else parameter.default
        assert same(source.arguments[name].value, default), name


def test_options_are_handed_on_to_the_base() -> None:
    own = find_class(SECTIONS["checkpoint"]).arguments
    assert {"every_n_minutes", "save_top_k", "monitor"} <= set(own)


def test_types_and_values() -> None:
    stage = find_class("ssdd_lightning.DynamicRefinementModule").arguments
    assert stage["refinement"].values_class.arguments["advice"].plain_types == ["crf", "par"]
    assert stage["backbone_weights"].plain_types == [str, None]
    assert stage["network"].plain_types is None
    assert stage["network"].values_class is None
    trainer = find_class(SECTIONS["trainer"]).arguments
    assert trainer["max_epochs"].plain_types == [int, None]
    assert "16-mixed" in trainer["precision"].plain_types


@pytest.mark.parametrize(
    "path", ["nowhere.Stage", "ssdd_lightning.Typo", "Typo", "math.Stage", "ssdd_lightning.nn.x.Y", ""]
)
def test_what_is_not_there(path: str) -> None:
    assert find_class(path) is None


def test_a_class_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    code = "from ssdd_lightning import SegmentationModule\nfrom other import Base\n"
    code += "class Mine(SegmentationModule):\n    pass\nclass Theirs(Base):\n    pass\n"
    code += "class Any:\n    def __init__(self, **o): 0\n"
    (tmp_path / "my_stage_of_tests.py").write_text(code)
    mine = find_class("my_stage_of_tests.Mine")
    assert "mask_stride" in mine.arguments
    assert not mine.is_open
    assert find_class("my_stage_of_tests.Theirs").is_open
    assert find_class("my_stage_of_tests.Any").is_open


def test_nothing_heavy_is_imported() -> None:
    code = "import sys; from ssdd_lightning.pipeline.signatures import find_class, SECTIONS; "
    code += "assert find_class(SECTIONS['trainer']).arguments and find_class('ssdd_lightning.SSDD').arguments; "
    code += "print([m for m in ('torch', 'pytorch_lightning', 'numpy') if m in sys.modules])"
    assert python(code).strip() == "[]"
