"""The notebooks run from top to bottom, show pictures, and are kept without outputs."""

import os
from pathlib import Path
from typing import Any

import pytest

import ssdd_lightning

nbformat = pytest.importorskip("nbformat", reason="extra dev: pip install 'ssdd-lightning[dev]'")
nbclient = pytest.importorskip("nbclient", reason="extra dev: pip install 'ssdd-lightning[dev]'")

PATHS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def outputs_of(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_there_are_notebooks() -> None:
    assert [path.stem for path in PATHS] == ["look_inside_ssdd", "refine_your_masks"]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert outputs_of(notebook) == []
    assert all(cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code")
    assert path.stat().st_size < 20_000


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: path.stem)
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any]:
    notebook = nbformat.read(request.param, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    source = str(Path(ssdd_lightning.__file__).parents[1])
    return request.param.stem, client.execute(env={**os.environ, "PYTHONPATH": source})


def test_runs_and_shows_pictures(executed: tuple[str, Any]) -> None:
    name, notebook = executed
    outputs = outputs_of(notebook)
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= {"look_inside_ssdd": 2, "refine_your_masks": 1}[name]
    text = "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")
    for promised in {
        "look_inside_ssdd": ["step 20: loss", "dd_bias +0.4: the advice is taken at", "class_bias 1.0: 100%"],
        "refine_your_masks": ["mIoU", "oracle", "holds the merged masks"],
    }[name]:
        assert promised in text
