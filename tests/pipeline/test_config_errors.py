"""What the parser says of mistakes in options and YAML files: one sentence with place and remedy.

The command `ssdd` finds most of them earlier, see tests/cli/test_mistakes.py.
"""

from pathlib import Path

import pytest
import yaml

from ssdd_lightning.cli.main import entry_point
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config_errors import config_sentence
from ssdd_lightning.pipeline.lightning import run_command

STATIC = {
    "seed_everything": 0,
    "model": {
        "class_path": "ssdd_lightning.StaticRefinementModule",
        "init_args": {
            "network": {
                "class_path": "ssdd_lightning.nn.SegmentationNetwork",
                "init_args": {"backbone": "test_efficientnet"},
            },
            "ssdd": {"class_path": "ssdd_lightning.nn.SSDD", "init_args": {"width": 8}},
            "crf": {"gaussian_sxy": 1},
            "optimization": {"learning_rate": 0.001},
        },
    },
    "data": {"root": "nowhere", "augmentation": {"crop_size": 64}},
    "trainer": {
        "max_epochs": 1,
        "callbacks": [{"class_path": "ssdd_lightning.callbacks.RefinementPictures", "init_args": {"num_images": 1}}],
    },
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "static.yaml"
    path.write_text(yaml.safe_dump(STATIC))
    return path


def complaint(*words: object) -> str:
    """What the parser says of the words; one line."""
    with pytest.raises(InputError) as error:
        run_command([str(word) for word in words])
    sentence = str(error.value)
    assert "\n" not in sentence
    return sentence


MISSPELT = [
    ("learning_rate", "lerning_rate", "Optimization", "model.init_args.optimization"),
    ("backbone", "bakbone", "SegmentationNetwork", "model.init_args.network.init_args"),
    ("width", "widht", "SSDD", "model.init_args.ssdd.init_args"),
    ("gaussian_sxy", "gausian_sxy", "CRFOptions", "model.init_args.crf"),
    ("data.augmentation.crop_size", "data.augmentation.crop_sise", "`ssdd fit`", ""),
    ("trainer.max_epochs", "trainer.max_epoch", "`ssdd fit`", ""),
    ("seed_everything", "seed_everythin", "`ssdd fit`", ""),
]


@pytest.mark.parametrize(("right", "wrong", "holder", "section"), MISSPELT)
def test_a_misspelt_option_of_a_file(config: Path, right: str, wrong: str, holder: str, section: str) -> None:
    content = yaml.safe_load(config.read_text())
    *sections, key = [*(section.split(".") if section else []), *wrong.split(".")]
    target = content
    for name in sections:
        target = target[name]
    target[key] = 1
    config.write_text(yaml.safe_dump(content))
    (line,) = [n for n, text in enumerate(config.read_text().splitlines(), start=1) if f"{key}:" in text]
    found = complaint("fit", f"--config={config}")
    assert found == f"{holder} has no option {wrong!r} ({config}, line {line}); did you mean {right}?"


@pytest.mark.parametrize(("right", "wrong", "holder", "section"), MISSPELT)
@pytest.mark.parametrize("join", [True, False])
def test_a_misspelt_option_on_the_command_line(
    config: Path, right: str, wrong: str, holder: str, section: str, join: bool
) -> None:
    option = "--" + ".".join(filter(None, [section, wrong]))
    words = [f"{option}=1"] if join else [option, "1"]
    found = complaint("fit", "--config", config, *words)
    assert holder in found
    assert f"no option {wrong.removeprefix('model.init_args.')!r} (on the command line)" in found
    assert right in found


def test_a_misspelt_option_in_a_list_of_objects(config: Path) -> None:
    config.write_text(config.read_text().replace("num_images", "numimages"))
    found = complaint("fit", f"--config={config}")
    assert found.startswith("RefinementPictures has no option 'numimages' (")
    assert found.endswith("did you mean num_images?")


def test_an_option_like_no_other_gets_the_list(config: Path) -> None:
    found = complaint("fit", f"--config={config}", "--model.init_args.ssdd.init_args.qqq=1")
    assert "expected one of num_classes" in found
    assert "width" in found
    assert "`ssdd fit --help`" in complaint("fit", f"--config={config}", "--qqq=1")


def test_a_word_too_many(config: Path) -> None:
    assert "has no option 'extra' (on the command line)" in complaint("fit", f"--config={config}", "extra")


@pytest.mark.parametrize(
    ("option", "name", "kind", "value"),
    [
        ("data.augmentation.crop_size", "data.augmentation.crop_size", "int", "large"),
        ("model.init_args.optimization.learning_rate", "model.optimization.learning_rate", "float", "fast"),
    ],
)
def test_a_value_of_the_wrong_type(config: Path, option: str, name: str, kind: str, value: str) -> None:
    found = complaint("fit", f"--config={config}", f"--{option}={value}")
    assert found == f"option {name}: expected {kind}, found {value!r} (on the command line)."


def test_a_value_of_the_wrong_type_in_a_file(config: Path) -> None:
    config.write_text(config.read_text().replace("crop_size: 64", "crop_size: large"))
    assert (
        complaint("fit", f"--config={config}")
        == f"option data.augmentation.crop_size: expected int, found 'large' ({config}, line 3)."
    )


def test_a_group_of_options_that_is_null(config: Path) -> None:
    found = complaint("fit", f"--config={config}", "--data.augmentation=null")
    expected = "expected options below it, or a YAML file of them, found null (on the command line)."
    assert found == f"option data.augmentation: {expected}"


@pytest.mark.parametrize(
    ("wrong", "remedy"),
    [
        ("ssdd_lightning.nn.SegmentationNet", "did you mean ssdd_lightning.nn.SegmentationNetwork?"),
        ("ssdd_lightning.nn.Foo", "PAR, SSDD, SSDDOutput, SegmentationLike"),
        ("nowhere.Foo", "give the import path of a class."),
    ],
)
def test_a_class_that_is_not_there(config: Path, wrong: str, remedy: str) -> None:
    config.write_text(config.read_text().replace("ssdd_lightning.nn.SegmentationNetwork", wrong))
    found = complaint("fit", f"--config={config}")
    assert found.startswith(f"there is no class {wrong} ({config}, line ")
    assert remedy in found


def test_a_key_beside_class_path(config: Path) -> None:
    content = yaml.safe_load(config.read_text())
    content["model"]["init_arg"] = {}
    config.write_text(yaml.safe_dump(content))
    found = complaint("fit", f"--config={config}")
    assert "option model: expected the class_path of a Stage, its arguments in init_args, and nothing else" in found
    assert str(config) in found


@pytest.mark.parametrize("text", ["", "- 1\n", "just words\n"])
def test_a_file_without_sections(config: Path, text: str) -> None:
    config.write_text(text)
    found = complaint("fit", f"--config={config}")
    assert found == f"expected sections such as model, data and trainer in {config}, found none."


def test_a_file_that_is_no_yaml(config: Path) -> None:
    config.write_text("model: [1,\n  b: }\n")
    found = complaint("fit", "--config", config)
    assert found.startswith(f"expected YAML in {config}, which cannot be read: while parsing")
    assert "line 2, column 6" in found
    config.write_bytes(b"\xff\xfe\x00")
    assert f"expected YAML in {config}" in complaint("fit", "--config", config)


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    found = complaint("fit", "-c", tmp_path / "no.yaml")
    assert found.startswith(f"expected a YAML file at {tmp_path / 'no.yaml'}: ")


def test_options_of_other_subcommands(config: Path) -> None:
    assert "no option 'return_predictions'" in complaint("predict", f"--config={config}", "--return_predictions=true")
    found = complaint("predict", f"--config={config}", "--data.rooot=1")
    assert found == "`ssdd predict` has no option 'data.rooot' (on the command line); did you mean data.root?"


def test_the_process_prints_one_line_and_exits_with_2(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["ssdd", "fit", f"--config={config}", "--model.init_args.lerning_rate=1"])
    with pytest.raises(SystemExit) as stop:
        entry_point()
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("ssdd: error: `ssdd fit` has no option 'model.init_args.lerning_rate' (on the command ")
    assert shown.err.count("\n") == 1


def test_a_message_of_an_unknown_kind_is_kept(config: Path) -> None:
    message = 'Parser key "data.augmentation.crop_size":\n  - Something   new\n  Given value: 3'
    words = ["fit", f"--config={config}"]
    assert (
        config_sentence(message, words, [])
        == f'Parser key "data.augmentation.crop_size": Something new ({config}, line 3).'
    )
    assert config_sentence("something else", words, []) == "something else."
