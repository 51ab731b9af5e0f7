"""Delphi's cache becomes the windows that a plain reader would cut from it; a broken or hostile file is named."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from delphi_files import cache, caches, safetensors, shard, windows
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore import imports
from nscore.errors import SettingError, SourceError
from nscore.importers import Delphi, SourceFile, _delphi_latents

TWO_ROWS = [[1, 2, 3, 4], [5, 6, 7, 8]]


def imported(folder, **options):
    told = ns.import_files("delphi", folder / "latents", folder / "out", **options)
    return told, pl.read_parquet(folder / "out/records.parquet"), pl.read_parquet(folder / "out/neurons.parquet")


def records_of(frame):
    """By latent and stratum, the records in their order: (tokens, activations)."""
    lists = frame.group_by("neuron", "sequence", "stratum", maintain_order=True).agg("token", "activation")
    found = {}
    for row in lists.iter_rows(named=True):
        found.setdefault((row["neuron"], row["stratum"]), []).append((row["token"], row["activation"]))
    return found


@given(caches(), st.integers(1, 8), st.integers(0, 4), st.integers(0, 4), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_the_windows_are_those_of_a_plain_reader(drawn, context, top, random, quantiles):
    places, values, tokens, start, end = drawn
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shard(folder, f"{start}_{end}", cache(places, values, tokens, start=start))
        if not places:
            assert ns.import_files("delphi", folder, folder / "out").tables == {}
            return
        options = {"context": context, "top": top, "random": random, "quantiles": quantiles, "per_quantile": 2}
        told, records, neurons = imported(folder, **options)
    expected = windows(places, values, tokens, context)
    got = records_of(records)
    beyond = 0
    for latent, (active, silent) in expected.items():
        assert got.get((latent, "top"), []) == active[:top]
        rest = active[top:]
        size = len(rest) // quantiles if quantiles else 0
        kept = 0
        for q in range(quantiles):
            part = got.get((latent, f"quantile_{q}"), [])
            kept += len(part)
            assert len(part) == min(2, size)
            assert not Counter(map(str, part)) - Counter(map(str, rest[q * size : (q + 1) * size]))
        own = got.get((latent, "random"), [])
        assert len(own) == min(random, len(silent))
        assert not Counter(map(str, own)) - Counter(map(str, silent)), "each at most once, and silent"
        beyond += len(rest) - kept
    assert {latent for latent, _ in got} <= set(expected)
    assert told.left_out.get("windows in which a latent fires, beyond those drawn (--top, --quantiles)", 0) == beyond
    counts = Counter(latent for *_, latent in places)
    highest = {n: max(v for (*_, m), v in zip(places, values, strict=True) if m == n) for n in counts}
    size = len(tokens) * len(tokens[0])
    assert neurons.select("layer", "neuron", "n_active", "n_tokens", "firing_rate", "max_activation").rows() == [
        ("layers.5", n, counts[n], size, counts[n] / size, highest[n]) for n in sorted(counts)
    ]


@given(caches(), st.integers(1, 3), st.randoms())
@settings(max_examples=30, deadline=None)
def test_neither_the_order_nor_pieces_nor_what_else_is_there_changes_a_record(drawn, most, random):
    places, values, tokens, start, end = drawn
    if not places:
        return
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        shard(folder / "a", f"{start}_{end}", cache(places, values, tokens, start=start))
        _, records, neurons = imported(folder / "a", context=2, top=2, random=2, quantiles=1)
        for constant in ("SORTED", "LOOKED", "TOKENS"):
            patch.setattr(_delphi_latents, constant, most)
        pairs = list(zip(places, values, strict=True))
        random.shuffle(pairs)
        for latent in range(start, end + 1):
            own = [pair for pair in pairs if pair[0][2] == latent]
            if own:
                content = cache(*zip(*own, strict=True), tokens, start=latent)
                shard(folder / "b", f"{latent}_{latent}", content)
        shard(folder / "c", f"{start}_{end}", cache(*zip(*pairs, strict=True), tokens, start=start))
        for other in ("b", "c"):
            _, again, stats = imported(folder / other, context=2, top=2, random=2, quantiles=1)
            assert again.equals(records)
            assert stats.drop("file").equals(neurons.drop("file"))


def test_a_case_by_hand(tmp_path):
    places, values = [(0, 0, 4), (0, 1, 5), (1, 3, 4)], [1.0, 3.0, 2.5]
    shard(tmp_path, "4_9", cache(places, values, TWO_ROWS, start=4))
    told, records, neurons = imported(tmp_path, context=2, top=1, random=1)
    top = records.filter(pl.col("stratum") == "top", pl.col("neuron") == 4)
    assert records.columns == ["layer", "neuron", "sequence", "position", "token", "activation", "stratum", "split"]
    assert top.rows() == [
        ("layers.5", 4, 0, 0, "7", 0.0, "top", "train"),
        ("layers.5", 4, 0, 1, "8", 2.5, "top", "train"),
    ]
    silent = records.filter(pl.col("stratum") == "random", pl.col("neuron") == 4)
    assert silent["token"].to_list() in (["3", "4"], ["5", "6"])
    assert silent["split"].unique().to_list() == ["calibration"]
    assert neurons.filter(pl.col("neuron") == 4).drop("file").rows() == [("layers.5", 4, 2, 8, 0.25, 2.5)]
    assert told.left_out == {
        "token texts: tokens are ids (give --tokenizer tokenizer.json)": 8,
        "windows in which a latent fires, beyond those drawn (--top, --quantiles)": 1,
    }
    ns.validate(records, "records")


def test_splits_interleave_as_the_originals_do(tmp_path):
    tokens = [[i] for i in range(40)]
    shard(tmp_path, "0_0", cache([(r, 0, 0) for r in range(20)], list(range(20, 0, -1)), tokens))
    _, records, _ = imported(tmp_path, context=1)
    top = records.filter(pl.col("stratum") == "top")
    assert top["token"].to_list() == [str(i) for i in range(20)]
    assert top["split"].to_list() == ["train", "calibration", "valid", "test"] * 5
    silent = records.filter(pl.col("stratum") == "random")
    assert sorted(silent["token"].to_list(), key=int) == [str(i) for i in range(20, 40)]
    assert silent["split"].to_list() == (["calibration", "valid", "test"] * 7)[:20]


def test_another_seed_draws_others_and_the_same_seed_the_same(tmp_path):
    shard(tmp_path / "latents", "0_0", cache([(0, 0, 0)], [1.0], [[i] for i in range(1000)]))

    def silent(seed):
        found = ns.import_files("delphi", tmp_path, tmp_path / f"out{silent.n}", context=1, seed=seed)
        silent.n += 1
        return pl.read_parquet(found.out / "records.parquet")["token"].to_list()[1:]

    silent.n = 0
    assert silent(0) == silent(0) != silent(1)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
@pytest.mark.parametrize("activations", ["float16", "float32", "bfloat16"])
def test_the_dtypes_of_a_cache_give_the_same_numbers(tmp_path, dtype, activations):
    values = np.array([1.5, -2.0, 0.25], dtype=np.float32)
    given_ = (
        ("BF16", (values.view(np.uint32) >> 16).astype(np.uint16))
        if activations == "bfloat16"
        else values.astype(activations)
    )
    shard(tmp_path, "0_1", cache([(0, 0, 0), (0, 2, 0), (1, 1, 1)], values, TWO_ROWS, dtype=dtype, activations=given_))
    _, records, _ = imported(tmp_path, context=4, random=0)
    assert records["activation"].to_list() == [1.5, 0.0, -2.0, 0.0, 0.0, 0.25, 0.0, 0.0]
    assert records.schema["activation"] == pl.Float32


def test_activations_that_are_no_numbers_are_null_and_counted(tmp_path):
    values = [np.inf, np.nan, 3.0]
    shard(tmp_path, "0_0", cache([(0, 0, 0), (0, 2, 0), (1, 1, 0)], values, TWO_ROWS))
    told, records, neurons = imported(tmp_path, context=2, random=0)
    assert records["token"].to_list() == ["1", "2", "5", "6", "3", "4"]
    assert records["activation"].to_list() == [None, 0.0, 0.0, 3.0, None, 0.0]
    assert told.left_out["activations that are no finite numbers (now null)"] == 2
    assert neurons["max_activation"].to_list() == [3.0]


def test_hook_points_are_the_folders_under_latents(tmp_path):
    for hookpoint in ("layers.5", "layer_0/width_16k/l0_50"):
        shard(tmp_path, "0_0", cache([(0, 0, 0)], [1.0], TWO_ROWS), hookpoint=hookpoint)
    (tmp_path / "latents/layers.5/config.json").write_text("{}")
    _, records, _ = imported(tmp_path)
    assert set(records["layer"]) == {"layers.5", "layer_0/width_16k/l0_50"}


def test_only_the_first_latents_are_read_where_that_is_asked_for(tmp_path):
    shard(tmp_path, "5_9", cache([(0, 0, 5), (0, 1, 6), (0, 2, 9)], [1.0] * 3, TWO_ROWS, start=5))
    _, records, neurons = imported(tmp_path, max_latents=7)
    assert neurons["neuron"].to_list() == sorted(set(records["neuron"])) == [5, 6]


GOOD = {"places": [(0, 0, 0), (1, 3, 1)], "values": [1.0, 2.0], "tokens": TWO_ROWS}
ONES = np.ones((2, 3), dtype=np.uint16)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "0 bytes: too short"),
        (b"1234567", "7 bytes: too short"),
        (b"\xff" * 16, "a header of 18,446,744,073,709,551,615 bytes in a file of 16"),
        ((100).to_bytes(8, "little") + b"{}", "a header of 100 bytes in a file of 10"),
        ((2).to_bytes(8, "little") + b"[]", "no JSON|Expected `object`"),
        ((2).to_bytes(8, "little") + b"{}x", "tensors of 0 bytes, and 1 bytes after the header"),
        (safetensors(tokens=ONES), "no tensor 'locations', found 'tokens'"),
        (
            safetensors(locations=ONES, activations=np.ones(2, np.float16)),
            "no tensor 'tokens'.*save_tokens",
        ),
        (cache(**GOOD, locations=ONES[:, :2].copy()), r"locations of shape \(2, 2\) and 2 activations"),
        (cache(**GOOD, locations=ONES[:1]), r"locations of shape \(1, 3\) and 2 activations"),
        (cache(**GOOD, locations=np.ones((2, 3), np.float32)), "locations: float32 of shape"),
        (cache(**GOOD, activations=np.ones(2)), "activations: F64 of shape"),
        (cache([(2, 0, 0)], [1.0], TWO_ROWS), r"locations\[0\]: row 2, and there are 2"),
        (cache([(0, 0, 0), (0, 4, 0)], [1.0] * 2, TWO_ROWS), r"locations\[1\]: position 4, and there are 4"),
        (cache([(0, 0, 3)], [1.0], TWO_ROWS), r"locations\[0\]: latent 3, and there are 2"),
        (cache([(0, 0, -1)], [1.0], TWO_ROWS, dtype=np.int64), "latent -1, and there are 2"),
        (cache([(0, 1, 0)] * 2, [1.0] * 2, TWO_ROWS), "two activations of latent 0 in row 0 at position 1"),
        (cache([(0, 0, 0)], [1.0], [[-5]]), r"tokens\[0, 0\]: token -5"),
        (cache([(0, 0, 0)], [1.0], [[1, 1 << 40]]), r"tokens\[0, 1\]: token 1099511627776"),
    ],
)
def test_a_broken_cache_is_named_with_what_is_wrong(tmp_path, content, found):
    file = shard(tmp_path, "0_1", content)
    with pytest.raises(SourceError, match=found) as caught:
        ns.import_files("delphi", tmp_path, tmp_path / "out")
    assert caught.value.path == str(file)
    assert not (tmp_path / "out/records.parquet").exists()


HEADER = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F16", "U16", "I64", "F99", "", 7]),
                "shape": st.lists(st.integers(-2, 1 << 62), max_size=3),
                "data_offsets": st.lists(st.integers(-2, 1 << 63), min_size=1, max_size=3),
            }
        )
        | st.integers()
        | st.none()
        for name in ("locations", "activations", "tokens", "__metadata__")
    },
)


def read_all(content):
    """Reads a file's bytes through to tables; whatever is wrong must be a `SourceError`."""
    reader = Delphi(context=2, top=2, random=2, quantiles=1)
    with tempfile.TemporaryDirectory() as folder:
        file = shard(folder, "0_1", content)
        try:
            parsed = [p.content for p in reader.parse(SourceFile(str(file))) if p.content is not None]
            return reader.tables(parsed)
        except SourceError:
            return None


