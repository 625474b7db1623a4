from collections.abc import Callable

import pytest
from pytorch_lightning import Trainer

from ssdd_lightning.callbacks.lines import EpochLines
from tests.helpers import tiny

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def test_one_line_an_epoch(make_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]) -> None:
    make_trainer(EpochLines(), epochs=2).fit(tiny.Stage(), datamodule=tiny.Data())
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert [line.partition(":")[0] for line in said] == ["epoch 1 of 2", "epoch 2 of 2"]


def test_an_epoch_that_a_fit_continues_is_timed_from_there(
    make_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    lines, trainer = EpochLines(), make_trainer()
    lines.on_train_start(trainer, tiny.Stage())
    lines.on_train_epoch_end(trainer, tiny.Stage())
    assert capsys.readouterr().err.startswith("epoch 1 of 1: 0 s;")


def test_a_line_that_the_next_one_replaces(
    make_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(EpochLines(each_batch=True), num_sanity_val_steps=0)
    trainer.fit(tiny.Stage(), datamodule=tiny.Data())
    said = capsys.readouterr().err
    parts = [part.partition(";")[0].strip() for part in said.split("\r")[1:]]
    assert parts[:4] == [
        "epoch 1 of 1, step 1 of 2",
        "epoch 1 of 1, step 2 of 2",
        "validation 1 of 2",
        "validation 2 of 2",
    ]
    trainer.test(tiny.Stage(answer=lambda batch: None), datamodule=tiny.Data(), verbose=False)
    trainer.predict(tiny.Stage(answer=lambda batch: None), datamodule=tiny.Data())
    said = capsys.readouterr().err
    assert "\rtest 2 of 2" in said
    assert "\rpredict 2 of 2" in said
