import fcntl
import io
import os
import re
import select
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ssdd_lightning.pipeline.status import LiveStream, Status
from ssdd_lightning.pipeline.steps import CRFStep
from ssdd_lightning.storage.progress import Progress

ROWS = [{"what": "knowledge K", "miou": 0.5}, {"what": "advice A", "miou": 0.6}]


class Processes(CRFStep):
    processes = 2


def step_of(tmp_path: Path, kind: type[CRFStep] = CRFStep) -> CRFStep:
    return kind("advice", tmp_path / "advice", (), tmp_path, tmp_path, {})


@pytest.fixture
def step(tmp_path: Path) -> CRFStep:
    folder = tmp_path / "advice"
    folder.mkdir()
    (folder / "crf.json").write_text('{"seconds": 12.4}')
    (folder / "a.png").write_bytes(bytes(2_000_000))
    return step_of(tmp_path)


@contextmanager
def terminal() -> Iterator[int]:
    """A pseudo terminal in place of stdout and stderr; its other end."""
    outside, inside = os.openpty()
    fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with os.fdopen(inside, "w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        yield outside
    os.close(outside)


def written(terminal: int) -> str:
    """Everything up to now; a terminal hands it over in pieces."""
    sys.stdout.flush()
    parts = []
    while select.select([terminal], [], [], 0.5)[0]:
        parts.append(os.read(terminal, 1 << 16))
    return b"".join(parts).decode()


def test_one_line_for_each_step_without_a_terminal(step: CRFStep, capsys: pytest.CaptureFixture[str]) -> None:
    status = Status(["knowledge", "advice"])
    with status.shown():
        status.begin(step)
        status.end(step, ROWS, shown=True)
        assert capsys.readouterr().out == "advice: 12 s, 2.0 MB; knowledge K 50.00; advice A 60.00\n"
        status.end(step, ROWS, shown=False)
        assert capsys.readouterr().out == ""
        assert not isinstance(sys.stdout, LiveStream)


def test_the_table_stays_below_what_is_written(step: CRFStep) -> None:
    with terminal() as outside:
        status, own = Status(["advice", "static"]), sys.stdout
        with status.shown():
            status.begin(step)
            print("a line of the step")
            for _ in Progress(range(3), "crf", mininterval=0):
                pass
            print("\rstep 1 of 2", end="", file=sys.stderr)
            assert status.progress == "step 1 of 2"
            print("epoch 1", file=sys.stderr)
            assert status.progress == ""
            status.end(step, ROWS, shown=True)
        assert sys.stdout is own
        said = written(outside)
    assert "\x1b[1A" in said, "the table is drawn over itself"
    plain = re.sub(r"\x1b\[[\d;?]*[mhl]", "", said)
    lines = [line.rpartition("\x1b[2K")[2].strip() for line in plain.split("\n") if line.strip()]
    order = [next(i for i, line in enumerate(lines) if text in line) for text in ("a line of", "crf: 100%", "epoch 1")]
    assert order == sorted(order)
    assert not any("step 1 of 2epoch" in line for line in lines)
    assert lines[-1].split() == ["static", "waiting"]
    assert " ".join(lines[-2].split()) == "advice finished 12 s 2.0 MB knowledge K 50.00, advice A 60.00"


def test_a_step_of_several_processes_has_the_terminal_for_itself(step: CRFStep, tmp_path: Path) -> None:
    several = step_of(tmp_path, Processes)
    with terminal() as outside:
        status = Status(["advice"])
        with status.shown():
            status.begin(several)
            assert not status._live.is_started
            print("written by itself")
            status.end(several, ROWS, shown=True)
            assert status._live.is_started
        assert "written by itself\r\n" in written(outside)


def interrupted(status: Status) -> None:
    with status.shown():
        status.held = sys.stderr  # type: ignore[attr-defined]
        raise KeyboardInterrupt


def test_the_terminal_is_whole_again_after_an_error() -> None:
    with terminal() as outside:
        status, own = Status(["advice"]), (sys.stdout, sys.stderr)
        with pytest.raises(KeyboardInterrupt):
            interrupted(status)
        assert (sys.stdout, sys.stderr) == own
        assert not status._live.is_started
        status.held.write("said later, by a logger that kept the stream\n")  # type: ignore[attr-defined]
        assert "said later" in written(outside)


def test_a_redirected_stream_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    with terminal():
        monkeypatch.setattr(sys, "stderr", log)
        with Status(["advice"]).shown():
            print("into the log", file=sys.stderr)
    assert log.getvalue() == "into the log\n"
