"""Dense CRF as a pure function: probabilities and an image in, refined probabilities out."""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from ssdd_lightning.crf.lattice import refine_lattice
from ssdd_lightning.crf.pydensecrf_backend import refine_pydensecrf
from ssdd_lightning.crf.settings import CRFOptions, CRFSettings
from ssdd_lightning.errors import InputError

_BACKENDS = {"lattice": refine_lattice, "pydensecrf": refine_pydensecrf}
_ROUNDING = 1e-3  # a half-precision softmax may pass 1 by this much


@overload
def dense_crf(
    image: Tensor,
    probabilities: Tensor,
    present: Tensor | None = None,
    iterations: int = 10,
    preset: str = "psa",
    *,
    settings: CRFSettings | None = None,
    backend: str = "lattice",
) -> Tensor: ...
@overload
def dense_crf(
    image: Sequence[Tensor],
    probabilities: Sequence[Tensor],
    present: Tensor | None = None,
    iterations: int = 10,
    preset: str = "psa",
    *,
    settings: CRFSettings | None = None,
    backend: str = "lattice",
) -> list[Tensor]: ...
@torch.no_grad()
def dense_crf(
    image: Tensor | Sequence[Tensor],
    probabilities: Tensor | Sequence[Tensor],
    present: Tensor | None = None,
    iterations: int = 10,
    preset: str = "psa",
    *,
    settings: CRFSettings | None = None,
    backend: str = "lattice",
) -> Tensor | list[Tensor]:
    """Mean field of the fully connected CRF of Kraehenbuehl and Koltun (2011), equal to pydensecrf to 1e-4.

    The unary is -log of the probability clipped to [1e-5, 1]; a Gaussian kernel on the position and a
    bilateral one on position and colour pull pixels together (Potts), each normalised symmetrically.
    Probabilities need not sum to one: a factor common to a pixel's classes changes nothing as long as no
    class meets the clipping.
    The result carries no gradient and runs under `torch.no_grad`.

    Args:
        image: B x 3 x H x W uint8 RGB, or a sequence of 3 x H x W whose sizes may differ.
        probabilities: B x C x H x W float in [0, 1], or a sequence of C x H x W, on the image's device.
        present: B x C bool, the classes to use; the others count as if they did not exist and come
            out as 0. None means all.
        iterations: Mean-field steps, 0 or more; 0 gives the clipped probabilities, summing to one.
        preset: Published widths and weights, see `ssdd_lightning.crf.settings.PRESETS`.
        settings: Own widths and weights, in place of the preset.
        backend: lattice or pydensecrf.

    Returns:
        B x C x H x W float32 summing to one over the classes, or a list of C x H x W.

    Raises:
        InputError: A wrong shape, type, range or name, a NaN, or an image without any present class.

    Examples:
        >>> image = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).expand(1, 3, 1, 6)
        >>> foreground = torch.tensor([[[0.2, 0.6, 0.1, 0.8, 0.4, 0.9]]])  # one wrong pixel on either side of the edge
        >>> refined = dense_crf(image, torch.stack((1 - foreground, foreground), dim=1))
        >>> refined[:, 1].round(decimals=2)
        tensor([[[0., 0., 0., 1., 1., 1.]]])
    """
    check_run(iterations, backend)
    images, scores = list(image), [score.detach() for score in probabilities]
    _check_tensors(images, scores)
    if present is None:
        present = torch.ones(len(images), scores[0].shape[0], dtype=torch.bool, device=scores[0].device)
    _check_present(present, len(images), scores[0].shape[0])
    _check_values(scores, present)
    chosen = CRFOptions(preset).settings if settings is None else settings
    refined = _BACKENDS[backend](images, scores, present, chosen, iterations)
    return torch.stack(refined) if isinstance(probabilities, Tensor) else refined


def check_run(iterations: int, backend: str) -> None:
    """Raise InputError for a negative number of iterations or an unknown backend.

    Examples:
        >>> check_run(iterations=10, backend="lattice")
        >>> check_run(iterations=-1, backend="lattice")
        Traceback (most recent call last):
            ...
        ssdd_lightning.errors.InputError: CRF iterations must be a whole number, 0 or more; found -1.
    """
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 0:
        raise InputError(f"CRF iterations must be a whole number, 0 or more; found {iterations!r}.")
    if backend not in _BACKENDS:
        raise InputError(f"unknown CRF backend {backend!r}; choose one of {', '.join(_BACKENDS)}.")


def _check_tensors(images: list[Tensor], scores: list[Tensor]) -> None:
    if not images or len(images) != len(scores):
        raise InputError(
            f"the CRF needs as many images as probability maps, at least one; found {len(images)} and {len(scores)}."
        )
    for i, (image, score) in enumerate(zip(images, scores, strict=True)):
        if image.ndim != 3 or image.shape[0] != 3 or image.dtype != torch.uint8:
            raise InputError(
                f"CRF image {i} must be 3 x H x W uint8 RGB; found {tuple(image.shape)} {image.dtype}. "
                "Pass the raw image, not the normalised one."
            )
        if score.ndim != 3 or not score.is_floating_point() or score.shape[0] != scores[0].shape[0]:
            raise InputError(
                f"CRF probabilities {i} must be C x H x W floats with the same C for all images; "
                f"found {tuple(score.shape)} {score.dtype}."
            )
        if score.shape[1:] != image.shape[1:] or score.numel() == 0:
            raise InputError(
                f"CRF probabilities {i} must have their image's size and not be empty; found "
                f"{tuple(score.shape)} for image {tuple(image.shape)}. Resize one of them."
            )
        if score.device != image.device or score.device != scores[0].device:
            raise InputError(f"CRF image {i} is on {image.device}, its probabilities on {score.device}; move one.")


def _check_present(present: Tensor, images: int, num_classes: int) -> None:
    if present.dtype != torch.bool or tuple(present.shape) != (images, num_classes):
        raise InputError(
            f"present classes must be {images} x {num_classes} bool (images x classes); "
            f"found {tuple(present.shape)} {present.dtype}."
        )


def _check_values(scores: list[Tensor], present: Tensor) -> None:
    """One wait for the device, whatever the number of images."""
    lowest, highest = zip(*(score.aminmax() for score in scores), strict=True)  # NaN comes through aminmax
    some = present.any(1).all().to(scores[0])
    low, high, all_some = torch.stack([torch.stack(lowest).amin(), torch.stack(highest).amax(), some]).tolist()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(
            f"CRF probabilities must lie in [0, 1] without NaN; found {low:.6g} to {high:.6g}. Apply a softmax first."
        )
    if not all_some:
        raise InputError("every image needs at least one present class for the CRF; found an image with none.")
