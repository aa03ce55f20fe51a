"""Text embeddings on disk: stores to share, and the cache of what an encoder has once computed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ForgettableSegLib.cases.structures import key_of
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

SUFFIXES = (".npz", ".safetensors")
# What numpy's reader raises for files that are not archives, are cut off, or hold pickled objects.
_DAMAGE = (ValueError, TypeError, RuntimeError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class EmbeddingStore:
    """Prompts and their embeddings by one encoder.

    Args:
        prompts: N strings.
        embeddings: [N, L], finite, no row zero; any norm.
        encoder: name of the text encoder that made them ("" where the file does not say).
        licence: of the embeddings ("" where the file does not say).

    Raises:
        ValueError: where the arrays are not as described.
    """

    prompts: tuple[str, ...]
    embeddings: np.ndarray
    encoder: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        vectors = self.embeddings
        if vectors.ndim != 2 or not vectors.size or not np.issubdtype(vectors.dtype, np.floating):
            msg = f"embeddings are {vectors.dtype} of shape {vectors.shape}, not numbers of shape (prompts, length)"
            raise ValueError(msg)
        if len(self.prompts) != len(vectors):
            msg = f"there are {len(self.prompts)} prompts but {len(vectors)} embeddings"
            raise ValueError(msg)
        if not np.isfinite(vectors).all() or not np.abs(vectors).max(axis=1).all():
            msg = "an embedding is zero or not finite"
            raise ValueError(msg)

    def missing(self, prompts: Sequence[str]) -> list[str]:
        """Those of ``prompts`` that are not stored; case, white space, articles, number and word order do not count."""
        rows = self._rows()
        return [prompt for prompt in prompts if _row(rows, prompt) is None]

    def lookup(self, prompts: Sequence[str]) -> np.ndarray:
        """Embeddings [len(prompts), L] as stored, float32.

        Raises:
            KeyError: where one is missing.
        """
        rows = self._rows()
        found = {prompt: _row(rows, prompt) for prompt in prompts}
        for prompt, row in found.items():
            if row is None:
                raise KeyError(prompt)
        return self.embeddings[[found[prompt] for prompt in prompts]].astype(np.float32)

    def _rows(self) -> dict[str | tuple[str, ...], int]:
        """Row of each prompt, as it stands and by its words; of several that are alike the first."""
        numbered = list(reversed(list(enumerate(self.prompts))))
        rows: dict[str | tuple[str, ...], int] = {key_of(prompt): row for row, prompt in numbered}
        return rows | {_normal(prompt): row for row, prompt in numbered}

    @classmethod
    def read(cls, path: Path) -> EmbeddingStore:
        """Read a ``.npz`` (arrays ``prompts`` and ``embeddings``) or ``.safetensors`` store; never unpickles.

        Raises:
            ForgettableSegError: FILE_MISSING or FILE_UNREADABLE, naming the file and what is wrong with it.
        """
        if path.suffix not in SUFFIXES:
            raise _unreadable(path, "only .npz and .safetensors files are read")
        if not path.is_file():
            raise ForgettableSegError(ErrorCode.FILE_MISSING, f"The text embeddings {path} do not exist.")
        try:
            return _read_npz(path) if path.suffix == ".npz" else _read_safetensors(path)
        except (*_DAMAGE, SafetensorError) as error:
            raise _unreadable(path, str(error)) from error

    def write(self, path: Path) -> None:
        """Write a ``.npz`` or ``.safetensors`` store; the file appears whole or not at all.

        Raises:
            ForgettableSegError: OUTPUT_UNWRITABLE where it cannot be written.
        """
        draft = path.with_name(f".{uuid.uuid4().hex}{path.suffix}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".npz":
                plain = {"prompts": list(self.prompts), "encoder": self.encoder, "licence": self.licence}
                np.savez_compressed(draft, embeddings=self.embeddings, **{k: np.array(v) for k, v in plain.items()})
            else:
                notes = {"prompts": json.dumps(self.prompts), "encoder": self.encoder, "licence": self.licence}
                save_file({"embeddings": np.ascontiguousarray(self.embeddings)}, draft, metadata=notes)
            os.replace(draft, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink()
            msg = f"The text embeddings cannot be written to {path} ({error.strerror or error})."
            raise ForgettableSegError(ErrorCode.OUTPUT_UNWRITABLE, msg) from error


class EmbeddingCache:
    """One small file an embedding, keyed by encoder, weights and prompt, so that an encoder is loaded once.

    Args:
        folder: where the files lie; made when first written.
        encoder: name of the encoder.
        weights: what tells its weights apart from others of the same encoder (a tag, or the hash of a file).
    """

    def __init__(self, folder: Path, *, encoder: str, weights: str) -> None:
        self.folder = folder
        self.encoder = encoder
        self.weights = weights

    def get(self, prompt: str) -> np.ndarray | None:
        """Embedding [L], or None where it is not cached (or the cached file is damaged)."""
        try:
            store = EmbeddingStore.read(self._path(prompt))
        except ForgettableSegError:
            return None
        return store.embeddings[0] if store.prompts == (prompt,) else None

    def put(self, prompt: str, vector: np.ndarray) -> None:
        """Keep an embedding [L]."""
        EmbeddingStore((prompt,), vector[None], encoder=self.encoder).write(self._path(prompt))

    def _path(self, prompt: str) -> Path:
        key = json.dumps([self.encoder, self.weights, prompt])
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.npz"


def _read_npz(path: Path) -> EmbeddingStore:
    with np.load(path, allow_pickle=False) as arrays:
        if not {"prompts", "embeddings"} <= set(arrays):
            msg = "it lacks the array 'prompts' or 'embeddings'"
            raise ValueError(msg)
        notes = {name: str(arrays[name]) for name in ("encoder", "licence") if name in arrays}
        return EmbeddingStore(tuple(map(str, arrays["prompts"])), arrays["embeddings"], **notes)


def _read_safetensors(path: Path) -> EmbeddingStore:
    with safe_open(path, framework="numpy") as file:
        notes = file.metadata() or {}
        if "embeddings" not in file.keys() or "prompts" not in notes:  # noqa: SIM118 (not a mapping)
            msg = "it lacks the tensor 'embeddings' or the metadata 'prompts'"
            raise ValueError(msg)
        prompts = json.loads(notes["prompts"])
        texts = {name: notes.get(name, "") for name in ("encoder", "licence")}
        return EmbeddingStore(tuple(map(str, prompts)), file.get_tensor("embeddings"), **texts)


def same_prompt(one: str, other: str) -> bool:
    """Whether two prompts have the same embedding in every store: articles, case, number and order do not count."""
    return _normal(one) == _normal(other) or () != key_of(one) == key_of(other)


def _row(rows: dict[str | tuple[str, ...], int], prompt: str) -> int | None:
    key = key_of(prompt)
    return rows.get(_normal(prompt), rows.get(key) if key else None)


def _normal(prompt: str) -> str:
    return " ".join(prompt.casefold().split())


def _unreadable(path: Path, reason: str) -> ForgettableSegError:
    return ForgettableSegError(
        ErrorCode.FILE_UNREADABLE,
        f"The text embeddings {path} cannot be read: {reason}.",
        hint="Give a .npz with arrays 'prompts' and 'embeddings', or the same as .safetensors.",
    )
