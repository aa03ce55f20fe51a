"""Fitting of ProLearn's prototypes: pairs of what a patch looks like and what its case's report says (METHOD B.1)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.guidance import PrototypeFusion, Told
from ForgettableSegLib.training.patches import PatchReader, PatchSampler

REFITS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the training after which the queries are taken anew, for the encoder has moved on."""
PATCHES_A_CASE = 8
MOST_PATCHES = 2048
TOLD_SHARE = 0.5
"""Of the patches whose case has a report, so many are told it; prototypes answer for the others, and so learn."""
# Batches of the fit are apart from those of any training.
_FIRST_DRAW = 10**9
_BATCH = 32


class PrototypeFitter:
    """Fits the pairs of a fusion, and takes the queries anew on a schedule; the same on all ranks.

    Args:
        fusion: of the network that is trained.
        network: it embeds patches.
        reader: of the training cases.
        texts: (cases, L) embeddings of their reports, rows of zeros where there is none; None without any report.
        seed: draws patches and clusters.
        device: where the network is.
        followers: fusions that get the same pairs, such as that of the average of the weights.
    """

    def __init__(
        self,
        fusion: PrototypeFusion,
        network: nn.Module,
        reader: PatchReader,
        texts: Tensor | None,
        *,
        seed: int,
        device: torch.device,
        followers: Sequence[PrototypeFusion] = (),
    ) -> None:
        self.fusion = fusion
        self.network = network
        self.reader = reader
        self.texts = texts
        self.seed = seed
        self.device = device
        self.followers = tuple(followers)
        self.stage = 0
        self.references = torch.empty(0, 4, dtype=torch.int64)

    def follow(self, done: float) -> None:
        """Fit before the first step, and take the queries anew where the schedule says so.

        Args:
            done: share of the training that is over.
        """
        if not self.fusion.is_fitted:
            self.fit()
        due = sum(done >= share for share in REFITS)
        if due > self.stage:
            self.stage = due
            if len(self.references):
                self._put(self._embed(self.references)[0], None)

    def fit(self) -> None:
        """Cluster reports, then the patches of each, and put the pairs nearest to the centres in place.

        Raises:
            ForgettableSegError: PACKAGE_MISSING without scikit-learn.
        """
        references = self._references()
        images, means = self._embed(references)
        if self.texts is None:
            labels, responses = torch.zeros(len(references), dtype=torch.int64), means
        else:
            responses = self.texts[references[:, 0]]
            labels = proxy_labels(responses)
        chosen = representatives(images, labels, len(self.fusion.queries), seed=self.seed)
        self.references = references[chosen]
        self._put(images[chosen], responses[chosen])

    def _references(self) -> Tensor:
        """Patches around structures, about eight a case, of the cases with a report where there are any."""
        known = torch.ones(len(self.reader.cases), dtype=torch.bool)
        if self.texts is not None:
            known = self.texts.abs().sum(1) > 0
        sampler = PatchSampler(self.reader, batch_size=_BATCH, foreground_share=1.0, seed=self.seed)
        wanted = min(MOST_PATCHES, PATCHES_A_CASE * int(known.sum()))
        found: list[Tensor] = []
        for number in itertools.count(_FIRST_DRAW):
            drawn = sampler.references(number)
            found.append(drawn[known[drawn[:, 0]]])
            if sum(map(len, found)) >= wanted:
                return torch.cat(found)

    def _put(self, queries: Tensor, responses: Tensor | None) -> None:
        for fusion in (self.fusion, *self.followers):
            fusion.set_pairs(queries, responses)

    @torch.no_grad()
    def _embed(self, references: Tensor) -> tuple[Tensor, Tensor]:
        """q* (n, d) of patches, and class-mean decoder features (n, L), what responses start from without reports."""
        queries, means = [], []
        length = self.fusion.responses.shape[1]
        for part in references.split(_BATCH):
            batch = self.reader.read(part)
            outputs = self.network.forward_supervised(batch.images.to(self.device))
            queries.append(self.fusion.embed(outputs.bottleneck).cpu())
            means.append(class_mean_features(outputs.features.float().cpu(), batch.labels, length))
        return torch.cat(queries), torch.cat(means)

    def told(self, references: Tensor, draw: int) -> Told | None:
        """What is told of the patches of a batch: the report of every second case that has one.

        Args:
            references: (B, 4).
            draw: decides which.
        """
        if self.texts is None:
            return None
        vectors = self.texts[references[:, 0]]
        generator = torch.Generator().manual_seed(draw)
        is_drawn = torch.rand(len(vectors), generator=generator) < TOLD_SHARE
        return Told(vectors, (vectors.abs().sum(1) > 0) & is_drawn)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, and the patches of the pairs; the pairs themselves are the network's."""
        return {"stage": self.stage, "references": self.references}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.stage, self.references = state["stage"], state["references"].clone()


