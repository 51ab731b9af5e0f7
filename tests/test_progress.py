"""Bars: on a real terminal, after a second, where a command asked for them, and nowhere else."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import polars as pl
import pytest

from nscore._progress import bar, counted, shown_bars

WORK = """
import time
from nscore._progress import bar, shown_bars
with shown_bars(), bar("reading", "tokens", lambda: 10_000) as step:
    for _ in range(10):
        step(1_000)
        time.sleep({pause})
"""


def on_a_terminal(code):
    """What a process writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
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
