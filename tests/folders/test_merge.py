import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.callbacks.writers import write_difference
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.folders.merge import MergeFolders, merge_folder
from ssdd_lightning.folders.sweep import sweep_biases
from ssdd_lightning.functional.refinement import MergeBiases
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map

NAMES = ["a", "b c", "d.e"]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[MergeFolders, Path]:
    """Random masks of classes 0, 8 and 12, of which 12 fails in the advice, and random difference maps."""
    shares = {"knowledge": [0.5, 0.2, 0.2, 0.1], "advice": [0.65, 0.2, 0.05, 0.1], "truth": [0.5, 0.2, 0.2, 0.1]}
    rng = np.random.default_rng(0)
    for name in NAMES:
        size = tuple(rng.integers(9, 20, 2))
        for what, share in shares.items():
            write_mask(tmp_path / what / f"{name}.png", rng.choice([0, 8, 12, 255], size, p=share))
        for what in ("d_knowledge", "d_advice"):
            write_difference(tmp_path / "seeds" / what / f"{name}.png", rng.random(size))
    return MergeFolders(tmp_path / "knowledge", tmp_path / "advice", tmp_path / "seeds"), tmp_path


def test_extreme_biases_take_one_side(folders: tuple[MergeFolders, Path]) -> None:
    parts, root = folders
    merge_folder(parts, root / "advised", MergeBiases(3, 0, 0), progress=False)
    merge_folder(parts, root / "kept", MergeBiases(-3, 0, 0), progress=False)
    for name in NAMES:
        knowledge, advice = read_mask(root / "knowledge" / f"{name}.png"), read_mask(root / "advice" / f"{name}.png")
        taken = np.where(advice == 255, knowledge, advice)
        np.testing.assert_array_equal(read_mask(root / "advised" / f"{name}.png"), taken)
        kept = np.where(knowledge == 255, advice, knowledge)
        np.testing.assert_array_equal(read_mask(root / "kept" / f"{name}.png"), kept)


def test_the_sweep_scores_what_the_merge_writes(folders: tuple[MergeFolders, Path]) -> None:
    parts, root = folders
    result = sweep_biases(parts, root / "truth", NAMES, (-0.2, 0.1, 0.4), (0, 1), (0, 0.2), progress=False)
    assert len(result.merged) == 12
    assert len({round(miou, 6) for miou in result.merged.values()}) > 6  # the biases matter
    for biases, miou in result.merged.items():
        merge_folder(parts, root / "out", biases, progress=False)
        assert evaluate_folders(root / "out", root / "truth", NAMES, progress=False).miou == pytest.approx(miou)
    card = evaluate_folders(root / "knowledge", root / "truth", NAMES, advice=root / "advice", progress=False)
    assert result.knowledge == pytest.approx(card.miou)
    assert result.advice == pytest.approx(card.companions["advice"].miou)
    assert result.oracle == pytest.approx(card.companions["oracle"].miou)
    assert result.merged[result.best] == max(result.merged.values())


def test_the_grid_as_curves(folders: tuple[MergeFolders, Path]) -> None:
    parts, root = folders
    grid = ((0.1, 0.2, 0.4), (0, 0.25, 0.5, 1, 2), (0, 0.2))
    result = sweep_biases(parts, root / "truth", NAMES, *grid, progress=False)
    figure = result.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["b_bg 0", "b_bg 0.2"]
    for axes, background in zip(figure.axes, (0, 0.2), strict=True):
        *curves, knowledge, advice = axes.lines
        assert set(np.asarray(knowledge.get_ydata()).tolist()) == {100 * result.knowledge}
        assert set(np.asarray(advice.get_ydata()).tolist()) == {100 * result.advice}
        for line, class_ in zip(curves, grid[1], strict=True):
            assert line.get_label() == f"b_class {class_:g}"
            assert np.asarray(line.get_xdata()).tolist() == list(grid[0])
            assert np.asarray(line.get_ydata()).tolist() == [
                100 * result.merged[MergeBiases(dd, class_, background)] for dd in grid[0]
            ]
        styles = {(str(line.get_color()), line.get_linestyle()) for line in axes.lines}
        assert len(styles) == len(axes.lines)
    figure.draw_without_rendering()
    legend = figure.axes[-1].get_legend().get_window_extent()
    assert legend.x1 <= figure.bbox.x1
    assert [text.get_text() for text in figure.axes[-1].get_legend().get_texts()][-2:] == ["K", "A"]


