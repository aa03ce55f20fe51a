"""What a training starts with where the settings leave it open: channels, patch, batch and resolution.

They follow from the cases, the memory, the processor and, where the length is a time, from what can be computed in it.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import psutil
import torch

from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.files import read_header
from ForgettableSegLib.cases.grid import PreparedGrid
from ForgettableSegLib.cases.preprocessing import plan_preprocessing
from ForgettableSegLib.cases.recipe import Preprocessing
from ForgettableSegLib.cases.structures import names_a_side
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.training.settings import TrainingSettings

LARGEST_BATCH = 32
# Voxels of a step: on a processor more of them make steps too few, on a graphics card less leave it idle.
STEP_VOXELS = {"cpu": 2**17}
STEP_VOXELS_GPU = 2**21
LARGEST_PATCH = {2: 256, 3: 96}
LARGEST_PATCH_CPU = {2: 256, 3: 64}
SMALLEST_BATCH = {2: 4, 3: 2}
FEATURES = {2: (16, 32, 64, 128, 256), 3: (16, 32, 64, 128)}
FEATURES_GPU = {2: (32, 32, 64, 128, 256), 3: (32, 64, 128, 256)}
# Of what is free: on a processor other programs need some, and the estimate is rough.
MEMORY_SHARE, MEMORY_SHARE_GPU = 0.5, 0.8
# Tensors of each level's size that a forward pass keeps for the backward one, in encoder and decoder.
KEPT_TENSORS = 14
# With less time than for so many passes over the training voxels, half the resolution teaches more.
FEWEST_PASSES = 4
COARSEST, SMALLEST_SIDE = 4, 64
# With less steps than this, smaller batches teach more.
FEWEST_STEPS = 400
# Share of the minutes that goes into steps.
TRAINING_SHARE = 0.7


@dataclass(frozen=True)
class Plan:
    """What a training starts with.

    Args:
        patch_size: voxels an axis.
        batch_size: patches a step.
        coarsening: factor of the spacing in plane (2D) or along all axes (3D).
        reason: one sentence.
        is_too_large: whether a batch that was set probably needs more memory than there is.
    """

    patch_size: tuple[int, ...]
    batch_size: int
    coarsening: int
    reason: str
    is_too_large: bool = False


def plan_training(
    shapes: Sequence[Sequence[int]],
    settings: TrainingSettings,
    *,
    features: Sequence[int],
    channels: int,
    device: torch.device,
    memory: int,
    seconds_a_voxel: float | None = None,
    may_coarsen: bool = True,
) -> Plan:
    """Choose what the settings leave open.

    Args:
        shapes: (S, H, W) of the prepared training cases.
        settings: what is set in them stays.
        features: channels of each level of the network.
        channels: that come into it.
        device: where to compute.
        memory: bytes that may be used.
        seconds_a_voxel: of a training step; None where the length is no time.
        may_coarsen: whether the spacing is open too.
    """
    dims, is_cpu = settings.spatial_dims, device.type == "cpu"
    budget = None if settings.minutes is None or seconds_a_voxel is None else settings.minutes * 60 * TRAINING_SHARE
    coarsening = 1
    sizes = np.array(shapes, dtype=np.float64)
    if budget is not None and may_coarsen and settings.patch_size is None:
        while coarsening < COARSEST and _passes(sizes, budget / seconds_a_voxel) < FEWEST_PASSES:
            coarser = sizes / ((1, 2, 2) if dims == 2 else (2, 2, 2))
            if np.median(coarser[:, -dims:], axis=0).min() < SMALLEST_SIDE:
                break
            sizes, coarsening = coarser, 2 * coarsening
    largest = (LARGEST_PATCH_CPU if is_cpu else LARGEST_PATCH)[dims]
    patch = settings.patch_size or _median_patch(sizes, dims, largest)
    batch = settings.batch_size
    if batch is None:
        fits, patch = _fit(patch, features, dims, channels, memory, is_fixed=settings.patch_size is not None)
        wanted = STEP_VOXELS.get(device.type, STEP_VOXELS_GPU) // math.prod(patch)
        batch = max(1, min(fits, max(SMALLEST_BATCH[dims], min(LARGEST_BATCH, wanted))))
        while budget is not None and batch > SMALLEST_BATCH[dims]:
            if budget / (seconds_a_voxel * batch * math.prod(patch)) >= FEWEST_STEPS:
                break
            batch = max(SMALLEST_BATCH[dims], batch // 2)
    reason = f"Planned {batch} patches of {' x '.join(map(str, patch))} voxels a step for {device.type}"
    reason += f" and {memory / 2**30:.1f} GiB of memory"
    reason += "" if budget is None else f" in {settings.minutes:g} min"
    if coarsening > 1:
        reason += f", at {coarsening} times the cases' spacing, for at full resolution each would be seen too seldom"
    needed = batch * math.prod(patch) * bytes_a_voxel(features, dims, channels)
    return Plan(tuple(patch), batch, coarsening, f"{reason}.", is_too_large=needed > memory / MEMORY_SHARE)


def planned_preprocessing(
    cases: Sequence[Case],
    task: Task,
    settings: TrainingSettings,
    *,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Preprocessing:
    """How cases are prepared, as the settings have it and the rest by the cases, see `plan_preprocessing`."""
    return plan_preprocessing(
        cases,
        task,
        spatial_dims=settings.wanted_dims,
        slice_axis=settings.slice_axis,
        isotropic=settings.isotropic,
        spacing=settings.spacing,
        progress=progress,
    )


def planned_mirror_axes(task: Task, sides_axis: int) -> tuple[int, ...]:
    """Axes to mirror along where the settings leave it open: from side to side, unless a class is of one side.

    Args:
        task: whose classes' names and prompts tell.
        sides_axis: prepared axis from one side of the body to the other.
    """
    words = [word for each in task.classes for word in (each.name, each.prompt)]
    return () if names_a_side(words) else (sides_axis,)


def default_features(spatial_dims: int, device: torch.device) -> tuple[int, ...]:
    """Channels of each level, where the settings leave them open."""
    return (FEATURES if device.type == "cpu" else FEATURES_GPU)[spatial_dims]


def free_memory(device: torch.device) -> int:
    """Bytes that a training may use on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * MEMORY_SHARE_GPU)
    return int(psutil.virtual_memory().available * MEMORY_SHARE)


