"""Adds to the shipped hippocampus model what its training cases looked like, and its locator.

    python Testing/complete_model.py ../shared/data/Hippocampus

The template is the MNI152 head of the package nilearn at 4 mm, compared inside the brain and a rim around it. The cases
are those that the model was trained on: the split of its settings, over the cases of the data set.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import SimpleITK as sitk

from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.shape import measure_cases
from ForgettableSegLib.cases.split import split_cases
from ForgettableSegLib.inference.template import add_locator
from ForgettableSegLib.jobs.demo_data import TISSUES, template
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.resources import resources_dir

REGIONS = Path(__file__).resolve().parent / "Benchmarks" / "hippocampus.regions.json"
RIM_MM = 8
SOURCE = (
    "MNI152 (ICBM 2009a nonlinear symmetric) T1 template, from the package nilearn; copyright 1993-2004 Louis Collins, "
    "McConnell Brain Imaging Centre, Montreal Neurological Institute, McGill University: may be used, copied, modified "
    "and distributed for any purpose without fee, provided that this notice is kept"
)


def brain_mask() -> sitk.Image:
    """The brain of the template with the dark rim around it that tells brain from skin in heads with a skull."""
    tissue = sum(sitk.Cast(template(kind), sitk.sitkFloat32) for kind in TISSUES.values()) > 127
    closed = sitk.BinaryFillhole(sitk.BinaryMorphologicalClosing(tissue, [6] * 3))
    return sitk.BinaryDilate(closed, [RIM_MM] * 3, sitk.sitkBall)


def main() -> None:
    """Write the package anew."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", type=Path, help="the data set that it was trained on")
    options = parser.parse_args()
    path = resources_dir() / "Models" / "hippocampus"
    package = ModelPackage.read(path)
    cases = read_case_list(options.cases)
    settings = package.card["training"]
    split = split_cases(cases.cases, ratios=settings["split_ratios"], seed=settings["seed"])
    trained = [case for case in cases if case.case_id in set(split.train)]
    if len(trained) != package.card["provenance"]["number_of_training_volumes"]:
        raise SystemExit("The split of these cases is not that of the training.")
    changes = {"field_of_view": measure_cases(trained, package.task)}
    regions = json.loads(REGIONS.read_text(encoding="utf-8"))
    package = add_locator(package.with_parts(changes), template("t1"), regions, mask=brain_mask(), source=SOURCE)
    package.write(path, replace=True, private=[case.case_id for case in cases])
    print(json.dumps(changes, indent=1))


if __name__ == "__main__":
    main()
