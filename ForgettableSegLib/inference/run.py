"""One case through the network: what is kept of every voxel, and how it comes back onto the native grid."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ForgettableSegLib.cases.preprocessing import Prepared, Preprocessing, restore, restore_scalar
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import Cancelled, ForgettableSegError
from ForgettableSegLib.inference.difficulty import CONFIDENCE, ESTIMATED_CHANNELS, MEMORY, Calibration
from ForgettableSegLib.inference.locator import Locator
from ForgettableSegLib.inference.scoring import Scorer, feature_kind
from ForgettableSegLib.mining.prototypes import Prototypes
from ForgettableSegLib.mining.scores import TERMS
from ForgettableSegLib.models.regions import TEMPLATE
from ForgettableSegLib.network.forward import iterate_logits
from ForgettableSegLib.network.guidance import Told, telling
from ForgettableSegLib.text.case_texts import encode_case_texts

if TYPE_CHECKING:
    from ForgettableSegLib.models.field_of_view import FieldOfView
    from ForgettableSegLib.models.package import ModelPackage

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model package, ready to compute with.

    Args:
        name: of the model.
        task: what it segments.
        preprocessing: how cases are prepared for it.
        patch_size: the training patch.
        network: on ``device``, in eval mode.
        scorer: its prototypes.
        calibration: its histograms.
        device: where it computes.
        field_of_view: what its training cases looked like, None where nobody measured.
        locator: finds its structures in larger volumes, None where it has none.
        keep_largest: names of the classes of which only the largest piece is kept.
        case_texts: {"source", "model"}: how texts of cases were embedded that it has learnt from; None if it has not.
    """

    name: str
    task: Task
    preprocessing: Preprocessing
    patch_size: tuple[int, ...]
    network: nn.Module
    scorer: Scorer
    calibration: Calibration
    device: torch.device
    field_of_view: FieldOfView | None = None
    locator: Locator | None = None
    keep_largest: tuple[str, ...] = ()
    case_texts: Mapping[str, str | None] | None = None

    @classmethod
    def from_package(cls, package: ModelPackage, device: torch.device | str) -> LoadedModel:
        """Build the network and move everything to the device."""
        device, count = torch.device(device), package.task.num_classes
        state = package.prototypes
        prototypes = Prototypes(count, count) if state is None else Prototypes.from_tensors(**state)
        network, kind = package.network().to(device), feature_kind(package.card.get("training", {}))
        return cls(
            name=package.name,
            task=package.task,
            preprocessing=package.preprocessing,
            patch_size=package.patch_size,
            network=network,
            scorer=Scorer(prototypes.to(device), kind, with_memory=network.memory is not None),
            calibration=Calibration.from_tensors(package.tensors),
            device=device,
            field_of_view=package.field_of_view,
            locator=package.locator and Locator(package.locator, package.tensors[TEMPLATE].numpy()),
            keep_largest=tuple(package.card.get("keep_largest", ())),
            case_texts=_case_texts(package.card),
        )

    @contextmanager
    def told(self, text: str) -> Iterator[list[str]]:
        """Let the network know what is said of the case that it segments within this block.

        Yields:
            A sentence where it could not be told, which its prototypes then make up for.
        """
        if not text or self.case_texts is None:
            yield []
            return
        try:
            source, model = self.case_texts["source"], self.case_texts["model"]
            vectors = encode_case_texts([text], source=source, model=model, pretrained=None)
        except ForgettableSegError as error:
            yield [f"The text of the case could not be used: {error.message}"]
            return
        with telling(self.network, Told(vectors, torch.ones(1, dtype=torch.bool))):
            yield []


def _case_texts(card: Mapping[str, Any]) -> dict[str, str | None] | None:
    source = card.get("text", {}).get("reports")
    return None if source is None else {"source": source, "model": card.get("training", {}).get("text_model")}


@dataclass
class Watch:
    """Follows a case: progress, cancel, notes and seconds by phase.

    Args:
        progress: called with phase, steps done and number of steps.
        cancelled: asked before every forward pass.
        part, parts: which of how many parts of the case is at work.
    """

    progress: Progress | None = None
    cancelled: Callable[[], bool] | None = None
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    part: int = 0
    parts: int = 1
    _phase: str = ""
    _started: float = 0.0

    def begin(self, phase: str) -> None:
        """End the phase before and start this one."""
        self.end()
        self._phase, self._started = phase, time.perf_counter()
        self.step(0, 1)

    def step(self, done: int, of: int) -> None:
        """Tell how far the phase is.

        Raises:
            Cancelled: if the user asked for it.
        """
        if self.cancelled is not None and self.cancelled():
            raise Cancelled
        if self.progress is not None:
            self.progress(self._phase, self.part * of + done, self.parts * of)

    def end(self) -> None:
        """Close the last phase."""
        if self._phase:
            before = self.seconds.get(self._phase, 0.0)
            self.seconds[self._phase] = before + time.perf_counter() - self._started
        self._phase = ""


@dataclass
class Computed:
    """What was kept of a case on the prepared grid.

    Args:
        classes: class indices uint8 ``[S, H, W]``; None where they have to wait for probabilities on the native grid.
        probabilities: float32 ``[C, S, H, W]``, None where nobody needs them.
        maps: raw estimated difficulty per channel, float32 ``[S, H, W]``.
    """

    classes: np.ndarray | None
    probabilities: np.ndarray | None
    maps: dict[str, np.ndarray]


