from pathlib import Path

import pytest

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.config import read_config
from ssdd_lightning.pipeline.experiments import config_file, experiment_folder, packaged_experiments

REPOSITORY = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_package_brings_every_experiment() -> None:
    assert packaged_experiments() == sorted(path.name for path in REPOSITORY.iterdir() if path.is_dir())


@pytest.mark.parametrize("name", ["voc2012/dynamic", "voc2012/dynamic.yaml"])
def test_a_stage_of_the_package_is_found_by_name(name: str) -> None:
    assert read_config(Path(name)) == read_config(REPOSITORY / "voc2012" / "dynamic.yaml")


def test_a_file_of_ones_own_extends_that_of_the_package(tmp_path: Path) -> None:
    own = tmp_path / "mine" / "own.yaml"
    own.parent.mkdir()
    own.write_text("extends: voc2012/dynamic\nseed_everything: 7")
    assert read_config(own) == read_config(REPOSITORY / "voc2012" / "dynamic.yaml") | {"seed_everything": 7}
    (own.parent / "voc2012").mkdir()
    (own.parent / "voc2012" / "dynamic.yaml").write_text("seed_everything: 8\ndata: {root: beside}")
    assert read_config(own) == {"seed_everything": 7, "data": {"root": "beside"}}


def test_the_name_of_a_file_is_not_looked_for_in_the_package(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: voc2012/dynamic.yaml")
    with pytest.raises(InputError, match="but there is no file"):
        read_config(tmp_path / "own.yaml")


def test_a_file_or_folder_here_comes_first(tmp_path: Path) -> None:
    own = tmp_path / "voc2012"
    own.mkdir()
    (own / "dynamic.yaml").write_text("seed_everything: 7")
    for name in ("voc2012/dynamic.yaml", "voc2012/dynamic"):
        assert read_config(Path(name)) == {"seed_everything": 7}
    assert experiment_folder(Path("voc2012")) == Path("voc2012")


@pytest.mark.parametrize("name", ["voc2012/nothing", "nothing/dynamic", "voc2012/../voc2012/dynamic"])
def test_other_names_are_paths(name: str) -> None:
    assert config_file(Path(name)) == Path(name)


@pytest.mark.parametrize(
    "name", ["voc2013", "VOC2012", "voc2012.yaml", "my/voc2012", "voc2012/dynamic", "voc2012/dynamic.yaml"]
)
def test_an_unknown_experiment_is_answered_with_the_one_like_it(tmp_path: Path, name: str) -> None:
    said = rf"of the package \(coco2014, .*\), found neither at {name}; did you mean voc2012\?$"
    with pytest.raises(InputError, match=said):
        main(["run", name, "--root", str(tmp_path)])


def test_an_unknown_experiment(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found neither at mine\.$"):
        main(["run", "mine", "--root", str(tmp_path)])


def test_init_writes_what_the_package_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "voc2012"]) == 0
    assert "Next: ssdd run voc2012 --root DEVKIT" in capsys.readouterr().out
    written = {path.name: path.read_text() for path in (tmp_path / "voc2012").iterdir()}
    assert written == {path.name: path.read_text() for path in (REPOSITORY / "voc2012").iterdir()}
    assert main(["init", "voc2012"]) == 0, "the same once more"


def test_init_writes_over_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "static.yaml").write_text("model: {}")
    with pytest.raises(InputError, match=r"static\.yaml exists and says something else"):
        main(["init", "voc2012", "--out", "mine"])
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["static.yaml"]


def test_init_writes_over_no_folder(tmp_path: Path) -> None:
    (tmp_path / "voc2012" / "static.yaml").mkdir(parents=True)
    with pytest.raises(InputError, match=r"static\.yaml exists and says something else"):
        main(["init", "voc2012"])


def test_init_leaves_a_devkit_that_is_there(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "quickstart" / "devkit"
    main(["devkit", str(root), "--num_train=3", "--num_val=2"])
    assert main(["init", "quickstart"]) == 0
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation"
    assert len((lists / "train.txt").read_text().split()) == 3
