"""The catalogue: what each metric says of itself, how names resolve, and a metric of the user's own."""

from __future__ import annotations

import inspect
import math
from importlib.metadata import EntryPoint

import polars as pl
import pytest

import nscore as ns
from nscore import metrics
from nscore._shelf import Shelf
from nscore.metrics import CATALOGUE, DEFAULT, Metric, Moments, resolve

LOWER_IS_BETTER = {"mean_squared_error", "mean_absolute_error"}
FROM_TOKENS = {"spearman", "d2_absolute_error", "auroc", "average_precision"}
TABLE = pl.DataFrame(
    {
        "layer": 0,
        "neuron": 7,
        "sequence": [1, 1, 1, 2, 2],
        "activation": [0.0, 1.0, 4.0, 0.0, 2.0],
        "predicted": [0.5, 1.0, 3.0, 0.0, None],
    }
)


@pytest.fixture
def own_metric():
    """Registers a function as a metric, and takes it from the catalogue again afterwards."""
    added = []

    def register(function, **facts):
        added.append(function.__name__)
        return ns.metric(**facts)(function)

    yield register
    for name in added:
        CATALOGUE._items.pop(name, None)  # noqa: SLF001


def test_the_catalogue_lists_every_metric_in_order():
    assert list(CATALOGUE) == [
        *DEFAULT,
        "pearson",
        "spearman",
        "cosine",
        "r2_about_mean",
        "d2_absolute_error",
        "mean_squared_error",
        "mean_absolute_error",
        "auroc",
        "average_precision",
        "coverage",
    ]
    assert DEFAULT == ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score")


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_an_entry_says_its_best_value_and_direction(name):
    entry = CATALOGUE[name]
    assert entry.name == name
    assert entry.higher_is_better == (name not in LOWER_IS_BETTER)
    assert entry.best == (0.0 if name in LOWER_IS_BETTER else 1.0)
    assert entry.decomposes == (name not in FROM_TOKENS)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_a_perfect_prediction_reaches_the_best_value(name):
    table = pl.DataFrame({"activation": [0.0, 1.0, 4.0, -2.0], "predicted": [0.0, 1.0, 4.0, -2.0]})
    assert table.select(CATALOGUE[name].from_tokens()).item() == pytest.approx(CATALOGUE[name].best, abs=1e-15)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_a_worse_prediction_is_farther_from_the_best_value(name):
    table = pl.DataFrame({"activation": [0.0, 1.0, 4.0, -2.0], "predicted": [1.0, 0.0, -3.0, None]})
    found, entry = table.select(CATALOGUE[name].from_tokens()).item(), CATALOGUE[name]
    assert (found < entry.best) if entry.higher_is_better else (found > entry.best)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_an_entry_is_the_public_function_and_tells_its_meaning(name):
    entry = CATALOGUE[name]
    assert entry.function is getattr(ns, name) is getattr(metrics, name)
    assert entry.meaning
    assert entry.meaning == inspect.getdoc(entry.function).splitlines()[0]
    assert entry.function().meta.output_name() == entry.from_tokens("w").meta.output_name() == name


def test_only_metrics_that_decompose_take_moments():
    for entry in CATALOGUE.values():
        if entry.decomposes:
            assert entry.from_moments().meta.output_name() == entry.name


def test_none_resolves_to_the_originals_scores():
    assert [m.name for m in resolve(None)] == list(DEFAULT)


def test_all_resolves_to_the_whole_catalogue():
    assert resolve("all") == CATALOGUE.values()
    assert [m.name for m in resolve("all")] == list(CATALOGUE)


def test_names_resolve_in_the_order_given_and_once():
    assert resolve("cosine") == [CATALOGUE["cosine"]]
    assert [m.name for m in resolve(["spearman", "auroc", "spearman"])] == ["spearman", "auroc"]
    assert resolve([]) == []


def test_entries_resolve_to_themselves():
    assert resolve([CATALOGUE["auroc"], "cosine"]) == [CATALOGUE["auroc"], CATALOGUE["cosine"]]


def test_an_expression_resolves_to_a_metric_under_its_output_name():
    first, second = resolve([pl.col("activation").max().alias("peak"), (pl.col("predicted") > 1).mean()])
    assert (first.name, second.name) == ("peak", "predicted")
    assert not first.decomposes
    assert math.isnan(first.best)
    assert TABLE.select(first.from_tokens(), peak_weighted=first.from_tokens("w")).row(0) == (4.0, 4.0)


