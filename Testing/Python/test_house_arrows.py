"""Arrows between packages point one way, and what Slicer imports at start-up stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from house import LIBRARY, ROOT, SLICER_SIDE, imports_of, module_name, python_files, tree_of

BASE = {"", "errors", "memory", "resources", "threads"}
FLOOR = {"cases", "mining", "models", "network", "text"}
MIDDLE = {"training", "inference", "evaluation"}
# What each package of the library may import of the library beside itself and BASE.
MAY_IMPORT = {
    "cases": set(),
    "network": set(),
    "mining": set(),
    "text": {"cases"},
    "models": {"cases", "network", "text"},
    "training": FLOOR | MIDDLE,
    "inference": FLOOR | MIDDLE,
    "evaluation": FLOOR | MIDDLE,
    "experiments": FLOOR | MIDDLE,
    "jobs": FLOOR | MIDDLE | {"experiments"},
    "worker": {"jobs"},
    "command_line": {"jobs"},
    "cli": {"command_line", "jobs", "worker"},
    "__main__": {"cli"},
    "errors": set(),
    "memory": set(),
    "resources": set(),
    "threads": set(),
    "__init__": set(),
}
# The only modules of the library that the Slicer side may import: no library work happens in Slicer's process.
SLICER_MAY_IMPORT = {
    "ForgettableSegLib.worker.protocol",
    "ForgettableSegLib.jobs.exit_codes",
    "ForgettableSegLib.jobs.requests",
    "ForgettableSegLib.worker.client",
    "ForgettableSegLib.cases.matching",
    "ForgettableSegLib.cases.reviews",
    "ForgettableSegLib.cases.structures",
    "ForgettableSegLib.cases.task",
    "ForgettableSegLib.errors",
    "ForgettableSegLib.resources",
}
# The panels: each has its room; what all share stands beside them.
PANELS = Path(SLICER_SIDE, "ForgettableSegGUI")
ROOMS = {"segment", "review", "finetune", "models", "setup"}
# What puts the rooms together: the view of the whole module, and what it does for scripts.
MAY_IMPORT_ROOMS = {"module_view.py", "facade.py"}
SLICER_PACKAGES = {"slicer", "vtk", "qt", "ctk", "vtkmodules", "sitkUtils", "DICOMLib", "SegmentEditorEffects"}
HEAVY = {"torch", "monai", "open_clip", "torchvision", "timm", "transformers"}
# The catalogue of Slicer's extensions asks that nothing else is imported at file scope.
AT_FILE_SCOPE = {*sys.stdlib_module_names, "slicer", "vtk", "qt", "ctk", "SimpleITK", "numpy", "scipy"}
LIGHT_MODULES = [
    "ForgettableSegLib",
    "ForgettableSegLib.errors",
    "ForgettableSegLib.resources",
    "ForgettableSegLib.worker.protocol",
    "ForgettableSegLib.jobs.requests",
    "ForgettableSegLib.worker.client",
    "ForgettableSegLib.cases.matching",
    "ForgettableSegLib.cases.reviews",
    "ForgettableSegLib.cases.structures",
    "ForgettableSegLib.cases.task",
]


def wrong_arrows(tree: ast.AST, file: Path) -> list[str]:
    """Imports within the library that its rules do not allow, as sentences."""
    own = file.with_suffix("").parts[1]
    found = []
    for target, line in imports_of(tree, file):
        parts = target.split(".")
        if parts[0] != LIBRARY:
            continue
        package = parts[1] if len(parts) > 1 and (ROOT / LIBRARY / parts[1]).is_dir() else ""
        module = parts[1] if len(parts) > 1 and (ROOT / LIBRARY / f"{parts[1]}.py").is_file() else ""
        known = package or module
        if known != own and known not in BASE | MAY_IMPORT[own]:
            found.append(f"{file}:{line} imports {target}")
    return found


def forbidden_imports(tree: ast.AST, file: Path, forbidden: set[str]) -> list[str]:
    """Imports of third-party packages, lazy ones included, that a file must not make."""
    return [f"{file}:{line} imports {name}" for name, line in imports_of(tree, file) if name.split(".")[0] in forbidden]


def test_each_package_of_the_library_has_its_rule() -> None:
    packages = {file.with_suffix("").parts[1] for file in python_files(LIBRARY)}
    assert packages <= set(MAY_IMPORT), "name what the new package may import, in MAY_IMPORT"


def test_arrows_within_the_library_point_one_way() -> None:
    assert [found for file in python_files(LIBRARY) for found in wrong_arrows(tree_of(file), file)] == []


def test_packages_do_not_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for file in python_files(LIBRARY):
        own = file.with_suffix("").parts[1]
        targets = {name.split(".")[1] for name, _ in imports_of(tree_of(file), file) if name.startswith(LIBRARY + ".")}
        edges.setdefault(own, set()).update(targets & set(MAY_IMPORT) - {own})
    assert in_circles(edges) == []


def panel_imports(tree: ast.AST, file: Path) -> set[str]:
    """Modules of the panels that a file of theirs imports, wherever in it, each as a path below their folder."""
    found = set()
    for name, _ in imports_of(tree, file):
        parts = name.split(".")
        if PANELS.name in parts[:2]:
            below = parts[parts.index(PANELS.name) + 1 :]
            # `from .module import name` reads like `from .package import module`: the longest path that is a file.
            stems = [Path(*below[:count]) for count in range(len(below), 0, -1)]
            candidates = [path for stem in stems for path in (stem.with_suffix(".py"), stem / "__init__.py")]
            found |= set([str(each) for each in candidates if (ROOT / PANELS / each).is_file()][:1])
    return found


def wrong_rooms(tree: ast.AST, file: Path) -> list[str]:
    """Imports that leave a room for another one, or lead from what all share into a room, as sentences."""
    own = file.relative_to(PANELS)
    if str(own) in MAY_IMPORT_ROOMS:
        return []
    room = own.parts[0] if len(own.parts) > 1 else ""
    targets = {each for each in panel_imports(tree, file) if "/" in each}
    return [f"{file} imports {each}" for each in sorted(targets) if Path(each).parts[0] != room]


def panel_files() -> list[Path]:
    """The files of the panels."""
    return [file for file in python_files(SLICER_SIDE) if PANELS in file.parents]


def test_rooms_of_the_panels_know_what_is_shared_and_not_each_other() -> None:
    assert {file.relative_to(PANELS).parts[0] for file in panel_files() if file.parent != PANELS} == ROOMS
    assert [found for file in panel_files() for found in wrong_rooms(tree_of(file), file)] == []


def test_modules_of_the_panels_do_not_import_each_other_in_a_circle() -> None:
    edges = {str(file.relative_to(PANELS)): panel_imports(tree_of(file), file) for file in panel_files()}
    assert sum(map(len, edges.values())) > len(edges), "the imports are not read"
    assert in_circles(edges) == []


def in_circles(edges: dict[str, set[str]]) -> list[str]:
    """Names from which a way along the edges leads back to themselves."""
    reachable = {name: set(targets) for name, targets in edges.items()}
    for _ in edges:
        for targets in reachable.values():
            targets.update(*(reachable.get(target, set()) for target in set(targets)))
    return [name for name, targets in reachable.items() if name in targets]


def test_the_library_never_imports_slicer() -> None:
    files = python_files(LIBRARY)
    assert [found for file in files for found in forbidden_imports(tree_of(file), file, SLICER_PACKAGES)] == []


def test_the_slicer_side_never_imports_torch() -> None:
    files = python_files(SLICER_SIDE)
    assert [found for file in files for found in forbidden_imports(tree_of(file), file, HEAVY)] == []


def test_the_slicer_side_meets_the_library_in_requests_and_events_only() -> None:
    wrong = [
        f"{file}:{line} imports {name}"
        for file in python_files(SLICER_SIDE)
        for name, line in imports_of(tree_of(file), file)
        if name.split(".")[0] == LIBRARY
        and not any(f"{name}.".startswith(f"{allowed}.") for allowed in SLICER_MAY_IMPORT)
        and not any(allowed.startswith(f"{name}.") for allowed in SLICER_MAY_IMPORT)
    ]
    assert wrong == []


def test_nodes_and_display_do_without_qt_and_the_application() -> None:
    wrong = []
    for file in python_files(SLICER_SIDE):
        if "ForgettableSegMRML" not in file.parts:
            continue
        wrong += forbidden_imports(tree_of(file), file, {"qt", "ctk"})
        wrong += [
            f"{file}:{node.lineno} uses slicer.app"
            for node in ast.walk(tree_of(file))
            if isinstance(node, ast.Attribute) and node.attr == "app" and getattr(node.value, "id", "") == "slicer"
        ]
    assert wrong == []


def test_slicer_imports_nothing_unusual_at_file_scope() -> None:
    own = {LIBRARY, SLICER_SIDE, *(file.stem for file in python_files(SLICER_SIDE))}
    own |= {part for file in python_files(SLICER_SIDE) for part in file.parts[:-1]}
    wrong = []
    for file in python_files(SLICER_SIDE):
        top = ast.Module([node for node in tree_of(file).body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        wrong += [
            f"{file}:{line} imports {name}"
            for name, line in imports_of(top, file)
            if name.split(".")[0] not in AT_FILE_SCOPE | own
        ]
    assert wrong == []


@pytest.mark.parametrize("name", LIGHT_MODULES)
def test_what_slicer_imports_loads_only_the_standard_library(name: str) -> None:
    code = f"import sys, {name}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    output = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    loaded = set(output.split())
    assert LIBRARY in loaded
    assert loaded & {*HEAVY, "SimpleITK", "numpy", "scipy", "psutil", "safetensors", "tqdm"} == set()


def test_nodes_and_display_load_without_torch() -> None:
    pytest.importorskip("slicer", reason="needs the slicer-core wheel (extra `slicer`)")
    files = [file for file in python_files(SLICER_SIDE) if "ForgettableSegMRML" in file.parts]
    names = [module_name(file).removeprefix(f"{SLICER_SIDE}.") for file in files]
    code = f"import sys, {', '.join(names)}; print(' '.join({{m.split('.')[0] for m in sys.modules}}))"
    output = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = ['.', {SLICER_SIDE!r}]; {code}"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    loaded = set(output.split())
    assert "ForgettableSegMRML" in loaded
    assert loaded & (HEAVY | {"qt", "ctk"}) == set()


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("def f():\n    from ..training import trainer", "ForgettableSegLib/mining/scores.py"),
        ("import ForgettableSegLib.mining.bank", "ForgettableSegLib/network/unet.py"),
        ("from .. import network", "ForgettableSegLib/cases/case.py"),
        ("importlib.import_module('ForgettableSegLib.worker.process')", "ForgettableSegLib/training/trainer.py"),
    ],
)
def test_a_wrong_arrow_would_be_seen(source: str, file: str) -> None:
    assert len(wrong_arrows(ast.parse(source), Path(file))) == 1


def test_a_lazy_import_of_torch_would_be_seen() -> None:
    tree = ast.parse("def f():\n    if True:\n        from torch import nn")
    assert len(forbidden_imports(tree, Path("ForgettableSeg/ForgettableSeg.py"), HEAVY)) == 1


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("from ..review.model import caseRows", "segment/panel.py"),
        ("from .. import finetune", "setup/model.py"),
        ("from .segment.model import SegmentState", "session.py"),
        ("if TYPE_CHECKING:\n    from .setup.panel import SetupPanel", "panel.py"),
    ],
)
def test_a_way_from_one_room_into_another_would_be_seen(source: str, file: str) -> None:
    assert len(wrong_rooms(ast.parse(source), PANELS / file)) == 1


def test_a_circle_that_only_a_type_checker_walks_would_be_seen() -> None:
    back = ast.parse("if TYPE_CHECKING:\n    from .panel import FineTunePanel")
    way = ast.parse("from .checks import CaseChecks")
    edges = {
        f"finetune/{name}.py": panel_imports(tree, PANELS / "finetune" / f"{name}.py")
        for name, tree in (("checks", back), ("panel", way))
    }
    assert in_circles(edges) == ["finetune/checks.py", "finetune/panel.py"]
