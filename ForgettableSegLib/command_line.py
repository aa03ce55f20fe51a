"""What may be typed after ``forgettableseg``: a parser a job, every option with its help and its default."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ForgettableSegLib import __version__
from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.jobs.arguments import CONVENTIONS, FILE_FORMATS, MODEL_ACTIONS, SEGMENT_FORMATS

_CASES_HELP = "case list: a dataset folder (MSD, nnU-Net), a MONAI datalist (.json), a .csv, or 'images,labels' folders"
_MODEL_HELP = "name of an installed model, or path of a model package"
_TASK_HELP = "JSON file with modality, channels and classes (default: what the case list says)"
_REVIEWS_HELP = (
    "file of decisions on labels, whose quarantined cases and slices stay out of the training (default: "
    "forgettableseg_review.json beside the cases, if there is one)"
)
_EPILOG = "Exit codes: 0 done, 1 some cases failed, 2 bad request, 130 cancelled."
_OWN = ("job", "json", "collect", "yes")
_SETTING_FLAGS = ("preset", "spatial_dims", "patch_size", "iterations", "epochs", "minutes", "seed", "device")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; ``collect`` of what it returns makes a request's arguments of it."""
    parser = argparse.ArgumentParser(
        prog="forgettableseg",
        description="Segment medical images, see what is hard for the model, and fine-tune it on the hard samples.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(title="commands", dest="job", required=True, metavar="COMMAND")
    for add in (_segment, _train, _finetune, _resume, _evaluate, _audit, _validate, _models, _check, _demo):
        add(commands)
    for add in (_experiment, _figures, _forgetting, _suspects, _rank):
        add(commands)
    commands.add_parser("worker", help="serve jobs over standard streams, for programs (see Documentation/protocol.md)")
    return parser


def _command(
    commands: Any, name: str, summary: str, collect: Callable[[argparse.Namespace], Mapping[str, Any]] = vars
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="print events as lines of JSON (default: text for people)")
    parser.set_defaults(collect=lambda options: _without_own(collect(options)))
    return parser


def _without_own(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in _OWN and value is not None}


def _add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:<number> (default: %(default)s)")


def _segment(commands: Any) -> None:
    parser = _command(commands, "segment", "segment images with a model", _segment_arguments)
    parser.add_argument("input", help="an image, a folder of images, a DICOM folder or a case list")
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    parser.add_argument("--output", required=True, help="folder that receives one subfolder a case and the summary")
    parser.add_argument(
        "--no-heatmap",
        dest="heatmap",
        action="store_false",
        help="leave the maps of difficulty and the review out (default: they are written)",
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also write the probability of every class (default: the label map only)",
    )
    parser.add_argument(
        "--format",
        dest="file_format",
        choices=SEGMENT_FORMATS,
        default=FILE_FORMATS[0],
        help="of the volumes; dicom-seg writes a DICOM Segmentation where the input is a DICOM series, and needs the "
        "extra 'dicom' (default: %(default)s)",
    )
    parser.add_argument(
        "--preview",
        action="store_true",
        help="also write a picture of every case: three planes through what was found, outlined; needs the extra "
        "'report' (default: none)",
    )
    box = parser.add_mutually_exclusive_group()
    corners = ("X0", "Y0", "Z0", "X1", "Y1", "Z1")
    box.add_argument(
        "--region",
        type=int,
        nargs=6,
        metavar=corners,
        help="segment only this box of voxel indices, counted from 0 in the file's order; the second corner is not in "
        "the box, so 0 0 0 10 10 10 are the first ten voxels of each axis (default: the whole image)",
    )
    box.add_argument(
        "--region-mm",
        type=float,
        nargs=6,
        metavar=corners,
        help="the same in millimetres of DICOM's frame, which runs to the patient's left, back and head (LPS), as "
        "position_lps in a review; of RAS, as Slicer shows it, turn the signs of X and Y; every voxel whose centre "
        "lies in the box, ends included (default: the whole image)",
    )
    parser.add_argument(
        "--anyway",
        action="store_true",
        help="segment a volume as it is, however much larger it is than those that the model has learnt "
        "(default: let the model's locator find its regions, or refuse it)",
    )
    _add_device(parser)


def _segment_arguments(options: argparse.Namespace) -> dict[str, Any]:
    arguments = vars(options).copy()
    for name in ("region", "region_mm"):
        corners = arguments[name]
        arguments[name] = corners and [corners[:3], corners[3:]]
    return arguments


def _train(commands: Any) -> None:
    parser = _command(commands, "train", "train a model from scratch", _training_arguments)
    folds = "train once a fold, each held out once, and export the average; given again, it goes on (default: no folds)"
    parser.add_argument("--folds", type=int, metavar="N", help=folds)
    _add_training(parser)


def _finetune(commands: Any) -> None:
    parser = _command(commands, "finetune", "go on training a model on your own cases", _training_arguments)
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    _add_training(parser)


def _add_training(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", help=_CASES_HELP)
    # The second name is for torchrun, which takes `--run` for a short form of two options of its own.
    parser.add_argument("--run", "--run-folder", required=True, help="folder of the run, new or empty")
    parser.add_argument("--task", help=_TASK_HELP)
    parser.add_argument("--name", help="of the model that comes out (default: that of the run folder)")
    parser.add_argument("--reviews", metavar="JSON", help=_REVIEWS_HELP)
    settings = parser.add_argument_group("settings")
    settings.add_argument("--preset", help="recommended or paper (default: recommended)")
    settings.add_argument(
        "--spatial-dims", type=int, help="2 (slices) or 3 (volumes) (default: 3 where a patch holds a case)"
    )
    settings.add_argument(
        "--patch-size",
        type=int,
        nargs="+",
        metavar="N",
        help="voxels, one number an axis of the patch (default: the median slice, in multiples of 16 up to 256)",
    )
    settings.add_argument("--iterations", type=int, metavar="N", help="length of the training (default: 2000)")
    settings.add_argument(
        "--epochs", type=int, metavar="N", help="length in epochs instead (default: none, iterations count)"
    )
    settings.add_argument(
        "--minutes", type=float, metavar="T", help="length in minutes instead (default: none, iterations count)"
    )
    settings.add_argument("--seed", type=int, metavar="N", help="same seed, data and machine: same model (default: 0)")
    settings.add_argument("--device", help="auto, cpu, mps, cuda or cuda:<number> (default: auto)")
    _add_set(settings)


def _add_set(parser: Any) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other training setting (Documentation/settings.md); the value is JSON or text; may be given often "
        "(default: the preset's values)",
    )


def _training_arguments(options: argparse.Namespace) -> dict[str, Any]:
    arguments = vars(options).copy()
    settings = {name: arguments.pop(name) for name in _SETTING_FLAGS}
    settings = {name: value for name, value in settings.items() if value is not None}
    settings |= _assigned(arguments.pop("set"))
    return {**arguments, "settings": settings}


def _assigned(assignments: Sequence[str]) -> dict[str, Any]:
    settings = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            message = f"'--set {assignment}' is not of the form NAME=VALUE."
            raise ForgettableSegError(ErrorCode.SETTING_INVALID, message)
        settings[name] = _value(value)
    return settings


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _resume(commands: Any) -> None:
    parser = _command(commands, "resume", "go on with a training that was cancelled or cut off")
    parser.add_argument("run", help="folder of the run")


def _evaluate(commands: Any) -> None:
    parser = _command(commands, "evaluate", "compare segmentations with references")
    parser.add_argument("--predictions", help="folder of label maps (default: none, --model makes them)")
    parser.add_argument(
        "--references", help="folder of label maps, or a case list; with --predictions (default: none, see --cases)"
    )
    parser.add_argument(
        "--compare",
        help="second folder of label maps, for a paired comparison; with --predictions (default: no comparison)",
    )
    parser.add_argument("--model", help=f"{_MODEL_HELP}; with --cases (default: none, see --predictions)")
    parser.add_argument("--cases", help=f"{_CASES_HELP}; with --model (default: none, see --references)")
    parser.add_argument("--task", help="JSON file with the classes (default: what references or model say)")
    parser.add_argument("--output", required=True, help="folder that receives the report")
    parser.add_argument(
        "--convention",
        choices=CONVENTIONS,
        default=CONVENTIONS[0],
        help="how absent structures and distances are counted: as here, or as another program does "
        "(default: %(default)s)",
    )
    _add_device(parser)


def _audit(commands: Any) -> None:
    parser = _command(commands, "audit", "show where labelled cases are hard for a model or labelled doubtfully")
    parser.add_argument("cases", help=_CASES_HELP)
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    parser.add_argument("--output", required=True, help="folder that receives one subfolder a case")
    parser.add_argument(
        "--format",
        dest="file_format",
        choices=FILE_FORMATS,
        default=FILE_FORMATS[0],
        help="of the volumes (default: %(default)s)",
    )
    _add_device(parser)


def _validate(commands: Any) -> None:
    parser = _command(commands, "validate", "look for everything that would spoil a training on these cases")
    parser.add_argument("cases", help=_CASES_HELP)
    parser.add_argument("--task", help=_TASK_HELP)
    parser.add_argument(
        "--model", help="model that is to be fine-tuned on them, whose classes are then meant (default: none)"
    )


_MODELS_SUMMARY = "list, show, install, export or remove models, or add a locator to one"
_LOCATOR_FLAGS = ("template", "regions", "mask")


def _models(commands: Any) -> None:
    parser = _command(commands, "models", _MODELS_SUMMARY, _models_arguments)
    parser.add_argument("action", choices=MODEL_ACTIONS, help="what to do")
    parser.add_argument("model", nargs="?", help="name of the model; for install, the package")
    parser.add_argument("path", nargs="?", help="for export, the .zip or folder to write")
    parser.add_argument(
        "--yes", action="store_true", help="remove without asking (default: ask where there is a terminal)"
    )
    locator = parser.add_argument_group("for locate (Documentation/locator.md)")
    locator.add_argument(
        "--template", metavar="IMAGE", help="image in which the regions lie; for locate (default: none)"
    )
    locator.add_argument(
        "--regions", metavar="JSON", help="file with name, box and side of each region; for locate (default: none)"
    )
    locator.add_argument(
        "--mask", metavar="IMAGE", help="label map: only what it covers is compared (default: all that is not air)"
    )
    locator.add_argument("--output", metavar="PACKAGE", help="the .zip or folder to write; for locate (default: none)")


def _models_arguments(options: argparse.Namespace) -> dict[str, Any]:
    if options.action == "install":
        return {"action": options.action, "path": options.model}
    place = {"name": options.model, "path": options.output if options.action == "locate" else options.path}
    return {"action": options.action, **place, **{name: getattr(options, name) for name in _LOCATOR_FLAGS}}


def _check(commands: Any) -> None:
    _add_device(_command(commands, "check", "say which versions and devices there are, and compute for a moment"))


def _demo(commands: Any) -> None:
    parser = _command(commands, "demo", "segment a real brain and fine-tune a small model")
    parser.add_argument(
        "--output", default="demo-output", help="folder that receives what it makes (default: %(default)s)"
    )
    _add_device(parser)


def _experiment(commands: Any) -> None:
    parser = _command(commands, "experiment", "train the variants of a plan and compare them", _experiment_arguments)
    parser.add_argument("plan", help="a ready experiment (table1 to table8, fusion, ...), or a JSON file with a plan")
    parser.add_argument("--cases", required=True, help=_CASES_HELP)
    parser.add_argument("--output", required=True, help="folder that receives runs and results; run again to go on")
    parser.add_argument("--task", help=_TASK_HELP)
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do the I-th of N parts of the runs, beside other processes (default: all; under torchrun the rank's)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="of the trainings (default: the plan's)")
    parser.add_argument("--iterations", type=int, metavar="N", help="of every run (default: the plan's)")
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="only these (default: all of the plan)")
    _add_set(parser)
    _add_device(parser)


