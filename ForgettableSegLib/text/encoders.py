"""From prompts to embeddings: stores, CLIP through open_clip, and the controls that carry no meaning."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.resources import resources_dir, user_cache_dir, user_dir
from ForgettableSegLib.text.prompts import object_of
from ForgettableSegLib.text.store import SUFFIXES, EmbeddingCache, EmbeddingStore

SOURCES = ("auto", "open_clip", "file", "onehot", "random", "learned")
DEFAULT_MODEL = "ViT-B-32"
DEFAULT_PRETRAINED = "openai"
_CONTROL_LENGTH = 512  # of CLIP ViT-B/32, so that a control changes the vectors only
_WAYS_OUT = (
    "Go where there is a network once (what is computed is kept), give a store of embeddings (text 'file'), "
    "or let the network learn its own (text 'learned')."
)


@dataclass(frozen=True)
class TextEmbeddings:
    """The embeddings f_CLIP of the foreground classes, and where they come from.

    Args:
        prompts: one a class.
        vectors: [C-1, L], float32, rows of length 1.
        source: one of :data:`SOURCES` but "auto": what was really used.
        encoder: name of the encoder or control.
        learned: the vectors are only where a parameter of the network starts.
        warning: one sentence for the user where "auto" found no embedding, else empty.
    """

    prompts: tuple[str, ...]
    vectors: Tensor
    source: str
    encoder: str
    learned: bool = False
    warning: str = ""


def encode_prompts(
    prompts: Sequence[str],
    *,
    source: str = "auto",
    model: str | None = None,
    pretrained: str | None = None,
    path: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> TextEmbeddings:
    """Embed one prompt a foreground class.

    Args:
        prompts: the prompts, in class order.
        source: "auto" takes the shipped store, the user's own stores (``text`` in the user's folder), then open_clip,
            whichever has all prompts, else the store that has most of them and for the others a direction of their own,
            and else lets the network learn; "open_clip"; "file"; and the controls "onehot",
            "random" (a unit vector drawn from the prompt's hash) and "learned" (the same as a start).
        model: architecture for open_clip, default :data:`DEFAULT_MODEL`.
        pretrained: tag or file of weights for open_clip, default :data:`DEFAULT_PRETRAINED`.
        path: the store for "file" (looked at first by "auto").
        cache_dir: where open_clip's results are kept; default: in the user's cache.

    Raises:
        ForgettableSegError: SETTING_INVALID, FILE_MISSING, FILE_UNREADABLE, or TEXT_UNAVAILABLE where an encoder, its
            weights or a prompt cannot be had.
    """
    prompts = tuple(prompts)
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, "Every class needs a text prompt that is not empty.")
    if source == "auto":
        return _auto(prompts, model=model, pretrained=pretrained, path=path, cache_dir=cache_dir)
    if source == "file":
        return _from_file(prompts, path)
    if source == "open_clip":
        return _from_open_clip(prompts, model=model, pretrained=pretrained, cache_dir=cache_dir)
    if source == "onehot":
        return _embeddings(prompts, np.eye(len(prompts)), source=source, encoder="one-hot control")
    if source == "random":
        return _embeddings(prompts, _random_vectors(prompts), source=source, encoder="random control")
    if source == "learned":
        return _embeddings(prompts, _random_vectors(prompts), source=source, encoder="learned", learned=True)
    message = f"text is '{source}', but it must be one of: {', '.join(SOURCES)}."
    raise ForgettableSegError(ErrorCode.SETTING_INVALID, message)


def user_stores_dir() -> Path:
    """Folder where "auto" looks for the user's own stores."""
    return user_dir() / "text"


def _auto(
    prompts: tuple[str, ...],
    *,
    model: str | None,
    pretrained: str | None,
    path: str | Path | None,
    cache_dir: str | Path | None,
) -> TextEmbeddings:
    folders = (resources_dir() / "TextEmbeddings", user_stores_dir())
    stores = [Path(path)] if path else []
    stores += [file for folder in folders for file in sorted(folder.glob("*")) if file.suffix in SUFFIXES]
    lacking: dict[Path, list[str]] = {}
    for file in stores:
        lacking[file] = EmbeddingStore.read(file).missing(prompts)
        if not lacking[file]:
            return _from_file(prompts, file)
    try:
        return _from_open_clip(prompts, model=model, pretrained=pretrained, cache_dir=cache_dir)
    except ForgettableSegError as error:
        if error.code != ErrorCode.TEXT_UNAVAILABLE:
            raise
        best = min(lacking, key=lambda file: len(lacking[file]), default=None)
        if best is not None and len(lacking[best]) < len(prompts):
            return _partly_from_file(prompts, best, lacking[best])
        warning = f"No text embeddings for {_quoted(prompts)}: the network learns its own. {error.message}"
    vectors = _random_vectors(prompts)
    return _embeddings(prompts, vectors, source="learned", encoder="learned", learned=True, warning=warning)


def _partly_from_file(prompts: tuple[str, ...], path: Path, missing: Sequence[str]) -> TextEmbeddings:
    """The store's embeddings; a prompt that it lacks gets a direction of its own, whose meaning the network learns."""
    store = EmbeddingStore.read(path)
    known = [prompt for prompt in prompts if prompt not in missing]
    found = dict(zip(known, store.lookup(known), strict=True))
    length = store.embeddings.shape[1]
    found |= dict(zip(missing, _random_vectors(missing, length), strict=True))
    vectors = np.stack([found[prompt] for prompt in prompts])
    names = {object_of(prompt): prompt for prompt in store.prompts}
    near = {name: difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0] for name in map(object_of, missing)}
    unknown = ", ".join(f"'{name}' (the nearest known name is '{nearest}')" for name, nearest in near.items())
    warning = (
        f"There is no text embedding of {unknown}, so the network learns what it stands for. "
        "The other classes keep their text."
    )
    return _embeddings(prompts, vectors, source="file", encoder=store.encoder or path.name, warning=warning)


