"""The job `experiment`: every ready plan in miniature, what is done is kept, parts, regimes and failures."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock
from job_inputs import kinds, make_cases, run
from synthetic import TASK

from ForgettableSegLib.cases.label_files import read_label_map
from ForgettableSegLib.cli import main
from ForgettableSegLib.experiments.plans import ExperimentPlan, Regime, Variant, load_plan, ready_plans
from ForgettableSegLib.jobs.experiment import _rank_as_shard, _share
from ForgettableSegLib.jobs.job import JobContext
from ForgettableSegLib.jobs.requests import make_request
from ForgettableSegLib.worker.runner import run_job

TINY: dict[str, Any] = {
    "features": [4, 8, 8],
    "num_heads": 2,
    "batch_size": 4,
    "patch_size": [16, 16],
    "text": "random",
    "replay_every": 1,
    "prototype_min_count": 0,
}
# Two variants of each plan in which what the plan is about takes part, the baseline among them.
CHOSEN = {
    "table1": ("U-Net", "UNETR", "U-Net, boundary loss"),
    "table2": ("U-Net", "nnU-Net's network", "U-Net, boundary DoU loss"),
    "presets": ("U-Net", "paper"),
    "noisy_labels": ("U-Net", "recommended, admission by forgetting"),
    "text_controls": ("no text", "one-hot"),
    "prolearn": ("no guidance", "prototypes"),
    "simmpnet": ("U-Net", "recommended, memory as prototypes"),
    "scdl": ("U-Net", "distributions and average teacher"),
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """Nine cases, and one output folder for all plans, so that they share their runs."""
    folder = tmp_path_factory.mktemp("study")
    return make_cases(folder / "cases", 9, shape=(4, 16, 16)), folder / "output"


def experiment(
    study: tuple[list[dict[str, Any]], Path], plan: str, output: Path | None = None, **arguments: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """Run a plan in miniature."""
    settings = {**TINY, **arguments.pop("settings", {})}
    given = {"iterations": 2, "seeds": [0], "device": "cpu", **arguments}
    return run(
        "experiment", plan=plan, cases=study[0], task=TASK.to_dict(), output=str(output or study[1]), settings=settings,
        **given,
    )  # fmt: skip


def rows_of(folder: Path) -> list[dict[str, str]]:
    """The rows of a results file."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("name", sorted(ready_plans()))
def test_every_ready_plan_runs(study: tuple[list[dict[str, Any]], Path], name: str) -> None:
    plan = load_plan(name)
    others = [variant.name for variant in plan.variants if variant.name != plan.baseline]
    variants = CHOSEN.get(name, (plan.baseline, others[0]))
    result, events = experiment(study, name, variants=list(variants))
    assert result.exit_code == 0, events[-1]
    assert (result.result["missing"], result.result["failed"]) == ([], {})
    rows = rows_of(study[1] / name)
    assert {row["variant"] for row in rows} == set(variants)
    assert {row["regime"] for row in rows} == {regime.name for regime in plan.regimes}
    assert len(rows) == len(variants) * len(plan.regimes) * 2 * len({row["case"] for row in rows})
    report = (study[1] / name / "report.md").read_text(encoding="utf-8")
    assert all(text in report for text in (plan.title, *plan.notes, "2 iterations", "4 patches", "one seed only"))
    content = json.loads((study[1] / name / "experiment.json").read_text())
    assert content["baseline"] == plan.baseline
    last = [event for event in events if event["event"] == "progress"][-1]
    assert last["step"] == last["of"] == result.result["done"]


