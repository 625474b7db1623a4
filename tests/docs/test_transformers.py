"""The YAML files of docs/howto/transformers.md run, on smaller transformers and photos."""

import re
from pathlib import Path

import pytest

from ssdd_lightning.cli.main import main
from tests.helpers.stages import SMALL_RUN
from tests.helpers.transformers import HIERARCHICAL, PLAIN, SWIN, cut_down

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "transformers.md"


@pytest.fixture
def pages_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cut_down(monkeypatch)
    monkeypatch.setitem(PLAIN, "vit_base_patch14_dinov2", {"embed_dim": 24, "depth": 12, "num_heads": 2})
    monkeypatch.setitem(HIERARCHICAL, "swin_base_patch4_window7_224", SWIN)
    for name, content in re.findall(r"```yaml\n# (my_\S+\.yaml)(.*?)```", PAGE.read_text(), re.DOTALL):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def run(command: str, config: Path, devkit: Path, *more: str) -> None:
    own = {"data.root": devkit, "model.init_args.backbone_weights": "null", "trainer.limit_train_batches": 1}
    options = {**SMALL_RUN, **own, "trainer.default_root_dir": config.parent / config.stem}
    del options["model.init_args.network.init_args.backbone"]
    main([command, f"--config={config}", *(f"--{key}={value}" for key, value in options.items()), *more])


def test_dinov2_learns_and_writes_maps_spread_by_attention(pages_files: Path, tiny_devkit: Path) -> None:
    config, maps = pages_files / "my_experiment" / "classification.yaml", pages_files / "maps"
    run("fit", config, tiny_devkit)
    run("predict", config, tiny_devkit, f"--output.output_dir={maps}")
    assert len(list(maps.glob("*.map.png"))) == 12


def test_swin_learns_the_static_stage(pages_files: Path, tiny_devkit: Path) -> None:
    masks = tiny_devkit / "VOCdevkit" / "VOC2012" / "SegmentationClass"
    config = pages_files / "my_swin" / "static.yaml"
    run("fit", config, tiny_devkit, f"--data.knowledge={masks}", f"--data.advice={masks}")
    assert (config.parent / "static" / "checkpoints" / "last.ckpt").is_file()