def _experiment_arguments(options: argparse.Namespace) -> dict[str, Any]:
    arguments = vars(options).copy()
    settings = _assigned(arguments.pop("set"))
    return {**arguments, "settings": settings}


def _figures(commands: Any) -> None:
    parser = _command(commands, "figures", "draw curves, errors, class activation and the bank of a finished run")
    parser.add_argument("run", help="folder of the run")
    parser.add_argument("--output", required=True, help="folder that receives the figures")
    parser.add_argument(
        "--cases", type=int, default=4, metavar="N", help="how many, the worst first (default: %(default)s)"
    )
    _add_device(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", required=True, help="folder that receives tables and report")
    parser.add_argument(
        "--no-images",
        dest="images",
        action="store_false",
        help="leave every picture out of the report (default: pictures of slices are in it)",
    )


def _forgetting(commands: Any) -> None:
    parser = _command(commands, "forgetting", "tell what a training learnt, forgot and never learnt")
    parser.add_argument("run", help="folder of the run")
    _add_report(parser)


def _suspects(commands: Any) -> None:
    summary = "rank slices, regions and cases by how probably their labels are wrong"
    parser = _command(commands, "suspects", summary)
    parser.add_argument(
        "--run",
        "--run-folder",
        help="folder of a run or of folds: each case is judged by the model that held it out (default: none, see "
        "--model)",
    )
    parser.add_argument("--model", help=f"{_MODEL_HELP}, that has not learnt the cases; with --cases (default: none)")
    parser.add_argument("--cases", help=f"{_CASES_HELP}; with --model (default: none, see --run)")
    parser.add_argument(
        "--reviews",
        metavar="JSON",
        help="file of decisions, whose places are not listed again (default: forgettableseg_review.json beside the "
        "labels, if there is one)",
    )
    parser.add_argument(
        "--budget", type=int, default=200, metavar="N", help="slices and regions to list at most (default: %(default)s)"
    )
    _add_report(parser)
    _add_device(parser)


def _rank(commands: Any) -> None:
    parser = _command(commands, "rank", "rank unlabelled cases by what is worth labelling next")
    parser.add_argument("cases", help=f"{_CASES_HELP}, or a folder of images; labelled cases are passed over")
    parser.add_argument("--model", required=True, help=_MODEL_HELP)
    parser.add_argument(
        "--budget", type=int, default=10, metavar="N", help="how many cases to ask for (default: %(default)s)"
    )
    parser.add_argument(
        "--reviews",
        metavar="JSON",
        help="file that remembers what was asked for (default: forgettableseg_review.json beside the images)",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="also rank cases that were asked for with the same model before (default: they are passed over)",
    )
    _add_report(parser)
    _add_device(parser)
