"""One Ray for all tests of executors: a process can be of one cluster only."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def cluster():
    """Real Ray on this machine, with two workers."""
    ray = pytest.importorskip("ray")
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    yield
    ray.shutdown()
