"""The sample data are registered as the module Sample Data wants it, and come without a network."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


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


def test_the_sample_is_registered_and_loads(application: Any, scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ForgettableSegGUI import samples

    module = ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    monkeypatch.setattr(SampleDataLogic, "sources", [])
    samples.registerSampleData()
    (source,) = SampleDataLogic.sources
    assert (source["category"], source["name"]) == (samples.CATEGORY, samples.SAMPLE)
    volumes = source["load"](None)
    assert [volume.GetName() for volume in volumes] == ["Synthetic1", "Synthetic2", "Synthetic3"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 3
