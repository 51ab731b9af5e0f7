"""nscore tells how well an explanation of a neuron predicts when it fires, for thousands of neurons at once."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nscore import backends as backends
    from nscore import errors as errors
    from nscore import metrics as metrics
    from nscore import sample as sample
    from nscore import simulators as simulators
    from nscore.backends import VLLM as VLLM
    from nscore.backends import Anthropic as Anthropic
    from nscore.backends import Backend as Backend
    from nscore.backends import OpenAI as OpenAI
    from nscore.backends import Replay as Replay
    from nscore.backends import Servers as Servers
    from nscore.backends import SGLang as SGLang
    from nscore.best import best as best
    from nscore.calibrate import calibrate as calibrate
    from nscore.calibrate import fit_calibration as fit_calibration
    from nscore.chance import against_chance as against_chance
    from nscore.check import Checked as Checked
    from nscore.check import check as check
    from nscore.compare import Comparison as Comparison
    from nscore.compare import compare as compare
    from nscore.compare import q_values as q_values
    from nscore.describe import Description as Description
    from nscore.describe import describe as describe
    from nscore.errors import BackendError as BackendError
    from nscore.errors import CalibrationError as CalibrationError
    from nscore.errors import ExecutorError as ExecutorError
    from nscore.errors import JournalError as JournalError
    from nscore.errors import LeakError as LeakError
    from nscore.errors import LimitError as LimitError
    from nscore.errors import NscoreError as NscoreError
    from nscore.errors import OutageError as OutageError
    from nscore.errors import PoolError as PoolError
    from nscore.errors import QueryError as QueryError
    from nscore.errors import ReplyError as ReplyError
    from nscore.errors import RunError as RunError
    from nscore.errors import SettingError as SettingError
    from nscore.errors import SimulatorError as SimulatorError
    from nscore.errors import SourceError as SourceError
    from nscore.errors import StorageError as StorageError
    from nscore.errors import TableError as TableError
    from nscore.errors import UnknownNameError as UnknownNameError
    from nscore.exchange import Capabilities as Capabilities
    from nscore.exports import Exported as Exported
    from nscore.exports import export_files as export_files
    from nscore.imports import Imported as Imported
    from nscore.imports import import_files as import_files
    from nscore.intervals import intervals as intervals
    from nscore.judgements import score_judgements as score_judgements
    from nscore.metrics import Moments as Moments
    from nscore.metrics import absolute_dev_explained_score as absolute_dev_explained_score
    from nscore.metrics import auroc as auroc
    from nscore.metrics import average_precision as average_precision
    from nscore.metrics import cosine as cosine
    from nscore.metrics import coverage as coverage
    from nscore.metrics import d2_absolute_error as d2_absolute_error
    from nscore.metrics import ev_correlation_score as ev_correlation_score
    from nscore.metrics import mean_absolute_error as mean_absolute_error
    from nscore.metrics import mean_squared_error as mean_squared_error
    from nscore.metrics import metric as metric
    from nscore.metrics import pearson as pearson
    from nscore.metrics import r2_about_mean as r2_about_mean
    from nscore.metrics import rsquared_score as rsquared_score
    from nscore.metrics import spearman as spearman
    from nscore.metrics.labels import balanced_accuracy as balanced_accuracy
    from nscore.metrics.labels import f1 as f1
    from nscore.metrics.labels import precision as precision
    from nscore.metrics.labels import recall as recall
    from nscore.metrics.labels import specificity as specificity
    from nscore.pool import pool as pool
    from nscore.probe import aprobe as aprobe
    from nscore.probe import probe as probe
    from nscore.query import query as query
    from nscore.query import tables as tables
    from nscore.rebuild import rebuild as rebuild
    from nscore.report import report as report
    from nscore.run import Run as Run
    from nscore.salvage import Salvaged as Salvaged
    from nscore.salvage import salvage as salvage
    from nscore.score import score as score
    from nscore.score import score_sequences as score_sequences
    from nscore.score_shards import score_shards as score_shards
    from nscore.show import Portrait as Portrait
    from nscore.show import show as show
    from nscore.simulate import Estimate as Estimate
    from nscore.simulate import Price as Price
    from nscore.simulate import asimulate as asimulate
    from nscore.simulate import estimate as estimate
    from nscore.simulate import simulate as simulate
    from nscore.simulators import AllAtOnce as AllAtOnce
    from nscore.simulators import Constant as Constant
    from nscore.simulators import JsonList as JsonList
    from nscore.simulators import Lexical as Lexical
    from nscore.simulators import PromptSimulator as PromptSimulator
    from nscore.simulators import Shuffled as Shuffled
    from nscore.simulators import Simulator as Simulator
    from nscore.simulators import TabList as TabList
    from nscore.simulators import TokenByToken as TokenByToken
    from nscore.simulators import TokenLookup as TokenLookup
    from nscore.splits import assign_splits as assign_splits
    from nscore.validate import validate as validate
    from nscore.verify import Verified as Verified
    from nscore.verify import verify as verify
    from nscore.view import View as View
    from nscore.view import view as view

__version__ = "0.1.0"

# Where each public name lives. Polars and pyarrow are loaded with the first of them, not with the package; a test
# compares this with the imports above, which are what type checkers read.
_HOMES = {
    "nscore": ("backends", "errors", "metrics", "sample", "simulators"),
    "nscore.backends": ("Anthropic", "Backend", "OpenAI", "Replay", "SGLang", "Servers", "VLLM"),
    "nscore.best": ("best",),
    "nscore.calibrate": ("calibrate", "fit_calibration"),
    "nscore.chance": ("against_chance",),
    "nscore.compare": ("Comparison", "compare", "q_values"),
    "nscore.check": ("Checked", "check"),
    "nscore.describe": ("Description", "describe"),
    "nscore.errors": (
        "BackendError",
        "CalibrationError",
        "ExecutorError",
        "JournalError",
        "LeakError",
        "LimitError",
        "NscoreError",
        "OutageError",
        "PoolError",
        "QueryError",
        "ReplyError",
        "RunError",
        "SettingError",
        "SimulatorError",
        "SourceError",
        "StorageError",
        "TableError",
        "UnknownNameError",
    ),
    "nscore.exchange": ("Capabilities",),
    "nscore.exports": ("Exported", "export_files"),
    "nscore.imports": ("Imported", "import_files"),
    "nscore.intervals": ("intervals",),
    "nscore.judgements": ("score_judgements",),
    "nscore.metrics": (
        "Moments",
        "absolute_dev_explained_score",
        "auroc",
        "average_precision",
        "cosine",
        "coverage",
        "d2_absolute_error",
        "ev_correlation_score",
        "mean_absolute_error",
        "mean_squared_error",
        "metric",
        "pearson",
        "r2_about_mean",
        "rsquared_score",
        "spearman",
    ),
    "nscore.metrics.labels": ("balanced_accuracy", "f1", "precision", "recall", "specificity"),
    "nscore.pool": ("pool",),
    "nscore.probe": ("aprobe", "probe"),
    "nscore.query": ("query", "tables"),
    "nscore.rebuild": ("rebuild",),
    "nscore.report": ("report",),
    "nscore.run": ("Run",),
    "nscore.salvage": ("Salvaged", "salvage"),
    "nscore.score": ("score", "score_sequences"),
    "nscore.score_shards": ("score_shards",),
    "nscore.show": ("Portrait", "show"),
    "nscore.simulate": ("Estimate", "Price", "asimulate", "estimate", "simulate"),
    "nscore.simulators": (
        "AllAtOnce",
        "Constant",
        "JsonList",
        "Lexical",
        "PromptSimulator",
        "Shuffled",
        "Simulator",
        "TabList",
        "TokenByToken",
        "TokenLookup",
    ),
    "nscore.splits": ("assign_splits",),
    "nscore.validate": ("validate",),
    "nscore.verify": ("Verified", "verify"),
    "nscore.view": ("View", "view"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605  (a list of strings all the same)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'nscore' has no attribute {name!r}")
    home = _HOME[name]
    value = import_module(f"nscore.{name}") if home == "nscore" else getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Python binds a submodule to its package once it is loaded; the verb `score` must not become its module."""

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name, "nscore") != "nscore":
            return
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
