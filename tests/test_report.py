"""The report: what stands in it equals the tables, its table sorts and filters, and it stays small at any number of neurons."""

from __future__ import annotations

import json
import re

import numpy as np
import polars as pl
import pytest
from browser import Browser
from simulation_tables import command, read_json, small_explanations, small_records

import nscore as ns
from nscore.errors import SettingError, TableError, UnknownNameError

SCORE = "ev_correlation_score"


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as `nscore demo` writes it, with failures, requests and intervals."""
    folder = tmp_path_factory.mktemp("tables")
    some = pl.col("layer").is_in([0, 5])
    records, explanations = ns.sample.records().filter(some), ns.sample.explanations().filter(some)
    simulated = ns.simulate(records, explanations, simulator=["lexical", "token_lookup", "shuffled"])
    failed = (pl.col("sequence") % 7 == 0) & (pl.col("simulator") == "lexical")
    simulated = simulated.with_columns(
        predicted=pl.when(~failed).then("predicted"), status=pl.when(failed).then(pl.lit("refused")).otherwise("status")
    )
    scores = ns.intervals(ns.score_sequences(simulated), method="jackknife")
    requests = pl.DataFrame({"simulator": ["lexical"] * 4, "status": ["ok", "ok", "refused", "ok"], "price": [0.25, 0.5, 0.125, 1.0],
                             "prompt_tokens": [10, 20, 30, 40], "completion_tokens": [1, 2, 3, 4], "latency_s": [0.1] * 4})  # fmt: skip
    for name, table in {
        "simulated": simulated,
        "scores": scores,
        "explanations": explanations,
        "requests": requests,
    }.items():
        table.write_parquet(folder / f"{name}.parquet")
    ns.report(folder, out=folder / "report.html", neurons=6)
    return folder


@pytest.fixture
def page(browser, folder):
    page = browser.open((folder / "report.html").as_uri())
    yield page
    assert page.complaints() == []
    page.ask("Page.close")


def table(folder):
    return pl.read_parquet(folder / "scores.parquet")


def shown_rows(page):
    """The number of each row that is drawn in the table, in order."""
    return page.run("[...document.querySelectorAll('tr[data-row]')].map((r) => Number(r.dataset.row))")


def found(page):
    return page.run("document.getElementById('found').textContent")


def fill(page, selector, value):
    page.run(f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.value = {json.dumps(value)};"
             "e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change')) })()")  # fmt: skip


def test_the_headline_tells_what_the_tables_hold(page, folder):
    scores = table(folder)
    cards = dict(
        page.run(
            "[...document.querySelectorAll('.cards div')].map((d) => [d.firstChild.textContent, d.lastChild.textContent])"
        )
    )
    lookup = scores.filter(pl.col("simulator") == "token_lookup")[SCORE].median()
    assert cards["neurons"] == str(scores.select("layer", "neuron").n_unique())
    assert cards["rows of scores"] == str(scores.height)
    assert cards["tokens"] == f"{scores['n_tokens'].sum():,}"
    assert cards["coverage"] == f"{scores['n_predicted'].sum() / scores['n_tokens'].sum():.1%}"
    assert cards[f"median {SCORE}, token_lookup"] == f"{lookup:.3f}"
    assert (cards["requests"], cards["price"], cards["prompt tokens"]) == ("4", "$1.88", "100")
    refused = scores.select(pl.col("failures").struct.field("refused").sum()).item()
    assert f"{refused:,}" in page.run("document.getElementById('coverage').textContent")
    half = lookup_half(scores)
    assert f"± {half:.3f}" in page.run("document.querySelector('#glance table').textContent")


def lookup_half(scores):
    part = scores.filter(pl.col("simulator") == "token_lookup")
    return ((part[f"{SCORE}_high"] - part[f"{SCORE}_low"]) / 2).median()


def test_rows_are_sorted_by_score_and_by_a_click_on_any_head(page, folder):
    scores = table(folder)
    best = np.argsort(-scores[SCORE].to_numpy(), kind="stable")
    assert shown_rows(page)[:10] == best[:10].tolist()
    page.click(f"th[data-name={SCORE}] button")
    assert shown_rows(page)[:10] == np.argsort(scores[SCORE].to_numpy(), kind="stable")[:10].tolist()
    assert page.run(f"document.querySelector('th[data-name={SCORE}]').getAttribute('aria-sort')") == "ascending"
    page.click("th[data-name=neuron] button")
    assert shown_rows(page)[:10] == np.argsort(scores["neuron"].to_numpy(), kind="stable")[:10].tolist()
    assert page.run("document.querySelectorAll('th[aria-sort]:not([aria-sort=none])').length") == 1


def test_filters_leave_the_rows_that_the_table_has(page, folder):
    scores, texts = table(folder), pl.read_parquet(folder / "explanations.parquet")
    fill(page, "#search", "PLACE")
    names = texts.filter(pl.col("explanation").str.to_lowercase().str.contains("place")).select("layer", "neuron")
    # a control was given another neuron's explanation, and is not found by its own
    n = scores.filter(pl.col("simulator") != "shuffled").join(names, on=["layer", "neuron"], how="semi").height
    assert found(page).startswith(f"{n} of {scores.height} rows")
    fill(page, "#search", "0/134")
    assert found(page).startswith(f"3 of {scores.height} rows")
    fill(page, "#search", "")
    page.run("(() => { const s = document.querySelector('[data-key=simulator]'); s.value = [...s.options].find("
             "(o) => o.textContent === 'shuffled').value; s.dispatchEvent(new Event('change')) })()")  # fmt: skip
    assert found(page).startswith(f"{scores.height // 3} of {scores.height} rows")
    fill(page, "#low", "0.1")
    fill(page, "#high", "0.3")
    inside = scores.filter(
        (pl.col("simulator") == "shuffled") & pl.col(SCORE).cast(pl.Float32).is_between(0.1, 0.3)
    ).height
    assert found(page).startswith(f"{inside} of {scores.height} rows")
    fill(page, "#low", "5")
    assert found(page).startswith(f"0 of {scores.height} rows")
    assert shown_rows(page) == []


def test_a_row_shows_its_explanation_its_scores_and_its_records(page, folder):
    scores = table(folder)
    row = int(scores[SCORE].arg_max())
    keys = scores.select("layer", "neuron", "simulator", "explanation_id").row(row)
    detail = "document.getElementById('detail')"
    assert page.run(f"{detail}.querySelector('h3').firstChild.textContent") == "/".join(map(str, keys))
    text = ns.sample.explanations().filter(layer=keys[0], neuron=keys[1])["explanation"].item()
    assert page.run(f"{detail}.querySelector('blockquote').textContent") == text
    assert f"{scores[SCORE][row]:.3f}" in page.run(f"{detail}.querySelector('.facts').textContent")
    first = page.run(f"[...{detail}.querySelector('.tokens').children].map((t) => [t.textContent, t.title])")
    number = int(re.search(r"record (\d+)", page.run(f"{detail}.querySelector('figcaption').textContent"))[1])
    tokens = pl.read_parquet(folder / "simulated.parquet").filter(
        layer=keys[0], neuron=keys[1], simulator=keys[2], sequence=number
    )
    assert [token for token, _ in first] == tokens["token"].to_list()
    told = tokens.select("activation", "predicted").head(5).rows()
    assert [title for _, title in first[:5]] == [f"true {t:.3f}, predicted {p:.3f}" for t, p in told]
    assert page.run(f"{detail}.querySelectorAll('svg.plot circle').length") > 1, "a calibration plot"


def test_everything_is_reached_by_keys(page, folder):
    page.run("document.querySelector('.rows').focus()")
    before = shown_rows(page)
    page.press("ArrowDown", "ArrowDown")
    row = "document.querySelector('tr[aria-selected=true]')"
    assert page.run(f"Number({row}.dataset.row)") == before[2]
    assert page.run(f"document.querySelector('.rows').getAttribute('aria-activedescendant') === {row}.id")
    page.press("End")
    assert page.run(f"{row}.getAttribute('aria-rowindex')") == str(table(folder).height + 1)
    page.press("PageUp", "Home", "ArrowUp")
    assert page.run(f"{row}.getAttribute('aria-rowindex')") == "2"
    page.press("Enter")
    assert page.run("document.activeElement.id") == "detail"
    page.run("document.querySelector('#detail [data-heat]').focus()")
    page.press("ArrowRight", "ArrowRight")
    told = page.run("document.querySelector('#detail output').textContent")
    assert re.fullmatch(r"“.+”: true .+, predicted .+", told)
    assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"


def test_tab_goes_through_every_control(page):
    page.run("document.activeElement.blur()")
    seen = set()
    for _ in range(40):
        page.press("Tab")
        seen.add(
            page.run("document.activeElement.id || document.activeElement.className || document.activeElement.tagName")
        )
    assert {"skip", "search", "ranged", "low", "high", "drawn", "rows"} <= seen


def test_a_reader_without_eyes_is_told_what_is_there(page, folder):
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    named = [
        (n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if "role" in n and not n["ignored"]
    ]
    roles = {role for role, _ in named}
    assert {"grid", "row", "columnheader", "gridcell", "heading", "main", "status", "searchbox"} <= roles
    controls = {"button", "searchbox", "combobox", "spinbutton", "checkbox", "image", "grid", "link"}
    assert [role for role, name in named if role in controls and not name.strip()] == []
    pictures = [name for role, name in named if role == "image"]
    assert any("median" in name for name in pictures)
    assert any(name.startswith("Calibration: means of tokens") for name in pictures)
    assert page.run("document.querySelector('[role=grid]').getAttribute('aria-rowcount')") == str(
        table(folder).height + 1
    )
    assert page.run("document.documentElement.lang") == "en"


# The colour of each piece of text against what lies behind it, as WCAG 2 measures.
CONTRAST = """(() => {
  const parts = (c) => (c.match(/[\\d.]+/g) || []).map(Number);
  const light = (c) => { const [r, g, b] = parts(c).slice(0, 3).map((x) => x / 255)
    .map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const low = [];
  for (const e of document.querySelectorAll("body *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || e.closest("script,style,template,svg")) continue;
    let at = e, behind = null;
    for (; at && !behind; at = at.parentElement) {
      const style = getComputedStyle(at), stop = /^linear-gradient\\((rgba?\\([^)]*\\))/.exec(style.backgroundImage);
      const c = stop ? stop[1] : style.backgroundColor;
      if (parts(c).length === 3 || parts(c)[3] > 0.99) behind = c;
    }
    const [a, b] = [light(getComputedStyle(e).color), light(behind || "rgb(255,255,255)")].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push([e.tagName, e.className, e.textContent.slice(0, 20), (a + 0.05) / (b + 0.05)]);
  }
  return low;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read_on_what_lies_behind_it(page, dark):
    page.look(width=1400, height=900, dark=dark)
    assert page.run(CONTRAST) == []


@pytest.mark.parametrize("width", [360, 768, 1920])
def test_no_window_is_too_narrow(page, width):
    page.look(width=width, height=800)
    page.settle()
    assert page.run("document.documentElement.scrollWidth - innerWidth") <= 0


def test_it_prints(page):
    assert page.printed().startswith(b"%PDF")


def test_plots_are_there_without_a_script(browser, folder):
    page = browser.open((folder / "report.html").as_uri(), scripts=False)
    document = page.ask("DOM.getDocument")["root"]["nodeId"]
    for selector, least in {"svg.plot": 12, ".cards": 2, "noscript": 1}.items():
        assert len(page.ask("DOM.querySelectorAll", nodeId=document, selector=selector)["nodeIds"]) >= least


def test_an_address_names_a_row(browser, folder):
    page = browser.open((folder / "report.html").as_uri() + "#row=17")
    expected = "/".join(map(str, table(folder).row(17)[:4]))
    assert page.run("document.querySelector('#detail h3').firstChild.textContent") == expected
    assert page.run("document.querySelector('tr[aria-selected=true]').dataset.row") == "17"


def many(n):
    """Scores of so many neurons, with an explanation each."""
    rng = np.random.default_rng(0)
    keys = {"layer": np.arange(n) // 1000, "neuron": np.arange(n) % 1000}
    scores = pl.DataFrame(
        keys | {"n_sequences": 10, "n_tokens": 640, "n_predicted": 640, "coverage": 1.0, SCORE: rng.random(n)}
    )
    texts = pl.DataFrame(
        keys | {"explanation_id": "a", "explanation": [f"neuron <{i}> " + "of words " * 12 for i in range(n)]}
    )
    return scores, texts


def test_fifty_thousand_neurons_stay_light(browser, tmp_path):
    scores, texts = many(50_000)
    page = browser.open(ns.report(scores, explanations=texts, out=tmp_path / "r.html").as_uri())
    assert (tmp_path / "r.html").stat().st_size < 12_000_000
    assert found(page).startswith("50,000 rows")
    assert page.run("document.querySelectorAll('*').length") < 3000
    page.run("document.querySelector('.rows').focus()")
    page.press("End")
    assert shown_rows(page)[-1] == int(scores[SCORE].arg_min())
    took = page.run("(() => { const t = performance.now(); const s = document.getElementById('search'); s.value = '<4999';"
                    "s.dispatchEvent(new Event('input')); return performance.now() - t })()")  # fmt: skip
    assert found(page).startswith("11 of 50,000 rows")
    assert took < 2000
    assert page.complaints() == []


def test_a_page_keeps_its_size_and_says_what_is_left_out(tmp_path, folder):
    scores, texts = many(50_000)
    long = texts.with_columns(pl.concat_str(["explanation"] * 5))
    small = ns.report(scores, explanations=long, out=tmp_path / "r.html", max_bytes=5_000_000)
    assert small.stat().st_size <= 5_000_000
    assert "Explanations are cut to " in small.read_text("utf-8")
    assert re.search(r"The table holds [\d,]+ of 50,000 rows", small.read_text("utf-8"))
    few = ns.report(folder, out=tmp_path / "f.html", neurons=60, max_bytes=4_000_000)
    assert few.stat().st_size <= 4_000_000
    assert "more did not fit" in few.read_text("utf-8")
    with pytest.raises(SettingError, match="max_bytes: found 1,000"):
        ns.report(folder, out=tmp_path / "x.html", max_bytes=1000)


def drawn(file):
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', file.read_text("utf-8"))[1]
    return json.loads(data)


def test_the_best_the_worst_some_others_and_those_named_are_drawn(tmp_path, folder):
    scores = table(folder)
    lookup = scores.filter(pl.col("simulator") == "token_lookup").sort(SCORE)
    data = drawn(ns.report(folder, out=tmp_path / "r.html", neurons=6, named=["5/1053"], records=1))
    neurons = {scores.row(row)[:2]: why for row, why in zip(data["drawn"], data["why"], strict=True)}
    ranked = lookup.select("layer", "neuron").rows()
    named = (5, 1053)
    assert neurons[named] == "named"
    assert {n for n, why in neurons.items() if why == "best"} == {n for n in ranked[-2:] if n != named}
    assert {n for n, why in neurons.items() if why == "worst"} == {n for n in ranked[:2] if n != named}
    assert len(neurons) == 6
    assert data == drawn(ns.report(folder, out=tmp_path / "r.html", neurons=6, named=["5/1053"], records=1))


def test_a_simulated_table_alone_is_scored(tmp_path):
    simulated = ns.simulate(small_records(), small_explanations(), simulator=["token_lookup", "constant"])
    data = drawn(ns.report(simulated, out=tmp_path / "r.html"))
    scores = ns.score(simulated)
    assert data["n"] == scores.height
    assert len(data["drawn"]) == scores.height


def test_mistakes_are_told(tmp_path, folder):
    with pytest.raises(UnknownNameError, match="no score is called 'spearmint'"):
        ns.report(folder, out=tmp_path / "r.html", metric="spearmint")
    with pytest.raises(TableError, match=r"no such neuron.*found no scores of '9/9'.*layer/neuron"):
        ns.report(folder, out=tmp_path / "r.html", named=["9/9"])
    tmp_path.joinpath("requests.parquet").write_bytes((folder / "requests.parquet").read_bytes())
    with pytest.raises(TableError, match="neither scores nor a simulated table"):
        ns.report(tmp_path, out=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_the_command_writes_what_the_function_writes(capsys, tmp_path, folder):
    out = tmp_path / "cli.html"
    code, said, _ = command(
        capsys, "report", str(folder), "-o", str(out), "--neurons", "3", "--named", "0/134", "--json"
    )
    assert code == 0
    assert read_json(said) == {"file": str(out), "bytes": out.stat().st_size}
    again = ns.report(folder, out=tmp_path / "py.html", neurons=3, named=["0/134"])
    assert out.read_bytes() == again.read_bytes()
    assert command(capsys, "report", str(folder), "-o", str(out), "--neurons", "3")[1].startswith(f"wrote {out} (")
