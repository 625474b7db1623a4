import pytest

from ssdd_lightning.data.stamp import claim
from ssdd_lightning.errors import InputError


def test_a_folder_keeps_its_settings(tmp_path):
    path = tmp_path / "out" / "x.json"
    claim(path, {"a": 1, "b": ["c"]}, "an import")
    claim(path, {"b": ["c"], "a": 1}, "an import")
    with pytest.raises(InputError, match=r"x\.json says that this folder holds an import of other settings"):
        claim(path, {"a": 2, "b": ["c"]}, "an import")
    path.write_text("{")
    with pytest.raises(InputError, match="other settings"):
        claim(path, {"a": 1}, "an import")


def test_without_results_settings_may_change(tmp_path):
    claim(tmp_path / "x.json", {"a": 1}, "an import")
    claim(tmp_path / "x.json", {"a": 2}, "an import", free=True)
    with pytest.raises(InputError):
        claim(tmp_path / "x.json", {"a": 1}, "an import")
