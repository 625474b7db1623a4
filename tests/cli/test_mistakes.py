import time
from pathlib import Path

import pytest

from ssdd_lightning.cli.main import main
from ssdd_lightning.cli.mistakes import MEANT, VALUES, check_stage_words
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.stage_help import stage_help

STAGE = ["fit", "--config=quickstart/dynamic"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ([], "give its YAML, `ssdd fit --config FILE.yaml`, or one of the package"),
        (["dynamic.yaml"], "did you mean `ssdd fit --config dynamic.yaml`?"),
        (
            ["--lr", "0.1"],
            r"no option 'lr' \(on the command line\); did you mean --model.init_args.optimization.learning_r",
        ),
        (["--epohcs=3"], "did you mean --trainer.max_epochs?"),
        (["--seed", "3"], "did you mean --seed_everything?"),
        (["--confg=x.yaml"], "did you mean --config?"),
        (["--zzz"], r"expected one of a section \(--data.\*, "),
        (["--trainer.logger", "wandb"], "found 'wandb'; did you mean WandbLogger?"),
        (["--trainer.precision=fp16"], "found 'fp16'; did you mean 16-mixed?"),
    ],
)
def test_a_likely_mistake_is_answered_at_once(words: list[str], answer: str) -> None:
    begun = time.perf_counter()
    with pytest.raises(InputError, match=answer):
        main(["fit", *words])
    assert time.perf_counter() - begun < 1


@pytest.mark.parametrize(
    "words",
    [
        ["--config", "x.yaml", "--ckpt_path", "y.ckpt", "--ckpt-path=y", "--trainer.logger=WandbLogger"],
        ["--trainer.precision", "16-mixed", "--data.root", "wandb", "-c", "x.yaml", "--model=SegmentationModule"],
    ],
)
def test_right_words_pass(words: list[str]) -> None:
    check_stage_words(["fit", *words])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--trainer.accelerator=gpu", "the trainer cannot be built: .*gpu.*"),
        ("--trainer.logger=MLFlowLogger", "MLFlowLogger cannot be built: Requirement 'mlflow.* not met"),
    ],
)
def test_what_this_machine_lacks_is_one_sentence(
    option: str, message: str, tiny_devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        main([*STAGE, f"--data.root={tiny_devkit}", option])


def test_every_suggestion_is_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    for dataset in ("voc", "folder"):
        with pytest.raises(SystemExit):
            main(["fit", "--dataset", dataset, "--help-all"])
    with pytest.raises(SystemExit):
        main(["fit", "--model.help=SegmentationModule"])
    listed = capsys.readouterr().out + stage_help(STAGE, "train")
    for meant in {*MEANT.values(), *VALUES}:
        assert meant.removeprefix("model.init_args.") in listed, meant


def test_the_help_of_a_stage_fits_two_screens_and_has_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*STAGE, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 110
    assert max(map(len, lines)) <= 120
    assert "--model.init_args. (DynamicRefinementModule)" in lines
    shown = {line.split()[0]: line.split()[1] for line in lines if line.startswith("  ")}
    assert shown["optimization.learning_rate"] == "0.00025"
    assert shown["ssdd.init_args.width"] == "64"
    assert shown["augmentation.crop_size"] == "160"
    assert shown["losses.per_class"] == "true"
    assert "high_channels" not in "".join(shown)


def test_help_without_a_config_says_how_to_get_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "-h"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: ssdd test --config FILE")
    assert "`ssdd test --config voc2012/dynamic --help` lists the options of that stage, too." in said


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: 3", "expected options below model, found 3"),
        ("model: {class_path: ssdd_lightning.Typo}", "there is no class ssdd_lightning.Typo"),
        ("model: {class_path: nowhere.Stage}", "there is no class nowhere.Stage"),
    ],
)
def test_help_of_a_wrong_yaml_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "stage.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        main(["fit", f"--config={tmp_path / 'stage.yaml'}", "--help"])
