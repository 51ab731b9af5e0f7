"""How the report looks: pictures of its states, and intervals in its headline where the records are there."""

from __future__ import annotations

import struct
import zlib

import pytest
from browser import Browser
from simulation_tables import small_explanations, small_records

import nscore as ns

PNG = b"\x89PNG\r\n\x1a\n"
CAPTION = "half the width of an explanation"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    records, explanations = ns.sample.records().filter(layer=0), ns.sample.explanations().filter(layer=0)
    simulated = ns.simulate(records, explanations, simulator=["lexical", "shuffled"])
    sequences = ns.score_sequences(simulated)
    tables = {"simulated": simulated, "sequence_scores": sequences, "scores": ns.pool(sequences)}
    for name, table in (tables | {"explanations": explanations}).items():
        table.write_parquet(folder / f"{name}.parquet")
    ns.report(folder, out=folder / "report.html")
    return folder


def colours(png):
    """Width, height, and the share of the lightest pixels, of a PNG that Chromium made: 8 bits, RGB or RGBA."""
    content = png.read_bytes()
    assert content.startswith(PNG)
    width, height, depth, kind = struct.unpack(">IIBB", content[16:26])
    assert depth == 8
    at, data = 8, b""
    while at < len(content):
        (size,) = struct.unpack(">I", content[at : at + 4])
        if content[at + 4 : at + 8] == b"IDAT":
            data += content[at + 8 : at + 8 + size]
        at += size + 12
    channels = {2: 3, 6: 4}[kind]
    rows, stride, before = zlib.decompress(data), width * channels, bytes(width * channels)
    light = 0
    for row in range(height):
        begin = row * (stride + 1)
        before = unfiltered(rows[begin], rows[begin + 1 : begin + 1 + stride], before, channels)
        light += sum(value > 200 for value in before[1::channels])
    return width, height, light / (width * height)


def unfiltered(how, row, above, n):
    out = bytearray(row)
    for i in range(len(out)):
        left, up, corner = (out[i - n] if i >= n else 0), above[i], (above[i - n] if i >= n else 0)
        if how == 1:
            out[i] = (out[i] + left) & 255
        elif how == 2:
            out[i] = (out[i] + up) & 255
        elif how == 3:
            out[i] = (out[i] + (left + up) // 2) & 255
        elif how == 4:
            p = left + up - corner
            near = min((abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner))[2]
            out[i] = (out[i] + near) & 255
    return bytes(out)


def test_the_states_of_the_page_look_as_they_should(folder, tmp_path):
    shots = {}
    with Browser() as browser:
        page = browser.open((folder / "report.html").as_uri(), width=800, height=500)

        def shoot(name, **look):
            page.look(**({"width": 800, "height": 500} | look))
            page.settle()
            page.picture(tmp_path / f"{name}.png")
            shots[name] = (tmp_path / f"{name}.png").read_bytes()
            return colours(tmp_path / f"{name}.png")

        assert shoot("light")[2] > 0.7
        assert shoot("dark", dark=True)[2] < 0.3
        assert shoot("narrow", width=360)[:2] == (360, 500)
        page.run("document.querySelector('tr[data-row]').scrollIntoView()")
        assert 0.3 < shoot("neurons")[2] < 0.99
        page.click("tr[data-row]:nth-child(3)")
        shoot("chosen")
        assert page.complaints() == []
        assert all(url.startswith("file:") for url in page.requests())
    assert len(set(shots.values())) == len(shots)


def test_the_headline_has_intervals_where_the_records_are_there(folder):
    expected = ns.intervals(folder / "sequence_scores.parquet")
    part = expected.filter(simulator="lexical")
    half = (part["ev_correlation_score_high"] - part["ev_correlation_score_low"]).quantile(0.5, "linear") / 2
    page = (folder / "report.html").read_text("utf-8")
    assert CAPTION in page
    assert f"± {half:.3f}" in page


def test_scores_of_other_records_get_no_intervals_of_these(folder, tmp_path):
    for name in ("simulated", "sequence_scores"):
        (tmp_path / f"{name}.parquet").write_bytes((folder / f"{name}.parquet").read_bytes())
    ns.score(folder / "simulated.parquet", splits=["test"]).write_parquet(tmp_path / "scores.parquet")
    ns.report(tmp_path, out=tmp_path / "report.html")
    assert CAPTION not in (tmp_path / "report.html").read_text("utf-8")


def test_a_simulated_table_alone_is_scored_with_intervals(tmp_path):
    simulated = ns.simulate(small_records(), small_explanations(), simulator="lexical")
    ns.report(simulated, out=tmp_path / "report.html")
    assert CAPTION in (tmp_path / "report.html").read_text("utf-8")
