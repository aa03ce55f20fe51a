"""What the tests of the house rules share: the project's files, their syntax trees and their imports."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = "ForgettableSegLib"
SLICER_SIDE = "ForgettableSeg"
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def project_files() -> tuple[Path, ...]:
    """Every file that git tracks or would track, relative to the top of the project."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    names = [Path(name) for name in listed.stdout.decode().split("\0") if name]
    return tuple(sorted(name for name in names if (ROOT / name).is_file()))


def python_files(*folders: str) -> list[Path]:
    """The Python files below the given top-level folders, or all of them."""
    return [file for file in project_files() if file.suffix == ".py" and (not folders or file.parts[0] in folders)]


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """The syntax tree of a project file."""
    return ast.parse((ROOT / file).read_text(encoding="utf-8"), str(file))


def module_name(file: Path) -> str:
    """The dotted name under which a project file is imported from the top of the project."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(tree: ast.AST, file: Path) -> Iterator[tuple[str, int]]:
    """Every module that a tree imports, at its top or within a function, as (absolute dotted name, line).

    `from a import b` gives `a.b`, for b may be a module.
    """
    package = module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{prefix}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            yield node.args[0].value, node.lineno


def _is_import_call(node: ast.Call) -> bool:
    """Whether a call is `import_module("literal")` or `__import__("literal")`."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    literal = bool(node.args) and isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)
    return name in ("import_module", "__import__") and literal


def functions_of(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, FunctionNode]]:
    """Functions and methods with their qualified names; functions inside functions are part of those."""
    for node in getattr(tree, "body", []):
        if isinstance(node, FunctionNode):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions_of(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.If | ast.Try | ast.With):
            yield from functions_of(node, prefix)
