import importlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.photos import GivenData
from ssdd_lightning.pipeline.run import RunOptions

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module("claims")


def of(step: Any) -> dict[str, Any]:
    settings: dict[str, Any] = step.settings()
    return settings


@pytest.mark.parametrize("experiment", ["quickstart", "voc2012"])
@pytest.mark.parametrize("short", [False, True])
def test_what_is_compared_differs_in_its_labels_alone(
    claims: Any, tiny_devkit: Path, tmp_path: Path, experiment: str, short: bool
) -> None:
    options = RunOptions(REPOSITORY / "experiments" / experiment, tmp_path, GivenData(tiny_devkit))
    compared = claims.Claims(options, short)
    start = str(tmp_path / "models" / "seeds" / "seed3" / "checkpoints" / "last.ckpt")
    longer, dynamic = (of(compared.steps(name, 3)[0]) for name in (claims.REFERENCE, "dynamic"))
    assert longer["model"]["init_args"]["static_checkpoint"] == start
    assert dynamic["model"]["init_args"]["network_checkpoint"] == start
    assert dynamic["model"]["init_args"]["static_checkpoint"] == str(tmp_path / "static" / "checkpoints" / "last.ckpt")
    for option in ("max_epochs", "check_val_every_n_epoch"):
        assert longer["trainer"].get(option) == dynamic["trainer"].get(option)
    for option in ("optimization", "testing", "network"):
        assert longer["model"]["init_args"].get(option) == dynamic["model"]["init_args"].get(option)
    for option in ("knowledge", "batch_size", "augmentation"):
        assert longer["data"].get(option) == dynamic["data"].get(option)
    assert longer["seed_everything"] == dynamic["seed_everything"] == 3
    fit, test = (of(step) for step in compared.steps("dynamic", 3))
    assert fit["model"]["init_args"]["testing"] == test["model"]["init_args"]["testing"], "or a test is refused later"


@pytest.mark.parametrize("name", ["random_choice", "first_module_alone"])
def test_a_class_of_an_ablation_keeps_the_arguments_of_the_yaml(
    claims: Any, tiny_devkit: Path, tmp_path: Path, name: str
) -> None:
    options = RunOptions(REPOSITORY / "experiments" / "voc2012_animals", tmp_path, GivenData(tiny_devkit))
    compared = claims.Claims(options, False)
    usual, other = (of(compared.steps(row, 0)[0])["model"] for row in ("dynamic", name))
    ours, theirs = (other["init_args"]["ssdd"], usual["init_args"]["ssdd"])
    assert [other["class_path"], ours["class_path"]] != [usual["class_path"], theirs["class_path"]]
    other["class_path"], ours["class_path"] = usual["class_path"], theirs["class_path"]
    assert other == usual


def test_a_start_that_is_not_asked_for_is_trained_and_not_tested(
    claims: Any, tiny_devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(REPOSITORY / "experiments" / "quickstart", tmp_path, GivenData(tiny_devkit))
    ran: list[str] = []
    monkeypatch.setattr("ssdd_lightning.pipeline.steps.StageStep.run", lambda step: ran.append(step.command))
    claims.Claims(options, True).run("seeds", 0, tested=False)
    assert ran == ["fit"]


def test_a_result_of_other_settings_or_inputs_is_refused(claims: Any, tiny_devkit: Path, tmp_path: Path) -> None:
    def fit(**settings: Any) -> Any:
        given = {key.replace("__", "."): value for key, value in settings.items()}
        options = RunOptions(
            REPOSITORY / "experiments" / "quickstart", tmp_path, GivenData(tiny_devkit), settings=given
        )
        return claims.Claims(options, False).steps("truth", 0)[0]

    claims.refuse_other(fit())  # nothing is there yet
    ledger = fit().ledger()
    ledger.settle()
    assert ledger.finished
    claims.refuse_other(fit())
    claims.refuse_other(fit(data__num_workers=1))  # changes no result
    epochs = fit().settings()["trainer"]["max_epochs"]
    folder = re.escape(str(tmp_path / "models" / "truth" / "seed0"))
    changed = rf"{folder} holds a result of other settings \(trainer\.max_epochs was {epochs} and is {epochs + 1}\)"
    with pytest.raises(InputError, match=changed):
        claims.refuse_other(fit(trainer__max_epochs=epochs + 1))
    weights = tmp_path / "classification" / "checkpoints" / "last.ckpt"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"other")
    with pytest.raises(InputError, match=r"\(.*backbone_weights.* changed"):
        claims.refuse_other(fit())


