"""Files of images that are not asked for any more stay, are counted, and are used by no later command."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.callbacks.writers import write_difference
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe, asked_for
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map
from tests.helpers.files import write_photo

NAMES = ["a", "b c", "d.e"]
STAY = "their files stay, and what reads the folder leaves them out."
LEFT_OUT = "their files are of an earlier run, and the last one was not asked for them."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Photos, masks, maps, difference maps and PSA's files of three images."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    (tmp_path / "psa").mkdir()
    for name in NAMES:
        write_photo(tmp_path / "photos" / f"{name}.jpg", (12, 16), rng)
        for folder in ("K", "A", "truth"):
            write_mask(tmp_path / folder / f"{name}.png", rng.choice([0, 8], (12, 16)))
        for what in ("d_knowledge", "d_advice"):
            write_difference(tmp_path / "seeds" / what / f"{name}.png", rng.random((12, 16)))
        write_map(map_path(tmp_path / "maps", name), [0, 8], rng.random((2, 12, 16)))
        cams: Any = {7: rng.random((12, 16), dtype=np.float32)}
        np.save(tmp_path / "psa" / f"{name}.npy", cams, allow_pickle=True)
    return tmp_path


def words(root: Path, command: str, out: str = "out") -> list[str]:
    images, parts = f"--images={root / 'photos'}", [f"--knowledge={root / 'K'}", f"--advice={root / 'A'}"]
    options = {
        "crf": [images, f"--maps={root / 'maps'}", "--iterations=1", "--write=both"],
        "merge": [*parts, f"--differences={root / 'seeds'}"],
        "import": [str(root / "psa"), "--from=psa-cam", images],
        "export": [str(root / "maps"), "--to=irn"],
    }
    return [command, *options[command], f"--out={root / out}"]


SOURCES = {
    "crf": ["maps/d.e.map.png"],
    "merge": ["seeds/d_knowledge/d.e.png", "seeds/d_advice/d.e.png"],
    "import": ["psa/d.e.npy"],
    "export": ["maps/d.e.map.png"],
}


@pytest.mark.parametrize("command", SOURCES)
def test_files_of_images_that_went_are_counted_and_stay(
    root: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert main(words(root, command)) == 0
    before = {path: path.read_bytes() for path in (root / "out").iterdir() if path.suffix in (".png", ".npy")}
    assert "no longer asked for" not in capsys.readouterr().out
    for source in SOURCES[command]:
        (root / source).rename(root / source.replace("/", "_"))
    counted = f"{command}: 1 images in {root / 'out'} are no longer asked for (d.e): {STAY}"
    for line in (counted, f"{command}: finished in {root / 'out'}, nothing to do."):
        assert main(words(root, command)) == 0
        assert line in capsys.readouterr().out.splitlines()
        assert json.loads((root / "out" / f"{command}.json").read_text())["left_over"] == ["d.e"]
        assert asked_for(root / "out", NAMES) == NAMES[:2]
        assert capsys.readouterr().out == f"1 images in {root / 'out'} are left out (d.e): {LEFT_OUT}\n"
    for source in SOURCES[command]:
        (root / source.replace("/", "_")).rename(root / source)
    assert main(words(root, command)) == 0
    assert asked_for(root / "out", NAMES) == NAMES
    assert {path: path.read_bytes() for path in before} == before


def test_the_next_commands_do_not_use_them(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(root, "crf")) == 0
    (root / "maps" / "d.e.map.png").unlink()
    assert main([*words(root, "crf"), "--preset=mctformer"]) == 0
    assert (root / "out" / "d.e.map.png").is_file()
    said = f"1 images in {root / 'out'} are left out (d.e): {LEFT_OUT}"
    shutil.rmtree(root / "maps")
    (root / "maps").symlink_to(root / "out")
    for command, suffix in (("export", ".npy"), ("crf", ".map.png")):
        capsys.readouterr()
        assert main(words(root, command, command)) == 0
        assert capsys.readouterr().out.splitlines().count(said.replace(str(root / "out"), str(root / "maps"))) == 1
        files = {path.name for path in (root / command).iterdir() if path.name.endswith(suffix)}
        assert files == {f"a{suffix}", f"b c{suffix}"}
    scored = [f"--predictions={root / 'out'}", f"--truth={root / 'truth'}", f"--json={root / 'scores.json'}"]
    assert main(["evaluate", *scored]) == 0
    assert said in capsys.readouterr().out
    assert json.loads((root / "scores.json").read_text())["images"] == 2
    assert (
        main(["import", str(root / "out"), "--from=masks", f"--images={root / 'photos'}", f"--out={root / 'M'}"]) == 0
    )
    assert {path.name for path in (root / "M").glob("*.png")} == {"a.png", "b c.png"}


def test_a_file_of_ones_own_counts(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(root, "crf")) == 0
    write_map(map_path(root / "out", "mine"), [0, 8], np.full((2, 12, 16), 0.5))
    assert asked_for(root / "out", [*NAMES, "mine"]) == [*NAMES, "mine"]
    assert "left out" not in capsys.readouterr().out


def test_a_product_of_another_command_in_the_folder_counts(root: Path) -> None:
    recipe = Recipe()
    for name, images in (("one", NAMES), ("one", NAMES[:1]), ("two", NAMES[:2])):
        items = {image: Item((), (root / f"{image}.txt",)) for image in images}
        for item in items.values():
            item.products[0].write_text(name)
        Ledger(root, name, recipe, items).make(lambda pending: pending, progress=False)
    assert asked_for(root, NAMES) == NAMES[:2]


def test_they_are_known_after_everything_was_made_anew(root: Path) -> None:
    for value, images in ((1, NAMES), (2, NAMES[:2]), (3, NAMES[1:2]), (3, NAMES[:2])):
        items = {image: Item((), (root / f"{image}.txt",)) for image in images}
        for item in items.values():
            item.products[0].write_text("made")
        Ledger(root, "one", Recipe({"value": value}), items).make(lambda pending: pending, progress=False)
        assert asked_for(root, NAMES) == images


@pytest.mark.parametrize("content", ['"a"', "[1]", "3"])
def test_a_damaged_list_of_them_is_a_sentence(root: Path, content: str) -> None:
    assert main(words(root, "export")) == 0
    entry = json.loads((root / "out" / "export.json").read_text())
    (root / "out" / "export.json").write_text(json.dumps({**entry, "left_over": json.loads(content)}))
    with pytest.raises(InputError, match=r"expected an entry of the ledger .*export\.json"):
        main(words(root, "export"))
