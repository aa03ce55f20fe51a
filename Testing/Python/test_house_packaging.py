"""What is installed is what is in the tree, and the pins of the demo and the tests fit the requirements."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from house import LIBRARY, ROOT, imports_of, project_files, python_files, tree_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONSTRAINTS = (ROOT / "Testing" / "constraints.txt").read_text(encoding="utf-8")


def requirements(*extras: str) -> list[Requirement]:
    """What the project needs, with some of its extras."""
    project = PYPROJECT["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


def test_every_package_of_the_library_is_installed() -> None:
    on_disk = {".".join(file.parent.parts) for file in python_files(LIBRARY)}
    listed = set(PYPROJECT["tool"]["setuptools"]["packages"])
    assert listed == on_disk | {f"{LIBRARY}.Resources"}
    assert all((ROOT / name.replace(".", "/") / "__init__.py").is_file() for name in on_disk)


def test_the_pins_fit_the_requirements_and_cover_them() -> None:
    pins = dict(line.split("==") for line in CONSTRAINTS.splitlines() if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    needed = requirements("slicer", "report", "demo", "dicom", "guidance", "dev")
    assert {need.name for need in needed if canonicalize_name(need.name) not in pins} == set()
    assert {str(need) for need in needed if not need.specifier.contains(pins[canonicalize_name(need.name)])} == set()


def test_what_the_library_imports_is_declared() -> None:
    """A package that comes only with another one disappears when that one drops it."""
    declared = {canonicalize_name(need.name) for need in requirements("text", "report", "demo", "dicom", "guidance")}
    declared |= {"open-clip", "sklearn"}  # of the packages whose modules have other names
    imported = {
        f"{canonicalize_name(name.split('.')[0])} in {file}"
        for file in python_files(LIBRARY)
        for name, _ in imports_of(tree_of(file), file)
        if name.split(".")[0] not in {*sys.stdlib_module_names, LIBRARY}
    }
    assert {name for name in imported if name.split()[0] not in declared} == set()


def test_open_clip_is_only_an_extra() -> None:
    for extras, expected in ((("slicer", "report", "demo", "dev"), False), (("text",), True)):
        assert ("open-clip-torch" in {canonicalize_name(need.name) for need in requirements(*extras)}) is expected


def test_the_slow_convolutions_of_torch_2_9_are_shut_out() -> None:
    torch = next(need for need in requirements() if need.name == "torch")
    assert [torch.specifier.contains(version) for version in ("2.1.1", "2.1.2", "2.9.0", "2.9.1", "2.13.0")] == [
        False, True, False, False, True,
    ]  # fmt: skip


def test_the_licence_is_in_the_tree() -> None:
    text = (ROOT / "LICENSE.txt").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target and target[0] != "#"]
    assert targets
    assert [target for target in targets if not (ROOT / target.partition("#")[0]).exists()] == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no executable bit")
def test_continuous_integration_can_be_called() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_tree_is_small_enough_for_the_extensions_index() -> None:
    total = sum((ROOT / file).stat().st_size for file in project_files())
    assert total < 100 * 2**20


@pytest.mark.slow
def test_a_wheel_holds_the_library_and_its_resources(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {file.as_posix() for file in python_files(LIBRARY)} <= held
    shipped = {
        f"{LIBRARY}/{file.as_posix()}"
        for file in project_files()
        if file.parts[:2] in {("Resources", "Models"), ("Resources", "Terminology"), ("Resources", "TextEmbeddings")}
    }
    assert shipped <= held
    assert not any(name.startswith("Testing") for name in held)