def bytes_a_voxel(features: Sequence[int], spatial_dims: int, channels: int) -> float:
    """Memory that a training step takes for each voxel of its patches, roughly."""
    levels = sum(count / 2 ** (spatial_dims * level) for level, count in enumerate(features))
    return 4 * (KEPT_TENSORS * levels + channels)


def prepared_shapes(cases: Sequence[Case], preprocessing: Preprocessing) -> list[tuple[int, int, int]]:
    """(S, H, W) that cases will have; those that cannot be read are left to whoever reads them whole."""
    shapes = []
    for case in cases:
        try:
            geometry = read_header(case.images[0]).geometry
        except ForgettableSegError:
            continue
        shapes.append(PreparedGrid.plan(geometry, preprocessing.spacing, preprocessing.slice_axis).shape)
    return shapes


def coarser(preprocessing: Preprocessing, factor: int) -> Preprocessing:
    """The same preparation at `factor` times the spacing: in plane in 2D, along all axes in 3D."""
    in_slices = preprocessing.spatial_dims == 2
    spacing = [
        step if step is None or (in_slices and axis == preprocessing.slice_axis) else factor * step
        for axis, step in enumerate(preprocessing.spacing)
    ]
    return dataclasses.replace(preprocessing, spacing=tuple(spacing))


def measure_speed(features: Sequence[int], *, channels: int, spatial_dims: int, device: torch.device) -> float:
    """Seconds that a training step takes for a voxel, from the second of two small steps.

    Args:
        features: channels of each level of the network.
        channels: that come into it.
        spatial_dims: 2 or 3.
        device: where to compute.
    """
    arguments = {"spatial_dims": spatial_dims, "in_channels": channels, "out_channels": 2, "features": tuple(features)}
    network = build_network(arguments).to(device)
    images = torch.zeros((4, channels, 96, 96) if spatial_dims == 2 else (1, channels, 32, 32, 32), device=device)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        network(images).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return seconds / (len(images) * math.prod(images.shape[2:]))


def _passes(sizes: np.ndarray, voxels: float) -> float:
    return voxels / sizes.prod(axis=1).sum()


def _median_patch(sizes: np.ndarray, dims: int, largest: int) -> tuple[int, ...]:
    """The median size of the cases in multiples of 16 (2D) or 8 (3D, where fewer levels need less)."""
    step = 16 if dims == 2 else 8
    return tuple(int(min(largest, math.ceil(size / step) * step)) for size in np.median(sizes[:, -dims:], axis=0))


def _fit(
    patch: Sequence[int], features: Sequence[int], dims: int, channels: int, memory: int, *, is_fixed: bool
) -> tuple[int, tuple[int, ...]]:
    """How many patches fit into the memory; the patch is halved along its longest axis until the fewest do."""
    cost, patch = bytes_a_voxel(features, dims, channels), list(patch)
    while not is_fixed and memory // (cost * math.prod(patch)) < SMALLEST_BATCH[dims] and max(patch) > 32:
        longest = patch.index(max(patch))
        patch[longest] = max(16, patch[longest] // 2 // 8 * 8)
    return int(memory // (cost * math.prod(patch))), tuple(patch)
