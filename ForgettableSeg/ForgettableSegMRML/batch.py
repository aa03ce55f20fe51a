"""The batch script's work: fine-tune if asked, segment all cases in the worker, and write what Slicer opens."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.jobs.exit_codes import EXIT_BAD_REQUEST, EXIT_CANCELLED, EXIT_DONE, EXIT_SOME_CASES_FAILED
from ForgettableSegLib.worker.client import Event, SubprocessTransport, WorkerClient, worker_command

from .batch_results import CaseResults

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """What the batch script is asked for.

    Args:
        input: image, folder of images, DICOM folder or case list.
        model: name of an installed model, or path of a package.
        output: folder that receives one subfolder a case, and the summary.
        heatmap: also write the maps of difficulty.
        reference: folder of reference label maps with the images' names, or None.
        device: auto, cpu, mps, cuda or cuda:<number>.
        finetune: labelled cases to fine-tune the model on first, or None.
        minutes: how long to fine-tune, or None for the library's own choice.
        anyway: also segment volumes that are far larger than those that the model has learnt.
    """

    input: Path
    model: str
    output: Path
    heatmap: bool = False
    reference: Path | None = None
    device: str = "auto"
    finetune: str | None = None
    minutes: float | None = None
    anyway: bool = False


class Stopped(Exception):
    """A job ended without its result; the exit code says how."""

    def __init__(self, exitCode: int) -> None:
        super().__init__(f"exit code {exitCode}")
        self.exitCode = exitCode


def parseArguments(arguments: Sequence[str]) -> BatchOptions:
    """Read the command line.

    Raises:
        SystemExit: with code 2 and a sentence on the error stream if it is wrong; with 0 for `--help`.
    """
    parser = argparse.ArgumentParser(
        prog="ForgettableSegBatch.py",
        description="Segment cases and write named, coloured and coded segmentations for 3D Slicer.",
        epilog="Exit codes: 0 done, 1 some cases failed, 2 bad request, 130 cancelled.",
    )
    parser.add_argument("--input", type=Path, required=True, help="image, folder of images, DICOM folder or case list")
    parser.add_argument("--model", required=True, help="name of an installed model, or path of a model package")
    parser.add_argument("--output", type=Path, required=True, help="folder that receives one subfolder a case")
    parser.add_argument("--heatmap", action="store_true", help="also write the maps of difficulty")
    parser.add_argument("--reference", type=Path, help="folder of reference label maps with the names of the images")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<number> (default: auto)")
    parser.add_argument("--finetune", metavar="CASES", help="labelled cases to fine-tune the model on first")
    parser.add_argument("--minutes", type=float, help="how long to fine-tune")
    parser.add_argument("--anyway", action="store_true", help="segment a volume as it is, however large it is")
    given = list(arguments)
    if given[:1] == ["--"]:  # Slicer takes it away, plain Python does not
        given = given[1:]
    options = parser.parse_args(given)
    if options.minutes is not None and options.finetune is None:
        parser.error("--minutes is of use only with --finetune.")
    return BatchOptions(**vars(options))


def main(arguments: Sequence[str]) -> int:
    """Run the batch script; return its exit code."""
    options = parseArguments(arguments)
    return Batch(options).run()


def workerPython() -> str:
    """Return the Python for the worker: the one that runs this, or Slicer's where Slicer itself runs this."""
    if Path(sys.executable).stem.lower().startswith("python"):
        return sys.executable
    return shutil.which("PythonSlicer") or sys.executable


