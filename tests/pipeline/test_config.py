"""YAML files of a stage: what they extend, settings in place of theirs, and options under their old names."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config import (
    StageConfig,
    chosen_dataset,
    merged,
    parse_settings,
    parse_value,
    read_config,
    with_contents,
)
from ssdd_lightning.pipeline.lightning import run_command
from ssdd_lightning.renamed import RENAMED, checkpoint_with_new_names, with_new_names, words_with_new_names


@pytest.fixture
def yamls(tmp_path: Path) -> Path:
    for name in ("coco", "folder", None):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"dataset": name, "data": {}} if name else {"data": {}}))
    (tmp_path / "broken.yaml").write_text("{[")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "voc"),
        (["--dataset", "coco"], "coco"),
        (["--dataset=coco", "--dataset", "folder"], "folder"),
        (["--config=None.yaml"], "voc"),
        (["--config=coco.yaml"], "coco"),
        (["--config", "coco.yaml", "-c", "folder.yaml", "--config=None.yaml"], "folder"),
        (["--dataset=voc", "--config=coco.yaml"], "voc"),
    ],
)
def test_what_is_chosen(yamls: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], expected: str) -> None:
    monkeypatch.chdir(yamls)
    assert chosen_dataset(["fit", *words]) == expected


def test_the_options_of_data_follow(capsys: pytest.CaptureFixture[str]) -> None:
    for dataset, option in (("voc", "--data.root"), ("folder", "--data.images"), ("coco", "--data.root")):
        with pytest.raises(SystemExit):
            run_command(["fit", f"--dataset={dataset}", "--help"])
        text = capsys.readouterr().out
        assert option in text
        assert ("--data.images" in text) == (dataset == "folder")
    with pytest.raises(InputError, match="found 'imagenet'"):
        run_command(["fit", "--dataset=imagenet"])


def test_a_broken_or_missing_file_is_named(yamls: Path) -> None:
    with pytest.raises(InputError, match=r"expected YAML in .*broken\.yaml"):
        chosen_dataset(["fit", f"--config={yamls / 'broken.yaml'}"])
    with pytest.raises(InputError, match=r"expected a YAML file at .*nowhere\.yaml"):
        read_config(yamls / "nowhere.yaml")


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A file that extends another one, which extends a third."""
    network = {"class_path": "a.Net", "init_args": {"backbone": "x", "stride": 8}}
    common = {"seed_everything": 0, "model": {"init_args": {"network": network}}, "data": {"root": "here"}}
    parts = {
        "common": common,
        "middle": {"extends": "common.yaml", "model": {"init_args": {"network": {"init_args": {"stride": 16}}}}},
        "stage": {"extends": "middle.yaml", "model": {"class_path": "a.Stage"}, "data": {"root": "there"}},
    }
    for name, content in parts.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return tmp_path


def test_a_file_extends_another(family: Path) -> None:
    network = {"class_path": "a.Net", "init_args": {"backbone": "x", "stride": 16}}
    expected = {
        "seed_everything": 0,
        "model": {"class_path": "a.Stage", "init_args": {"network": network}},
        "data": {"root": "there"},
    }
    assert read_config(family / "stage.yaml") == expected
    words = with_contents(
        ["fit", "--config", str(family / "stage.yaml"), f"--config={family / 'common.yaml'}", "--x=1"]
    )
    assert [words[0], words[1], words[3], words[5]] == ["fit", "--config", "--config", "--x=1"]
    assert yaml.safe_load(words[2]) == expected


def test_files_that_extend_each_other_are_refused(family: Path) -> None:
    (family / "common.yaml").write_text("extends: stage.yaml")
    with pytest.raises(InputError, match=r"common\.yaml extends stage\.yaml, which extends it in turn"):
        read_config(family / "stage.yaml")


def test_arguments_go_with_their_class() -> None:
    before = {"network": {"class_path": "a.Net", "init_args": {"width": 3}}}
    assert merged(before, {"network": {"class_path": "b.Net"}}) == {"network": {"class_path": "b.Net"}}
    same = merged(before, {"network": {"class_path": "a.Net", "init_args": {"depth": 2}}})
    assert same == {"network": {"class_path": "a.Net", "init_args": {"width": 3, "depth": 2}}}


