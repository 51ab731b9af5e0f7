"""Every error goes from one process to another and stays what it is."""

from __future__ import annotations

import pickle

import pytest

from nscore import errors

MADE = {
    "TableError": lambda: errors.TableError("gap", "a.parquet, row 3", found="4", mend="Sort it.", column="position"),
    "SourceError": lambda: errors.SourceError("7.json", "no JSON", place="line 3", mend="Mend it."),
    "ReplyError": lambda: errors.ReplyError("refused", "no", again=True),
    "UnknownNameError": lambda: errors.UnknownNameError("metric", "person", ["pearson"]),
}


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_goes_to_another_process_and_stays_what_it_is(name):
    kind = getattr(errors, name)
    error = MADE.get(name, lambda: kind("what was found"))()
    error.add_note("kept in a folder")
    same = pickle.loads(pickle.dumps(error))  # noqa: S301  (as the executors do between their own processes)
    assert type(same) is kind
    assert str(same) == str(error)
    assert vars(same) == vars(error)
