"""Values of the stages: any optimizer and schedule of torch, and what is refused."""

from functools import partial

import pytest
import torch
from torch import nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.stages.values import PLAIN, PSA, Optimization, TestProtocol


def groups() -> list[dict[str, object]]:
    return [{"params": nn.Linear(1, 1).parameters(), "lr": 0.5}, {"params": nn.Linear(1, 1).parameters(), "lr": 5.0}]


def test_sgd_of_the_paper_is_the_default() -> None:
    optimizer = Optimization().optimizer_of(groups())
    assert isinstance(optimizer, torch.optim.SGD)
    assert [(g["lr"], g["momentum"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (0.5, 0.9, 2e-4),
        (5.0, 0.9, 2e-4),
    ]
    assert PSA.optimizer_of(groups()).param_groups[0]["weight_decay"] == 5e-4


def test_another_optimizer_keeps_both_rates() -> None:
    optimizer = Optimization(optimizer=partial(torch.optim.AdamW, weight_decay=0.1)).optimizer_of(groups())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.5, 0.1), (5.0, 0.1)]


def test_a_rate_that_would_not_be_used_is_refused() -> None:
    with pytest.raises(InputError, match=r"given the learning rate 0\.3; expected the rates as learning_rate"):
        Optimization(optimizer=partial(torch.optim.AdamW, lr=0.3)).optimizer_of(groups())


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (float("inf"),)])
def test_scales_must_be_above_0(scales: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="scales must be numbers above 0"):
        TestProtocol(scales)
    assert PLAIN.scales == (1.0,)
