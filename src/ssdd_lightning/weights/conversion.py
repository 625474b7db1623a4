"""Converting published weights into a state dict or a checkpoint of a stage."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn.backbones import Backbone
from ssdd_lightning.storage.files import atomic_write
from ssdd_lightning.storage.safe_torch import check_finite
from ssdd_lightning.weights.backbone import own_weights, prefix
from ssdd_lightning.weights.loading import LoadReport, compare
from ssdd_lightning.weights.names import AFFINITY, BACKBONE, CLASSIFIER, published_names, stage_names
from ssdd_lightning.weights.reading import published_weights

_HEADS = (CLASSIFIER, *AFFINITY, "network.head.", "sub_head.", "ssdd.", "ssdd1.", "ssdd2.")


def convert_weights(sources: Sequence[Path], out: Path, arch: str = "resnet38") -> LoadReport:
    """Read published weights and write them under the names of this package.

    Args:
        sources: files that `read_weights` reads; they are joined.
        out: `.pth` for a state dict (a ResNet-38's tensors under PSA's names), `.ckpt` for a checkpoint of a stage.
        arch: the backbone whose weights they are: "resnet38" or timm's name.

    Returns:
        What was written (`loaded`), what the sources hold besides, and what the backbone lacks: nothing, unless the
        sources hold only heads.

    Raises:
        InputError: if a source cannot be read, holds a tensor that another one holds too, only a part of the backbone,
            or nothing that is known; if `out` has another suffix or cannot be written.
    """
    if out.suffix not in (".pth", ".ckpt"):
        raise InputError(f"expected an output file .pth or .ckpt, found {out}.")
    if out.resolve() in [source.resolve() for source in sources]:
        raise InputError(f"{out} would be written over its source; choose another name.")
    published = [published_weights(source) for source in sources]
    joined = _joined(sources, published)
    backbone, first = _skeleton(arch, joined), next(iter(published[0]))
    weights, report = _sorted(joined, " + ".join(map(str, sources)), first, backbone)
    if out.suffix == ".ckpt" and report.missing:
        raise InputError(
            f"{report.source} holds no backbone, and a checkpoint needs one: give its file too, or write a .pth."
        )
    content = published_names(weights) if out.suffix == ".pth" else _checkpoint(weights)
    with atomic_write(out) as stream:
        torch.save(content, stream)
    return report


def _joined(sources: Sequence[Path], published: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    joined: dict[str, Tensor] = {}
    for source, tensors in zip(sources, published, strict=True):
        weights = stage_names(tensors)
        if twice := sorted(joined.keys() & weights.keys()):
            raise InputError(
                f"{source} holds {len(twice)} tensors that an earlier file holds too, the first is {twice[0]}; join "
                "only files of different parts."
            )
        joined.update(weights)
    return joined


def _skeleton(arch: str, weights: dict[str, Tensor]) -> Backbone:
    """Build a backbone without memory for its tensors: only their names and shapes are asked for."""
    conv_head = any("conv_head." in name for name in weights)  # a classifier's, which a segmentation network lacks
    with torch.device("meta"):
        return Backbone(arch, output_stride=8 if arch == "resnet38" else 32, conv_head=conv_head)


def _sorted(
    weights: dict[str, Tensor], source: str, first: str, backbone: Backbone
) -> tuple[dict[str, Tensor], LoadReport]:
    """Keep the backbone, if there is one, and the heads; account for everything else. `first`: a name in the file."""
    named = own_weights(backbone, weights)
    fit = compare(backbone.model, named, source)
    heads = [name for name in fit.skipped if name.startswith(_HEADS)]
    has_backbone = fit.loaded or any(name.startswith(BACKBONE) for name in fit.skipped)
    if fit.missing and (has_backbone or not heads):
        raise InputError(
            f"{source} does not hold the weights of {backbone.name}: {len(fit.missing)} of its tensors are missing or "
            f"of another shape, the first is {fit.missing[0]}; the file's first tensor is {first}. Name the "
            "backbone with --arch."
        )
    kept = {prefix(backbone) + name: named[name] for name in fit.loaded} | {name: named[name] for name in heads}
    check_finite(kept, source)
    skipped = {name: reason for name, reason in fit.skipped.items() if name not in heads}
    return kept, LoadReport(source, list(kept), skipped, fit.missing)


def _checkpoint(weights: dict[str, Tensor]) -> dict[str, object]:
    """Wrap tensors as Lightning does; counters of batches, which old files lack, are set to 0."""
    counters = {
        name.replace("running_var", "num_batches_tracked"): torch.tensor(0)
        for name in weights
        if name.endswith(".running_var")
    }
    return {"state_dict": counters | weights, "pytorch-lightning_version": version("pytorch-lightning")}
