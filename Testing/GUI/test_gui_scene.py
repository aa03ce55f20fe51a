"""A scene that is closed or loaded while the module is open, with the scene's own events in their own order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from worker_answers import MODEL, segment

OTHER = {**MODEL, "name": "other", "card": {**MODEL["card"], "name": "other", "title": "Other model"}}


@pytest.fixture
def opened(application: Any, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module's own widget, as the application makes it, with two installed models."""
    from module_view import ModuleWindow

    import ForgettableSeg as module

    monkeypatch.setenv("HOME", str(tmp_path))
    window = ModuleWindow()
    monkeypatch.setattr(module, "sharedWorker", lambda: window.worker)
    layout = SimpleNamespace(addWidget=lambda widget: None)
    widget = module.ForgettableSegWidget(SimpleNamespace(isEntered=True, layout=lambda: layout))
    widget.setup()
    window.view.setParameterNode(None)
    window.window.layout().addWidget(widget.view.widget.target)
    window.view, window.session, window.logic = widget.view, widget.view.session, widget.logic
    window.moduleWidget = widget
    widget.enter()
    window.worker.answer("models", event="done", exit_code=0, result={"models": [MODEL, OTHER]})
    yield window
    widget.cleanup()
    window.close()


def save(scene: Any, folder: Path) -> None:
    """Save a scene with all of its data, as an .mrb holds them."""
    folder.mkdir()
    assert scene.SaveSceneToSlicerDataBundleDirectory(str(folder))


def load(scene: Any, folder: Path) -> None:
    """Load a saved scene in the place of the present one: close, import, each with its events."""
    (path,) = folder.rglob("*.mrml")
    scene.SetURL(str(path))
    assert scene.Connect()


def test_the_state_is_shown_again_after_a_scene_was_loaded(opened: Any, scene: Any, tmp_path: Path) -> None:
    from ForgettableSegGUI.samples import syntheticCase
    from stand_in import spin

    syntheticCase(scene, 0)
    opened.panel("segment")
    opened.parameters.modelName = "other"
    opened.parameters.heatmapThreshold = 33.0
    segment(opened)
    save(scene, tmp_path / "saved")
    scene.Clear(False)
    ui = opened.view.panels["segment"].ui
    assert ui.channelSelector1.currentNode() is None
    load(scene, tmp_path / "saved")
    assert spin(lambda: ui.channelSelector1.currentNode() is not None, 5)
    assert ui.outputSelector.currentNode().GetName() == "Synthetic1 segmentation"
    assert ui.modelComboBox.currentText == "Other model"
    assert ui.applyButton.enabled
    assert (ui.volumesButton.enabled, ui.reviewButton.enabled) == (True, True)
    assert ui.resultFrame.target.isVisible()
    review = opened.panel("review")
    assert review.ui.reviewSelector.currentNode().GetName() == "Synthetic1 segmentation"
    assert review.ui.thresholdSlider.value == 33.0
    assert review.ui.channelComboBox.count == 2
    assert review.heatmap is not None
    assert [review.ui.slicesTable.item(row, 1).text() for row in range(2)] == ["ball", "shell"]


def test_a_model_that_is_not_on_this_computer_is_named_and_no_other_takes_its_place(opened: Any, scene: Any) -> None:
    from ForgettableSegGUI.samples import syntheticCase
    from stand_in import spin

    syntheticCase(scene, 0)
    opened.panel("segment")
    opened.parameters.modelName = opened.parameters.startModel = "elsewhere"
    sentence = "The model elsewhere is not on this computer. Choose another one, or import it in Models."
    ui = opened.view.panels["segment"].ui
    assert spin(lambda: ui.applyButton.toolTip == sentence, 5)
    assert (ui.applyButton.enabled, ui.modelComboBox.currentIndex) == (False, -1)
    assert opened.parameters.modelName == "elsewhere"
    finetune = opened.panel("fineTune")
    assert (finetune.ui.startModelComboBox.currentIndex, opened.parameters.startModel) == (-1, "elsewhere")
    assert finetune.choices.taskProblem() == sentence


def test_a_closed_section_forgets_the_scene_that_was_closed(opened: Any, scene: Any) -> None:
    from ForgettableSegGUI.samples import syntheticCase

    syntheticCase(scene, 0)
    segment_ui = opened.panel("segment").ui
    segment(opened)
    review_ui = opened.panel("review").ui
    opened.panel("setup")
    assert segment_ui.applyButton.enabled
    scene.Clear(False)
    assert not segment_ui.applyButton.enabled
    assert segment_ui.applyButton.toolTip == "Choose a volume."
    assert not segment_ui.resultFrame.target.isVisibleTo(segment_ui.applyButton.target.parent())
    assert not review_ui.editButton.enabled
    assert (review_ui.slicesTable.rowCount, review_ui.casesTable.rowCount) == (0, 0)


def test_what_one_section_chooses_a_closed_one_shows_before_it_is_opened(opened: Any, scene: Any) -> None:
    from ForgettableSegGUI.samples import syntheticCase
    from stand_in import spin

    panel = opened.view.panels["segment"]
    opened.panel("models")
    syntheticCase(scene, 0)
    assert spin(lambda: panel.ui.applyButton.enabled, 5), "the only volume is suggested"
    opened.parameters.modelName = "other"
    assert spin(lambda: panel.ui.modelComboBox.currentText == "Other model", 5)
    opened.parameters.inputVolume1 = None
    assert spin(lambda: not panel.ui.applyButton.enabled, 5)


def test_nothing_can_be_pressed_while_there_is_no_scene(opened: Any) -> None:
    opened.view.forgetScene()
    panels = opened.view.panels.values()
    assert [panel.widget.target.isEnabledTo(panel.widget.target.parent()) for panel in panels] == [False] * 5