class Batch:
    """One run of the batch script.

    Args:
        options: what to do.
        say: hears one line at a time what goes on; the console by default.
        complain: hears what went wrong; the console's error stream by default.
    """

    def __init__(self, options: BatchOptions, *, say: Say | None = None, complain: Say | None = None) -> None:
        self._options = options
        self._say = say or (lambda text: print(text, flush=True))
        self._complain = complain or (lambda text: print(text, file=sys.stderr, flush=True))
        self._transport = SubprocessTransport(worker_command(workerPython()))
        self._client = WorkerClient(self._transport)
        self._timesStopped = 0
        self._shownProgress = ""

    def run(self) -> int:
        """Do everything; return the exit code."""
        with self._signalsStop():
            try:
                return self._work()
            except Stopped as stopped:
                return stopped.exitCode
            except ForgettableSegError as error:
                self._complain(f"Error: {error}")
                return EXIT_BAD_REQUEST
            finally:
                self._client.shutdown()

    def _work(self) -> int:
        options = self._options
        model = options.model if options.finetune is None else self._finetune(options.finetune)
        card = self._result("models", {"action": "show", "name": model})["model"]["card"]
        task = Task.from_dict(card["task"])
        self._say(f"Model {card['name']}: {', '.join(each.name for each in task.classes)}")
        results = CaseResults(options.output, task, say=self._say, complain=self._complain)
        try:
            self._segment(model, results)
            if options.reference is not None and results.segmented:
                self._compare(model, task, options.reference, results)
        finally:
            failed = results.finish()
        done = f"{len(results.segmented)} of {len(results.segmented) + len(failed)} cases segmented"
        self._say(f"{done}; results are in {options.output}.")
        if failed:
            self._complain(f"Failed: {', '.join(failed)}.")
        return EXIT_SOME_CASES_FAILED if failed else EXIT_DONE

    def _segment(self, model: str, results: CaseResults) -> None:
        arguments = {
            "model": model,
            "input": str(self._options.input),
            "output": str(self._options.output),
            "device": self._options.device,
            "heatmap": self._options.heatmap,
            "anyway": self._options.anyway,
        }
        self._run("segment", arguments, results.onSegmentEvent)

    def _compare(self, model: str, task: Task, reference: Path, results: CaseResults) -> None:
        """Dice against the references, and with heatmaps also T1 to T4 of the references."""
        arguments = {
            "predictions": str(self._options.output),
            "references": str(reference),
            "task": task.to_dict(),
            "output": str(self._options.output),
        }
        dice = self._result("evaluate", arguments, results.onComparisonEvent, only=results.segmented)["dice"]
        results.evaluation = self._options.output / "evaluation.json"
        for name, value in dice.items():
            self._say(f"Dice of {name}: {'not defined' if value is None else f'{value:.3f}'}")
        if self._options.heatmap:
            arguments = {
                "model": model,
                "cases": f"{self._options.input},{reference}",
                "output": str(results.auditFolder),
                "device": self._options.device,
            }
            self._run("audit", arguments, results.onAuditEvent, only=results.compared())

    def _finetune(self, cases: str) -> str:
        """Fine-tune; return the path of the new model."""
        options = self._options
        settings: dict[str, Any] = {"device": options.device}
        if options.minutes is not None:
            settings["minutes"] = options.minutes
        arguments = {
            "model": options.model,
            "cases": cases,
            "run": str(options.output / "finetune"),
            "settings": settings,
            "name": f"{Path(options.model).stem}-finetuned",
        }
        done = self._run("finetune", arguments)
        self._say(done["text"])
        return done["result"]["model"]

    def _result(self, job: str, arguments: dict[str, Any], *more: Any, **options: Any) -> dict[str, Any]:
        return self._run(job, arguments, *more, **options)["result"]

    def _run(
        self,
        job: str,
        arguments: dict[str, Any],
        listen: Callable[[Event], None] | None = None,
        *,
        only: Sequence[str] | None = None,
    ) -> Event:
        """Run one job to its end; return its `done`.

        Args:
            job: kind of job.
            arguments: of the job.
            listen: hears the job's events.
            only: cases of interest; what the job says of others is not heard (a folder of references may hold more).

        Raises:
            Stopped: if it failed or was cancelled.
        """
        final: Event = {}

        def hear(event: Event) -> None:
            final.update(event)
            if only is None or event.get("case") is None or event["case"] in only:
                self._report(event)
                if listen is not None:
                    listen(event)

        if self._timesStopped:
            raise Stopped(EXIT_CANCELLED)
        self._client.submit(job, arguments, hear)
        asked = 0
        while self._client.is_busy():
            self._transport.pump(0.1)
            self._client.tick()
            if self._timesStopped > asked:
                asked = self._timesStopped
                self._client.cancel(now=asked > 1)
        if final["event"] == "cancelled":
            self._complain("Cancelled.")
            raise Stopped(EXIT_CANCELLED)
        if final["event"] == "failed":
            self._complain(f"Error: {final['text']} {final['hint']}".rstrip())
            raise Stopped(EXIT_BAD_REQUEST)
        return final

    def _report(self, event: Event) -> None:
        case = f"{event['case']}: " if event.get("case") else ""
        if event["event"] == "progress":
            shown = f"{event['phase']} {int(100 * event['step'] / max(event['of'], 1)) // 10 * 10} %"
            if shown != self._shownProgress:
                self._shownProgress = shown
                self._say(shown)
        elif event["event"] == "log":
            self._say(event["text"])
        elif event["event"] == "warning":
            self._complain(f"Warning: {case}{event['text']}")
        elif event["event"] == "case_failed":
            self._complain(f"Case {event['case']} failed: {event['text']}")

    @contextmanager
    def _signalsStop(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM cancel the job, and a second one end it at once."""

        def stop(number: int, frame: object) -> None:
            self._timesStopped += 1

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if handler is not None else signal.SIG_DFL)
