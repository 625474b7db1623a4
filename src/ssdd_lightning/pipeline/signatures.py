"""Options of classes, read from their source: importing them would load torch, which takes seconds."""

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import ssdd_lightning

SECTIONS = {
    "trainer": "pytorch_lightning.Trainer",
    "checkpoint": "ssdd_lightning.callbacks.checkpoint.RunCheckpoint",
    "output": "ssdd_lightning.callbacks.PredictionWriter",
}
"""Sections of a stage's options, and the classes that take them; those of data and model vary."""
PLAIN = {"int": int, "float": float, "bool": bool, "str": str}
"""Types whose values a YAML file holds directly."""
LISTS = ("tuple", "list", "Sequence")
"""Types whose values are lists in a YAML file."""


class Module:
    """A module's source, and what its names stand for.

    Args:
        name: Dotted name.
        path: Its file.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.package = name if path.stem == "__init__" else name.rpartition(".")[0]
        self.names = dict(_bound(ast.parse(path.read_text(encoding="utf-8")).body))

    def find(self, name: str) -> "tuple[Module, ast.AST] | None":
        """Where a name is defined, in this module or in the one that it is imported from."""
        node = self.names.get(name)
        if not isinstance(node, ast.ImportFrom):
            return None if node is None else (self, node)
        parents = self.package.rsplit(".", node.level - 1)[0] if node.level else ""
        source = ".".join(part for part in (parents, node.module) if part)
        original = next(alias.name for alias in node.names if name in (alias.asname, alias.name))
        return None if (source, original) == (self.name, name) else _found(source, original)  # itself: a module


class Argument(NamedTuple):
    """An argument of a class.

    Attributes:
        module: Where it is written.
        annotation: Its type, as it is written.
        default: Its default, as it is written; None if it has none.
    """

    module: Module
    annotation: ast.expr | None
    default: ast.expr | None

    @property
    def value(self) -> Any:  # noqa: ANN401
        """Its default: a plain value, a `Built`, a `ClassSource`, or the text of anything else."""
        return None if self.default is None else _value(self.default, self.module)

    @property
    def values_class(self) -> "ClassSource | None":
        """The frozen value that it takes, such as `Optimization`, if it is one."""
        found = (_class(node.id, self.module) for node in _parts(self.annotation) if isinstance(node, ast.Name))
        return next((cls for cls in found if cls is not None and cls.is_value), None)

    @property
    def is_ours(self) -> bool:
        """Whether this package wrote it, with a type that says all; those of others may take more than theirs say."""
        return self.module.name.partition(".")[0] == ssdd_lightning.__name__

    @property
    def is_callable(self) -> bool:
        """Whether it takes a class or a function."""
        return any(getattr(node, "id", "") == "Callable" for node in _parts(self.annotation))

    @property
    def is_list(self) -> bool:
        """Whether it takes a list of values."""
        return isinstance(self.annotation, ast.Subscript) and getattr(self.annotation.value, "id", "") in LISTS

    @property
    def takes_none(self) -> bool:
        """Whether None is its default or among its types."""
        nodes = [*_parts(self.annotation), *([] if self.default is None else [self.default])]
        return any(isinstance(node, ast.Constant) and node.value is None for node in nodes)

    @property
    def plain_types(self) -> "list[type | str | int | None] | None":
        """Plain types and literals that it takes; None if it may take others."""
        return None if self.annotation is None else _plain_types(self.annotation, self.module)


class Built(NamedTuple):
    """A frozen value, as the source builds it."""

    cls: "ClassSource"
    given: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class ClassSource:
    """A class in its source.

    Args:
        module: Where it is written.
        node: Its definition.
    """

    module: Module
    node: ast.ClassDef

    @property
    def name(self) -> str:
        """Its name."""
        return self.node.name

    @property
    def docstring(self) -> str:
        """Its docstring, "" if there is none."""
        return ast.get_docstring(self.node) or ""

    @cached_property
    def is_value(self) -> bool:
        """Whether it is a dataclass."""
        decorators = (d.func if isinstance(d, ast.Call) else d for d in self.node.decorator_list)
        return any("dataclass" in (getattr(d, "id", ""), getattr(d, "attr", "")) for d in decorators)

    @cached_property
    def arguments(self) -> dict[str, Argument]:
        """What it is built with, also that of the classes it hands `**options` on to."""
        init = self._init
        if init is not None:
            given = init.args
            rest = given.defaults, given.kw_defaults
            defaults = [None] * (len(given.args) + len(given.posonlyargs) - len(rest[0])) + [*rest[0], *rest[1]]
            names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
            own = {a.arg: Argument(self.module, a.annotation, d) for a, d in zip(names, defaults, strict=True)}
            own.pop("self", None)
        elif self.is_value:
            fields = [node for node in self.node.body if isinstance(node, ast.AnnAssign)]
            own = {ast.unparse(f.target): Argument(self.module, f.annotation, f.value) for f in fields}
        else:
            own = {}
        if init is None or init.args.kwarg is not None:
            own = {**(self._base.arguments if self._base else {}), **own}
        return own

    @cached_property
    def is_open(self) -> bool:
        """Whether it may take arguments that its source does not tell."""
        if self._init is not None and self._init.args.kwarg is None:
            return False
        if self._init is None and self.is_value and not self.node.bases:
            return False
        base = self._base
        if base is not None and self._has_more_bases:  # what the first one hands on, or lacks, is for the next one
            return base._init is None or base._init.args.kwarg is not None
        return base is None or base.is_open

    @cached_property
    def _init(self) -> ast.FunctionDef | None:
        return next((n for n in self.node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)

    @cached_property
    def _has_more_bases(self) -> bool:
        return any(not isinstance(base, ast.Name) or base.id != "ABC" for base in self.node.bases[1:])

    @cached_property
    def _base(self) -> "ClassSource | None":
        first = next(iter(self.node.bases), None)
        return _class(first.id, self.module) if isinstance(first, ast.Name) else None


@cache
def find_class(path: str) -> ClassSource | None:
    """Find a class by its import path without importing it.

    Args:
        path: Such as ssdd_lightning.SegmentationModule; a name alone is looked for in this package.

    Returns:
        Its source; None if there is none to be read.
    """
    module, _, name = path.rpartition(".")
    found = _found(module or ssdd_lightning.__name__, name)
    return ClassSource(*found) if found and isinstance(found[1], ast.ClassDef) else None  # type: ignore[arg-type]


@cache
def _module(name: str) -> Module | None:
    top, *inside = name.split(".")
    try:
        spec = importlib.util.find_spec(top)  # of a package's own module it would import the package
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if inside:
        path = path.parent.joinpath(*inside)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    stub = path.with_suffix(".pyi")  # of a package that imports its names on first use
    try:
        return Module(name, stub if stub.is_file() else path)
    except (OSError, SyntaxError, ValueError):
        return None


def _found(module: str, name: str) -> tuple[Module, ast.AST] | None:
    source = _module(module)
    return None if source is None else source.find(name)


def _class(name: str, module: Module) -> ClassSource | None:
    found = module.find(name)
    return ClassSource(*found) if found and isinstance(found[1], ast.ClassDef) else None  # type: ignore[arg-type]


def _bound(body: list[ast.stmt]) -> Iterator[tuple[str, ast.AST]]:
    """Names that statements define: classes, constants, and what is imported from other modules."""
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.asname or alias.name, node) for alias in node.names)
        elif isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value
        elif isinstance(node, ast.If):
            yield from _bound([*node.orelse, *node.body])


def _parts(annotation: ast.expr | None) -> Iterator[ast.AST]:
    """Everything in a type, also in one that is quoted."""
    for node in () if annotation is None else ast.walk(annotation):
        yield node
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield ast.Name(node.value)


def _plain_types(node: ast.expr, module: Module) -> list[type | str | int | None] | None:
    if isinstance(node, ast.Constant) and node.value is None:
        return [None]
    if isinstance(node, ast.Name):
        if node.id in PLAIN:
            return [PLAIN[node.id]]
        found = module.find(node.id)
        return _plain_types(found[1], found[0]) if found and isinstance(found[1], ast.expr) else None
    if isinstance(node, ast.BinOp):
        parts = [node.left, node.right]
    elif isinstance(node, ast.Subscript):
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        kind = getattr(node.value, "id", "")
        if kind == "Literal":
            return [part.value for part in inside if isinstance(part, ast.Constant)]  # type: ignore[misc]
        if kind not in ("Optional", "Union"):
            return None
        parts = [*inside, ast.Constant(None)] if kind == "Optional" else inside
    else:
        return None
    found_in = [_plain_types(part, module) for part in parts]
    return None if None in found_in else [kind for kinds in found_in for kind in kinds or ()]


def _value(node: ast.AST, module: Module) -> Any:  # noqa: ANN401
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if isinstance(node, ast.Name):
        found = module.find(node.id)
        if found is not None:
            here, what = found
            return ClassSource(here, what) if isinstance(what, ast.ClassDef) else _value(what, here)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        cls = _class(node.func.id, module)
        if cls is not None:
            given = dict(zip(cls.arguments, node.args, strict=False))
            given |= {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            return Built(cls, {name: _value(value, module) for name, value in given.items()})
    return ast.unparse(node)
