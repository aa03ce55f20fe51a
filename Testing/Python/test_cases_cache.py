"""Prepared cases on disk: keyed by content, whole or absent, safe between processes, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from case_volumes import TASK, blocks, grid, noise, save, save_case

from ForgettableSegLib.cases.cache import CaseCache, PreparedCase
from ForgettableSegLib.cases.case import Case
from ForgettableSegLib.cases.content import content_key, file_key
from ForgettableSegLib.cases.findings import Finding, FindingCode, hearing
from ForgettableSegLib.cases.preprocessing import Preprocessing, prepare_case, restore_scalar
from ForgettableSegLib.cases.task import SegmentClass, Task
from ForgettableSegLib.errors import Cancelled, ErrorCode, ForgettableSegError

PLAN = Preprocessing(spatial_dims=2, modality="MR", slice_axis=0, spacing=(None, 1.25, 1.25))


def entries(root: Path) -> list[Path]:
    return sorted(path for folder in root.iterdir() for path in folder.iterdir())


def prepare(root: Path, *cases: Case, task: Task = TASK, plan: Preprocessing = PLAN, **options) -> list[PreparedCase]:
    return CaseCache(root).prepare(cases, task, plan, **options)


def assert_equals(cached: PreparedCase, case: Case) -> None:
    fresh = prepare_case(case, TASK, PLAN)
    np.testing.assert_array_equal(cached.image, fresh.image)
    np.testing.assert_array_equal(cached.label, fresh.label)
    assert cached.grid == fresh.grid


def test_cached_case_is_the_prepared_case(tmp_path: Path):
    case = save_case(tmp_path, "a")
    for _ in range(2):
        (cached,) = prepare(tmp_path / "cache", case)
        assert (cached.case_id, cached.group, cached.key) == ("a", "a", content_key(case))
        assert isinstance(cached.image, np.memmap)
        assert isinstance(cached.label, np.memmap)
        assert not cached.image.flags.writeable
        assert cached.spacing == cached.grid.spacing
        assert_equals(cached, case)
    assert restore_scalar(cached.label, cached).shape == (6, 8, 10)


def test_what_was_mended_is_told_again_of_the_files_as_they_are_called_now(tmp_path: Path):
    own, coarse = grid((6, 8, 10)), grid((3, 4, 5), spacing=(2.0, 2.0, 2.0))
    told = []
    for folder in ("first", "second"):
        path = tmp_path / folder
        path.mkdir()
        image = save(path / "image.nrrd", noise(own.shape), own)
        case = Case(folder, folder, (image,), save(path / "label.nrrd", blocks(coarse.shape), coarse))
        heard: list[Finding] = []
        with hearing(heard.append):
            prepare(tmp_path / "cache", case)
        (finding,) = heard
        assert (finding.code, finding.case_id) == (FindingCode.GRID_RESAMPLED, folder)
        told.append(finding.message)
    assert len(entries(tmp_path / "cache")) == 1
    assert str(tmp_path / "first") not in told[1]
    assert told[1] == told[0].replace(str(tmp_path / "first"), str(tmp_path / "second"))


def test_second_time_writes_nothing(tmp_path: Path):
    case = save_case(tmp_path, "a")
    prepare(tmp_path / "cache", case)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")}
    prepare(tmp_path / "cache", case)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*")} == before


def test_foreground_samples_are_voxels_of_their_class(tmp_path: Path):
    case = save_case(tmp_path, "a", shape=(12, 40, 40))
    (cached,) = prepare(tmp_path / "cache", case)
    assert set(cached.foreground) == {1, 2}
    for index, voxels in cached.foreground.items():
        assert voxels.dtype == np.int32
        assert len(voxels) == len(np.unique(voxels, axis=0)) == min(2000, np.count_nonzero(cached.label == index))
        assert (cached.label[tuple(voxels.T)] == index).all()
        assert set(np.unique(voxels[:, 0])) == set(range(12))
    shutil.rmtree(tmp_path / "cache")
    (again,) = prepare(tmp_path / "cache", case)
    np.testing.assert_array_equal(again.foreground[2], cached.foreground[2])


def test_many_foreground_voxels_are_sampled(tmp_path: Path):
    case = save_case(tmp_path, "a", shape=(16, 60, 60))
    (cached,) = prepare(tmp_path / "cache", case)
    assert np.count_nonzero(cached.label == 1) > 2000
    assert len(cached.foreground[1]) == 2000


def test_unlabelled_and_empty_cases(tmp_path: Path):
    case = save_case(tmp_path, "a")
    (unlabelled,) = prepare(tmp_path / "cache", replace(case, label=None))
    assert unlabelled.label is None
    assert unlabelled.foreground == {}
    save(case.label, np.zeros((6, 8, 10), np.uint8), grid((6, 8, 10)))
    (empty,) = prepare(tmp_path / "cache", case)
    assert not empty.label.any()
    assert empty.foreground == {}
    for one in (unlabelled, empty):
        one.release()


def test_same_content_under_other_names_is_stored_once(tmp_path: Path):
    case = save_case(tmp_path, "a")
    links = []
    for number in range(5):
        image, label = (tmp_path / f"{kind}{number}.nii.gz" for kind in ("i", "l"))
        os.symlink(case.images[0], image)
        shutil.copy(case.label, label)
        links.append(Case(f"link{number}", "p", (image,), label))
    prepared = prepare(tmp_path / "cache", case, *links)
    assert [one.case_id for one in prepared] == ["a", "link0", "link1", "link2", "link3", "link4"]
    assert len(entries(tmp_path / "cache")) == 1


def test_changed_content_or_settings_give_another_entry(tmp_path: Path):
    case, root = save_case(tmp_path, "a"), tmp_path / "cache"
    prepare(root, case)
    save(case.images[0], noise((6, 8, 10), 5), grid((6, 8, 10)))
    (changed,) = prepare(root, case)
    assert_equals(changed, case)
    assert len(entries(root)) == 2
    prepare(root, case, plan=replace(PLAN, slice_axis=1, spacing=(None,) * 3))
    assert len(entries(root)) == 3
    swapped = Task("knee", "MR", ("T1",), TASK.classes[::-1])
    (other,) = prepare(root, case, task=swapped)
    np.testing.assert_array_equal(other.label == 1, changed.label == 2)
    assert len(entries(root)) == 4
    renamed = Task("other", "MR", ("T2",), (SegmentClass("x", 1, "prompt", (1, 2, 3)), SegmentClass("y", 4)))
    prepare(root, case, task=renamed)
    assert len(entries(root)) == 4


def test_image_and_label_do_not_stand_for_each_other(tmp_path: Path):
    case = save_case(tmp_path, "a")
    assert content_key(case) != content_key(replace(case, images=(case.label,), label=case.images[0]))
    assert content_key(case) != content_key(replace(case, images=case.files, label=None))


def test_detached_voxels_count_as_content(tmp_path: Path):
    path = save(tmp_path / "a.mhd", noise((3, 4, 5)))
    before = file_key(path)
    save(path, noise((3, 4, 5), 1))
    assert file_key(path) != before


def test_dicom_key_ignores_the_folder_name(shared_data: Path, tmp_path: Path):
    source = shared_data / "DicomBrain/HippocampusCrop"
    copy = shutil.copytree(source, tmp_path / "copy")
    assert file_key(copy) == file_key(source)
    (copy / "3.dcm").unlink()
    assert file_key(copy) != file_key(source)


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: (entry / "image.npy").unlink(),
        lambda entry: (entry / "case.json").unlink(),
        lambda entry: (entry / "case.json").write_text("{"),
        lambda entry: (entry / "case.json").write_text("[]"),
        lambda entry: (entry / "label.npy").write_bytes((entry / "label.npy").read_bytes()[:-5]),
        lambda entry: (entry / "image.npy").write_bytes(bytes((entry / "image.npy").stat().st_size)),
        lambda entry: (entry / "foreground.npy").write_bytes(b"x"),
    ],
)
def test_damaged_entry_is_made_again(tmp_path: Path, damage):
    case, root = save_case(tmp_path, "a"), tmp_path / "cache"
    prepare(root, case)
    damage(entries(root)[0])
    (cached,) = prepare(root, case)
    assert_equals(cached, case)
    assert set(cached.foreground) == {1, 2}
    assert len(entries(root)) == 1


def test_bad_case_is_told_and_the_others_go_on(tmp_path: Path):
    good, bad, last = (save_case(tmp_path, name, seed=n) for n, name in enumerate(("good", "bad", "last")))
    save(bad.label, blocks((6, 8, 10)) * 2, grid((6, 8, 10)))
    told = []
    prepared = prepare(
        tmp_path / "cache", good, bad, last, on_error=lambda case, error: told.append((case.case_id, error))
    )
    assert [one.case_id for one in prepared] == ["good", "last"]
    ((case_id, error),) = told
    assert case_id == "bad"
    assert error.code is ErrorCode.CASE_INVALID
    with pytest.raises(ForgettableSegError, match="does not know: 2, 8"):
        prepare(tmp_path / "cache", good, bad)
    missing = replace(good, images=(tmp_path / "none.nii.gz",))
    with pytest.raises(ForgettableSegError, match="does not exist"):
        prepare(tmp_path / "cache", missing)


def test_progress_can_cancel(tmp_path: Path):
    cases = [save_case(tmp_path, name, seed=n) for n, name in enumerate("abc")]
    steps = []

    def progress(*step: object) -> None:
        steps.append(step)
        if step[0] == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        prepare(tmp_path / "cache", *cases, progress=progress)
    assert steps == [(0, 3, "a"), (1, 3, "b"), (2, 3, "c")]
    assert len(entries(tmp_path / "cache")) == 2


def test_what_a_killed_process_left_is_removed_when_it_is_old(tmp_path: Path):
    case, root = save_case(tmp_path, "a"), tmp_path / "cache"
    prepare(root, case)
    (settings,) = root.iterdir()
    old, new = settings / ".old-1", settings / ".new-1"
    for folder in (old, new):
        folder.mkdir()
        (folder / "image.npy").touch()
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    prepare(root, case)
    assert not old.exists()
    assert new.exists()


def test_cache_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "file").touch()
    case = save_case(tmp_path, "a")
    with pytest.raises(ForgettableSegError, match="another folder for the cache") as caught:
        prepare(tmp_path / "file", case, on_error=lambda *_: None)
    assert caught.value.code is ErrorCode.OUTPUT_UNWRITABLE


RUN = """
import json, sys
from pathlib import Path
from ForgettableSegLib.cases.cache import CaseCache
from ForgettableSegLib.cases.case_list import read_case_list
from ForgettableSegLib.cases.preprocessing import Preprocessing
from ForgettableSegLib.cases.task import Task
from ForgettableSegLib.errors import ForgettableSegError
{setup}
folder, root, task, plan = sys.argv[1:]
try:
    done = CaseCache(Path(root)).prepare(
        read_case_list(folder), Task.from_dict(json.loads(task)), Preprocessing.from_dict(json.loads(plan)),
        on_error=lambda case, error: print("left out", case.case_id),
    )
    total = 0.0
    for one in done:
        total += float(one.image.sum()) + int(one.label.sum())
        one.release()
    print(total, len(done))
