"""Everything in the README is run, as it stands and in its order, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from asking import answer
from model_server import ModelServer

from nscore.cli.metrics import markdown

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def run(tmp_path):
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "PYTHONWARNINGS": "error"}

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    return run


def test_commands_and_code_run_in_their_order(run, tmp_path):
    code = ""
    # of the likeliest tokens three are enough here: fifteen take the little model seconds
    with ModelServer(answer=answer, max_logprobs=3) as server:
        for kind, written in [*BLOCKS, ("end", "")]:
            text = written.replace("http://localhost:8000/v1", server.base_url)
            if kind == "python":
                code += text
            elif kind in {"bash", "end"} and not text.startswith("pip install"):
                (tmp_path / "readme.py").write_text(code)
                run(sys.executable, "readme.py")
                run("bash", "-euc", text)
        assert server.n_requests
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "simulated.parquet",
        "scores.parquet",
        "sequence_scores.parquet",
    }


def test_demo_prints_what_the_readme_shows(run):
    shown = next(text for kind, text in BLOCKS if kind == "text")
    assert run("nscore", "demo").startswith(shown)


def test_two_commands_install_and_run():
    # .ci/run runs both in fresh environments
    lines = [text.strip() for kind, text in BLOCKS if kind == "bash" and text.startswith("pip install")]
    assert lines == ["pip install . && nscore demo", "pip install -e '.[test]' && pytest"]


def test_table_of_metrics_is_the_catalogue():
    table = README.split("nscore metrics --markdown -->\n")[1].split("\n<!-- /metrics -->")[0]
    assert table == markdown(), "replace it by what `nscore metrics --markdown` prints"


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (Path(__file__).parents[1] / target).exists(), target
