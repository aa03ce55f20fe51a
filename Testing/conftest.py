"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from ForgettableSegLib.threads import NUMBER, processors

# One thread a process, those that tests start included: the tests of other processors run beside it. Read by torch.
os.environ.setdefault(NUMBER, "1")
# A process of the tests holds torch, vtk and Qt, about a gigabyte.
MOST_PROCESSES = 8


# On a busy machine any example can be slow once; pytest's own time limit catches what hangs.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real cases beside the project; a user's clone has none, then the test is skipped."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the real cases of ../shared/data, which are not part of a clone")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own, so that no test reads or writes the user's models and caches."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means: a process for each processor that the tests may use."""
    return min(processors(), MOST_PROCESSES)