except ForgettableSegError as error:
    print(error.code)
"""


def start(folder: Path, root: Path, setup: str = "") -> subprocess.Popen:
    arguments = [str(folder), str(root), json.dumps(TASK.to_dict()), json.dumps(PLAN.to_dict())]
    command = [sys.executable, "-c", RUN.format(setup=setup), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_may_prepare_the_same_cases_at_once(tmp_path: Path):
    for number in range(12):
        save_case(tmp_path / "data", f"c{number}", seed=number)
    runs = [start(tmp_path / "data", tmp_path / "cache") for _ in range(3)]
    results = [run.communicate(timeout=120)[0] for run in runs]
    assert len(set(results)) == 1
    assert results[0].split()[1] == "12"
    assert len(entries(tmp_path / "cache")) == 12


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files with POSIX rlimits")
def test_full_disk_leaves_nothing_half_written(tmp_path: Path):
    save_case(tmp_path / "data", "small")
    save_case(tmp_path / "data", "tall", shape=(40, 40, 40))
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))"
    assert start(tmp_path / "data", tmp_path / "cache", limit).communicate(timeout=120)[0].strip() == "DISK_FULL"
    (entry,) = entries(tmp_path / "cache")
    assert {path.name for path in entry.iterdir()} == {"image.npy", "label.npy", "foreground.npy", "case.json"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads resident memory as Linux counts it")
def test_release_gives_memory_back(tmp_path: Path):
    case = save_case(tmp_path, "a", shape=(64, 256, 256))
    (cached,) = prepare(tmp_path / "cache", case, plan=replace(PLAN, spacing=(None,) * 3))
    size = cached.image.nbytes + cached.label.nbytes
    cached.release()
    before = psutil.Process().memory_info().rss
    assert float(cached.image.max()) > 0
    assert int(cached.label.max()) == 2
    assert psutil.Process().memory_info().rss - before > 0.8 * size
    cached.release()
    assert psutil.Process().memory_info().rss - before < 0.2 * size
    assert int(cached.label.max()) == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads resident memory as Linux counts it")
def test_memory_does_not_grow_with_the_number_of_cases(tmp_path: Path):
    """Twelve cases of 11 MB may not take more than three do, be it while they are prepared or while they are read."""
    shape = (64, 192, 192)
    for number in range(12):
        for folder in ("few", "many") if number < 3 else ("many",):
            save(tmp_path / folder / "images" / f"c{number:02d}.nii", noise(shape, number))
            save(tmp_path / folder / "labels" / f"c{number:02d}.nii", blocks(shape))
    # Not ru_maxrss, which begins at the resident memory of the process that forked.
    peak = "import atexit; atexit.register(lambda: print(Path('/proc/self/status').read_text().split('VmHWM:')[1]))"
    used = {
        folder: int(
            start(tmp_path / folder, tmp_path / "cache" / folder, peak)
            .communicate(timeout=120)[0]
            .split("\n")[1]
            .split()[0]
        )
        for folder in ("few", "many")
    }
    assert used["many"] < 1.1 * used["few"]
