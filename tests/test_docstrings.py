"""Every public name of the arithmetic, the networks and the metrics has an example in its docstring, and it runs."""

import doctest
import importlib
import pkgutil
import sys
from typing import Any

import pytest

from ssdd_lightning import crf, functional, nn
from ssdd_lightning.crf import inference, lattice, pydensecrf_backend, settings
from ssdd_lightning.crf.pydensecrf import densecrf, utils
from ssdd_lightning.metrics import background, boundary, confusion, difference, iou


def public_names() -> dict[str, Any]:
    """Functions and classes of whole modules, and what the packages export, by their full names."""
    parts = pkgutil.iter_modules(functional.__path__, functional.__name__ + ".")
    modules = [importlib.import_module(part.name) for part in parts]
    modules += [inference, lattice, pydensecrf_backend, settings, densecrf, utils]
    modules += [background, boundary, confusion, difference, iou]
    found = [
        value
        for module in modules
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    found += [getattr(package, name) for package in (crf, nn) for name in package.__all__]
    return {f"{value.__module__}.{value.__qualname__}": value for value in found if callable(value)}


PUBLIC = public_names()


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_has_an_example_that_runs(name: str) -> None:
    module = sys.modules[PUBLIC[name].__module__]
    if module is pydensecrf_backend:
        pytest.importorskip("pydensecrf", reason="pydensecrf is not installed (extra `pydensecrf`)")
    tests = doctest.DocTestFinder().find(PUBLIC[name], name, module, vars(module))
    assert any(test.name == name and test.examples for test in tests), f"the docstring of {name} has no example"
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        runner.run(test)  # prints what differs
    assert not runner.failures
