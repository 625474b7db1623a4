"""The dense CRF by pydensecrf, the field's C++ code: an optional backend and the oracle of the tests."""

import numpy as np
import torch
from torch import Tensor

from ssdd_lightning.crf.settings import CRFSettings
from ssdd_lightning.errors import InputError


def refine_pydensecrf(
    images: list[Tensor], probabilities: list[Tensor], present: Tensor, settings: CRFSettings, iterations: int
) -> list[Tensor]:
    """Mean field of the dense CRF by pydensecrf, one image after the other on one CPU core.

    Args and returns as in `ssdd_lightning.crf.lattice.refine_lattice`.

    Raises:
        InputError: pydensecrf is not installed.

    Examples:
        >>> image = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).expand(3, 1, 6)
        >>> foreground = torch.tensor([[0.2, 0.6, 0.1, 0.8, 0.4, 0.9]])
        >>> present, settings = torch.tensor([[True, True]]), CRFSettings(3, 3, 80, 13, 10)
        >>> [refined] = refine_pydensecrf([image], [torch.stack((1 - foreground, foreground))], present, settings, 10)
        >>> refined.argmax(0)
        tensor([[0, 0, 0, 1, 1, 1]])
    """
    result = []
    for image, scores, taking_part in zip(images, probabilities, present.cpu(), strict=True):
        chosen = scores.detach().cpu().float()[taking_part].numpy()
        colours = np.ascontiguousarray(image.detach().cpu().permute(1, 2, 0).numpy())
        refined = torch.zeros(scores.shape)
        refined[taking_part] = torch.from_numpy(_run(colours, chosen, settings, iterations))
        result.append(refined.to(scores.device))
    return result


def _run(image: np.ndarray, scores: np.ndarray, settings: CRFSettings, iterations: int) -> np.ndarray:
    """K x H x W probabilities of an H x W x 3 image."""
    try:
        from pydensecrf.densecrf import DenseCRF2D
        from pydensecrf.utils import unary_from_softmax
    except ImportError as error:
        raise InputError(
            'the CRF backend "pydensecrf" is not installed; run `pip install "ssdd-lightning[pydensecrf]"` '
            '(it needs a C++ compiler) or use backend "lattice", which gives the same result.'
        ) from error
    classes, height, width = scores.shape
    crf = DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(scores)))
    crf.addPairwiseGaussian(sxy=settings.gaussian_sxy, compat=settings.gaussian_compat)
    crf.addPairwiseBilateral(
        sxy=settings.bilateral_sxy,
        srgb=settings.bilateral_srgb,
        rgbim=image,
        compat=settings.bilateral_compat,
    )
    return np.array(crf.inference(iterations), dtype=np.float32).reshape(classes, height, width)
