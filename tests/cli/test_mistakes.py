import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ssdd_lightning import SegmentationModule
from ssdd_lightning.cli.main import main
from ssdd_lightning.cli.mistakes import MEANT, VALUES, check_stage_words
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.stage_help import stage_help
from tests.helpers.processes import python
from tests.helpers.stages import write_stage

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PICTURES = {"class_path": "ssdd_lightning.callbacks.RefinementPictures"}
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
        (["--cfg", "x.yaml"], "did you mean --config?"),
        (["--config=missing.yaml"], "expected a YAML file at missing.yaml: No such file"),
        (["--config=voc2021/dynamic"], "expected a YAML file at voc2021/dynamic: No such file"),
        ([STAGE[1], "--ckpt_path=no.ckpt"], "expected a checkpoint at no.ckpt, found no file"),
        (["--trainer.logger", "wandb"], "'wandb' .on the command line.; did you mean WandbLogger?"),
        (["--trainer.precision=fp16"], "'fp16' .on the command line.; did you mean 16-mixed?"),
    ],
)
def test_a_likely_mistake_is_answered_at_once(words: list[str], answer: str) -> None:
    begun = time.process_time()
    with pytest.raises(InputError, match=answer):
        main(["fit", *words])
    assert time.process_time() - begun < 1


MISSPELT = [
    ("--trainer.max_epoch=3", "no option 'trainer.max_epoch' .on the command line.; did you mean trainer.max_epochs?"),
    ("--trainer.max-epoch=3", "did you mean trainer.max_epochs?"),
    ("--data.crop_sise=320", "did you mean data.augmentation.crop_size?"),
    ("--data.batchsize=8", "did you mean data.batch_size?"),
    ("--data={batchsize: 8}", "did you mean data.batch_size?"),
    ("--model.optimization.learning_rat=1", "did you mean model.optimization.learning_rate?"),
    ("--model.init_args.optimization.learning_rat=1", "did you mean model.init_args.optimization.learning_rate?"),
    ("--model.init_args.dd_bia=1", "did you mean model.init_args.ssdd.init_args.biases.dd_bias?"),
    ("--model.init_args.network.init_args.backbon=x", "did you mean model.init_args.network.init_args.backbone?"),
    ("--checkpoint.every_n_minute=3", "did you mean checkpoint.every_n_minutes?"),
    ("--output.folder=x", "expected one of output.output_dir"),
    ("--trainer.max_epochs=three", "trainer.max_epochs cannot be 'three' .on the command line.; expected int"),
    ("--data.augmentation.crop_size=big", "data.augmentation.crop_size cannot be 'big' .*; expected int"),
    (
        "--model.init_args.bad_sample_rule=all",
        "no option 'model.init_args.bad_sample_rule' .*; it is gone, and always \"any\" now",
    ),
    ("--model.init_args.refinement.advice=cfr", "cannot be 'cfr' .*; did you mean crf?"),
    (
        "--model=DynamicRefinement",
        "no class DynamicRefinement .*; did you mean ssdd_lightning.DynamicRefinementModule?",
    ),
    (
        "--model.init_args.testing=null",
        "init_args.testing cannot be null .on the command line.; give options below it, such as scales, flip, crf, or",
    ),
    ("--model.testing=null", "model.testing cannot be null"),
    ("--model.init_args.network=null", "network cannot be null .*; give a class_path below it, or leave it out."),
    ("--model.init_args.ssdd.init_args.biases=null", "biases cannot be null .*, such as dd_bias, class_bias, "),
    ("--model.init_args.testing.scales=null", "testing.scales cannot be null .*; give a list, or leave it out."),
    ("--data.batch_size=null", "data.batch_size cannot be null .*; give int, or leave it out."),
    ("--data.augmentation=null", "data.augmentation cannot be null .*, such as crop_size, "),
    ("--dataset=voc07", "dataset: expected one of voc, coco, folder, found 'voc07'"),
]


