"""Pages in a real browser, made of texts that want to be more: none of them runs, loads, or hides anything."""

from __future__ import annotations

import http.server
import random
import threading

import polars as pl
import pytest
from browser import Browser, found
from hostile_texts import hostile_texts

import nscore as ns

# Whoever gets a script to run tells of it on the console.
TRAP = "window.nscore_trap = () => { console.error('trapped'); window.trapped = true }; nscore_ready = true"
RECORDS = 3


class Away(http.server.ThreadingHTTPServer):
    """A server that serves the pages of a folder, and keeps the addresses that were asked for."""

    def __init__(self, folder):
        self.folder, asked = folder, []
        self.asked = asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(folder))

            def do_GET(self):
                asked.append(self.path)
                super().do_GET()

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def away(tmp_path_factory):
    server = Away(tmp_path_factory.mktemp("served"))
    yield server
    server.shutdown()
    server.server_close()


def deck(texts):
    """The texts again and again, each time in another order."""
    rng = random.Random(0)
    while True:
        yield from rng.sample(texts, len(texts))


def tables(texts):
    """Tables in which every text stands in every place that a page shows."""
    turn = deck(texts)
    # a key is a text as well as any; two equal ones would be one neuron
    layers = list(dict.fromkeys(texts))
    rows = []
    for i, layer in enumerate(layers):
        for sequence in range(RECORDS):
            n = 4 + sequence
            keys = {"layer": layer, "neuron": next(turn), "simulator": next(turn), "explanation_id": next(turn)}
            if sequence:
                keys = rows[-1].select(["layer", "neuron", "simulator", "explanation_id"]).row(0, named=True)
            marks = {
                "split": "test",
                "stratum": texts[i % 4 * 7 % len(texts)],
                "sequence": f"{next(turn)[:50]}{sequence}",
            }
            values = {
                "activation": [float((i + k) % 5) for k in range(n)],
                "predicted": [float(k % 3) for k in range(n)],
            }
            rows.append(
                pl.DataFrame(keys | marks | {"position": range(n), "token": [next(turn) for _ in range(n)]} | values)
            )
    simulated = pl.concat(rows)
    keys = ["layer", "neuron", "simulator", "explanation_id"]
    explanations = (
        simulated.select(keys)
        .unique(maintain_order=True)
        .with_columns(explanation=pl.Series([next(turn) for _ in layers]))
    )
    requests = pl.DataFrame(
        {"simulator": texts, "status": texts[::-1], "prompt_tokens": 1, "price": 0.5, "error": texts}
    )
    return simulated, explanations, requests


def hostile_page(folder, texts, name="report.html", **options):
    simulated, explanations, requests = tables(texts)
    scores = ns.score(simulated, strata=True).rename(
        {"rsquared_score": texts[0], "absolute_dev_explained_score": texts[1]}
    )
    options = {"title": "".join(texts[:12]), "neurons": len(texts), "records": RECORDS} | options
    return ns.report(
        simulated, scores=scores, explanations=explanations, requests=requests, out=folder / name, **options
    )


# Opens everything that there is to open: each row, each column, each fold, each token.
EXERCISE = """(async () => {
  const press = (at, key) => at.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  document.querySelectorAll("details").forEach((d) => { d.open = true });
  document.querySelectorAll("#filters details input").forEach((c) => { if (!c.checked) c.click() });
  const rows = document.querySelector(".rows"), opened = new Set();
  press(rows, "Home");
  for (let at = 0; at < 64; at++) {
    opened.add(document.querySelector("#detail h3").textContent);
    document.querySelectorAll("#detail [data-heat]").forEach((heat) => { for (let i = 0; i < 3; i++) press(heat, "ArrowRight") });
    press(rows, "ArrowDown");
  }
  for (const name of ["mouseover", "focus", "toggle"]) document.querySelectorAll("*").forEach((e) => e.dispatchEvent(new Event(name)));
  for (const head of [...document.querySelectorAll("thead button")]) head.click();
  document.querySelectorAll("#filters select").forEach((s) => {
    for (const option of [...s.options].slice(0, 5)) { s.value = option.value; s.dispatchEvent(new Event("change")); }
    s.selectedIndex = 0; s.dispatchEvent(new Event("change"));
  });
  const search = document.getElementById("search");
  for (const text of ["<script", "\\u202e", "(((", ".*", "'\\"", ""]) { search.value = text; search.dispatchEvent(new Event("input")); }
  await new Promise((done) => setTimeout(done, 200));
  return opened.size;
})()"""


