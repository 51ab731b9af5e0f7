"""One neuron and a table of scores to look at: in Python, in a notebook, on the command line."""

from __future__ import annotations

import html
import re

import asking
import polars as pl
import pytest
from simulation_tables import command, read_json, small_explanations, small_records

import nscore as ns
from nscore._sending.prices import dollars
from nscore.errors import TableError

SCORE = "ev_correlation_score"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    simulated = ns.simulate(small_records(), small_explanations(), simulator=["token_lookup", "constant", "shuffled"])
    simulated.write_parquet(folder / "simulated.parquet")
    small_explanations().write_parquet(folder / "explanations.parquet")
    ns.intervals(ns.score_sequences(simulated), method="jackknife").write_parquet(folder / "scores.parquet")
    return folder


@pytest.fixture
def neuron(folder):
    return pl.read_parquet(folder / "scores.parquet").select("layer", "neuron").row(0)


def test_a_neuron_is_shown_with_every_simulator_the_best_first(folder, neuron):
    shown = ns.show(folder, *neuron)
    scores = pl.read_parquet(folder / "scores.parquet").filter(layer=neuron[0], neuron=neuron[1])
    assert [each.keys["simulator"] for each in shown.explanations] == scores.sort(
        SCORE, descending=True, nulls_last=True
    )["simulator"].to_list()
    assert [each.scores[SCORE] for each in shown.explanations] == scores.sort(SCORE, descending=True, nulls_last=True)[
        SCORE
    ].to_list()
    one = ns.show(folder, "/".join(map(str, neuron)), simulator="constant")
    assert [each.keys["simulator"] for each in one.explanations] == ["constant"]


def test_a_control_is_not_shown_with_the_explanation_it_was_not_given(folder, neuron):
    texts = {each.keys["simulator"]: each.explanation for each in ns.show(folder, *neuron).explanations}
    own = small_explanations().filter(layer=neuron[0], neuron=neuron[1])["explanation"].item()
    assert texts == {"token_lookup": own, "constant": own, "shuffled": None}


def test_records_hold_the_tokens_of_the_table_and_no_record_stands_twice(folder, neuron):
    simulated = pl.read_parquet(folder / "simulated.parquet")
    for each in ns.show(folder, *neuron, records=2).explanations:
        names = [record.name for record in (*each.worst, *each.best)]
        assert len(set(names)) == len(names) > 1
        for record in (*each.worst, *each.best):
            number = int(re.match(r"record (\d+)", record.name)[1])
            rows = simulated.filter(
                layer=neuron[0], neuron=neuron[1], simulator=each.keys["simulator"], sequence=number
            )
            assert record.tokens == rows["token"].to_list()
            assert record.activation == rows["activation"].to_list()
            assert record.predicted == rows["predicted"].to_list()
        assert sum(b.n for b in each.bins) == scored_tokens(simulated, each)


def scored_tokens(simulated, each):
    rows = simulated.filter(pl.all_horizontal(pl.col(k) == v for k, v in each.keys.items()))
    return rows.filter(pl.col("split").is_in(["valid", "test"]) & pl.col("predicted").is_not_null()).height


def test_the_worst_records_are_worse_than_the_best():
    shown = ns.show(
        ns.simulate(ns.sample.records().filter(neuron=54), ns.sample.explanations(), simulator="lexical"), 0, 54
    )
    worst, best = (
        [float(r.name.rpartition(" ")[2]) for r in part]
        for part in (shown.explanations[0].worst, shown.explanations[0].best)
    )
    assert worst == sorted(worst)
    assert best == sorted(best, reverse=True)
    assert len(worst) == len(best) == 4
    assert worst[-1] <= best[-1]


def silent(n):
    """A neuron with records in which nothing happens, and three in which something does."""
    rows = [
        {"layer": 0, "neuron": 1, "sequence": s, "position": p, "token": f"t{p}", "activation": t, "predicted": q}
        for s in range(n)
        for p, (t, q) in enumerate([(5.0, 0.0), (0.0, 4.0)] if s < 4 else [(0.1, 0.0), (0.0, 0.1)])
    ]
    return pl.DataFrame(rows)


def test_quiet_records_are_left_aside_where_there_are_others():
    shown = ns.show(silent(20), 0, 1, records=2).explanations[0]
    assert {int(r.name.split()[1].rstrip(",")) for r in (*shown.worst, *shown.best)} == {0, 1, 2, 3}


def test_a_long_record_is_shown_around_its_peak():
    n = 500
    long = pl.DataFrame({"layer": 0, "neuron": 1, "sequence": 1, "position": range(n), "token": [f"t{i} " for i in range(n)],
                         "activation": [9.0 * (i == 400) for i in range(n)], "predicted": 0.0})  # fmt: skip
    record = ns.show(long, 0, 1, tokens=50).explanations[0].worst[0]
    assert (record.first, len(record.tokens), record.length) == (375, 50, 500)
    assert record.part == "tokens 375 to 424 of 500"
    assert record.tokens[25] == "t400 "


