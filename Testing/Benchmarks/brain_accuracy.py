"""Dice of the model `brain`: on images made of the label maps kept out of its training, and on real heads.

    python Testing/Benchmarks/brain_accuracy.py MODEL [--run RUN] [--data ../shared/data] [--output FILE.md]

The held-out label maps (RUN/split.json) get an image near T1 and one of random contrast each, at 1 mm, not deformed.
The real heads have FreeSurfer's automatic labels; there the choroid plexus counts as the ventricle that it lies in, and
voxels of the corpus callosum, of hypointensities, vessels and the optic chiasm, which the model has no class for,
count for nobody. "mean" is that of the 31 structures without cerebrospinal fluid.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import machine, markdown, spread

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_image
from ForgettableSegLib.cases.label_files import read_label_map
from ForgettableSegLib.cases.synthesis_recipe import find_recipe
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.training.synthetic_cases import write_synthetic_case

LEFT_OUT = "cerebrospinal fluid"
SAME_AS = {31: 4, 63: 43}
NO_CLASS = (30, 62, 77, 85, 251, 252, 253, 254, 255)


def synthetic(maps: Path, run: Path, task: Task, folder: Path) -> Iterator[tuple[str, Case]]:
    """The kept-out label maps with an image near T1, then of random contrast."""
    recipe = find_recipe("head", task)
    kept_out = json.loads((run / "split.json").read_text(encoding="utf-8"))["test"]
    for kind, like_scan in (("synthetic T1", True), ("random contrast", False)):
        for name in kept_out:
            path = maps / f"{name}.nii.gz"
            image, label = (folder / f"{kind[:3]}_{name}_{part}.nii.gz" for part in ("image", "label"))
            case = Case(name, name, (path,), path)
            write_synthetic_case(case, task, recipe, image, label, like_scan=like_scan, seed=1)
            yield kind, Case(name, name, (image,), label)


def real(heads: Path) -> Iterator[tuple[str, Case]]:
    """Real heads with automatic labels."""
    for image in sorted((heads / "images").glob("*.nii.gz")):
        yield "real heads", Case(image.stem, image.stem, (image,), heads / "labels" / image.name)


def dice_of(predictor: Predictor, case: Case) -> tuple[dict[str, float], float]:
    """Dice by class (those in the reference alone), and the seconds that segmenting took, the heatmap included."""
    image, geometry = read_image(case)
    begun = time.perf_counter()
    found = predictor.segment_array(image, geometry, anyway=True).labels
    seconds = time.perf_counter() - begun
    reference, _ = read_label_map(case.label)
    for value, same in SAME_AS.items():
        reference[reference == value] = same
    counted = ~np.isin(reference, NO_CLASS)
    reference, found = reference[counted].astype(np.int64), found[counted].astype(np.int64)
    shared = np.bincount(found[found == reference], minlength=256)
    both = np.bincount(found, minlength=256) + np.bincount(reference, minlength=256)
    present = np.bincount(reference, minlength=256) > 0
    classes = [each for each in predictor.model.task.classes if present[each.value]]
    return {each.name: 2 * shared[each.value] / both[each.value] for each in classes}, seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--run", type=Path, help="folder of its training; without it only real heads")
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--output", type=Path, help="Markdown file")
    options = parser.parse_args()
    predictor = Predictor(ModelPackage.read(options.model))
    task = predictor.model.task
    found: dict[str, dict[str, list[float]]] = {}
    durations = []
    with tempfile.TemporaryDirectory() as temporary:
        cases = [*real(options.data / "Heads")]
        if options.run is not None:
            cases += synthetic(options.data / "HeadLabels", options.run, task, Path(temporary))
        for kind, case in cases:
            values, seconds = dice_of(predictor, case)
            durations.append(seconds)
            for name, value in values.items():
                found.setdefault(kind, {}).setdefault(name, []).append(value)
            own = np.mean([value for name, value in values.items() if name != LEFT_OUT])
            print(f"{kind}, {case.case_id}: mean {own:.3f}, {seconds:.0f} s", flush=True)
    rows = []
    for each in task.classes:
        rows.append([each.name, *(f"{np.mean(found[kind].get(each.name, [np.nan])):.3f}" for kind in found)])
    means = [np.mean([np.mean(v) for name, v in by.items() if name != LEFT_OUT]) for by in found.values()]
    rows.append(["mean", *(f"{mean:.3f}" for mean in means)])
    table = markdown(["structure", *found], rows)
    text = f"{table}\n\nSeconds a head: {spread(durations, 0)}. {machine()}\n"
    print(text)
    if options.output is not None:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
