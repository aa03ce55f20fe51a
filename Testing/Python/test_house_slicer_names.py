"""Every name of Slicer that the sources use exists in the running application, whatever the slicer-core wheel has."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterable

import make_names_extract
import pytest
import slicer_names
import slicer_uses
from house import ROOT, SLICER_SIDE, imports_of, python_files, tree_of

ALL_NAMES = ROOT.parent / "shared" / "slicer-python-names.json"
WRONG = """
import slicer
import vtk
from slicer.util import loadVolum

def read(scene: slicer.vtkMRMLScene, node: slicer.vtkMRMLVolumeNode | None) -> None:
    reader = slicer.vtkITKArchetypeImageSeriesScalarReader()
    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    table.SetNumberOfClumns(2)
    node.GetImageDate()
    scene.AddNewNodeByClass("vtkMRMLChairNode")
    slicer.app.layoutManger()
    something().SetAndObserveNothing()
    for each in nodes(scene):
        each.SetBackgroundVolumID("")

def nodes(scene: slicer.vtkMRMLScene) -> Iterator[slicer.vtkMRMLSliceCompositeNode]:
    ...
"""


def missing(uses: Iterable[slicer_uses.Use]) -> list[str]:
    """Names that a module or a class of the application lacks, as sentences."""
    found = []
    for use in uses:
        if use.owner in slicer_names.extract()["modules"]:
            known: frozenset[str] | None = slicer_names.names(use.owner)
        else:
            known = slicer_names.methods(use.owner)
        if known is not None and use.name not in known:
            found.append(f"{use.place} {use.owner} has no {use.name}")
    return found


def missing_in_vtk(uses: Iterable[slicer_uses.Use]) -> list[str]:
    """Names that VTK lacks, and names that neither Slicer's classes nor VTK's have, as sentences."""
    vtk = pytest.importorskip("vtk", reason="needs the slicer-core wheel, which brings VTK")
    uses = list(uses)
    classes = {use.owner for use in uses} | {use.name for use in uses if use.owner == "vtk"}
    everywhere = {name for each in slicer_names.extract()["classes"] for name in slicer_names.methods(each) or ()}
    everywhere |= {name for each in classes if hasattr(vtk, each) for name in dir(getattr(vtk, each))}
    found = []
    for use in uses:
        if use.owner in slicer_names.extract()["modules"] or slicer_names.methods(use.owner) is not None:
            continue
        if not use.owner:
            known = use.name in everywhere
        else:
            known = "." in use.owner or hasattr(vtk if use.owner == "vtk" else getattr(vtk, use.owner), use.name)
        if not known:
            found.append(f"{use.place} {use.owner or 'no class'} has {use.name}")
    return found


def test_every_name_of_slicer_exists_in_the_application() -> None:
    assert missing(slicer_uses.project_uses()) == []


def test_every_name_of_vtk_and_every_name_asked_of_any_object_exists() -> None:
    assert missing_in_vtk(slicer_uses.project_uses()) == []


def test_wrong_names_would_be_found() -> None:
    uses = slicer_uses.uses_in(ast.parse(WRONG), "wrong.py")
    assert [each.partition(" ")[2] for each in sorted(missing(uses))] == [
        "vtkMRMLVolumeNode has no GetImageDate",
        "slicer has no vtkMRMLChairNode",
        "slicer.app has no layoutManger",
        "vtkMRMLSliceCompositeNode has no SetBackgroundVolumID",
        "slicer.util has no loadVolum",
        "slicer has no vtkITKArchetypeImageSeriesScalarReader",
        "vtkMRMLTableNode has no SetNumberOfClumns",
    ]
    assert [each.partition(" ")[2] for each in missing_in_vtk(uses)] == ["no class has SetAndObserveNothing"]


def test_the_package_of_the_wheel_is_asked_only_for_modules_that_the_application_has_too() -> None:
    asked = {name for file in python_files(SLICER_SIDE) for name, _line in imports_of(tree_of(file), file)}
    asked = {name.partition(".")[2] for name in asked if name.split(".")[0] == "slicer_core"}
    assert asked <= set(slicer_names.OWN_MODULES)


def test_the_wheel_looks_like_the_application() -> None:
    pytest.importorskip("slicer", reason="needs the slicer-core wheel")
    code = (
        "import slicer_names; slicer_names.look_like_the_application(); import slicer, vtkITK, vtkTeem; "
        "assert vtkITK.vtkITKArchetypeImageSeriesScalarReader and vtkTeem.vtkTeemNRRDReader; "
        "assert slicer.vtkMRMLScene and slicer.util.arrayFromVolume; "
        "wrong = [name for name in ('vtkITKArchetypeImageSeriesScalarReader', 'vtkTeemNRRDReader', 'vtkITK', "
        "'arrayFromVolume') if hasattr(slicer, name)]; assert not wrong, wrong"
    )
    environment = {"PYTHONPATH": str(ROOT / "Testing" / "Python")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not ALL_NAMES.is_file(), reason="needs all names of the application beside the project")
def test_the_extract_agrees_with_all_names() -> None:
    source = json.loads(ALL_NAMES.read_text(encoding="utf-8"))
    made = make_names_extract.extract(source, slicer_uses.classes_in_use())
    advice = "run Testing/Python/make_names_extract.py on the file of all names"
    assert made == {key: value for key, value in slicer_names.extract().items() if key != "about"}, advice
