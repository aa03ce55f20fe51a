"""Devices: every name resolves or is refused with a sentence."""

from __future__ import annotations

import pytest
import torch

from ForgettableSegLib.errors import ErrorCode, ForgettableSegError
from ForgettableSegLib.inference.device import device_report, resolve_device


def test_auto_is_the_best_device_of_the_report() -> None:
    report = device_report()
    assert str(resolve_device("auto")) == report["best"]
    assert report["best"] in {entry["name"] for entry in report["devices"]}
    assert report["torch"] == torch.__version__
    cpu = report["devices"][0]
    assert 0 < cpu["memory_free"] < cpu["memory_total"]


def test_cpu_is_always_there() -> None:
    assert resolve_device(" CPU ") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:one", "", "tpu:0"])
def test_unknown_names_are_refused_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(ForgettableSegError, match="no device called") as caught:
        resolve_device(name)
    assert caught.value.code == ErrorCode.DEVICE_UNAVAILABLE
    assert "cuda:0" in caught.value.hint


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has an NVIDIA GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_a_missing_card_is_one_sentence(name: str) -> None:
    with pytest.raises(ForgettableSegError, match="no NVIDIA GPU") as caught:
        resolve_device(name)
    assert caught.value.code == ErrorCode.DEVICE_UNAVAILABLE


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no NVIDIA GPU")
def test_a_card_beyond_the_last_is_refused() -> None:
    with pytest.raises(ForgettableSegError, match="counted from 0"):
        resolve_device(f"cuda:{torch.cuda.device_count()}")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has an Apple GPU")
def test_missing_mps_is_one_sentence() -> None:
    with pytest.raises(ForgettableSegError, match="no Apple GPU"):
        resolve_device("mps")
