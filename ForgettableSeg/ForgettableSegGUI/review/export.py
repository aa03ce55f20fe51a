"""Writing a review to files: heatmaps, tables. No Qt."""

from __future__ import annotations

from pathlib import Path

import slicer
from ForgettableSegMRML.volumes import writeVolume

from .. import results
from .model import slicesAsCsv


def exportReview(
    segmentationNode: slicer.vtkMRMLSegmentationNode, folder: Path, *, heatmaps: bool = True, tables: bool = True
) -> list[Path]:
    """Write the review of a segmentation.

    Args:
        segmentationNode: a reviewed segmentation.
        folder: receives the files; made where it does not exist.
        heatmaps: write each channel as an NRRD volume.
        tables: write the hardest slices as CSV, and the whole review as JSON.

    Returns:
        The files written.

    Raises:
        OSError: if the folder cannot be written.
        ForgettableSegError: if a volume cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in segmentationNode.GetName())
    written = []
    if heatmaps:
        for channel, volumeNode in results.heatmapsOf(segmentationNode).items():
            written.append(folder / f"{name}_{channel}.nrrd")
            writeVolume(volumeNode, written[-1])
    review = results.reviewOf(segmentationNode)
    if tables and review is not None:
        written.append(folder / f"{name}_slices.csv")
        written[-1].write_text(slicesAsCsv(review), encoding="utf-8")
        written.append(folder / f"{name}_review.json")
        written[-1].write_text(results.reviewTextOf(segmentationNode), encoding="utf-8")
    return written