@pytest.mark.parametrize(("option", "answer"), MISSPELT)
def test_a_misspelt_option_of_a_section_is_answered_at_once(option: str, answer: str) -> None:
    begun = time.process_time()
    with pytest.raises(InputError, match=answer):
        main([*STAGE, option])
    assert time.process_time() - begun < 1.5


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        (
            {"trainer": {"max_epoch": 3}},
            r"no option 'trainer.max_epoch' \(.*own.yaml, line 3\); did you mean trainer.max_",
        ),
        ({"extend": "voc2012/dynamic"}, r"no option 'extend' \(.*own.yaml, line 1\); did you mean extends?"),
        ({"trianer": {"max_epochs": 3}}, r"no option 'trianer' \(.*own.yaml, line 2\); did you mean trainer?"),
        (
            {"model": {"class_path": "ssdd_lightning.Dynamic"}},
            r"no class ssdd_lightning.Dynamic \(.*own.yaml, line 3",
        ),
        (
            {"model": {"init_args": {"ssdd": {"init_args": {"biases": None}}}}},
            r"model.init_args.ssdd.init_args.biases cannot be null \(.*own.yaml, line 6\); give options below it, such",
        ),
        ({"trainer": None}, r"trainer cannot be null \(.*own.yaml, line 2\); give options below it, or leave it out."),
        (
            {"model": {"init_args": {"network": {"init_args": None}}}},
            r"model.init_args.network.init_args cannot be null \(.*own.yaml, line 5\); give its arguments, or",
        ),
        (
            {"trainer": {"benchmark": True, "logger": [{"class_path": "CSVLogger"}], "max_epochs": "benchmark"}},
            r"trainer.max_epochs cannot be 'benchmark' \(.*own.yaml, line 6\); expected int",
        ),
        ({"data": {"splits": None}}, r"data.splits cannot be null \(.*own.yaml, line 2\); give options"),
        ({"trainer": {"logger": "wandb"}}, r"'wandb' \(.*own.yaml, line 3\); did you mean WandbLogger"),
        (
            {"trainer": {"callbacks": [PICTURES | {"init_args": {"num_image": 3}}]}},
            "no option 'trainer.callbacks.init_args.num_image' .*; did you mean trainer.callbacks.init_args.num_im",
        ),
    ],
)
def test_a_mistake_in_a_yaml_is_found_in_its_line(content: dict[str, Any], answer: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"extends": str(EXPERIMENTS / "quickstart" / "dynamic.yaml"), **content}))
    with pytest.raises(InputError, match=answer):
        main(["fit", f"--config={path}"])


