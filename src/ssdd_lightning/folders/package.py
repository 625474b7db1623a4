"""A trained network as a file for other programs, compared with the original."""

import importlib
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from ssdd_lightning.data.classes import ClassTable
from ssdd_lightning.errors import InputError
from ssdd_lightning.folders.card import run_record
from ssdd_lightning.nn.backbones import constant_padding
from ssdd_lightning.nn.segmentation import SegmentationNetwork
from ssdd_lightning.nn.transformers import unfused_attention
from ssdd_lightning.stages.segmentation import SegmentationStage
from ssdd_lightning.storage.files import rename_over

EXAMPLE, OTHER = (2, 3, 131, 165), (1, 3, 96, 203)
"""Sizes of the image that a program is made with, and of the one that it is compared on."""
Run = Callable[[Tensor], Tensor]


def package(stage: SegmentationStage, table: ClassTable, form: str, out: Path, card: dict[str, str]) -> float:
    """Write a stage's network and compare what was written with the original, on a random image of another size.

    Args:
        stage: The stage, in eval mode, on the CPU.
        table: The classes of its outputs.
        form: "onnx" and "pt2" hold the stage's `forward` (image B x 3 x H x W uint8 RGB in, probabilities
            B x C x H x W float out), for any B, and any H and W above 32; "safetensors" is a folder of weights,
            settings and model card that `SegmentationNetwork.from_pretrained` reads.
        out: The file, or folder, to write; it must not exist.
        card: Arguments of the model card, see `SegmentationNetwork.generate_model_card`.

    Returns:
        The largest difference between both: of probabilities, or of logits for "safetensors".

    Raises:
        InputError: `out` exists, a package that the form needs is not installed, or the network cannot be exported.
    """
    if out.exists():
        raise InputError(f"{out} exists; choose another name, or remove it.")
    out.parent.mkdir(parents=True, exist_ok=True)
    classes = {str(index): name for index, name in zip(table.indices, table.selected_names, strict=True)}
    image = torch.randint(0, 256, OTHER, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".package-") as folder, torch.no_grad():
        made = Path(folder) / out.name
        if form == "safetensors":
            original: nn.Module = stage.get_submodule("network")
            packaged: Run = _safetensors(original, classes, made, card)
            difference = (packaged(image) - original(image)[-1]).abs().max()
        else:
            packaged = (_onnx if form == "onnx" else _pt2)(stage, classes, made)
            difference = (packaged(image) - stage(image)).abs().max()
        rename_over(made, out)
    return float(difference)


def _safetensors(network: nn.Module, classes: dict[str, str], made: Path, card: dict[str, str]) -> Run:
    if not isinstance(network, PyTorchModelHubMixin):
        raise InputError(
            f"a {type(network).__name__} cannot be written as safetensors: expected a network that is a "
            "huggingface_hub.PyTorchModelHubMixin, as SegmentationNetwork is; choose onnx or pt2, or add the mixin."
        )
    config = {**(network._hub_mixin_config or {}), "classes": classes}  # type: ignore[dict-item]
    network.save_pretrained(made, config=config, model_card_kwargs=card)
    again = type(network).from_pretrained(made).eval()
    return lambda image: again(image)[-1]


def _pt2(stage: SegmentationStage, classes: dict[str, str], made: Path) -> Run:
    program = _exported(stage)
    with warnings.catch_warnings(), made.open("w+b") as stream:
        warnings.simplefilter("ignore")  # torch's, about tensors that share their memory
        torch.export.save(program, stream, extra_files={"classes.json": json.dumps(classes)})
        stream.seek(0)
        module: Run = torch.export.load(stream).module()
    return module


def _onnx(stage: SegmentationStage, classes: dict[str, str], made: Path) -> Run:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(f"onnx needs a package, {name}: pip install 'ssdd-lightning[export]'.") from error
    import onnxruntime

    # the exporter knows fused attention of four axes only; Hiera's has five
    with unfused_attention(stage.modules()), _refused(stage):
        program = torch.onnx.export(
            _exported(stage), dynamo=True, verbose=False, input_names=["image"], output_names=["probabilities"]
        )
    assert program is not None
    program.model.metadata_props["classes"] = json.dumps(classes)
    program.save(made)
    session = onnxruntime.InferenceSession(made.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _exported(stage: SegmentationStage) -> torch.export.ExportedProgram:
    free = torch.export.Dim.DYNAMIC
    own = isinstance(stage.network, SegmentationNetwork)
    with _refused(stage), warnings.catch_warnings(), constant_padding() if own else nullcontext():
        warnings.simplefilter("ignore")
        return torch.export.export(
            stage,
            (torch.zeros(EXAMPLE, dtype=torch.uint8),),
            dynamic_shapes=({0: free, 2: free, 3: free},),
            strict=False,
        )


@contextmanager
def _refused(stage: SegmentationStage) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever the tracer meets in a foreign network
        reason = error.__cause__ or error
        raise InputError(
            f"the {type(stage.network).__name__} cannot be exported for images of any size: "
            f"{(str(reason).splitlines() or [type(reason).__name__])[0]}; "
            "its forward may not branch on the image's size."
        ) from error


def card_values(checkpoint: Path, license: str) -> dict[str, str]:
    """Arguments of the model card of a checkpoint.

    Args:
        checkpoint: Where the run wrote it.
        license: The weights' licence as the hub calls it.
    """
    return {"record": run_record(checkpoint), "license": license}
