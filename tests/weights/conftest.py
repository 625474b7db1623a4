"""Files as other projects write them, made here from their formats."""

from pathlib import Path

import pytest
import torch

from ssdd_lightning.nn.resnet38 import ResNet38
from tests.helpers.weights import meta


@pytest.fixture(scope="session")
def psa_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ResNet-38 of PSA, as old versions of torch saved it: without counters of batches."""
    return {k: tuple(v.shape) for k, v in meta(ResNet38).state_dict().items() if not k.endswith("num_batches_tracked")}


@pytest.fixture(scope="session")
def psa_weights(psa_shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors of full shape, each one value repeated, so that a file of them is small."""
    return {name: torch.tensor(1 + i / 1000).expand(shape) for i, (name, shape) in enumerate(psa_shapes.items())}


@pytest.fixture(scope="session")
def res38_cls(psa_weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like PSA's res38_cls.pth."""
    path = tmp_path_factory.mktemp("psa") / "res38_cls.pth"
    torch.save({**psa_weights, "fc8.weight": torch.tensor(0.25).expand(20, 4096, 1, 1)}, path)
    return path
