"""The backend `lattice`: compiled code for tensors on the CPU, tensor code for every other device."""

from torch import Tensor

from ssdd_lightning.crf.settings import CRFSettings


def refine_lattice(
    images: list[Tensor], probabilities: list[Tensor], present: Tensor, settings: CRFSettings, iterations: int
) -> list[Tensor]:
    """Mean field of the dense CRF over a batch on the permutohedral lattice.

    Args:
        images: 3 x H x W uint8 RGB each.
        probabilities: C x H x W float in [0, 1] each, all on the images' device.
        present: B x C bool, classes to use, at least one an image.
        settings: Widths and weights.
        iterations: Mean-field steps, 0 or more.

    Returns:
        C x H x W float32 each, on that device; absent classes are 0.

    Examples:
        >>> import torch
        >>> image = torch.zeros(3, 1, 2, dtype=torch.uint8)
        >>> probabilities = torch.tensor([[[0.6, 0.2]], [[0.2, 0.6]], [[0.2, 0.2]]])
        >>> present = torch.tensor([[True, True, False]])
        >>> refine_lattice([image], [probabilities], present, CRFSettings(3, 3, 80, 13, 10), iterations=0)[0][:, 0]
        tensor([[0.7500, 0.2500],
                [0.2500, 0.7500],
                [0.0000, 0.0000]])
    """
    if probabilities[0].device.type == "cpu":
        # here, not above: numba takes half a second to import
        from ssdd_lightning.crf.mean_field_cpu import refine_cpu as refine
    else:
        from ssdd_lightning.crf.lattice_tensor import refine_tensor as refine
    return refine(images, probabilities, present.to(probabilities[0].device), settings, iterations)
