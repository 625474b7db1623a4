"""`ssdd run` again after something changed: what depends on it is made anew and says why, and nothing else is."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ssdd_lightning.cli.main import main
from ssdd_lightning.cli.mistakes import check_stage
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import pixel_adaptive_refinement
from ssdd_lightning.nn import ClassificationNetwork
from ssdd_lightning.pipeline.config import parse_value
from ssdd_lightning.pipeline.photos import GivenData
from ssdd_lightning.pipeline.run import Pipeline, Refined, RunOptions
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_image
from ssdd_lightning.storage.score_maps import map_path, read_map, write_map
from tests.helpers.processes import stopped
from tests.helpers.stages import SMALL_RUN

EXPERIMENT = Path(__file__).parents[2] / "experiments" / "quickstart"
FITS = ("classification", "static", "baseline_seeds", "dynamic")
PRODUCTS = ("classification", "knowledge", "advice", "static", "seeds", "baseline_seeds", "dynamic")


class Run:
    """An experiment, a devkit and what became of them, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out, self.experiment, self.root = folder / "out", folder / "experiment", folder / "data"
        self.devkit = self.root / "VOCdevkit" / "VOC2012"

    def words(self, *more: object, weights: object = "null", **changed: object) -> list[str]:
        sets = {**SMALL_RUN, **{key.replace("__", "."): value for key, value in changed.items()}}
        words = [word for key, value in sets.items() for word in ("--set", f"{key}={value}")]
        command = ["run", str(self.experiment), f"--root={self.root}", f"--out={self.out}", "--pictures=1"]
        return [*command, f"--classifier_weights={weights}", *map(str, more), *words]

    def go(self, *more: object, **changed: Any) -> None:
        assert main(self.words(*more, **changed)) == 0

    def edit(self, stage: str, **init_args: Any) -> None:
        path = self.experiment / f"{stage}.yaml"
        content = yaml.safe_load(path.read_text())
        content["model"]["init_args"] |= init_args
        path.write_text(yaml.safe_dump(content))

    def names(self) -> list[str]:
        return (self.devkit / "ImageSets" / "Segmentation" / "trainaug.txt").read_text().split()

    def state(self) -> dict[str, list[int]]:
        """When each product was made."""
        files = {f"{fit}": self.out / fit / "checkpoints" / "last.ckpt" for fit in FITS}
        files |= {"knowledge": self.out / "knowledge", "advice": self.out / "advice"}
        files["seeds"] = self.out / "static" / "predictions"
        return {
            name: sorted(p.stat().st_mtime_ns for p in ([path] if path.is_file() else path.rglob("*.png")))
            for name, path in files.items()
        }


@pytest.fixture(scope="module")
def finished(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("finished"))
    shutil.copytree(EXPERIMENT, run.experiment)
    run.edit("dynamic", network_checkpoint=None)  # one model less to train
    shutil.copytree(tiny_devkit, run.root)
    run.go()
    return run


@pytest.fixture
def run(finished: Run, tmp_path: Path) -> Run:
    """A copy of a finished run, moved as a whole."""
    shutil.copytree(finished.folder, tmp_path / "copy")
    return Run(tmp_path / "copy")


def new_weights(folder: Path) -> Path:
    torch.manual_seed(1)
    torch.save(ClassificationNetwork(5, "test_efficientnet").backbone.encoder.model.state_dict(), folder / "new.pth")
    return folder / "new.pth"


def another_photo(run: Run) -> None:
    path = run.devkit / "JPEGImages" / f"{run.names()[0]}.jpg"
    Image.fromarray(255 - np.array(Image.open(path))).save(path)


def another_annotation(run: Run) -> None:
    paths = [run.devkit / "Annotations" / f"{name}.xml" for name in run.names()]
    texts = {path.read_text().count("<object>"): path for path in paths}
    path = texts[min(texts)]
    text = path.read_text()
    there = next(name for name in ("cat", "cow", "dog", "sheep") if f"<name>{name}</name>" in text)
    other = next(name for name in ("cat", "cow", "dog", "sheep") if f"<name>{name}</name>" not in text)
    path.write_text(text.replace(f"<name>{there}</name>", f"<name>{other}</name>"))


