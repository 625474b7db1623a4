"""A checkpoint decides nothing about what code is imported and called."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ssdd_lightning import SegmentationModule
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.stages.hyperparameters import plain_hyperparameters
from ssdd_lightning.stages.trusted import check_trusted, only_trusted
from tests.helpers.networks import Segmenter
from tests.helpers.stages import write_stage

OWN = "tests.helpers.networks.Segmenter"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported, and leaves a file when it is."""
    trace = tmp_path / "was here"
    text = f"import pathlib, torch\npathlib.Path({str(trace)!r}).touch()\n"
    (tmp_path / "evil_module.py").write_text(text + "class Mine(torch.nn.Module):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield trace
    sys.modules.pop("evil_module", None)


def write_checkpoint(path: Path, **changed: Any) -> Path:
    """A checkpoint of a stage with a network of one's own, whose hyper-parameters are changed."""
    stage = SegmentationModule(3, Segmenter, backbone_weights=None)
    kept = plain_hyperparameters(SegmentationModule, dict(stage.hparams)) | changed
    classes = {"names": ["background", "a", "b"], "indices": [0, 1, 2]}
    content = {"state_dict": stage.state_dict(), "hyper_parameters": kept, "ssdd_classes": classes}
    torch.save({**content, "pytorch-lightning_version": "2.5.0", "callbacks": {}, "loops": {}}, path)
    return path


ATTACKS: dict[str, dict[str, Any]] = {
    "a class of another module": {"network": {"class_path": "evil_module.Mine"}},
    "its name alone": {"network": "evil_module.Mine"},
    "the stage": {"_class_path": "evil_module.Mine"},
    "what builds it": {"_instantiator": "evil_module.Mine"},
    "an optimizer": {"optimization": {"optimizer": {"class_path": "evil_module.Mine"}}},
    "an optimizer's name": {"optimization": {"optimizer": "evil_module.Mine"}},
    "an inner argument": {"network": {"class_path": OWN, "init_args": {"width": {"class_path": "evil_module.Mine"}}}},
    "the system's functions": {"network": "os._exit"},
    "functions behind torch": {"network": "torch.os._exit"},
    "functions behind ours": {"network": "ssdd_lightning.errors.signal.raise_signal"},
    "functions of torch": {"network": {"class_path": "torch.hub.load", "init_args": {"repo_or_dir": "a/b"}}},
    "a main program": {"network": {"class_path": "ssdd_lightning.__main__.main"}},
}


@pytest.mark.parametrize("changed", ATTACKS.values(), ids=ATTACKS)
def test_what_only_a_checkpoint_names_is_not_imported(tmp_path: Path, evil: Path, changed: dict[str, Any]) -> None:
    path = write_checkpoint(tmp_path / "evil.ckpt", **changed)
    with pytest.raises(InputError):
        load_stage(path, torch.device("cpu"))
    with pytest.raises(InputError, match=r"evil\.ckpt names '.*', but a checkpoint may name only networks.*--import"):
        SegmentationModule.load_from_checkpoint(path)
    assert not evil.exists()
    assert "evil_module" not in sys.modules


def test_commands_of_stages_do_not_import_it_either(tmp_path: Path, evil: Path, tiny_devkit: Path) -> None:
    path = write_checkpoint(tmp_path / "evil.ckpt", network={"class_path": "evil_module.Mine"})
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit})
    for words in ([], ["--import=nowhere_module"]):
        with pytest.raises(InputError, match=r"names 'evil_module\.Mine'|cannot import nowhere_module"):
            main(["test", f"--config={config}", f"--ckpt_path={path}", *words])
    assert not evil.exists()
    misfit = write_checkpoint(tmp_path / "misfit.ckpt", network=[[3]])
    with pytest.raises(InputError, match=r"hyper-parameters of .*misfit\.ckpt fit no stage"):
        main(["test", f"--config={config}", f"--ckpt_path={misfit}"])


def test_a_class_of_ones_own_loads_when_its_module_is_imported_or_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_checkpoint(tmp_path / "own.ckpt")
    assert isinstance(SegmentationModule.load_from_checkpoint(path).network, Segmenter)
    module = sys.modules.pop("tests.helpers.networks")
    monkeypatch.delattr("tests.helpers.networks", raising=False)
    try:
        with pytest.raises(InputError, match=r"names 'tests\.helpers\.networks\.Segmenter'"):
            load_stage(path, torch.device("cpu"))
        stage, _ = load_stage(path, torch.device("cpu"), modules=["tests.helpers.networks"])
        assert type(stage.network).__name__ == "Segmenter"
    finally:
        sys.modules["tests.helpers.networks"] = module


def test_what_a_configuration_names_too_is_allowed() -> None:
    given = {"network": {"class_path": "somewhere.Mine"}}
    built = []
    with pytest.raises(InputError, match=r"x names 'somewhere\.Mine'"), only_trusted(given, "x"):
        built.append("alone")
    with only_trusted(given, "x", named=["somewhere.Mine"]):
        built.append("named")
    for harmless in ({"backbone_weights": "res38_cls.pth"}, {"network": {"class_path": "torch.nn.Identity"}}, None):
        with only_trusted(harmless, "x"):
            built.append("harmless")
    assert built == ["named", *["harmless"] * 3]


@pytest.mark.parametrize(
    "content",
    [
        {"trainer": {"callbacks": [{"class_path": "evil_module.Mine"}]}},
        {"trainer": {"callbacks": {"class_path": "torch.os.system"}}},
        {"trainer": {"callbacks": [{"class_path": f"{nn.Module.__module__}", "init_args": {"f": "os.system"}}]}},
        {"model": {"class_path": "ssdd_lightning.SegmentationModule", "init_args": {"network": "subprocess.run"}}},
    ],
)
def test_a_configuration_may_be_held_to_trusted_classes(evil: Path, content: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="--trusted_classes: the configuration names"):
        check_trusted(content)
    assert not evil.exists()


def test_every_experiment_of_the_package_is_trusted(tmp_path: Path, evil: Path, tiny_devkit: Path) -> None:
    from ssdd_lightning.pipeline.config import read_config
    from ssdd_lightning.pipeline.experiments import PACKAGED

    for path in sorted(PACKAGED.glob("*/*.yaml")):
        check_trusted(read_config(path))
    network = {"class_path": "evil_module.Mine"}
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit}, network=network)
    with pytest.raises(InputError, match=r"--trusted_classes: the configuration names evil_module\.Mine"):
        main(["fit", f"--config={config}", "--trusted_classes"])
    assert not evil.exists()