def test_settings_change_the_files(family: Path) -> None:
    config = StageConfig((family / "stage.yaml",), {"data.root": "elsewhere"})
    content = config.with_settings({"model.init_args.network.init_args.stride": 32}).content()
    assert content["data"] == {"root": "elsewhere"}
    assert content["model"]["init_args"]["network"]["init_args"] == {"backbone": "x", "stride": 32}


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("null", None), ("[1, 2]", [1, 2]), ("16-mixed", "16-mixed"), ("false", False)]
)
def test_values_are_yaml(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert parse_settings([f"a.b={text}"]) == {"a.b": value}


@pytest.mark.parametrize("option", ["trainer.max_epochs", "=3", ""])
def test_a_setting_without_value_is_refused(option: str) -> None:
    with pytest.raises(InputError, match="--set: expected KEY=VALUE"):
        parse_settings([option])


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_understood_with_a_warning(old: str, new: str) -> None:
    content: Any = 3
    for part in reversed(old.split(".")):
        content = {part: content}
    with pytest.warns(FutureWarning, match=f"{old} .*is called {new} now"):
        found: Any = with_new_names(content, "x.yaml")
    for part in new.split("."):
        found = found[part]
    assert found == 3
    with pytest.warns(FutureWarning, match="the command line"):
        assert words_with_new_names(["fit", f"--{old}=3", f"--{new}=4"]) == ["fit", f"--{new}=3", f"--{new}=4"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"refinement": {"second_dd_bias": None, "prior": 0.5}}, {"refinement": {"prior": 0.5}}),
        ({"refinement": {"warm_up": 9, "prior": 0.5}}, {"refinement": {"prior": 0.5}}),
        (
            {
                "losses": {"per_class": False, "sub_branch": {"alpha": 0.7, "target": "d2"}},
                "refinement": {"prior": 0.5},
            },
            {"per_class_loss": False, "refinement": {"prior": 0.5, "alpha": 0.7}},
        ),
        ({"losses": {"per_class": False, "sub_branch": {"alpha": 0.5}}}, {"per_class_loss": False}),  # a static stage
        ({"losses": {"dice": 1.0}}, {"losses": {"dice": 1.0}}),  # a stage of somebody else
        ({"alpha": 0.7, "sub_target": "d2", "exclude_bad_from_diff2": False}, {"refinement": {"alpha": 0.7}}),
    ],
)
def test_a_checkpoint_loads_without_options_that_are_no_more(given: dict[str, Any], expected: dict[str, Any]) -> None:
    given, expected = ({"hyper_parameters": {**o, "mask_stride": 4}, "epoch": 3} for o in (given, expected))
    assert checkpoint_with_new_names(given) == expected


@pytest.mark.parametrize("value", ["a=[1", "a={", "a=*x", "a=!!python/object:os.x {}", "a=2020-01-01"])
def test_a_setting_that_is_no_value_is_refused(value: str) -> None:
    with pytest.raises(InputError, match=r"--set: expected a value such as 3, true or \[1, 2\] for a, found"):
        parse_settings([value])


@pytest.mark.parametrize("extended", [3, False, "", ["b.yaml"]])
def test_extends_names_a_file(tmp_path: Path, extended: object) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"extends": extended, "data": {}}))
    with pytest.raises(InputError, match=r"a\.yaml: expected the name of a YAML file as `extends`"):
        read_config(tmp_path / "a.yaml")


def test_a_missing_parent_is_told_by_its_child(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: gone.yaml")
    with pytest.raises(InputError, match=r"a\.yaml extends gone\.yaml, but there is no file"):
        read_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("name", [".", "..", "/", "", "voc2012", 300 * "a", 300 * "a" + ".yaml"])
def test_what_is_no_file_is_answered(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="expected a YAML file at"):
        read_config(Path(name))
    (tmp_path / "a.yaml").write_text(f"extends: {name or '.'}")
    with pytest.raises(InputError, match=r"a\.yaml extends .*, but there is no file"):
        read_config(tmp_path / "a.yaml")


def test_a_name_like_a_packaged_one_is_answered_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: voc2012/dynamc")
    with pytest.raises(InputError, match=r"but there is no file .*; did you mean voc2012/dynamic\?"):
        read_config(tmp_path / "a.yaml")
    with pytest.raises(InputError, match=r"expected a YAML file at voc2012/statik.*; did you mean voc2012/static\?"):
        read_config(Path("voc2012/statik.yaml"))


def test_a_cycle_through_folders_is_found(tmp_path: Path) -> None:
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "a.yaml").write_text("extends: ../y/a.yaml")
    with pytest.raises(InputError, match="extends it in turn"):
        read_config(tmp_path / "y" / "a.yaml")


@pytest.mark.parametrize("content", ["a: 2020-01-01", "a: !!set {b}", "a: &x {b: *x}"])
def test_a_yaml_holds_plain_values(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(InputError, match=r"expected YAML in .*a\.yaml, which cannot be read"):
        read_config(tmp_path / "a.yaml")


def test_an_old_name_beside_an_empty_or_wrong_group() -> None:
    given: dict[str, Any] = {"model": {"init_args": {"learning_rate": 1, "optimization": None}}}
    with pytest.warns(FutureWarning):
        assert with_new_names(given, "x")["model"]["init_args"] == {"optimization": {"learning_rate": 1}}
    given["model"]["init_args"]["optimization"] = "x"
    with pytest.warns(FutureWarning), pytest.raises(InputError, match="expected options below optimization, found 'x'"):
        with_new_names(given, "x")


def test_an_old_name_may_leave_out_init_args() -> None:
    with pytest.warns(FutureWarning):
        assert words_with_new_names(["--model.learning_rate=1"]) == ["--model.init_args.optimization.learning_rate=1"]
