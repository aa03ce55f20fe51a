"""An exponential average of the weights over the training, which generalises better than the last weights do."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


class WeightAverage:
    """A second network with the average weights v <- beta_t v + (1 - beta_t) w, beta_t = min(beta, (1 + t) / (10 + t)).

    The warm-up is that of the prototypes: without it the first weights would still weigh beta^t at step t.

    Args:
        network: whose weights are averaged; it is copied.
        beta: decay, in (0, 1).
    """

    def __init__(self, network: nn.Module, beta: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.beta = beta
        self.steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the weights of another step in; what is no weight (running statistics) is copied."""
        beta = min(self.beta, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for average, weight in zip(self.network.parameters(), network.parameters(), strict=True):
            average.lerp_(weight, 1 - beta)
        for average, buffer in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """Averaged weights and number of steps."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.steps = state["steps"]
