"""Options that belong together are values: nothing in the package is built with more than twelve arguments."""

import ast
from pathlib import Path

import ssdd_lightning

MOST = 12


def arguments(node: ast.ClassDef) -> int:
    """What a class is built with: arguments of its constructor, or fields of a dataclass."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return len([*part.args.posonlyargs, *part.args.args, *part.args.kwonlyargs]) - 1
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return 0
    fields = [part for part in node.body if isinstance(part, ast.AnnAssign)]
    return sum("ClassVar" not in ast.unparse(field.annotation) for field in fields)


def test_no_constructor_takes_more_than_twelve_arguments() -> None:
    counts = {
        node.name: arguments(node)
        for path in Path(ssdd_lightning.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    assert counts["DynamicRefinementModule"] == counts["RunOptions"] == MOST, (
        "constructors and dataclasses are both counted"
    )
    assert {name: count for name, count in counts.items() if count > MOST} == {}
