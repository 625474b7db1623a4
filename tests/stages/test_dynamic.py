from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ssdd_lightning.crf import CRFOptions, DenseCRF
from ssdd_lightning.errors import InputError
from ssdd_lightning.functional import losses, pixel_adaptive_refinement
from ssdd_lightning.stages import DynamicRefinementModule, dynamic
from ssdd_lightning.stages.values import LabelRefinement
from tests.helpers.steps import Build, Reached, Step

KEEP, TAKE = -10.0, 10.0  # a merge bias that always keeps the knowledge (d1 = K1, d2 = D0) or takes the advice
Watch = Callable[[Any], dict[str, tuple[Tensor, Tensor]]]
PARTS = ("main", "sub", "diff1", "diff2")


def parts_of(logged: dict[str, Tensor]) -> dict[str, Tensor]:
    return {part: logged[f"train/{part}"] for part in PARTS}


def certain_of(module: Any, *classes: int) -> Any:
    """Let the main branch see these classes, one a half of the image, and be certain."""

    def head(features: list[Tensor]) -> tuple[Tensor, Tensor]:
        high, logits = original(features)
        opinion = torch.zeros_like(logits)
        rows = torch.linspace(0, len(classes) - 1e-3, logits.shape[2]).long()
        for row, index in enumerate(rows.tolist()):
            opinion[:, classes[index], row] = 50.0
        return high, logits + opinion

    original = module.network.head.forward
    module.network.head.forward = head
    return module


