"""The sample data are registered as the module Sample Data wants it, and come without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from ForgettableSegLib.errors import ForgettableSegError
from ForgettableSegLib.jobs.demo_data import HIPPOCAMPUS_CENTRES

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


class SampleDataLogic:
    """Takes the arguments that Slicer's own class takes, and checks them as that does."""

    sources: list[dict[str, Any]] = []  # noqa: RUF012

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileType: str = "VolumeFile",
        loadFiles: bool | None = None,
        loadFileProperties: Any = None,
        checksums: Any = None,
    ) -> None:
        """Keep a source."""
        assert all(isinstance(each, str) for each in (uris, fileNames, nodeNames))
        SampleDataLogic.sources.append({"category": category, "name": sampleName, "load": customDownloader})


@pytest.fixture
def source(application: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The source that the module registers; volumes are loaded by its own reader."""
    import slicer
    from ForgettableSegGUI import samples
    from ForgettableSegMRML.volumes import readVolume

    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    monkeypatch.setattr(SampleDataLogic, "sources", [])
    monkeypatch.setattr(slicer.util, "loadVolume", lambda path, properties: readVolume(scene, path, properties["name"]))
    samples.registerSampleData()
    (registered,) = SampleDataLogic.sources
    return registered


def test_a_real_head_is_registered_and_shown(source: dict[str, Any], application: Any) -> None:
    from ForgettableSegGUI import samples

    assert (source["category"], source["name"]) == (samples.CATEGORY, samples.SAMPLE)
    application.opened.clear()
    (volume,) = source["load"](None)
    assert volume.GetName() == samples.SAMPLE
    assert application.opened == [{"background": volume, "fit": True}]
    assert volume.GetSpacing() == (1.0, 1.0, 1.0)
    bounds = [0.0] * 6
    volume.GetRASBounds(bounds)
    for centre in HIPPOCAMPUS_CENTRES.values():
        assert all(bounds[2 * axis] + 30 < centre[axis] < bounds[2 * axis + 1] - 30 for axis in range(3))


def test_a_damaged_sample_is_refused_in_a_sentence(
    source: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from ForgettableSegGUI import samples

    monkeypatch.setattr(samples, "resources_dir", lambda: tmp_path)
    with pytest.raises(ForgettableSegError, match="is missing or damaged"):
        source["load"](None)


def test_the_sample_is_the_template_of_nilearn() -> None:
    pytest.importorskip("nilearn", reason="needs nilearn (extra `demo`)")
    import make_sample_data

    shipped = sitk.ReadImage(str(make_sample_data.FILE))
    made = make_sample_data.sample()
    assert shipped.GetOrigin() == made.GetOrigin()
    assert np.array_equal(sitk.GetArrayFromImage(shipped), sitk.GetArrayFromImage(made))
