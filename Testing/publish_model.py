"""Puts a trained model into Resources/Models with the words that its run cannot know.

    python Testing/publish_model.py RUN/model Testing/Benchmarks/hippocampus.card.json --cases DATASET

The card file holds title, description, licence and attribution. The README of the package is written from the card and
the measures of the run. The data set names the cases whose ids must occur nowhere in what is published.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.resources import resources_dir

METRICS = (("dice", "Dice"), ("sensitivity", "sensitivity"), ("hd95_mm", "HD95 (mm)"))


def readme(card: Mapping[str, Any]) -> str:
    """The model card as a page for people."""
    held_out = card["metrics"]["held_out"]
    names = [each["name"] for each in card["task"]["classes"]]
    lines = [f"# {card['title']}", "", card["description"], ""]
    lines += [f"Measured on {held_out['count']} held-out cases (mean ± standard deviation over cases):", ""]
    lines += ["| class | " + " | ".join(title for _, title in METRICS) + " |", "|---" * (len(METRICS) + 1) + "|"]
    for name in names:
        cells = [f"{held_out[key][name]:.3f} ± {held_out[f'{key}_std'][name]:.3f}" for key, _ in METRICS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    text = card["text"]
    lines += ["", f"Mean Dice of the classes: {held_out['dice']['mean']:.3f}.", ""]
    lines += [
        f"Text embeddings: {text['encoder']}; prompts: " + "; ".join(f"“{each}”" for each in text["prompts"]) + "."
    ]
    lines += ["", f"Licence: {card['licence']}", "", f"Data: {card['attribution']}", ""]
    return "\n".join(lines)


def main() -> None:
    """Write the package."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, help="package of a finished run")
    parser.add_argument("card", type=Path, help="JSON with title, description, licence and attribution")
    parser.add_argument("--cases", type=Path, required=True, help="the data set that it was trained on")
    options = parser.parse_args()
    package = ModelPackage.read(options.model)
    card = {**package.card, **json.loads(options.card.read_text(encoding="utf-8"))}
    published = ModelPackage(card, package.tensors, {"README.md": readme(card)})
    ids = [case.case_id for case in read_case_list(options.cases)]
    path = published.write(resources_dir() / "Models" / package.name, replace=True, private=ids)
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{path.name}: {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
