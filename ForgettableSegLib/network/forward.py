"""The one way to run a network over a prepared case, shared by validation during training and by inference.

Whole slices (2D) or the whole volume (3D) go through the network where they fit into the training patch, MONAI's
sliding window with that patch otherwise: an instance norm takes its statistics over all that the network sees, so a
larger view than in training costs accuracy. What is smaller than the patch is padded to it for the same reason, and
the padding is cropped from the result. When memory runs out the rest is computed with less of it: smaller batches, then
the processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.context import with_neighbours
from ForgettableSegLib.network.mirror import mirrored_mean

OVERLAP = 0.5
# About 1 KB of activations a voxel at the top level of the U-Net. Small batches stay in a processor's cache; a graphics
# card needs large ones to be busy.
BATCH_VOXELS = {"cpu": 2**18}
BATCH_VOXELS_GPU = 2**21

OnStep = Callable[[int, int], None]
OnNote = Callable[[str], None]


@dataclass(frozen=True)
class ForwardPlan:
    """How a case goes through the network.

    Args:
        device: where the network runs.
        batch: slices (whole slices) or windows a forward pass.
        is_whole: whole slices or the whole volume fit into the patch; else it slides over them.
    """

    device: torch.device
    batch: int
    is_whole: bool


def predict_prepared(
    network: nn.Module,
    image: np.ndarray,
    *,
    spatial_dims: int,
    patch_size: Sequence[int],
    device: torch.device | str,
    batch_size: int | None = None,
) -> Tensor:
    """Logits of a whole prepared case.

    Args:
        network: maps ``[B, C, *spatial]`` to logits ``[B, classes, *spatial]``; set to eval mode while it runs.
        image: prepared image ``[C, S, H, W]``, float32 (an array or a memory map).
        spatial_dims: 2 (slices ``[H, W]``) or 3 (volumes ``[S, H, W]``).
        patch_size: the training patch, voxels, one number a spatial dimension.
        device: where to compute.
        batch_size: slices or windows a forward pass; by default as many as a voxel budget allows.

    Returns:
        float32 logits ``[classes, S, H, W]`` on the processor.

    Raises:
        ForgettableSegError: OUT_OF_MEMORY if not even one window fits on the processor.
    """
    result: Tensor | None = None
    slabs = iterate_logits(
        network, image, spatial_dims=spatial_dims, patch_size=patch_size, device=device, batch_size=batch_size
    )
    for where, logits in slabs:
        if result is None:
            result = torch.empty((logits.shape[0], *image.shape[1:]), dtype=torch.float32)
        with torch.no_grad():
            result[:, where] = logits.cpu()
    assert result is not None, "a case has at least one slice"
    return result


@torch.inference_mode()
def iterate_logits(
    network: nn.Module,
    image: np.ndarray,
    *,
    spatial_dims: int,
    patch_size: Sequence[int],
    device: torch.device | str,
    batch_size: int | None = None,
    on_step: OnStep | None = None,
    on_note: OnNote | None = None,
    mirrored: bool = True,
) -> Iterator[tuple[slice, Tensor]]:
    """Logits of a prepared case, slab by slab, so that nobody has to hold them all.

    Args:
        network: as in :func:`predict_prepared`.
        image: as in :func:`predict_prepared`.
        spatial_dims: as in :func:`predict_prepared`.
        patch_size: as in :func:`predict_prepared`.
        device: as in :func:`predict_prepared`.
        batch_size: as in :func:`predict_prepared`.
        on_step: called before every forward pass with what is done and of how much; may raise to stop.
        on_note: called with one sentence for everything that was done differently from the plan.
        mirrored: average over mirror images where the network was trained with them.

    Yields:
        the slices along S, and their float32 logits ``[classes, slices, H, W]``, about as many voxels at a time as
        go into one forward pass in 2D.

    Raises:
        ForgettableSegError: OUT_OF_MEMORY if not even one window fits on the processor.
    """
    device = torch.device(device)
    patch = tuple(int(n) for n in patch_size)
    home, was_training = _home(network), network.training
    plan = _plan(tuple(image.shape[1:]), patch, spatial_dims=spatial_dims, device=device, batch_size=batch_size)
    start, count = 0, image.shape[1]
    run = mirrored_mean(network) if mirrored else network
    network.eval()
    try:
        _move(network, plan.device)
        while start < count:
            stop = count if spatial_dims == 3 else min(count, start + _slices_per_slab(plan))
            steps = _Steps(on_step, start, count)
            try:
                logits = _forward(run, _batch(network, image, start, stop, spatial_dims), plan, patch, steps)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                logits = None
            if logits is None:  # outside the handler: its traceback would keep the failed tensors alive
                plan = _smaller(plan, on_note)
                _move(network, plan.device)
                continue
            yield from _slabs(logits, start)
            start = stop
    finally:
        network.train(was_training)
        if home is not None:
            _move(network, home)


def _plan(
    shape: tuple[int, ...], patch: tuple[int, ...], *, spatial_dims: int, device: torch.device, batch_size: int | None
) -> ForwardPlan:
    budget = BATCH_VOXELS.get(device.type, BATCH_VOXELS_GPU)
    is_whole = all(n <= p for n, p in zip(shape[-spatial_dims:], patch, strict=True))
    batch = 1 if is_whole and spatial_dims == 3 else batch_size or max(1, budget // math.prod(patch))
    return ForwardPlan(device, batch, is_whole)


def _smaller(plan: ForwardPlan, on_note: OnNote | None) -> ForwardPlan:
    """The next plan that needs less memory, said to the user."""
    if plan.batch > 1:
        smaller = replace(plan, batch=plan.batch // 2)
        note = f"Memory ran out on {plan.device}; went on with batches of {smaller.batch}."
    elif plan.device.type != "cpu":
        smaller = replace(plan, device=torch.device("cpu"))
        note = f"Memory ran out on {plan.device}; went on on the processor, which is slower."
    else:
        raise ForgettableSegError(
            ErrorCode.OUT_OF_MEMORY,
            "The computer's memory is too small for this case.",
            hint="Close other programs or segment a smaller region.",
        )
    if plan.device.type == "cuda":
        torch.cuda.empty_cache()
    if on_note is not None:
        on_note(note)
    return smaller


@dataclass
class _Steps:
    """Tells the caller before every forward pass how far the work is: slices in 2D, windows in 3D."""

    on_step: OnStep | None
    done: int
    of: int
    advance: int = 0

    def __call__(self) -> None:
        if self.on_step is not None:
            self.on_step(self.done, self.of)
        self.done += self.advance


def _batch(network: nn.Module, image: np.ndarray, start: int, stop: int, spatial_dims: int) -> Tensor:
    """Slices ``start`` to ``stop`` of ``[C, S, H, W]`` as the network takes them, copied: memory maps are read-only."""
    if spatial_dims == 3:
        return torch.from_numpy(np.array(image[:, start:stop], dtype=np.float32))[None]
    return torch.from_numpy(with_neighbours(image, start, stop, getattr(network, "context_slices", 0)))


def _forward(
    network: Callable[[Tensor], Tensor], batch: Tensor, plan: ForwardPlan, patch: tuple[int, ...], steps: _Steps
) -> Tensor:
    """Logits ``[classes, slices, H, W]`` of one slab."""
    spatial_dims = batch.ndim - 2
    precision = torch.autocast("cuda", dtype=torch.float16) if plan.device.type == "cuda" else nullcontext()

    def run(inputs: Tensor) -> Tensor:
        steps()
        with precision:
            return network(inputs).float()

    if plan.is_whole:
        logits = _run_whole(run, batch.to(plan.device), patch)
    else:
        if spatial_dims == 3:
            steps.of = _count_windows(batch.shape[2:], patch)
            steps.advance = plan.batch
        from monai.inferers.utils import sliding_window_inference  # here, for it takes all of MONAI, seconds

        logits = sliding_window_inference(
            batch,
            patch,
            plan.batch,
            run,
            overlap=OVERLAP,
            mode="gaussian",
            sw_device=plan.device,
            device=torch.device("cpu"),
        )
    return logits.transpose(0, 1) if spatial_dims == 2 else logits[0]


def _run_whole(run: Callable[[Tensor], Tensor], batch: Tensor, patch: tuple[int, ...]) -> Tensor:
    extent = batch.shape[2:]
    before = [max(0, p - n) // 2 for n, p in zip(extent, patch, strict=True)]
    after = [max(0, p - n) - b for n, p, b in zip(extent, patch, before, strict=True)]
    if not any(after):
        return run(batch)
    pad = [width for pair in zip(reversed(before), reversed(after), strict=True) for width in pair]
    inner = tuple(slice(b, b + n) for b, n in zip(before, extent, strict=True))
    return run(F.pad(batch, pad))[(slice(None), slice(None), *inner)]


def _slabs(logits: Tensor, start: int) -> Iterator[tuple[slice, Tensor]]:
    """Logits in parts that can be scored without another copy of everything."""
    budget = BATCH_VOXELS.get(logits.device.type, BATCH_VOXELS_GPU)
    for part in logits.split(max(1, budget // math.prod(logits.shape[2:])), dim=1):
        yield slice(start, start + part.shape[1]), part
        start += part.shape[1]


def _slices_per_slab(plan: ForwardPlan) -> int:
    return plan.batch if plan.is_whole else 1


def _count_windows(extent: Sequence[int], window: tuple[int, ...]) -> int:
    steps = (max(1, int(w * (1 - OVERLAP))) for w in window)
    return math.prod(1 + math.ceil(max(0, n - w) / s) for n, w, s in zip(extent, window, steps, strict=True))


def _home(network: nn.Module) -> torch.device | None:
    parameter = next(network.parameters(), None)
    return None if parameter is None else parameter.device


def _move(network: nn.Module, device: torch.device) -> None:
    # parameters that were moved in inference mode could never be trained again
    with torch.inference_mode(False):
        network.to(device)


def _is_out_of_memory(error: BaseException) -> bool:
    # torch raises its own type on a graphics card only; Apple's GPU and the processor raise a RuntimeError
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(phrase in text for phrase in ("out of memory", "can't allocate memory", "not enough memory"))
