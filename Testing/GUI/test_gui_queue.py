"""The queue of suspicious labels, worked off as a user does, on real files and nodes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worker_answers import TASK

LABEL_CLASS, WANTED = "ball", "shell"


def write_result(folder: Path, case: tuple[Any, Any]) -> Path:
    """Two cases of the scene on disk, the second a copy, and what `suspects` says of three of their slices."""
    sitk = pytest.importorskip("SimpleITK")
    from ForgettableSegGUI.samples import syntheticArrays
    from ForgettableSegMRML.volumes import writeVolume

    (folder / "labels").mkdir(parents=True)
    rows = []
    for name in ("one", "two"):
        image = folder / f"{name}.nrrd"
        writeVolume(case[0], image)
        labels = sitk.GetImageFromArray(syntheticArrays(0)[1])
        labels.CopyInformation(sitk.ReadImage(str(image)))
        sitk.WriteImage(labels, str(folder / "labels" / f"{name}.nii.gz"))
        sitk.WriteImage(labels, str(folder / f"{name}_model.nrrd"))
        files = {"images": [str(image)], "label": str(folder / "labels" / f"{name}.nii.gz")}
        values = {"ball": 1, "shell": 2}
        rows.append({"case": name, **files, "predicted": str(folder / f"{name}_model.nrrd"), "values": values})
    place = {"axis": "k", "class": LABEL_CLASS, "wanted": WANTED}
    slices = [
        {"case": "one", "slice": 9, "score": 40.0, "position_lps": [1, 2, 3], **place},
        {"case": "two", "slice": 8, "score": 20.0, "position_lps": [4, 5, 6], **place},
        {"case": "one", "slice": 4, "score": 10.0, "position_lps": [7, 8, 9], **place},
    ]
    reviews = str(folder / "labels" / "forgettableseg_review.json")
    content = {"schema": 1, "task": TASK, "reviews": reviews, "cases": rows, "slices": slices}
    path = folder / "suspects.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def decisions(path: Path) -> list[tuple[str, str, int]]:
    """What the file of decisions holds."""
    content = json.loads((path.parent / "labels" / "forgettableseg_review.json").read_text(encoding="utf-8"))
    return [(each["case"], each["state"], each["slice"]) for each in content["decisions"]]


def test_suspects_are_shown_decided_corrected_and_kept_out(
    module: Any, case: tuple[Any, Any], scene: Any, application: Any, tmp_path: Path
) -> None:
    from ForgettableSegMRML.segmentations import segmentIDOfName
    from module_view import click

    path = write_result(tmp_path, case)
    ui = module.panel("review").ui
    assert not ui.findButton.enabled
    ui.suspectsPathLineEdit.currentPath = str(path)
    click(ui.findButton)
    assert module.parameters.suspectsFile == str(path)
    assert [ui.suspectsTable.item(row, 0).text() for row in range(3)] == ["one", "two", "one"]
    assert "0 of 3" in ui.queueLabel.text
    assert not ui.confirmButton.enabled
    ui.suspectsTable.target.setCurrentCell(0, 0)
    ui.suspectsTable.target.cellClicked.emit(0, 0)
    assert application.jumps[-1] == (-1.0, -2.0, 3.0)
    queue = module.view.panels["review"]._queue
    shown = queue._shown[1]
    for node, color in ((shown.labelNode, (1.0, 0.82, 0.0)), (shown.modelNode, (1.0, 0.24, 0.86))):
        segment = node.GetSegmentation().GetSegment(segmentIDOfName(node, "ball"))
        assert segment.GetColor() == pytest.approx(color)
        assert not node.GetDisplayNode().GetVisibility2DFill()
    click(ui.confirmButton)
    assert decisions(path) == [("one", "confirmed", 9)]
    assert application.jumps[-1] == (-4.0, -5.0, 6.0), "the next suspect is shown"
    assert shown.labelNode.GetScene() is None, "the case before it has left the scene"
    click(ui.quarantineButton)
    assert application.jumps[-1] == (-7.0, -8.0, 9.0)
    click(ui.keepButton)
    assert "has not been changed" in ui.statusLabel.text
    click(ui.fixButton)
    assert application.opened
    label = tmp_path / "labels" / "one.nii.gz"
    before = label.read_bytes()
    node = queue._shown[1].labelNode
    node.GetSegmentation().RemoveSegment(segmentIDOfName(node, "shell"))
    click(ui.keepButton)
    assert (label.parent / "before_review" / "one.nii.gz").read_bytes() == before
    sitk = pytest.importorskip("SimpleITK")
    assert set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(label))))) == {0, 1}
    assert sorted(decisions(path)) == [("one", "confirmed", 9), ("one", "fixed", 4), ("two", "quarantined", 8)]
    assert ui.suspectsTable.rowCount == 0
    assert "3 of 3" in ui.queueLabel.text
    shutil.rmtree(label.parent / "before_review")


def test_a_search_asks_the_model_of_the_segment_panel_and_opens_what_it_finds(
    module: Any, case: tuple[Any, Any], tmp_path: Path
) -> None:
    from module_view import click

    path = write_result(tmp_path / "found", case)
    module.panel("segment")
    ui = module.panel("review").ui
    ui.suspectsPathLineEdit.currentPath = str(tmp_path)
    module.parameters.modelName = "tiny"
    click(ui.findButton)
    job, request, _heard = module.worker.asked[-1]
    assert (job, request["model"], request["cases"]) == ("suspects", "tiny", str(tmp_path))
    module.worker.answer("suspects", event="done", exit_code=0, result={"suspects": str(path)})
    assert ui.suspectsTable.rowCount == 3


def test_a_file_that_holds_no_suspects_is_named(module: Any, tmp_path: Path) -> None:
    from module_view import click

    path = tmp_path / "suspects.json"
    path.write_text("[]", encoding="utf-8")
    ui = module.panel("review").ui
    ui.suspectsPathLineEdit.currentPath = str(path)
    click(ui.findButton)
    assert str(path) in ui.statusLabel.text
    assert module.parameters.suspectsFile == ""
