from typing import Any

import pytest
import torch
from torch import Tensor

from ssdd_lightning.functional import losses
from ssdd_lightning.functional.refinement import ssdd_merge
from ssdd_lightning.metrics.difference import detection_counts, detection_shares
from ssdd_lightning.stages import StaticRefinementModule
from ssdd_lightning.stages.values import TestProtocol
from tests.helpers.steps import Build, Reached, Step


def test_loss_is_the_sum_of_both_parts(build: Build, step: Step, batch: dict[str, Any]) -> None:
    loss, logged = step(build(StaticRefinementModule), batch)
    assert loss.isfinite()
    assert logged["train/diff0"] > 0
    torch.testing.assert_close(loss, logged["train/base"] + logged["train/diff0"])
    assert logged["train/loss"] is not None


def test_difference_loss_trains_ddnet_alone_and_base_the_rest(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    reached: Reached,
) -> None:
    module = build(StaticRefinementModule)
    loss, logged = step(module, batch)
    difference, base, whole = (reached(part, module) for part in (logged["train/diff0"], logged["train/base"], loss))
    ddnet = {name for name in difference if name.startswith("ssdd.ddnet.")}
    assert ddnet == difference
    assert {"ssdd.ddnet.predict.weight", "ssdd.ddnet.image.0.weight"} & difference
    assert not any(name.startswith("ssdd.") for name in base)
    assert any(name.startswith("network.backbone.") for name in base)
    assert whole == base | difference


def test_gradients_of_the_encoder_are_those_of_the_base_loss(build: Build, step: Step, batch: dict[str, Any]) -> None:
    module = build(StaticRefinementModule)
    loss, logged = step(module, batch)
    parameters = list(module.network.parameters())
    whole = torch.autograd.grad(loss, parameters, retain_graph=True)
    base = torch.autograd.grad(logged["train/base"], parameters)
    assert all(torch.equal(a, b) for a, b in zip(whole, base, strict=True))


def test_refined_mask_is_a_constant(build: Build, step: Step, batch: dict[str, Any]) -> None:
    module = build(StaticRefinementModule)
    step(module, batch)
    refined = module._pictures["refined"]
    assert refined.dtype == torch.long
    assert not any(picture.requires_grad for picture in module._pictures.values())
    padding = ~batch["valid"][:, 2::4, 2::4]
    assert (refined[padding] == 255).all()


@pytest.mark.parametrize(("bias", "source"), [(10.0, "advice"), (-10.0, "knowledge")])
def test_the_bias_decides_the_merge(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    bias: float,
    source: str,
) -> None:
    module = build(StaticRefinementModule, bias=bias)
    step(module, batch)
    torch.testing.assert_close(module._pictures["refined"], batch[source][:, 2::4, 2::4])
    shares = detection_shares(detection_counts(module.watched.modules["ssdd0"]))
    assert shares.values["advice_taken"] == (source == "advice")