def _from_file(prompts: tuple[str, ...], path: str | Path | None) -> TextEmbeddings:
    if path is None:
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, "text 'file' needs the path of a store of embeddings.")
    path = Path(path)
    store = EmbeddingStore.read(path)
    missing = store.missing(prompts)
    if missing:
        similar = difflib.get_close_matches(missing[0], store.prompts, n=3, cutoff=0.0)
        message = (
            f"The text embeddings {path} have none for {_quoted(missing)}; the most similar are {_quoted(similar)}."
        )
        raise ForgettableSegError(ErrorCode.TEXT_UNAVAILABLE, message)
    return _embeddings(prompts, store.lookup(prompts), source="file", encoder=store.encoder or path.name)


def _from_open_clip(
    prompts: tuple[str, ...], *, model: str | None, pretrained: str | None, cache_dir: str | Path | None
) -> TextEmbeddings:
    model, pretrained = model or DEFAULT_MODEL, pretrained or DEFAULT_PRETRAINED
    encoder, weights = f"open_clip {model}", pretrained
    if Path(pretrained).is_file():
        with Path(pretrained).open("rb") as file:
            weights = hashlib.file_digest(file, "sha256").hexdigest()
    cache = EmbeddingCache(Path(cache_dir or user_cache_dir() / "text"), encoder=encoder, weights=weights)
    found = {prompt: cache.get(prompt) for prompt in prompts}
    new = [prompt for prompt, vector in found.items() if vector is None]
    if new:
        for prompt, vector in zip(new, _run_open_clip(new, model=model, pretrained=pretrained), strict=True):
            found[prompt] = vector
            with contextlib.suppress(ForgettableSegError):  # a cache that cannot be written costs time only
                cache.put(prompt, vector)
    vectors = np.stack([found[prompt] for prompt in prompts])
    return _embeddings(prompts, vectors, source="open_clip", encoder=f"{encoder} ({weights})")


def _run_open_clip(prompts: Sequence[str], *, model: str, pretrained: str) -> np.ndarray:
    """Embeddings [len(prompts), L] by the text encoder of one CLIP."""
    open_clip = _import_open_clip(model, pretrained)
    is_file = Path(pretrained).is_file()
    try:
        quick_gelu = not is_file and open_clip.get_pretrained_cfg(model, pretrained).get("quick_gelu", False)
        network = open_clip.create_model(model, pretrained=pretrained, device="cpu", force_quick_gelu=quick_gelu)
        with torch.inference_mode():
            tokens = open_clip.get_tokenizer(model)(list(prompts))
            return network.eval().encode_text(tokens).float().numpy()
    except Exception as error:  # whatever a download, a tokenizer or a file of weights can raise
        what = (
            f"The file {pretrained} cannot be loaded as weights of CLIP '{model}'"
            if is_file
            else f"The weights '{pretrained}' of CLIP '{model}' are not on this machine and cannot be downloaded"
        )
        message = f"{what} ({_root_cause(error)})."
        raise ForgettableSegError(ErrorCode.TEXT_UNAVAILABLE, message, hint=_WAYS_OUT) from error


def _import_open_clip(model: str, pretrained: str) -> ModuleType:
    """open_clip, if it can be imported and knows the architecture and the weights."""
    try:
        import open_clip  # only here: it is optional, and slow to import
    except Exception as error:  # a torchvision that does not match torch fails with a RuntimeError
        raise ForgettableSegError(
            ErrorCode.TEXT_UNAVAILABLE,
            f"CLIP needs the package open_clip_torch, which cannot be imported ({_root_cause(error)}).",
            hint=f"Install it together with matching torch and torchvision. {_WAYS_OUT}",
        ) from error
    if model not in open_clip.list_models():
        similar = difflib.get_close_matches(model, open_clip.list_models(), n=3, cutoff=0.0)
        message = f"open_clip knows no architecture '{model}'; the most similar are {_quoted(similar)}."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, message)
    if not Path(pretrained).is_file() and not open_clip.get_pretrained_cfg(model, pretrained):
        tags = open_clip.list_pretrained_tags_by_model(model)
        message = f"'{pretrained}' is neither a file nor weights that open_clip has for '{model}' ({_quoted(tags)})."
        raise ForgettableSegError(ErrorCode.SETTING_INVALID, message)
    return open_clip


def _random_vectors(prompts: Sequence[str], length: int = _CONTROL_LENGTH) -> np.ndarray:
    """A direction drawn at random for each prompt: the same on every machine, and without any meaning."""
    seeds = [int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "little") for prompt in prompts]
    return np.stack([np.random.Generator(np.random.PCG64(seed)).standard_normal(length) for seed in seeds])


def _embeddings(
    prompts: tuple[str, ...],
    vectors: np.ndarray,
    *,
    source: str,
    encoder: str,
    learned: bool = False,
    warning: str = "",
) -> TextEmbeddings:
    unit = vectors.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return TextEmbeddings(prompts, torch.from_numpy(unit).float(), source, encoder, learned, warning)


def _quoted(prompts: Sequence[str]) -> str:
    return ", ".join(f"'{prompt}'" for prompt in prompts)


def _root_cause(error: BaseException) -> str:
    """First line of the error that the others were raised from."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200].rstrip(".")
