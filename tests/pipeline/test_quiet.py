import logging
import warnings
from collections.abc import Iterator

import pytest

from ssdd_lightning.pipeline import quiet


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Lines that a handler of Lightning's logger writes."""
    lines: list[str] = []
    handler, logger = logging.StreamHandler(), logging.getLogger("pytorch_lightning")
    monkeypatch.setattr(handler, "emit", lambda record: lines.append(record.getMessage()))
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


def test_what_was_said_of_the_machine_is_said_once(said: list[str]) -> None:
    log = logging.getLogger("pytorch_lightning.utilities")
    log.setLevel(logging.INFO)
    for _ in range(2):
        with quiet.quiet():
            log.info("GPU available: False, used: False")
            log.info("\U0001f4a1 Tip: try another product")
            log.info("fit: runs/static is finished, nothing to do.")
            log.warning("Loaded model weights from the checkpoint at x")
    finished = "fit: runs/static is finished, nothing to do."
    assert said == ["GPU available: False, used: False", finished, finished]
    log.info("GPU available: False, used: False")
    assert len(said) == 4, "outside, Lightning says what it likes"


def test_warnings_that_nobody_can_act_on() -> None:
    with warnings.catch_warnings(record=True) as caught, quiet.quiet():
        warnings.warn("Found 147 module(s) in eval mode at the start of training. This may", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in caught] == ["something else"]
