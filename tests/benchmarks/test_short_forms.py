"""Every benchmark of the package's speed in its shortest form: it runs, its two sides agree, and it says where."""

import json
import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHORTEST = {
    "crf": "--timed 1",
    "dynamic_step": "--crop 64 --batch 2 --steps 1 --width 8 --classes 3",
    "finished_run": "--photos 16",
    "inference": "--photos 2 --side 64 --scales 1 --rounds 1",
    "input": "--count 2 --rounds 1",
    "reference_step": "--batch 2 --size 24 --rounds 1",
    "scaling": "--images 10 20 --sides 16 32 --classes 3 5",
    "step_profile": "--crop 64 --batch 2 --steps 1 --width 8 --classes 3",
}


@pytest.mark.parametrize("name", SHORTEST)
def test_a_benchmark_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "report.json"
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.setattr(sys, "argv", [name, *SHORTEST[name].split(), "--json", str(written)])
    runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name="__main__")
    found = json.loads(written.read_text())
    assert found["title"] in capsys.readouterr().out
    assert found["machine"]["processor"]
    assert len(found["rows"]) >= 2