def test_auc_is_the_share_of_well_ordered_pairs(folders: tuple[MergeFolders, Path]) -> None:
    parts, root = folders
    result = sweep_biases(parts, root / "truth", NAMES, (0.0,), (0.0,), (0.0,), progress=False)
    differences, rights = [], []
    for name in NAMES:
        k, a, t, dk, da = (
            read_mask(root / what / f"{name}.png").astype(int)
            for what in ("knowledge", "advice", "truth", "seeds/d_knowledge", "seeds/d_advice")
        )
        chosen = ((k == t) != (a == t)) & (t != 255)
        differences += [*(dk - da)[chosen]]
        rights += [*(a == t)[chosen]]
    scores, sides = np.array(differences), np.array(rights)
    good, bad = scores[sides][:, None], scores[~sides][None]
    assert result.auc["w"] == pytest.approx(float(((good > bad) + 0.5 * (good == bad)).mean()))
    assert result.advice_right == pytest.approx(sides.mean())


def test_the_commands(folders: tuple[MergeFolders, Path], capsys: pytest.CaptureFixture[str]) -> None:
    _, root = folders
    parts = [f"--{what}={root / folder}" for what, folder in (("knowledge", "knowledge"), ("advice", "advice"))]
    parts += [f"--differences={root / 'seeds'}"]
    assert main(["merge", *parts, f"--out={root / 'm'}", "--class_bias=0"]) == 0
    assert sorted(p.name for p in (root / "m").glob("*.png")) == [f"{name}.png" for name in NAMES]
    written = [f"--json={root / 's.json'}", f"--png={root / 's.png'}"]
    assert main(["sweep", *parts, f"--truth={root / 'truth'}", *written]) == 0
    with Image.open(root / "s.png") as image:
        assert image.format == "PNG"
    names = root / "names.txt"
    names.write_text("\n".join(f"class {index}" for index in range(13)))
    same = ["sweep", *parts, f"--truth={root / 'truth'}", f"--classes={names}", f"--json={root / 't.json'}"]
    assert main(same) == 0
    assert (root / "t.json").read_text() == (root / "s.json").read_text()
    names.write_text("background\nkite\n")
    with pytest.raises(InputError, match=r"holds the value \d+, expected 0\.\.1"):
        main(same)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    headings = next(row for row in rows if row[:2] == ["b_class", "b_bg"])
    column = 2 + headings[2:].index("0.4") // 2
    content = json.loads((root / "s.json").read_text())
    assert 0 <= content["auc"]["w"] <= 1
    paper = {"dd_bias": 0.4, "class_bias": 1.0, "background_bias": 0.0}
    miou = next(entry["miou"] for entry in content["merged"] if entry.items() >= paper.items())
    assert next(row for row in rows if row[:2] == ["1", "0"])[column] == f"{100 * miou:.2f}"


def test_score_maps_count_by_their_arg_max(folders: tuple[MergeFolders, Path]) -> None:
    parts, root = folders
    mask = read_mask(root / "knowledge" / "a.png")
    (root / "knowledge" / "a.png").unlink()
    scores = np.stack([mask == 0, mask == 8, mask == 12]).astype(np.float32)
    write_map(map_path(root / "knowledge", "a"), [0, 8, 12], scores)
    expected = np.where(mask == 255, 0, mask)
    np.testing.assert_array_equal(parts.read("a").knowledge[0].numpy(), expected)


def test_bad_input_is_one_sentence(folders: tuple[MergeFolders, Path]) -> None:
    parts, root = folders
    with pytest.raises(InputError, match="does not exist; run `ssdd predict`"):
        MergeFolders(root / "knowledge", root / "advice", root / "nothing")
    with pytest.raises(InputError, match="overwrite its own input"):
        merge_folder(parts, root / "knowledge", MergeBiases(), progress=False)
    write_mask(root / "advice" / "a.png", np.zeros((3, 3), np.uint8))
    with pytest.raises(InputError, match="differ in size"):
        parts.read("a")
    with pytest.raises(InputError, match="at least one image"):
        sweep_biases(parts, root / "truth", [], (0.0,), (0.0,), (0.0,))