@torch.inference_mode()
def compute_segmentation(
    model: LoadedModel, prepared: Prepared, watch: Watch, *, heatmap: bool, probabilities: bool
) -> Computed:
    """Run the network over a prepared case, holding at any time one slab of logits and what the result needs."""
    shape = prepared.grid.shape
    is_resampled = prepared.grid.is_resampled
    computed = Computed(
        classes=None if is_resampled else np.empty(shape, dtype=np.uint8),
        probabilities=np.empty((model.task.num_classes, *shape), np.float32) if is_resampled or probabilities else None,
        maps={name: np.empty(shape, dtype=np.float32) for name in _channels(model)} if heatmap else {},
    )
    for where, output in network_outputs(model, prepared, watch, scored=heatmap):
        logits = model.scorer.logits(output)
        if computed.classes is not None:
            computed.classes[where] = logits.argmax(0).cpu()
        if computed.probabilities is not None:
            computed.probabilities[:, where] = logits.softmax(0).cpu()
        if heatmap:
            _store(computed.maps, where, model.scorer.estimate(output))
            if MEMORY in computed.maps:
                computed.maps[MEMORY][where] = model.scorer.answering(output).cpu()
    return computed


@torch.inference_mode()
def compute_scores(model: LoadedModel, prepared: Prepared, watch: Watch) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """T1 to T4 and their sum against the prepared label, float32 ``[S, H, W]`` each, and the model's own classes."""
    predicted = np.empty(prepared.grid.shape, dtype=np.uint8)
    maps = {name: np.empty(prepared.grid.shape, dtype=np.float32) for name in TERMS}
    for where, output in network_outputs(model, prepared, watch, scored=True):
        labels = torch.from_numpy(prepared.label[where]).to(output.device)
        _store(maps, where, model.scorer.audit(output, labels))
        predicted[where] = model.scorer.logits(output).argmax(0).cpu()
    return maps, predicted


@dataclass
class Restored:
    """What a case's user gets, along the native axes ``[z, y, x]``.

    Args:
        classes: class indices, uint8.
        probabilities: float32 ``[C, z, y, x]``, None if not asked for.
        maps: raw estimated difficulty per channel, float32.
    """

    classes: np.ndarray
    probabilities: np.ndarray | None
    maps: dict[str, np.ndarray]


def restore_segmentation(computed: Computed, prepared: Prepared, *, probabilities: bool) -> Restored:
    """Bring a result back onto the native grid.

    Where the case was resampled, probabilities are brought back and the class is decided on the native grid, and so is
    the confidence in it; otherwise everything is an exact copy in the native order.
    """
    maps = {
        name: restore_scalar(values, prepared, nearest=name == MEMORY)
        for name, values in computed.maps.items()
        if name != CONFIDENCE
    }
    if computed.classes is not None:
        classes = restore_scalar(computed.classes, prepared)
        confidence = restore_scalar(computed.maps[CONFIDENCE], prepared) if computed.maps else None
    else:
        classes, highest = _decide(computed.probabilities, prepared)
        confidence = np.subtract(1, highest, out=highest)
    return Restored(
        classes=classes,
        probabilities=restore(computed.probabilities, prepared) if probabilities else None,
        maps={CONFIDENCE: confidence, **maps} if computed.maps else {},
    )


def _decide(probabilities: np.ndarray, prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """The most probable class of each native voxel (the lower index wins a tie) and its probability.

    One class is brought back at a time, so memory does not grow with their number, and only where it can win.
    """
    highest = restore_scalar(probabilities[0], prepared)
    classes = np.zeros(highest.shape, dtype=np.uint8)
    # Interpolation never exceeds the values it lies between, so a class below 1/C everywhere wins nowhere.
    floor = 1 / len(probabilities)
    for index in range(1, len(probabilities)):
        box = _box_of(probabilities[index] >= floor)
        if box is None:
            continue
        one, where = prepared.grid.to_native_around(probabilities[index], box)
        np.copyto(classes[where], index, where=one > highest[where])
        np.maximum(highest[where], one, out=highest[where])
    return classes, highest


def _box_of(mask: np.ndarray) -> tuple[slice, ...] | None:
    """The smallest box that holds a mask; None where it is empty."""
    box = []
    for axis in range(mask.ndim):
        there = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(there):
            return None
        box.append(slice(int(there[0]), int(there[-1]) + 1))
    return tuple(box)


def _channels(model: LoadedModel) -> tuple[str, ...]:
    estimated = ESTIMATED_CHANNELS if model.scorer.has_prototypes else ESTIMATED_CHANNELS[:1]
    return (*estimated, MEMORY) if model.scorer.with_memory else estimated


def network_outputs(
    model: LoadedModel, prepared: Prepared, watch: Watch, *, scored: bool = False
) -> Iterator[tuple[slice, Tensor]]:
    """Run the network over a prepared case, slab by slab.

    Args:
        model: whose network.
        prepared: the case.
        watch: follows the phase "predict".
        scored: put out what the scorer needs, too.

    Returns:
        What :func:`~ForgettableSegLib.network.forward.iterate_logits` yields.
    """
    watch.begin("predict")
    return iterate_logits(
        model.scorer.module(model.network) if scored else model.network,
        prepared.image,
        spatial_dims=model.preprocessing.spatial_dims,
        patch_size=model.patch_size,
        device=model.device,
        on_step=watch.step,
        on_note=watch.notes.append,
    )


def _store(maps: dict[str, np.ndarray], where: slice, values: Tensor) -> None:
    """Put the channels of a slab ``[channels, s, H, W]`` into their maps, those of difficulty."""
    of_difficulty = [volume for name, volume in maps.items() if name != MEMORY]
    for volume, part in zip(of_difficulty, values, strict=False):
        volume[where] = part.cpu()
