"""What counts when words, YAML files and a checkpoint say different things."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pytorch_lightning import Trainer

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional.refinement import MergeBiases
from ssdd_lightning.nn import SSDD
from ssdd_lightning.pipeline.config import StageConfig
from ssdd_lightning.pipeline.lightning import run_command, run_stage
from tests.helpers.stages import write_stage


class Fitted:
    """A segmentation stage that was fitted with a scale of 0.5, and its data."""

    def __init__(self, home: Path, devkit: Path) -> None:
        knowledge = devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
        self.home = home
        self.data = {"root": devkit, "knowledge": knowledge, "augmentation": {"crop_size": 32}, "batch_size": 6}
        self.fit({"max_epochs": 1, "limit_val_batches": 0})
        self.checkpoint = home / "checkpoints" / "last.ckpt"

    def fit(self, trainer: dict[str, Any]) -> None:
        main(["fit", f"--config={self.yaml(self.home, trainer=trainer, testing={'scales': [0.5], 'crf': False})}"])

    def yaml(self, folder: Path, stage: str = "SegmentationModule", **options: Any) -> Path:
        data = {**self.data, **({"advice": self.data["knowledge"]} if stage.startswith("Static") else {})}
        path = write_stage(folder / "stage.yaml", stage, self.home, data, **options)
        content = yaml.safe_load(path.read_text())
        if "testing" not in options:
            del content["model"]["init_args"]["testing"]
        path.write_text(yaml.safe_dump(content))
        return path


@pytest.fixture(scope="module")
def fitted(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Fitted:
    return Fitted(tmp_path_factory.mktemp("fitted"), tiny_devkit)


def protocol(out: Path) -> dict[str, Any]:
    """Scales, flip and CRF that the masks in a folder were made with."""
    found: dict[str, Any] = json.loads((out / "test.json").read_text())["settings"]["protocol"]
    return found


@pytest.mark.parametrize(
    ("options", "words", "scales"),
    [
        ({}, [], [0.5, 0.75, 1.0, 1.25, 1.5]),
        ({"testing": {"scales": [1.0]}}, [], [1.0]),
        ({}, ["--model.init_args.testing.scales=[1]"], [1.0]),
        ({"testing": {"scales": [1.5]}}, ["--model.init_args.testing.scales=[1]"], [1.0]),
        ({"stage": "StaticRefinementModule", "testing": {"scales": [1.0]}}, [], [1.0]),
    ],
    ids=["default", "YAML", "words", "words and YAML", "YAML of another stage"],
)
def test_the_configuration_decides_how_a_network_is_used(
    fitted: Fitted, tmp_path: Path, options: dict[str, Any], words: list[str], scales: list[float]
) -> None:
    options = {"testing": {"crf": False}} | options
    options["testing"].setdefault("crf", False)
    config = fitted.yaml(tmp_path, mask_stride=8, **options)
    out = f"--output.output_dir={tmp_path / 'out'}"
    main(["test", f"--config={config}", f"--ckpt_path={fitted.checkpoint}", out, *words])
    assert protocol(tmp_path / "out") == {"scales": scales, "flip": "stage" not in options, "crf": None}


def test_values_count_as_words_do(fitted: Fitted, tmp_path: Path) -> None:
    settings = {"ckpt_path": str(fitted.checkpoint), "output.output_dir": str(tmp_path / "out")}
    config = StageConfig((fitted.yaml(tmp_path, testing={"scales": [1.0]}),)).with_settings(settings)
    run_stage("test", config)
    assert protocol(tmp_path / "out")["scales"] == [1.0]


def test_how_a_network_is_used_makes_no_other_fit(fitted: Fitted, caplog: pytest.LogCaptureFixture) -> None:
    trainer = {"max_epochs": 1, "limit_val_batches": 0}
    config = fitted.yaml(fitted.home, trainer=trainer, testing={"scales": [1.0], "flip": False})
    main(["fit", f"--config={config}"])
    assert "nothing to do" in caplog.text


class Leaning(SSDD):
    """An SSDD module of a user's own."""

    def __init__(self, num_classes: int, high_channels: int, low_channels: int, lean: float) -> None:
        super().__init__(num_classes, high_channels, low_channels, 8, biases=MergeBiases(dd_bias=lean))


def leaning(num_classes: int, high_channels: int, low_channels: int) -> SSDD:
    return Leaning(num_classes, high_channels, low_channels, lean=0.3)


@pytest.mark.parametrize(
    "ssdd",
    [
        {"class_path": f"{__name__}.Leaning", "init_args": {"lean": 0.3}},
        f"{__name__}.leaning",
        {"class_path": "ssdd_lightning.SSDD", "init_args": {"width": 8, "biases": {"dd_bias": 0.1}}},
    ],
    ids=["class", "function", "ours"],
)
def test_the_ssdd_module_is_the_checkpoint_s_and_its_biases_are_asked_for(
    fitted: Fitted, tmp_path: Path, ssdd: Any
) -> None:
    trainer = {"max_epochs": 1, "limit_val_batches": 0}
    root = f"--trainer.default_root_dir={tmp_path}"
    config = fitted.yaml(tmp_path, "StaticRefinementModule", trainer=trainer, ssdd=ssdd, testing={"scales": [1.0]})
    main(["fit", f"--config={config}", root])
    checkpoint = f"--ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"
    own = isinstance(ssdd, str) or "lean" in ssdd["init_args"]
    asked = [] if own else ["--model.init_args.ssdd.init_args.biases.dd_bias=0.3"]
    command = run_command(["predict", f"--config={config}", root, checkpoint, *asked])
    assert isinstance(command.model.ssdd, Leaning) == own
    assert command.model.ssdd.biases.dd_bias == 0.3


def test_a_dead_loader_process_is_a_sentence_whatever_error_became_of_it(
    fitted: Fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's handler raises wherever the parent is; `inspect.getfullargspec` makes a TypeError of it."""

    def run(*_: Any, **__: Any) -> None:
        try:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error

    monkeypatch.setattr(Trainer, "_run", run)
    path = fitted.yaml(tmp_path, trainer={"max_epochs": 1, "default_root_dir": str(tmp_path)})
    with pytest.raises(InputError, match=r"^a loader process ended \(Bus error\): memory or /dev/shm was short"):
        main(["fit", f"--config={path}"])
