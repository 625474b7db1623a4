"""A fit that continues from a checkpoint whose training state is not its own."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from tests.helpers.stages import write_stage


@pytest.fixture(scope="module")
def fit(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The configuration of a fit of one epoch, and the checkpoint that it left."""
    home = tmp_path_factory.mktemp("fit")
    knowledge = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    data = {"root": tiny_devkit, "knowledge": knowledge, "augmentation": {"crop_size": 32}, "batch_size": 6}
    trainer = {"logger": False, "limit_val_batches": 0, "max_epochs": 1}
    config = f"--config={write_stage(home / 's.yaml', 'SegmentationModule', home, data, trainer=trainer)}"
    main(["fit", config])
    return config, torch.load(home / "checkpoints" / "last.ckpt", weights_only=True)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "momentum": lambda found: found["optimizer_states"][0]["state"][0].update(momentum_buffer="x"),
    "its shape": lambda found: found["optimizer_states"][0]["state"][0].update(momentum_buffer=torch.zeros(3)),
    "rate": lambda found: found["optimizer_states"][0]["param_groups"][0].update(lr=None),
    "groups": lambda found: found["optimizer_states"][0].update(param_groups=[]),
    "schedule": lambda found: found["lr_schedulers"][0].update(last_epoch="x"),
    "schedule's rates": lambda found: found["lr_schedulers"][0].update(base_lrs=["x"]),
    "schedule's methods": lambda found: found["lr_schedulers"][0].update(step=5),
    "steps": lambda found: found["loops"]["fit_loop"]["epoch_loop.state_dict"].update(_batches_that_stepped=None),
    "batches": lambda found: found["loops"]["fit_loop"]["epoch_loop.batch_progress"].update(total=torch.zeros(3)),
    "epochs": lambda found: found["loops"]["fit_loop"]["epoch_progress"]["current"].update(completed=[]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_training_state_of_other_values_is_a_sentence(
    fit: tuple[str, dict[str, Any]], tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    config, content = fit
    content = deepcopy(content)
    path = tmp_path / "odd.ckpt"
    words = ["fit", config, f"--ckpt_path={path}", f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2"]
    torch.save(content, path)
    main(words)
    change(content)
    torch.save(content, path)
    with pytest.raises(InputError, match=r"the checkpoint.* does not fit this run, or is damaged \(.*\); use one that"):
        main(words)
