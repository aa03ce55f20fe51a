"""The comparison with nnU-Net: both sides get the same files and the same split."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from synthetic import TASK, write_cases

from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.label_files import read_label_map
from ForgettableSegLib.cases.split import split_cases
from ForgettableSegLib.cases.task import Task


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script, as a module."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "Benchmarks"))
    try:
        return importlib.import_module("nnunet_side_by_side")
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def converted(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of the cases and of the converted ones."""
    folder = tmp_path_factory.mktemp("nnunet")
    write_cases(folder / "cases", 8, shape=(4, 12, 10))
    # In another order than that of the label values, which nnU-Net wants to be 1, 2, ... in the order of the classes.
    task = {**TASK.to_dict(), "classes": TASK.to_dict()["classes"][::-1]}
    (folder / "task.json").write_text(json.dumps(task))
    lines = [f"{path.name[:6]},{path},{path.with_name(path.name[:6] + '_label.nii.gz')}" for path in images(folder)]
    (folder / "cases.csv").write_text("\n".join(["id,image,label", *lines]))
    arguments = [str(folder / "cases.csv"), "--task", str(folder / "task.json"), "--output", str(folder / "out")]
    script.main([*arguments, "--convert-only"])
    return folder, folder / "out"


def images(folder: Path) -> list[Path]:
    """The images of the cases."""
    return sorted(path for path in (folder / "cases").iterdir() if "label" not in path.name)


def test_the_layout_is_that_of_nnunet(script: ModuleType, converted: tuple[Path, Path]) -> None:
    folder, output = converted
    raw = output / "nnUNet_raw" / script.DATASET
    description = json.loads((raw / "dataset.json").read_text())
    assert description["labels"] == {"background": 0, "dark ball": 1, "bright ball": 2}
    assert description["channel_names"] == {"0": "MR_T1"}
    for part in ("Tr", "Ts"):
        names = {path.name.removesuffix(".nii.gz") for path in (raw / f"labels{part}").iterdir()}
        assert {path.name.removesuffix("_0000.nii.gz") for path in (raw / f"images{part}").iterdir()} == names
    assert len(list((raw / "imagesTr").iterdir())) == description["numTraining"]
    for path in (raw / "labelsTr").iterdir():
        values, geometry = read_label_map(path)
        wanted, own = read_label_map(folder / "cases" / path.name.replace(".nii.gz", "_label.nii.gz"))
        assert geometry.is_same_grid(own)
        assert np.array_equal(values, np.array([0, 2, 1])[wanted])


def test_both_sides_train_on_the_same_cases(script: ModuleType, converted: tuple[Path, Path]) -> None:
    _, output = converted
    [fold] = json.loads((output / "nnUNet_preprocessed" / script.DATASET / "splits_final.json").read_text())
    task = Task.from_dict(json.loads((output / "task.json").read_text()))
    cases = read_case_list(output / "cases.csv", task=task)
    split = split_cases(cases, seed=0)  # as the job `train` does it
    assert (sorted(fold["train"]), sorted(fold["val"])) == (list(split.train), list(split.validation))
    held_out = read_case_list(output / "held_out.csv", task=task)
    assert {case.case_id for case in held_out} == set(split.test)
    assert all("Ts" in str(case.label) for case in held_out)
    raw = output / "nnUNet_raw" / script.DATASET
    assert {path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").iterdir()} == set(split.test)
