"""`ssdd refine` on photos of odd names, with the smallest network."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssdd_lightning import SegmentationNetwork, StaticRefinementModule
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.crf import CRFJob
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map
from tests.helpers.files import times

SUFFIXES = (".jpg", ".jpeg", ".bmp", ".png")
SMALL = ["--backbone=test_efficientnet", "--weights=none", "--batch_size=2", "--num_workers=0", "--device=cpu"]


def name_of(number: int) -> str:
    return ["my cat", "a.b.c", "été", "plain", "x_5", "x_6"][number]


def truth_of(number: int) -> np.ndarray:
    """A square of class 1 or 3 on background."""
    mask = np.zeros((64 + number, 72), int)
    mask[16:48, 8 + 4 * number : 40 + 4 * number] = 1 + 2 * (number % 2)
    return mask


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos, shifted masks as knowledge, smoothed maps as advice, truth, labels and names."""
    root = tmp_path_factory.mktemp("given")
    (root / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(6):
        truth, name = truth_of(number), name_of(number)
        photo = np.where(truth[..., None] > 0, 200, 40) + rng.integers(0, 30, (*truth.shape, 3))
        Image.fromarray(photo.astype(np.uint8)).save(root / "photos" / f"{name}{SUFFIXES[number % 4]}")
        write_mask(root / "truth" / f"{name}.png", truth)
        write_mask(root / "K" / f"{name}.png", np.roll(truth, 6, axis=1))
        seen = np.roll(truth, 5, axis=0) > 0
        write_map(map_path(root / "A", name), [0, int(truth.max())], np.where([~seen, seen], 0.8, 0.2))
    labels = {name_of(number): ["kea" if number % 2 else "auk"] for number in range(6)}
    (root / "labels.json").write_text(json.dumps(labels))
    (root / "names.txt").write_text("background\nauk\nowl\nkea\n")
    return root


def words(root: Path, out: Path, advice: str | None = None, *more: str, labels: bool = True) -> list[str]:
    known = [f"--labels={root / 'labels.json'}", f"--classes={root / 'names.txt'}"] if labels else []
    return [
        "refine",
        f"--images={root / 'photos'}",
        f"--knowledge={root / 'K'}",
        f"--advice={advice or root / 'A'}",
        f"--out={out}",
        *known,
        *SMALL,
        *(more or ["--epochs=1"]),
    ]


@pytest.fixture(scope="module")
def refined(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished refinement between masks and maps."""
    out = tmp_path_factory.mktemp("refined")
    assert main(words(given, out, None, "--epochs=1", f"--truth={given / 'truth'}")) == 0
    return out


def test_masks_and_difference_maps_of_every_image(refined: Path) -> None:
    for number in range(6):
        name, truth = name_of(number), truth_of(number)
        mask = read_mask(refined / "refined" / f"{name}.png")
        assert mask.shape == truth.shape
        assert set(np.unique(mask)) <= {0, int(truth.max())}
        for folder in ("d_knowledge", "d_advice"):
            assert read_mask(refined / "refined" / folder / f"{name}.png").shape == truth.shape


def test_every_label_is_the_knowledges_or_the_advices(refined: Path, given: Path) -> None:
    for number in range(6):
        name = name_of(number)
        classes, scores = read_map(map_path(given / "A", name))
        knowledge, advice = read_mask(given / "K" / f"{name}.png"), np.array(classes)[scores.argmax(0)]
        mask = read_mask(refined / "refined" / f"{name}.png")
        assert ((mask == knowledge) | (mask == advice)).all()


def test_scores_stand_beside_those_of_what_was_given(refined: Path) -> None:
    scores = json.loads((refined / "scores.json").read_text())
    assert scores["images"] == 6
    assert [entry["name"] for entry in scores["classes"]] == ["background", "auk", "owl", "kea"]
    assert scores["absent"] == ["owl"]
    assert 0 < scores["knowledge"]["miou"] < scores["oracle"]["miou"]
    assert scores["knowledge"]["miou"] != scores["advice"]["miou"]


def test_the_network_knows_the_labelled_classes_only_and_reloads(refined: Path) -> None:
    checkpoint = refined / "static" / "checkpoints" / "last.ckpt"
    network = StaticRefinementModule.load_from_checkpoint(checkpoint).network
    assert isinstance(network, SegmentationNetwork)
    assert network.num_classes == 3


def test_a_finished_refinement_is_left_alone(refined: Path, given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = times(refined, "*.png")
    assert main(words(given, refined)) == 0
    assert times(refined, "*.png") == before
    assert "redone" not in capsys.readouterr().out
    assert main([*words(given, refined), f"--truth={given / 'truth'}"]) == 0
    assert "mIoU" in capsys.readouterr().out


def test_only_missing_masks_are_written(refined: Path, given: Path, tmp_path: Path) -> None:
    out = shutil.copytree(refined, tmp_path / "out")
    before = times(out / "refined", "*.png")
    (out / "refined" / "été.png").unlink()
    (out / "refined" / "d_advice" / "plain.png").unlink()
    assert main(words(given, out)) == 0
    after = times(out / "refined", "*.png")
    changed = {name for name in after if after[name] != before[name]}
    assert {"été.png", "plain.png"} <= changed
    assert (out / "refined" / "d_advice" / "plain.png").is_file()


def test_another_refinement_in_the_same_folder_says_what_it_makes_anew(
    refined: Path, given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(refined, tmp_path / "out")
    assert main(words(given, out, None, "--epochs=2")) == 0
    assert "fit: redone in" in (said := capsys.readouterr().out)
    assert "because trainer.max_epochs was 1 and is 2." in said
    assert main(words(given, out, "crf", "--epochs=2")) == 0
    redone = re.findall(r"(\w+): redone in .*?, because (.*?)\.\n", capsys.readouterr().out)
    assert redone == [("fit", "data.advice changed"), ("predict", "the checkpoint changed")]


def test_a_killed_fit_goes_on_at_its_last_epoch(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    epochs: list[int | None] = []
    original = StaticRefinementModule.training_step

    def step(self: StaticRefinementModule, batch: Any, batch_idx: int) -> torch.Tensor:
        if len(epochs) == 4:
            raise RuntimeError("killed")
        epochs.append(self.current_epoch)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(StaticRefinementModule, "training_step", step)
    with pytest.raises(RuntimeError, match="killed"):
        main(words(given, tmp_path, None, "--epochs=2"))
    assert epochs == [0, 0, 0, 1]
    epochs[:] = [None] * 5  # never killed again
    assert main(words(given, tmp_path, None, "--epochs=2")) == 0
    assert epochs[5:] == [1, 1, 1]
    assert len(list((tmp_path / "refined").glob("*.png"))) == 6


def test_knowledge_alone_is_enough(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(given, tmp_path, "crf", labels=False)) == 0
    assert "an image's labels are the classes that its knowledge shows" in capsys.readouterr().out
    for number in range(6):
        assert read_map(map_path(tmp_path / "advice", name_of(number)))[0] == [0, 1 + 2 * (number % 2)]
        assert (tmp_path / "refined" / f"{name_of(number)}.png").is_file()
    assert json.loads((tmp_path / "labels.json").read_text())["a.b.c.jpg"] == [3]


def test_missing_pairs_are_listed_or_skipped(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = shutil.copytree(given, tmp_path / "given")
    (root / "photos" / "my cat.jpg").unlink()
    map_path(root / "A", "été").unlink()
    (root / "labels.json").write_text(json.dumps({name_of(number): [1] for number in range(5)}))
    message = (
        r"3 of 6 images are incomplete: 1 without image \(my cat\); 1 without advice \(été\); 1 without label \(x_6\)"
    )
    with pytest.raises(InputError, match=message):
        main(words(root, tmp_path / "out"))
    (root / "labels.json").write_text(json.dumps({name_of(n): [1 + 2 * (n % 2)] for n in range(5)}))
    assert main(words(root, tmp_path / "out", None, "--epochs=1", "--skip-missing")) == 0
    assert {path.stem for path in (tmp_path / "out" / "refined").glob("*.png")} == {"a.b.c", "plain", "x_5"}
    assert "continuing with the other 3" in capsys.readouterr().out


def a_mask_of_another_size(root: Path) -> str:
    write_mask(root / "K" / "plain.png", np.zeros((5, 6), int))
    return r"knowledge .*plain\.png is 6 x 5 pixels, its image .*plain\.png is 72 x 67"


def a_damaged_map(root: Path) -> str:
    path = map_path(root / "A", "x_5")
    path.write_bytes(path.read_bytes()[:100])
    return r"cannot read score map .*x_5\.map\.png"


def a_class_that_does_not_exist(root: Path) -> str:
    write_mask(root / "K" / "x_6.png", np.full((69, 72), 9))
    return r"x_6\.png holds the value 9, expected class indices 0\.\.3 or 255"


def no_knowledge(root: Path) -> str:
    shutil.rmtree(root / "K")
    return "knowledge folder .*K does not exist"


def no_photos(root: Path) -> str:
    shutil.rmtree(root / "photos")
    return "folder of images .*photos does not exist"


def unknown_labels(root: Path) -> str:
    (root / "labels.json").write_text('{"plain": ["zebra"]}')
    return r"labels\.json names the class 'zebra'"


BREAKAGES = [
    a_mask_of_another_size,
    a_damaged_map,
    a_class_that_does_not_exist,
    no_knowledge,
    no_photos,
    unknown_labels,
]


@pytest.mark.parametrize("spoil", BREAKAGES)
def test_bad_input_stops_before_the_training(given: Path, tmp_path: Path, spoil: Callable[[Path], str]) -> None:
    root = shutil.copytree(given, tmp_path / "given")
    message = spoil(root)
    with pytest.raises(InputError, match=message):
        main(words(root, tmp_path / "out"))
    assert not (tmp_path / "out" / "static").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--truth=photos"], "holds a ground truth mask <name>.png for none of the 6 images"),
        (["--epochs=0"], "epochs"),
        (["--backbone=resnet5"], "did you mean resnet50"),
        (["--crop_size=-1"], "crop_size"),
    ],
)
def test_bad_options(
    given: Path, tmp_path: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        main(words(given, tmp_path / "out", None, *more))


def test_masks_without_objects_are_no_knowledge(given: Path, tmp_path: Path) -> None:
    root = shutil.copytree(given, tmp_path / "given")
    for path in (root / "K").iterdir():
        write_mask(path, np.zeros((4, 4), int))
    with pytest.raises(InputError, match="shows only background"):
        main(words(root, tmp_path / "out", labels=False))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone=beit_base_patch16_224"], "the backbone beit_base_patch16_224 cannot be used"),
        (["--weights=nowhere.pth"], r"expected a file of weights at nowhere\.pth"),
        (["--set=model.init_args.ssdd.init_args.biases.dd_bia=1"], "did you mean dd_bias"),
        (["--truth=nowhere"], "folder of ground truth masks nowhere does not exist"),
        (["--truth=small"], r"K/a\.b\.c\.png is .* pixels, small/a\.b\.c\.png is 6 x 5"),
    ],
)
def test_mistakes_are_found_before_anything_is_computed(
    given: Path, tmp_path: Path, more: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(6):
        write_mask(tmp_path / "small" / f"{name_of(number)}.png", np.zeros((5, 6), int))
    with pytest.raises(InputError, match=message):
        main(words(given, tmp_path / "out", "crf", "--epochs=1", *more))
    assert not (tmp_path / "out" / "advice").exists()


def test_what_is_read_is_never_written(given: Path, tmp_path: Path) -> None:
    root = shutil.copytree(given, tmp_path / "given")
    for out in ("K", "A", "photos"):
        with pytest.raises(InputError, match=f"would write into .*{out}, which is one of its inputs"):
            main(words(root, root / out))
    shutil.copytree(root / "K", tmp_path / "out" / "refined")
    with pytest.raises(InputError, match=r"would write into .*refined, which is one of its inputs"):
        main([*words(root, tmp_path / "out"), f"--knowledge={tmp_path / 'out' / 'refined'}"])


def test_another_knowledge_makes_the_advice_of_its_images_anew(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, original = shutil.copytree(given, tmp_path / "given"), CRFJob.run
    refined_images: list[int] = []

    def count(self: CRFJob) -> int:
        refined_images.append(original(self))
        return refined_images[-1]

    monkeypatch.setattr(CRFJob, "run", count)
    assert main(words(root, tmp_path / "out", "crf")) == 0
    assert main(words(root, tmp_path / "out", "crf")) == 0
    write_mask(root / "K" / "plain.png", truth_of(3))
    assert main(words(root, tmp_path / "out", "crf")) == 0
    assert refined_images == [6, 1]


def test_a_finished_refinement_may_go_on_elsewhere_on_the_machine(
    refined: Path, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(refined, tmp_path / "moved")
    (out / "refined" / "plain.png").unlink()
    monkeypatch.chdir(given)
    assert main([*words(given, out), "--images=photos", "--num_workers=1"]) == 0
    config = (out / "static.yaml").read_text()
    assert "num_workers: 1" in config
    assert str(out / "classes.json") in config
    assert (out / "refined" / "plain.png").is_file()


def test_a_damaged_checkpoint_is_a_sentence(refined: Path, given: Path, tmp_path: Path) -> None:
    out = shutil.copytree(refined, tmp_path / "out")
    (out / "refined" / "plain.png").unlink()
    last = out / "static" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"cannot read the checkpoint .*last\.ckpt: truncated"):
        main(words(given, out))


@pytest.mark.parametrize("name", ["new\nline", "a\\b", "x.map"])
def test_names_that_files_cannot_keep_are_refused(given: Path, tmp_path: Path, name: str) -> None:
    root = shutil.copytree(given, tmp_path / "given")
    (root / "photos" / "plain.png").rename(root / "photos" / f"{name}.png")
    with pytest.raises(InputError, match=r"the image name .* (holds|ends in)"):
        main(words(root, tmp_path / "out"))
