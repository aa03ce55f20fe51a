"""The Fine-tune panel driven as a user drives it, on real nodes, with a test in the place of the worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from worker_answers import MODEL


@pytest.fixture
def panel(module: Any, scene: Any) -> Any:
    """The Fine-tune panel with three pairs of the scene."""
    from ForgettableSegGUI.samples import syntheticCase
    from module_view import click

    panel = module.panel("fineTune")
    for seed in range(3):
        volume, segmentation = syntheticCase(scene, seed)
        panel.ui.caseVolumeSelector1.setCurrentNode(volume)
        panel.ui.caseSegmentationSelector.setCurrentNode(segmentation)
        click(panel.ui.addSceneButton)
    return panel


def start(module: Any, panel: Any) -> dict[str, Any]:
    """Press Start; returns the request."""
    from module_view import click
    from stand_in import spin

    click(panel.ui.startButton)
    assert spin(lambda: panel.run.isRunning, 10)
    return module.worker.asked[-1][1]


def test_pairs_become_rows_once(module: Any, panel: Any) -> None:
    from module_view import click

    click(panel.ui.addSceneButton)
    assert [case.caseId for case in panel.cases] == ["Synthetic1", "Synthetic2", "Synthetic3"]
    assert panel.casesTab.mapping == {"ball": "ball", "shell": "shell"}
    assert panel.ui.startButton.enabled


def test_a_tick_and_a_mapping_decide(module: Any, panel: Any) -> None:
    from PySide6.QtCore import Qt

    panel.ui.casesTable.target.item(0, 0).setCheckState(Qt.CheckState.Unchecked)
    assert [case.included for case in panel.cases] == [False, True, True]
    assert "at least 3 cases" in panel.ui.startButton.toolTip
    panel.ui.casesTable.target.item(0, 0).setCheckState(Qt.CheckState.Checked)
    for row in range(2):
        panel.ui.mappingTable.target.cellWidget(row, 1).setCurrentIndex(0)
    assert json.loads(module.parameters.classMapping) == {"ball": "", "shell": ""}
    assert "No segment stands for a class" in panel.ui.startButton.toolTip


def test_rows_are_removed_but_nodes_stay(module: Any, panel: Any, scene: Any) -> None:
    from module_view import click

    panel.ui.casesTable.selectRow(1)
    click(panel.ui.removeButton)
    assert [case.caseId for case in panel.cases] == ["Synthetic1", "Synthetic3"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 3
    assert panel.sceneCaseNamed("Synthetic3").volumeNodes[0].GetName() == "Synthetic3"


def test_a_node_that_left_the_scene_is_told(module: Any, panel: Any, scene: Any) -> None:
    scene.RemoveNode(panel.sceneCaseNamed("Synthetic2").segmentationNode)
    panel.refresh()
    assert "Synthetic2 is not in the scene any more" in panel.ui.startButton.toolTip


def test_a_check_writes_the_cases_and_shows_what_it_finds(module: Any, panel: Any) -> None:
    from module_view import click
    from stand_in import spin

    click(panel.ui.checkButton)
    assert spin(lambda: module.worker.asked[-1][0] == "validate", 10)
    request = module.worker.asked[-1][1]
    assert [Path(each["label"]).is_file() for each in request["cases"]] == [True] * 3
    finding = {"severity": "error", "code": "X", "case": "Synthetic2", "path": None, "text": "The label is empty."}
    module.worker.answer("validate", event="finding", **finding)
    module.worker.answer("validate", event="done", exit_code=1, result={})
    assert panel.ui.casesTable.item(1, 2).text() == "The label is empty."
    assert panel.ui.casesTable.item(0, 2).text() == "ok"
    assert "Synthetic2 has a problem" in panel.ui.startButton.toolTip


def test_a_check_says_what_it_does_where_it_was_asked_for(module: Any, panel: Any) -> None:
    from module_view import click
    from stand_in import spin

    ui = panel.ui
    click(ui.checkButton)
    assert spin(lambda: module.worker.asked[-1][0] == "validate", 10)
    module.worker.answer("validate", event="progress", phase="validate", step=1, of=3, eta_s=4, case="Synthetic1")
    assert "4 s left" in ui.checkStatusLabel.text
    click(ui.cancelCheckButton)
    assert len(module.worker.cancelled) == 1
    module.worker.answer("validate", event="cancelled", resumable=None)
    assert (ui.checkStatusLabel.text, ui.cancelCheckButton.enabled) == ("Cancelled.", False)
    ui.casesPathLineEdit.currentPath = "gone"
    click(ui.addFilesButton)
    module.worker.answer("validate", event="failed", code="FILE_MISSING", text="It is not there.", hint="", log="")
    assert ui.checkStatusLabel.text == "It is not there."


def test_findings_of_new_files_are_theirs_alone(module: Any, panel: Any) -> None:
    from module_view import click

    panel.ui.casesPathLineEdit.currentPath = "cases.json"
    click(panel.ui.addFilesButton)
    finding = {"severity": "error", "code": "X", "case": "Synthetic1", "path": None, "text": "It is empty."}
    module.worker.answer("validate", event="finding", **finding)
    cases = [{"id": "Synthetic1", "images": ["a.nii.gz"], "label": "b.nii.gz"}]
    module.worker.answer("validate", event="done", exit_code=1, result={"case_list": cases, "task": None})
    assert [(each.caseId, each.blocking, each.checked) for each in panel.cases] == [
        *((f"Synthetic{number}", False, False) for number in (1, 2, 3)),
        ("Synthetic1_2", True, True),
    ]
    assert panel.ui.checkStatusLabel.text == "Cases added: 1."


def test_segments_drawn_after_a_case_was_listed_are_seen(module: Any, panel: Any) -> None:
    segmentation = panel.sceneCaseNamed("Synthetic2").segmentationNode.GetSegmentation()
    segmentation.GetNthSegment(0).SetName("lesion")
    panel.onEnter()
    assert panel.cases[1].segments == ("lesion", "shell")
    assert "lesion" in panel.casesTab.mapping
    assert panel.ui.mappingTable.rowCount == 3


def test_the_name_of_the_new_model_is_the_users(module: Any, panel: Any) -> None:
    from ForgettableSegGUI.finetune.model import SCRATCH

    name = panel.ui.newNameLineEdit.target
    assert name.text() == "tiny-tuned"
    name.setText("")
    assert module.parameters.newModelName == ""
    assert "Give the new model a name" in panel.ui.startButton.toolTip
    name.setText("mine")
    module.parameters.startModel = SCRATCH
    assert module.parameters.newModelName == "mine"
    name.setText("")
    module.parameters.startModel = "tiny"
    assert module.parameters.newModelName == "tiny-tuned"


def test_cases_are_added_from_files(module: Any, panel: Any) -> None:
    from module_view import click

    panel.ui.casesPathLineEdit.currentPath = "cases.json"
    click(panel.ui.addFilesButton)
    assert module.worker.asked[-1][1] == {"cases": "cases.json"}
    cases = [{"id": "a", "group": "a", "images": ["a.nii.gz"], "label": "a_seg.nii.gz"}]
    for _twice in range(2):
        module.worker.answer("validate", event="done", exit_code=0, result={"case_list": cases, "task": None})
    assert [case.caseId for case in panel.cases][3:] == ["a"]


def test_a_fine_tuning_is_asked_for_with_files_task_and_settings(module: Any, panel: Any) -> None:
    module.parameters.trainingLength = 3
    request = start(module, panel)
    assert (request["model"], request["name"]) == ("tiny", "tiny-tuned")
    assert request["settings"] == {"preset": "recommended", "device": "auto", "minutes": 3}
    assert [each["name"] for each in request["task"]["classes"]] == ["ball", "shell"]
    assert all(Path(path).is_file() for each in request["cases"] for path in (*each["images"], each["label"]))


def test_a_run_is_followed_paused_and_cancelled(module: Any, panel: Any) -> None:
    from module_view import click

    start(module, panel)
    worker, ui = module.worker, panel.ui
    worker.answer(
        "finetune", event="metric", name="loss", iteration=1, values={"total": 1.0, "main": 1.0, "replay": None}
    )
    bank = {"size": 4, "capacity": 8, "replays": 2, "admitted": 1, "suspects": 0}
    worker.answer("finetune", event="metric", name="bank", iteration=1, values=bank)
    assert panel.run.plots.table("loss").GetNumberOfRows() == 1
    assert "4 of 8 samples" in ui.bankLabel.text
    click(ui.pauseButton)
    worker.answer("finetune", event="paused")
    assert (worker.paused, ui.statusLabel.text, ui.pauseButton.text) == ([True], "Paused", "Resume")
    click(ui.pauseButton)
    assert worker.paused == [True, False]
    click(ui.cancelButton)
    assert worker.cancelled != []
    worker.answer("finetune", event="cancelled", resumable="run")
    assert "can be resumed" in ui.statusLabel.text


def test_how_an_attempt_has_ended_stays_and_so_does_why_there_is_no_next(module: Any, panel: Any) -> None:
    from module_view import click

    click(panel.ui.startButton)
    panel.onCancel()
    panel.refresh()
    assert panel.ui.statusLabel.text == "Cancelled."
    start(module, panel)
    module.worker.answer("finetune", event="failed", code="X", text="It is full.", hint="", log="")
    module.parameters.newModelName = ""
    assert panel.ui.statusLabel.text.splitlines() == ["It is full.", "Give the new model a name."]


def test_the_bank_becomes_a_gallery_that_leads_to_its_slices(
    module: Any, panel: Any, application: Any, tmp_path: Path
) -> None:
    from stand_in import spin

    start(module, panel)
    row = {
        "case": "Synthetic2",
        "slice": 12,
        "position_lps": [1, 2, 3],
        "class": "ball",
        "score": 1.5,
        "age": 3,
        "replays": 2,
    }
    (tmp_path / "bank.json").write_text(json.dumps([row]), encoding="utf-8")
    module.worker.answer("finetune", event="artifact", kind="bank", path=str(tmp_path / "bank.json"))
    assert spin(lambda: not panel.run.gallery._drawing, 10)
    item = panel.ui.bankList.target.item(0)
    assert item.text() == "ball · 1.50"
    assert not item.icon().isNull()
    panel.ui.bankList.target.itemClicked.emit(item)
    assert application.jumps == [(-1.0, -2.0, 3.0)]


def test_the_result_is_compared_and_used(module: Any, panel: Any) -> None:
    from module_view import click

    start(module, panel)
    spread = {name: {"cases": 6, "change": 0.02} for name in ("ball", "mean")}
    dice = [{"ball": value, "mean": value} for value in (0.7, 0.8)]
    held_out = {"before": dice[0], "after": dice[1], "cases": 6, "spread": spread}
    module.worker.answer("finetune", event="done", exit_code=0, result={"model": "run/model", "held_out": held_out})
    ui = panel.ui
    assert ui.fineTuneTabs.currentIndex == 3
    assert [ui.resultTable.item(0, column).text() for column in range(4)] == [
        "ball",
        "0.700",
        "0.800",
        "+0.100 ± 0.020",
    ]
    assert "is better than before: Dice changed by +0.100 ± 0.020 on 6 held-out cases" in ui.resultLabel.text
    click(ui.useButton)
    assert module.worker.asked[-1][1] == {"action": "install", "path": "run/model"}
    module.worker.answer("models", event="done", exit_code=0, result={"model": {"name": "tiny-tuned"}})
    assert module.worker.asked[-1][1] == {"action": "list"}
    module.session.jobChanged.emit()  # whatever is shown anew before the new model is listed
    module.worker.answer(
        "models", event="done", exit_code=0, result={"models": [MODEL, {**MODEL, "name": "tiny-tuned"}]}
    )
    assert module.parameters.modelName == "tiny-tuned"
    assert "installed and selected" in ui.resultLabel.text
    closed = module.view.panels["segment"]
    assert closed.chosen(closed.ui.modelComboBox) == "tiny-tuned"


def test_a_result_is_discarded_after_a_question(module: Any, panel: Any, application: Any) -> None:
    from module_view import click

    request = start(module, panel)
    folder = Path(request["run"]).parent
    module.worker.answer("finetune", event="done", exit_code=0, result={"model": "m", "held_out": {}})
    application.answer = False
    click(panel.ui.discardButton)
    assert folder.is_dir()
    application.answer = True
    click(panel.ui.discardButton)
    assert not folder.exists()


def test_a_finished_run_waits_for_its_decision(module: Any, panel: Any) -> None:
    from module_view import click

    request = start(module, panel)
    run = Path(request["run"])
    (run / "model").mkdir(parents=True)
    (run / "model" / "model.json").touch()
    copies = run.parent / "cases"
    assert copies.is_dir()
    module.worker.answer("finetune", event="done", exit_code=0, result={"model": str(run / "model"), "held_out": {}})
    start(module, panel)
    module.worker.answer("finetune", event="failed", code="X", text="No.", hint="", log="")
    assert not Path(module.worker.asked[-1][1]["run"]).parent.exists(), "nothing to go on with is left"
    assert "finished" in panel.ui.runsComboBox.currentText
    assert not panel.ui.useButton.enabled
    click(panel.ui.resumeRunButton)
    assert panel.ui.useButton.enabled
    click(panel.ui.useButton)
    assert module.worker.asked[-1][1] == {"action": "install", "path": str(run / "model")}
    module.worker.answer("models", event="done", exit_code=0, result={"model": {"name": "tiny-tuned"}})
    assert not copies.exists()
    assert panel.run.open == []


def test_two_runs_of_the_same_second_have_folders_of_their_own(module: Any) -> None:
    from ForgettableSegGUI.runs import newRunFolder, runTitle

    folders = [newRunFolder("tiny tuned") for _ in range(5)]
    assert len(set(folders)) == 5
    assert all(folder.is_dir() for folder in folders)
    assert len({runTitle(folder) for folder in folders}) == 5


def test_a_model_that_was_made_outlives_a_failure_after_it(module: Any, panel: Any) -> None:
    request = start(module, panel)
    model = Path(request["run"]) / "model"
    model.mkdir(parents=True)
    (model / "model.json").touch()
    module.worker.answer("finetune", event="failed", code="WORKER_DIED", text="It died.", hint="", log="")
    assert (model / "model.json").is_file()
    assert "finished" in panel.ui.runsComboBox.currentText


def test_an_interrupted_run_can_go_on(module: Any, panel: Any) -> None:
    from module_view import click

    request = start(module, panel)
    checkpoint = Path(request["run"]) / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "1.safetensors").touch()
    module.worker.answer("finetune", event="failed", code="WORKER_DIED", text="It died.", hint="", log="")
    assert panel.ui.runsGroup.target.isVisibleTo(panel.ui.fineTuneTabs.target)
    assert panel.ui.resumeRunButton.enabled
    click(panel.ui.resumeRunButton)
    assert module.worker.asked[-1][0:2] == ("resume", {"run": request["run"]})


def test_a_new_model_begins_with_the_segments_of_the_cases(module: Any, panel: Any) -> None:
    from ForgettableSegGUI.finetune.model import SCRATCH
    from module_view import click

    module.parameters.startModel = SCRATCH
    panel.onStartModelChosen(0)
    index = panel.ui.startModelComboBox.target.findData(SCRATCH)
    panel.ui.startModelComboBox.setCurrentIndex(index)
    panel.refresh()
    assert [panel.ui.taskTable.item(row, 0).text() for row in range(2)] == ["ball", "shell"]
    panel.ui.taskTable.target.item(0, 1).setText("a round thing")
    click(panel.ui.addClassButton)
    assert [each.prompt for each in panel.choices.task().classes] == ["a round thing", "", ""]
    assert panel.choices.taskProblem() == ""
    request = start(module, panel)
    assert "model" not in request
    assert "spatial_dims" not in request["settings"], "planned where the user leaves it open"


def test_closing_slicer_asks_only_while_a_job_runs(module: Any, panel: Any, application: Any) -> None:
    from ForgettableSegGUI.closing import mayClose

    assert mayClose(module.session)
    assert application.asked == []
    start(module, panel)
    application.answer = False
    assert not mayClose(module.session)
    assert "can be resumed later" in application.asked[-1]
