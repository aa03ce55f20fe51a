"""The demonstration: the jobs of `forgettableseg demo`, and a picture of their result through slicer-core.

    python Testing/demo.py [--output demo-output] [--device auto]
    python Testing/demo.py --render demo-output     # only the picture, of a demonstration that has run

The library knows nothing of Slicer, so the picture is made here, with the code that the module in Slicer uses.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "ForgettableSeg")]

PLACE_RAS = (-27.0, -20.0, -16.0)
"""Where the views cut: the middle of the left hippocampus; the axial and coronal view show both."""

VIEW_PIXELS = 440


def render(output: Path) -> Path:
    """Render axial, coronal and sagittal views of a finished demonstration.

    Args:
        output: folder of the demonstration.

    Returns:
        The PNG file.
    """
    from ForgettableSegMRML.headless import HeadlessSession
    from ForgettableSegMRML.heatmaps import DEFAULT_THRESHOLD, styleHeatmap
    from ForgettableSegMRML.rendering import renderSlices
    from ForgettableSegMRML.segmentations import loadLabelMap
    from ForgettableSegMRML.volumes import readVolume

    from ForgettableSegLib.cases.task import Task

    result = json.loads((output / "demo.json").read_text(encoding="utf-8"))
    paths = {name: output / "hippocampi" / Path(path).name for name, path in result["overview"].items()}
    session = HeadlessSession()
    scene = session.scene
    image = readVolume(scene, paths["image"], "MNI152")
    heatmap = readVolume(scene, paths["confidence"], "confidence")
    styleHeatmap(heatmap)
    # What is not shown takes no colours: the bar is the part of the map that is seen.
    heatmap.GetDisplayNode().SetWindowLevelMinMax(DEFAULT_THRESHOLD, 100.0)
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "hippocampi")
    classes = Task.from_dict(result["task"]).classes
    loadLabelMap(segmentation, paths["segmentation"], classes, referenceVolume=image)
    picture = output / "demo.png"
    renderSlices(
        image,
        segmentation,
        heatmap,
        picture,
        positionRas=PLACE_RAS,
        size=VIEW_PIXELS,
        title="Hippocampi of the MNI152 template: outlines and estimated difficulty",
        heatmapTitle="Estimated difficulty (percentile)",
    )
    return picture


def main() -> int:
    """Run the jobs, then the picture in a process of its own, so that a graphics driver's crash costs only that."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "demo-output", help="folder that receives everything")
    parser.add_argument("--device", default="auto", help="where to compute: auto, cpu, mps, cuda")
    parser.add_argument("--render", type=Path, metavar="FOLDER", help="only render a demonstration that has run")
    options = parser.parse_args()
    if options.render is not None:
        print(f"Picture: {render(options.render)}")
        return 0
    started = time.monotonic()
    arguments = ["demo", "--output", str(options.output), "--device", options.device]
    code = subprocess.run([sys.executable, "-m", "ForgettableSegLib", *arguments], cwd=ROOT).returncode
    if code:
        return code
    rendering = subprocess.run([sys.executable, __file__, "--render", str(options.output)], cwd=ROOT)
    if rendering.returncode:
        print("The picture could not be rendered; everything else of the demonstration is complete.")
    print(f"The demonstration took {time.monotonic() - started:.0f} s.")
    return rendering.returncode


if __name__ == "__main__":
    sys.exit(main())
