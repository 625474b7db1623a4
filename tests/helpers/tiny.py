"""The smallest stage and data of Lightning."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

SIZE = 3, 24, 32
COUNT = 4


class Data(LightningDataModule):
    """Four random photos; a network of three outputs on a dataset where they are 0, 8 and 12."""

    class_indices = (0, 8, 12)
    class_names = ("background", "cat", "dog")

    def loader(self) -> DataLoader[dict[str, Any]]:
        rng = np.random.default_rng(0)
        photos = [torch.from_numpy(rng.integers(0, 256, SIZE, dtype=np.uint8)) for _ in range(COUNT)]
        items: Any = [{"image": photo, "name": f"n{i}"} for i, photo in enumerate(photos)]
        return DataLoader(items, batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class Stage(LightningModule):
    """A 1x1 convolution; `answer` makes what the steps return, `shown` what `pictures` returns."""

    def __init__(self, answer: Callable[..., Any] | None = None, shown: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)
        self.answer, self.shown = answer, shown
        self.batch: dict[str, Any] | None = None
        self.mode: str | None = None

    def step(self, mode: str, batch: dict[str, Any]) -> Tensor:
        self.batch, self.mode = batch, mode
        return self.net(batch["image"].float() / 255).mean()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.step("val", batch)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> Any:
        return self.answer(batch)

    predict_step = test_step

    def pictures(self) -> Any:
        return self.shown(self) if self.shown else None

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)
