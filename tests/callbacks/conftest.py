from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

SIZE = 3, 24, 32
COUNT = 4


class TinyData(LightningDataModule):
    """Four random photos; a network of three outputs on a dataset where they are 0, 8 and 12."""

    class_indices = (0, 8, 12)

    def loader(self):
        rng = np.random.default_rng(0)
        photos = [torch.from_numpy(rng.integers(0, 256, SIZE, dtype=np.uint8)) for _ in range(COUNT)]
        return DataLoader([{"image": photo, "name": f"n{i}"} for i, photo in enumerate(photos)], batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader


class TinyStage(LightningModule):
    """A 1x1 convolution; `answer` makes what the steps return, `shown` what `pictures` returns."""

    def __init__(self, answer=None, shown=None):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)
        self.answer, self.shown, self.batch, self.mode = answer, shown, None, None

    def step(self, mode, batch):
        self.batch, self.mode = batch, mode
        return self.net(batch["image"].float() / 255).mean()

    def training_step(self, batch, batch_idx):
        return self.step("train", batch)

    def validation_step(self, batch, batch_idx):
        self.step("val", batch)

    def test_step(self, batch, batch_idx):
        return self.answer(batch)

    predict_step = test_step

    def pictures(self):
        return self.shown(self) if self.shown else None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture
def make_trainer(tmp_path):
    def make(*callbacks, logger=False, epochs=1, **options):
        return Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            logger=logger,
            callbacks=list(callbacks),
            default_root_dir=tmp_path,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
            **options,
        )

    return make


@pytest.fixture
def tiny():
    return SimpleNamespace(Data=TinyData, Stage=TinyStage)
