"""The tiny model, loaded once for each file of tests that asks for it, and the shipped videos and questions."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# every run tries the same cases, but for `make soak`
settings.register_profile("same", derandomize=True, database=None)
settings.load_profile("default" if os.environ.get("STLITE_SEARCH") else "same")

DATA = Path(__file__).parent.parent / "sample_data"


@pytest.fixture(scope="session")
def videos() -> Path:
    """Return the root of the shipped videos."""
    return DATA / "videos"


@pytest.fixture(scope="session")
def training(videos) -> list:
    """Return the 63 shipped training samples."""
    from stlite.data.egost import read_rows

    return list(read_rows(DATA / "train" / "total_test_mcq_63.jsonl", videos=videos))


@pytest.fixture(scope="module")
def tiny():
    """Load the tiny model in nf4, with its processor."""
    from stlite.train.models import load

    return load("tiny")
