"""Imports run downward only: vocabulary, then shelves, then the spine, then the command line; no shelf imports another."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import nscore

PACKAGE = Path(nscore.__file__).parent

# Each line may import from the lines above it and, unless it is a shelf, along itself in the order given.
ASKING = ["errors", "_retry", "exchange", "_prices", "_align", "_keep"]
TABLES = [
    "_stores",
    "_scan",
    "_disk",
    "_commits",
    "_progress",
    "_shelf",
    "_pages",
    "_parquet",
    "_batches",
    "records",
    "frames",
    "_texts",
    "_fused",
    "_runs",
    "_stretches",
    "failures",
    "_judged",
    "validate",
    "leaks",
    "splits",
    "_meeting",
]
SENDING = [
    "_loop",
    "_threads",
    "_limits",
    "_secrets",
    "_fetching",
    "_transport",
    "_segments",
    "_journal",
    "_history",
]
VOCABULARY = [*ASKING, *TABLES, *SENDING]
SHELVES = ["metrics", "simulators", "backends", "importers", "executors", "exporters", "_drawing"]
PLANNING = [
    "_choice",
    "probe",
    "run",
    "_shards",
    "_plan",
    "_filling",
    "_differences",
    "_tally",
    "_leash",
    "_bench",
    "_workplace",
]
SENT = ["_options", "_reading", "_fleet", "_shares", "_engine", "_estimate", "_worker", "_crew", "_session", "_offline"]
STAGE = [*PLANNING, *SENT, "simulate"]
CARE = ["describe", "verify", "rebuild", "salvage"]
ASKED = ["_sql", "_sql_types", "_sql_duckdb", "_sql_polars", "_cookbook", "query"]
RESAMPLING = ["_distributions", "_resampling", "_bounds", "_alike", "intervals"]
SIDES = ["_sides", "_swaps", "compare", "chance", "best"]
EXPORTING = ["_folders", "_wholes", "_exported", "exports", "_matching", "_alternatives", "_comparing", "check"]
SHOWING = ["_gathered", "_chosen", "_overview", "_portrait", "show", "view", "report"]
SPINE = [
    "_assembly",
    "imports",
    *STAGE,
    *CARE,
    *ASKED,
    "pool",
    "_quantiles",
    "calibrate",
    *RESAMPLING,
    *SIDES,
    "score",
    "score_shards",
    *EXPORTING,
    *SHOWING,
    "judgements",
    "sample",
]
ABOVE = ["neuron_explainer", "cli", "__main__"]
# The package itself names everything and loads nothing: whoever stands on the spine may import it.
RANK = {name: rank for rank, name in enumerate([*VOCABULARY, *SHELVES, *SPINE, *ABOVE])}


# Private modules lie in folders by what they are for; each has its own place among the lines above, as `_name`.
FOLDERS = {"_files", "_running", "_sending", "_showing", "_sql", "_statistics", "_tables"}


def modules():
    inits = {PACKAGE / "__init__.py", *(PACKAGE / folder / "__init__.py" for folder in FOLDERS)}
    return sorted(p for p in PACKAGE.rglob("*.py") if p not in inits)


def part(file):
    """The first name under the package: a module or a shelf; of a private folder, the module in it."""
    first, *rest = file.relative_to(PACKAGE).with_suffix("").parts
    return f"_{rest[0]}" if first in FOLDERS else first


def imported(file):
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "nscore":
            names = node.module.split(".")[1:]
            if names and names[0] in FOLDERS:
                yield from (f"_{name}" for name in names[1:2] or [alias.name for alias in node.names])
            else:
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


# What makes code of data: as modules, and as names wherever they stand: functions, methods, keywords, words for getattr.
MODULES = {
    *("pickle", "_pickle", "marshal", "shelve", "copyreg", "dbm"),
    *("dill", "cloudpickle", "joblib", "jsonpickle", "yaml"),
    *("builtins", "code", "codeop", "runpy", "imp", "importlib", "pkgutil", "zipimport", "ctypes"),
}
NAMES = {
    *("eval", "exec", "compile", "__import__", "__builtins__", "__loader__"),
    *("import_module", "load_module", "exec_module", "run_module", "run_path", "entry_points"),
    *("spec_from_file_location", "allow_pickle", "read_pickle", "read_hdf", "Unpickler"),
    *("deserialize", "PyExtensionType", "trust_remote_code"),
}
LOADERS = {"load", "loads", "load_all", "full_load", "unsafe_load"}  # of numpy, torch, yaml, joblib, pickle, ...
# These readers give nothing but data, and this compiler takes patterns.
HARMLESS = {"json.loads", "json.load", "tomllib.loads", "tomllib.load", "re.compile"}
LEGITIMATE = {
    ("__init__.py", "import_module"): "loads nscore's own modules, named in a table beside it",
    ("__init__.py", "importlib"): "the same",
    ("cli/__init__.py", "import_module"): "loads nscore's own commands; a name that is none is refused before",
    ("cli/__init__.py", "importlib"): "the same",
    ("_shelf.py", "entry_points"): "what the user has installed as Python packages",
    ("_shelf.py", "importlib"): "the same",
    ("_shelf.py", "load"): "the same",
    ("_sending/prices.py", "importlib"): "importlib.resources reads a file of the package",
    ("simulators/_prompts.py", "importlib"): "the same",
    ("_sql/cookbook.py", "importlib"): "the same",
    ("_drawing/pieces.py", "importlib"): "the same",
    ("_drawing/document.py", "importlib"): "the same",
    ("simulators/lexical.py", "eval"): "list.eval of Polars takes an expression",
    ("sample/make.py", "eval"): "what torch calls the state of a model that is not trained",
}


def makers_of_code(source):
    """The names in a source that make, or could make, code of data."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from MODULES & {part for alias in names for part in alias.name.split(".")}
            case ast.ImportFrom(module=module, names=names):
                yield from MODULES & set((module or "").split("."))
                yield from (MODULES | NAMES | LOADERS) & {a.name for a in names if f"{module}.{a.name}" not in HARMLESS}
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if f"{owner}.{name}" in HARMLESS:
                pass
            case ast.Attribute(attr=name):
                yield from (NAMES | LOADERS) & {name}
            case ast.keyword(arg=name) | ast.Name(id=name) | ast.Constant(value=str(name)):
                yield from NAMES & {name}


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "import a, dill as d", "from pickle import load as l", "from joblib import load"),
        *("import yaml", "from importlib import reload", "import importlib.util", "from numpy import load"),
        *("np.load(f)", "np.lib.format.read_array(f, allow_pickle=True)", "pd.read_pickle(f)", "torch.load(f)"),
        *("pl.DataFrame.deserialize(f)", "pl.Expr.deserialize(f)", "eval(s)", "run = exec", "compile(s, '', 'exec')"),
        *("__import__(s)", "getattr(b, '__import__')", "__builtins__['eval']", "re.sub(p, eval, s)"),
        *("from re import loads", "entry.load()", "from builtins import eval as e", "read(f, trust_remote_code=True)"),
    ],
)
def test_a_maker_of_code_is_found(source):
    assert list(makers_of_code(source))


@pytest.mark.parametrize(
    "source", ["json.loads(s)", "re.compile(p)", "from re import compile", "load = load + 1", "import json"]
)
def test_a_reader_of_data_is_none(source):
    assert not list(makers_of_code(source))


def test_no_code_is_loaded_from_data():
    found = {
        (str(file.relative_to(PACKAGE)), name)
        for file in [*modules(), PACKAGE / "__init__.py"]
        for name in makers_of_code(file.read_text("utf-8"))
    }
    assert found == LEGITIMATE.keys()


def test_a_file_reads_in_one_sitting():
    long = {f.name: n for f in modules() if (n := len(f.read_text("utf-8").splitlines())) > 400}
    assert not long
