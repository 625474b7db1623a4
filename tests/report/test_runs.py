"""Reports of runs: folders laid out as `ssdd run` and `ssdd refine` leave them, finished or not."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.results import Scores
from ssdd_lightning.report.material import FolderOptions, Material
from ssdd_lightning.report.runs import run_material
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.masks import read_mask, write_mask
from tests.helpers.stages import TABLE

ANIMALS = {0: "background", 8: "cat", 10: "cow", 12: "dog", 17: "sheep"}


class Run:
    """The folders of a run on the tiny devkit, whose masks are the ground truth moved by some pixels."""

    def __init__(self, root: Path, out: Path) -> None:
        self.root, self.out = root, out
        self.devkit = root / "VOCdevkit" / "VOC2012"

    def names(self, split: str) -> list[str]:
        return (self.devkit / "ImageSets" / "Segmentation" / f"{split}.txt").read_text().split()

    def masks(self, folder: str, split: str, by: int, command: str, finished: bool = True) -> None:
        """A step's product and its entry."""
        items = {}
        for name in self.names(split):
            truth = read_mask(self.devkit / "SegmentationClass" / f"{name}.png")
            path = self.out / folder / f"{name}.png"
            write_mask(path, np.where(np.roll(truth, by, axis=1) == 255, 0, np.roll(truth, by, axis=1)))
            items[name] = Item((), (path,))
        ledger = Ledger(self.out / folder, command, Recipe({"note": "a <b>setting</b>"}), items)
        with ledger.working():
            ledger.done(items)
            if finished:
                ledger.close({"images": len(items)})

    def fit(self, folder: str, **data: Any) -> None:
        """A training's entry, configuration and curve."""
        ledger = Ledger(self.out / folder, "fit", Recipe({"max_epochs": 1}))
        with ledger.working():
            ledger.close()
        logs = self.out / folder / "lightning_logs" / "version_0"
        logs.mkdir(parents=True)
        content = {"data": {"root": str(self.root), "truth": "SegmentationClass", **data}, "dataset": "voc"}
        (logs / "config.yaml").write_text(yaml.safe_dump(content))
        (logs / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.25\n")

    def begin(self) -> None:
        """Everything up to the advice."""
        self.fit("classification", classes=list(ANIMALS.values())[1:])
        self.masks("knowledge", "trainaug", 9, "predict")
        self.masks("advice", "trainaug", 5, "crf")

    def finish(self, folder: str = "") -> None:
        """Everything after it."""
        self.fit(f"{folder}static")
        self.masks(f"{folder}static/predictions", "trainaug", 3, "predict")
        for key in ("d_knowledge", "d_advice"):
            (self.out / folder / "static" / "predictions" / key).mkdir()
            for name in self.names("trainaug"):
                Image.fromarray(np.full((64, 64), 99, np.uint8)).save(
                    self.out / folder / "static" / "predictions" / key / f"{name}.png"
                )
        for stage, by in (("baseline_seeds", 2), ("baseline_longer", 2), ("dynamic", 1)):
            self.fit(f"{folder}{stage}")
            self.masks(f"{folder}{stage}/test", "val", by, "test")

    def report(self, *words: str) -> dict[str, Any]:
        """What the page of the command holds."""
        assert main(["report", str(self.out), *words]) == 0
        text = (self.out / "report" / "index.html").read_text(encoding="utf-8")
        content: dict[str, Any] = json.loads(text.split('id="data">')[1].split("</script>")[0])
        return content


@pytest.fixture
def run(tiny_devkit: Path, tmp_path: Path) -> Run:
    return Run(tiny_devkit, tmp_path / "my run")


def material(folder: Path, **options: Path) -> Material:
    return run_material(folder, FolderOptions(**options))


def test_a_finished_run_is_scored_as_its_own_table_is(run: Run) -> None:
    run.begin()
    run.finish()
    content = run.report()
    rows = {row["title"]: row for row in content["stages"]}
    assert list(rows) == TABLE
    scores = Scores(run.devkit / "SegmentationClass", ANIMALS)
    train, val = run.names("train"), run.names("val")
    card = scores.card(run.out / "knowledge", train, run.out / "advice")
    assert rows["knowledge K"]["miou"] == pytest.approx(card.miou, abs=1e-6)
    assert rows["oracle merge of K and A"]["miou"] == pytest.approx(card.companions["oracle"].miou, abs=1e-6)
    model = scores.card(run.out / "dynamic" / "test", val)
    assert rows["dynamic model"]["miou"] == pytest.approx(model.miou, abs=1e-6)
    assert (rows["dynamic model"]["split"], rows["dynamic model"]["images"]) == ("val", len(val))
    assert {image["name"] for image in content["images"]} == {*train, *val}
    assert content["title"] == "my run"


def test_the_final_masks_of_a_run_without_a_test_and_a_retrained_model(run: Run) -> None:
    run.begin()
    run.fit("dynamic")
    run.masks("dynamic/masks", "trainaug", 1, "predict")
    run.fit("retrain")
    run.masks("retrain/test", "val", 1, "test")
    rows = {row.title: row for row in material(run.out).masks}
    assert set(rows["dynamic model"].names) == set(run.names("trainaug"))
    assert (rows["dynamic model"].folder, rows["dynamic model"].split) == (run.out / "dynamic" / "masks", "all")
    assert set(rows["retrained on masks of the dynamic model"].names) == set(run.names("val"))


def test_what_was_run_is_said(run: Run) -> None:
    run.begin()
    run.finish()
    content = run.report()
    facts = dict(map(tuple, content["facts"]))
    assert facts["photos"] == str(run.devkit / "JPEGImages")
    assert facts["ground truth"] == str(run.devkit / "SegmentationClass")
    assert facts["images in this report"] == str(len(run.names("train")) + len(run.names("val")))
    steps = {(step["name"], step["command"]): step for step in content["steps"]}
    assert ("static/predictions", "predict") in steps
    assert steps["knowledge", "predict"]["settings"] == {"note": "a <b>setting</b>"}
    assert {curve["stage"] for curve in content["curves"]} == {
        "classification",
        "static",
        "baseline_seeds",
        "baseline_longer",
        "dynamic",
    }
    assert content["curves"][0]["points"] == [[1, 0.5], [2, 0.25]]
    assert content["notes"] == []


def test_layers_of_both_splits(run: Run) -> None:
    run.begin()
    run.finish()
    images = {image["name"]: image for image in run.report()["images"]}
    trained, tested = images[run.names("train")[0]], images[run.names("val")[0]]
    assert trained["layers"] == ["photo", "knowledge", "advice", "refined", "d_knowledge", "d_advice", "truth"]
    assert tested["layers"] == ["photo", "baseline_seeds", "baseline_longer", "prediction", "truth"]
    assert trained["changed"] > 0
    assert tested["changed"] is None


def test_half_a_run_is_reported_and_goes_on(run: Run) -> None:
    run.fit("classification")
    run.masks("knowledge", "trainaug", 9, "predict", finished=False)
    content = run.report()
    assert [row["title"] for row in content["stages"]] == ["knowledge K"]
    assert "predict knowledge" in content["notes"][0]
    assert "not finished" in content["notes"][0]
    shutil.rmtree(run.out / "knowledge")
    shutil.rmtree(run.out / "classification")
    run.begin()
    run.finish()
    assert len(run.report()["stages"]) == 7


def test_a_run_without_masks_is_none(run: Run, tmp_path: Path) -> None:
    run.fit("classification")
    with pytest.raises(InputError, match="holds no masks of a run"):
        material(run.out)
    with pytest.raises(InputError, match="does not exist"):
        material(tmp_path / "nowhere")


def test_photos_that_moved_are_asked_for(run: Run) -> None:
    run.begin()
    config = next(run.out.rglob("config.yaml"))
    config.write_text(yaml.safe_dump({"data": {"root": "/gone"}}))
    with pytest.raises(InputError, match=r"photos lie in /gone.*--images"):
        material(run.out)
    found = material(run.out, images=run.devkit / "JPEGImages", truth=run.devkit / "SegmentationClass")
    assert set(found.photos) == set(run.names("trainaug"))  # without its lists, all that was predicted
    assert found.truth == run.devkit / "SegmentationClass"


def test_the_advice_is_what_the_static_stage_learnt_from(run: Run) -> None:
    run.begin()
    run.masks("advice_par", "trainaug", 4, "par")
    run.finish()
    shutil.rmtree(run.out / "static" / "lightning_logs")
    run.fit("static", advice="moved/advice_par")
    found = material(run.out)
    advice = next(one for one in found.masks if one.title == "advice A")
    assert advice.folder == run.out / "advice_par"
    assert advice.seconds is not None
    assert "par" in [step["command"] for step in found.steps]


@pytest.mark.parametrize("given", ["", "from_random_walk"])
def test_a_run_of_the_random_walk(run: Run, given: str) -> None:
    run.begin()
    run.masks("random_walk", "trainaug", 6, "predict")
    run.masks("random_walk_crf", "trainaug", 4, "crf")
    run.finish("from_random_walk/")
    rows = material(run.out / given).masks
    assert [row.folder.name for row in rows][:5] == [
        "random_walk",
        "random_walk_crf",
        "predictions",
        "knowledge",
        "advice",
    ]
    assert rows[-1].folder == run.out / "from_random_walk" / "dynamic" / "test"
    assert rows[-1].seconds is not None


def test_a_refinement(run: Run, tmp_path: Path) -> None:
    run.masks("given", "trainaug", 9, "import")
    run.masks("advice", "trainaug", 5, "crf")
    run.masks("refined", "trainaug", 3, "predict")
    data = {"images": str(run.devkit / "JPEGImages"), "knowledge": str(run.out / "given")}
    data |= {"advice": str(run.out / "advice"), "class_names": str(tmp_path / "classes.json")}
    (tmp_path / "classes.json").write_text(
        json.dumps(dict(enumerate(["background", *(f"thing {n}" for n in range(1, 21))])))
    )
    (run.out / "static.yaml").write_text(yaml.safe_dump({"data": data}))
    found = material(run.out, truth=run.devkit / "SegmentationClass")
    assert [row.key for row in found.masks] == ["knowledge", "advice", "refined"]
    assert found.class_names[8] == "thing 8"
    assert len(found.photos) == len(run.names("trainaug"))


def test_entries_of_other_versions_are_left_out(run: Run) -> None:
    run.begin()
    (run.out / "advice" / "crf.json").write_text('{"made_by": "an older version"}')
    (run.out / "advice" / "crf.items.jsonl").unlink()  # which older versions had not
    found = material(run.out)
    assert [step["name"] for step in found.steps] == ["classification", "knowledge"]


def words_for(mistake: str, root: Path) -> list[str]:
    return {
        "neither": ["report"],
        "both": ["report", str(root), f"--predictions={root}"],
        "no images": ["report", f"--predictions={root}", f"--out={root / 'o'}"],
        "no out": ["report", f"--predictions={root}", f"--images={root}"],
        "no truth": ["report", f"--predictions={root}", f"--images={root}", f"--truth={root / 'x'}", "--out=o"],
    }[mistake]


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ("neither", "expected the folder of a run"),
        ("both", "not both"),
        ("no images", "--images"),
        ("no out", "--out"),
        ("no truth", "does not exist"),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, mistake: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        main(words_for(mistake, tmp_path))


def test_the_page_is_shipped() -> None:
    setup = Path(__file__).parents[2] / "setup.cfg"
    assert "report/page.html" in setup.read_text()