def other_labels(run: Run) -> Path:
    labels = {name: ["cat"] for name in run.names()}
    labels |= {p.stem: ["cat"] for p in (run.devkit / "JPEGImages").glob("*.jpg")}
    (run.folder / "labels.json").write_text(json.dumps(labels))
    return run.folder / "labels.json"


def fewer_images(run: Run) -> None:
    (run.devkit / "ImageSets" / "Segmentation" / "trainaug.txt").write_text("\n".join(run.names()[:-3]))


SSDD = {"class_path": "ssdd_lightning.SSDD", "init_args": {"width": 64, "biases": {"class_bias": 0.0}}}
ALL = set(PRODUCTS)
MODELS = {"static", "seeds", "baseline_seeds", "dynamic"}
Change = Callable[[Run], dict[str, Any] | None]
CHANGES: dict[str, tuple[Change, set[str], str]] = {
    "learning rate": (
        lambda r: {"model__init_args__optimization__learning_rate": 0.005},
        ALL,
        "learning_rate was 0.001 and is 0.005",
    ),
    "epochs": (lambda r: {"trainer__max_epochs": 2}, ALL, "trainer.max_epochs was 1 and is 2"),
    "crop": (
        lambda r: {"data__augmentation__crop_size": 48},
        ALL,
        "data.augmentation.crop_size was 32 and is 48",
    ),
    "classifier weights": (lambda r: {"weights": new_weights(r.folder)}, ALL, "backbone_weights"),
    "CRF width": (
        lambda r: r.edit("static", crf={"bilateral_sxy": 20}),
        ALL - {"classification", "knowledge"},
        "bilateral_sxy was 28",
    ),
    "class bias": (lambda r: r.edit("static", ssdd=SSDD), MODELS - {"static"}, "biases.class_bias was"),
    "DD-Net's scales": (
        lambda r: r.edit("static", testing={"scales": [1.5]}),
        MODELS - {"static"},
        "protocol.scales was [2.0] and is [1.5]",
    ),
    "background": (
        lambda r: r.edit("classification", background_alpha=2.0),
        ALL - {"classification"},
        "protocol.background_alpha was 4.0 and is 2.0",
    ),
    "photo": (another_photo, ALL, "the training images changed"),
    "annotation": (another_annotation, ALL, "the image-level labels changed"),
    "other labels": (
        lambda r: {"labels": other_labels(r)},
        ALL,
        "the image-level labels changed",
    ),
    "shorter list": (fewer_images, ALL, "the training images changed"),
    "classes": (lambda r: {"data__classes": "[cat,cow,dog]"}, ALL, "data.classes was"),
}
"""What changes, and with which settings the run is repeated; which products that concerns, and how the run says so."""


