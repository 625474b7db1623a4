"""`DenseCRF`: the pure function with its settings kept, as a module."""

from collections.abc import Sequence
from typing import overload

from torch import Tensor, nn

from ssdd_lightning.crf.inference import check_run, dense_crf
from ssdd_lightning.crf.settings import CRFOptions


class DenseCRF(nn.Module):
    """Refine class probabilities by a fully connected CRF on an image (Kraehenbuehl and Koltun, 2011).

    No parameters, no buffers, no gradient: the result is a constant for autograd.

    Args:
        preset: Published widths and weights: psa (PSA and SSDD), deeplab, dupl or mctformer.
        iterations: Mean-field steps: the field uses 10 at image size, SSDD's training 3 at the mask's size.
        gaussian_sxy: Width of the smoothness kernel in pixels; None keeps the preset's, here and below.
        gaussian_compat: Weight of the smoothness kernel.
        bilateral_sxy: Spatial width of the appearance kernel in pixels.
        bilateral_srgb: Colour width of the appearance kernel in grey values.
        bilateral_compat: Weight of the appearance kernel.
        backend: lattice (ours, any device) or pydensecrf (the optional C++ package).

    Raises:
        InputError: An unknown preset or backend, or a value out of range.

    Examples:
        >>> import torch
        >>> crf = DenseCRF(preset="deeplab", iterations=3)
        >>> image = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).expand(1, 3, 1, 6)
        >>> foreground = torch.tensor([[[0.2, 0.6, 0.1, 0.8, 0.4, 0.9]]])
        >>> crf(image, torch.stack((1 - foreground, foreground), dim=1)).argmax(1)
        tensor([[[0, 0, 0, 1, 1, 1]]])
    """

    def __init__(
        self,
        preset: str = "psa",
        iterations: int = 10,
        gaussian_sxy: float | None = None,
        gaussian_compat: float | None = None,
        bilateral_sxy: float | None = None,
        bilateral_srgb: float | None = None,
        bilateral_compat: float | None = None,
        backend: str = "lattice",
    ) -> None:
        super().__init__()
        check_run(iterations, backend)
        chosen = CRFOptions(preset, gaussian_sxy, gaussian_compat, bilateral_sxy, bilateral_srgb, bilateral_compat)
        self.settings = chosen.settings
        self.preset = preset
        self.iterations = iterations
        self.backend = backend

    @overload
    def forward(self, image: Tensor, probabilities: Tensor, present: Tensor | None = None) -> Tensor: ...
    @overload
    def forward(
        self, image: Sequence[Tensor], probabilities: Sequence[Tensor], present: Tensor | None = None
    ) -> list[Tensor]: ...
    def forward(
        self,
        image: Tensor | Sequence[Tensor],
        probabilities: Tensor | Sequence[Tensor],
        present: Tensor | None = None,
    ) -> Tensor | list[Tensor]:
        """As `ssdd_lightning.crf.inference.dense_crf`.

        Args:
            image: B x 3 x H x W uint8 RGB, or a sequence of 3 x H x W.
            probabilities: B x C x H x W float in [0, 1], or a sequence of C x H x W.
            present: B x C bool, the classes to use; None means all.

        Returns:
            B x C x H x W float32, or a list of C x H x W; absent classes are 0.
        """
        return dense_crf(
            image,  # type: ignore[arg-type]  # tensor and tensor, or sequence and sequence
            probabilities,  # type: ignore[arg-type]
            present,
            iterations=self.iterations,
            preset=self.preset,
            settings=self.settings,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        """Settings as they are in force."""
        return f"preset={self.preset!r}, iterations={self.iterations}, {self.settings}, backend={self.backend!r}"
