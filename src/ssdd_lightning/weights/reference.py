"""The heads of SSDD's authors (segmentation head and DD-Net), recomputed for our layers.

The authors' convolution before a batch norm has a bias in the segmentation head, and their batch norms divide by
sqrt(variance + 0.001). Ours have no such bias and 0.00001. With the bias taken off the running mean and the difference
added to the running variance both compute the same in eval mode, the only one their batch norms know.
"""

from torch import Tensor

from ssdd_lightning.errors import InputError

_EPS_DIFFERENCE = 1e-3 - 1e-5

_SEGMENTATION = {"seg1.conv1": "features.1", "seg1.bn1": "features.2", "seg2": "classifier.1"}
_IMAGE = {"conv1ab.conv1": "image.1", "conv1ab.bn1": "image.2"}
_MASK = {
    **{"conv1c.conv1": "mask.0", "conv1c.bn1": "mask.1"},
    **{"conv1abc.conv1": "residual.0.0", "conv1abc.bn1": "residual.0.1"},
    **{"conv1abc.conv2": "residual.1.1", "conv1abc.bn2": "residual.1.2"},
    **{"conv1abc.conv3": "residual.2.0", "conv1abc.bn3": "residual.2.1"},
    **{"conv1abc.downsample": "shortcut.0", "conv1abc.bnd": "shortcut.1"},
    "pred_abc": "predict",
}


def reference_heads(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename and recompute the heads of the authors' checkpoints.

    Args:
        weights: tensors by name. The authors' are `seg_main`, `seg_sub` (`seg` in their published model), `dd_head0`
            and `dd0`, and in the dynamic stage `dd_head1` and `dd1`.

    Returns:
        The tensors under a stage's names: `network.head`, `sub_head`, and `ssdd.ddnet` or, where there are two,
        `ssdd1.ddnet` and `ssdd2.ddnet`. All others are as they were.

    Raises:
        InputError: a running mean and its bias are of two shapes, or of no real numbers.
    """
    layers = _layers(two=any(name.startswith("dd1.") for name in weights))
    renamed: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        layer, _, last = name.rpartition(".")
        if layer not in layers:
            renamed[name] = tensor
        elif layer.endswith("seg1.conv1") and last == "bias":
            continue  # part of the running mean
        else:
            renamed[f"{layers[layer]}.{last}"] = _recomputed(layer, last, weights)
    return renamed


def _layers(two: bool) -> dict[str, str]:
    """Say what a stage calls each of the authors' layers."""
    first, second = ("ssdd1.ddnet", "ssdd2.ddnet") if two else ("ssdd.ddnet", "")
    tables = {
        **{"seg": ("network.head", _SEGMENTATION), "seg_main": ("network.head", _SEGMENTATION)},
        "seg_sub": ("sub_head", _SEGMENTATION),
        **{"dd_head0": (first, _IMAGE), "dd0": (first, _MASK)},
        **({"dd_head1": (second, _IMAGE), "dd1": (second, _MASK)} if two else {}),
    }
    return {f"{part}.{k}": f"{ours}.{v}" for part, (ours, table) in tables.items() for k, v in table.items()}


def _recomputed(layer: str, last: str, weights: dict[str, Tensor]) -> Tensor:
    tensor = weights[f"{layer}.{last}"]
    bias = weights.get(f"{layer.removesuffix('bn1')}conv1.bias") if layer.endswith("seg1.bn1") else None
    if last == "running_mean" and bias is not None:
        if bias.shape != tensor.shape or not (bias.is_floating_point() and tensor.is_floating_point()):
            raise InputError(
                f"{layer}.running_mean is {tuple(tensor.shape)} of {tensor.dtype}, the bias before it "
                f"{tuple(bias.shape)} of {bias.dtype}; the file is damaged, get it again."
            )
        return tensor - bias
    return tensor + _EPS_DIFFERENCE if last == "running_var" else tensor
