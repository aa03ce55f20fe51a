"""The house rules that a reader sees: short files and functions, documented and typed, nothing left lying about."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from house import LIBRARY, ROOT, SLICER_SIDE, FunctionNode, functions_of, project_files, python_files, tree_of

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_LINE = 120
# Functions that may be longer than a screen, each with the reason.
LONG_FUNCTIONS: dict[str, str] = {}
TEXT_SUFFIXES = {".py", ".md", ".txt", ".toml", ".json", ".ui", ".cfg", ".yml", ".yaml", ".sh", ".csv", ""}
# Written in pieces, so that this file does not hold what it looks for.
HOMES = "|".join(["wo" + "rk", "ro" + "ot", "ho" + r"me/\w+"])
MACHINE_PATHS = re.compile(rf"(?<![\w.])/(?:{HOMES})/|[A-Z]:\\Users\\\w")
REGISTRY_HOSTS = re.compile(
    "|".join(["py" + r"pi\.org", "python" + r"hosted\.org", "download\\.py" + r"torch\.org", "ana" + r"conda\.org"])
)
UNFINISHED = re.compile(r"\b(?:" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")


def text_files() -> list[tuple[Path, str]]:
    """The project's text files with their text."""
    skipped = {"LICENSE.txt"}
    return [
        (file, (ROOT / file).read_text(encoding="utf-8"))
        for file in project_files()
        if file.suffix in TEXT_SUFFIXES and file.name not in skipped
    ]


def lines_matching(pattern: re.Pattern[str]) -> list[str]:
    """Every line of the project that matches, as file:line and text."""
    return [
        f"{file}:{number} {line.strip()}"
        for file, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def code_lines(node: FunctionNode) -> int:
    """Lines of a function's body without its docstring."""
    documented = ast.get_docstring(node, clean=False) is not None
    body = node.body[1:] if documented else node.body
    return node.end_lineno - body[0].lineno + 1 if body else 0


def missing_hints(node: FunctionNode, is_method: bool) -> list[str]:
    """Names of the arguments, or `return`, that have no type hint."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
    static = any(getattr(decorator, "id", "") == "staticmethod" for decorator in node.decorator_list)
    if is_method and not static:
        arguments = arguments[1:]
    missing = [argument.arg for argument in arguments if argument is not None and argument.annotation is None]
    return missing + (["return"] if node.returns is None else [])


def is_public(qualified: str) -> bool:
    """Whether no part of a dotted name is private; methods such as `__init__` are told by their class."""
    return not any(part.startswith("_") for part in qualified.split("."))


def is_setter(node: FunctionNode) -> bool:
    """Whether a method sets a property: its getter says what that is."""
    return any(isinstance(part, ast.Attribute) and part.attr == "setter" for part in node.decorator_list)


def classes_of(tree: ast.Module) -> list[ast.ClassDef]:
    """The public classes at the top of a file."""
    return [node for node in tree.body if isinstance(node, ast.ClassDef) and is_public(node.name)]


def test_files_are_short() -> None:
    lengths = {str(file): len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in python_files()}
    assert {file: length for file, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{file}:{name}": code_lines(node)
        for file in python_files()
        for name, node in functions_of(tree_of(file))
        if code_lines(node) > MAX_FUNCTION_LINES
    }
    assert {name: length for name, length in long.items() if name not in LONG_FUNCTIONS} == {}
    assert set(LONG_FUNCTIONS) <= set(long), "a function on the list has become short: take it off"


def test_lines_are_short() -> None:
    long = [
        f"{file}:{number}"
        for file in python_files()
        for number, line in enumerate((ROOT / file).read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > MAX_LINE
    ]
    assert long == []


def test_every_module_class_and_function_says_what_it_is() -> None:
    silent = []
    for file in python_files(LIBRARY, SLICER_SIDE):
        tree = tree_of(file)
        silent += [] if ast.get_docstring(tree) else [str(file)]
        silent += [f"{file}:{node.name}" for node in classes_of(tree) if not ast.get_docstring(node)]
        silent += [
            f"{file}:{name}"
            for name, node in functions_of(tree)
            if is_public(name) and not ast.get_docstring(node) and not is_setter(node)
        ]
    assert silent == []


def test_every_argument_and_result_has_a_type() -> None:
    untyped = {}
    for file in python_files(LIBRARY, SLICER_SIDE):
        for name, node in functions_of(tree_of(file)):
            missing = missing_hints(node, is_method="." in name)
            if missing:
                untyped[f"{file}:{name}"] = missing
    assert untyped == {}


def called_names(node: ast.AST) -> set[str]:
    """Last part of the name of everything that is called within a node."""
    calls = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
    return {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}


def checks_something(node: ast.AST, helpers: set[str]) -> bool:
    """Whether a node asserts, expects an error or a warning, or calls a helper that does."""
    called = called_names(node)
    direct = any(name.startswith("assert") or name in ("raises", "warns") for name in called)
    return direct or bool(called & helpers) or any(isinstance(part, ast.Assert) for part in ast.walk(node))


def test_every_test_can_fail() -> None:
    """A test function without an assertion or an expected error cannot fail for the right reason."""
    functions = [
        (f"{file}:{name}", name.rpartition(".")[2], node)
        for file in python_files("Testing")
        for name, node in functions_of(tree_of(file))
    ]
    helpers = {short for _, short, node in functions if not short.startswith("test_") and checks_something(node, set())}
    idle = [
        full for full, short, node in functions if short.startswith("test_") and not checks_something(node, helpers)
    ]
    assert idle == []


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRY_HOSTS, UNFINISHED], ids=["paths", "hosts", "unfinished"])
def test_nothing_of_one_machine_or_left_unfinished_is_in_the_tree(pattern: re.Pattern[str]) -> None:
    assert lines_matching(pattern) == []


def test_the_patterns_find_what_they_are_for() -> None:
    assert MACHINE_PATHS.search("open('/wo" + "rk/data')")
    assert MACHINE_PATHS.search("/ho" + "me/somebody/x")
    assert not MACHINE_PATHS.search("a frame/work/ of paths, demo/ho" + "me/")
    assert REGISTRY_HOSTS.search("--index-url https://download.py" + "torch.org/whl/cpu")
    assert UNFINISHED.search("# TO" + "DO: later")


def test_ruff_is_content() -> None:
    pytest.importorskip("ruff", reason="needs ruff (extra `dev`)")
    # ERA001 is commented-out code.
    options = ["--no-cache", "--extend-select", "ERA", "--output-format", "concise"]
    command = [sys.executable, "-m", "ruff", "check", *options, *map(str, python_files())]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
