"""The runs of an experiment: each in a folder named after all that decides it, so that plans share what they share."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.outputs import to_json, write_text
from ForgettableSegLib.jobs.training import judge

if TYPE_CHECKING:
    import torch

    from ForgettableSegLib.cases.case import Case, CaseList
    from ForgettableSegLib.cases.split import Split
    from ForgettableSegLib.cases.task import Task
    from ForgettableSegLib.experiments.plans import PlannedRun
    from ForgettableSegLib.experiments.results import RunResult
    from ForgettableSegLib.training.run import TrainingOutcome
    from ForgettableSegLib.training.settings import TrainingSettings

RESULT_FILE = "result.json"
# What a run computes does not depend on these.
_NOT_DECISIVE = ("device", "checkpoint_every")
# The last part of a run's progress is its evaluation.
_TRAINING_SHARE = 0.95


@dataclass(frozen=True)
class RunFolder:
    """Folder of one run."""

    path: Path

    @property
    def is_done(self) -> bool:
        """Whether the run has its result."""
        return (self.path / RESULT_FILE).is_file()

    def result(self, planned: PlannedRun) -> RunResult:
        """The result, as that of this run of a plan."""
        from ForgettableSegLib.evaluation.metrics import ClassResult
        from ForgettableSegLib.experiments.results import RunResult

        content = json.loads((self.path / RESULT_FILE).read_text(encoding="utf-8"))
        results = tuple(ClassResult.from_dict(row) for row in content["held_out"])
        return RunResult(
            regime=planned.regime.name,
            variant=planned.variant.name,
            seed=planned.seed,
            results=results,
            facts=content["facts"],
        )

    def curves(self) -> dict[str, Any]:
        """Loss (smoothed) and validation Dice over the iterations."""
        from ForgettableSegLib.experiments.plots import smooth

        rows = self.history()
        validated = [row for row in rows if row["validation_dice"]]
        curves: dict[str, Any] = {"main_loss": smooth([float(row["main_loss"]) for row in rows])} if rows else {}
        if validated:
            steps, values = ([float(row[name]) for row in validated] for name in ("iteration", "validation_dice"))
            curves["validation_dice"] = (steps, values)
        return curves

    def history(self) -> list[dict[str, str]]:
        """The rows of history.csv."""
        path = self.path / "history.csv"
        if not path.is_file():
            return []
        with path.open(newline="", encoding="utf-8") as stream:
            return list(csv.DictReader(stream))


@dataclass(frozen=True, kw_only=True)
class Study:
    """What all runs of an experiment share.

    Args:
        output: folder of the runs and corrupted labels.
        cases: all cases.
        task: of the cases.
        split: of the labelled cases; its test part judges every run.
        settings: of each run.
        device: where to compute.
    """

    output: Path
    cases: CaseList
    task: Task
    split: Split
    settings: Mapping[PlannedRun, TrainingSettings]
    device: torch.device

    def folder_of(self, planned: PlannedRun) -> RunFolder:
        """The folder of a run: another setting, case or split gives another one."""
        settings = {k: v for k, v in self.settings[planned].to_dict().items() if k not in _NOT_DECISIVE}
        files = [[case.case_id, *_sizes(case.files)] for case in self.cases]
        regime = [planned.regime.training_cases, planned.regime.corrupted_labels]
        if planned.regime.labelled < 1:
            regime.append(planned.regime.labelled)
        if planned.regime.texts is not None:
            regime.append({"texts": planned.regime.texts})
        decisive = [settings, regime, self.split.to_dict(), files, self.task.to_dict()]
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
        runs = self.output / "runs"
        # Another plan may have made the same run under another name.
        made = [path for path in sorted(runs.glob(f"*{digest}")) if path.is_dir()]
        return RunFolder(made[0] if made else runs / f"{_slug(planned.variant.name)}-seed{planned.seed}-{digest}")

    def execute(self, planned: PlannedRun, folder: RunFolder, context: JobContext, *, index: int, of: int) -> None:
        """Train, judge and keep the result.

        Args:
            planned: the run.
            folder: of the run.
            context: of the job.
            index, of: number of the run, and how many there are.

        Raises:
            ForgettableSegError: the run could not be finished; RUN_LOCKED while another process is at it.
            Cancelled: it can be taken up again.
        """
        folder.path.parent.mkdir(parents=True, exist_ok=True)
        # From the start of the training to the result: a run that is trained but not judged yet is nobody else's.
        lock = FileLock(folder.path.with_suffix(".lock"), timeout=0)
        try:
            with lock:
                if not folder.is_done:
                    self._execute(planned, folder, context, index=index, of=of)
        except Timeout as error:
            message = f"Another process is at the run of {planned.label}."
            raise ForgettableSegError(ErrorCode.RUN_LOCKED, message) from error

    def _execute(self, planned: PlannedRun, folder: RunFolder, context: JobContext, *, index: int, of: int) -> None:
        from ForgettableSegLib.experiments.regimes import limited_split, to_corrupt, without_labels
        from ForgettableSegLib.experiments.tags import tags_of_cases
        from ForgettableSegLib.inference.predictor import Predictor
        from ForgettableSegLib.training.export import model_package

        split = limited_split(self.split, planned.regime.training_cases, seed=planned.seed)
        split, unlabelled = without_labels(split, planned.regime.labelled, seed=planned.seed)
        corrupt = to_corrupt(self._select(split.train), planned.regime.corrupted_labels, seed=planned.seed)
        labels = {case.case_id: self._corrupted(case, how, planned.seed) for case, how in corrupt}
        cases = self._with_labels({**labels, **dict.fromkeys(unlabelled)})
        if planned.regime.texts is not None:
            tags = tags_of_cases(self._select(split.train), planned.regime.texts, self.task, seed=planned.seed)
            told = (replace(case, text=tags.get(case.case_id, "")) for case in cases)
            cases = replace(cases, cases=tuple(told))
        listener = RunListener(context, planned.label, index=index, of=of)
        outcome = self._train(planned, folder, cases, split, listener)
        package = model_package(outcome, device=self.device, calibration={})
        # As the run has them: label maps alone were given images there.
        held_out = outcome.config.select(self.split.test)
        results = judge(Predictor(package, self.device), self.task, held_out, "evaluate", listener, tell_failures=True)
        if not results:
            message = "None of the held-out cases could be evaluated."
            raise ForgettableSegError(ErrorCode.CASE_INVALID, message)
        package.write(folder.path / "model", replace=True)
        history = folder.history()
        facts = {
            "label": planned.label,
            "settings": self.settings[planned].to_dict(),
            "iterations": outcome.iterations,
            "best_iteration": outcome.best_iteration,
            "validation_dice": outcome.validation_dice,
            "seconds": round(outcome.seconds, 1),
            "replays": int(history[-1]["replays"] or 0) if history else 0,
            "training_cases": len(split.train),
            "corrupted_cases": len(corrupt),
            "unlabelled_cases": len(unlabelled),
            "corruptions": {case.case_id: how for case, how in corrupt},
            "device": package.card["provenance"]["device"],
            "software": package.card["provenance"]["software"],
        }
        content = {"schema": 1, "facts": facts, "held_out": [result.to_dict() for result in results]}
        write_text(folder.path / RESULT_FILE, to_json(content))
        # A plan makes many runs, and a finished one is not taken up again.
        shutil.rmtree(folder.path / "checkpoint", ignore_errors=True)

    def _train(
        self, planned: PlannedRun, folder: RunFolder, cases: CaseList, split: Split, listener: RunListener
    ) -> TrainingOutcome:
        """Go on with a run that was cut off, or start it."""
        from ForgettableSegLib.training.run import resume_training, run_training

        if (folder.path / "config.json").is_file():
            try:
                return resume_training(folder=folder.path, device=self.device, listener=listener)
            except ForgettableSegError as error:
                if error.code not in (ErrorCode.CHECKPOINT_INVALID, ErrorCode.RUN_MISMATCH):
                    raise
                listener.log(f"The run of {planned.label} starts again: {error.message}")
                shutil.rmtree(folder.path)
        return run_training(
            cases=cases,
            task=self.task,
            folder=folder.path,
            name=folder.path.name,
            settings=self.settings[planned],
            device=self.device,
            listener=listener,
            split=split,
        )

    def _select(self, ids: Iterable[str]) -> list[Case]:
        by_id = {case.case_id: case for case in self.cases}
        return [by_id[case_id] for case_id in ids]

    def _with_labels(self, labels: Mapping[str, Path | None]) -> CaseList:
        """The cases, some of them with another label or none."""
        cases = (replace(case, label=labels.get(case.case_id, case.label)) for case in self.cases)
        return replace(self.cases, cases=tuple(cases))

    def _corrupted(self, case: Case, how: str, seed: int) -> Path:
        """The corrupted label of a case, written once."""
        from ForgettableSegLib.cases.files import write_volume
        from ForgettableSegLib.cases.label_files import label_path, read_label_map
        from ForgettableSegLib.experiments.regimes import corrupted

        path = self.output / "corrupted_labels" / f"{case.case_id}_{how}_{seed}.nii.gz"
        if not path.is_file():
            label, geometry = read_label_map(label_path(case))
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, corrupted(label, how, seed=zlib.crc32(f"{seed}:{case.case_id}".encode())), geometry)
        return path


class RunListener(JobContext):
    """What a run of an experiment, or of a cross-validation, tells as part of that job.

    Args:
        context: of the whole.
        label: of the run.
        index, of: number of the run, and how many there are.
        phase: word for all of them.
    """

    def __init__(self, context: JobContext, label: str, *, index: int, of: int, phase: str = "run experiments") -> None:
        super().__init__(id=context.id, job=context.job)
        self._context = context
        self._label = label
        self._index = index
        self._of = of
        self._phase = phase

    def progress(self, phase: str, step: float, of: float, *, case: str | None = None) -> None:
        """How far the experiment is."""
        if phase not in ("train", "evaluate", "evaluate the model") or not of:
            return
        first, last = (0, _TRAINING_SHARE) if phase == "train" else (_TRAINING_SHARE, 1)
        share = first + (last - first) * step / of
        at = f"{self._label}, {phase} {step:g} of {of:g}"
        self._context.progress(self._phase, round(self._index + share, 3), self._of, case=at)

    def warning(self, text: str, *, case: str | None = None) -> None:
        """Pass it on, with the run that it is about."""
        self._context.warning(f"{self._label}: {text}" if case is None else f"{self._label}, case {case}: {text}")

    def log(self, text: str) -> None:
        """Keep it in the log file: many runs say much."""
        self._context.write_log(f"{self._label}: {text}")

    def case_failed(self, case: str, error: BaseException) -> None:
        """Warn: the run goes on without the case."""
        self.warning(str(error), case=case)

    def check_cancelled(self) -> None:
        """Stop where the experiment is to stop."""
        self._context.check_cancelled()

    @property
    def is_cancelled(self) -> bool:
        """Whether the experiment is to stop."""
        return self._context.is_cancelled


def _slug(name: str) -> str:
    """The beginning of a name as every file system and a model's name take it."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)[:24].strip("_") or "variant"


def _sizes(files: Iterable[Path]) -> list[list[Any]]:
    """Name and bytes of each file; wherever they lie, it is the same run."""
    return [[path.name, path.stat().st_size if path.is_file() else None] for path in files]
