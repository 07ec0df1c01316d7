"""Reading pytest-style tests from a syntax tree: names, lines, assertions. Shared by the probes about tests."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from folkmoot_core.probes.change import parse_python

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class TestCase:
    """One test function. `asserts` are the normalised sources of its assertions; `skipped`: by a decorator or first call."""

    __test__ = False  # its name is not an invitation to pytest

    name: str
    line: int
    asserts: tuple[str, ...]
    trivial: int  # assertions that cannot fail
    skipped: bool


def tests_of(path: str, source: str) -> dict[str, TestCase]:
    """Qualified name → test of one file; empty when it is not Python."""
    tree = parse_python(path, source)
    found: dict[str, TestCase] = {}
    if tree is None:
        return found
    for owner, function in _functions(tree):
        if function.name.startswith("test"):
            name = f"{owner}{function.name}"
            found[name] = _case(name, function)
    return found


def _functions(tree: ast.Module) -> list[tuple[str, Function]]:
    found: list[tuple[str, Function]] = []
    for node in tree.body:
        if isinstance(node, Function):
            found.append(("", node))
        elif isinstance(node, ast.ClassDef):
            found.extend((f"{node.name}.", item) for item in node.body if isinstance(item, Function))
    return found


def _case(name: str, function: Function) -> TestCase:
    asserts = [node for node in ast.walk(function) if _is_assertion(node)]
    trivial = sum(1 for node in asserts if isinstance(node, ast.Assert) and _cannot_fail(node.test))
    return TestCase(
        name=name,
        line=function.lineno,
        asserts=tuple(sorted(ast.unparse(node) for node in asserts)),
        trivial=trivial,
        skipped=any("skip" in ast.unparse(d) or "xfail" in ast.unparse(d) for d in function.decorator_list) or _skips(function),
    )


def _is_assertion(node: ast.AST) -> bool:
    if isinstance(node, ast.Assert):
        return True
    if isinstance(node, ast.With | ast.AsyncWith):
        return any("raises" in ast.unparse(item.context_expr) for item in node.items)
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ".assert" in ast.unparse(node.value.func)


def _cannot_fail(test: ast.expr) -> bool:
    if isinstance(test, ast.Constant):
        return bool(test.value)
    if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.Or):
        return any(_cannot_fail(value) for value in test.values)
    return (
        isinstance(test, ast.Compare)
        and ast.unparse(test.left) == ast.unparse(test.comparators[0])
        and isinstance(test.ops[0], ast.Eq)
    )


def _skips(function: Function) -> bool:
    first = function.body[0]
    call = isinstance(first, ast.Expr) and isinstance(first.value, ast.Call) and "skip" in ast.unparse(first.value.func)
    return call or isinstance(first, ast.Return)
