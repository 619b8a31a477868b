"""Fixtures that every test may use, and one thread for everything that would start more."""

from __future__ import annotations

import os
from pathlib import Path

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import numpy as np
import pytest

REAL_DATA = Path(os.environ.get("POSE3D_REAL_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))


@pytest.fixture
def rng() -> np.random.Generator:
    """A generator with a fixed seed, fresh for every test."""
    return np.random.default_rng(20260101)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real recordings; skips the test where it is absent."""
    if not REAL_DATA.is_dir():
        pytest.skip(f"no real recordings at {REAL_DATA} (set POSE3D_REAL_DATA)")
    return REAL_DATA


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where POSE3D_REQUIRE_REAL is set, a test on real recordings that was skipped has failed."""
    report = yield
    if os.environ.get("POSE3D_REQUIRE_REAL") and report.skipped and item.get_closest_marker("real"):
        report.outcome = "failed"
        report.longrepr = f"skipped, although the real recordings are required: {report.longrepr}"
    return report