def proxy_labels(vectors: Tensor) -> Tensor:
    """Groups of reports by HDBSCAN of their embeddings, (n, L) to (n,) int64 from 0; what it calls noise is one group.

    Reports that say the same are one point; with four different ones or less each is a group.

    Raises:
        ForgettableSegError: PACKAGE_MISSING without scikit-learn.
    """
    distinct, index = vectors.unique(dim=0, return_inverse=True)
    if len(distinct) <= 4:
        return index
    found = _scikit_learn().HDBSCAN(min_cluster_size=2, copy=True).fit_predict(distinct.double().numpy())
    return torch.from_numpy(found - found.min()).long()[index]


def representatives(images: Tensor, labels: Tensor, most: int, *, seed: int) -> Tensor:
    """Indices of the samples nearest to the centres of K-means inside each group, up to ``most`` in all.

    Each group gets as many centres, but never more than it has different samples; where there are more groups than
    room, the largest are taken. The released code stores the centres and leaves empty clusters at random numbers.

    Args:
        images: (n, d).
        labels: (n,), the group of each.
        most: P.
        seed: of K-means.

    Raises:
        ForgettableSegError: PACKAGE_MISSING without scikit-learn.
    """
    groups, sizes = labels.unique(return_counts=True)
    groups = groups[sizes.argsort(descending=True, stable=True)][:most]
    share = most // len(groups)
    chosen: list[int] = []
    for group in groups.tolist():
        members = (labels == group).nonzero().flatten()
        points = images[members].double().numpy()
        count = min(share, len(np.unique(points, axis=0)))
        centres = _scikit_learn().KMeans(count, n_init=1, random_state=seed).fit(points).cluster_centers_
        nearest = ((points[:, None] - centres[None]) ** 2).sum(2).argmin(0)
        chosen += members[np.unique(nearest)].tolist()
    return torch.tensor(chosen, dtype=torch.int64)


def class_mean_features(features: Tensor, labels: Tensor, length: int) -> Tensor:
    """Mean decoder features of each class of a sample in a row, of length 1, repeated or cut to L numbers.

    Args:
        features: (B, D, *S).
        labels: (B, *S), 255 where there is no label; a class that is absent has zeros.
        length: L.

    Returns:
        (B, L).
    """
    flat, index = features.flatten(2), labels.flatten(1).long()
    classes = [int(c) for c in index.unique() if c != IGNORE_LABEL]
    masks = torch.stack([(index == c).float() for c in range(max(classes, default=0) + 1)], dim=1)
    means = torch.bmm(masks, flat.transpose(1, 2)) / masks.sum(2, keepdim=True).clamp_min(1)
    row = means.flatten(1)
    row = row.repeat(1, -(-length // row.shape[1]))[:, :length]
    return nn.functional.normalize(row, dim=1)


def _scikit_learn() -> Any:
    """The clusterings of scikit-learn, which the fit alone needs."""
    try:
        from sklearn import cluster
    except ImportError as error:
        msg = "Guidance by prototypes is fitted with the package scikit-learn, which is not installed."
        raise ForgettableSegError(ErrorCode.PACKAGE_MISSING, msg, hint="Install forgettableseg[guidance].") from error
    return cluster