def test_what_is_done_is_not_done_again_and_what_was_cut_off_goes_on(
    study: tuple[list[dict[str, Any]], Path], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = {
        "plan": "mini", "cases": study[0], "task": TASK.to_dict(), "output": str(output), "device": "cpu",
        "iterations": 6, "settings": {**TINY, "checkpoint_every": 2},
    }  # fmt: skip

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["step"] > 1.4:
            context.cancel()

    context = JobContext(id="1", job="experiment", sink=stop)
    assert run_job(make_request("experiment", arguments), context).exit_code == 130
    done = list(output.glob("runs/*/result.json"))
    assert len(done) == 1
    assert len(list(output.glob("runs/*/checkpoint"))) == 1, "the finished run needs no checkpoint any more"
    before = done[0].stat().st_mtime_ns
    result, _ = run("experiment", **arguments)
    assert result.exit_code == 0
    assert result.result["done"] == 2
    assert done[0].stat().st_mtime_ns == before
    log = next(path for path in output.glob("runs/*/log.jsonl") if path.parent != done[0].parent).read_text()
    assert "Resumed at iteration" in log
    # A finished plan is only reported again.
    result, events = run("experiment", **arguments)
    assert result.exit_code == 0
    assert "case" not in str([event for event in events if event["event"] == "progress"])


def test_a_run_that_another_process_is_at_is_left_to_it(
    study: tuple[list[dict[str, Any]], Path], tmp_path: Path
) -> None:
    experiment(study, "mini", tmp_path, variants=["U-Net"])
    (folder,) = (path.parent for path in tmp_path.glob("runs/*/result.json"))
    (folder / "result.json").unlink()  # trained, but not judged yet
    before = {path.name for path in folder.iterdir()}
    with FileLock(folder.with_suffix(".lock")):
        result, _ = experiment(study, "mini", tmp_path)
    assert {path.name for path in folder.iterdir()} == before
    assert (result.result["done"], len(result.result["missing"])) == (1, 1)


def test_parts_cover_the_plan_exactly_once(study: tuple[list[dict[str, Any]], Path], tmp_path: Path) -> None:
    plan = ExperimentPlan(
        name="p", title="", settings={}, baseline="a", seeds=(0, 1, 2), regimes=(Regime(), Regime(name="few")),
        variants=tuple(Variant(name=name) for name in "abcd"),
    )  # fmt: skip
    for parts in (1, 2, 5, 30):
        done = [str(run) for part in range(parts) for run in _share(f"{part + 1}/{parts}", plan.runs())]
        assert sorted(done) == sorted(map(str, plan.runs()))
    result, _ = experiment(study, "mini", tmp_path, shard="2/2")
    assert result.result["done"] == 1
    assert len(result.result["missing"]) == 1
    assert "Missing runs: U-Net" in (tmp_path / "mini" / "report.md").read_text(encoding="utf-8")
    result, _ = experiment(study, "mini", tmp_path, shard="1/2")
    assert (result.result["done"], result.result["missing"]) == (2, [])


def test_held_out_labels_are_whole_and_training_labels_are_not(study: tuple[list[dict[str, Any]], Path]) -> None:
    experiment(study, "noisy_labels", variants=["U-Net"])
    facts = [json.loads(path.read_text())["facts"] for path in study[1].glob("runs/*/result.json")]
    noisy = next(each for each in facts if each["corrupted_cases"])
    assert noisy["training_cases"] == 6
    assert len(noisy["corruptions"]) == 1
    held_out = {row["case"] for row in rows_of(study[1] / "noisy_labels")}
    originals = {case["id"]: case["label"] for case in study[0]}
    for path in (study[1] / "corrupted_labels").iterdir():
        case, how, _ = path.name.removesuffix(".nii.gz").split("_")
        assert case not in held_out
        assert how in noisy["corruptions"].values()
        (wrong, geometry), (right, own) = read_label_map(path), read_label_map(Path(originals[case]))
        assert geometry.is_same_grid(own)
        assert not np.array_equal(wrong, right)


def test_a_run_that_fails_is_told_of_and_the_others_go_on(
    study: tuple[list[dict[str, Any]], Path], tmp_path: Path
) -> None:
    lost = {"text": "file", "text_path": str(tmp_path / "lost.npz")}
    variants = [{"name": "wordless", "settings": lost}, {"name": "good"}]
    settings = {"iterations": 4}
    plan = {
        "name": "mine",
        "title": "Mine",
        "settings": settings,
        "seeds": [0],
        "baseline": "good",
        "variants": variants,
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**plan, "variants": variants}))
    result, events = experiment(study, str(path), tmp_path / "out")
    assert result.exit_code == 1
    assert list(result.result["failed"]) == ["wordless, all cases, seed 0"]
    assert "lost.npz" in result.result["failed"]["wordless, all cases, seed 0"]
    assert result.result["done"] == 1
    assert "warning" in kinds(events)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"plan": "tabel3"}, "no experiment 'tabel3'"),
        ({"plan": "mini", "settings": {"rho": 2}}, "'rho'"),
        ({"plan": "mini", "variants": ["nobody"]}, "no variant 'nobody'"),
    ],
)
def test_a_wrong_plan_costs_no_training(
    study: tuple[list[dict[str, Any]], Path], tmp_path: Path, arguments: dict[str, Any], named: str
) -> None:
    result, events = experiment(study, output=tmp_path / "out", **arguments)
    assert result.exit_code == 2
    assert named in events[-1]["text"]
    assert not (tmp_path / "out" / "runs").exists()


def test_too_few_cases_are_refused(study: tuple[list[dict[str, Any]], Path], tmp_path: Path) -> None:
    result, events = experiment((study[0][:2], tmp_path), "mini")
    assert result.exit_code == 2
    assert "too few" in events[-1]["text"]


def test_the_command_line_asks_for_the_same(
    study: tuple[list[dict[str, Any]], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment(study, "mini")
    before = {path: path.stat().st_mtime_ns for path in study[1].glob("runs/*/result.json")}
    table, task = tmp_path / "cases.csv", tmp_path / "task.json"
    lines = [",".join([case["id"], case["images"][0], case["label"]]) for case in study[0]]
    table.write_text("\n".join(["id,image,label", *lines]))
    task.write_text(json.dumps(TASK.to_dict()))
    settings = [part for name, value in TINY.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    places = ["--cases", str(table), "--task", str(task), "--output", str(study[1]), "--device", "cpu"]
    arguments = ["experiment", "mini", *places, "--seeds", "0", "--iterations", "2", "--shard", "1/1", *settings]
    assert main(arguments) == 0
    assert "recommended" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in study[1].glob("runs/*/result.json")} == before


def test_under_torchrun_each_rank_takes_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _rank_as_shard() == "1/1"
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert _rank_as_shard() == "3/4"


def test_the_documentation_names_every_ready_plan() -> None:
    text = (Path(__file__).parents[2] / "Documentation" / "experiments.md").read_text(encoding="utf-8")
    named = {name for row in text.splitlines() if row.startswith("| `") for name in row.split("|")[1].split("`")[1::2]}
    assert named == set(ready_plans())