def test_padding_takes_no_part(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    original = losses.difference_loss

    def spy(logits: Tensor, target: Tensor, keep: Tensor, valid: Tensor, *rest: Any) -> Tensor:
        seen.append(valid)
        return original(logits, target, keep, valid, *rest)

    monkeypatch.setattr(losses, "difference_loss", spy)
    step(build(StaticRefinementModule), batch)
    assert len(seen) == 2
    for valid in seen:
        torch.testing.assert_close(valid, batch["valid"][:, 2::4, 2::4])


@pytest.mark.parametrize("option", ["knowledge", "advice"])
def test_pixels_ignored_in_either_mask_take_no_part(
    build: Build, step: Step, batch: dict[str, Any], option: str
) -> None:
    clean = step(build(StaticRefinementModule), batch)[1]["train/diff0"]
    batch[option][:, :32] = 255
    half = step(build(StaticRefinementModule), batch)[1]["train/diff0"]
    assert half.isfinite()
    assert half != clean


def one_class_of_two_vanishes(batch: dict[str, Any]) -> dict[str, Any]:
    """In the second image the advice keeps class 2 and loses class 3; in the first, all is well."""
    batch["advice"] = batch["knowledge"].clone()
    batch["advice"][:, 10:12, 10:12] = 0
    batch["advice"][batch["knowledge"] == 3] = 0
    return {key: value[1:] for key, value in batch.items()}


def test_an_image_that_lost_one_class_of_two_is_left_out(build: Build, step: Step, batch: dict[str, Any]) -> None:
    batch = one_class_of_two_vanishes(batch)
    excluded, kept = (step(build(StaticRefinementModule, ratio=ratio), batch)[1]["train/diff0"] for ratio in (0.5, 0.0))
    assert excluded == 0
    assert kept > 0


def test_a_batch_of_bad_samples_still_has_a_backward_pass(build: Build, step: Step, batch: dict[str, Any]) -> None:
    module = build(StaticRefinementModule)
    loss, logged = step(module, one_class_of_two_vanishes(batch))
    assert logged["train/diff0"] == 0
    loss.backward()
    assert all(p.grad is not None for p in module.ssdd.parameters())


def test_per_class_loss_changes_its_own_loss_only(build: Build, step: Step, batch: dict[str, Any]) -> None:
    off, on = (step(build(StaticRefinementModule, per_class_loss=given), batch)[1] for given in (False, True))
    assert off["train/base"] != on["train/base"]
    torch.testing.assert_close(off["train/diff0"], on["train/diff0"])


def test_prediction_merges_at_image_size(build: Build) -> None:
    module = build(StaticRefinementModule).eval()
    generator = torch.Generator().manual_seed(3)
    knowledge, advice = (torch.randint(0, 2, (1, 50, 70), generator=generator) for _ in range(2))
    labels = torch.tensor([[True, True, False, False]])
    image = torch.randint(0, 256, (1, 3, 50, 70), generator=generator, dtype=torch.uint8)
    batch = {"image_raw": image, "knowledge": knowledge, "advice": advice, "image_labels": labels, "name": ["a"]}
    with torch.no_grad():
        prediction = module.predict_step(batch, 0)
    d_knowledge, d_advice = prediction["d_knowledge"][0], prediction["d_advice"][0]
    assert prediction["name"] == ["a"]
    for difference in (d_knowledge, d_advice):
        assert difference.shape == (50, 70)
        assert difference.min() >= 0
        assert difference.max() <= 1
    merged = ssdd_merge(knowledge, advice, d_knowledge[None], d_advice[None], labels)
    torch.testing.assert_close(prediction["mask"][0], merged[0])


def test_difference_maps_are_means_over_scales_and_flips(build: Build) -> None:
    single, flipped, all_of = (
        build(StaticRefinementModule, testing=TestProtocol(scales, flip, crf=False)).eval()
        for scales, flip in (((1.0,), False), ((1.0,), True), ((1.0, 1.5), True))
    )
    flipped.load_state_dict(single.state_dict())
    all_of.load_state_dict(single.state_dict())
    generator = torch.Generator().manual_seed(3)
    knowledge, advice = (torch.randint(0, 2, (2, 50, 70), generator=generator) for _ in range(2))
    image = torch.randint(0, 256, (2, 3, 50, 70), generator=generator, dtype=torch.uint8)
    labels = torch.tensor([[True, True, False, False]] * 2)

    def look(stage: StaticRefinementModule, mirrored: bool) -> dict[str, torch.Tensor]:
        image_raw, known, advised = (t.flip(-1) if mirrored else t for t in (image, knowledge, advice))
        guides: Any = {"image_raw": image_raw, "knowledge": known, "advice": advised, "image_labels": labels}
        with torch.no_grad():
            return stage.look(guides)

    straight, mirrored = look(single, mirrored=False), look(single, mirrored=True)
    both, every = look(flipped, mirrored=False), look(all_of, mirrored=False)
    single.testing = TestProtocol((1.5,), flip=True, crf=False)
    larger = look(single, mirrored=False)
    for key in ("d_knowledge", "d_advice"):
        expected = (straight[key] + mirrored[key].flip(-1)) / 2
        assert not torch.allclose(straight[key], expected, atol=1e-3)
        torch.testing.assert_close(both[key], expected)
        torch.testing.assert_close(every[key], (expected + larger[key]) / 2)
    merged = ssdd_merge(knowledge, advice, every["d_knowledge"], every["d_advice"], labels, all_of.ssdd.biases)
    torch.testing.assert_close(every["refined"], merged)
