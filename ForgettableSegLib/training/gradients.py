"""Forward and backward passes and the update of the weights, within the memory that the device has."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.distributions import Tokens
from ForgettableSegLib.network.guidance import Told, telling
from ForgettableSegLib.network.outputs import Outputs
from ForgettableSegLib.training.consistency import Views, consistency_loss, ramp_up, token_consistency
from ForgettableSegLib.training.distributed import ProcessGroup
from ForgettableSegLib.training.distribution_loss import distribution_loss
from ForgettableSegLib.training.losses import supervised_loss
from ForgettableSegLib.training.patches import Batch
from ForgettableSegLib.training.settings import TrainingSettings
from ForgettableSegLib.training.weight_average import WeightAverage

Result = TypeVar("Result")


class SupervisedOutputs(nn.Module):
    """The network with all outputs from `forward`, which is what DistributedDataParallel wraps.

    The tokens of SCDL are among them, so that its encoder takes part where gradients are shared.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Outputs, Tokens | None]:
        """All outputs for images (B, Ch, *S), and the tokens where the classes have distributions."""
        outputs = self.network.forward_supervised(images)
        if self.network.distributions is None:
            return outputs, None
        return outputs, self.network.distributions(outputs.features)


@dataclass
class Pass:
    """A forward and backward pass: the loss, and what mining looks at (all detached, float32).

    Args:
        loss: scalar, that of the network without what is learnt beside it.
        logits: (B, C, *S).
        features: (B, D, *S) what the prototypes are compared with, None where that is the logits.
        losses: (B,).
        weight: that the loss had in the gradient.
        auxiliary: the auxiliary loss, None where there is none.
        bottleneck: (B, f, *T), None where there is no memory to be written.
    """

    loss: float
    logits: Tensor
    features: Tensor | None
    losses: Tensor
    weight: float
    auxiliary: float | None = None
    bottleneck: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence[Pass]) -> Pass:
        """The pass of a batch that was computed in parts."""
        return cls(
            sum(part.loss for part in parts),
            torch.cat([part.logits for part in parts]),
            None if parts[0].features is None else torch.cat([part.features for part in parts]),
            torch.cat([part.losses for part in parts]),
            parts[0].weight,
            None if parts[0].auxiliary is None else sum(part.auxiliary for part in parts),
            None if parts[0].bottleneck is None else torch.cat([part.bottleneck for part in parts]),
        )


