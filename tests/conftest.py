"""Fixtures that every folder of tests shares."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

SHARED_TRACES = Path(__file__).resolve().parents[2] / "shared" / "traces"
SHIPPED = Path(__file__).resolve().parents[1] / "gpu_reference" / "shipped"


@pytest.fixture(scope="session")
def shared_file() -> Callable[[str], Path]:
    """Path of a recorded trace beside the checkout; the test is skipped, saying why, where it is absent.

    With FORESTAGE_REQUIRE_SHARED=1 (as in CI) an absent file fails the test instead.
    """

    def find(name: str) -> Path:
        path = SHARED_TRACES / name
        if not path.exists():
            reason = f"needs the recorded trace {name} in ../shared/traces, which this machine lacks"
            if os.environ.get("FORESTAGE_REQUIRE_SHARED") == "1":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find


@pytest.fixture(scope="session")
def shipped_trace() -> Path:
    """Path of the trace that comes with the project."""
    return SHIPPED / "trace.safetensors"
