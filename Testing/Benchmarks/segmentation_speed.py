"""What a whole segmentation with heatmap costs over the network's bare forward passes, and how much memory it takes.

    python Testing/Benchmarks/segmentation_speed.py [--size 256 256 100] [--repeats 3] [--threads 2] [--device cpu]

Both take turns in one process, so that whatever else the machine does meets them alike; on a busy machine the ratio
of processor seconds still holds. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence

import numpy as np
import torch
from common import TASK, machine, markdown, spread

from ForgettableSegLib.cases.geometry import Geometry
from ForgettableSegLib.cases.preprocessing import Preprocessing, prepare
from ForgettableSegLib.inference.device import resolve_device
from ForgettableSegLib.inference.predictor import Predictor
from ForgettableSegLib.memory import peak_memory
from ForgettableSegLib.mining.prototypes import Prototypes
from ForgettableSegLib.models.package import ModelPackage
from ForgettableSegLib.network.build import build_network
from ForgettableSegLib.network.forward import iterate_logits
from ForgettableSegLib.training.planning import default_features
from ForgettableSegLib.training.settings import TrainingSettings

TEXT_LENGTH = 384


def make_package(spacing: float, size: Sequence[int]) -> ModelPackage:
    """The recommended 2D network, untrained: it is as fast as a trained one.

    Args:
        spacing: of the model in mm.
        size: voxels x, y, ... of 1 mm; the training patch is as large as such slices, which then pass whole.
    """
    torch.manual_seed(0)
    settings = TrainingSettings()
    count = TASK.num_classes
    arguments = {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": count,
        "features": list(settings.features or default_features(2, torch.device("cpu"))),
        "fusion": settings.fusion_mode,
        "text_shape": [count - 1, TEXT_LENGTH],
    }
    prototypes = Prototypes(count, count)
    prototypes.update(torch.randn(1, count, 32, 32), torch.randint(0, count, (1, 32, 32)))
    levels = [f"{channel}_{level}" for channel in ("confidence", "prototype_ratio") for level in ("voxel", "slice")]
    card = {
        "name": "speed",
        "task": TASK.to_dict(),
        "preprocessing": Preprocessing(2, "MR", 0, (None, spacing, spacing)).to_dict(),
        "network": arguments,
        "text": {"prompts": [each.name for each in TASK.classes]},
        "patch_size": [16 * math.ceil(n / spacing / 16) for n in (size[1], size[0])],
    }
    network = build_network(arguments)
    calibration = {level: torch.rand(512) for level in levels}
    return ModelPackage.assemble(card, network, prototypes=prototypes.state_dict(), calibration=calibration)


@torch.inference_mode()
def run_bare(network: torch.nn.Module, image: np.ndarray, step: int, device: torch.device) -> None:
    """The forward passes alone, in the same batches."""
    batches = torch.from_numpy(image).transpose(0, 1).to(device).split(step)
    for batch in batches:
        with torch.autocast("cuda", dtype=torch.float16, enabled=device.type == "cuda"):
            network(batch)
    if device.type == "cuda":
        torch.cuda.synchronize()


def clocks() -> np.ndarray:
    """Wall and processor seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, nargs=3, default=(256, 256, 100), help="voxels x, y, z of 1 mm")
    parser.add_argument("--spacing", type=float, default=1.0, help="of the model in mm; other than 1 resamples")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    geometry = Geometry(tuple(options.size), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))
    image = np.random.default_rng(0).gamma(2, 50, (1, *geometry.shape)).astype(np.float32)
    predictor = Predictor(make_package(options.spacing, options.size), device)
    model = predictor.model
    prepared = prepare(image, geometry, model.preprocessing).image
    how = {"spatial_dims": 2, "patch_size": model.patch_size, "device": device}
    first, _ = next(iterate_logits(model.network, prepared, **how))
    bare, whole, phases = [], [], []
    for _ in range(options.repeats):
        started = clocks()
        run_bare(model.network, prepared, first.stop, device)
        bare.append(clocks() - started)
        started = clocks()
        phases.append(predictor.segment_array(image, geometry).seconds)
        whole.append(clocks() - started)
    names = ("bare forward passes", "whole segmentation with heatmap", "ratio")
    ratios = np.array(whole) / np.array(bare)
    rows = [
        [what, spread(times[:, 0], 2), spread(times[:, 1], 2)]
        for what, times in zip(names, (np.array(bare), np.array(whole), ratios), strict=True)
    ]
    rows += [[f"phase {phase}", spread([each[phase] for each in phases], 2), ""] for phase in phases[0]]
    print(f"{' x '.join(map(str, options.size))} voxels of 1 mm, model at {options.spacing:g} mm.")
    print(machine(device))
    print()
    print(markdown(["", "seconds", "processor seconds"], rows))
    print()
    print(f"Peak memory {peak_memory() / 2**20:.0f} MiB.")


if __name__ == "__main__":
    main()