@pytest.fixture
def spied(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What reaches the two loss functions of the stage: lists of masks, and of (target, valid, keep)."""
    seen: dict[str, list[Any]] = {"masks": [], "differences": []}
    segmentation, difference = losses.segmentation_loss, losses.difference_loss

    def spy_segmentation(logits: Tensor, mask: Tensor, *rest: Any) -> Tensor:
        seen["masks"].append(mask)
        return segmentation(logits, mask, *rest)

    def spy_difference(logits: Tensor, target: Tensor, keep: Tensor, valid: Tensor, *rest: Any) -> Tensor:
        seen["differences"].append((target, valid, keep))
        return difference(logits, target, keep, valid, *rest)

    monkeypatch.setattr(dynamic, "segmentation_loss", spy_segmentation)
    monkeypatch.setattr(losses, "difference_loss", spy_difference)
    return seen


@pytest.fixture
def ssdd_inputs() -> Watch:
    """Record knowledge and advice of both SSDD modules of a stage."""

    def watch(module: Any) -> dict[str, tuple[Tensor, Tensor]]:
        seen = {}
        for name in ("ssdd1", "ssdd2"):
            getattr(module, name).register_forward_pre_hook(lambda _, args, name=name: seen.update({name: args[2:4]}))
        return seen

    return watch


def test_loss_is_the_sum_of_four_parts(build: Build, step: Step, batch: dict[str, Any]) -> None:
    loss, logged = step(build(DynamicRefinementModule), batch)
    assert loss.isfinite()
    torch.testing.assert_close(loss, sum(parts_of(logged).values()))
    torch.testing.assert_close(loss, logged["train/loss"])


def test_a_step_in_bfloat16_has_the_losses_of_float32(build: Build, step: Step, batch: dict[str, Any]) -> None:
    """An untrained network has losses near log C, whatever it computes; its classifiers get larger weights."""
    found = {}
    for mixed in (False, True):
        module = build(DynamicRefinementModule, bias=KEEP, ratio=0.0)  # no merge hangs on a close choice
        for head in (module.network.head, module.sub_head):
            nn.init.normal_(head.classifier[1].weight, std=0.4)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss, logged = step(module, batch)
        assert loss.dtype == torch.float32
        loss.backward()
        assert all(p.grad.isfinite().all() for p in module.parameters() if p.grad is not None)
        found[mixed] = {"loss": loss.item(), **{part: value.item() for part, value in parts_of(logged).items()}}
    assert min(found[False].values()) > 1
    assert found[True] == pytest.approx(found[False], rel=0.05)
    assert found[True] != found[False], "nothing was mixed"


def test_every_loss_reaches_its_own_weights_only(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    reached: Reached,
) -> None:
    module = build(DynamicRefinementModule, ratio=0.0)
    _, logged = step(certain_of(module, 1, 2), batch)
    assert all(value > 0 for value in parts_of(logged).values())
    found = {part: {name.split(".")[0] for name in reached(value, module)} for part, value in parts_of(logged).items()}
    assert found["main"] == {"network"}
    assert found["sub"] == {"network", "sub_head"}
    assert found["diff1"] == {"ssdd1"}
    assert found["diff2"] == {"ssdd2"}
    sub = reached(logged["train/sub"], module)
    assert any(name.startswith("network.backbone.") for name in sub)
    assert not any(name.startswith("network.head.") for name in sub)


def test_padding_is_255_in_every_mask_and_out_of_every_loss(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    spied: dict[str, list[Any]],
    ssdd_inputs: Watch,
) -> None:
    module = build(DynamicRefinementModule)
    inputs = ssdd_inputs(module)
    step(module, batch)
    valid = batch["valid"][:, 2::4, 2::4]
    masks = [*inputs["ssdd1"], *inputs["ssdd2"], *spied["masks"]]
    assert len(masks) == 4 + 3
    for mask in masks:
        assert (mask[~valid] == 255).all()
        assert (mask[valid] != 255).all()
    assert len(spied["differences"]) == 4
    for _, counted, _ in spied["differences"]:
        torch.testing.assert_close(counted, valid)


def test_padding_gets_no_gradient_from_the_segmentation_losses(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = build(DynamicRefinementModule)
    kept: list[Tensor] = []
    original = losses.segmentation_loss

    def keep_logits(logits: Tensor, mask: Tensor, *rest: Any) -> Tensor:
        logits.retain_grad()
        kept.append(logits)
        return original(logits, mask, *rest)

    monkeypatch.setattr(dynamic, "segmentation_loss", keep_logits)
    step(module, batch)[0].backward()
    valid = batch["valid"][:, 2::4, 2::4]
    for logits in kept:
        grad = logits.grad.abs().sum(1)
        assert grad[valid].any()
        assert not grad[~valid].any()


def test_masks_are_constants_and_name_present_classes_only(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    ssdd_inputs: Watch,
) -> None:
    module = build(DynamicRefinementModule)
    inputs = ssdd_inputs(module)
    step(module, batch)
    for mask in (*inputs["ssdd1"], *inputs["ssdd2"], module._pictures["refined"]):
        assert not mask.requires_grad
        assert set(mask[0].unique().tolist()) <= {0, 1, 255}
        assert set(mask[1].unique().tolist()) <= {0, 2, 3, 255}


def test_second_module_refines_the_seeds_by_what_the_first_one_made(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    ssdd_inputs: Watch,
) -> None:
    for bias, source in ((KEEP, 0), (TAKE, 1)):
        module = build(DynamicRefinementModule, bias=bias)
        inputs = ssdd_inputs(module)
        step(module, batch)
        seeds, first = inputs["ssdd2"]
        torch.testing.assert_close(seeds, batch["knowledge"][:, 2::4, 2::4])
        torch.testing.assert_close(first, inputs["ssdd1"][source])
        torch.testing.assert_close(module._pictures["refined"], seeds if bias == KEEP else first)


def test_advice_sees_the_image_without_jitter(build: Build, step: Step, batch: dict[str, Any]) -> None:
    module = build(DynamicRefinementModule)
    seen, original = [], module.knowledge_and_advice

    def spy(logits: Tensor, image: Tensor, image_labels: Tensor) -> Tensor:
        seen.append(image)
        return original(logits, image, image_labels)

    module.knowledge_and_advice = spy
    step(module, {**batch, "image": 255 - batch["image"]})
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], batch["image_raw"])


def test_advice_is_the_crf_of_knowledge(build: Build, batch: dict[str, Any]) -> None:
    """A certain opinion with one odd pixel on even ground loses it; the mask's size is kept."""
    module = build(DynamicRefinementModule)
    labels = torch.tensor([[True, True, False, False]])
    logits = torch.zeros(1, 4, 16, 16)
    logits[:, 0] = 1.0
    logits[:, 1, 8, 8] = 2.0
    logits[:, 3] = 9.0  # absent
    image = torch.full((1, 3, 64, 64), 90, dtype=torch.uint8)
    knowledge, advice = module.knowledge_and_advice(logits, image, labels)
    assert knowledge[0, 8, 8] == 1
    assert knowledge.sum() == 1
    assert not advice.any()


def test_advice_may_be_pixel_adaptive_refinement(build: Build, step: Step, batch: dict[str, Any]) -> None:
    module = build(DynamicRefinementModule, refinement=LabelRefinement(advice="par"))
    labels = torch.tensor([[True, True, False, False]])
    logits = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    image = torch.randint(0, 256, (1, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    _, advice = module.knowledge_and_advice(logits, image, labels)
    absent = logits.masked_fill(~labels[:, :, None, None], -torch.inf)
    expected = pixel_adaptive_refinement(image, absent.softmax(1), labels)
    assert torch.equal(advice, expected[:, :2].argmax(1))
    assert step(module, batch)[0].isfinite()


@pytest.mark.parametrize("alpha", [0.25, 0.5])
def test_alpha_weighs_the_two_labels_of_the_sub_branch(
    build: Build,
    step: Step,
    batch: dict[str, Any],
    alpha: float,
) -> None:
    refinements = {a: LabelRefinement(alpha=a) for a in (0.0, alpha, 1.0)}
    losses = {
        a: parts_of(step(build(DynamicRefinementModule, bias=KEEP, refinement=given), batch)[1])
        for a, given in refinements.items()
    }
    mixed = alpha * losses[1.0]["sub"] + (1 - alpha) * losses[0.0]["sub"]
    torch.testing.assert_close(losses[alpha]["sub"], mixed)
    assert losses[1.0]["sub"] != losses[0.0]["sub"]
    for part in ("main", "diff1", "diff2"):
        torch.testing.assert_close(losses[alpha][part], losses[1.0][part])


def test_the_sub_branch_learns_from_the_seeds_and_d1(
    build: Build, step: Step, batch: dict[str, Any], spied: dict[str, list[Any]], ssdd_inputs: Watch
) -> None:
    module = build(DynamicRefinementModule, bias=KEEP)
    inputs = ssdd_inputs(module)
    step(module, batch)
    seeds, first = inputs["ssdd2"]
    assert not torch.equal(seeds, first)
    torch.testing.assert_close(spied["masks"][1], seeds)
    torch.testing.assert_close(spied["masks"][2], first)


def test_the_second_difference_of_diff2_is_between_the_sub_branch_and_d1(
    build: Build, step: Step, batch: dict[str, Any], spied: dict[str, list[Any]], ssdd_inputs: Watch
) -> None:
    """D2 = D0 here, so a comparison with D2, as in the authors' code, would be the first difference again."""
    module = build(DynamicRefinementModule, bias=KEEP)
    inputs = ssdd_inputs(module)
    step(module, batch)
    (d_seeds, *_), (d_first, valid, _) = spied["differences"][2:]
    differs = (inputs["ssdd2"][0] != inputs["ssdd2"][1]) & valid
    assert differs.any()
    assert (d_first != d_seeds)[differs].any()
    torch.testing.assert_close(d_first[~differs], d_seeds[~differs])


@pytest.mark.parametrize(("ratio", "kept"), [(0.5, False), (0.0, True)])
def test_bad_samples_take_part_in_neither_difference_loss(
    build: Build, step: Step, batch: dict[str, Any], ratio: float, kept: bool
) -> None:
    """K1, A1 and D1 are all background, so every class fails, unless none may."""
    module = build(DynamicRefinementModule, bias=KEEP, ratio=ratio)
    parts = parts_of(step(certain_of(module, 0), batch)[1])
    assert (parts["diff1"] > 0) == (parts["diff2"] > 0) == kept


def test_one_failed_class_makes_a_bad_sample(
    build: Build, step: Step, batch: dict[str, Any], spied: dict[str, list[Any]]
) -> None:
    """The network sees classes 1 and 2, but never 3: the second image has one failed class of two."""
    module = certain_of(build(DynamicRefinementModule, bias=KEEP), 1, 2)
    step(module, batch)
    for _, _, kept in spied["differences"]:
        assert kept.tolist() == [True, False]


def test_per_class_loss_changes_its_own_losses_only(build: Build, step: Step, batch: dict[str, Any]) -> None:
    off, on = (
        parts_of(step(build(DynamicRefinementModule, per_class_loss=given), batch)[1]) for given in (False, True)
    )
    for part in ("main", "sub"):
        assert off[part] != on[part]
    for part in ("diff1", "diff2"):
        torch.testing.assert_close(off[part], on[part])


def test_crf_weight_is_a_factor_of_both_weights_of_the_steps_crf(build: Build, batch: dict[str, Any]) -> None:
    options = CRFOptions(gaussian_compat=2.0, bilateral_sxy=7.0)
    module = build(DynamicRefinementModule, refinement=LabelRefinement(crf_weight=0.5), crf=options)
    expected = DenseCRF("psa", 3, gaussian_compat=1.0, bilateral_sxy=7.0, bilateral_compat=5.0)
    probabilities = torch.rand(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)).softmax(1)
    labels = torch.ones(2, 4, dtype=torch.bool)
    image = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    torch.testing.assert_close(module.mapping(image, probabilities, labels), expected(image, probabilities, labels))
    assert module.crf_options.settings.gaussian_compat == 2.0, "the CRF after the average has its own"


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_a_crf_weight_out_of_range_is_refused_by_its_name(weight: float) -> None:
    with pytest.raises(InputError, match=r"refinement\.crf_weight: expected a finite number, 0 or more; found"):
        LabelRefinement(crf_weight=weight)


@pytest.mark.parametrize("alpha", [-0.1, 5.0, float("nan")])
def test_alpha_is_a_share(alpha: float) -> None:
    with pytest.raises(InputError, match=r"refinement\.alpha: expected a share, 0 to 1; found"):
        LabelRefinement(alpha=alpha)


def test_log_shares_of_a_batch() -> None:
    """Pooled over the batch, 255 left out; a class without pixels has a small share, not none."""
    mask = torch.tensor([[[0, 0, 0, 255]], [[1, 0, 255, 255]]])
    expected = torch.tensor([0.81, 0.21, 0.01]).log()
    torch.testing.assert_close(dynamic.log_shares(mask, 3), expected[None, :, None, None])
    assert dynamic.log_shares(torch.full((1, 2, 2), 255), 3).isfinite().all()


def test_prior_moves_the_masks_to_what_is_common_in_the_seeds_and_leaves_the_losses_logits(
    build: Build, batch: dict[str, Any]
) -> None:
    """Logits that say nothing become the seeds' most common class, background; without a prior the logits decide."""
    masks = {}
    for prior in (0.0, 1.0):
        module = build(DynamicRefinementModule, refinement=LabelRefinement(prior=prior))
        for head in (module.network.head, module.sub_head):
            head.forward = _undecided(head.forward, 1)
        made = module.refine(batch)
        masks[prior] = (made.knowledge, made.sub_mask)
        assert (made.main[:, 1] - made.main[:, 0] > 0).all()
    valid = batch["valid"][:, 2::4, 2::4]
    for before, after in zip(masks[0.0], masks[1.0], strict=True):
        assert (before[0][valid[0]] == 1).all()
        assert (after[0][valid[0]] == 0).all()
        assert (after[~valid] == 255).all()


def test_ddnets_that_do_not_learn_stay_as_they_are(build: Build, step: Step, batch: dict[str, Any]) -> None:
    static = {"static_checkpoint": "static.ckpt"}
    module = build(DynamicRefinementModule, refinement=LabelRefinement(train_ddnets=False), **static)
    (loss, logged), (_, expected) = step(module, batch), step(build(DynamicRefinementModule), batch)
    loss.backward()
    reached = {name.split(".")[0] for name, parameter in module.named_parameters() if parameter.grad is not None}
    assert reached == {"network", "sub_head"}
    assert logged.keys() == expected.keys()
    assert logged["train/diff2"] > 0, "the loss is still told"


def _undecided(head: Callable[..., Any], slightly: int) -> Callable[..., Any]:
    """Make a head prefer one class by a little, everywhere."""

    def forward(features: list[Tensor]) -> tuple[Tensor, Tensor]:
        high, logits = head(features)
        opinion = torch.zeros_like(logits)
        opinion[:, slightly] = 0.1
        return high, opinion

    return forward


def test_mask_stride_sets_the_size_of_the_masks(build: Build, step: Step, batch: dict[str, Any]) -> None:
    module = build(DynamicRefinementModule, mask_stride=8)
    step(module, batch)
    assert {tuple(module._pictures[key].shape) for key in ("knowledge", "advice", "refined")} == {(2, 8, 8)}


def test_sub_branch_starts_from_weights_of_its_own(build: Build) -> None:
    module = build(DynamicRefinementModule)
    main, sub = module.network.head.state_dict(), module.sub_head.state_dict()
    assert main.keys() == sub.keys()
    assert not torch.equal(main["classifier.1.weight"], sub["classifier.1.weight"])
    assert not torch.equal(module.ssdd1.ddnet.predict.weight, module.ssdd2.ddnet.predict.weight)