def test_scales_are_shared_unless_predictions_are_far_larger():
    together = ns.show(silent(6), 0, 1).explanations[0].scales
    apart = ns.show(silent(6).with_columns(pl.col("predicted") * 10), 0, 1).explanations[0].scales
    calibrated = silent(6).with_columns(pl.col("predicted") * 10, predicted_raw=0.0)
    assert together.shared
    assert together.activation.value == 5.0
    assert (apart.activation.value, apart.predicted.value) == (5.0, 40.0)
    assert ns.show(calibrated, 0, 1).explanations[0].scales.shared


def test_a_table_without_tokens_or_positions_is_shown_by_places():
    shown = ns.show(silent(4).drop("token", "position"), 0, 1).explanations[0]
    assert shown.worst[0].tokens == ["0 ", "1 "]


def test_a_neuron_that_is_not_there_is_told(folder):
    with pytest.raises(TableError, match=r"no such neuron: found no scores of '9/9'\. Name it by layer/neuron"):
        ns.show(folder, 9, 9)
    with pytest.raises(TableError, match=r"no records of .* with predictions of 'gpt'"):
        ns.show(folder, *pl.read_parquet(folder / "scores.parquet").select("layer", "neuron").row(0), simulator="gpt")


def test_a_view_tells_medians_histograms_and_both_ends(folder):
    scores = pl.read_parquet(folder / "scores.parquet")
    view = ns.view(folder / "scores.parquet", explanations=small_explanations(), rows=2)
    ranked = scores.filter(pl.col(SCORE).is_finite()).sort(SCORE, descending=True, maintain_order=True)
    assert view.ends()[SCORE].to_list() == [*ranked[SCORE].head(2), *ranked[SCORE].tail(2)]
    page = view._repr_html_()
    assert f"{scores.filter(simulator='token_lookup')[SCORE].median():.3f} [" in page
    assert page.count("<svg") >= 9
    assert "<script" not in page
    assert len(str(view).splitlines()) == 5


def test_a_neuron_in_a_notebook_holds_its_words_and_its_numbers(folder, neuron):
    page = ns.show(folder, *neuron)._repr_html_()
    assert page.startswith('<div class="nscore fragment"><style>')
    assert "<script" not in page
    assert small_explanations().filter(layer=neuron[0], neuron=neuron[1])["explanation"].item() in html.unescape(page)
    assert "Worst records" in page


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run against a model server, that knows no more than its folder."""
    with asking.serve() as server:
        return ns.simulate(
            asking.records_of(),
            asking.explanations_of(),
            simulator=["tab_list", "shuffled_tab_list"],
            backend=asking.backend(server),
            price=(1.0, 2.0),
            out=tmp_path_factory.mktemp("runs") / "run",
        )


def test_a_run_tells_in_a_notebook_what_it_asks_and_how_far_it_is(run):
    page, told = run._repr_html_(), ns.describe(run.path)
    for said in (
        str(run.path),
        "tab_list, shuffled_tab_list",
        "tiny",
        told.advice,
        f">{told.replies}<",
        f">{told.sent}<",
    ):
        assert html.escape(said, quote=True) in page or said in page, said
    assert "canary-key" not in page
    assert "<script" not in page


def test_a_run_is_a_report_with_prices_and_the_explanations_it_asked_about(run, tmp_path):
    page = ns.report(run, out=tmp_path / "r.html").read_text("utf-8")
    requests = run.requests().collect()
    assert "Price and tokens" in page
    assert f"<dd>{requests['prompt_tokens'].sum():,}</dd>" in page
    assert f"<dd>{dollars(requests['price'].sum())}</dd>" in page
    assert "words 0 0" in page
    assert "canary-key" not in page
    # of a control, the run's journal knows which text it was given
    texts = {e.keys["simulator"]: e.explanation for e in ns.show(run, 0, 0).explanations}
    assert texts == {"tab_list": "words 0 0", "shuffled_tab_list": "words 1 0"}


def test_a_run_that_is_none_says_so_in_a_notebook(tmp_path):
    assert "no run was started here" in ns.Run(tmp_path)._repr_html_()


def test_the_command_shows_what_the_function_gives(capsys, folder, neuron, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    name = "/".join(map(str, neuron))
    code, out, err = command(capsys, "show", str(folder), name)
    assert (code, err) == (0, "")
    assert out == ns.show(folder, *neuron, records=3, tokens=96).best().text(width=100) + "\n"
    assert "\x1b" not in out
    painted = command(capsys, "show", str(folder), name, "--colors", "truecolor", "--all")[1]
    assert painted == ns.show(folder, *neuron, records=3, tokens=96).text(colours="truecolor", width=100) + "\n"
    assert "\x1b[48;2;" in painted
    given = read_json(command(capsys, "show", str(folder), name, "--json", "--simulator", "constant")[1])
    assert given["explanations"][0]["keys"]["simulator"] == "constant"


def test_without_a_neuron_the_best_and_the_worst_are_listed(capsys, folder):
    code, out, _ = command(capsys, "show", str(folder), "--rows", "2")
    assert code == 0
    assert out == f"{ns.view(folder / 'scores.parquet', explanations=small_explanations(), rows=2)}\n"
    given = read_json(command(capsys, "show", str(folder), "--rows", "1", "--json")[1])
    scores = pl.read_parquet(folder / "scores.parquet")[SCORE].drop_nulls()
    assert [row[SCORE] for row in given["rows"]] == [scores.max(), scores.min()]
    assert command(capsys, "show", str(folder), "9/9")[0] == 1
