import pytest
import yaml

from ssdd_lightning.data.choice import DATASETS, chosen_dataset, data_module_class, dataset_name
from ssdd_lightning.data.coco import COCODataModule
from ssdd_lightning.data.folder import FolderDataModule
from ssdd_lightning.data.voc import VOCDataModule
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.lightning import run_command


def test_names_and_classes():
    classes = [data_module_class(name) for name in DATASETS]
    assert classes == [VOCDataModule, COCODataModule, FolderDataModule]
    assert [dataset_name(cls) for cls in classes] == list(DATASETS)
    assert dataset_name(type("Mine", (VOCDataModule,), {})) is None
    with pytest.raises(InputError, match="dataset: expected one of voc, coco, folder, found 'imagenet'"):
        data_module_class("imagenet")


@pytest.fixture
def yamls(tmp_path):
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
        (["--config=broken.yaml"], "voc"),
        (["--config=nowhere.yaml", "--config"], "voc"),
    ],
)
def test_what_is_chosen(yamls, monkeypatch, words, expected):
    monkeypatch.chdir(yamls)
    assert chosen_dataset(["fit", *words]) == expected


def test_the_options_of_data_follow(capsys):
    for dataset, option in (("voc", "--data.root"), ("folder", "--data.images"), ("coco", "--data.root")):
        with pytest.raises(SystemExit):
            run_command(["fit", f"--dataset={dataset}", "--help"])
        text = capsys.readouterr().out
        assert option in text
        assert ("--data.images" in text) == (dataset == "folder")
    with pytest.raises(InputError, match="found 'imagenet'"):
        run_command(["fit", "--dataset=imagenet"])
