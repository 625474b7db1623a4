"""What all rooms share: a tiny devkit, and settings that keep two cores and the network out of trouble."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # before torch: see ssdd_lightning.cli.entry_point
os.environ["WANDB_MODE"] = "offline"

import pytest
import torch

from ssdd_lightning.data.synthetic import write_synthetic_devkit

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_devkit(tmp_path_factory):
    """Folder that holds VOCdevkit/VOC2012: 12 training and 4 validation images of 64 x 64, read-only by agreement."""
    root = tmp_path_factory.mktemp("tiny_devkit")
    write_synthetic_devkit(root, num_train=12, num_val=4, image_size=64, seed=0)
    return root
