"""A checkpoint decides nothing about what code is imported and called."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import _typehints
from torch import nn

from ssdd_lightning import SegmentationModule
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.segment_checkpoint import load_stage
from ssdd_lightning.pipeline.config import StageConfig
from ssdd_lightning.pipeline.steps import StageStep
from ssdd_lightning.stages.hyperparameters import plain_hyperparameters
from ssdd_lightning.stages.trusted import check_trusted, import_modules, only_trusted, only_trusted_imports
from tests.helpers.networks import Segmenter
from tests.helpers.stages import write_stage

SUBPROCESS = "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler"
OWN = "tests.helpers.networks.Segmenter"
HERE = "was here"
RUN = f"!!python/object/apply:os.system [\"touch '{HERE}'\"]"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported, and leaves a file when it is."""
    trace = tmp_path / HERE
    monkeypatch.chdir(tmp_path)
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
    "a function that unpickles": {"network": {"class_path": "yaml.unsafe_load", "init_args": {"stream": RUN}}},
    "a function that imports": {
        "network": {
            "class_path": "ssdd_lightning.stages.trusted.import_modules",
            "init_args": {"names": ["evil_module"]},
        }
    },
    "a function that writes": {
        "network": {"class_path": "ssdd_lightning.storage.files.write_text", "init_args": {"path": HERE, "text": ""}}
    },
    "a method that unpickles": {
        "network": {
            **{"class_path": "ssdd_lightning.SegmentationModule.load_from_checkpoint"},
            **{"init_args": {"checkpoint_path": "evil.pt"}, "dict_kwargs": {"weights_only": False}},
        }
    },
    "a command": {"network": {"class_path": "ssdd_lightning.cli.main.main", "init_args": {"args": ["fit"]}}},
    "a function of timm": {"network": {"class_path": "timm.create_model", "init_args": {"checkpoint_path": "evil.pt"}}},
    "what torch looks for": {"network": "torch.classes.evil.Mine"},
    "a long name": {"network": {"class_path": f"torch{'.a' * 2000}"}},
    "in a set": {"network": {"class_path": OWN, "init_args": {"width": {"os.system"}}}},
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


HIDDEN: dict[str, dict[str, Any]] = {
    "YAML": {"network": f"{{class_path: os.system, init_args: {{command: touch '{HERE}'}}}}"},
    "JSON": {"network": '{"class_path": "evil_module.Mine"}'},
    "lines": {"network": "class_path: evil_module.Mine"},
    "options": {"optimization": "{optimizer: {class_path: evil_module.Mine}}"},
    "an option": {"optimization": {"lr_scheduler": "{class_path: evil_module.Mine}"}},
    "a file": {"optimization": "hidden"},
    "an address": {"optimization": "data://,{optimizer: {class_path: evil_module.Mine}}"},
}


@pytest.mark.parametrize("changed", HIDDEN.values(), ids=HIDDEN)
def test_a_text_of_a_checkpoint_stays_a_text(
    tmp_path: Path, evil: Path, tiny_devkit: Path, changed: dict[str, Any]
) -> None:
    (tmp_path / "hidden").write_text("optimizer: {class_path: evil_module.Mine}")
    path = write_checkpoint(tmp_path / "evil.ckpt", **changed)
    with pytest.raises(InputError, match=r"cannot load .*evil\.ckpt"):
        load_stage(path, torch.device("cpu"))
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit})
    with pytest.raises(InputError, match=r"the hyper-parameters of .*evil\.ckpt fit no stage"):
        main(["test", f"--config={config}", f"--ckpt_path={path}"])
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


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": "x", "global_step": 1},
        {"global_step": None},
        {"hyper_parameters": ["x"]},
        {"ssdd_scores": {"val/mIoU": "x"}},
        {"state_dict": {"network.backbone.early.weight": 3}},
        {"ssdd_classes": {"names": 3}},
        {"ssdd_seed": "x"},
        {"ssdd_skipped_steps": "x"},
        {"optimizer_states": [{"state": {0: 3}}]},
        {"pytorch-lightning_version": "x"},
        {"callbacks": {"Watch": 3}},
        {"loops": {}},
    ],
    ids=str,
)
def test_a_checkpoint_of_other_contents_is_a_sentence(
    tmp_path: Path, tiny_devkit: Path, changed: dict[str, Any]
) -> None:
    path = write_checkpoint(tmp_path / "odd.ckpt")
    content = torch.load(path, weights_only=True)
    content.pop("ssdd_classes")
    torch.save(content | changed, path)
    config = write_stage(
        tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit, "classes": ["cat", "dog"]}
    )
    with pytest.raises(
        InputError, match=r"cannot read the checkpoint .*odd\.ckpt|the checkpoint does not fit this run"
    ):
        main(["test", f"--config={config}", f"--ckpt_path={path}"])


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


@pytest.mark.parametrize("name", ["", ".", ".x", "nowhere_module"])
def test_a_module_that_cannot_be_imported_is_a_sentence(name: str) -> None:
    with pytest.raises(InputError, match="--import: cannot import"):
        import_modules([name])


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
        {"trainer": {"logger": {"class_path": "ssdd_lightning.stages.trusted.import_modules"}}},
        {"trainer": {"logger": {"class_path": "pytorch_lightning.cli.LightningCLI"}}},
        {"trainer": {"logger": {"class_path": f"{SUBPROCESS}", "init_args": {"entrypoint": "touch", "args": [HERE]}}}},
        {"trainer": {"logger": {"class_path": f"torch{'.a' * 2000}"}}},
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


@pytest.mark.parametrize("changed", [{"network": "{class_path: evil_module.Mine}"}, {"optimization": "./hidden"}])
def test_texts_and_files_of_a_configuration_are_held_to_them_too(
    tmp_path: Path, evil: Path, tiny_devkit: Path, changed: dict[str, Any]
) -> None:
    (tmp_path / "hidden").write_text("optimizer: {class_path: evil_module.Mine}")
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit}, **changed)
    with pytest.raises(InputError, match=r"--trusted_classes: the configuration names evil_module\.Mine"):
        main(["fit", f"--config={config}", "--trusted_classes"])
    assert not evil.exists()


def test_new_processes_of_a_run_are_held_to_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = StageConfig(settings={"trainer.devices": 2, "trainer.accelerator": "cpu"})
    step = StageStep("fit", tmp_path, (), "fit", config)
    started: list[list[str]] = []
    monkeypatch.setattr("subprocess.run", lambda words, check: started.append(words) or SimpleNamespace(returncode=0))
    step.run()
    with only_trusted_imports():
        step.run()
    assert [words[-1] == "--trusted_classes" for words in started] == [False, True]


def test_trusted_classes_are_built(tmp_path: Path, tiny_devkit: Path) -> None:
    network = {"class_path": "torch.nn.Identity"}
    config = write_stage(tmp_path / "s.yaml", "SegmentationModule", tmp_path, {"root": tiny_devkit}, network=network)
    with pytest.raises(InputError, match="Identity cannot be the network of this stage"):
        main(["fit", f"--config={config}", "--trusted_classes"])
    assert _typehints.import_object.__module__ == _typehints.__package__ + "._util"
