"""How well wrong labels are found, beside cleanlab's label quality and the loss, on the same predictions.

    python Testing/Benchmarks/label_suspects.py CASES --model MODEL [--seeds 0 1 2] [--share 0.1] [--cases ID ...]
        [--predictions FILE.npz]

The model judges every labelled case once. Then a share of the cases, and apart from that a share of the slices with
foreground, is spoilt (label_corruption.py), and each method ranks all cases, or all slices with foreground in the
labels as they are now or as they were. Prints area under the ROC curve and precision among the first `share`, as
median and range over the seeds, and how estimated difficulty ranks the cases by 1 - Dice (Spearman). Predictions are
kept in the file, so that a second call computes no network.

The control is the image score of cleanlab's `segmentation.rank` (softmin with temperature 0.1; Lad and Mueller,
Estimating label quality and errors in semantic segmentation data via any model, 2023), written down here because
cleanlab (AGPL-3.0) is no dependency; where it can be imported, the two are compared first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from common import machine, markdown, spread
from label_corruption import corrupt
from scipy.stats import rankdata, spearmanr

from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.preprocessing import prepare_case
from ForgettableSegLib.inference.difficulty import case_mean, dilate, dilation_axes
from ForgettableSegLib.inference.run import LoadedModel
from ForgettableSegLib.mining.suspects import FLOOR, at_stake, surprise, suspicion
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.models.registry import find_model
from ForgettableSegLib.network.forward import predict_prepared

TEMPERATURE = 0.1
Method = Callable[[np.ndarray, np.ndarray], float]


def predictions(source: str, model: LoadedModel, file: Path | None) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Probabilities ``[C, S, H, W]`` (float16) and class indices ``[S, H, W]`` by case."""
    if file is not None and file.is_file():
        stored = np.load(file)
        names = [name.removesuffix("|p") for name in stored if name.endswith("|p")]
        return {name: (stored[f"{name}|p"], stored[f"{name}|y"]) for name in names}
    found = {}
    for case in read_case_list(source, task=model.task):
        prepared = prepare_case(case, model.task, model.preprocessing)
        logits = predict_prepared(
            model.network,
            prepared.image,
            spatial_dims=model.preprocessing.spatial_dims,
            patch_size=model.patch_size,
            device=model.device,
        )
        found[case.case_id] = (logits.softmax(0).half().numpy(), np.array(prepared.label))
    if file is not None:
        stored = {f"{name}|p": pair[0] for name, pair in found.items()}
        np.savez(file, **stored, **{f"{name}|y": pair[1] for name, pair in found.items()})
    return found


