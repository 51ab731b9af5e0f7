"""Imports run downward only: vocabulary, then shelves, then the spine, then the command line; no shelf imports another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nscore

PACKAGE = Path(nscore.__file__).parent

# Each line may import from the lines above it and, unless it is a shelf, along itself in the order given.
ASKING = ["errors", "exchange", "_prices", "_align", "_keep"]
TABLES = ["_progress", "_shelf", "records", "frames", "_fused", "_runs", "validate", "leaks", "_meeting"]
SENDING = ["_loop", "_limits", "_retry", "_transport", "_segments", "_journal", "_history"]
VOCABULARY = [*ASKING, *TABLES, *SENDING]
SHELVES = ["metrics", "simulators", "backends"]
STAGE = ["_choice", "probe", "run", "_plan", "_filling", "_options", "_reading", "_engine", "_estimate", "simulate"]
SPINE = ["splits", *STAGE, "calibrate", "pool", "score", "sample"]
ABOVE = ["cli", "__main__"]
# The package itself names everything and loads nothing: whoever stands on the spine may import it.
RANK = {name: rank for rank, name in enumerate([*VOCABULARY, *SHELVES, *SPINE, *ABOVE])}


def modules():
    return sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def part(file):
    """The first name under the package: a module or a shelf."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nscore":
            names = node.module.split(".")[1:]
            yield from names[:1] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            yield from (
                a.name.split(".")[1] if "." in a.name else "" for a in node.names if a.name.split(".")[0] == "nscore"
            )


def test_every_module_has_its_place():
    assert {part(file) for file in modules()} == set(RANK)


@pytest.mark.parametrize("file", modules(), ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_run_downward(file):
    here = part(file)
    for name in imported(file):
        if name in RANK:
            assert name == here or RANK[name] < RANK[here], f"{here} imports {name}"
            assert not (here in SHELVES and name in SHELVES and name != here), f"shelf {here} imports shelf {name}"
        else:
            assert here in {*SPINE, *ABOVE}, f"{here} imports the package itself"


def test_metrics_know_polars_alone():
    allowed = {"__future__", "collections", "dataclasses", "typing", "polars", "nscore"}
    for file in (PACKAGE / "metrics").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                assert {a.name.split(".")[0] for a in node.names} <= allowed, file
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] in allowed, file


def test_no_code_is_loaded_from_data():
    forbidden = {"pickle", "marshal", "shelve", "eval", "exec"}
    for file in modules():
        tree = ast.parse(file.read_text("utf-8"))
        names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
        names |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        assert not names & forbidden, file


def test_a_file_reads_in_one_sitting():
    long = {f.name: n for f in modules() if (n := len(f.read_text("utf-8").splitlines())) > 400}
    assert not long