def test_a_finished_run_that_moved_as_a_whole_is_finished(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.state()
    assert all(before.values())
    run.go(data__num_workers=1, trainer__log_every_n_steps=3)  # nothing that could matter
    assert run.state() == before
    said = capsys.readouterr().out
    assert "redone" not in said
    assert "knowledge K" in said


def plan(run: Run, capsys: pytest.CaptureFixture[str], *more: str, **changed: Any) -> dict[str, str]:
    """What `--dry-run` says of each step."""
    capsys.readouterr()
    run.go("--dry-run", *more, **changed)
    lines = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_asks_for_what_depends_on_it_and_says_why(
    run: Run, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    apply, expected, reason = CHANGES[change]
    changed = apply(run) or {}
    labels = changed.pop("labels", None)
    said = plan(run, capsys, *(() if labels is None else [f"--labels={labels}"]), **changed)
    steps = {"static/predictions" if name == "seeds" else name: name for name in PRODUCTS}
    assert {name for step, name in steps.items() if said[step].startswith("made again, because ")} == expected
    assert any(reason in sentence for sentence in said.values()), said
    if expected == ALL and "weights" not in changed:  # every fit sees it by itself, not only the first
        settings = {**SMALL_RUN, **{key.replace("__", "."): value for key, value in changed.items()}}
        given = {key: parse_value(str(value)) for key, value in settings.items()}
        for step in pipeline_of(run, settings=given, labels=labels).steps[1:]:
            if step.command == "fit":
                assert reason.partition(" was")[0] in step.ledger().difference, step.name


@pytest.mark.parametrize("change", ["CRF width", "shorter list"])
def test_a_change_makes_anew_what_depends_on_it_and_says_why(
    run: Run, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    apply, expected, reason = CHANGES[change]
    before = run.state()
    capsys.readouterr()
    apply(run)
    run.go()
    after = run.state()
    assert {name for name in PRODUCTS if before[name] != after[name]} == expected
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "redone" in line]
    assert any(reason in line for line in said), said
    if change == "shorter list":
        assert any(line.startswith(f"3 images in {run.out / 'knowledge'} are left out") for line in lines), lines
        entries = [run.out / folder for folder in ("knowledge/predict.json", "advice/crf.json")]
        assert [len(json.loads(entry.read_text())["left_over"]) for entry in entries] == [3, 3]
        assert len(list((run.out / "advice").glob("*.map.png"))) == len(run.names()) + 3
    else:
        run.go()
        assert run.state() == after, "what was made anew is finished"


def test_the_first_run_is_noted_as_a_whole(finished: Run) -> None:
    assert (finished.out / "run.json").is_file(), "or the second looks at every step"


def test_the_same_command_again_is_finished_at_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.go()  # the copy has other paths: its steps are asked, and the whole is noted
    before = run.state()
    capsys.readouterr()
    run.go()
    said = capsys.readouterr().out
    assert "run: finished in" in said
    assert "==" not in said, "no step was asked"
    assert "static refinement m_D0" in said
    assert run.state() == before
    (run.out / "static" / "predictions" / f"{run.names()[0]}.png").unlink()
    run.go()
    assert "== predict static/predictions" in capsys.readouterr().out
    assert (run.out / "static" / "predictions" / f"{run.names()[0]}.png").is_file()


def appended(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


UNSEEN: dict[str, Callable[[Run], object]] = {
    "a photo": lambda r: appended(r.devkit / "JPEGImages" / f"{r.names()[0]}.jpg"),
    "an annotation": lambda r: appended(r.devkit / "Annotations" / f"{r.names()[0]}.xml"),
    "a ground truth mask": lambda r: appended(sorted((r.devkit / "SegmentationClass").glob("2007*.png"))[0]),
    "a list": lambda r: fewer_images(r),
    "a YAML": lambda r: r.edit("dynamic", mask_stride=8),
    "a YAML that others extend": lambda r: appended_option(r.experiment / "common.yaml"),
    "a checkpoint": lambda r: (r.out / "static" / "checkpoints" / "last.ckpt").unlink(),
    "a score map": lambda r: (r.out / "knowledge" / f"{r.names()[0]}.map.png").unlink(),
    "a difference map": lambda r: next((r.out / "static" / "predictions" / "d_advice").glob("*.png")).unlink(),
    "the table": lambda r: (r.out / "results.json").unlink(),
    "a picture": lambda r: next((r.out / "pictures").glob("*.png")).unlink(),
    "an entry": lambda r: (r.out / "dynamic" / "test" / "test.json").unlink(),
}


def appended_option(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    content["seed_everything"] = 7
    path.write_text(yaml.safe_dump(content))


def pipeline_of(run: Run, **changed: object) -> Pipeline:
    given: dict[str, Any] = {"pictures": 1, **changed}
    data = GivenData(run.root, given.pop("labels", None), given.pop("truth", None))
    return Pipeline(RunOptions(run.experiment, run.out, data, **given))


@pytest.fixture
def settled(run: Run) -> Run:
    """A finished run whose whole was noted."""
    pipeline_of(run).ledger().settle()
    assert pipeline_of(run).ledger().finished
    return run


@pytest.mark.parametrize("change", UNSEEN)
def test_nothing_changes_unseen(settled: Run, change: str) -> None:
    UNSEEN[change](settled)
    assert not pipeline_of(settled).ledger().finished


@pytest.mark.parametrize(
    "changed",
    [
        {"seed_split": "trainaug"},
        {"pictures": 2},
        {"settings": {"data.splits.train": "train"}},
        {"settings": {"trainer.max_epochs": 2}},
        {"baselines": ("advice",)},
        {"refined": Refined("cam"), "truth": "Other"},
    ],
)
def test_no_option_changes_unseen(settled: Run, changed: dict[str, object]) -> None:
    assert not pipeline_of(settled, **changed).ledger().finished


def test_splits_and_labels_of_the_settings_are_watched(settled: Run) -> None:
    lists, labels = settled.folder / "mine.txt", settled.folder / "labels.json"
    lists.write_text("\n".join(settled.names()[:4]))
    labels.write_text(json.dumps({p.stem: ["cat"] for p in (settled.devkit / "JPEGImages").glob("*.jpg")}))
    mine = {"settings": {"data.splits.train": str(lists), "data.labels": str(labels)}}
    for path, text in ((lists, "\n".join(settled.names()[:3])), (labels, labels.read_text().replace("cat", "dog"))):
        pipeline_of(settled, **mine).ledger().settle()
        assert pipeline_of(settled, **mine).ledger().finished
        path.write_text(text)
        assert not pipeline_of(settled, **mine).ledger().finished


def test_settings_reach_the_pipeline_itself(settled: Run) -> None:
    chosen = {"data.classes": ["cat", "dog"], "data.splits.test": "train", "model.init_args.crf": {"bilateral_sxy": 7}}
    pipeline = pipeline_of(settled, settings=chosen)
    assert pipeline.data.class_names == ["background", "cat", "dog"]
    assert pipeline.photos.split(pipeline.content("dynamic")["data"], "test") == "train"
    crf = next(step for step in pipeline.steps if step.command == "crf")
    assert crf.settings()["crf"] == {"gaussian_sxy": 1, "bilateral_sxy": 7}


def test_what_is_not_there_cannot_be_kept(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(run.out / "static")
    said = plan(run, capsys, "--keep=static", "--keep=static/predictions")
    assert said["static"] == "made"
    assert said["static/predictions"].startswith("made, because static is made")


def test_a_dry_run_says_what_would_be_done_and_why(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    steps = ["classification", "knowledge", "advice", "static", "static/predictions"]
    steps += ["baseline_seeds", "baseline_seeds/test", "dynamic", "dynamic/test"]
    said = plan(run, capsys)
    assert {step: said[step] for step in steps} == dict.fromkeys(steps, "finished")
    before = run.state()
    run.edit("static", mask_stride=8)
    found = plan(run, capsys)
    assert list(found) == [*steps, "results"]
    assert [found[step] for step in steps[:3]] == ["finished"] * 3
    assert found["static"].startswith("made again, because model.init_args.mask_stride was 2")
    assert found["static/predictions"] == "made again, because static is made again"
    assert found["dynamic/test"] == "made again, because dynamic is made again"
    (run.out / "knowledge" / f"{run.names()[0]}.map.png").unlink()
    assert plan(run, capsys)["knowledge"].startswith("goes on: 1 of")
    shutil.rmtree(run.out / "dynamic")
    assert plan(run, capsys)["dynamic"].startswith("made, because")
    assert {**run.state(), "dynamic": before["dynamic"], "knowledge": 0} == {**before, "knowledge": 0}


def test_some_steps_alone(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.state()
    run.edit("static", mask_stride=8)
    run.edit("dynamic", mask_stride=8)
    found = plan(run, capsys, "--only=dynamic")
    assert found["static"] == "left as it is"
    assert found["dynamic"].startswith("made again, because model.init_args.mask_stride was 4")
    run.go("--from=dynamic", "--until=dynamic/test")
    said = capsys.readouterr().out
    assert "== fit static" not in said
    assert "static refinement m_D0" in said, "what is left as it is still counts"
    changed = {name for name, times in run.state().items() if times != before[name]}
    assert changed == {"dynamic"}
    run.go("--until=static")
    said = capsys.readouterr().out
    assert "== fit static" in said
    assert "== predict static/predictions" not in said
    assert "Not scored, because what they were made from changed: static/predictions, " in said
    rows = [row["what"] for row in json.loads((run.out / "results.json").read_text())]
    assert rows == ["knowledge K", "advice A", "oracle merge of K and A"], "the others are outdated"
    run.go()
    run.go("--until=knowledge")
    rows = [row["what"] for row in json.loads((run.out / "results.json").read_text())]
    assert rows[-1] == "dynamic model", "nothing changed, so no row is lost"
    with pytest.raises(InputError, match="--from dynamic comes after --until static"):
        run.go("--from=dynamic", "--until=static")
    with pytest.raises(InputError, match=r"--until: expected the name of a step \(classification, .* found 'seeds'"):
        run.go("--until=seeds")
    with pytest.raises(InputError, match="--only goes without --from and --until"):
        run.go("--only=static", "--until=static")


def test_the_advice_may_be_pixel_adaptive_refinement(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = plan(run, capsys, "--advice=par")
    assert "advice" not in found
    assert found["knowledge"] == "finished"
    assert found["advice_par"] == "made"
    assert found["static"] == "made again, because advice_par is made"
    assert found["dynamic"].startswith("made again, because static")
    run.go("--advice=par", "--only=advice_par")
    name = run.names()[0]
    _, scores = read_map(map_path(run.out / "knowledge", name))
    image = torch.from_numpy(read_image(run.devkit / "JPEGImages" / f"{name}.jpg")).permute(2, 0, 1)
    expected = pixel_adaptive_refinement(image[None], torch.from_numpy(scores)[None])[0].numpy()
    _, refined = read_map(map_path(run.out / "advice_par", name))
    assert np.abs(refined - expected).max() < 0.005
    rows = {row["what"]: row["seconds"] for row in json.loads((run.out / "results.json").read_text())}
    assert rows["advice A"] is not None
    fit = next(step for step in pipeline_of(run, refined=Refined(advice="par")).steps if step.name == "dynamic")
    assert fit.settings()["model"]["init_args"]["refinement"]["advice"] == "par"
    run.edit("dynamic", refinement={"prior": 0.5})
    fit = next(step for step in pipeline_of(run, refined=Refined(advice="par")).steps if step.name == "dynamic")
    assert fit.settings()["model"]["init_args"]["refinement"] == {"prior": 0.5, "advice": "par"}


def test_the_dynamic_stage_may_go_on_from_the_baseline(run: Run) -> None:
    run.edit("dynamic", network_checkpoint="of/another/machine.ckpt", per_class_loss=False)
    steps = {step.name: step for step in pipeline_of(run).steps}
    models = [f"{model}{made}" for model in ("baseline_seeds", "baseline_longer", "dynamic") for made in ("", "/test")]
    assert list(steps)[5:] == models
    longer, dynamic = (steps[name].settings() for name in ("baseline_longer", "dynamic"))
    start = str(run.out / "baseline_seeds" / "checkpoints" / "last.ckpt")
    assert dynamic["model"]["init_args"]["network_checkpoint"] == start
    assert longer["model"]["init_args"]["static_checkpoint"] == start
    for content in (longer, dynamic):
        check_stage(content, "voc", ["fit"])  # its options exist
    for section, option in (
        *(("model.init_args", option) for option in ("optimization", "per_class_loss")),
        ("data", "batch_size"),
    ):
        ours, theirs = longer, dynamic
        for name in section.split("."):
            ours, theirs = ours[name], theirs[name]
        assert ours[option] == theirs[option]
    own = {"default_root_dir", "callbacks", "logger"}
    assert {k: v for k, v in longer["trainer"].items() if k not in own} == {
        k: v for k, v in dynamic["trainer"].items() if k not in own
    }
    assert longer["data"]["knowledge"] == dynamic["data"]["knowledge"]
    start_alone = [step.name for step in pipeline_of(run, baselines=("advice",)).steps][5:]
    assert start_alone == ["baseline_advice", "baseline_advice/test", "baseline_seeds", "dynamic", "dynamic/test"]


def test_the_advice_may_be_a_folder(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    given = run.folder / "given"
    shutil.copytree(run.out / "advice", given)
    shutil.rmtree(run.out / "advice")
    found = plan(run, capsys, f"--advice={given}")
    assert not {"advice", str(given)} & set(found)
    assert found["static"] == "finished", "the bytes of the advice are those that it was fitted on"
    run.go(f"--advice={given}")
    rows = {row["what"]: row["seconds"] for row in json.loads((run.out / "results.json").read_text())}
    assert list(rows)[:2] == ["knowledge K", "advice A"]
    assert rows["advice A"] is None, "nothing says how long somebody else's masks took"
    assert set(plan(run, capsys, f"--advice={given}").values()) == {"finished"}
    path = map_path(given, run.names()[0])
    classes, scores = read_map(path)
    write_map(path, classes, scores[:, ::-1].copy())
    found = plan(run, capsys, f"--advice={given}")
    assert found["static"] == "made again, because data.advice changed"
    with pytest.raises(InputError, match=r"--advice: expected crf, par or a folder of masks .* found 'psb'"):
        run.go("--advice=psb")


def test_retraining_on_the_masks_of_the_dynamic_model(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    said = plan(run, capsys, "--retrain")
    assert said["dynamic/test"] == "finished"
    run.go("--retrain")
    said_so = capsys.readouterr().out
    assert "retrained on masks of the dynamic model" in said_so
    masks = {path.stem for path in (run.out / "dynamic" / "masks").glob("*.png")}
    assert masks == set(run.names())
    entry = json.loads((run.out / "retrain" / "fit.json").read_text())["settings"]["model"]["init_args"]
    assert entry["static_checkpoint"] is None
    assert entry["backbone_weights"] is None, "--classifier_weights=null"
    assert len(list((run.out / "retrain" / "test").glob("*.png"))) == 4
    assert set(plan(run, capsys, "--retrain").values()) == {"finished"}


def test_folders_that_nobody_names(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.folder)
    pipeline = Pipeline(RunOptions(run.experiment, settings={"data.root": "data"}))
    assert pipeline.out == Path("runs/experiment")
    assert pipeline.photos.images.resolve() == run.devkit / "JPEGImages"


def test_a_stale_product_is_kept_by_name(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    before = run.state()
    run.edit("static", mask_stride=8)
    assert plan(run, capsys, "--keep=static")["static"] == "kept"
    run.go("--keep=static")
    assert "fit: kept in" in capsys.readouterr().out
    assert run.state() == before
    run.go()
    assert run.state() == before, "it was accepted for good"
    with pytest.raises(InputError, match=r"--keep: expected the name of a step .* found 'nothing'"):
        run.go("--keep=nothing")


def test_an_interrupted_fit_under_another_rate_starts_anew(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    entry = json.loads((run.out / "static" / "fit.json").read_text())
    (run.out / "static" / "fit.json").write_text(json.dumps({**entry, "finished": False}))
    capsys.readouterr()
    run.go(model__init_args__optimization__new_learning_rate=0.02)
    assert "new_learning_rate was 0.01 and is 0.02" in capsys.readouterr().out


def test_a_rate_that_diverges_can_be_mended(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"the loss of step \d \(epoch \d\) (is|has diverged)|holds NaN"):
        run.go(model__init_args__optimization__new_learning_rate=1e30, trainer__max_epochs=3)
    run.go(model__init_args__optimization__new_learning_rate=0.02)
    rows = json.loads((run.out / "results.json").read_text())
    assert all(0 <= row["miou"] <= 1 for row in rows)


def test_a_second_run_in_the_same_folder_is_refused(run: Run) -> None:
    with locked(run.out), pytest.raises(InputError, match=r"another run works in .*out \(process \d+ on "):
        run.go()


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_a_damaged_entry_is_a_sentence(run: Run, content: str) -> None:
    (run.out / "classification" / "fit.json").write_text(content)
    with pytest.raises(InputError, match=r"expected an entry of the ledger .*fit\.json"):
        run.go()


def test_a_signal_ends_all_of_it_and_the_same_command_goes_on(run: Run) -> None:
    shutil.rmtree(run.out)
    status, before, after, said = stopped(run.words(trainer__max_epochs=50), signal.SIGTERM)
    assert status == 143
    assert [line for line in before if line.startswith("==")] == ["== fit classification\n"]
    assert "==" not in after, "nothing runs after it"
    assert said == ["ssdd: terminated. Run the same command again to continue."]
    assert (run.out / "classification" / "checkpoints" / "last.ckpt").is_file()
