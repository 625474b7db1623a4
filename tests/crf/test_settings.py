import math

import pytest

from ssdd_lightning.crf.settings import PRESETS, CRFOptions, CRFSettings
from ssdd_lightning.errors import InputError


def test_presets_are_the_published_ones() -> None:
    assert PRESETS["psa"] == CRFSettings(3, 3, 80, 13, 10)
    assert PRESETS["deeplab"] == CRFSettings(1, 3, 67, 3, 4)
    assert PRESETS["dupl"] == CRFSettings(1, 1, 121, 5, 4)
    assert PRESETS["mctformer"] == CRFSettings(4, 3, 83, 5, 3)


def test_a_value_of_ones_own_replaces_the_presets() -> None:
    assert CRFOptions("psa", bilateral_sxy=40, gaussian_compat=0).settings == CRFSettings(3, 0, 40, 13, 10)


@pytest.mark.parametrize("name", ["gaussian_sxy", "bilateral_sxy", "bilateral_srgb"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_widths_must_be_positive(name: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{name} must be a finite number, more than 0; found {value}"):
        CRFOptions("psa", **{name: value})


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_weights_must_not_be_negative(value: float) -> None:
    with pytest.raises(InputError, match="gaussian_compat must be a finite number, 0 or more"):
        CRFOptions("psa", gaussian_compat=value)


def test_unknown_preset_lists_the_known() -> None:
    with pytest.raises(InputError, match="choose one of psa, deeplab, dupl, mctformer"):
        CRFOptions("PSA")
