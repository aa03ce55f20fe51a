"""Plans of experiments: variants of a training, times regimes of data, times seeds, held against one baseline.

A plan is a JSON file; the ready ones lie in Resources/Experiments. Its fields:

- ``name``, ``title``: the name is that of a folder of results.
- ``extends``: name of a ready plan whose other fields this one takes over where it does not name them.
- ``settings``: training settings of all variants. ``iterations`` must be among them: every variant gets as many.
- ``variants``: ``[{"name", "settings"}]``, what differs from the plan's settings.
- ``baseline``: name of the variant that the others are compared with.
- ``seeds``: whole numbers; every variant is trained with each.
- ``regimes``: ``[{"name", "training_cases", "corrupted_labels", "labelled", "texts"}]``: train on so many of the
  training cases (null: all), with the labels of that share of them corrupted, with a label for that share of them alone
  (see `regimes`), and with tags for that share of them (see `tags`). Left out, it is all cases as they are.
- ``metrics``: what the report tells, the first first.
- ``notes``: sentences for the report, such as what is missing and why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.resources import resources_dir

METRICS = ("dice", "sensitivity", "hd95_mm", "hd95_voxels", "nsd")
# One budget and one set of held-out cases for all variants, else they could not be compared.
SHARED_SETTINGS = ("iterations", "epochs", "minutes", "batch_size", "seed", "split_ratios", "device", "validate_every")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NEEDED = ("name", "title", "settings", "variants", "baseline", "seeds")
_REGIME = {"name", "training_cases", "corrupted_labels", "labelled", "texts"}
_FIELDS = ("name", "title", "extends", "settings", "variants", "baseline", "seeds", "regimes", "metrics", "notes")


@dataclass(frozen=True, kw_only=True)
class Regime:
    """How much and how good data a variant is trained on.

    Args:
        name: of the regime.
        training_cases: of the training part; None for all.
        corrupted_labels: share of the training cases whose label is corrupted, in [0, 1].
        labelled: share of the training cases that keep their label, in (0, 1]; the others stay without.
        texts: share of the training cases that get tags made of their label, in [0, 1], and no other case has any text;
            None leaves the texts of the cases as they are.
    """

    name: str = "all cases"
    training_cases: int | None = None
    corrupted_labels: float = 0.0
    labelled: float = 1.0
    texts: float | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to train: its name, and the settings in which it differs from the plan's."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One training of a plan."""

    regime: Regime
    variant: Variant
    seed: int

    @property
    def label(self) -> str:
        """Words for people."""
        return f"{self.variant.name}, {self.regime.name}, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class ExperimentPlan:
    """A checked plan; the fields are those of the module's description."""

    name: str
    title: str
    settings: Mapping[str, Any]
    variants: tuple[Variant, ...]
    baseline: str
    seeds: tuple[int, ...]
    regimes: tuple[Regime, ...] = (Regime(),)
    metrics: tuple[str, ...] = ("dice", "hd95_mm", "sensitivity")
    notes: tuple[str, ...] = ()

    def runs(self) -> list[PlannedRun]:
        """All trainings; seed by seed, so that an unfinished plan has all variants alike."""
        return [
            PlannedRun(regime=regime, variant=variant, seed=seed)
            for seed in self.seeds
            for regime in self.regimes
            for variant in self.variants
        ]

    def settings_of(self, run: PlannedRun) -> dict[str, Any]:
        """The training settings of a run."""
        return {**self.settings, **run.variant.settings, "seed": run.seed}

    def changed(
        self,
        *,
        seeds: Sequence[int] | None = None,
        iterations: int | None = None,
        variants: Sequence[str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> ExperimentPlan:
        """The plan with other seeds, another budget, some of the variants, or other settings of all variants.

        Raises:
            ForgettableSegError: REQUEST_INVALID for a variant that the plan does not have.
        """
        kept = self.variants
        if variants is not None:
            names = [variant.name for variant in self.variants]
            for name in variants:
                if name not in names:
                    _refuse(self.name, f"has no variant '{name}'", f"Its variants are: {', '.join(names)}.")
            kept = tuple(each for each in self.variants if each.name in variants)
        budget = {} if iterations is None else {"iterations": iterations}
        baseline = self.baseline if self.baseline in [each.name for each in kept] else kept[0].name
        return replace(
            self,
            variants=kept,
            baseline=baseline,
            seeds=self.seeds if seeds is None else tuple(dict.fromkeys(seeds)),
            settings={**self.settings, **(settings or {}), **budget},
        )


def ready_plans() -> dict[str, Path]:
    """The plans that are shipped, by name."""
    return {path.stem: path for path in sorted((resources_dir() / "Experiments").glob("*.json"))}


def load_plan(source: str) -> ExperimentPlan:
    """Read a plan.

    Args:
        source: name of a ready plan, or path of a JSON file.

    Raises:
        ForgettableSegError: FILE_MISSING if there is neither, REQUEST_INVALID naming what is wrong.
    """
    path = ready_plans().get(source, Path(source))
    if not path.is_file():
        msg = f"There is no experiment '{source}', neither a ready one nor a file."
        hint = f"The ready experiments are: {', '.join(ready_plans())}."
        raise ForgettableSegError(ErrorCode.FILE_MISSING, msg, hint=hint)
    return plan_from_dict(_read(path), source=path.stem)


def plan_from_dict(content: Any, *, source: str) -> ExperimentPlan:
    """The plan that a JSON object states.

    Args:
        content: the object.
        source: what it is called in errors.

    Raises:
        ForgettableSegError: REQUEST_INVALID, naming what is wrong.
    """
    if not isinstance(content, Mapping):
        _refuse(source, "is not a JSON object")
    if "extends" in content:
        base = ready_plans().get(content["extends"])
        if base is None:
            _refuse(source, f"extends '{content['extends']}', which is no ready experiment")
        content = {**_read(base), **{name: value for name, value in content.items() if name != "extends"}}
    if unknown := sorted(set(content) - set(_FIELDS)):
        _refuse(source, f"has an unknown field '{unknown[0]}'", f"The fields are: {', '.join(_FIELDS)}.")
    if missing := [name for name in _NEEDED if name not in content]:
        _refuse(source, f"lacks the field '{missing[0]}'")
    if not isinstance(content["name"], str) or not _NAME.fullmatch(content["name"]):
        _refuse(source, "has a name that cannot name a folder", "Use letters, digits, dashes and underscores.")
    settings = content["settings"]
    if not isinstance(settings, Mapping) or not isinstance(settings.get("iterations"), int):
        _refuse(source, "states no iterations in its settings", "All variants are trained for equally many.")
    if {"epochs", "minutes"} & set(settings):
        _refuse(source, "states a length in epochs or minutes", "Only iterations are the same for every variant.")
    plan = ExperimentPlan(
        name=content["name"],
        title=str(content["title"]),
        settings=dict(settings),
        variants=_variants(content["variants"], source),
        baseline=content["baseline"],
        seeds=_seeds(content["seeds"], source),
        regimes=_regimes(content["regimes"], source) if "regimes" in content else (Regime(),),
        metrics=tuple(content.get("metrics", ("dice", "hd95_mm", "sensitivity"))),
        notes=tuple(content.get("notes", ())),
    )
    if plan.baseline not in [variant.name for variant in plan.variants]:
        _refuse(source, f"has the baseline '{plan.baseline}', which is none of its variants")
    if not plan.metrics or set(plan.metrics) - set(METRICS):
        _refuse(source, f"has metrics other than {', '.join(METRICS)}")
    return plan


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        return _refuse(path.stem, f"cannot be read as JSON ({error})")


def _variants(entries: Any, source: str) -> tuple[Variant, ...]:
    found = []
    for entry in _objects(entries, source, "variants", {"name", "settings"}):
        settings = entry.get("settings", {})
        if not isinstance(settings, Mapping):
            _refuse(source, f"has no settings for the variant '{entry['name']}'")
        if shared := sorted(set(settings) & set(SHARED_SETTINGS)):
            hint = "State it in the plan's settings, for all variants."
            _refuse(source, f"has a variant '{entry['name']}' with a '{shared[0]}' of its own", hint)
        found.append(Variant(name=entry["name"], settings=dict(settings)))
    return tuple(found)


def _regimes(entries: Any, source: str) -> tuple[Regime, ...]:
    found = []
    for entry in _objects(entries, source, "regimes", _REGIME):
        number, share = entry.get("training_cases"), entry.get("corrupted_labels", 0.0)
        labelled = entry.get("labelled", 1.0)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
            _refuse(source, f"has a regime '{entry['name']}' whose training_cases is no number of cases")
        for name in ("corrupted_labels", "texts"):
            value = entry.get(name) or 0.0
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                _refuse(source, f"has a regime '{entry['name']}' whose {name} is not from 0 to 1")
        if isinstance(labelled, bool) or not isinstance(labelled, int | float) or not 0 < labelled <= 1:
            _refuse(source, f"has a regime '{entry['name']}' whose labelled is not above 0 and up to 1")
        parts = {"corrupted_labels": float(share), "labelled": labelled, "texts": entry.get("texts")}
        found.append(Regime(name=entry["name"], training_cases=number, **parts))
    return tuple(found)


def _objects(entries: Any, source: str, what: str, known: set[str]) -> list[Mapping[str, Any]]:
    """Entries of a list, each with a name of its own."""
    valid = isinstance(entries, Sequence) and not isinstance(entries, str) and len(entries) > 0
    if not valid or not all(isinstance(entry, Mapping) and set(entry) <= known for entry in entries):
        _refuse(source, f"has no list of {what} with {', '.join(sorted(known))}")
    names = [entry.get("name") for entry in entries]
    if not all(isinstance(name, str) and name.strip() for name in names) or len(set(names)) < len(names):
        _refuse(source, f"has {what} without a name of their own")
    return list(entries)


def _seeds(values: Any, source: str) -> tuple[int, ...]:
    valid = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not valid or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in values):
        _refuse(source, "has no list of seeds, whole numbers from 0")
    return tuple(dict.fromkeys(values))


def _refuse(source: str, what: str, hint: str = "") -> NoReturn:
    raise ForgettableSegError(ErrorCode.REQUEST_INVALID, f"The experiment '{source}' {what}.", hint=hint)
