"""What is said of the training cases, for a network that prototypes of it guide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.text.case_texts import encode_case_texts, source_for_cases
from ForgettableSegLib.text.encoders import TextEmbeddings
from ForgettableSegLib.training.settings import TrainingSettings

PROTOTYPES = 48
"""Pairs that guide a network: room for 6 groups of reports with 8 images each."""
TEXT_FREE_LENGTH = 64
"""Of their responses where there is no report at all."""


def encode_told(
    settings: TrainingSettings, training: Sequence[Case], text: TextEmbeddings, start: ModelPackage | None
) -> tuple[dict[str, torch.Tensor], str | None]:
    """Embeddings of what is said of training cases, by case, and how they are made; none where they guide nothing."""
    if start is not None:
        source = start.card.get("text", {}).get("reports")
    else:
        is_guided = settings.guidance == "psa" and settings.fusion_mode != "none"
        source = source_for_cases(text.source) if is_guided and any(case.text for case in training) else None
    with_text = [case for case in training if case.text] if source else []
    if not with_text:
        return {}, source
    model, pretrained = settings.text_model, settings.text_pretrained
    vectors = encode_case_texts([case.text for case in with_text], source=source, model=model, pretrained=pretrained)
    return {case.case_id: vector for case, vector in zip(with_text, vectors, strict=True)}, source


def told_by_case(told: Mapping[str, torch.Tensor], cases: list[PreparedCase]) -> torch.Tensor | None:
    """Embeddings of texts (cases, L), zeros where there is none; None if there are no texts at all."""
    if not any(case.case_id in told for case in cases):
        return None
    nothing = torch.zeros_like(next(iter(told.values())))
    return torch.stack([told.get(case.case_id, nothing) for case in cases])
