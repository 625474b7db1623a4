import hashlib

import pytest

from ssdd_lightning.data.stamp import claim, fingerprint, state_of
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


def test_a_fingerprint_is_of_the_bytes(tmp_path):
    content = bytes(range(256)) * 9000  # more than one block
    (tmp_path / "a").mkdir()
    for path in (tmp_path / "x.ckpt", tmp_path / "a" / "x.ckpt"):
        path.write_bytes(content)
        assert fingerprint(path) == {"file": "x.ckpt", "sha256": hashlib.sha256(content).hexdigest()}
    with pytest.raises(InputError, match="cannot read"):
        fingerprint(tmp_path / "none")


def test_the_setting_that_differs_is_named(tmp_path):
    path = tmp_path / "stamp.json"
    claim(path, {"a": 1, "b": "x"}, "a CRF")
    with pytest.raises(InputError, match=r"a CRF of other settings \(b was 'x', is 'y'\); choose another folder, or"):
        claim(path, {"a": 1, "b": "y"}, "a CRF")
    with pytest.raises(InputError, match=r"\(c was None, is 3\)"):
        claim(path, {"a": 1, "b": "x", "c": 3}, "a CRF")
    path.write_text("{")
    with pytest.raises(InputError, match=r"other settings; choose another folder\."):
        claim(path, {"a": 1}, "a CRF")


def test_a_state_changes_with_any_file(tmp_path):
    files = [tmp_path / "a", tmp_path / "b"]
    for path in files:
        path.write_text("x")
    before = state_of(files)
    assert state_of(files) == before
    files[1].write_text("xy")
    assert state_of(files) != before
