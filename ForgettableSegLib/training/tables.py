"""Tables of a run folder: every training sample with its history, and the bank as a gallery shows it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.training.files import whole_text_file
from ForgettableSegLib.training.miner import Miner
from ForgettableSegLib.training.patches import PatchReader


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
