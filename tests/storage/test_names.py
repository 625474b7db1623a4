import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.data.classes import VOC_CLASSES, ClassTable
from ssdd_lightning.data.labels import read_label_file
from ssdd_lightning.data.splits import read_list, read_names
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.names import LONGEST, check_name, name_problem
from ssdd_lightning.storage.score_maps import map_path, mask_path

NAMES = ["2007_000032", "Shot 10.00\u202fAM", "caf\xa0é", "a.b", "x" * LONGEST]
STRANGE = [
    "",
    ".",
    "..",
    "../x",
    "/abs/x",
    "a/b",
    "a\\b",
    "new\nline",
    "a\u2028b",
    "nul\0",
    ".hidden",
    "x.map",
    "é" * 124,
    "\ud800",
]
VOC = ClassTable.select(VOC_CLASSES, None)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_stays_as_it_is(name: str) -> None:
    assert check_name(name, "labels.json") == name


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_leads_nowhere(name: str, tmp_path: Path) -> None:
    assert name_problem(name)
    for path_of in (mask_path, map_path):
        with pytest.raises(InputError, match="the image name"):
            path_of(tmp_path, name)


@pytest.mark.parametrize("name", ["../x", "/abs/x", "new\nline", ".."])
def test_label_files_of_numpy_keep_no_strange_names(name: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    np.save(path, {name: np.eye(20)[7]})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"label file .*labels\.npy: the image name"):
        read_label_file(path, VOC)


@pytest.mark.parametrize("name", ["..", "new\nline", "a/.hidden"])
def test_label_files_of_json_keep_no_strange_names(name: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({name: ["cat"]}))
    with pytest.raises(InputError, match=r"label file .*labels\.json: the image name"):
        read_label_file(path, VOC)


@pytest.mark.parametrize("read", [read_list, read_names])
def test_lists_keep_no_strange_names(read: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("good\n..\n")
    with pytest.raises(InputError, match=r"split list .*list\.txt: the image name '\.\.' begins with a dot"):
        read(path)


@pytest.mark.parametrize("name", ["cat\ndog", "\u2028", " ", ""])
def test_class_names_fit_on_one_line_of_a_list(name: str) -> None:
    with pytest.raises(InputError, match="class names of one line each"):
        ClassTable(("background", name), (0, 1))
