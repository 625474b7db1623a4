"""Loading tensors into a module with a report: what was loaded, what was left out and why, what is missing."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.safe_torch import check_finite
from ssdd_lightning.weights.reading import read_weights

_LISTED = 10  # names that the summary lists for a reason


@dataclass(frozen=True)
class LoadReport:
    """What happened to each tensor.

    Attributes:
        source: where the tensors came from.
        loaded: names loaded.
        skipped: names in the source that were left out, and why.
        missing: names of the target that the source lacks; they stay as initialised.
    """

    source: str
    loaded: list[str]
    skipped: dict[str, str]
    missing: list[str]

    def __str__(self) -> str:
        """Summarise in a line, followed by one for each reason to skip tensors, and for each that is missing."""
        head = f"{self.source}: {len(self.loaded)} loaded, {len(self.skipped)} skipped, {len(self.missing)} missing"
        names_of = defaultdict(list)
        for name, reason in self.skipped.items():
            names_of[reason].append(name)
        skipped = [f"  skipped {_first(names)}: {reason}" for reason, names in names_of.items()]
        return "\n".join([head, *sorted(skipped), *(f"  missing {name}" for name in self.missing)])


def load_weights(
    module: nn.Module, path: Path | str, part: str = "network.", required: str = "backbone.encoder."
) -> LoadReport:
    """Load a file of weights into a network, heads included.

    Args:
        module: a classification or segmentation network, or another part of a stage.
        path: any file that `read_weights` reads, for example `res38_cls.pth` into a `ClassificationNetwork`.
        part: what the names of the module's tensors begin with in a stage: "network.", "sub_head.", "ssdd.ddnet.",
            "ssdd1.ddnet." or "ssdd2.ddnet.".
        required: tensors whose names begin so may not be missing; "" means all. The others are heads: those that
            do not fit (such as a classifier of other classes) stay as initialised, and the report names them.

    Returns:
        What was loaded, skipped and missing.

    Raises:
        InputError: if the file is no file of weights, or a required tensor is missing or has another shape.
    """
    weights = {name.removeprefix(part): tensor for name, tensor in read_weights(Path(path)).items()}
    return load_tensors(module, weights, str(path), f"the {type(module).__name__}", required)


def load_tensors(
    module: nn.Module, weights: dict[str, Tensor], source: str, target: str, required: str = ""
) -> LoadReport:
    """Load tensors into a module, all or none.

    Args:
        module: receives the tensors.
        weights: tensors by the module's names, and others, which are skipped.
        source: where they come from, for messages.
        target: what the module is, for messages.
        required: tensors whose names begin so may not be missing.

    Returns:
        What was loaded, skipped and missing.

    Raises:
        InputError: if a required tensor is missing or has another shape; the module stays as it was.
    """
    report = compare(module, weights, source)
    needed = [name for name in report.missing if name.startswith(required)]
    if needed:
        own = module.state_dict()
        raise InputError(
            f"the weights in {source} do not fit {target}: {len(needed)} of its {len(own)} tensors are missing or of "
            f"another shape, the first is {needed[0]}. Give weights of this network or change the network."
        )
    chosen = {name: weights[name] for name in report.loaded}
    check_finite(chosen, source)
    module.load_state_dict(chosen, strict=False)
    return report


def compare(module: nn.Module, weights: dict[str, Tensor], source: str) -> LoadReport:
    """Say which tensors would be loaded.

    Counters of batches are never missing: old files lack them, and nothing here reads them.
    """
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    skipped = {}
    for name, tensor in weights.items():
        if name not in own:
            skipped[name] = "unknown name"
        elif tuple(tensor.shape) != own[name]:
            skipped[name] = f"shape {_sides(tuple(tensor.shape))}, expected {_sides(own[name])}"
    loaded = [name for name in weights if name not in skipped]
    absent = own.keys() - set(loaded)
    missing = [name for name in own if name in absent and not name.endswith("num_batches_tracked")]
    return LoadReport(source, loaded, skipped, missing)


def _first(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"
