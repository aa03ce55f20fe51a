"""Patches of prepared cases: which to take in an iteration, and reading them.

What an iteration draws depends on the seed and the iteration's number alone, so a resumed run needs no loader state,
and the ranks of a distributed run share one global batch without talking to each other.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ForgettableSegLib.cases.cache import PreparedCase
from ForgettableSegLib.cases.labels import IGNORE_LABEL
from ForgettableSegLib.cases.synthesis_recipe import Recipe
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.network.context import with_neighbours
from ForgettableSegLib.training.deformation import Deformation, deformed

# After so many batches the pages of the memory-mapped arrays are given back, so that resident memory does not grow with
# the number of cases.
RELEASE_EVERY = 20


@dataclass(frozen=True)
class Batch:
    """Patches with what identifies them.

    Args:
        images: (B, Ch, *patch), float32.
        labels: (B, *patch), uint8, 255 where there is no label.
        references: (B, 4), int64: case, and the corner (slice, row, column) of the patch, negative where it is padded.
        ids: (B,), int64: number of the training slice at the patch's centre, over all cases.
    """

    images: Tensor
    labels: Tensor
    references: Tensor
    ids: Tensor

    def part(self, first: int, last: int) -> Batch:
        """Samples `first` to `last` of the batch."""
        return Batch(
            self.images[first:last], self.labels[first:last], self.references[first:last], self.ids[first:last]
        )


class PatchReader:
    """Reads patches of prepared cases by reference.

    Args:
        cases: the training cases.
        patch_size: voxels an axis, two or three numbers; two mean patches of one slice.
        context_slices: k; patches of one slice come with the k slices before and after it as further channels.
        recipe: of the images that are made from label maps; only for cases that are label maps alone.
        sides_axis: axis (S, H or W) from one side of the body to the other.
        quarantined: (axis i, j or k, slice) of label files that stay out of training, by case; not for cases that are
            label maps alone.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        patch_size: Sequence[int],
        *,
        context_slices: int = 0,
        recipe: Recipe | None = None,
        sides_axis: int = 2,
        quarantined: Mapping[str, Sequence[tuple[str, int]]] | None = None,
    ) -> None:
        self.cases = list(cases)
        self._quarantines = {
            number: Quarantine(case, quarantined[case.case_id])
            for number, case in enumerate(self.cases)
            if quarantined and case.case_id in quarantined and not case.is_label_map
        }
        self.recipe = recipe
        self.are_label_maps = torch.tensor([case.is_label_map for case in self.cases])
        has_sides = recipe is not None and bool((recipe.opposite != np.arange(len(recipe.opposite))).any())
        self.sides_axis = sides_axis if has_sides else None
        self.is_2d = len(patch_size) == 2
        self.context_slices = context_slices
        self._tissues = None if recipe is None else recipe.tissue_of_value
        self.patch_shape = (1, *patch_size) if self.is_2d else tuple(patch_size)
        grids = [case.image.shape[1:] if case.label is None else case.label.shape for case in self.cases]
        self.shapes = np.array(grids, dtype=np.int64)
        self.first_slice = np.concatenate([[0], np.cumsum(self.shapes[:, 0])])
        self._reads = 0
        self._lock = threading.Lock()

    @property
    def num_slices(self) -> int:
        """Slices of all cases: ids run from 0 to this number."""
        return int(self.first_slice[-1])

    @property
    def quarantined_slices(self) -> Tensor:
        """Ids of the slices that must not be drawn, sorted, int64."""
        ids = [self.first_slice[number] + each.slices for number, each in sorted(self._quarantines.items())]
        return torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *ids]))

    def foreground(self, number: int) -> Mapping[int, np.ndarray]:
        """Voxels of the classes of a case, see `PreparedCase`, without those that are quarantined."""
        quarantine = self._quarantines.get(number)
        return self.cases[number].foreground if quarantine is None else quarantine.foreground

    def locate(self, slice_id: int) -> tuple[int, int]:
        """Case number and slice of an id."""
        case = int(np.searchsorted(self.first_slice, slice_id, side="right")) - 1
        return case, int(slice_id - self.first_slice[case])

    def read(self, references: Tensor, draw: int | None = None) -> Batch:
        """Read patches.

        Args:
            references: (B, 4), int64, see `Batch`.
            draw: decides how label maps are deformed; None leaves them as they are.

        Returns:
            The batch, in memory that is its own. Outside the case images are 0 and labels 255; a case without a label
            has 0 inside, which only tells the inside from the outside then. The images of
            label-map cases are numbers of tissues, deformed; `ImageSynthesis` makes images of them.
        """
        size, channels = len(references), max(case.image.shape[0] for case in self.cases)
        if self.is_2d:
            channels *= 2 * self.context_slices + 1
        images = np.zeros((size, channels, *self.patch_shape), dtype=np.float32)
        labels = np.full((size, *self.patch_shape), IGNORE_LABEL, dtype=np.uint8)
        corners = references.numpy()
        for row, (number, *corner) in enumerate(corners.tolist()):
            case = self.cases[number]
            if case.is_label_map:
                tissues, labels[row] = self._deformed(case, corner, None if draw is None else (draw, row))
                images[row] = tissues[:, None] if self.is_2d else tissues
                continue
            source, target = [], []
            for start, length, extent in zip(corner, self.patch_shape, self.shapes[number].tolist(), strict=True):
                first, last = max(start, 0), min(start + length, extent)
                source.append(slice(first, last))
                target.append(slice(first - start, last - start))
            if self.is_2d:
                columns = case.image[(slice(None), slice(None), *source[1:])]
                around = with_neighbours(columns, source[0].start, source[0].stop, self.context_slices)
                images[(row, slice(None), 0, *target[1:])] = around[0]
            else:
                images[(row, slice(None), *target)] = case.image[(slice(None), *source)]
            labels[(row, *target)] = 0 if case.label is None else case.label[tuple(source)]
            if number in self._quarantines:
                self._quarantines[number].hide(labels[(row, *target)], source)
        self._give_pages_back()
        # In 3D the slice at the patch's centre; the corner may be negative there, the centre not.
        centre = np.clip(corners[:, 1] + self.patch_shape[0] // 2, 0, self.shapes[corners[:, 0], 0] - 1)
        ids = torch.from_numpy(self.first_slice[corners[:, 0]] + centre)
        if self.is_2d:
            images, labels = images[:, :, 0], labels[:, 0]
        return Batch(torch.from_numpy(images), torch.from_numpy(labels), references, ids)

    def _deformed(
        self, case: PreparedCase, corner: Sequence[int], draw: Sequence[int] | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Tissues `[S + 2k, H, W]` and class indices `[S, H, W]` of a patch of a label map, changed in its place."""
        change = Deformation.identity()
        if draw is not None:
            extent = [length * step for length, step in zip(self.patch_shape, case.spacing, strict=True)]
            change = Deformation.draw(np.random.default_rng(draw), extent, sides_axis=self.sides_axis)
        k = self.context_slices if self.is_2d else 0
        values = deformed(case, corner, self.patch_shape, k, change)
        classes = self.recipe.classes[values[k : len(values) - k]]
        return self._tissues[values], self.recipe.opposite[classes] if change.flipped else classes

    def _give_pages_back(self) -> None:
        with self._lock:
            self._reads += 1
            if self._reads % RELEASE_EVERY == 0:
                for case in self.cases:
                    case.release()


class Quarantine:
    """What of a case's labels stays out of training: slices of its file, wherever they lie on the prepared grid.

    Args:
        case: the case.
        places: (axis, slice) pairs: axis i, j or k of the file and the voxel index along it.

    Attributes:
        slices: prepared slices (along S) that are quarantined as a whole, int64.
        foreground: voxels of its classes that are not quarantined.
    """

    def __init__(self, case: PreparedCase, places: Sequence[tuple[str, int]]) -> None:
        grid = case.grid
        self._hidden = [np.zeros(length, dtype=bool) for length in grid.shape]
        for prepared_axis, length in enumerate(grid.shape):
            index = np.zeros((length, 3))
            index[:, prepared_axis] = np.arange(length)
            native_axis = 2 - grid.axes[prepared_axis]
            of_file = np.rint(grid.index_to_native(index)[:, native_axis]).astype(int)
            wanted = [place for axis, place in places if "ijk".index(axis) == native_axis]
            self._hidden[prepared_axis] = np.isin(of_file, wanted)
        self.slices = np.flatnonzero(self._hidden[0])
        self.foreground = {label: voxels[~self._inside(voxels)] for label, voxels in case.foreground.items()}

    def _inside(self, voxels: np.ndarray) -> np.ndarray:
        return np.any([hidden[voxels[:, axis]] for axis, hidden in enumerate(self._hidden)], axis=0)

    def hide(self, labels: np.ndarray, source: Sequence[slice]) -> None:
        """Take the quarantined labels of a part of the case away, in place.

        Args:
            labels: class indices of the part, ``[s, h, w]``.
            source: where it lies in the case.
        """
        for axis, (hidden, part) in enumerate(zip(self._hidden, source, strict=True)):
            np.moveaxis(labels, axis, 0)[hidden[part]] = IGNORE_LABEL


class PatchSampler:
    """Decides which patches an iteration draws.

    Args:
        reader: the patches' source.
        batch_size: patches an iteration, over all ranks.
        foreground_share: share of them that is centred on a voxel of a class drawn evenly among those of its case.
        seed: with the iteration's number, decides all draws.
        rank, world_size: this process's share of the batch.
    """

    def __init__(
        self,
        reader: PatchReader,
        *,
        batch_size: int,
        foreground_share: float,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.reader = reader
        self.batch_size = batch_size
        self.foreground_share = foreground_share
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._drawable = np.setdiff1d(np.arange(reader.num_slices), reader.quarantined_slices.numpy())
        if not len(self._drawable):
            msg = "All slices of the training cases are quarantined, so there is nothing to train on."
            raise ForgettableSegError(ErrorCode.CASE_LIST_INVALID, msg, hint="Take some decisions of the review back.")

    @property
    def iterations_per_epoch(self) -> int:
        """Iterations that draw as many patches as there are slices (2D) or patch volumes (3D)."""
        depth = self.reader.patch_shape[0]
        patches = sum(-(-int(n) // depth) for n in self.reader.shapes[:, 0])
        return max(1, -(-patches // self.batch_size))

    def draw(self, iteration: int, *, replay: bool = False) -> int:
        """Number that decides what this rank changes at random in the batch, or the replay, of an iteration."""
        return self.seed * 1_000_003 + 2 * (iteration * self.world_size + self.rank) + replay

    def references(self, iteration: int) -> Tensor:
        """The patches of this rank in an iteration, (B / world_size, 4)."""
        generator = np.random.default_rng([self.seed, iteration])
        shapes = self.reader.shapes
        # Even over slices in 2D, over cases in 3D; the foreground share first, evenly over the cases.
        on_foreground = generator.random(self.batch_size) < self.foreground_share
        if self.reader.is_2d:
            drawn = self._drawable[generator.integers(len(self._drawable), size=self.batch_size)]
            cases = np.searchsorted(self.reader.first_slice, drawn, side="right") - 1
            slices = drawn - self.reader.first_slice[cases]
        else:
            cases = generator.integers(len(shapes), size=self.batch_size)
            slices = np.zeros(self.batch_size, dtype=np.int64)
        foreground_cases = generator.integers(len(shapes), size=self.batch_size)
        choices = generator.random((self.batch_size, 2))
        offsets = generator.random((self.batch_size, 3))
        rows = []
        for sample in range(self.rank, self.batch_size, self.world_size):
            case, centre = int(cases[sample]), None
            if on_foreground[sample]:
                centre = self._foreground_voxel(int(foreground_cases[sample]), *choices[sample])
                # A case without foreground leaves the draw over all slices as it is.
                case = case if centre is None else int(foreground_cases[sample])
            rows.append([case, *self._corner(case, int(slices[sample]), centre, offsets[sample])])
        return torch.tensor(rows, dtype=torch.int64).reshape(-1, 4)

    def _foreground_voxel(self, case: int, class_choice: float, voxel_choice: float) -> np.ndarray | None:
        """A voxel of a class of the case; None if the case has no foreground."""
        voxels = self.reader.foreground(case)
        present = sorted(label for label, coordinates in voxels.items() if len(coordinates))
        if not present:
            return None
        coordinates = voxels[present[int(class_choice * len(present))]]
        return np.asarray(coordinates[int(voxel_choice * len(coordinates))])

    def _corner(self, case: int, slice_index: int, centre: np.ndarray | None, offsets: np.ndarray) -> list[int]:
        """Corner of a patch inside the case; a patch larger than the case is centred on it."""
        corner = []
        for axis, (extent, length) in enumerate(
            zip(self.reader.shapes[case].tolist(), self.reader.patch_shape, strict=True)
        ):
            room = extent - length
            if room <= 0 and length > 1:
                corner.append(-(-room // 2))
            elif axis == 0 and self.reader.is_2d and centre is None:
                corner.append(slice_index)
            elif centre is not None:
                # Not always in the middle of the patch: shifted by up to a quarter of it.
                shift = (offsets[axis] - 0.5) * length / 2
                corner.append(int(np.clip(round(centre[axis] - length // 2 + shift * (length > 1)), 0, max(room, 0))))
            else:
                corner.append(int(offsets[axis] * (room + 1)))
        return corner


class Prefetcher:
    """Reads the batch of the next iteration in a thread while the current one is computed on.

    Args:
        reader: the patches' source.
        sampler: which patches to read.
    """

    def __init__(self, reader: PatchReader, sampler: PatchSampler) -> None:
        self._reader = reader
        self._sampler = sampler

    def batches(self, first: int, last: int) -> Iterator[tuple[int, Batch]]:
        """Iterations `first` to `last` (not included) with their batches, in order."""

        def load(iteration: int) -> Batch:
            return self._reader.read(self._sampler.references(iteration), self._sampler.draw(iteration))

        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="patches") as pool:
            coming = pool.submit(load, first) if first < last else None
            for iteration in range(first, last):
                batch = coming.result()
                coming = pool.submit(load, iteration + 1) if iteration + 1 < last else None
                yield iteration, batch
