"""The public names: one list, one home each, typed and documented, and cheap to import."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import nscore as ns
from nscore.metrics import CATALOGUE

HOME = vars(ns)["_HOME"]
SOURCE = Path(ns.__file__).read_text("utf-8")


def typed_twin():
    """Name and home of each import that type checkers see."""
    block = next(n for n in ast.parse(SOURCE).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")
    for node in block.body:
        for alias in node.names:
            assert alias.asname == alias.name, "import x as x is what re-exports"
            yield alias.name, node.module


def test_lazy_names_and_typed_twin_are_the_same():
    assert dict(typed_twin()) == HOME


def test_all_lists_every_public_name_and_dir_shows_them():
    assert list(ns.__all__) == sorted(HOME)
    assert set(ns.__all__) <= set(dir(ns))


@pytest.mark.parametrize("name", ns.__all__)
def test_public_name_exists_and_says_what_it_is(name):
    value = getattr(ns, name)
    assert value.__doc__
    if inspect.isfunction(value):
        assert "Examples:" in value.__doc__ or name == "metric", "a public function shows a doctest"


def test_every_metric_is_a_public_name():
    assert set(CATALOGUE) <= set(ns.__all__)
    assert all(getattr(ns, m.name) is m.function for m in CATALOGUE.values())


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        ns.nothing_like_it  # noqa: B018


@pytest.mark.parametrize("verb", ["score", "simulate", "calibrate", "validate", "pool"])
def test_verb_stays_a_function_when_its_module_is_imported_first(verb):
    code = f"import importlib; importlib.import_module('nscore.{verb}'); import nscore; assert callable(nscore.{verb})"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("code", ["import nscore", "from nscore.cli import main; main(['--help'])"])
def test_nothing_heavy_is_loaded_before_it_is_used(code):
    ask = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\n"
    ask += "print('loaded:', sorted({'polars','numpy','pyarrow','httpx','tqdm','pandas'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", ask], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "loaded: []"


def test_every_module_lists_what_it_offers():
    for file in Path(ns.__file__).parent.rglob("*.py"):
        if file.name in {"__main__.py", "make.py"}:
            continue
        name = ".".join(("nscore", *file.relative_to(Path(ns.__file__).parent).with_suffix("").parts))
        module = importlib.import_module(name.removesuffix(".__init__"))
        assert all(hasattr(module, public) for public in module.__all__), name
