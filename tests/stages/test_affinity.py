from functools import partial
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import affinity_loss, cam_background, pair_labels, random_walk
from ssdd_lightning.nn import AffinityNet
from ssdd_lightning.stages import AffinityModule
from tests.helpers.steps import Build, Reached, Step


@pytest.fixture
def module(build: Build) -> Build:
    def make(stride: Any = 4, **options: Any) -> Any:
        network = partial(AffinityNet, "test_efficientnet", output_stride=16, stride=stride)
        return build(AffinityModule, network=network, **options)

    return make


@pytest.fixture
def photo() -> dict[str, Any]:
    """Batch of `predict`: one image of two classes, its sides no multiple of any stride."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.zeros(1, 4, 50, 70)
    maps[0, 1, 10:30, 10:30] = 0.9
    maps[0, 3, 25:45, 40:65] = 1.0
    maps[0, 0] = 0.123  # whatever background the maps have
    return {
        "image_raw": torch.randint(0, 256, (1, 3, 50, 70), generator=generator, dtype=torch.uint8),
        "image_labels": torch.tensor([[True, True, False, True]]),
        "maps": maps,
        "name": ["a"],
    }


def test_loss_is_that_of_the_confident_pairs(
    module: Build,
    step: Step,
    batch: dict[str, Any],
    reached: Reached,
) -> None:
    stage = module()
    loss, logged = step(stage, batch)
    confident = torch.full_like(batch["knowledge"], 255)
    both = (batch["knowledge"] > 0) & (batch["knowledge"] < 255) & (batch["advice"] > 0)
    confident[both] = batch["knowledge"][both]
    confident[(batch["knowledge"] == 0) & (batch["advice"] == 0)] = 0
    assert torch.equal(stage._pictures["refined"], confident)
    torch.testing.assert_close(logged["train/confident"], (confident != 255)[:, :, :48].float().mean())
    affinity = stage.network(batch["image"])
    assert affinity.shape == (2, 34, 16, 16)
    torch.testing.assert_close(loss, affinity_loss(affinity, pair_labels(confident[:, 2::4, 2::4])))
    trained = reached(loss, stage)
    assert {f"network.{name}.weight" for name in ("f8_3", "f8_4", "f8_5", "f9")} <= trained
    assert any(name.startswith("network.backbone.") for name in trained)


def test_what_either_mask_ignores_takes_no_part(module: Build, step: Step, batch: dict[str, Any]) -> None:
    clean = step(module(), batch)[0]
    padding = ~batch["valid"]
    batch["knowledge"][padding] = 0  # the advice is still 255 there
    assert torch.equal(step(module(), batch)[0], clean)
    batch["advice"][padding] = 0
    assert not torch.equal(step(module(), batch)[0], clean)


def test_a_batch_without_confident_pixels_still_has_a_backward_pass(
    module: Build, step: Step, batch: dict[str, Any]
) -> None:
    batch["knowledge"].fill_(255)
    stage = module()
    loss = step(stage, batch)[0]
    assert loss == 0
    loss.backward()
    assert all(layer.weight.grad is not None for layer in (stage.network.f8_3, stage.network.f9))


@pytest.mark.parametrize("key", ["knowledge", "advice"])
def test_training_without_a_folder_names_it(module: Build, step: Step, batch: dict[str, Any], key: str) -> None:
    del batch[key]
    with pytest.raises(InputError, match=rf"AffinityModule needs {key}, found none .* as data\.{key}"):
        step(module(), batch)


def test_validation_loss_uses_the_truth(module: Build, batch: dict[str, Any]) -> None:
    stage = module().eval()
    truth = batch["knowledge"]
    with torch.no_grad():
        stage.validation_step({"image": batch["image"], "mask": truth, "name": batch["name"]}, 0)
        expected = stage.loss(batch["image"], truth)
    torch.testing.assert_close(stage.logged["val/loss"].compute(), expected)


def test_two_groups_and_the_default_rates(module: Build) -> None:
    from types import SimpleNamespace

    stage = module()
    stage.trainer = SimpleNamespace(estimated_stepping_batches=10)
    optimizer = stage.configure_optimizers()["optimizer"]
    backbone, new = optimizer.param_groups
    assert (backbone["lr"], new["lr"], new["weight_decay"]) == (1e-2, 1e-1, 5e-4)
    assert len(new["params"]) == 4


def test_prediction_is_the_random_walk_of_the_maps_with_a_new_background(module: Build, photo: dict[str, Any]) -> None:
    stage = module(stride=8, background_alpha=16, beta=4, steps=64).eval()
    with torch.no_grad():
        prediction = stage.predict_step(photo, 0)
        affinity = stage.network(photo["image_raw"])
    assert prediction["name"] == ["a"]
    assert prediction["map_classes"][0].tolist() == [0, 1, 3]
    (walked,) = prediction["map"]
    assert walked.shape == (3, 50, 70)
    assert 0 <= walked.min() <= walked.max() <= 1
    torch.testing.assert_close(walked.sum(0), torch.ones(50, 70))

    cam = photo["maps"][:, [1, 3]]
    pooled = F.adaptive_avg_pool2d(torch.cat((cam_background(cam, 16), cam), 1), (7, 9))
    expected = F.interpolate(random_walk(pooled, affinity, 4, 64), (50, 70), mode="bilinear")
    torch.testing.assert_close(walked, (expected / expected.sum(1, keepdim=True))[0])


def test_a_walk_of_no_steps_keeps_places_and_classes(module: Build, photo: dict[str, Any]) -> None:
    stage = module(stride=1, steps=0).eval()
    walked = stage.walk(photo["image_raw"], photo["maps"][:, 1:])
    cam = photo["maps"][:, 1:]
    scores = torch.cat((cam_background(cam, 16), cam), 1)
    torch.testing.assert_close(walked, scores / scores.sum(1, keepdim=True))


def test_images_of_a_batch_keep_their_own_classes(module: Build) -> None:
    stage = module().eval()
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)
    batch: dict[str, Any] = {
        "image_raw": torch.randint(0, 256, (2, 3, 32, 40), generator=generator, dtype=torch.uint8),
        "image_labels": labels,
        "maps": torch.rand(2, 4, 32, 40, generator=generator) * labels[:, :, None, None],
        "name": ["a", "b"],
    }
    with torch.no_grad():
        both = stage.predict_step(batch, 0)
        alone = [stage.predict_step({k: v[i : i + 1] for k, v in batch.items()}, 0) for i in range(2)]
    assert [classes.tolist() for classes in both["map_classes"]] == [[0, 1], [0, 2, 3]]
    for i in range(2):
        torch.testing.assert_close(both["map"][i], alone[i]["map"][0])


def test_an_image_with_one_class_that_fires_nowhere_is_all_background(module: Build, photo: dict[str, Any]) -> None:
    photo["maps"].zero_()
    with torch.no_grad():
        (walked,) = module().eval().predict_step(photo, 0)["map"]
    torch.testing.assert_close(walked[0], torch.ones(50, 70))


def test_prediction_without_maps_names_the_folder(module: Build, photo: dict[str, Any]) -> None:
    del photo["maps"]
    with pytest.raises(InputError, match=r"AffinityModule needs maps, found none .* as data\.maps"):
        module().eval().predict_step(photo, 0)