def with_header(header, data):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@given(st.binary(max_size=200) | st.builds(with_header, HEADER, st.binary(max_size=64)))
@settings(max_examples=150, deadline=None)
@example((1 << 63).to_bytes(8, "little") + b"{}")
@example(with_header({"tokens": {"dtype": "I64", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 0]}}, b""))
@example(with_header({"tokens": {"dtype": "I64", "shape": [0, 1 << 40], "data_offsets": [0, 0]}}, b""))
@example(with_header({"tokens": {"dtype": "I64", "shape": [1] * 60, "data_offsets": [0, 8]}}, bytes(8)))
@example((40000).to_bytes(8, "little") + b"[" * 40000)
def test_random_bytes_and_headers_are_refused(content):
    assert read_all(content) in (None, {})


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_changed_byte_or_a_cut_is_refused_or_read_but_never_breaks(data):
    content = bytearray(cache(**GOOD))
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        assert read_all(bytes(content[:at])) is None, "a cut file"
        assert read_all(bytes(content) + bytes(data.draw(st.integers(1, 9)))) is None, "bytes after the end"
        return
    content[at] = data.draw(st.integers(0, 255))
    tables = read_all(bytes(content))
    if tables:
        ns.validate(tables["records"].with_columns(pl.col("activation").fill_null(0)), "records")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("context", 0),
        ("top", -1),
        ("random", 1.5),
        ("per_quantile", 0),
        ("seed", -1),
        ("max_latents", 0),
        ("top", 1 << 40),
    ],
)
def test_an_option_out_of_range_is_refused(option, value):
    with pytest.raises(SettingError, match=f"{option}: found"):
        Delphi(**{option: value})


def test_a_file_that_is_named_otherwise_is_refused(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(cache(**GOOD))
    assert not Delphi().wants(str(file))
    with pytest.raises(SourceError, match="its name is not START_END"):
        ns.import_files("delphi", file, tmp_path / "out")


def test_a_file_that_is_not_there_or_may_not_be_read_is_named(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"):
        list(Delphi().parse(SourceFile(str(tmp_path / "latents/a/0_1.safetensors"))))


def test_a_broken_cache_is_left_out_whole_where_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(_delphi_latents, "SORTED", 1)
    monkeypatch.setattr(imports, "PART_ROWS", 1)
    shard(tmp_path, "0_1", cache(**GOOD))
    shard(tmp_path, "2_3", cache([(0, 0, 2), (0, 0, 3), (0, 0, 3)], [1.0] * 3, TWO_ROWS, start=2))
    told, records, _ = imported(tmp_path, on_error="skip")
    assert set(records["neuron"]) == {0, 1}
    assert [Path(file).name for file, _ in told.skipped] == ["2_3.safetensors"]
