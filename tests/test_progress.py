"""Bars: on a real terminal, after a second, where a command asked for them, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

import polars as pl
import pytest
from asking import explanations_of, records_of, serve

from nscore._progress import bar, counted, shown_bars, tally_bar
from nscore._running.engine import Tally

WORK = """
import time
from nscore._progress import bar, shown_bars
with shown_bars(), bar("reading", "tokens", lambda: 10_000) as step:
    for _ in range(10):
        step(1_000)
        time.sleep({pause})
"""


def on_a_terminal(code, columns=80):
    """What a process writes to a terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=theirs, stderr=theirs, stdin=theirs)
    os.close(theirs)
    written = b""
    while True:
        try:
            written += os.read(ours, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if process.poll() is not None and not written:
            break
    assert process.wait() == 0
    os.close(ours)
    return written.decode()


def test_long_work_shows_a_bar_and_short_work_does_not():
    assert "10.0k/10.0k" in on_a_terminal(WORK.format(pause=0.15))
    assert on_a_terminal(WORK.format(pause=0)).strip() == ""


def test_without_a_terminal_nothing_is_shown():
    done = subprocess.run([sys.executable, "-c", WORK.format(pause=0.12)], check=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_without_a_command_no_total_is_asked_for(capsys):
    with bar("reading", "tokens", lambda: pytest.fail("asked")) as step:
        step(5)
    assert capsys.readouterr().err == ""


def test_rows_are_counted_as_they_are_computed_and_stay_the_same(monkeypatch):
    frame, seen = pl.DataFrame({"x": range(10)}), []
    assert counted(frame.lazy()).explain() == frame.lazy().explain()
    with shown_bars():
        again = counted(frame.lazy())
        monkeypatch.setattr("nscore._progress._CURRENT", [seen.append])
        assert again.collect(engine="streaming").equals(frame)
    assert sum(seen) == 10


def simulated_on_a_terminal(folder, *flags, columns=120, **switches):
    """The lines that `nscore simulate` shows one after another, while it asks a server."""
    records_of(3, 5).write_parquet(folder / "records.parquet")
    explanations_of(3).write_parquet(folder / "explanations.parquet")
    with serve(wait_s=0.1, **switches) as server:
        line = ["simulate", "records.parquet", "explanations.parquet", "--simulator", "json_list", "-o", "run"]
        line += ["--base-url", server.base_url, "--model", "tiny", "--concurrency", "2", *flags]
        code = f"import os, sys; os.chdir({str(folder)!r}); from nscore.cli import main; main({line!r})"
        return re.split(r"[\r\n]+", on_a_terminal(code, columns))


NUMBERS = (
    r"simulate: +(?P<percent>\d+)%\|.*\| (?P<done>\d+)/15 \[00:0\d<(?P<left>\S+), +(?P<rate>[\d.]+) requests/s, "
    r"(?P<failed>\d+) failed, (?P<tokens>[\d,]+) tokens(, \$(?P<price>[\d.]+))?\]"
)


def test_a_run_shows_what_is_done_failed_spent_and_left(tmp_path):
    lines = simulated_on_a_terminal(tmp_path, "--price", "0.15,0.6")
    shown = [found for line in lines if (found := re.match(NUMBERS, line))]
    assert len(shown) > 3
    assert {found["failed"] for found in shown} == {"0"}
    done, tokens, prices = (
        [float(found[name].replace(",", "")) for found in shown] for name in ("done", "tokens", "price")
    )
    assert done[-1] == 15
    assert shown[-1]["percent"] == "100"
    assert (done, tokens, prices) == (sorted(done), sorted(tokens), sorted(prices))
    requests = pl.read_parquet(tmp_path / "run" / "requests.parquet" / "*.parquet")
    assert tokens[-1] == requests.select(pl.sum("prompt_tokens", "completion_tokens")).sum_horizontal()[0]
    assert prices[-1] == pytest.approx(requests["price"].sum(), abs=1e-4)
    assert any(re.fullmatch(r"00:\d\d", found["left"]) and float(found["rate"]) > 1 for found in shown)
    assert all(len(line) <= 120 for line in lines)


def test_what_failed_is_counted_and_a_price_that_nobody_knows_is_not_shown(tmp_path):
    lines = simulated_on_a_terminal(tmp_path, "--attempts", "1", answer=lambda _: "10", structured=False)
    last = [found for line in lines if (found := re.match(NUMBERS, line))][-1]
    assert (last["done"], last["failed"], last["price"]) == ("15", "15", None)


def test_without_a_command_no_bar_of_requests_is_shown(capsys):
    with tally_bar(10) as told:
        told(Tally(done=5))
    assert capsys.readouterr().err == ""