def test_names_and_expressions_resolve_together():
    peak = pl.col("activation").max().alias("peak")
    assert [m.name for m in resolve(["cosine", peak, CATALOGUE["auroc"]])] == ["cosine", "peak", "auroc"]


@pytest.mark.parametrize("ask", [resolve, lambda name: resolve(["cosine", name]), CATALOGUE.__getitem__])
def test_an_unknown_name_is_an_error_that_suggests_the_nearest(ask):
    with pytest.raises(ns.UnknownNameError, match="Did you mean 'spearman'") as caught:
        ask("speerman")
    message = str(caught.value)
    assert "no metric is called 'speerman'" in message
    assert all(name in message for name in CATALOGUE)
    assert isinstance(caught.value, LookupError)


def test_an_unknown_name_without_a_near_one_lists_the_names():
    with pytest.raises(ns.UnknownNameError) as caught:
        resolve("zzzz")
    assert "Did you mean" not in str(caught.value)
    assert "average_precision" in str(caught.value)


def test_a_metric_of_ones_own_appears_in_the_catalogue_and_is_scored(own_metric):
    def largest_error(activation="activation", predicted="predicted", *, weight=None):  # noqa: ARG001
        """The largest error."""
        return (pl.col(activation) - pl.col(predicted)).abs().max()

    assert own_metric(largest_error, best=0.0, higher_is_better=False, decomposes=False) is largest_error
    assert list(CATALOGUE)[-1] == "largest_error"
    assert CATALOGUE["largest_error"].meaning == "The largest error."
    assert not CATALOGUE["largest_error"].higher_is_better
    assert ns.score(TABLE, metrics=["largest_error", "coverage"])["largest_error"].to_list() == [1.0]
    assert ns.score_sequences(TABLE, metrics="largest_error")["largest_error"].to_list() == [1.0, 0.0]
    assert "largest_error" in ns.score(TABLE, metrics="all").columns


def test_a_metric_of_ones_own_that_decomposes_is_pooled_from_moments(own_metric):
    def bias(activation="activation", predicted="predicted", *, weight=None):
        """Mean of prediction less truth."""
        m = metrics.moments(activation, predicted, weight)
        return m.where_any(m.predicted_mean - m.activation_mean)

    own_metric(bias, best=0.0, decomposes=True)
    assert CATALOGUE["bias"].from_moments().meta.output_name() == "bias"
    expected = (0.5 + 0 - 1 + 0) / 4
    assert ns.score(TABLE, metrics="bias")["bias"].item() == pytest.approx(expected, abs=1e-15)
    assert ns.pool(ns.score_sequences(TABLE), metrics="bias")["bias"].item() == pytest.approx(expected, abs=1e-15)


def test_an_expression_of_ones_own_is_scored():
    peak = pl.col("activation").max().alias("peak")
    assert ns.score(TABLE, metrics=[peak, "coverage"]).select("peak", "coverage").row(0) == (4.0, 0.8)


def test_a_name_is_taken_once():
    def cosine():
        """Another."""

    before = CATALOGUE["cosine"]
    with pytest.raises(ValueError, match="a metric called 'cosine' already"):
        ns.metric(best=1.0, decomposes=False)(cosine)
    assert CATALOGUE["cosine"] is before


def test_installed_packages_add_to_a_shelf_by_an_entry_point(monkeypatch):
    shelf = Shelf("thing", "nscore.things")
    asked = []

    class Package(EntryPoint):
        def load(self):
            shelf.add(self.name, self.value)

    def entry_points(*, group):
        asked.append(group)
        return [Package("new", "a.module", group)]

    monkeypatch.setattr("nscore._shelf.entry_points", entry_points)
    shelf.add("old", "here")
    assert list(shelf) == ["old", "new"]
    assert shelf["new"] == "a.module"
    assert shelf.values() == ["here", "a.module"]
    assert asked == ["nscore.things"]


def test_an_entry_is_a_frozen_value():
    entry = CATALOGUE["cosine"]
    assert isinstance(entry, Metric)
    with pytest.raises(AttributeError):
        entry.best = 2.0
    assert set(Moments.__slots__) == set(metrics.MOMENTS)
