"""`PAR`: pixel-adaptive refinement with its settings kept, as a module called like `DenseCRF`."""

from collections.abc import Sequence

from torch import Tensor, nn

from ssdd_lightning.functional.par import DILATIONS, pixel_adaptive_refinement


class PAR(nn.Module):
    """Refine class probabilities by pixel-adaptive refinement (AFA, Ru et al., CVPR 2022): no parameters, no gradient.

    Args:
        iterations: averagings.
        dilations: distances of the neighbours in pixels.

    Examples:
        >>> import torch
        >>> mapping = PAR(iterations=3, dilations=(1, 2))
        >>> image = torch.tensor([0, 0, 0, 255, 255, 255], dtype=torch.uint8).expand(1, 3, 1, 6)
        >>> foreground = torch.tensor([[[0.2, 0.6, 0.1, 0.8, 0.4, 0.9]]])
        >>> mapping(image, torch.stack((1 - foreground, foreground), dim=1)).argmax(1)
        tensor([[[0, 0, 0, 1, 1, 1]]])
    """

    def __init__(self, iterations: int = 10, dilations: Sequence[int] = DILATIONS) -> None:
        super().__init__()
        self.iterations = iterations
        self.dilations = tuple(dilations)

    def forward(self, image: Tensor, probabilities: Tensor, present: Tensor | None = None) -> Tensor:
        """As `ssdd_lightning.functional.pixel_adaptive_refinement`.

        Args:
            image: B x 3 x H x W uint8 RGB.
            probabilities: B x C x H x W float >= 0.
            present: B x C bool, the classes to use; None means all.

        Returns:
            B x C x H x W float32; absent classes are 0.
        """
        return pixel_adaptive_refinement(image, probabilities, present, self.iterations, self.dilations)

    def extra_repr(self) -> str:
        """Settings as they are in force."""
        return f"iterations={self.iterations}, dilations={self.dilations}"
