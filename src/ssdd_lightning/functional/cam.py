"""Class activation maps: from classifier scores to score maps in [0, 1], and the background that goes with them."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def normalize_cam(cam: Tensor, image_labels: Tensor) -> Tensor:
    """Zero the absent classes and divide each class's map by its own maximum (PSA, CVPR 2018, section 3.1).

    Args:
        cam: B x (C-1) x H x W float >= 0, foreground classes only.
        image_labels: B x C bool, column 0 (background) true.

    Returns:
        B x (C-1) x H x W float in [0, 1].

    Examples:
        >>> cam = torch.tensor([[[[2.0, 1.0]], [[3.0, 4.0]]]])
        >>> normalize_cam(cam, image_labels=torch.tensor([[True, True, False]]))
        tensor([[[[1.0000, 0.5000]],
        <BLANKLINE>
                 [[0.0000, 0.0000]]]])
    """
    cam = cam * image_labels[:, 1:, None, None]
    return cam / cam.amax((2, 3), keepdim=True).clamp(min=1e-5)


def sum_cams(cams: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Resize the activation maps of several scales to one size, bilinearly, and add them.

    Args:
        cams: tensors B x (C-1) x h x w of any sizes.
        size: (H, W).

    Returns:
        B x (C-1) x H x W float.

    Examples:
        >>> cams = [torch.tensor([[[[1.0]]]]), torch.tensor([[[[0.0, 2.0]]]])]
        >>> sum_cams(cams, size=(1, 2))
        tensor([[[[1., 3.]]]])
    """
    return torch.stack([F.interpolate(c.float(), size, mode="bilinear", align_corners=False) for c in cams]).sum(0)


def cam_background(cam: Tensor, alpha: float) -> Tensor:
    """Score the background as (1 - max over classes of the CAM) ** alpha (PSA, CVPR 2018, Eq. 2).

    Args:
        cam: B x (C-1) x H x W float in [0, 1], foreground classes only.
        alpha: exponent > 0; a larger one makes less background (PSA: 4 low, 16 random walk, 24 or 32 high).

    Returns:
        B x 1 x H x W float in [0, 1].

    Examples:
        >>> cam = torch.tensor([[[[0.0, 0.5, 1.0]], [[0.0, 0.2, 0.6]]]])
        >>> cam_background(cam, alpha=2)
        tensor([[[[1.0000, 0.2500, 0.0000]]]])
    """
    return (1 - cam.amax(1, keepdim=True)).clamp(0, 1) ** alpha


def propagate_cam(cam: Tensor, attention: Tensor) -> Tensor:
    """Spread activation maps between the patches of a transformer along its attention.

    Each patch gets the mean of all patches' scores, weighted by how much it attends to them: the patch-level pairwise
    affinity of MCTformer (Xu et al., CVPR 2022), with rows that sum to one.

    Args:
        cam: B x (C-1) x h x w float >= 0, foreground classes only.
        attention: B x hw x hw float, rows that sum to one, patches in row-major order.

    Returns:
        B x (C-1) x h x w float.

    Examples:
        >>> cam = torch.tensor([[[[4.0, 0.0]]]])
        >>> attention = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])
        >>> propagate_cam(cam, attention)
        tensor([[[[2., 1.]]]])
    """
    return (cam.flatten(2) @ attention.to(cam.dtype).transpose(1, 2)).reshape(cam.shape)
