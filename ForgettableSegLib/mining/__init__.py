"""Prototypes, difficulty scores and the forgettable sample bank: the method, free of trainer and files."""

from __future__ import annotations

from .bank import Replay, SampleBank
from .forgetting import ForgettingStatistics, is_correct, true_class_confidence
from .prototypes import IGNORE_LABEL, Prototypes, centred
from .scores import TERMS, Scores, TermStatistics, difficulty_scores, estimated_difficulty
from .selection import DIFFICULTY_SELECTIONS, HardCount, ScoreHistory, Selected, admission_is_open, select