class Learner:
    """The network with its optimiser: gradients of batches are added up, then the weights are updated.

    Args:
        network: a TextGuidedUNet on the device.
        settings: of the run.
        device: where to compute.
        group: the processes of the run.
        features: what mining compares with prototypes: the "logits", the "penultimate" features, or a kind of distances
            that the network measures itself.
        warn: is told when memory runs out.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainingSettings,
        *,
        device: torch.device,
        group: ProcessGroup,
        features: str,
        warn: Callable[[str], None],
    ) -> None:
        if settings.spatial_dims == 3 and device.type == "cpu":
            # A step takes a tenth less time with the channels side by side.
            network.to(memory_format=torch.channels_last_3d)
        self.network = network
        self.settings = settings
        self.device = device
        self.group = group
        self.features = features
        self.warn = warn
        self.model = _wrapped(SupervisedOutputs(network), device, group)
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.optimizer = _optimizer(self.parameters, settings)
        self.average = WeightAverage(network, settings.weight_average) if settings.weight_average else None
        self.teacher = None if self.average is None else SupervisedOutputs(self.average.network)
        self.half_precision = settings.mixed_precision and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half_precision)
        self.micro_batches = 1
        self.done = 0.0  # share of the training that is over; losses with a schedule follow it

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = value

    def forward_backward(self, batch: Batch, weight: float = 1.0, *, told: Told | None = None) -> Pass:
        """Add the gradients of a batch to those there are; in smaller parts when the device runs out of memory.

        Args:
            batch: the batch.
            weight: of its loss.
            told: what is said of its cases, for a network that prototypes guide.
        """
        return self._fitting(lambda: self._accumulate(batch, weight, told), len(batch.ids), batch.labels.shape[1:])

    def learn_from_views(self, views: Views) -> float:
        """Add the gradients of patches without labels, whose strong view is drawn to what is said of the weak one.

        Returns:
            The consistency loss, before it is weighted.
        """
        return self._fitting(lambda: self._accumulate_views(views), len(views), views.valid.shape[1:])

    def _fitting(self, compute: Callable[[], Result], size: int, patch_size: Sequence[int]) -> Result:
        """Add gradients; those that there were before are put back for every new try with smaller parts."""
        # Gradients of what came before, which a second try must not lose or count twice.
        before = [None if parameter.grad is None else parameter.grad.clone() for parameter in self.parameters]
        while True:
            try:
                return compute()
            except torch.cuda.OutOfMemoryError as error:
                if self.micro_batches >= size:
                    patch = " x ".join(map(str, patch_size))
                    msg = f"The memory of {self.device} is too small for a patch of {patch} voxels."
                    hint = "Choose a smaller patch size, fewer features, or the CPU."
                    raise ForgettableSegError(ErrorCode.OUT_OF_MEMORY, msg, hint=hint) from error
            # Outside the handler: its traceback would keep the failed tensors alive.
            self.micro_batches = min(2 * self.micro_batches, size)
            for parameter, gradient in zip(self.parameters, before, strict=True):
                parameter.grad = None if gradient is None else gradient.clone()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.warn(
                f"The memory of {self.device} ran out; each batch is now computed in {self.micro_batches} parts, "
                "with the same result but more slowly."
            )

    def _accumulate(self, batch: Batch, weight: float, told: Told | None) -> Pass:
        size = len(batch.ids)
        step = math.ceil(size / self.micro_batches)
        parts = []
        for first in range(0, size, step):
            part = batch.part(first, min(first + step, size))
            share = len(part.ids) / size
            known = told and told.part(first, first + len(part.ids))
            precision = torch.autocast("cuda", dtype=torch.float16) if self.half_precision else nullcontext()
            with precision, telling(self.network, known):
                outputs, tokens = self.model(part.images)
            loss, losses = supervised_loss(
                outputs.logits.float(),
                outputs.lower,
                part.labels,
                kind=self.settings.loss,
                all_reduce=self.group.differentiable_sum,
                done=self.done,
            )
            auxiliary = None
            if tokens is not None:
                auxiliary = distribution_loss(self.network.distributions, tokens, part.labels, self.group.sum)
            total = loss if auxiliary is None else loss + self.settings.aux_weight * auxiliary
            self.scaler.scale(weight * share * total).backward()
            parts.append(
                Pass(
                    share * float(loss.detach()),
                    outputs.logits.detach().float(),
                    self._kept(outputs),
                    losses,
                    weight,
                    None if auxiliary is None else share * float(auxiliary.detach()),
                    None if self.network.memory is None else outputs.bottleneck.detach().float(),
                )
            )
        return Pass.joined(parts)

    def _accumulate_views(self, views: Views) -> float:
        settings = self.settings
        weight = settings.consistency_weight * ramp_up(self.done, settings.consistency_ramp_up)
        total, step = 0.0, math.ceil(len(views) / self.micro_batches)
        for first in range(0, len(views), step):
            part = views.part(first, min(first + step, len(views)))
            share = len(part) / len(views)
            with torch.autocast("cuda", dtype=torch.float16) if self.half_precision else nullcontext():
                with torch.no_grad():
                    taught, taught_tokens = self.teacher(part.weak)
                outputs, tokens = self.model(part.strong)
            loss = consistency_loss(outputs.logits.float(), taught.logits.float(), part.valid)
            if tokens is not None:
                loss = loss + settings.aux_weight * token_consistency(tokens, taught_tokens, part.valid)
            # Where gradients are shared every parameter must take part, those of the lower levels too.
            unused = sum(level.float().sum() for level in outputs.lower) * 0.0
            self.scaler.scale(weight * share * (loss + unused)).backward()
            total += share * float(loss.detach())
        return total

    def _kept(self, outputs: Outputs) -> Tensor | None:
        """What mining looks at beside the logits."""
        if self.features == "logits":
            return None
        if self.features == "penultimate":
            return outputs.features.detach().float()
        return self.network.distances(outputs, self.features)

    def update(self) -> None:
        """Clip the gradients, make one step and clear them."""
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.parameters, self.settings.gradient_clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.network)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and exported: the average of the weights, where there is one."""
        return self.network if self.average is None else self.average.network

    def state_dict(self) -> dict[str, Any]:
        """Weights, momentum and the scale of half precision."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "micro_batches": self.micro_batches,
            "average": None if self.average is None else self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.micro_batches = state["micro_batches"]
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def scheduled_rate(settings: TrainingSettings, done: float) -> float:
    """Learning rate after a share `done` of the training: rising over `warm_up`, then poly or half a cosine."""
    if done < settings.warm_up:
        # From a tenth of it, for a rate of zero would waste the first update.
        return settings.learning_rate * (0.1 + 0.9 * done / settings.warm_up)
    left = (1 - done) / (1 - settings.warm_up)
    fall = left**0.9 if settings.schedule == "poly" else 0.5 * (1 - math.cos(math.pi * left))
    return settings.learning_rate * fall


def _optimizer(parameters: list[nn.Parameter], settings: TrainingSettings) -> torch.optim.Optimizer:
    common = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, betas=(settings.momentum, 0.999), **common)
    return torch.optim.SGD(parameters, momentum=settings.momentum, nesterov=settings.momentum > 0, **common)


def _wrapped(model: nn.Module, device: torch.device, group: ProcessGroup) -> nn.Module:
    """The model as several processes train it; alone it stays as it is."""
    if not group.is_distributed:
        return model
    devices = [device] if device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(model, device_ids=devices)
