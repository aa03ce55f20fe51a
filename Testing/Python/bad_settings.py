"""Rows of bad input: training settings, run folders, and other arguments of commands."""

from __future__ import annotations

import os

import numpy as np
from bad_inputs import Good, Row
from case_volumes import noise, save


def _setting(name: str, setting: str, names: str, code: str = "SETTING_INVALID") -> Row:
    """A row that trains with a setting that is wrong."""
    return Row(name, code, names, lambda g: g.train(setting))


def _with(row_name: str, names: str, *arguments: str) -> Row:
    """A row that adds arguments to a segmentation."""
    return Row(row_name, "REQUEST_INVALID", names, lambda g: [*g.segment(g.image), *arguments])


def _run_folder(good: Good, *names: str, content: str = "{}") -> str:
    for name in names:
        good.write(f"run/{name}", content)
    return str(good.folder / "run")


def _dicom_folder(good: Good) -> list[str]:
    folder = good.folder / "series"
    save(folder / "1.dcm", np.zeros((1, 16, 16), np.uint16))
    return [*good.segment(folder)[:4], "--output", str(folder / "results")]


def _over_input(good: Good) -> list[str]:
    """A result that would have the name of the input."""
    image = good.folder / "over" / "bad" / "bad_segmentation.nrrd"
    save(image, noise((2, 16, 16)))
    table = good.write("cases.csv", f"id,image\nbad,{image}")
    return ["segment", str(table), "--model", str(good.model), "--output", str(good.folder / "over"), "--device", "cpu"]


def _output_is_a_file(good: Good) -> list[str]:
    return [*good.segment(good.image)[:4], "--output", str(good.write("file", "x")), "--device", "cpu"]


SETTINGS = (
    _setting("unknown setting", "rate=1", "'rate'"),
    _setting("setting without a value", "rho", "--set rho"),
    _setting("unknown preset", "preset=best", "'preset' is 'best'"),
    _setting("batch of none", "batch_size=0", "'batch_size' is 0"),
    _setting("half a batch", "batch_size=2.5", "'batch_size' is 2.5"),
    _setting("learning rate is text", "learning_rate=fast", "'learning_rate' is 'fast'"),
    _setting("learning rate is NaN", "learning_rate=NaN", "'learning_rate' is nan"),
    _setting("endless minutes", "minutes=Infinity", "'minutes' is inf"),
    _setting("switch is a number", "tgf=1", "'tgf' is 1.*true or false"),
    _setting("setting of nothing", "rho=null", "'rho' is None"),
    _setting("four dimensions", "spatial_dims=4", "'spatial_dims' is 4"),
    _setting("patch of one number", "patch_size=[16]", "'patch_size'.*2 or 3 numbers"),
    _setting("patch is text", "patch_size=large", "'patch_size' is 'large'"),
    _setting("one level", "features=[8]", "'features'"),
    _setting("heads that do not divide", "num_heads=7", "'num_heads' is 7"),
    _setting("ratios without training", "split_ratios=[0,1,1]", "'split_ratios'"),
    _setting("band upside down", "admission_window=[0.9,0.7]", "'admission_window' is .*two rising numbers"),
    _setting("unknown loss", "loss=magic", "'loss' is 'magic'"),
    _setting("unknown auxiliary loss", "aux_loss=more", "'aux_loss' is 'more'"),
    _setting("distributions that nobody learns", "prototypes=scdl", "'prototypes' is 'scdl'.*aux_loss scdl"),
    _setting("memory that is not there", "prototypes=memory", "'prototypes' is 'memory'.*without a memory"),
    _setting("unknown guidance", "guidance=stars", "'guidance' is 'stars'"),
    Row(
        "guidance of label maps",
        "SETTING_INVALID",
        "'guidance' is 'psa'.*synthesis",
        lambda g: g.train("guidance=psa", "synthesis=random"),
    ),
    Row(
        "teacher that is not there",
        "SETTING_INVALID",
        "'unlabelled_ratio' is 1.0.*weight_average",
        lambda g: g.train("unlabelled_ratio=1", "weight_average=0"),
    ),
    _setting("slice axis", "slice_axis=3", "'slice_axis' is 3"),
    _setting("seed below zero", "seed=-1", "'seed' is -1"),
    _setting("share above one", "rho=1.5", "'rho' is 1.5"),
    _setting("unknown device", "device=abacus", "'abacus'", "DEVICE_UNAVAILABLE"),
    Row("text file is missing", "FILE_MISSING", "gone.npz", lambda g: g.train("text=file", "text_path=gone.npz")),
    Row(
        "text without a file",
        "SETTING_INVALID",
        "'file' needs the path",
        lambda g: g.train("text=file"),
    ),
    Row(
        "text file is damaged",
        "FILE_UNREADABLE",
        "bad.npz",
        lambda g: g.train("text=file", f"text_path={g.write('bad.npz', b'PK')}"),
    ),
    Row(
        "name of a model",
        "REQUEST_INVALID",
        "'a/b' cannot be the name",
        lambda g: [*g.train(), "--name", "a/b"],
    ),
    Row(
        "run folder is used",
        "RUN_MISMATCH",
        "run holds a training run already",
        lambda g: (_run_folder(g, "config.json"), g.train())[1],
    ),
    Row(
        "run folder is a file",
        "OUTPUT_UNWRITABLE",
        "file is a file",
        lambda g: [*g.train()[:4], "--run", str(g.write("file", "x"))],
    ),
    Row(
        "run to resume is missing",
        "RUN_MISMATCH",
        "gone holds no training run",
        lambda g: ["resume", str(g.folder / "gone")],
    ),
    Row(
        "run to resume is damaged",
        "RUN_MISMATCH",
        "run holds no training run.*schema",
        lambda g: ["resume", _run_folder(g, "config.json", "split.json")],
    ),
    Row(
        "run of a list",
        "RUN_MISMATCH",
        "run holds no training run.*indices",
        lambda g: ["resume", _run_folder(g, "config.json", "split.json", content="[]")],
    ),
    Row(
        "run of another version",
        "RUN_MISMATCH",
        "run was made by another version",
        lambda g: ["resume", _run_folder(g, "config.json", "split.json", content='{"schema": 99}')],
    ),
)

