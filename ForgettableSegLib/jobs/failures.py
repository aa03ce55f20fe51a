"""Turns whatever a job raises into an error that a user can read."""

from __future__ import annotations

import errno

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(error: BaseException, *, log: str = "") -> ForgettableSegError:
    """Return ``error`` as an error with a code and a plain sentence.

    Args:
        error: what was raised.
        log: path of the file that holds the traceback, named where the sentence alone does not help.
    """
    if isinstance(error, ForgettableSegError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith(__package__.split(".")[0]):
        package = error.name.split(".")[0]
        return ForgettableSegError(
            ErrorCode.PACKAGE_MISSING,
            f"The Python package '{package}' is not installed.",
            hint="Install it in the Setup section of the module, or with pip.",
        )
    if _is_out_of_memory(error):
        return ForgettableSegError(
            ErrorCode.OUT_OF_MEMORY,
            "The memory did not suffice.",
            hint="Close other programs, choose a smaller patch or batch, or another device.",
        )
    if _is_of_other_rank(error):
        return ForgettableSegError(
            ErrorCode.WORKER_DIED,
            "Another process of this job has ended or cannot be reached.",
            hint="Its own messages say why; a training can be resumed with as many processes.",
        )
    if isinstance(error, OSError):
        known = _explain_os_error(error)
        if known is not None:
            return known
    where = f" The details are in {log}." if log else ""
    return ForgettableSegError(
        ErrorCode.INTERNAL,
        f"Something unexpected went wrong ({type(error).__name__}: {_first_line(error)}).{where}",
        hint="Please report it with that file." if log else "",
    )


def _explain_os_error(error: OSError) -> ForgettableSegError | None:
    place = f"'{error.filename}'" if error.filename else "the output folder"
    if error.errno in _DISK_FULL:
        return ForgettableSegError(
            ErrorCode.DISK_FULL,
            f"The disk is full; {place} could not be written.",
            hint="Free some space and try again.",
        )
    if error.errno in _UNWRITABLE:
        return ForgettableSegError(
            ErrorCode.OUTPUT_UNWRITABLE,
            f"Access to {place} was denied.",
            hint="Choose another folder, or ask for the right to use this one.",
        )
    if error.errno == errno.ENAMETOOLONG:
        return ForgettableSegError(
            ErrorCode.REQUEST_INVALID, f"The name {place} is too long for a file.", hint="Use a shorter one."
        )
    if isinstance(error, (NotADirectoryError, IsADirectoryError, FileExistsError)) and error.filename:
        return ForgettableSegError(
            ErrorCode.OUTPUT_UNWRITABLE,
            f"A file stands where a folder is needed, or the other way round: {place}.",
            hint="Choose another output folder.",
        )
    if isinstance(error, FileNotFoundError) and error.filename:
        return ForgettableSegError(ErrorCode.FILE_MISSING, f"The file {place} does not exist.")
    return None


def _is_out_of_memory(error: BaseException) -> bool:
    """Tell without importing torch, whose own class and messages are known by their names."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and (
        "out of memory" in str(error).lower() or "can't allocate memory" in str(error)
    )


def _is_of_other_rank(error: BaseException) -> bool:
    """Tell a failed collective of torch.distributed, whose errors have no class of their own over gloo."""
    if type(error).__name__ in ("DistBackendError", "DistNetworkError"):
        return True
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(".") if lines else "no message"
