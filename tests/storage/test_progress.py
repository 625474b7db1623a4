import io
import sys

import pytest

from ssdd_lightning.storage import progress
from ssdd_lightning.storage.progress import Progress


def shown(monkeypatch: pytest.MonkeyPatch, terminal: bool, every: float, show: bool = True) -> str:
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "EVERY", every)
    for _ in Progress(range(3), "crf", 3, shown=show, unit="image", miniters=1, file=stream):
        pass
    return stream.getvalue()


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\rcrf: 100%" in shown(monkeypatch, True, 60)


def test_a_pipe_has_nothing_of_quick_work_and_lines_of_long_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, False, 60) == ""
    lines = shown(monkeypatch, False, 0).strip("\r").splitlines()
    assert lines[-1] == "crf: 3 of 3, 00:00"
    assert not any("\r" in line or "%" in line for line in lines)


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_is_shown_where_nothing_is_wanted(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    assert shown(monkeypatch, terminal, 0, show=False) == ""
