import copy

import pytest
import torch

from ssdd_lightning.crf import PRESETS, CRFSettings, DenseCRF
from ssdd_lightning.crf.inference import dense_crf
from ssdd_lightning.errors import InputError


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, 3, 9, 13), generator=generator, dtype=torch.uint8)
    return image, torch.rand(2, 4, 9, 13, generator=generator).softmax(1)


def test_is_the_pure_function_with_its_settings_kept() -> None:
    image, scores = batch()
    crf = DenseCRF("dupl", 3, bilateral_srgb=9)
    settings = CRFSettings(1, 1, 121, 9, 4)
    assert torch.equal(crf(image, scores), dense_crf(image, scores, iterations=3, settings=settings))
    assert not torch.equal(crf(image, scores), DenseCRF("dupl", 3)(image, scores))


def test_takes_present_classes_and_lists() -> None:
    image, scores = batch()
    present = torch.tensor([[True, False, True, True], [True, True, False, False]])
    refined = DenseCRF()(list(image), list(scores), present)
    assert isinstance(refined, list)
    assert torch.equal(torch.stack(refined), DenseCRF()(image, scores, present))
    assert (torch.stack(refined)[~present] == 0).all()


def test_has_no_state_and_can_be_copied() -> None:
    crf = DenseCRF("deeplab", 5)
    assert not crf.state_dict()
    assert copy.deepcopy(crf).settings == PRESETS["deeplab"]
    assert "iterations=5" in repr(crf)
    assert "bilateral_sxy=67" in repr(crf)


def test_bad_options_fail_when_it_is_built() -> None:
    with pytest.raises(InputError, match="unknown CRF preset"):
        DenseCRF("none")
    with pytest.raises(InputError, match="iterations"):
        DenseCRF(iterations=-2)
    with pytest.raises(InputError, match="unknown CRF backend"):
        DenseCRF(backend="torch")
    with pytest.raises(InputError, match="bilateral_sxy"):
        DenseCRF(bilateral_sxy=-80)
