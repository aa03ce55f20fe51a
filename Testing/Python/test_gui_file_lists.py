"""What CMake packages is what is in the tree, and the installed tree works from elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing"))

import make_file_lists  # noqa: E402

from ForgettableSegLib.worker.client import SubprocessTransport, WorkerClient  # noqa: E402

# Slicer's macros, cut down to what decides which file lands where.
SLICER_CONFIG = """
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/Empty.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/Empty.cmake")
"""
USE_SLICER = """
set(_modules lib/Slicer-5.13/qt-scripted-modules)
macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "Unknown keywords: ${MY_UNPARSED_ARGUMENTS}")
  endif()
  foreach(file ${MY_SCRIPTS} ${MY_RESOURCES})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      message(FATAL_ERROR "nonexistent file '${file}'")
    endif()
    get_filename_component(folder ${file} DIRECTORY)
    install(FILES ${file} DESTINATION ${_modules}/${folder})
  endforeach()
endmacro()
function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${MY_SCRIPT})
    message(FATAL_ERROR "nonexistent test '${MY_SCRIPT}'")
  endif()
endfunction()
"""


def listed(path: Path) -> Iterator[str]:
    """The files that a list names."""
    body = path.read_text(encoding="utf-8").partition("set(")[2].partition("\n")[2].rpartition("  )")[0]
    yield from body.split()


@pytest.mark.parametrize("path", make_file_lists.LISTS, ids=str)
def test_the_list_is_what_is_on_the_disk(path: Path) -> None:
    expected = make_file_lists.text(*make_file_lists.LISTS[path])
    assert (ROOT / path).read_text(encoding="utf-8") == expected, "run python3 Testing/make_file_lists.py"


def test_the_catalogue_entry_fits_the_extension() -> None:
    entry = json.loads((ROOT / "ForgettableSeg.json").read_text(encoding="utf-8"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    assert re.search(r"^project\((\w+)\)$", cmake, re.MULTILINE)[1] == "ForgettableSeg"
    assert entry["build_dependencies"] == re.search(r'set\(EXTENSION_DEPENDS "(.+)"\)', cmake)[1].split()
    assert entry["category"] == "Segmentation"
    assert entry["scm_url"].rpartition("/")[2].startswith("Slicer")
    optional = {"$schema", "build_subdirectory", "scm_revision", "tier"}
    assert set(entry) == optional | {"build_dependencies", "category", "scm_url"}
    for name in ("ICONURL", "SCREENSHOTURLS"):
        url = re.search(rf'^set\(EXTENSION_{name} "(\S+)"\)$', cmake, re.MULTILINE)[1]
        assert url.endswith(".png")
        assert (ROOT / url.partition("/main/")[2]).is_file()


def test_the_requirements_of_slicer_are_those_of_the_library_without_what_slicer_has() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    in_slicer = {"numpy", "scipy", "SimpleITK", "torch"}
    wanted = {line for line in project["dependencies"] if re.match(r"[\w.-]+", line)[0] not in in_slicer}
    lines = (ROOT / "Resources/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == wanted


def copied_tree(target: Path) -> Path:
    """The files of all lists where Slicer's build would put them."""
    modules = target / "lib" / "Slicer-5.13" / "qt-scripted-modules"
    for path, (_variable, _folder, base, _endings) in make_file_lists.LISTS.items():
        for name in listed(ROOT / path):
            (modules / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / base / name, modules / name)
    return modules


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of scripted modules of an installation: made by CMake where there is one, else by copying."""
    target = tmp_path_factory.mktemp("install")
    if shutil.which("cmake") is None:
        return copied_tree(target)
    slicer, build = tmp_path_factory.mktemp("slicer"), tmp_path_factory.mktemp("build")
    (slicer / "SlicerConfig.cmake").write_text(SLICER_CONFIG, encoding="utf-8")
    (slicer / "UseSlicer.cmake").write_text(USE_SLICER, encoding="utf-8")
    (slicer / "Empty.cmake").write_text("", encoding="utf-8")
    options = [f"-DSlicer_DIR={slicer}", "-DBUILD_TESTING=ON", f"-DCMAKE_INSTALL_PREFIX={target}"]
    for command in (["cmake", "-S", str(ROOT), "-B", str(build), *options], ["cmake", "--install", str(build)]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return target / "lib" / "Slicer-5.13" / "qt-scripted-modules"


def run_in(folder: Path, code: str, home: Path) -> str:
    """Run Python with only the installed folder on its path, as Slicer does."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(folder)!r})\n{code}"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_cmake_installs_exactly_the_lists(installed: Path, tmp_path: Path) -> None:
    expected = copied_tree(tmp_path)
    by_list = {path.relative_to(expected) for path in expected.rglob("*") if path.is_file()}
    assert {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()} == by_list
    assert {"ForgettableSeg.py", "ForgettableSegLib/worker/process.py", "Resources/UI/ForgettableSeg.ui"} <= {
        path.as_posix() for path in by_list
    }


def test_the_installed_library_finds_its_resources(installed: Path, tmp_path: Path) -> None:
    code = "from ForgettableSegLib.resources import resources_dir; print(resources_dir())"
    assert run_in(installed, code, tmp_path) == str(installed / "Resources")


def test_the_installed_worker_answers_when_started_by_its_path(installed: Path) -> None:
    worker = installed / "ForgettableSegLib" / "worker" / "process.py"
    transport = SubprocessTransport([sys.executable, "-u", str(worker)])
    client, events = WorkerClient(transport), []
    client.submit("models", {"action": "list"}, events.append)
    while client.is_busy():
        transport.pump(0.2)
        client.tick()
    client.shutdown()
    assert [event["event"] for event in events] == ["started", "done"]
    assert "models" in events[-1]["result"]


def test_the_installed_nodes_can_be_imported(installed: Path, tmp_path: Path) -> None:
    pytest.importorskip("slicer", reason="needs the slicer-core wheel (extra `slicer`)")
    code = "import ForgettableSegMRML.segmentations, ForgettableSegGUI.results as r; print(r.__file__)"
    assert Path(run_in(installed, code, tmp_path)).is_relative_to(installed)
