"""How a training step fares beside another program: OpenMP's own way to wait, ours, and one thread.

    python Testing/Benchmarks/threads.py [--rounds 8] [--busy 0 1]

Each way is a process of its own, because OpenMP reads its variables once. The processes take turns, a window of F
iterations each, so that whatever else the machine does meets them alike; `--busy` programs that never rest compete with
them. Ratios are of windows of the same round. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ForgettableSegLib.threads import NUMBER, WAITING, processors

OTHERS = ("MKL_NUM_THREADS", "OMP_PROC_BIND", "OMP_DYNAMIC")


def ways() -> dict[str, dict[str, str]]:
    """Variables of each way."""
    count = {NUMBER: str(processors())}
    return {
        "OpenMP's default": count,
        "waiting without spinning (ours)": {**count, **WAITING},
        "one thread": {NUMBER: "1", **WAITING},
    }


def main() -> None:
    """Measure and print, or be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=8, help="windows of each way (default: 8)")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="competing programs (default: 0, then 1)")
    parser.add_argument("--batch", type=int, default=8, help="patches a step (default: 8)")
    parser.add_argument("--patch", type=int, default=64, help="voxels an edge (default: 64)")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(Path(options.serve), options.batch, options.patch)
        return
    from common import machine, markdown, spread

    rows = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        arguments = ["--batch", str(options.batch), "--patch", str(options.patch)]
        processes = {name: stack.enter_context(served(Path(folder), way, arguments)) for name, way in ways().items()}
        for busy in options.busy:
            with competing(busy):
                rounds = []
                for _ in range(options.rounds):
                    rounds.append({name: window(process) for name, process in processes.items()})
                    print(busy, rounds[-1], file=sys.stderr, flush=True)
            first = next(iter(processes))
            for name in processes:
                steps = [1000 * each[name] for each in rounds]
                ratios = [each[name] / each[first] for each in rounds]
                rows.append([busy, name, spread(steps, 0), spread(ratios, 2)])
    print(
        f"Batch {options.batch}, patch {options.patch}x{options.patch}, {options.rounds} windows; load before: "
        f"{os.getloadavg()[1]:.1f}; processors that may be used: {processors()}."
    )
    print(machine())
    print()
    print(markdown(["busy programs", "way", "ms a step", "over the default"], rows))


def serve(folder: Path, batch: int, patch: int) -> None:
    """Run a window of the training for each line that comes in, and answer with seconds a step."""
    from common import TASK, ball_cases
    from training_window import TimedTraining

    from ForgettableSegLib.cases.cache import CaseCache
    from ForgettableSegLib.cases.case_list import cases_from_dicts
    from ForgettableSegLib.cases.preprocessing import plan_preprocessing
    from ForgettableSegLib.inference.device import resolve_device

    listed = cases_from_dicts(ball_cases(folder / "cases", 4, size=(40, 52, 36)))
    preprocessing = plan_preprocessing(list(listed), TASK, spatial_dims=2)
    training = TimedTraining(
        {"batch_size": batch, "patch_size": [patch] * 2},
        CaseCache(folder / "cache").prepare(list(listed), TASK, preprocessing),
        class_names=[each.name for each in TASK.classes],
        folder=folder / "run",
        device=resolve_device("cpu"),
    )
    training.run_window()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(training.run_window()[0], flush=True)


@contextmanager
def served(folder: Path, way: dict[str, str], arguments: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is ready to run windows."""
    own = Path(tempfile.mkdtemp(dir=folder))
    variables = {name: value for name, value in os.environ.items() if name not in (*WAITING, NUMBER, *OTHERS)}
    command = [sys.executable, __file__, "--serve", str(own), *arguments]
    with subprocess.Popen(
        command, env=variables | way, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        try:
            yield process
        finally:
            process.stdin.close()


def window(process: subprocess.Popen[str]) -> float:
    """Seconds a step of the next window."""
    process.stdin.write("\n")
    process.stdin.flush()
    return float(process.stdout.readline())


@contextmanager
def competing(number: int) -> Iterator[None]:
    """So many programs that never rest."""
    programs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


if __name__ == "__main__":
    main()
