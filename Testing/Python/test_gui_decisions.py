"""What the panels decide, without Qt and without Slicer: what may be pressed, and what is said."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from ForgettableSegGUI import class_mapping, devices, model_cards, packages, reviews
from ForgettableSegGUI.finetune import bank
from ForgettableSegGUI.finetune import model as finetune_model
from ForgettableSegGUI.finetune.model import FineTuneState, TrainingCase
from ForgettableSegGUI.review import model as review_model
from ForgettableSegGUI.segment import model as segment_model
from ForgettableSegGUI.segment.model import SegmentState, VolumeFacts
from ForgettableSegGUI.setup import model as setup_model

from ForgettableSegLib.cases.task import SegmentClass, Task

ROOT = Path(__file__).resolve().parents[2]
ONE = Task("hippocampus", "MR", ("T1",), (SegmentClass("Anterior", 1), SegmentClass("Posterior", 2)))
FOUR = Task("glioma", "MR", ("FLAIR", "T1w", "T1gd", "T2w"), (SegmentClass("Tumor", 1),))
CARD = model_cards.ModelCard(
    "hippocampus", "Hippocampus", ONE, prompts=("a", "b"), heldOut={"Anterior": 0.9, "mean": 0.85}
)


def volume(name: str, number: int = 1, **more: str) -> VolumeFacts:
    """A volume that can be used."""
    return VolumeFacts(f"vtkMRMLScalarVolumeNode{number}", name, size=(10, 10, 10), **more)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (SegmentState(missing=("torch", "monai")), "Python packages are missing: torch, monai. Install them in Setup."),
        (SegmentState(whyNoModel="They are being listed."), "They are being listed."),
        (SegmentState(), "Choose a model."),
        (SegmentState(card=CARD, volumes=(None,)), "Choose a volume."),
        (SegmentState(card=CARD, volumes=(replace(volume("x"), problem="It is empty."),)), "It is empty."),
        (
            SegmentState(card=CARD, volumes=(volume("x"),), busy="Training"),
            "Wait until the running job has ended: Training.",
        ),
        (
            SegmentState(card=replace(CARD, task=FOUR), volumes=(volume("x"), None)),
            "Choose a volume for the channel T1w.",
        ),
        (
            SegmentState(card=replace(CARD, task=FOUR), volumes=(volume("x"),) * 4),
            "The same volume is chosen for two channels.",
        ),
        (SegmentState(card=CARD, volumes=(volume("x"),)), ""),
    ],
)
def test_apply_says_why_it_cannot_be_pressed(state: SegmentState, reason: str) -> None:
    assert state.isValid() == (not reason, reason)


def test_volumes_are_suggested_by_channel_name_whatever_their_order() -> None:
    names = ["case7 T2w", "case7 flair", "case7_T1gd", "case7 T1w", "labels"]
    volumes = [volume(name, number) for number, name in enumerate(names)]
    chosen = segment_model.suggestVolumes(replace(CARD, task=FOUR), volumes)
    assert [each and each.name for each in chosen] == ["case7 flair", "case7 T1w", "case7_T1gd", "case7 T2w"]


def test_a_volume_of_another_modality_is_not_suggested() -> None:
    ct, mr = volume("Abdomen", 1, modality="CT"), volume("Brain", 2, modality="MR")
    assert segment_model.suggestVolumes(CARD, [ct, mr]) == [mr]
    assert segment_model.suggestVolumes(CARD, [ct]) == [None]


def test_a_channel_without_a_fitting_volume_stays_empty() -> None:
    chosen = segment_model.suggestVolumes(replace(CARD, task=FOUR), [volume("FLAIR", 1), volume("something", 2)])
    assert [each and each.name for each in chosen] == ["FLAIR", None, None, None]


def tuning(**more: object) -> FineTuneState:
    """A training that can start."""
    cases = tuple(TrainingCase(f"c{n}", pair=n, segments=("Anterior",), checked=True) for n in range(3))
    values = {"cases": cases, "mapping": {"Anterior": "Anterior"}, "task": ONE, "newName": "mine", **more}
    return FineTuneState(**values)


def test_a_training_can_start() -> None:
    assert tuning().isValid() == (True, "")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cases": ()}, "Tick at least 3 cases: one to train, one to validate, one to compare."),
        ({"gone": ("c1",)}, "The case c1 is not in the scene any more; remove it from the list."),
        (
            {"mapping": {"Anterior": ""}},
            "No segment stands for a class of the model; see the table of segments in Cases.",
        ),
        ({"task": None, "taskProblem": "It has no class."}, "It has no class."),
        ({"task": FOUR, "mapping": {"Anterior": "Tumor"}}, "The model needs 4 volumes a case."),
        ({"newName": " "}, "Give the new model a name."),
        ({"takenNames": ("mine",)}, "There is already a model named mine; choose another name."),
        ({"busy": "Segmenting"}, "Wait until the running job has ended: Segmenting."),
        ({"missing": ("torch",)}, "Python packages are missing: torch. Install them in Setup."),
    ],
)
def test_start_says_why_it_cannot_be_pressed(change: dict[str, object], reason: str) -> None:
    assert tuning(**change).isValid() == (False, reason)


def test_a_case_with_an_error_blocks_until_it_is_unticked() -> None:
    cases = [TrainingCase(f"c{n}", pair=n, segments=("Anterior",)) for n in range(4)]
    found = [{"case": "c2", "severity": "error", "text": "The label is empty."}, {"case": "", "text": "Few cases."}]
    checked = finetune_model.withFindings(cases, found)
    assert [case.problems for case in checked] == [(), (), ("The label is empty.",), ()]
    assert finetune_model.generalFindings(found) == ["Few cases."]
    state = tuning(cases=tuple(checked))
    assert state.isValid() == (False, "The case c2 has a problem; mend it or untick it.")
    unticked = tuple(replace(case, included=not case.blocking) for case in checked)
    assert tuning(cases=unticked).isValid() == (True, "")


def test_the_table_of_cases_survives_the_scene() -> None:
    cases = [TrainingCase("a", images=("x.nrrd",), label="y.nrrd", problems=("odd",)), TrainingCase("b", pair=3)]
    assert finetune_model.casesFromJson(finetune_model.casesToJson(cases)) == cases
    assert finetune_model.casesFromJson('[{"unknown": 1}]') == []
    assert finetune_model.casesFromJson("damaged") == []


def test_new_cases_get_names_that_fit_files() -> None:
    cases = [TrainingCase("MR_head")]
    assert finetune_model.uniqueCaseId("MR head", cases) == "MR_head_2"
    assert finetune_model.uniqueCaseId("../..", []) == "case"


def test_what_the_user_mapped_wins_while_the_class_exists() -> None:
    proposals = {"hippocampus head": "Anterior"}
    mapping = class_mapping.completeMapping(
        ["hippocampus head", "x"], ["Anterior", "Posterior"], proposals, {"x": "Posterior"}
    )
    assert mapping == {"hippocampus head": "Anterior", "x": "Posterior"}
    kept = class_mapping.completeMapping(["hippocampus head"], ["Tumor"], {}, {"hippocampus head": "Anterior"})
    assert kept == {"hippocampus head": ""}


PARAMETERS = {
    "preset": "recommended", "trainingDevice": "auto", "trainingUnit": "minutes", "trainingLength": 5,
    "dimension": "3D", "textGuidance": "preset", "prototypeScores": "preset", "sampleBank": "preset", "rho": 0.0,
    "bankBatches": 0, "replayEvery": 0, "admission": "preset", "replacement": "preset", "learningRate": 0.0,
    "patchSize": 64, "auxLoss": "preset", "memory": "preset", "guidance": "preset",
}  # fmt: skip


def test_only_settings_that_differ_from_the_preset_are_sent() -> None:
    plain = finetune_model.trainingSettings(PARAMETERS, scratch=False)
    assert plain == {"preset": "recommended", "device": "auto", "minutes": 5}
    changed = {**PARAMETERS, "trainingUnit": "epochs", "textGuidance": "off", "rho": 0.2, "admission": "topk"}
    settings = finetune_model.trainingSettings(changed, scratch=True)
    assert settings == {
        "preset": "recommended", "device": "auto", "epochs": 5, "tgf": False, "rho": 0.2, "admission": "topk",
        "spatial_dims": 3, "patch_size": [64, 64, 64],
    }  # fmt: skip


def test_every_choice_of_the_panel_is_one_of_the_library() -> None:
    from ForgettableSegLib.training.settings import TrainingSettings

    for name, setting, choices in (
        ("admission", "admission", ("band", "topk", "forgetting")),
        ("replacement", "replacement", ("random", "fifo", "score")),
        ("auxLoss", "aux_loss", ("none", "scdl")),
        ("memory", "memory", ("none", "class")),
        ("guidance", "guidance", ("text", "psa", "none")),
    ):
        for choice in choices:
            for scores in ("preset", "off"):
                values = {**PARAMETERS, name: choice, "prototypeScores": scores}
                settings = finetune_model.trainingSettings(values, scratch=True)
                assert TrainingSettings.from_dict(settings).to_dict()[setting] == choice


def test_the_bank_is_shown_hardest_first_in_the_coordinates_of_slicer() -> None:
    row = {"case": "c1", "slice": 3, "position_lps": [1, 2, 3], "class": "a", "score": 0.5, "age": 7, "replays": 2}
    samples = bank.bankFromList([row, {**row, "score": 0.9}, {"damaged": True}], sliceAxis=1)
    assert [sample.score for sample in samples] == [0.9, 0.5]
    assert (samples[0].position, samples[0].sliceAxis) == ((-1.0, -2.0, 3.0), 1)
    assert "replayed 2 times" in bank.sampleToolTip(samples[0])
    assert bank.bankFromList({"not": "a list"}) == []


REVIEW = {
    "case": "c1", "channels": ["confidence"], "slice_axis": 1,
    "slices": [
        {"slice": 4, "class": "a", "difficulty": 2, "percentile": 99.04, "position_lps": [1, -2, 3], "area_mm2": 20},
        {"slice": 9, "class": "b", "difficulty": 1.0, "percentile": 50.0, "position_lps": [0, 0, 0], "area_mm2": 5.0},
    ],
    "classes": [{"name": "a", "value": 1, "volume_ml": 1.234, "mean_difficulty": 0.5, "share_above_95": 0.12}],
    "case_difficulty": {"difficulty": 1.0, "percentile": 97.0, "verdict": "hard"},
}  # fmt: skip


def test_the_hardest_slices_of_a_review() -> None:
    review = reviews.reviewFromDict(REVIEW)
    assert review_model.sliceRows(review.slices) == [[4, "a", 99.0, 20.0], [9, "b", 50.0, 5.0]]
    assert [each.slice for each in review_model.slicesOfClass(review, "b")] == [9]
    assert review.slices[0].position == (-1.0, 2.0, 3.0)
    assert review_model.classRows(review.classes) == [["a", "1.23", "0.50", "12 %"]]
    assert review_model.caseSentence(review).startswith("This case is harder than 97 % of the training cases.")
    assert review_model.caseRows([("x", review)]) == [["x", 97.0, "harder than usual"]]
    garbage = {**REVIEW, "case_difficulty": {"difficulty": 2.0, "percentile": 100.0, "verdict": "unlike"}}
    assert "Do not trust" in review_model.caseSentence(reviews.reviewFromDict(garbage))
    assert len(review_model.slicesAsCsv(review).splitlines()) == 3


@pytest.mark.parametrize(
    ("row", "step", "count", "expected"), [(-1, 1, 5, 0), (4, 1, 5, 4), (0, -1, 5, 0), (0, 1, 0, -1)]
)
def test_stepping_stops_at_the_ends(row: int, step: int, count: int, expected: int) -> None:
    assert review_model.neighbour(row, step, count) == expected


def test_a_comparison_needs_result_reference_and_model() -> None:
    full = review_model.CompareState(hasResult=True, hasReference=True, modelKnown=True)
    assert full.isValid() == (True, "")
    waiting = replace(full, modelKnown=False, whyNoModels="They are being listed.")
    assert waiting.isValid() == (False, "They are being listed.")
    for change in ({"hasResult": False}, {"hasReference": False}, {"modelKnown": False}, {"same": True}, {"busy": "x"}):
        valid, reason = replace(full, **change).isValid()
        assert not valid
        assert reason.endswith(".")


def test_packages_are_told_without_importing_them() -> None:
    versions = {"monai": "1.4.0", "torch": "2.9.1", "psutil": "7"}

    def version(name: str) -> str:
        if name not in versions:
            raise metadata.PackageNotFoundError
        return versions[name]

    needed = [
        packages.Requirement("monai", ">=1.5"),
        packages.Requirement("psutil"),
        packages.Requirement("tqdm"),
    ]
    statuses = packages.packageStatuses(needed, version)
    assert packages.missingNames(statuses) == ("torch", "monai", "tqdm")
    assert [row[1] for row in setup_model.packageRows(statuses)] == ["2.9.1 ✗", "1.4.0 ✗", "7", "missing"]


def test_the_requirements_file_is_read() -> None:
    found = packages.readRequirements(ROOT / "Resources" / "requirements.txt")
    assert packages.Requirement("monai", ">=1.5") in found
    assert {"torch", "numpy", "SimpleITK"} & {each.name for each in found} == set()


def test_an_installation_from_a_folder_asks_no_network() -> None:
    arguments = setup_model.pipArguments(["monai>=1.5"], wheels="wheels folder", constraints="c.txt")
    expected = ["install", "--no-index", "--find-links", "wheels folder", "--constraint", "c.txt", "monai>=1.5"]
    assert arguments == expected
    assert "wheels folder" in setup_model.installQuestion(["monai"], "wheels folder")
    assert "internet" in setup_model.installQuestion(["monai"], "")
    for folder in ("", "wheels folder"):
        assert "not replaced without another question" in setup_model.installQuestion(["monai"], folder)


def test_all_that_is_installed_is_held_but_what_is_asked_for() -> None:
    installed = {
        "setuptools": "65.5.0", "MONAI": "1.4.0", "torch": "2.0", "nvidia-cublas-cu12": "12", "odd": "unknown",
    }  # fmt: skip
    kept = {"setuptools": "65.5.0", "torch": "2.0", "nvidia-cublas-cu12": "12"}
    assert setup_model.heldVersions(installed, ["monai"]) == kept
    assert setup_model.heldVersions(installed, ["torch", "monai"]) == {"setuptools": "65.5.0"}
    assert setup_model.heldVersions(installed, ["torch", "monai"], released={"Setuptools"}) == {}


def test_a_device_is_reported_with_a_warning_where_no_gpu_is_used() -> None:
    report = {
        "device": "cpu",
        "seconds": 0.2,
        "devices": [{"name": "cpu", "description": "x"}],
        "versions": {"torch": "2.13"},
    }
    assert "No GPU is used" in setup_model.deviceSentence(report)
    gpu = {"name": "cuda:0", "description": "H200", "memory_free": 12 * 10**9}
    assert "12.0 GB of its memory are free." in setup_model.deviceSentence(
        {**report, "device": "cuda:0", "devices": [gpu]}
    )
    assert devices.deviceChoices({"devices": [gpu]}) == [
        ("auto", "Automatic"), ("cuda:0", "GPU 0 · H200"), ("cpu", "CPU"),
    ]  # fmt: skip


def test_a_card_tells_classes_numbers_and_licence() -> None:
    entry = {
        "name": "hippocampus", "shipped": True, "bytes": 5_000_000,
        "card": {
            "name": "hippocampus", "title": "Hippocampus", "task": ONE.to_dict(), "licence": "CC-BY-SA 4.0",
            "preprocessing": {"spacing": [None, 1.0, 1.0], "spatial_dims": 2}, "text": {"prompts": ["a", "b"]},
            "metrics": {"held_out": {"count": 3, "dice": {"Anterior": 0.9, "Posterior": 0.8, "mean": 0.85}}},
        },
    }  # fmt: skip
    card = model_cards.cardFromDict(entry)
    details = model_cards.cardDetails(card)
    assert [word in details for word in ("CC-BY-SA", "Anterior 0.900", "own x 1.00 x 1.00 mm")] == [True] * 3
    assert "Dice 0.850 on held-out cases" in model_cards.cardSummary(card)
    assert model_cards.cardFromDict({"name": "x", "card": {}, "problem": "It is damaged."}) is None
    assert model_cards.brokenFromDict({"name": "x", "problem": "It is damaged."}).problem == "It is damaged."


def test_a_card_cannot_smuggle_markup_into_the_panel() -> None:
    task = Task("x", "MR", ("T1",), (SegmentClass("<img src=x>", 1),))
    card = replace(CARD, task=task, description="<script>")
    text = model_cards.cardDetails(card) + model_cards.cardSummary(card)
    assert "<img" not in text
    assert "<script" not in text


def test_the_decisions_load_neither_qt_nor_slicer() -> None:
    shared = ["channels", "devices", "job_state", "model_cards", "packages", "reviews", "session"]
    rooms = [
        "segment.model",
        "review.model",
        "setup.model",
        *(f"finetune.{n}" for n in ("bank", "comparison", "model")),
    ]
    names = [*shared, *rooms]
    code = f"import sys; {'; '.join(f'import ForgettableSegGUI.{name}' for name in names)}; print(*sys.modules)"
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = ['ForgettableSeg', '.']; {code}"]
    loaded = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert loaded & {"qt", "ctk", "vtk", "torch", "monai", "SimpleITK"} == set()
