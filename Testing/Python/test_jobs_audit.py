"""What `audit` says of the labels of a case."""

from __future__ import annotations

from typing import Any

import pytest

from ForgettableSegLib.inference.outcome import Audit
from ForgettableSegLib.inference.ranking import Wanted
from ForgettableSegLib.jobs.audit import _cells, _hardest_first


def audit(verdict: str, wanted: list[Wanted]) -> Audit:
    """An audit of a case with this verdict."""
    whole: dict[str, Any] = {"difficulty": 1.23456, "percentile": 97.06, "verdict": verdict}
    return Audit(scores={}, geometry=None, review={"case_difficulty": whole}, wanted=wanted, notes=(), seconds={})


@pytest.mark.parametrize(
    ("verdict", "share", "labels"),
    [("usual", 0.1, "not doubtful"), ("usual", 0.8, "doubtful"), ("hard", 0.1, "doubtful"), ("unlike", 0, "doubtful")],
)
def test_labels_are_doubtful_where_the_case_is_hard_or_another_class_is_wanted(
    verdict: str, share: float, labels: str
) -> None:
    row = {"case": "one", **_cells(audit(verdict, [Wanted("liver", "spleen", share)] if share else []))}
    (line,) = _hardest_first([row])
    assert line.startswith(f"one: {labels} (score 1.235, percentile 97)")
    assert line.endswith(f"; liver: the model wants spleen in {100 * share:.0f} % of its voxels") == bool(share)
