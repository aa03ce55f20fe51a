"""Embeddings of what is said of a case: a report, or tags such as "left, large, lower"."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.text.encoders import encode_prompts

WORDS = "words"
LENGTH = 512
FILE = "texts.safetensors"
_WORD = re.compile(r"\w+")


def source_for_cases(source: str) -> str:
    """How texts of cases are embedded where the prompts of the classes come from ``source``.

    By CLIP or as the random control where these are; else by "words", which needs neither weights nor a network.
    """
    return source if source in ("open_clip", "random") else WORDS


def encode_case_texts(texts: Sequence[str], *, source: str, model: str | None, pretrained: str | None) -> Tensor:
    """Embed texts of cases.

    Args:
        texts: none of them empty.
        source: "words", "open_clip" or "random" (a direction for each whole text, a control without meaning).
        model, pretrained: of open_clip, see `encode_prompts`.

    Returns:
        [len(texts), L], float32, rows of length 1.

    Raises:
        ForgettableSegError: TEXT_UNAVAILABLE where CLIP cannot be had.
    """
    if source == WORDS:
        return torch.stack([_of_words(text) for text in texts])
    return encode_prompts(texts, source=source, model=model, pretrained=pretrained).vectors


def write_texts(folder: Path, texts: Mapping[str, Tensor]) -> None:
    """Keep the embeddings by case in a run folder."""
    if texts:
        save_file({case_id: vector.contiguous() for case_id, vector in texts.items()}, folder / FILE)


def read_texts(folder: Path) -> dict[str, Tensor]:
    """The embeddings by case of a run folder; none if it has no such file.

    Raises:
        ForgettableSegError: RUN_MISMATCH if the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"The embeddings of the cases' texts in {path} cannot be read ({error})."
        raise ForgettableSegError(ErrorCode.RUN_MISMATCH, msg, hint="Start a new run.") from error


def _of_words(text: str) -> Tensor:
    """Mean of a direction of its own for each different word, of length 1: texts are as near as they share words."""
    words = sorted(set(_WORD.findall(text.casefold()))) or [text]
    seeds = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little") for word in words]
    rows = np.stack([np.random.Generator(np.random.PCG64(seed)).standard_normal(LENGTH) for seed in seeds])
    total = rows.sum(0)
    return torch.from_numpy(total / np.linalg.norm(total)).float()
