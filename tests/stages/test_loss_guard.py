"""A loss that is not finite or has diverged stops the fit, or costs one step and nothing else."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssdd_lightning.errors import InputError
from ssdd_lightning.stages.base import Stage
from ssdd_lightning.stages.loss_guard import DIVERGED, allowed_skips

GOOD = [1.0, -0.5, 2.0]


class Line(nn.Module):
    """A convolution and a normalisation whose statistics every forward pass changes."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))

    def forward(self, image: Tensor) -> Tensor:
        return self.backbone(image)


class Small(Stage):
    """Its loss is finite for finite images, and as large as they are."""

    def __init__(self) -> None:
        super().__init__(Line(), backbone_weights=None)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        image = batch["image"]
        first: Any = self.network.backbone
        return self.network(image).square().mean() + first[0].weight.sum().square() + image.abs().max()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def batches(values: Sequence[float]) -> list[dict[str, Any]]:
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 1, 4, 4, generator=rng)
    return [{"image": noise + value, "name": [f"{value}/a", f"{value}/b"]} for value in values]


def fitted(values: Sequence[float], on_nan: str = "stop", **options: Any) -> Small:
    torch.manual_seed(0)
    stage = Small()
    stage.loss_guard.on_nan = on_nan
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet, **options)
    trainer.fit(stage, DataLoader(batches(values), batch_size=None))  # type: ignore[arg-type]
    return stage


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (float("nan"), "is NaN"),
        (float("inf"), r"is (NaN|not finite)"),
        (10 * DIVERGED, r"has diverged \(1e\+05\)"),
    ],
)
def test_a_bad_loss_stops(value: float, what: str) -> None:
    with pytest.raises(
        InputError, match=rf"Small: the loss of step 1 \(epoch 0\) {what}, on the images {value}/a, {value}/b; no check"
    ):
        fitted([1.0, value, 2.0])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10 * DIVERGED])
@pytest.mark.parametrize("half", [False, True])
def test_a_skipped_step_changes_nothing(value: float, half: bool) -> None:
    def plugins() -> list[Any]:
        return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024))] if half else []

    expected = fitted(GOOD, plugins=plugins())
    with pytest.warns(UserWarning, match=r"on the images .*/a, .*/b; the step is skipped, 1 of 2 that may be"):
        found = fitted([GOOD[0], value, *GOOD[1:], value], "skip:2", plugins=plugins())
    assert found.loss_guard.skipped == 2
    state = found.state_dict()
    for name, tensor in expected.state_dict().items():
        # a skipped step halves the scale of fp16, which rounds differently
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=2e-3 if half else 0)


class Late(Line):
    """A network of somebody's own that makes a buffer in its first step."""

    def forward(self, image: Tensor) -> Tensor:
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.zeros(1))
        return super().forward(image)


def test_a_buffer_that_a_skipped_step_made_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.Line", Late)
    with pytest.warns(UserWarning, match="is skipped, 1 of 1"):
        assert "network.late" in fitted([float("nan"), 1.0], "skip:1").state_dict()


@pytest.mark.parametrize("value", [float("nan"), 10 * DIVERGED])
def test_a_skipped_batch_costs_the_whole_step_of_accumulated_gradients(value: float) -> None:
    expected = fitted([1.0, 2.0, 0.5, -1.0], accumulate_grad_batches=2)
    for bad in ([value, 3.0], [3.0, value]):
        with pytest.warns(UserWarning, match="the step is skipped, 1 of 5"):
            found = fitted([1.0, 2.0, *bad, 0.5, -1.0], "skip:5", accumulate_grad_batches=2)
        for (name, tensor), weight in zip(expected.named_parameters(), found.parameters(), strict=True):
            assert torch.equal(weight, tensor), name


def test_a_stage_whose_losses_are_sums_may_set_another_limit() -> None:
    stage = Small()
    stage.loss_guard.largest = 1e9
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **options)
    trainer.fit(stage, DataLoader(batches([10 * DIVERGED]), batch_size=None))  # type: ignore[arg-type]


def test_no_more_than_the_budget() -> None:
    with (
        pytest.raises(InputError, match=r"All 1 steps that may be skipped were\. Lower"),
        pytest.warns(UserWarning, match="is skipped, 1 of 1"),
    ):
        fitted([1.0, float("nan"), float("nan")], "skip:1")


def test_the_budget_is_that_of_the_whole_fit() -> None:
    stage = Small()
    stage.loss_guard.skipped = 3
    checkpoint: dict[str, Any] = {"state_dict": stage.state_dict()}
    stage.on_save_checkpoint(checkpoint)
    other = Small()
    other.on_load_checkpoint(checkpoint)
    assert other.loss_guard.skipped == 3


@pytest.mark.parametrize("text", ["skip", "skip:0", "skip:-1", "skip:x", "skip: 3", "go", "skip:1\n", ""])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected stop, or skip:N with N at least 1, found"):
        allowed_skips(text)
