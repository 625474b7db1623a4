import io
from pathlib import Path

import pytest
from rich.console import Console

from ssdd_lightning.pipeline.status import Status
from ssdd_lightning.pipeline.steps import CRFStep

ROWS = [{"what": "knowledge K", "miou": 0.5}, {"what": "advice A", "miou": 0.6}]


@pytest.fixture
def step(tmp_path: Path) -> CRFStep:
    folder = tmp_path / "advice"
    folder.mkdir()
    (folder / "crf.json").write_text('{"seconds": 12.4}')
    (folder / "a.png").write_bytes(bytes(2_000_000))
    return CRFStep("advice", folder, (), tmp_path, tmp_path, {})


def test_one_line_for_each_step_without_a_terminal(step: CRFStep, capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(["knowledge", "advice"])
    status.begin("advice")
    status.end(step, ROWS, shown=True)
    assert capsys.readouterr().out == "advice: 12 s, 2.0 MB; knowledge K 50.00; advice A 60.00\n"
    status.end(step, ROWS, shown=False)
    assert capsys.readouterr().out == ""


def test_a_table_on_a_terminal(step: CRFStep) -> None:
    status = Status(["advice", "static"])
    status.console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    status.end(step, ROWS, shown=True)
    status.begin("static")
    shown = status.console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.split() for line in shown] == [
        ["step", "state", "time", "size", "mIoU", "(%)"],
        ["advice", "finished", "12", "s", "2.0", "MB", "knowledge", "K", "50.00,", "advice", "A", "60.00"],
        ["static", "running"],
    ]
