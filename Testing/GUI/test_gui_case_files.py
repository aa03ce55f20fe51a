"""Cases from files in the Fine-tune panel: whose classes their label values are."""

from __future__ import annotations

from typing import Any

import pytest
from test_gui_finetune import start


def add_files(module: Any, panel: Any, **result: Any) -> str:
    """Add four cases from files, of which the library says `result`; returns what the panel says then."""
    from module_view import click

    panel.ui.casesPathLineEdit.currentPath = "images,labels"
    click(panel.ui.addFilesButton)
    assert module.worker.asked[-1][1] == {"cases": "images,labels"}
    cases = [{"id": f"f{n}", "images": [f"f{n}.nii.gz"], "label": f"f{n}_seg.nii.gz"} for n in range(4)]
    module.worker.answer("validate", event="done", exit_code=0, result={"case_list": cases, "task": None, **result})
    return panel.ui.checkStatusLabel.text


def found_values(*values: int) -> list[dict[str, int]]:
    """Label values as the library tells them."""
    return [{"value": value, "voxels": 100, "cases": 4} for value in values]


@pytest.mark.parametrize("values", [(1, 2), (2,)])
def test_files_without_a_task_have_that_of_the_start_model(module: Any, values: tuple[int, ...]) -> None:
    panel = module.panel("fineTune")
    said = add_files(module, panel, values=found_values(*values))
    assert said.startswith("Cases added: 4. Matched by value: ")
    assert "value 2 -> shell" in said
    assert panel.ui.startButton.enabled
    request = start(module, panel)
    assert [each["name"] for each in request["task"]["classes"]] == ["ball", "shell"]
    assert "label_values" not in request["cases"][0], "they are the model's own"


def test_values_that_the_start_model_lacks_are_mapped_by_hand(module: Any) -> None:
    from module_view import click
    from stand_in import spin

    panel = module.panel("fineTune")
    said = add_files(module, panel, values=found_values(1, 7))
    assert "which class this stands for: value 7" in said
    assert panel.casesTab.mapping == {"value 1": "ball", "value 7": ""}
    assert not panel.ui.mappingGroup.collapsed
    panel.ui.mappingTable.target.cellWidget(1, 1).setCurrentIndex(2)
    click(panel.ui.checkButton)
    assert spin(lambda: "task" in module.worker.asked[-1][1], 10)
    assert module.worker.asked[-1][1]["cases"][0]["label_values"] == {"1": 1, "7": 2}
    module.worker.answer("validate", event="done", exit_code=0, result={})
    assert start(module, panel)["cases"][3]["label_values"] == {"1": 1, "7": 2}


def test_files_with_a_task_are_matched_by_name_with_the_start_model(module: Any) -> None:
    panel = module.panel("fineTune")
    classes = [{"name": "Shell", "value": 1}, {"name": "BALL", "value": 2}]
    add_files(module, panel, task={"name": "x", "modality": "MR", "channels": ["MR"], "classes": classes})
    assert panel.casesTab.mapping == {"Shell": "shell", "BALL": "ball"}
    assert start(module, panel)["cases"][0]["label_values"] == {"1": 2, "2": 1}


def test_from_scratch_the_values_of_the_files_become_classes_to_be_named(module: Any) -> None:
    from ForgettableSegGUI.finetune.model import SCRATCH

    panel = module.panel("fineTune")
    module.parameters.startModel = SCRATCH
    panel.refresh()
    said = add_files(module, panel, values=found_values(3, 5))
    table = panel.ui.taskTable
    assert [[table.item(row, column).text() for column in range(3)] for row in range(2)] == [
        ["", "", "3"], ["", "", "5"],
    ]  # fmt: skip
    assert "Name the classes of these label values in Settings: 3, 5." in said
    assert "in Settings: 3, 5." in panel.ui.startButton.toolTip
    table.target.item(0, 0).setText("liver")
    table.target.item(1, 0).setText("spleen")
    assert panel.casesTab.mapping == {"value 3": "liver", "value 5": "spleen"}
    request = start(module, panel)
    assert [(each["name"], each["value"]) for each in request["task"]["classes"]] == [("liver", 3), ("spleen", 5)]
    assert "label_values" not in request["cases"][0]
