import os
import time
from pathlib import Path
from typing import Any

import numba
import pytest

import ssdd_lightning.crf
from ssdd_lightning.crf import jit
from tests.helpers.processes import python

RUN = """
import torch
from ssdd_lightning.crf.inference import dense_crf
image = torch.zeros(1, 3, 4, 5, dtype=torch.uint8)
print(dense_crf(image, torch.full((1, 2, 4, 5), 0.5)).mean().item())
"""


def run(code: str, **environment: str) -> tuple[str, float]:
    source = str(Path(ssdd_lightning.crf.__file__).parents[2])
    started = time.monotonic()
    return python(code, PYTHONPATH=source, **environment).strip(), time.monotonic() - started


def test_a_second_process_finds_the_machine_code(tmp_path: Path) -> None:
    first, slow = run(RUN, NUMBA_CACHE_DIR=str(tmp_path))
    assert list(tmp_path.rglob("*.nbi"))
    second, quick = run(RUN, NUMBA_CACHE_DIR=str(tmp_path))
    assert first == second == "0.5"
    assert quick < slow


def test_works_where_no_folder_is_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **options: Any) -> Any:
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'f': no locator available for file 'f.py'")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", refuse)
    assert jit.compiled(len)([1, 2]) == 2


def test_code_older_than_the_package_is_dropped(tmp_path: Path) -> None:
    stale, fresh, other = (tmp_path / f"{name}-1.py311.nbi" for name in ("m.f", "m.g", "m.h"))
    for path in (stale, fresh, other):
        path.touch()
    for path in (stale, other):
        os.utime(path, (1, 1))
    for name in ("f", "g"):
        jit._forget_stale("m", name, str(tmp_path))
    assert sorted(tmp_path.iterdir()) == [fresh, other]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_lives_in_forked_loader_workers_beside_threads() -> None:
    code = """
import torch
from torch.utils.data import DataLoader
from ssdd_lightning.crf.inference import dense_crf

class Refined(torch.utils.data.Dataset):
    def __len__(self):
        return 6
    def __getitem__(self, index):
        image = torch.full((2, 3, 9, 8), index, dtype=torch.uint8)
        return dense_crf(image, torch.full((2, 4, 9, 8), 0.25))

torch.set_num_threads(2)
here = torch.stack([Refined()[i] for i in range(6)])  # threads have run before the fork
there = torch.cat(list(DataLoader(Refined(), batch_size=2, num_workers=2, multiprocessing_context="fork")))
print(torch.equal(here, there))
"""
    assert run(code)[0] == "True"