COMMANDS = (
    _with("device of another kind", "'device'", "--device", "gpu"),
    _with("region upside down", "'region'", "--region", "5", "0", "0", "1", "1", "1"),
    Row("model without a name", "REQUEST_INVALID", "'name' for the action 'show'", lambda g: ["models", "show"]),
    Row(
        "nothing to evaluate",
        "REQUEST_INVALID",
        "'predictions' and 'references'",
        lambda g: ["evaluate", "--output", "o"],
    ),
    Row(
        "comparison without predictions",
        "REQUEST_INVALID",
        "'compare' only together",
        lambda g: ["evaluate", "--output", "o", "--model", "m", "--cases", "c", "--compare", "d"],
    ),
    Row(
        "predictions are missing",
        "FILE_MISSING",
        "folder .*gone does not exist",
        lambda g: [
            "evaluate",
            "--output",
            "o",
            "--predictions",
            str(g.folder / "gone"),
            "--references",
            str(g.table()),
        ],
    ),
    Row(
        "folder without predictions",
        "CASE_LIST_INVALID",
        "run holds no label map",
        lambda g: ["evaluate", "--output", "o", "--predictions", str(g.folder / "run"), "--references", str(g.table())],
    ),
    Row("results among the input", "REQUEST_INVALID", "results lies in the image folder", _dicom_folder),
    Row("result over the input", "REQUEST_INVALID", "bad_segmentation.nrrd, which is an input", _over_input, 1),
    Row("output is a file", "OUTPUT_UNWRITABLE", "file cannot be written", _output_is_a_file),
    Row(
        "GPU that is not there",
        "DEVICE_UNAVAILABLE",
        "GPU",
        lambda g: [*g.segment(g.image), "--device", "cuda:99"],
    ),
    *(
        ()
        if os.name == "nt" or os.geteuid() == 0  # to an administrator everything is readable
        else (
            Row(
                "image without permission",
                "FILE_UNREADABLE",
                "image.nii.gz",
                lambda g: (g.image.chmod(0), g.segment(g.image))[1],
                1,
            ),
        )
    ),
)
