import pytest

from ssdd_lightning.data.choice import DATASETS, data_module_class, dataset_name
from ssdd_lightning.data.coco import COCODataModule
from ssdd_lightning.data.folder import FolderDataModule
from ssdd_lightning.data.voc import VOCDataModule
from ssdd_lightning.errors import InputError


def test_names_and_classes() -> None:
    classes = [data_module_class(name) for name in DATASETS]
    assert classes == [VOCDataModule, COCODataModule, FolderDataModule]
    assert [dataset_name(cls) for cls in classes] == list(DATASETS)
    assert dataset_name(type("Mine", (VOCDataModule,), {})) is None
    with pytest.raises(InputError, match="dataset: expected one of voc, coco, folder, found 'imagenet'"):
        data_module_class("imagenet")