@pytest.mark.parametrize(
    ("own", "words", "place"),
    [
        ("trainer: {precision: 32-true}", ['--trainer={"precision": "fp16"}'], "on the command line"),
        ("trainer: {max_steps: 5}", ["--trainer", "{max_steps: many}"], "on the command line"),
        ("data: {augmentation: {crop_size: 3}}", ["--data.crop_size=big"], "on the command line"),
        ("trainer:\n  max_steps: 4\n  max_steps: many", [], "own.yaml, line 3"),
        ("trainer:\n  max_steps: many\n  max_epochs: many", ["--trainer.max_steps=1"], "own.yaml, line 3"),
        ("data:\n  batch_size: 3\n  <<: {num_workers: null}", [], "own.yaml, line 3"),
        (
            "trainer:\n  callbacks:\n  - class_path: ssdd_lightning.callbacks.RefinementPictures\n"
            "    init_args: {num_images: 3}\n  - class_path: ssdd_lightning.callbacks.RefinementPictures\n"
            "    init_args: {num_images: many}",
            [],
            "own.yaml, line 6",
        ),
    ],
)
def test_the_place_is_that_of_the_wrong_value(own: str, words: list[str], place: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(own)
    with pytest.raises(InputError, match=place):
        main([*STAGE, f"--config={path}", *words])


def test_a_setting_of_a_run_is_checked_before_its_first_step(tiny_devkit: Path, tmp_path: Path) -> None:
    words = ["run", "quickstart", f"--root={tiny_devkit}", f"--out={tmp_path / 'run'}"]
    with pytest.raises(InputError, match=r"no option 'trainer.max_epoch' \(on the command line\); did you mean"):
        main([*words, "--set", "trainer.max_epoch=1"])
    assert not (tmp_path / "run").exists()


def test_no_heavy_module_is_loaded_for_an_answer() -> None:
    code = "import sys; from ssdd_lightning.cli.main import main\n"
    code += f"try: main({[*STAGE, MISSPELT[5][0]]})\nexcept ValueError: pass\nmain({[*STAGE, '--help']})\n"
    code += "print([m for m in ('torch', 'pytorch_lightning', 'numpy') if m in sys.modules])"
    assert python(code).splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "path", sorted(EXPERIMENTS.glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_shipped_files_pass(path: Path) -> None:
    if path.stem != "sweep":  # W&B's
        check_stage_words(["fit", "--config", str(path)])


@pytest.mark.parametrize(
    "words",
    [
        ["--ckpt_path", __file__, "--ckpt-path=y", "--trainer.logger=WandbLogger", "--print_config"],
        ["--trainer.precision", "16-mixed", "--data.root", "wandb", "--model=SegmentationModule"],
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=x", "--trainer.logger.save_dir=x"],
        ["--model.init_args.ssdd.class_path=my.SSDD", "--model.init_args.ssdd.init_args.anything=3"],
        ["--model.init_args.optimization.optimizer=Adam", "--model.init_args.optimization.optimizer.eps=1"],
        ["--model.init_args.optimization.optimizer=null", "--data.augmentation.transform=null"],
        ["--trainer.max_epochs=null", "--trainer.limit_val_batches=1e-1", "--trainer.max_time=00:01:00:00"],
        ["--data={root: x, augmentation: {crop_size: 3}}", "--trainer.logger=false", "--trainer.devices=-1"],
        ["--trainer.strategy.class_path=DDPStrategy", "--trainer.strategy.init_args.find_unused_parameters=true"],
    ],
)
def test_right_words_pass(words: list[str]) -> None:
    check_stage_words([*STAGE, *words])


OWN = """
import dataclasses
from collections.abc import Callable
from typing import Optional
from pytorch_lightning import LightningModule
from ssdd_lightning import SegmentationModule
from ssdd_lightning.nn import SegmentationNetwork
from ssdd_lightning.stages.values import Optimization
Width = Optional[int]
class Net(SegmentationNetwork):
    def __init__(self, num_classes: int, width: int = 3, **options): ...
class Logs(LightningModule):
    pass
class Mixed(Logs, SegmentationModule):
    pass
class This(SegmentationModule):
    def __init__(this, extra: int = 3, **options): ...
class Unset(SegmentationModule):
    def __init__(self, made: Callable[[int], int] = print, width: Width = 3, **options): ...
@dataclasses.dataclass(frozen=True)
class Rates(Optimization):
    warmup: int = 3
"""


@pytest.mark.parametrize(
    "words",
    [
        ["--model.network=own_of_tests.Net", "--model.network.width=3"],
        ["--model.init_args.network.class_path=own_of_tests.Net", "--model.network.width=3"],
        ["--model=own_of_tests.Mixed", "--model.mask_stride=4"],
        ["--model=own_of_tests.This", "--model.extra=4"],
        ["--model=own_of_tests.Unset", "--model.made=null", "--model.width=null", "--trainer.fast_dev_run=null"],
        ["--model.optimization={class_path: own_of_tests.Rates, init_args: {warmup: 2}}"],
    ],
)
def test_classes_of_ones_own_pass(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_of_tests.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    check_stage_words([*STAGE, *words])


def test_a_stage_of_the_calling_program_passes_by_its_name_alone() -> None:
    class StageOfTheProgram(SegmentationModule):
        pass

    check_stage_words([*STAGE, f"--model={StageOfTheProgram.__name__}"])


@pytest.mark.parametrize("text", ["trainer: {benchmark: 'true'}", "trainer: {barebones: 'yes'}"])
def test_quoted_truth_values_pass(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    check_stage_words([*STAGE, f"--config={tmp_path / 'own.yaml'}"])


def test_a_yaml_may_name_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(f"ckpt_path: {__file__}")
    check_stage_words(["validate", STAGE[1], f"--config={tmp_path / 'own.yaml'}"])


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("trainer: x", "Unable to load config"),
        (
            "checkpoint: [x]",
            r"checkpoint cannot be \['x'\] \(.*own.yaml, line 1\); give options below it, or leave it out.",
        ),
        ("data: 3", "data cannot be 3 "),
        ("3: 4", "no option '3'"),
        ("trainer: {3: 4}", "no option 'trainer.3'"),
        ("data: {true: 3}", "no option 'data.True'"),
        ("model: {init_args: [1]}", "'list' object has no attribute 'keys'"),
        ("model: {init_args: {network: {class_path: torch.optim.lr_scheduler}}}", "import path for object"),
    ],
)
def test_a_yaml_of_another_shape_is_one_sentence(text: str, answer: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=answer):
        main([*STAGE, f"--config={tmp_path / 'own.yaml'}"])


def test_the_configuration_that_a_fit_writes_passes(tiny_devkit: Path, tmp_path: Path) -> None:
    path = write_stage(tmp_path / "s.yaml", "ClassificationModule", tmp_path / "run", {"root": tiny_devkit})
    assert main(["fit", f"--config={path}"]) == 0
    (written,) = (tmp_path / "run").rglob("config.yaml")
    check_stage_words(["fit", f"--config={written}"])


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
    assert shown["optimization.learning_rate"] == "0.0003"
    assert shown["ssdd.init_args.width"] == "64"
    assert shown["augmentation.crop_size"] == "160"
    assert shown["per_class_loss"] == "true"
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


@pytest.mark.parametrize("option", ["--print_config", "--print-config", "--print_config=comments"])
def test_what_only_shows_the_configuration_needs_no_checkpoint(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["predict", "--config=quickstart/static"]
    check_stage_words([*words, option])
    with pytest.raises(InputError, match="expected the checkpoint of a trained stage"):
        check_stage_words(words)
