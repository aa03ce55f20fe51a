"""The report of an experiment, as Markdown and as one HTML file with its plots inside."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ForgettableSegLib.evaluation.report import TITLES, write_file
from ForgettableSegLib.experiments.plans import ExperimentPlan
from ForgettableSegLib.experiments.results import (
    RunResult,
    VariantSummary,
    class_names,
    comparison_csv,
    results_csv,
    summarise_runs,
)

RESULTS_FILE, COMPARISON_FILE, JSON_FILE = "results.csv", "comparison.csv", "experiment.json"
MARKDOWN_FILE, HTML_FILE = "report.md", "report.html"
_HOW_TO_READ = (
    "Each value is the mean over the held-out cases, then mean ± standard deviation over the seeds. Differences are "
    "the variant minus the baseline, paired by case after each case was averaged over the seeds: 95 % bootstrap "
    "interval over cases, and two-sided Wilcoxon signed-rank p, not corrected for the number of comparisons. The "
    "interval tells of other cases, the range over seeds of other trainings: a difference counts only if both stay on "
    "one side of 0."
)

Table = list[list[str]]


def write_experiment(
    plan: ExperimentPlan,
    runs: Sequence[RunResult],
    output: Path,
    *,
    details: Mapping[str, Any],
    plots: Mapping[str, bytes],
) -> tuple[str, list[Path]]:
    """Write results and report of what is finished of a plan.

    Args:
        plan: the plan.
        runs: the finished runs.
        output: folder, which is made if need be.
        details: "cases" {part: number}, "missing" and "failed" [run labels or sentences], "device", "seconds".
        plots: PNG files by title.

    Returns:
        The main table as text, and the files written.

    Raises:
        ForgettableSegError: OUTPUT_UNWRITABLE or DISK_FULL, naming the file.
    """
    summaries = summarise_runs(plan, runs)
    sections = _sections(plan, runs, summaries, details)
    names = {title: f"{index + 1}_{_slug(title)}.png" for index, title in enumerate(plots)}
    content = {
        "schema": 1,
        "plan": plan.name,
        "title": plan.title,
        "baseline": plan.baseline,
        "settings": dict(plan.settings),
        "variants": {variant.name: dict(variant.settings) for variant in plan.variants},
        "details": dict(details),
        "summary": [summary.to_dict() for summary in summaries],
    }
    write_file(output / RESULTS_FILE, results_csv(runs))
    write_file(output / COMPARISON_FILE, comparison_csv(summaries))
    write_file(output / JSON_FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")
    for title, image in plots.items():
        write_file(output / names[title], image)
    write_file(output / MARKDOWN_FILE, _markdown(plan, sections, names))
    write_file(output / HTML_FILE, _html(plan, sections, plots))
    files = [RESULTS_FILE, COMPARISON_FILE, JSON_FILE, *names.values(), MARKDOWN_FILE, HTML_FILE]
    return _text(plan, summaries), [output / name for name in files]


def _sections(
    plan: ExperimentPlan, runs: Sequence[RunResult], summaries: Sequence[VariantSummary], details: Mapping[str, Any]
) -> list[tuple[str, list[str], Table | None]]:
    """Title, paragraphs and table of each part."""
    batches = {run.facts.get("settings", plan.settings).get("batch_size") for run in runs} - {None}
    cases = ", ".join(f"{number} {part}" for part, number in details["cases"].items())
    intro = [
        f"Every variant was trained for {plan.settings['iterations']} iterations (updates of the weights)"
        + (f" of {', '.join(map(str, batches))} patches" if batches else "")
        + f", with the seeds {', '.join(map(str, plan.seeds))}, on the same split: {cases}. A replay adds a second "
        "batch to an iteration, so the number of iterations stays as it is.",
        f"The baseline is '{plan.baseline}'. Computed on {details['device']}.",
        _HOW_TO_READ,
        *plan.notes,
    ]
    if len(plan.seeds) == 1:
        intro.append("There is one seed only: how much another training would differ is not known.")
    for what in ("missing", "failed"):
        if details[what]:
            intro.append(f"{what.capitalize()} runs: {'; '.join(details[what])}.")
    sections: list[tuple[str, list[str], Table | None]] = [(plan.title, intro, None)]
    first, *classes = class_names(runs) or [""]
    for regime in plan.regimes:
        of_regime = [each for each in summaries if each.regime == regime.name]
        suffix = f" ({regime.name})" if len(plan.regimes) > 1 else ""
        for metric in plan.metrics:
            chosen = [each for each in of_regime if each.metric == metric and each.name == first]
            sections.append((f"{TITLES[metric]}, {_of(first)}{suffix}", [], _table(chosen, metric)))
        for name in classes:
            metric = plan.metrics[0]
            chosen = [each for each in of_regime if each.metric == metric and each.name == name]
            sections.append((f"{TITLES[metric]} of {name}{suffix}", [], _table(chosen, metric)))
    sections.append(("Runs", [], _run_table(runs)))
    sections.append(("Settings", [], _settings_table(plan)))
    return sections


def _of(name: str) -> str:
    return "mean of the classes" if name == "mean" else name


def _table(summaries: Sequence[VariantSummary], metric: str) -> Table:
    digits = 2 if metric.startswith("hd95") else 4
    header = ["variant", "seeds", "mean ± sd", "difference", "95 % interval", "range over seeds", "p", "better/worse"]
    return [header, *(_row(summary, digits) for summary in summaries)]


def _row(summary: VariantSummary, digits: int) -> list[str]:
    seeds = summary.seeds
    deviation = "" if math.isnan(seeds.std) else f" ± {seeds.std:.{digits}f}"
    value = f"{seeds.mean:.{digits}f}{deviation}" if seeds.count else "-"
    row = [summary.variant, str(seeds.count), value]
    found = summary.comparison
    if found is None or not found.count:
        return [*row, "-", "-", "-", "-", "-"]
    changes = summary.seed_differences
    return [
        *row,
        f"{found.difference:+.{digits}f}",
        "-" if math.isnan(found.low) else f"{found.low:+.{digits}f} to {found.high:+.{digits}f}",
        f"{min(changes):+.{digits}f} to {max(changes):+.{digits}f}" if len(changes) > 1 else "-",
        "-" if math.isnan(found.p_value) else f"{found.p_value:.3g}",
        f"{found.better}/{found.worse}",
    ]


def _run_table(runs: Sequence[RunResult]) -> Table:
    names = ("iterations", "best_iteration", "seconds", "replays", "training_cases", "corrupted_cases")
    rows = [[run.variant, run.regime, str(run.seed), *(str(run.facts.get(name, "")) for name in names)] for run in runs]
    return [["variant", "regime", "seed", *(name.replace("_", " ") for name in names)], *rows]


def _settings_table(plan: ExperimentPlan) -> Table:
    rows = [["all", json.dumps(dict(plan.settings))]]
    return [["variant", "settings"], *rows, *([each.name, json.dumps(dict(each.settings))] for each in plan.variants)]


def _markdown(
    plan: ExperimentPlan, sections: Sequence[tuple[str, list[str], Table | None]], plots: Mapping[str, str]
) -> str:
    parts = []
    for number, (title, paragraphs, table) in enumerate(sections):
        parts.append(f"{'#' if not number else '##'} {title}")
        parts += paragraphs
        if table:
            cells = [[cell.replace("|", "\\|") for cell in row] for row in table]
            lines = [cells[0], ["---"] * len(cells[0]), *cells[1:]]
            parts.append("\n".join("| " + " | ".join(line) + " |" for line in lines))
        if not number:
            parts += [f"![{name}]({file})" for name, file in plots.items()]
    return "\n\n".join(parts) + "\n"


def _html(
    plan: ExperimentPlan, sections: Sequence[tuple[str, list[str], Table | None]], plots: Mapping[str, bytes]
) -> str:
    style = (
        "body{font:15px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
        "td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left}img{max-width:100%}"
    )
    head = f"<meta charset='utf-8'><title>{html.escape(plan.title)}</title><style>{style}</style>"
    parts = ["<!doctype html>", f"<html lang='en'><head>{head}</head><body>"]
    for number, (title, paragraphs, table) in enumerate(sections):
        level = 2 if number else 1
        parts.append(f"<h{level}>{html.escape(title)}</h{level}>")
        parts += [f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs]
        if table:
            rows = [
                "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
                for tag, row in zip(["th", *["td"] * (len(table) - 1)], table, strict=True)
            ]
            parts.append(f"<table>{''.join(rows)}</table>")
        if not number:
            parts += [_image(name, data) for name, data in plots.items()]
    return "\n".join([*parts, "</body></html>\n"])


def _image(name: str, data: bytes) -> str:
    return f"<p><img alt='{html.escape(name)}' src='data:image/png;base64,{base64.b64encode(data).decode()}'></p>"


def _text(plan: ExperimentPlan, summaries: Sequence[VariantSummary]) -> str:
    """The first metric of the mean over the classes, for a terminal."""
    metric = plan.metrics[0]
    lines = []
    for regime in plan.regimes:
        chosen = [each for each in summaries if each.regime == regime.name and each.metric == metric]
        chosen = [each for each in chosen if each.name == chosen[0].name]
        table = _table(chosen, metric)
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        lines += [f"{TITLES[metric]}, {regime.name}"]
        lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return "\n".join(line.rstrip() for line in lines)


def _slug(title: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in title.lower())[:60]
