"""An evaluation on paper: one table to print, a CSV with every case, a JSON with everything."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.evaluation.metrics import METRICS, ClassResult, Convention
from ForgettableSegLib.evaluation.statistics import PairedComparison
from ForgettableSegLib.evaluation.summary import ClassSummary, Spread, summarise

SCHEMA = 1
CASES_FILE = "evaluation_cases.csv"
SUMMARY_FILE = "evaluation_summary.csv"
JSON_FILE = "evaluation.json"

TITLES = {
    "dice": "Dice",
    "sensitivity": "Sensitivity",
    "hd95_mm": "HD95 mm",
    "hd95_voxels": "HD95 voxels",
    "nsd": "NSD",
    "false_positive_ml": "FP ml",
}


@dataclass(frozen=True)
class Report:
    """Where a report was written, and its table.

    Args:
        table: text to print.
        files: what was written.
    """

    table: str
    files: tuple[Path, ...]


def write_report(
    results: Sequence[ClassResult],
    output: Path,
    *,
    convention: Convention = "ours",
    tolerance: float = 1.0,
    comparison: Sequence[PairedComparison] = (),
    details: dict[str, Any] | None = None,
) -> Report:
    """Write the report of an evaluation into a folder, which is made if need be.

    Args:
        results: of all cases.
        output: folder.
        convention: that the results follow.
        tolerance: of the normalised surface Dice, mm.
        comparison: with a second result set, if there is one.
        details: JSON-able facts to keep with the results (model, data, versions).

    Raises:
        ForgettableSegError: OUTPUT_UNWRITABLE or DISK_FULL, naming the file; what was there before is left whole.
    """
    summary = summarise(results)
    content = {
        "schema": SCHEMA,
        "convention": convention,
        "nsd_tolerance_mm": tolerance,
        "details": details or {},
        "summary": [row.to_dict() for row in summary],
        "comparison": [row.to_dict() for row in comparison],
        "cases": [result.to_dict() for result in results],
    }
    files = {
        CASES_FILE: cases_csv(results),
        SUMMARY_FILE: summary_csv(summary),
        JSON_FILE: json.dumps(content, indent=1, allow_nan=False) + "\n",
    }
    for name, text in files.items():
        write_file(output / name, text)
    table = format_table(summary, convention=convention, tolerance=tolerance)
    if comparison:
        table += "\n\n" + format_comparison(comparison)
    return Report(table, tuple(output / name for name in files))


def cases_csv(results: Sequence[ClassResult]) -> str:
    """One line a case and class; empty where there is no value."""
    return _csv([field.name for field in fields(ClassResult)], [list(result.to_dict().values()) for result in results])


def summary_csv(summary: Sequence[ClassSummary]) -> str:
    """One line a class."""
    columns = [f"{metric}_{part}" for metric in METRICS for part in ("mean", "std", "median", "count")]
    rows = [
        [
            *(row.name, row.cases, row.missed, row.invented),
            *(row.metrics[metric].to_dict()[part] for metric in METRICS for part in ("mean", "std", "median", "count")),
        ]
        for row in summary
    ]
    return _csv(["class", "cases", "missed", "invented", *columns], rows)


def format_table(summary: Sequence[ClassSummary], *, convention: Convention, tolerance: float) -> str:
    """The summary as text: mean ± standard deviation, and in brackets the cases with a value where not all have one."""
    header = ["class", "cases", *(TITLES[metric] for metric in METRICS), "missed", "invented"]
    rows = [
        [
            *(row.name, str(row.cases)),
            *(_cell(row.metrics[metric], row.cases, metric) for metric in METRICS),
            *(str(row.missed), str(row.invented)),
        ]
        for row in summary
    ]
    note = f"Convention {convention}; NSD at {tolerance:g} mm; mean ± standard deviation over cases."
    return "\n".join([*_columns(header, rows), note])


def format_comparison(comparison: Sequence[PairedComparison]) -> str:
    """The comparison as text."""
    header = ["class", "metric", "cases", "first", "second", "difference", "95 % interval", "p", "better/worse"]
    rows = [
        [
            *(row.name, TITLES[row.metric], str(row.count)),
            *(_number(row.first), _number(row.second), _number(row.difference, sign=True)),
            "-" if math.isnan(row.low) else f"{row.low:+.4f} to {row.high:+.4f}",
            *("-" if math.isnan(row.p_value) else f"{row.p_value:.3g}", f"{row.better}/{row.worse}"),
        ]
        for row in comparison
    ]
    note = "Second minus first, paired by case; bootstrap interval of the mean; Wilcoxon signed-rank p, uncorrected."
    return "\n".join([*_columns(header, rows), note])


def _cell(spread: Spread, cases: int, metric: str) -> str:
    digits = 3 if metric in ("dice", "sensitivity", "nsd") else 2
    if not spread.count:
        return "-"
    deviation = "" if math.isnan(spread.std) else f" ± {spread.std:.{digits}f}"
    share = "" if spread.count == cases else f" [{spread.count}]"
    return f"{spread.mean:.{digits}f}{deviation}{share}"


def _number(value: float, *, sign: bool = False) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:+.4f}" if sign else f"{value:.4f}"


def _columns(header: list[str], rows: list[list[str]]) -> list[str]:
    """Lines with columns as wide as their widest cell, the first aligned left, the others right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [header, *rows]
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]


def _csv(header: list[str], rows: list[list[Any]]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return stream.getvalue()


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        ForgettableSegError: OUTPUT_UNWRITABLE or DISK_FULL.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(unfinished, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if error.errno == errno.ENOSPC:
            raise ForgettableSegError(ErrorCode.DISK_FULL, f"The disk is full: {path} could not be written.") from error
        raise ForgettableSegError(
            ErrorCode.OUTPUT_UNWRITABLE,
            f"{path} could not be written: {error.strerror}.",
            hint="Choose another output folder, or close the program that holds the file.",
        ) from error
