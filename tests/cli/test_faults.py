"""A fault of the machine is one sentence and status 2; `--debug` shows the traceback, too."""

import errno
import sys

import pytest

import ssdd_lightning.cli.main as command
from ssdd_lightning.cli.main import entry_point, main, trusting
from ssdd_lightning.errors import InputError

WORKER = (
    "Caught OSError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\nOSError: bad disk"
)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "metrics.csv"),
            "metrics.csv: No space left on device. What",
        ),
        (OSError(errno.EROFS, "Read-only file system", "out"), "out: Read-only file system. What is finished is kept"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error. What is finished is kept"),
        (OSError(WORKER), "OSError: bad disk. What is finished is kept"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "no permission for out"),
        (InputError("mine."), "mine."),
        (MemoryError(), "the memory is full. Take a smaller batch_size"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_faults_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    sentence: str,
    debug: bool,
) -> None:
    def fail() -> int:
        raise error

    monkeypatch.setattr(command, "main", fail)
    monkeypatch.setattr(command, "raise_on_signals", lambda: None)
    monkeypatch.setattr(sys, "argv", ["ssdd", "test", *(["--debug"] if debug else [])])
    with pytest.raises(SystemExit) as ended:
        entry_point()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.rpartition("\nssdd: error: ")[2].removeprefix("ssdd: error: ").count(sentence) == 1
    assert ("Traceback (most recent call last)" in said) == debug
    assert debug or said.count("\n") == 1


def test_a_defect_is_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise RuntimeError("mine")

    monkeypatch.setattr(command, "main", fail)
    monkeypatch.setattr(command, "raise_on_signals", lambda: None)
    with pytest.raises(RuntimeError, match="mine"):
        entry_point()


def test_debug_is_an_option_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "--version"]) == 0
    assert main(["--help", "--debug"]) == 0
    assert "`--debug` with any command" in capsys.readouterr().out


def test_options_of_trust_are_not_the_parsers() -> None:
    words = ["fit", "--config=a.yaml", "-c", "b.yaml", "--data.root", "x"]
    with trusting(words) as rest:
        assert rest == words
    with trusting(["fit", "--import", "json", "--config=a.yaml", "--import=csv"]) as rest:
        assert rest == ["fit", "--config=a.yaml"]
