import pytest

from ssdd_lightning.errors import InputError
from ssdd_lightning.pipeline.refine_options import Recipe, default_crop, default_epochs, stage_config
from tests.helpers.weights import needs_package


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [
        ([(375, 500)] * 3, 448),
        ([(2000, 3000)], 448),
        ([(112, 176), (120, 144), (10, 9000)], 160),
        ([(20, 30)], 64),
    ],
)
def test_the_crop_fits_the_images(sizes: list[tuple[int, int]], crop: int) -> None:
    assert default_crop(sizes) == crop


def test_the_longest_side_is_drawn_as_in_the_paper() -> None:
    data = stage_config(Recipe(), {"images": "x"}, 448, "cpu", 99)["data"]
    assert (data["augmentation"], data["images"]) == ({"resize": [448, 512], "crop_size": 448}, "x")


@pytest.mark.parametrize(
    ("backbone", "given", "weights"),
    [
        pytest.param("tf_efficientnet_lite0", None, "offline", marks=needs_package),
        ("resnet50", None, "imagenet"),
        ("resnet50", "none", None),
        ("resnet50", "my.ckpt", "my.ckpt"),
    ],
)
def test_what_the_backbone_starts_from(backbone: str, given: str | None, weights: str | None) -> None:
    config = stage_config(Recipe(backbone=backbone, weights=given), {}, 64, "cuda", 99)
    assert config["model"]["init_args"]["backbone_weights"] == weights
    assert config["trainer"]["accelerator"] == "gpu"


def test_the_papers_backbone_gets_the_papers_head() -> None:
    network = stage_config(Recipe(backbone="resnet38"), {}, 64, "cpu", 99)["model"]["init_args"]["network"]["init_args"]
    assert (network["head"], network["output_stride"]) == ("largefov", 8)
    assert stage_config(Recipe(), {}, 64, "cpu", 99)["model"]["init_args"]["network"]["init_args"]["head"] == "fpn"


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs"), [(10_000, 16, 10), (120, 16, 50), (5, 16, 300), (0, 1, 300)]
)
def test_a_small_folder_is_gone_through_more_often(images: int, batch_size: int, epochs: int) -> None:
    assert default_epochs(images, batch_size) == epochs
    config = stage_config(Recipe(batch_size=batch_size), {}, 64, "cpu", images)
    assert config["trainer"]["max_epochs"] == epochs
    assert config["checkpoint"]["every_n_epochs"] * 10 == epochs
    assert stage_config(Recipe(epochs=2), {}, 64, "cpu", images)["trainer"]["max_epochs"] == 2


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed: expected 0 to 4294967295, found {seed}"):
        Recipe(seed=seed)
