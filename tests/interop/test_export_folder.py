import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.interop.export_folder import export_folder
from ssdd_lightning.storage.score_maps import map_path, write_map


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = np.square(np.random.default_rng(0).integers(0, 256, (3, 9, 14)) / 255)
    write_map(map_path(tmp_path / "maps", "my cat"), [0, 8, 12], values)
    return tmp_path / "maps", values


def exported(maps: tuple[Path, np.ndarray], kind: str) -> dict[int | str, np.ndarray | torch.Tensor]:
    folder = maps[0]
    export_folder(folder, folder.parent / kind, kind, progress=False)
    return np.load(folder.parent / kind / "my cat.npy", allow_pickle=True).item()


def test_psa(maps: tuple[Path, np.ndarray]) -> None:
    cam, aff = exported(maps, "psa-cam"), exported(maps, "psa-aff")
    assert (list(cam), list(aff)) == ([7, 11], [0, 8, 12])
    assert all(type(key) is int for key in (*cam, *aff))
    np.testing.assert_allclose(list(cam.values()), maps[1][1:], atol=1e-6)
    np.testing.assert_allclose(list(aff.values()), maps[1], atol=1e-6)
    assert cam[7].dtype == np.float32


def test_irn_as_its_own_code_reads_it(maps: tuple[Path, np.ndarray]) -> None:
    content = exported(maps, "irn")
    assert (content["keys"].dtype, content["keys"].tolist()) == (torch.int64, [7, 11])
    assert np.pad(content["keys"] + 1, (1, 0), mode="constant").tolist() == [0, 8, 12]
    assert (type(content["cam"]), content["cam"].shape) == (torch.Tensor, (2, 3, 4))
    np.testing.assert_allclose(content["high_res"], maps[1][1:], atol=1e-6)


def test_bad_input(maps: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown format 'masks'"):
        export_folder(maps[0], tmp_path / "out", "masks")
    with pytest.raises(InputError, match="holds no score maps"):
        export_folder(tmp_path / "nowhere", tmp_path / "out", "irn")
    write_map(map_path(maps[0], "empty"), [0], np.ones((1, 4, 5)))
    with pytest.raises(InputError, match=r"empty\.map\.png holds only background"):
        export_folder(maps[0], tmp_path / "out", "irn")


def test_only_what_changed_is_written_again(
    maps: tuple[Path, np.ndarray], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = maps[1]
    write_map(map_path(maps[0], "dog"), [0, 12], values[:2])
    words = ["export", str(maps[0]), f"--out={tmp_path / 'out'}"]
    assert main([*words, "--to=psa-cam"]) == 0
    assert "2 files written" in capsys.readouterr().out
    before = {path: path.read_bytes() for path in (tmp_path / "out").glob("*.npy")}
    assert main([*words, "--to=psa-cam"]) == 0
    assert f"export: finished in {tmp_path / 'out'}, nothing to do." in capsys.readouterr().out
    write_map(map_path(maps[0], "dog"), [0, 12], values[1:])
    assert main([*words, "--to=psa-cam"]) == 0
    assert "export: 1 made again in " in (said := capsys.readouterr().out)
    assert "1 files written" in said
    changed = [path.stem for path, content in before.items() if path.read_bytes() != content]
    assert changed == ["dog"]
    assert main([*words, "--to=irn"]) == 0
    assert 'because format was "psa-cam" and is "irn".' in capsys.readouterr().out
    assert set(np.load(tmp_path / "out" / "dog.npy", allow_pickle=True).item()) == {"keys", "cam", "high_res"}


def test_a_bad_name_costs_nothing_of_what_is_finished(maps: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert export_folder(maps[0], out, "irn", progress=False) == 1
    bad = maps[0] / "c\td.map.png"
    shutil.copy(map_path(maps[0], "my cat"), bad)
    for folder in (out, tmp_path / "other"):
        with pytest.raises(InputError, match=r"the image name .* control character"):
            export_folder(maps[0], folder, "psa-cam", progress=False)
    assert not (tmp_path / "other").exists()
    bad.unlink()
    assert export_folder(maps[0], out, "irn", progress=False) == 0


def test_a_damaged_entry_is_a_sentence(maps: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    exported(maps, "irn")
    (tmp_path / "irn" / "export.json").write_text("{}")
    with pytest.raises(InputError, match=r"expected an entry of the ledger .*export\.json.*; remove it"):
        exported(maps, "irn")
