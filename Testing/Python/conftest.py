"""Fixtures of the library's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are slower on several threads, and one thread makes sums repeatable."""
    import torch

    torch.set_num_threads(1)