@pytest.mark.parametrize("over", ["file", "http"])
def test_no_text_of_a_table_runs_loads_or_complains(browser, away, tmp_path, over):
    folder = tmp_path if over == "file" else away.folder
    texts = hostile_texts(away.port)
    made = hostile_page(folder, texts)
    asked = len(away.asked)
    url = made.as_uri() if over == "file" else f"http://127.0.0.1:{away.port}/{made.name}"
    page = browser.open(url, before=TRAP)
    assert page.run("nscore_ready")
    if over == "file":
        assert page.run(EXERCISE) >= len(set(texts)) - 1, "every neuron was opened"
    assert page.complaints() == []
    assert page.run("window.trapped") is None
    assert page.requests() == [url]
    assert away.asked[asked:] == ([] if over == "file" else [f"/{made.name}"])
    assert page.run("document.querySelectorAll('script').length") == 2, "the data and the page's own script"
    assert (
        page.run("document.querySelectorAll('img,iframe,object,embed,link,base,video,audio,form[action]').length") == 0
    )


def test_texts_arrive_as_they_are_but_for_what_cannot_be_seen(browser, away, tmp_path):
    texts = hostile_texts(away.port)
    page = browser.open(hostile_page(tmp_path, texts).as_uri())
    seen = page.run("document.body.textContent")
    templates = page.run("[...document.querySelectorAll('template')].map((t) => t.content.textContent).join('')")
    for text in texts:
        if text.isprintable() and len(text) <= 60:
            assert text in seen, text
            assert text in templates, text
    for sign in "\x00\x1b\x9b\x07\u202e\u2066\u200b\ufeff\u2028":
        assert sign not in seen + templates, repr(sign)
    assert r"\u202e" in templates
    assert r"\x1b[31m" in templates


def test_a_page_that_is_not_safe_is_found_out(browser, away, tmp_path):
    """The instruments work: what the other tests say does not happen is seen where it does."""
    page = tmp_path / "naive.html"
    page.write_text("<body>" + hostile_texts(away.port)[0] + hostile_texts(away.port)[10], "utf-8")
    asked = len(away.asked)
    opened = browser.open(page.as_uri(), before=TRAP)
    opened.run("new Promise((done) => setTimeout(done, 200))")
    assert opened.run("window.trapped") is True
    assert ["trapped"] in opened.complaints()
    assert [url for url in opened.requests() if "/away" in url]
    assert away.asked[asked:]


def test_the_policy_holds_even_where_markup_slipped_through(browser, away, tmp_path):
    """Behind the escaping stands the browser: what got into the page as markup runs nothing and loads nothing."""
    made = hostile_page(tmp_path, ["plain", "words", "only"])
    slipped = "".join(text for text in hostile_texts(away.port)[10:22] if "refresh" not in text)
    broken = made.read_text("utf-8").replace("<main>", f"<main><script>nscore_trap()</script>{slipped}", 1)
    page = tmp_path / "broken.html"
    page.write_text(broken, "utf-8")
    asked = len(away.asked)
    opened = browser.open(page.as_uri(), before=TRAP)
    opened.run("new Promise((done) => setTimeout(done, 300))")
    assert opened.run("window.trapped") is None
    assert any("Content Security Policy" in str(said) for said in opened.complaints())
    assert away.asked[asked:] == []


def test_the_page_itself_cannot_make_markup_of_a_text(browser, tmp_path):
    page = browser.open(hostile_page(tmp_path, ["plain", "words", "only"]).as_uri())
    tries = "document.body.innerHTML = '<b>x</b>'", "document.write('x')", "eval('1')", "new Function('1')()"
    for attempt in tries:
        outcome = f"(() => {{ try {{ {attempt}; return 'done' }} catch (error) {{ return error.name }} }})()"
        assert page.run(outcome) in {"TypeError", "EvalError"}, attempt


def test_a_fragment_for_notebooks_holds_no_script_and_nothing_that_loads(browser, away, tmp_path):
    texts = hostile_texts(away.port)
    simulated, explanations, _ = tables(texts)
    scores = ns.score(simulated)
    shown = "".join(ns.show(simulated, *row, explanations=explanations)._repr_html_() for row in
                    simulated.select("layer", "neuron").unique(maintain_order=True).head(20).iter_rows())  # fmt: skip
    viewed = ns.view(scores, explanations=explanations)._repr_html_()
    assert "<script" not in shown + viewed
    page = tmp_path / "notebook.html"
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{shown}{viewed}", "utf-8")
    asked = len(away.asked)
    opened = browser.open(page.as_uri(), before=TRAP)
    assert opened.complaints() == []
    assert opened.requests() == [page.as_uri()]
    assert away.asked[asked:] == []
    assert (
        opened.run("document.querySelectorAll('script,img,iframe,link,base,[onload],[onerror],[onfocus]').length") == 0
    )


@pytest.mark.parametrize(("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_without_a_browser_nothing_passes_by_silence(monkeypatch, tmp_path, ci, outcome):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="no Chromium is installed"):
        found()
