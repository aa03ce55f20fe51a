"""Nothing that is read can run code, and nothing outside the request steers the library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from house import LIBRARY, SLICER_SIDE, imports_of, python_files, tree_of

UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
# Files that may read environment variables, each with the reason.
ENVIRONMENT_READERS = {
    "ForgettableSegLib/worker/client.py": "hands its own variables on to the worker that it starts",
    "ForgettableSegLib/jobs/experiment.py": "torchrun tells each process its rank, which decides its share of the runs",
    "ForgettableSegLib/training/distributed.py": "torchrun tells each process its rank in LOCAL_RANK",
    "ForgettableSegLib/threads.py": "OpenMP is told by variables alone how many threads it has and how they wait",
    "ForgettableSegLib/cases/files.py": "ITK reads a NIfTI with axes off right angles only where a variable says so",
}


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of names, or an empty text."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def unsafe_calls(tree: ast.AST, file: Path) -> list[str]:
    """Calls that would unpickle, evaluate text or start a shell."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        true = {word.arg for word in node.keywords if isinstance(word.value, ast.Constant) and word.value.value is True}
        if (
            (name == "torch.load" and "weights_only" not in true)
            or (name in ("np.load", "numpy.load") and "allow_pickle" in true)
            or (name.startswith("subprocess.") and "shell" in true)
            or name in ("eval", "exec", "os.system", "os.popen", "yaml.load")
        ):
            found.append(f"{file}:{node.lineno} {name}")
    return found


def test_no_call_can_run_what_was_read() -> None:
    assert [found for file in python_files() for found in unsafe_calls(tree_of(file), file)] == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "eval(text)",
    ],
)
def test_an_unsafe_call_would_be_seen(source: str) -> None:
    assert len(unsafe_calls(ast.parse(source), Path("x.py"))) == 1


def test_a_safe_call_is_left_alone() -> None:
    tree = ast.parse("torch.load(path, weights_only=True); model.eval(); np.load(path)")
    assert unsafe_calls(tree, Path("x.py")) == []


def test_nothing_shipped_uses_pickle() -> None:
    unsafe = [
        f"{file}:{line} imports {name}"
        for file in python_files(LIBRARY, SLICER_SIDE)
        for name, line in imports_of(tree_of(file), file)
        if name.split(".")[0] in UNSAFE_MODULES
    ]
    assert unsafe == []


def test_torch_load_is_not_imported_by_its_short_name() -> None:
    """`from torch import load` would hide a call from the test above."""
    imported = {name for file in python_files() for name, _ in imports_of(tree_of(file), file)}
    assert "torch.load" not in imported


def test_settings_come_in_requests_and_not_in_environment_variables() -> None:
    readers = {
        str(file)
        for file in python_files(LIBRARY)
        for node in ast.walk(tree_of(file))
        if dotted(node) in ("os.environ", "os.getenv", "os.putenv")
    }
    assert readers == set(ENVIRONMENT_READERS)
