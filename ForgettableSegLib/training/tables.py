"""Tables of a run folder: every training sample with its history, and the bank as a gallery shows it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.cases.files import write_volume
from ForgettableSegLib.training.files import whole_text_file
from ForgettableSegLib.training.miner import Miner
from ForgettableSegLib.training.patches import PatchReader

if TYPE_CHECKING:
    from ForgettableSegLib.mining.dynamics import CaseDynamics
    from ForgettableSegLib.training.trainer import Trainer

SAMPLES_FILE = "samples.csv"
DYNAMICS_FILE = "dynamics.csv"
MAPS_FOLDER = "forgetting"
DYNAMICS_COLUMNS = (
    *("case", "axis", "slice", "class", "group", "looks", "learnt", "forgetting_events", "first_learnt"),
    *("correctness", "confidence", "variability", "last_dice", "wanted", "wanted_share"),
    *("prepared_slice", "x_lps_mm", "y_lps_mm", "z_lps_mm"),
)


def write_tables(trainer: Trainer, folder: Path) -> None:
    """Write what a run tells of its training samples: samples.csv, dynamics.csv, and the maps of forgetting.

    A file that another program holds open is warned of: no reason to lose a training.
    """
    tables = {folder / SAMPLES_FILE: lambda path: write_samples(path, trainer.reader, trainer.miner)}
    if trainer.dynamics.by_case:
        tables[folder / DYNAMICS_FILE] = lambda path: write_dynamics(path, trainer)
    for path, write in tables.items():
        try:
            write(path)
        except PermissionError:  # on Windows
            trainer.recorder.warning(f"{path} is open in another program and was not written.")
        else:
            trainer.recorder.listener.artifact("table", path)
    for number, dynamics in trainer.dynamics.by_case.items():
        if (forgotten := dynamics.forgotten) is not None:
            prepared = trainer.reader.cases[number]
            path = folder / MAPS_FOLDER / f"{prepared.case_id}_forgetting.nrrd"
            path.parent.mkdir(exist_ok=True)
            write_volume(path, prepared.grid.to_native(forgotten.numpy(), nearest=True), prepared.grid.native)
            trainer.recorder.listener.artifact("forgetting", path, case=prepared.case_id)


def write_dynamics(path: Path, trainer: Trainer) -> None:
    """Write a row for every sample (slice and class) of the training cases that was looked at.

    "axis" and "slice" are those of the file, as in samples.csv; "class" is "background" for all that the labels do not
    have in the slice; "wanted" is the other class that the network gave most of the class's voxels in the last look.
    """
    names = ["background", *trainer.class_names]
    with whole_text_file(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(DYNAMICS_COLUMNS)
        for number in sorted(trainer.dynamics.by_case):
            prepared = trainer.reader.cases[number]
            writer.writerows(_dynamics_rows(prepared, trainer.dynamics.by_case[number], names))


def _dynamics_rows(prepared: PreparedCase, dynamics: CaseDynamics, names: Sequence[str]) -> Iterator[list[Any]]:
    history = dynamics.history
    numbers = (history.presentations, history.learnt, history.events, history.first_learnt)
    shares = (history.correctness, history.confidence, history.variability, dynamics.dice)
    columns = [each.tolist() for each in (*numbers, *shares, dynamics.wanted, dynamics.share)]
    places = {index: _place(prepared, index) for index in dynamics.samples[:, 0].unique().tolist()}
    for (index, label), group, *values in zip(dynamics.samples.tolist(), dynamics.groups(), *columns, strict=True):
        axis, file_slice, *middle = places[index]
        *counted, wanted, share = values
        rounded = [f"{value:.6f}" for value in counted[4:]]
        yield [
            *(prepared.case_id, axis, file_slice, names[label], group),
            *(*counted[:4], *rounded, names[wanted], f"{share:.6f}", index, *middle),
        ]


def write_samples(path: Path, reader: PatchReader, miner: Miner) -> None:
    """Write a row for every training slice that was drawn: scores, learning history, replays, suspicion, place.

    "slice" counts on the prepared grid; "file_slice" is the voxel index in the file, along its axis "file_axis" (i, j
    or k), and the place is the middle of the slice.

    Args:
        path: a CSV file.
        reader: knows the slices.
        miner: knows their history.
    """
    history = miner.history
    in_bank = set(miner.bank.ids.tolist())
    suspects = set(history.suspects().tolist())
    confidence, variability = history.confidence.tolist(), history.variability.tolist()
    columns = ("case", "slice", "score", "presentations", "correct", "learnt", "forgetting_events", "confidence")
    columns += ("variability", "replays", "in_bank", "reported_above_band", "suspect")
    columns += ("file_axis", "file_slice", "x_lps_mm", "y_lps_mm", "z_lps_mm")
    with whole_text_file(path) as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        for number in history.presentations.nonzero().flatten().tolist():
            case, slice_index = reader.locate(number)
            score = float(miner.last_score[number])
            writer.writerow(
                [
                    reader.cases[case].case_id,
                    slice_index,
                    "" if score != score else f"{score:.6f}",
                    int(history.presentations[number]),
                    int(history.correct[number]),
                    int(history.learnt[number]),
                    int(history.events[number]),
                    f"{confidence[number]:.6f}",
                    f"{variability[number]:.6f}",
                    int(miner.replays[number]),
                    int(number in in_bank),
                    int(history.suspected[number]),
                    int(number in suspects),
                    *_place(reader.cases[case], slice_index),
                ]
            )


def _place(prepared: PreparedCase, slice_index: int) -> tuple[str, int, float, float, float]:
    """Axis and index of a slice in its file, and its middle in LPS mm."""
    grid = prepared.grid
    middle = (slice_index, *((n - 1) / 2 for n in grid.shape[1:]))
    index = grid.index_to_native(middle)
    axis = 2 - grid.axes[0]
    x, y, z = grid.native.index_to_physical(index).round(3).tolist()
    return "ijk"[axis], round(float(index[axis])), x, y, z


def bank_entries(reader: PatchReader, miner: Miner, class_names: Sequence[str], iteration: int) -> list[dict[str, Any]]:
    """Where the samples of the bank lie, hardest first, with what a gallery tells of them: places only, no image.

    Args:
        reader: knows the slices.
        miner: has the bank.
        class_names: of the foreground.
        iteration: now.

    Returns:
        "case", "slice" (prepared), "position_lps" (mm), "class", "score", "age" (iterations) and "replays" of each.
    """
    names = ["background", *class_names]
    entries = []
    for entry in miner.bank.snapshot(iteration):
        case, slice_index = reader.locate(entry["id"])
        prepared = reader.cases[case]
        middle = _centre(prepared, slice_index, entry["class"])
        entries.append(
            {
                "case": prepared.case_id,
                "slice": slice_index,
                "position_lps": prepared.grid.index_to_physical(middle).round(3).tolist(),
                "class": names[entry["class"]],
                "score": round(entry["score"], 6),
                "age": entry["age"],
                "replays": entry["replays"],
            }
        )
    return entries


def _centre(prepared: PreparedCase, slice_index: int, label: int) -> tuple[float, float, float]:
    """Prepared index (slice, row, column) of the middle of a class in a slice, or of the slice without one."""
    plane = torch.from_numpy(prepared.label[slice_index].copy())
    voxels = (plane == label).nonzero().float() if label else torch.empty(0, 2)
    row, column = voxels.mean(0).tolist() if len(voxels) else [(n - 1) / 2 for n in plane.shape]
    return float(slice_index), row, column
