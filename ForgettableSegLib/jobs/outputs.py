"""Where results of cases are put: whole or not at all, never over an input, and shared among the ranks of a job."""

from __future__ import annotations

import csv
import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ForgettableSegLib.cases.findings import Finding, hearing
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.failures import explain
from ForgettableSegLib.jobs.job import JobContext, is_fatal_for_batch
from ForgettableSegLib.jobs.plain import plain

if TYPE_CHECKING:
    import numpy as np

    from ForgettableSegLib.cases.case import Case
    from ForgettableSegLib.cases.geometry import Geometry
    from ForgettableSegLib.training.distributed import ProcessGroup

OtherFile = tuple[str, Callable[[Path], None]]
"""Ending of a file that is no volume, and what writes it."""


def open_output(folder: str, cases: Iterable[Case], context: JobContext) -> Path:
    """Make the output folder and keep the job's log in it.

    Raises:
        ForgettableSegError: REQUEST_INVALID if results would lie among the files of an input; OUTPUT_UNWRITABLE.
    """
    output = Path(folder).absolute()
    for case in cases:
        inside = [path for path in case.files if path.is_dir() and output.resolve().is_relative_to(path.resolve())]
        if inside:
            message = f"The output folder {output} lies in the image folder {inside[0]}, which must stay as it is."
            raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message, hint="Choose another output folder.")
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe = output / f".{uuid.uuid4().hex}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        readable = explain(error)
        message = f"The output folder {output} cannot be written: {error.strerror or error}."
        code = readable.code if readable.code == ErrorCode.DISK_FULL else ErrorCode.OUTPUT_UNWRITABLE
        raise ForgettableSegError(code, message, hint="Choose another folder.") from error
    context.log_to(output)
    return output


class CaseFolder:
    """The folder of a case's results. They are written aside and put in place together once they are all complete.

    Args:
        output: folder of the job.
        case: whose inputs must not be overwritten.
        file_format: ending of the volumes.
        kinds: every kind of file that the job may put here, so that those of an earlier job do not stay.
    """

    def __init__(self, output: Path, case: Case, *, file_format: str, kinds: Sequence[str]) -> None:
        self._case = case
        self._folder = output / case.folder_name
        self._format = file_format
        self._kinds = kinds

    def write(
        self,
        volumes: Mapping[str, np.ndarray],
        geometry: Geometry,
        review: Mapping[str, Any] | None,
        others: Mapping[str, OtherFile] | None = None,
    ) -> dict[str, Path]:
        """Write the volumes (by kind), the review and other files; return the paths by kind.

        Raises:
            ForgettableSegError: OUTPUT_UNWRITABLE, DISK_FULL, or REQUEST_INVALID if a file is one of the inputs.
        """
        from ForgettableSegLib.cases.files import write_volume

        names = {kind: f"{self._case.case_id}_{kind}{self._format}" for kind in volumes}
        if review is not None:
            names["review"] = f"{self._case.case_id}_review.json"
        others = others or {}
        names |= {kind: f"{self._case.case_id}_{kind}{ending}" for kind, (ending, _) in others.items()}
        self._refuse_inputs(names.values())
        draft = self._folder.with_name(f".{uuid.uuid4().hex}")
        try:
            draft.mkdir(parents=True)
            for kind, volume in volumes.items():
                write_volume(draft / names[kind], volume, geometry)
            for kind, (_, write) in others.items():
                write(draft / names[kind])
            if review is not None:
                (draft / names["review"]).write_text(to_json(review), encoding="utf-8")
            self._put_in_place(draft, set(names.values()))
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return {kind: self._folder / name for kind, name in names.items()}

    def _put_in_place(self, draft: Path, names: set[str]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (draft / name).replace(self._folder / name)
        for kind in self._kinds:
            for ending in (".nrrd", ".nii.gz", ".json", ".dcm", ".png"):
                name = f"{self._case.case_id}_{kind}{ending}"
                if name not in names and not self._is_input(self._folder / name):
                    (self._folder / name).unlink(missing_ok=True)

    def _refuse_inputs(self, names: Iterable[str]) -> None:
        for name in names:
            if self._is_input(self._folder / name):
                message = f"The result would overwrite {self._folder / name}, which is an input."
                raise ForgettableSegError(ErrorCode.REQUEST_INVALID, message, hint="Choose another output folder.")

    def _is_input(self, path: Path) -> bool:
        return path.exists() and any(file.exists() and path.samefile(file) for file in self._case.files)


def for_each_case(
    context: JobContext,
    cases: Sequence[Case],
    run_one: Callable[[Case, Callable[[float], None]], dict[str, Any]],
    *,
    phase: str,
    group: ProcessGroup,
    keep: Callable[[Sequence[Mapping[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:
    """Run this rank's share of the cases; a case that fails is told of, and the others go on.

    Args:
        context: of the job.
        cases: all cases of the job.
        run_one: does a case and returns its row; it is given a function to be told the done share of the case.
        phase: word for what is done.
        group: the ranks that share the cases.
        keep: is given the rows so far after each case, so that what is done can be told of whatever comes then.

    Returns:
        A row a case of this rank: "case", "status" ("done" or "failed"), "message", and what ``run_one`` returned.
    """
    mine = cases[group.rank :: group.world_size]
    rows = []
    for index, case in enumerate(mine):
        context.check_cancelled()

        def tell(share: float, index: int = index, case: Case = case) -> None:
            context.check_cancelled()
            context.progress(phase, round(index + share, 3), len(mine), case=case.case_id)

        tell(0)
        try:
            with hearing(_teller(context, case)):
                rows.append({"case": case.case_id, "status": "done", "message": "", **run_one(case, tell)})
        except Cancelled:
            raise
        except Exception as error:
            if is_fatal_for_batch(explain(error)):
                raise
            context.case_failed(case.case_id, error)
            readable = explain(error, log=str(context.log_file))
            rows.append({"case": case.case_id, "status": "failed", "message": str(readable)})
        if keep is not None:
            keep(rows)
        context.progress(phase, index + 1, len(mine), case=case.case_id)
    return rows


def _teller(context: JobContext, case: Case) -> Callable[[Finding], None]:
    """Warns of what reading a case mends, once each, however often its files are read."""
    told: set[str] = set()

    def tell(finding: Finding) -> None:
        if finding.message not in told:
            told.add(finding.message)
            context.warning(finding.message, case=case.case_id)

    return tell


def gather(rows: list[dict[str, Any]], output: Path, group: ProcessGroup) -> list[dict[str, Any]]:
    """Return the rows of all ranks, in the order of the cases, on rank 0; an empty list on the others."""
    if not group.is_distributed:
        return rows
    parts = [output / f".rows-{rank}.json" for rank in range(group.world_size)]
    write_text(parts[group.rank], to_json(rows))
    group.wait()
    if not group.is_main:
        return []
    shares = [json.loads(part.read_text(encoding="utf-8")) for part in parts]
    for part in parts:
        part.unlink()
    return [share[index] for index in range(len(shares[0])) for share in shares if index < len(share)]


def failed_ids(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the ids of the cases that failed."""
    return [row["case"] for row in rows if row["status"] == "failed"]


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as CSV, with the columns in the order in which they first occur."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> Path:
    """Write a text file whole or not at all."""
    draft = path.with_name(f".{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path


def to_json(content: Any) -> str:
    """Return content as JSON text, NaN as null."""
    return json.dumps(plain(content), indent=1, allow_nan=False) + "\n"
