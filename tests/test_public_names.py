"""What others import: light, typed, and found by tools that read the code without running it."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from tests.helpers.processes import python

REPOSITORY = Path(__file__).parents[1]
RIGHT = REPOSITORY / "tests" / "helpers" / "consumer.py"
PACKAGES = ["ssdd_lightning", "ssdd_lightning.nn", "ssdd_lightning.crf"]
HEAVY = {
    *("albumentations", "cv2", "huggingface_hub", "jsonargparse", "lightning_fabric", "matplotlib", "numba"),
    *("pytorch_lightning", "scipy", "segmentation_models_pytorch", "timm", "torchmetrics", "torchvision", "wandb"),
}
WRONG = """\
from ssdd_lightning import AffinityNet, DDNet, DenseCRF, StaticRefinementModule, VOCDataModule, nonsense  # attr-defined
from ssdd_lightning.functional import ssdd_merge
from ssdd_lightning.nn import SegmentationLike

DDNet(nonsense=3)  # call-arg
DDNet("twenty-one")  # arg-type
VOCDataModule()  # call-arg
VOCDataModule("root", batch_size="4")  # arg-type
StaticRefinementModule(21, mask_stride="4")  # arg-type
DenseCRF(4)  # arg-type
ssdd_merge(1, 2)  # call-arg, arg-type
network: SegmentationLike = AffinityNet()  # assignment
"""
"""A mistake in each line that says so."""
BESIDE_TORCH = """
import sys, torch
before = set(sys.modules)
{}
print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}} - {{"ssdd_lightning"}}))
"""


@pytest.mark.parametrize(
    "statement",
    [
        "from ssdd_lightning.functional import ssdd_merge, dense_crf",
        "from ssdd_lightning import DDNet, SSDD, DenseCRF",
        "from ssdd_lightning.nn import DDNet, SSDD, SegmentationLike, SegmentationOutput",
        "import ssdd_lightning.nn, ssdd_lightning.crf, ssdd_lightning.functional",
    ],
)
def test_the_arithmetic_loads_torch_and_no_other_large_library(statement: str) -> None:
    assert not set(python(BESIDE_TORCH.format(statement)).split()) & HEAVY


def test_the_package_itself_loads_nothing() -> None:
    loaded = python("import sys, ssdd_lightning, ssdd_lightning.errors; print(*sys.modules)").split()
    assert "torch" not in loaded
    assert not set(loaded) & HEAVY


@pytest.mark.parametrize("name", PACKAGES)
def test_every_listed_name_is_there(name: str) -> None:
    package = import_module(name)
    stub = ast.parse(Path(str(package.__file__)).with_suffix(".pyi").read_text())
    listed = next(ast.literal_eval(node.value) for node in stub.body if isinstance(node, ast.Assign))
    assert sorted(listed) == package.__all__ == dir(package)
    assert all(getattr(package, each) is not None for each in listed)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nonsense'"):
        _ = package.nonsense


def mistakes(report: str) -> Iterator[tuple[int, str]]:
    """Line and kind of each error that mypy reports of `wrong.py`."""
    for found in re.finditer(r"wrong\.py:(\d+): error: .*\[([\w-]+)\]", report):
        yield int(found[1]), found[2]


def test_a_strict_type_checker_sees_the_types(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed (extra `dev`)")
    (tmp_path / "wrong.py").write_text(WRONG)
    files = [str(tmp_path / "wrong.py"), shutil.copy(RIGHT, tmp_path)]  # the rules for tests do not hold there
    command = [sys.executable, "-m", "mypy", *files]  # the project's configuration is strict, and its cache warm
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert RIGHT.name not in done.stdout, done.stdout
    noted = [(number, line.partition("  # ")[2]) for number, line in enumerate(WRONG.splitlines(), 1)]
    expected = {(number, kind) for number, kinds in noted if kinds for kind in kinds.split(", ")}
    assert set(mistakes(done.stdout)) == expected, done.stdout


def test_documentation_tools_resolve_the_names() -> None:
    griffe = pytest.importorskip("griffe", reason="griffe is not installed (extra `dev`)")
    found = griffe.load("ssdd_lightning", search_paths=[REPOSITORY / "src"], resolve_aliases=True)
    for package in PACKAGES:
        for name in import_module(package).__all__:
            documented = found[f"{package}.{name}".removeprefix("ssdd_lightning.")]
            assert documented.is_public, name
            assert documented.docstring.value, name
