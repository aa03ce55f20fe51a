"""Sim-MPNet: a memory of each class at the bottleneck, read by attention (DMW-LA) and written while training (W-LD).

After "Similarity Memory Prior is All You Need" (arXiv 2507.00585), as METHOD B.3 reads it. Class c has M = 100
vectors m_cj of f numbers, as at the bottleneck; theta, phi, g, o are convolutions of one voxel. At position i of the
bottleneck x:

- which memory answers   c(i) = argmax_c cos(theta_i, mean_j m_cj), without gradient;
- pool residual          P_i = sum_j softmax_j(theta_i . m_c(i)j / sqrt(f)) m_c(i)j: attention to the class's memory;
- context residual       R_i = sum_k softmax_k(theta_i . phi_k / sqrt(f)) g_k: attention to the other positions;
- output                 x_i + o(P_i + R_i).

A forward pass never writes, in training neither: what the network says does not depend on what it saw before.
`ClassMemory.write` puts labelled positions in, and is for training alone. The released code writes in every forward
pass, in evaluation too.

What differs from the released code, besides that: labels take the place of one k-means and of 2000 iterations of
warm-up; one layer at the bottleneck instead of twelve in the encoder; o starts from zero, so that a new network is the
plain U-Net; theta starts as phi, which the vectors are made with, so that like asks like from the beginning, for no
gradient flows through the choice; and products are divided by sqrt(f), without which a softmax over vectors of 256
numbers chooses one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

ITEMS = 100
"""M, vectors of each class."""
KEPT = 0.7
"""Share of an item that is kept where a new vector is mixed in."""

_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}


class ClassMemory(nn.Module):
    """The memories of all classes.

    Args:
        num_classes: C, the background included.
        channels: f, of the bottleneck.
        spatial_dims: 2 or 3.

    Attributes:
        items: m, [C, M, f]; zeros where nothing was written yet.
        filled: [C, M], 1 where an item was written.
    """

    def __init__(self, num_classes: int, channels: int, spatial_dims: int) -> None:
        super().__init__()
        convolution = _CONVOLUTION[spatial_dims]
        self.theta, self.phi, self.g, self.o = (convolution(channels, channels, kernel_size=1) for _ in range(4))
        self.theta.load_state_dict(self.phi.state_dict())
        nn.init.zeros_(self.o.weight)
        nn.init.zeros_(self.o.bias)
        self.register_buffer("items", torch.zeros(num_classes, ITEMS, channels))
        self.register_buffer("filled", torch.zeros(num_classes, ITEMS))

    def forward(self, x: Tensor) -> Tensor:
        """Bottleneck [B, f, *T] to the same shape."""
        theta = tokens(self.theta(x)).float()
        scale = theta.shape[2] ** -0.5
        attention = torch.bmm(theta * scale, tokens(self.phi(x)).float().transpose(1, 2)).softmax(2)
        answer = torch.bmm(attention, tokens(self.g(x)).float()) + self._pool(theta * scale, self.answering(theta))
        return x + self.o(answer.transpose(1, 2).reshape(x.shape).to(x.dtype))

    @torch.no_grad()
    def answering(self, theta: Tensor) -> Tensor:
        """c(i): the class whose memory answers at each position, of theta [B, N, f]; 0 while there is nothing in any.

        Returns:
            int64 [B, N].
        """
        known = (self.filled > 0).float()
        count = known.sum(1)
        means = torch.einsum("cm,cmf->cf", known, self.items) / count.clamp_min(1).unsqueeze(1)
        cosines = functional.normalize(theta.float(), dim=2) @ functional.normalize(means, dim=1).t()
        return cosines.masked_fill(count == 0, -2.0).argmax(2)

    def answers(self, x: Tensor) -> Tensor:
        """Which memory answers where, of the bottleneck [B, f, *T]: one of C channels is 1, float32 [B, C, *T]."""
        chosen = functional.one_hot(self.answering(tokens(self.theta(x))), len(self.items))
        return chosen.transpose(1, 2).float().unflatten(2, x.shape[2:])

    @torch.no_grad()
    def distances(self, x: Tensor) -> Tensor:
        """Squared distance of each position to the nearest vector of each class: min_j |phi_i - m_cj|^2 / f.

        Args:
            x: bottleneck [B, f, *T].

        Returns:
            float32 [B, C, *T], infinite for a class with nothing in its memory.
        """
        phi = tokens(self.phi(x)).float()
        found = []
        for items, filled in zip(self.items, self.filled > 0, strict=True):
            if not filled.any():
                found.append(torch.full_like(phi[..., 0], torch.inf))
                continue
            known = items[filled]
            d2 = phi.square().sum(2, keepdim=True) + known.square().sum(1) - 2 * (phi @ known.t())
            found.append(d2.amin(2).clamp_min(0) / phi.shape[2])
        return torch.stack(found, dim=1).unflatten(2, x.shape[2:])

    def _pool(self, theta: Tensor, chosen: Tensor) -> Tensor:
        """P, [B, N, f], of the scaled theta [B, N, f] and the class whose memory answers [B, N]."""
        known = self.filled > 0
        if not known.any():
            return torch.zeros_like(theta)
        similarity = theta @ self.items.flatten(0, 1).t()
        own = functional.one_hot(chosen, len(self.items)).bool().unsqueeze(3) & known
        return similarity.masked_fill(~own.flatten(2), -torch.inf).softmax(2) @ self.items.flatten(0, 1)

    @torch.no_grad()
    def write(self, label: int, vectors: Tensor, number: int, *, generator: torch.Generator | None = None) -> None:
        """Mix new vectors of a class into its memory: ``m <- 0.7 m + 0.3 new`` (W-LD).

        Free items are filled first. Then a softmax of the similarities gives every item a weight, summed over the new
        vectors, and every new vector one, summed over the items: the ``number`` items of the lowest weight, which
        nobody asks for, take in the new vectors of the highest, which look most like the class.

        Args:
            label: c.
            vectors: [n, f], keys of labelled positions.
            number: K, items to change, from 0 to M.
            generator: draws items and vectors instead, a control.

        Raises:
            RuntimeError: outside of training.
        """
        if not self.training:
            msg = "a memory is written while training only"
            raise RuntimeError(msg)
        vectors = vectors.to(self.items)
        free = (self.filled[label] == 0).nonzero().flatten()[: len(vectors)]
        self.items[label, free] = vectors[: len(free)]
        self.filled[label, free] = 1
        vectors, number = vectors[len(free) :], min(number, len(vectors) - len(free))
        if number <= 0:
            return
        similarity = vectors @ self.items[label].t() * vectors.shape[1] ** -0.5
        if generator is None:
            asked, typical = similarity.softmax(1).sum(0), similarity.softmax(0).sum(1)
            items, new = asked.argsort(stable=True)[:number], typical.argsort(descending=True, stable=True)[:number]
        else:
            items, new = (torch.randperm(n, generator=generator)[:number] for n in (ITEMS, len(vectors)))
        self.items[label, items] = KEPT * self.items[label, items] + (1 - KEPT) * vectors[new]


def tokens(maps: Tensor) -> Tensor:
    """[B, f, *T] to [B, N, f]."""
    return maps.flatten(2).transpose(1, 2)