def suspicious(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Ours: excess of surprise over the root of what is at stake."""
    logits = torch.from_numpy(probabilities).float().clamp_min(1e-6).log()
    found = surprise(logits, torch.from_numpy(labels))
    stake = at_stake(labels, found.predicted.numpy(), len(probabilities))
    return float(suspicion(float(found.excess.sum()), int(stake.sum())))


def own_probability(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probability of the label of every voxel."""
    return np.take_along_axis(probabilities.astype(np.float64), labels[None].astype(np.int64), 0)[0]


def softmin(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Minus cleanlab's label quality of an image."""
    own = own_probability(probabilities, labels).ravel()
    weights = np.exp((1 - own) / TEMPERATURE - (1 - own).max() / TEMPERATURE)
    return -float((own * weights).sum() / weights.sum())


def loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross-entropy."""
    return float(-np.log(own_probability(probabilities, labels).clip(FLOOR)).mean())


def one_minus_dice(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """One minus the mean Dice of the classes that either has."""
    best = probabilities.argmax(0)
    values = [value for value in range(1, len(probabilities)) if (best == value).any() or (labels == value).any()]
    dice = [
        2 * ((best == value) & (labels == value)).sum() / ((best == value).sum() + (labels == value).sum())
        for value in values
    ]
    return 1 - float(np.mean(dice)) if dice else 0.0


METHODS: Mapping[str, Method] = {
    "suspicion (ours)": suspicious,
    "cleanlab, softmin": softmin,
    "mean loss": loss,
    "1 - Dice": one_minus_dice,
}


def auroc(scores: np.ndarray, is_wrong: np.ndarray) -> float:
    """Area under the ROC curve: the probability that a wrong one scores higher than a right one, ties half."""
    ranks, wrong = rankdata(scores), int(is_wrong.sum())
    return float((ranks[is_wrong].sum() - wrong * (wrong + 1) / 2) / (wrong * (len(scores) - wrong)))


def precision(scores: np.ndarray, is_wrong: np.ndarray) -> float:
    """Share of wrong ones among as many of the first as there are wrong ones."""
    first = np.argsort(-scores, kind="stable")[: int(is_wrong.sum())]
    return float(is_wrong[first].mean())


def compare_with_cleanlab(found: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> str:
    """A sentence on whether the control is cleanlab's, where it can be imported."""
    try:
        from cleanlab.segmentation.rank import get_label_quality_scores
    except ImportError:
        return "cleanlab is not installed; its softmin score is the one written down here."
    probabilities, labels = next(iter(found.values()))
    theirs, _ = get_label_quality_scores(
        labels.astype(np.int64), probabilities.swapaxes(0, 1).astype(np.float64), verbose=False
    )
    ours = [-softmin(probabilities[:, index], labels[index]) for index in range(len(labels))]
    largest = float(np.abs(theirs - ours).max())
    return f"The softmin score differs from cleanlab's by {largest:.1e} at most ({len(ours)} slices)."


def scores_of(
    found: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str, *, share: float, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Scores by method, and which units are spoilt."""
    before = {name: labels for name, (_, labels) in found.items()}
    after, done = corrupt(before, unit=unit, share=share, seed=seed)
    spoilt = {(each.case, each.slice) for each in done}
    parts, is_wrong = [], []
    for name, (probabilities, _) in found.items():
        for index in [None] if unit == "case" else np.flatnonzero((before[name] + after[name]).any((1, 2))).tolist():
            where = ... if index is None else slice(index, index + 1)
            parts.append((probabilities if index is None else probabilities[:, where], after[name][where]))
            is_wrong.append((name, index) in spoilt)
    scores = {title: np.array([method(*part) for part in parts]) for title, method in METHODS.items()}
    return scores, np.array(is_wrong)


def table(found: Mapping[str, tuple[np.ndarray, np.ndarray]], share: float, seeds: Sequence[int]) -> str:
    """A row a unit and method."""
    rows = []
    for unit in ("case", "slice"):
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in METHODS}
        for seed in seeds:
            scores, is_wrong = scores_of(found, unit, share=share, seed=seed)
            for name, values in scores.items():
                measured[name].append((auroc(values, is_wrong), precision(values, is_wrong)))
        for name, values in measured.items():
            columns = [spread([value[k] for value in values]) for k in (0, 1)]
            rows.append([f"{unit}s ({int(is_wrong.sum())} of {len(is_wrong)})", name, *columns])
    return markdown(("unit", "method", "AUROC", f"precision at {100 * share:.0f} %"), rows)


def difficulty_and_error(found: Mapping[str, tuple[np.ndarray, np.ndarray]], in_plane: bool) -> str:
    """Spearman's correlation of the estimated difficulty of a case with 1 - Dice."""
    axes = dilation_axes(0, in_plane=in_plane)
    doubts, errors = [], []
    for probabilities, labels in found.values():
        doubt = 1 - probabilities.max(0).astype(np.float64)
        doubts.append(case_mean(doubt, dilate(probabilities.argmax(0) > 0, axes=axes)))
        errors.append(one_minus_dice(probabilities, labels))
    result = spearmanr(doubts, errors)
    return (
        f"Estimated difficulty and 1 - Dice of {len(errors)} cases: Spearman {result.statistic:.3f}; mean Dice "
        f"{1 - np.mean(errors):.3f}."
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="labelled cases")
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.1)
    parser.add_argument("--cases", nargs="+", help="ids of the cases to use")
    parser.add_argument("--predictions", type=Path)
    options = parser.parse_args()
    model = LoadedModel.from_package(ModelPackage.read(find_model(options.model)), "cpu")
    found = predictions(options.source, model, options.predictions)
    if options.cases:
        found = {name: found[name] for name in options.cases}
    print(machine())
    print(compare_with_cleanlab(found), end="\n\n")
    print(table(found, options.share, options.seeds), end="\n\n")
    print(difficulty_and_error(found, model.preprocessing.spatial_dims == 2))


if __name__ == "__main__":
    main()