def test_every_row_starts_from_a_plain_one_on_its_own_masks(claims: Any) -> None:
    for row in claims.ROWS.values():
        if row.start:
            start = claims.ROWS[row.start]
            assert (start.start, start.stage, start.masks) == ("", "baseline", row.masks)


def test_rows_are_compared_over_the_seeds_that_both_have(claims: Any) -> None:
    def counts(right: int) -> Any:
        return np.tile(np.array([[right, 100 - right, 0], [100 - right, right, 0]]), (5, 1, 1))

    found = {
        (claims.REFERENCE, "test"): {0: counts(60), 1: counts(80)},
        (claims.FULL, "test"): {1: counts(100)},
        ("dynamic", "test"): {0: counts(70), 1: counts(80)},
        ("frozen", "test"): {0: counts(70), 2: counts(99)},
    }
    iou = {right: 100 * right / (200 - right) for right in (60, 70, 80, 99)}
    dynamic, frozen = (claims.compared(found, name, "test", "x", claims.REFERENCE) for name in ("dynamic", "frozen"))
    gain = iou[70] - iou[60]
    mean = f"{gain / 2:+.2f}"
    assert dynamic["x, difference"] == f"{mean} ({mean} to {mean}): {gain:+.2f}, +0.00", "every image is the same"
    assert dynamic["x, share"] == f"{iou[80]:.1f} %"
    assert frozen["x, difference"] == f"{gain:+.2f} ({gain:+.2f} to {gain:+.2f})"
    assert frozen["x"].startswith(f"{(iou[70] + iou[99]) / 2:.2f} ± ")
    assert "x, share" not in frozen
    assert "x, difference" not in claims.compared(found, "dynamic", "test", "x", "dynamic")
    assert claims.compared(found, claims.REFERENCE, "test", "x", "dynamic")["x, difference"].startswith(f"-{mean[1:]} ")


def test_a_report_keeps_the_masks_scores_and_names_what_it_compares_with(
    claims: Any, tiny_devkit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def counts(right: int) -> Any:
        return np.tile(np.array([[right, 100 - right, 0], [100 - right, right, 0]]), (5, 1, 1))

    found = {
        (claims.REFERENCE, "test"): {0: counts(60)},
        ("advice_longer", "test"): {0: counts(50)},
        ("dynamic", "test"): {0: counts(70)},
    }
    monkeypatch.setattr(claims.Claims, "found", lambda *_: found)
    monkeypatch.setattr(claims.Claims, "table", lambda *_: [])
    monkeypatch.setattr(claims, "VOC_CLASSES", ("background", "cat"))
    (tmp_path / "claims.json").write_text('{"masks": [{"K": 50.62}]}')
    words = ["claims.py", "--experiment", str(REPOSITORY / "experiments" / "quickstart"), "--root", str(tiny_devkit)]
    gains = {}
    for than in (claims.REFERENCE, "advice_longer"):
        monkeypatch.setattr("sys.argv", [*words, "--out", str(tmp_path), "--report", "--than", than])
        assert claims.main() == 0
        name = "claims.json" if than == claims.REFERENCE else "claims_over_advice_longer.json"
        written = json.loads((tmp_path / name).read_text())
        assert written["masks"] == [{"K": 50.62}]
        assert written["than"] == than
        gains[than] = written["classes"][1]["gain"]
    iou = {right: 100 * right / (200 - right) for right in (50, 60, 70)}
    assert gains == pytest.approx({claims.REFERENCE: iou[70] - iou[60], "advice_longer": iou[70] - iou[50]})
