import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.par import PARJob
from ssdd_lightning.functional import pixel_adaptive_refinement
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map
from tests.helpers.files import write_photo

CLASSES = [0, 8, 12]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Three images of differing sizes with maps."""
    images, maps = tmp_path / "images", tmp_path / "maps"
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(3):
        write_photo(images / f"im{i}.jpg", (20 + i, 31 - i), generator)
        write_map(map_path(maps, f"im{i}"), CLASSES, generator.random((3, 20 + i, 31 - i)))
    return images, maps, tmp_path / "out"


def words(folders: tuple[Path, Path, Path], *more: str) -> list[str]:
    images, maps, out = folders
    return ["par", f"--images={images}", f"--maps={maps}", f"--out={out}", *more]


def test_the_command_writes_the_refinement_of_every_map(
    folders: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    images, maps, out = folders
    assert main(words(folders, "--write=both", "--iterations=4", "--dilations", "1", "3")) == 0
    for i in range(3):
        _, scores = read_map(map_path(maps, f"im{i}"))
        expected = pixel_adaptive_refinement(
            torch.from_numpy(read_image(images / f"im{i}.jpg")).permute(2, 0, 1)[None],
            torch.from_numpy(scores)[None],
            iterations=4,
            dilations=(1, 3),
        )[0].numpy()
        found_classes, found = read_map(map_path(out, f"im{i}"))
        assert found_classes == CLASSES
        assert np.abs(found - expected).max() < 0.005
        assert (read_mask(out / f"im{i}.png") == np.array(CLASSES)[expected.argmax(0)]).all()
    assert json.loads((out / "par.json").read_text())["settings"]["dilations"] == [1, 3]
    capsys.readouterr()
    assert main(words(folders, "--write=both", "--iterations=4", "--dilations", "1", "3")) == 0
    assert capsys.readouterr().out == f"par: finished in {out}, nothing to do.\n"
    assert main(words(folders, "--write=both", "--iterations=4")) == 0
    assert "because dilations" in capsys.readouterr().out


def test_goes_on_where_it_stopped(folders: tuple[Path, Path, Path]) -> None:
    assert PARJob(*folders).run(progress=False) == 3
    map_path(folders[2], "im1").unlink()
    assert PARJob(*folders).run(progress=False) == 1


def test_bad_options_are_a_sentence(folders: tuple[Path, Path, Path]) -> None:
    with pytest.raises(InputError, match=r"PAR needs 0 or more iterations .*; found 10 and \[0\]"):
        PARJob(*folders, dilations=(0,))
    with pytest.raises(InputError, match="`ssdd par` would overwrite its own input"):
        PARJob(folders[0], folders[1], folders[1]).run()
