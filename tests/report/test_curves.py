import os
from pathlib import Path

import pytest

from ssdd_lightning.report.curves import POINTS, read_curves

tensorboard = pytest.importorskip("torch.utils.tensorboard", reason="tensorboard is not installed")


def write_events(folder: Path, points: dict[str, list[tuple[int, float]]]) -> Path:
    writer = tensorboard.SummaryWriter(str(folder))
    for tag, values in points.items():
        for step, value in values:
            writer.add_scalar(tag, value, step)
    writer.close()
    return next(folder.glob("events.*"))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    return {curve.measure: curve.points for curve in read_curves("static", folder)}


def test_reads_events_without_tensorboard(tmp_path: Path) -> None:
    points = {"train/loss": [(1, 0.5), (300, -2.0)], "test/miou": [(1, 1.0)], "epoch": [(1, 1.0)]}
    write_events(tmp_path / "logs", points | {"val/miou": [(1, float("nan")), (2, 0.25)]})
    assert curves(tmp_path) == {"train/loss": [(1, 0.5), (300, -2.0)], "val/miou": [(2, 0.25)]}


def test_a_half_written_file_gives_what_is_there(tmp_path: Path) -> None:
    path = write_events(tmp_path, {"a": [(step, float(step)) for step in range(20)]})
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        found = curves(tmp_path).get("a", [])
        assert found == [(step, float(step)) for step in range(len(found))]
    path.write_bytes(bytes(range(256)) * 40)
    assert curves(tmp_path) == {}


def test_a_later_version_replaces_what_it_did_again(tmp_path: Path) -> None:
    first = write_events(tmp_path / "version_0", {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]})
    second = write_events(tmp_path / "version_1", {"a": [(2, 20.0), (4, 40.0)]})
    os.utime(first, (1, 1))
    assert curves(tmp_path) == {"a": [(1, 1.0), (2, 20.0), (4, 40.0)]}
    os.utime(second, (0, 0))
    assert curves(tmp_path) == {"a": [(1, 1.0), (2, 2.0), (3, 3.0)]}


def test_reads_lightnings_csv(tmp_path: Path) -> None:
    text = "epoch,step,train/loss,val/miou\n0,1,0.5,\n0,2,,0.25\n0,bad,1,1\n1,3,inf,\n1,4,0.1"
    (tmp_path / "metrics.csv").write_text(text)
    assert curves(tmp_path) == {"train/loss": [(1, 0.5), (4, 0.1)], "val/miou": [(2, 0.25)]}


def test_long_curves_are_thinned_and_keep_their_end(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("step,a\n" + "".join(f"{n},{n}\n" for n in range(5000)))
    points = curves(tmp_path)["a"]
    assert POINTS / 2 < len(points) <= POINTS
    assert points[-1] == (4999, 4999.0)


@pytest.mark.parametrize("name", ["metrics.csv", "events.out.tfevents.1"])
def test_an_empty_file_is_no_curve(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert curves(tmp_path) == {}
