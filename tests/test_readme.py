"""Everything in the README is run, as it stands and in its order, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dashboard_files
import delphi_files
import openai_files
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
            elif text.startswith("pip install") and "pytest" in text:
                pass
            elif kind in {"bash", "end"}:
                text = text.removeprefix("pip install . && ")  # .ci/run installs
                (tmp_path / "readme.py").write_text(code)
                run(sys.executable, "readme.py")
                run("bash", "-euc", text)
        assert server.n_requests
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "simulated.parquet",
        "scores.parquet",
        "sequence_scores.parquet",
    }


def test_a_file_of_each_format_is_imported_by_its_line(run, tmp_path):
    lines = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]
    assert [line.split()[2] for line in lines] == ["openai", "delphi", "neuronpedia", "saedashboard", "table"]
    openai_files.written(tmp_path / "neurons", 0, 1, {"random_sample": [openai_files.record(["a"], [1.0])]})
    cache = delphi_files.cache([(0, 1, 3)], [2.0], [[5, 6, 7]])
    delphi_files.shard(tmp_path / "results/my-run", "0_9", cache)
    record = (["a", "b"], [0.0, 1.0], (0.0, 1.0, 0.5))
    source = tmp_path / "v1/gpt2-small/6-res-jb"
    dashboard_files.write_lines(source / "activations/batch-0.jsonl.gz", [dashboard_files.activation(7, record)])
    (tmp_path / "batch-1.json").write_text(json.dumps(dashboard_files.dashboard([(7, [record])])))
    (tmp_path / "tokens.csv").write_text("feature,sequence,token,act\n7,1,a,0.5\n")
    for line in lines:
        told = run("bash", "-euc", line)
        assert told.startswith("1 files: 1 neurons, "), told
        shutil.rmtree(tmp_path / "tables")


def test_demo_prints_what_the_readme_shows(run):
    shown = next(text for kind, text in BLOCKS if kind == "text")
    assert run("nscore", "demo").startswith(shown)


def test_two_commands_install_and_run():
    # .ci/run runs both in fresh environments
    lines = [text.strip() for kind, text in BLOCKS if kind == "bash" and text.startswith("pip install")]
    assert lines == ["pip install . && nscore demo", "pip install -e '.[test]' && pytest -n auto"]


def test_table_of_metrics_is_the_catalogue():
    table = README.split("nscore metrics --markdown -->\n")[1].split("\n<!-- /metrics -->")[0]
    assert table == markdown(), "replace it by what `nscore metrics --markdown` prints"


def test_links_lead_to_files():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (Path(__file__).parents[1] / target).exists(), target


def test_promises_name_tests_that_are_there():
    named = re.findall(r"`(tests/[\w/]+\.py)`", README)
    assert len(named) > 10
    assert all((Path(__file__).parents[1] / name).is_file() for name in named)
