"""Names of files: one name for each key, none of which leads anywhere."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nscore.exporters import safe_name

KEYS = st.one_of(st.text(), st.text("./\\~%\x00ab", max_size=6), st.integers())


@given(KEYS, st.text(max_size=400))
def test_a_name_is_one_part_of_a_path_and_no_special_one(key, more):
    name = safe_name(f"{key}{more}")
    assert name not in {"", ".", ".."}
    assert PurePosixPath(name).parts == PureWindowsPath(name).parts == (name,)
    assert not name.startswith(".")
    assert name.isascii()
    assert name.isprintable()
    assert len(name) < 200


@given(st.lists(KEYS.map(str), min_size=2, max_size=2, unique=True), st.text("x/", min_size=0, max_size=200))
def test_two_keys_have_two_names(keys, behind):
    assert safe_name(keys[0] + behind) != safe_name(keys[1] + behind)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (11, "11"),
        ("blocks.5.hook_mlp_out", "blocks.5.hook_mlp_out"),
        ("..", "%2E."),
        ("a/b", "a%2Fb"),
        ("%", "%25"),
        ("é", "%C3%A9"),
    ],
)
def test_plain_names_stay(key, name):
    assert safe_name(key) == name
