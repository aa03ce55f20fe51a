"""Cases that are label maps alone, made ready for a run: those that judge it get an image file of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ForgettableSegLib.cases.case import Case, CaseList
from ForgettableSegLib.cases.files import write_volume
from ForgettableSegLib.cases.labels import to_label_values
from ForgettableSegLib.cases.split import Split
from ForgettableSegLib.cases.synthesis_recipe import Recipe, find_recipe
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.training.synthesis import ImageSynthesis

FOLDER = "synthetic"


def as_label_maps(cases: CaseList) -> CaseList:
    """The cases, with every file that has no label taken for a label map, as in a plain folder of them."""
    taken = (
        replace(case, label=case.images[0]) if case.label is None and len(case.images) == 1 else case for case in cases
    )
    return replace(cases, cases=tuple(taken))


def with_synthetic_images(
    cases: CaseList,
    task: Task,
    synthesis: str | None,
    split: Split,
    folder: Path,
    *,
    write: bool = True,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> CaseList:
    """Give the label maps that validate a run or are held out an image file, as a scanner would write it.

    Every second one looks like the recipe's scan, the others have a random contrast. A file is not written twice.

    Args:
        cases: of the run.
        task: what is segmented.
        synthesis: the training setting.
        split: which cases train; their images are made while training.
        folder: of the run.
        write: False where another process writes the files.
        progress: called before each file with the number done and their number.

    Returns:
        The cases; those with an image file have the classes' values in a label file beside it.

    Raises:
        ForgettableSegError: SETTING_INVALID if there are label maps alone and no synthesis, or an invalid one;
            CASE_INVALID if a label map cannot be read.
    """
    alone = [case for case in cases if case.is_label_map]
    if not alone:
        return cases
    if synthesis is None:
        msg = f"Case '{alone[0].case_id}' has no image but its own label map ({alone[0].label})."
        hint = "Give it an image, or set synthesis to 'head' or 'random', so that images are made from label maps."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, msg, hint=hint)
    recipe = find_recipe(synthesis, task)
    made: dict[str, Case] = {}
    judging = [case for part in (split.validation, split.test) for case in alone if case.case_id in set(part)]
    for number, case in enumerate(judging):
        progress(number, len(judging))
        image, label = (folder / FOLDER / f"{case.case_id}_{kind}.nii.gz" for kind in ("image", "label"))
        if write and not (image.is_file() and label.is_file()):
            write_synthetic_case(case, task, recipe, image, label, like_scan=number % 2 == 0)
        made[case.case_id] = replace(case, images=(image,) * len(task.channels), label=label)
    return replace(cases, cases=tuple(made.get(case.case_id, case) for case in cases))


def write_synthetic_case(
    case: Case, task: Task, recipe: Recipe, image: Path, label: Path, *, like_scan: bool, seed: int = 0
) -> None:
    """Make an image of a whole label map, not deformed, and write it with the values of the classes.

    Args:
        case: a label map alone.
        task: what is segmented.
        recipe: of the image.
        image, label: files to write, on the grid of the label map.
        like_scan: near the recipe's means instead of any contrast.
        seed: with the name of the case, decides the image.

    Raises:
        ForgettableSegError: if the label map cannot be read or a file not be written.
    """
    indices, geometry = recipe.read(case)
    digest = hashlib.blake2b(f"{seed} {case.case_id}".encode(), digest_size=4).digest()
    volume = ImageSynthesis(recipe).volume(
        torch.from_numpy(recipe.tissue_of_value[indices]), like_scan=like_scan, seed=int.from_bytes(digest, "big")
    )
    write_volume(image, np.rint(volume.numpy() * 255).astype(np.uint8), geometry)
    write_volume(label, to_label_values(recipe.classes[indices], task), geometry)
