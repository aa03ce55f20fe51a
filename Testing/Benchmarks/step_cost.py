"""What each module of the method costs: the training step with it over the step of the plain U-Net.

    python Testing/Benchmarks/step_cost.py [--windows 5] [--device cpu] [--processor-time]

All variants live side by side and take turns, a window of F iterations each, so that whatever else the machine does
meets them alike; within a window every position of the replay cycle occurs once. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from common import TASK, ball_cases, machine, markdown, spread
from training_window import REPLAY_EVERY, TimedTraining

from ForgettableSegLib.cases.cache import CaseCache
from ForgettableSegLib.cases.case_list import cases_from_dicts
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.inference.device import resolve_device

WARM_UP_WINDOWS = 3
PLAIN = {"tgf": False, "pbs": False, "fsb": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain U-Net": PLAIN,
    "text-guided fusion (tgf)": {"tgf": True, "pbs": False, "fsb": False},
    "scoring (pbs)": {"tgf": False, "pbs": True, "fsb": False},
    "scoring and bank (pbs, fsb)": {"tgf": False, "pbs": True, "fsb": True},
    "all three": {"tgf": True, "pbs": True, "fsb": True},
    "prototypes of reports (guidance psa)": {**PLAIN, "tgf": True, "guidance": "psa"},
    "distributions (aux_loss scdl)": {**PLAIN, "aux_loss": "scdl"},
    "distributions that score": {**PLAIN, "pbs": True, "aux_loss": "scdl", "prototypes": "scdl"},
    "memory (memory class)": {**PLAIN, "memory": "class"},
    "memory that scores": {**PLAIN, "pbs": True, "memory": "class", "prototypes": "memory"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--windows", type=int, default=5, help="windows of F iterations that are measured")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processor-time", action="store_true", help="for a machine with other work")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        listed = cases_from_dicts(ball_cases(folder / "cases", 12, size=(40, 52, 36)))
        preprocessing = plan_preprocessing(list(listed), TASK, spatial_dims=2)
        cases = CaseCache(folder / "cache").prepare(list(listed), TASK, preprocessing)
        common = {"batch_size": options.batch, "patch_size": [options.patch] * 2, "selection": "score"}
        variants = {
            name: TimedTraining(
                {**common, **modules},
                cases,
                class_names=[each.name for each in TASK.classes],
                folder=folder / str(number),
                device=resolve_device(options.device),
                timer=time.process_time if options.processor_time else time.perf_counter,
            )
            for number, (name, modules) in enumerate(VARIANTS.items())
        }
        for _ in range(WARM_UP_WINDOWS):
            for variant in variants.values():
                variant.run_window()
        times = [{name: variant.run_window() for name, variant in variants.items()} for _ in range(options.windows)]
    plain = next(iter(VARIANTS))
    rows = []
    for name in VARIANTS:
        steps = [window[name][0] for window in times]
        ratios = [window[name][0] / window[plain][0] for window in times]
        shares = [100 * window[name][1] / window[name][0] for window in times]
        rows.append([name, spread([1000 * step for step in steps], 0), spread(ratios, 2), spread(shares, 1)])
    print(f"Batch {options.batch}, patch {options.patch}x{options.patch}, F={REPLAY_EVERY}, {options.windows} windows.")
    print(machine(resolve_device(options.device)))
    print()
    print(markdown(["variant", "ms a step", "over the plain U-Net", "scoring, % of the step"], rows))


if __name__ == "__main__":
    main()
