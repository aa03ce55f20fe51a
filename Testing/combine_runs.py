"""Makes one model of several finished runs: their networks are averaged, calibrated and judged together.

    python Testing/combine_runs.py RUN RUN ... --output DIR

The runs have the same cases, split, task and network, and differ in seed or augmentation. DIR/model is the model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ForgettableSegLib.inference.device import resolve_device
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.training import finish
from ForgettableSegLib.resources import user_cache_dir
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.ensemble import combine_runs
from ForgettableSegLib.worker.console import console


def main() -> None:
    """Combine and judge."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    context = JobContext(sink=console())
    outcome = combine_runs(options.runs, options.output, cache=user_cache_dir() / "cases")
    print(finish(outcome, resolve_device(options.device), ProcessGroup(), context).text)


if __name__ == "__main__":
    main()
