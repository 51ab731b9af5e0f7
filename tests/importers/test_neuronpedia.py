"""Neuronpedia's exports become the tables that a plain reader would make of them; a broken one is named, and its line."""

from __future__ import annotations

import gzip
import json
import tempfile
import tracemalloc
from pathlib import Path

import polars as pl
import pytest
from dashboard_files import activation, drawn, explanation, feature, placed, rows_of, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore import imports
from nscore.errors import SourceError
from nscore.importers import Neuronpedia, SourceFile, _lines

QUICK = settings(max_examples=60, deadline=None)
SOURCE = "v1/gpt2-small/6-res-jb"
HIGH, LOW, MIDDLE = (-1, 4.0, -1), (0.0, 1.0, 0.9), (2.0, 3.0, 0.01)


def read(folder, name="records"):
    return pl.read_parquet(folder / f"{name}.parquet")


def brought(folder, **files):
    for name, lines in files.items():
        write_lines(folder / f"in/{SOURCE}/{name}/batch-0.jsonl.gz", lines)
    return ns.import_files("neuronpedia", folder / "in", folder / "out")


@given(
    st.dictionaries(st.integers(0, 2000), drawn(), max_size=3), st.randoms(), st.sampled_from([None, 1]), st.booleans()
)
@QUICK
def test_records_are_those_that_a_plain_reader_finds(neurons, random, per_split, packed):
    lines = [(neuron, record) for neuron, records in neurons.items() for record in records]
    random.shuffle(lines)
    expected = {}
    for neuron in neurons:
        own = [(i, record) for i, (n, record) in enumerate(lines) if n == neuron]
        for place in placed([(*record, None) for _, record in own], per_split):
            i, record = own[place[0]]
            expected[i] = list(rows_of("6-res-jb", neuron, 3 * 10**9 + i, record, place=place, others=["gpt2-small"]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "in" / SOURCE / f"activations/batch-3.jsonl{'.gz' * packed}"
        write_lines(path, [activation(n, record) for n, record in lines])
        told = ns.import_files("neuronpedia", folder / "in", folder / "out", per_split=per_split)
        rows = [row for i in sorted(expected) for row in expected[i]]
        assert (told.tokens, told.records) == (len(rows), len(expected))
        if rows:
            assert read(folder / "out").rows() == rows
            ns.assign_splits(read(folder / "out"))
        else:
            assert not (folder / "out/records.parquet").exists()


def test_an_export_by_hand(tmp_path):
    red = activation(7, (["a", " red"], [0.0, 2.5], HIGH))
    told = brought(
        tmp_path,
        activations=[
            activation(7, (["a", " red"], [0.0, 2.5], MIDDLE)),
            red | {"dfaValues": [0.5]},
            activation(7, (["the", " sky"], [0.0, 0.0], LOW)),
            activation(7, ([], [], LOW)),
            activation(8, (["x"], [1.5], MIDDLE)),
        ],
        explanations=[
            explanation(7, "red things", scores=[_score("recall_alt", 0.75)], scoreV1=0),
            explanation(7, "  ", id="blank"),
            explanation(8, "letters", embedding=[0.5], scoreV2=0.5),
            explanation(8, "letters"),
        ],
        features=[
            feature(7),
            feature(8, maxActApprox=None, freq_hist_data_bar_values=[], freq_hist_data_bar_heights=[]),
        ],
    )
    assert read(tmp_path / "out").rows() == [
        ("6-res-jb", 7, 1, 0, "a", 0.0, "top", 0, "train", None, None, None, "gpt2-small"),
        ("6-res-jb", 7, 1, 1, " red", 2.5, "top", 0, "train", None, None, None, "gpt2-small"),
        ("6-res-jb", 7, 2, 0, "the", 0.0, "random", 0, "calibration", 0.0, 1.0, 0.9, "gpt2-small"),
        ("6-res-jb", 7, 2, 1, " sky", 0.0, "random", 0, "calibration", 0.0, 1.0, 0.9, "gpt2-small"),
        ("6-res-jb", 8, 4, 0, "x", 1.5, "top", 0, "train", 2.0, 3.0, 0.01, "gpt2-small"),
    ]
    assert read(tmp_path / "out", "explanations").rows() == [
        ("6-res-jb", 7, "e7", "red things", "oai_token-act-pair", "gpt-4o-mini", "gpt2-small"),
        ("6-res-jb", 8, "e8", "letters", "oai_token-act-pair", "gpt-4o-mini", "gpt2-small"),
    ]
    assert read(tmp_path / "out", "published_scores").rows() == [
        ("6-res-jb", 7, "e7", "recall_alt", "gpt-4o-mini", 0.75, "gpt2-small"),
        ("6-res-jb", 8, "e8", "scoreV2", None, 0.5, "gpt2-small"),
    ]
    assert read(tmp_path / "out", "neurons").drop("file").rows() == [
        ("6-res-jb", 7, "gpt2-small", 3.5, 0.001, [0.5, 1.5], [3.0, 1.0]),
        ("6-res-jb", 8, "gpt2-small", None, 0.001, None, None),
    ]
    assert told.left_out == {
        "attributions of activations (dfaValues)": 1,
        "embeddings of explanations": 1,
        "explanations that stand there twice": 1,
        "explanations without a text": 1,
        "logits, neighbours and vectors of neurons": 2,
        "records whose tokens their neuron has twice": 1,
        "records without tokens": 1,
    }


def _score(kind, value):
    return {"value": value, "explanationScoreTypeName": kind, "explanationScoreModelName": "gpt-4o-mini"}


def test_what_was_imported_is_simulated_and_scored(tmp_path):
    words = [" red", " blue", " fox", " sky", " tree"]
    records = [(["the", w], [0.0, 2.0 - i / 10], HIGH) for i, w in enumerate(words)]
    records += [(["the", w, "."], [0.0, 0.0, 0.0], LOW) for w in words]
    brought(
        tmp_path,
        activations=[activation(7, record) for record in records],
        explanations=[explanation(7, "red, blue and fox, sky"), explanation(7, "trees", id="other")],
    )
    simulated = ns.simulate(read(tmp_path / "out"), read(tmp_path / "out", "explanations"), simulator="lexical")
    assert set(simulated["split"].unique()) == {"calibration", "valid", "test"}
    scores = ns.score(simulated, strata=True)
    assert scores.select("neuron", "explanation_id", "coverage").rows() == [(7, "e7", 1.0), (7, "other", 1.0)]
    assert scores["ev_correlation_score"][0] > scores["ev_correlation_score"][1]


def test_a_neuron_in_several_files_has_a_sequence_for_each_record(tmp_path):
    for batch in (0, 2):
        lines = [activation(7, ([f"t{batch}{i}"], [1.0], HIGH)) for i in range(2)]
        write_lines(tmp_path / f"in/{SOURCE}/activations/batch-{batch}.jsonl.gz", lines)
    ns.import_files("neuronpedia", tmp_path / "in", tmp_path / "out")
    records = read(tmp_path / "out")
    assert records["sequence"].to_list() == [0, 1, 2 * 10**9, 2 * 10**9 + 1]
    ns.validate(records, "records")


def test_records_with_the_same_tokens_from_two_places_are_two(tmp_path):
    record = (["a"], [1.0], HIGH)
    brought(tmp_path, activations=[activation(7, record, dataIndex=index) for index in ("1", "2", 1, None)])
    assert read(tmp_path / "out")["sequence"].to_list() == [0, 1, 3]


def test_two_models_in_one_import_are_refused(tmp_path):
    for model in ("gpt2-small", "gpt2-medium"):
        line = activation(7, (["a"], [1.0], HIGH), modelId=model)
        write_lines(tmp_path / f"in/{model}/activations/batch-0.jsonl", [line])
    with pytest.raises(
        SourceError, match=r"records: layer '6-res-jb', neuron 7, sequence 0 stands in the files more than once"
    ):
        ns.import_files("neuronpedia", tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_a_folder_the_batches_are_read_and_the_rest_is_left(tmp_path):
    write_lines(tmp_path / f"in/{SOURCE}/source.jsonl", [{"id": "6-res-jb"}])
    write_lines(tmp_path / f"in/{SOURCE}/model.jsonl", [{"id": "gpt2-small"}])
    assert brought(tmp_path, explanations=[explanation(7, "x")]).files == 1


def test_what_a_line_does_not_say_its_path_does(tmp_path):
    line = activation(7, (["a"], [1.0], HIGH))
    del line["modelId"], line["layer"], line["binMin"], line["qualifyingTokenIndex"]
    brought(tmp_path, activations=[line | {"index": 7}])
    assert read(tmp_path / "out").select("layer", "neuron", "model").row(0) == ("6-res-jb", 7, "gpt2-small")


def test_explanations_without_an_id_are_told_apart(tmp_path):
    lines = [explanation(7, text, id=None) for text in ("a", "b", "a")]
    brought(tmp_path, explanations=lines)
    assert read(tmp_path / "out", "explanations").select("explanation_id", "explanation").rows() == [
        ("oai_token-act-pair_gpt-4o-mini", "a"),
        ("oai_token-act-pair_gpt-4o-mini_2", "b"),
    ]


def test_exported_scores_are_read_back(tmp_path):
    lines = [
        explanation(7, "red", id=None, explanationId="mine", **_score(kind, value))
        for kind, value in (("ev_correlation_score", 0.5), ("rsquared_score", 0.25))
    ]
    told = brought(tmp_path, explanation_scores=lines)
    assert (told.explanations, told.left_out) == (1, {})
    scores = read(tmp_path / "out", "published_scores")
    assert scores.select("explanation_id", "scorer", "score").rows() == [
        ("mine", "ev_correlation_score", 0.5),
        ("mine", "rsquared_score", 0.25),
    ]


def test_an_empty_file_is_counted(tmp_path):
    assert brought(tmp_path, activations=[]).left_out == {"empty files": 1}


def broken(path, content):
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        list(Neuronpedia().parse(SourceFile(str(path))))
    assert caught.value.path == str(path)
    return str(caught.value)


GOOD = json.dumps(activation(7, (["a", "b"], [1.0, 0.0], HIGH))).encode() + b"\n"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"{", "line 2: no JSON"),
        (b"[]", "line 2: Expected `object`, got `array`"),
        (GOOD.replace(b'"7"', b'"x"'), "line 2: found the index 'x', expected a whole number"),
        (GOOD.replace(b'"7"', b"null"), "line 2: no index"),
        (GOOD.replace(b'"6-res-jb"', b"null"), "line 2: no layer"),
        (GOOD.replace(b"[1.0, 0.0]", b"[1.0]"), "line 2: 2 tokens and 1 values: expected one value a token"),
        (GOOD.replace(b"[1.0, 0.0]", b"null"), "line 2: tokens without values"),
        (GOOD.replace(b"[1.0, 0.0]", b'["1", 0]'), "line 2 $.values[0]: Expected `float | null`, got `str`"),
        (GOOD.replace(b'["a", "b"]', b'["a", null]'), "line 2 $.tokens[1]: Expected `str`, got `null`"),
        (b'{"layer": "x", "index": "1"}', "line 2: neither an activation"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, found):
    assert found in broken(tmp_path / "batch-0.jsonl", GOOD + line)


def test_packed_files_that_are_cut_off_damaged_or_not_packed_are_named(tmp_path):
    import random

    random.seed(1)
    lines = [activation(7, ([str(random.random())], [random.random()], HIGH)) for _ in range(5000)]
    path = write_lines(tmp_path / "batch-0.jsonl.gz", lines)
    packed = path.read_bytes()
    assert "cut off: the packed data end too early" in broken(path, packed[: len(packed) // 2])
    assert ", line " in broken(path, packed[: len(packed) // 2])
    assert "damaged" in broken(path, packed[:-8] + bytes(4) + packed[-4:])
    assert "damaged" in broken(path, packed + b"more")
    assert "not packed with gzip" in broken(path, GOOD)
    assert "not packed with gzip" in broken(path, b"")


def test_packed_data_in_several_members_are_one_file(tmp_path):
    path = tmp_path / "batch-0.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD) + gzip.compress(GOOD.replace(b'"a"', b'"c"')) + bytes(512))
    assert sum(parsed.rows for parsed in Neuronpedia().parse(SourceFile(str(path)))) == 4


@pytest.mark.parametrize("what", [b" " * 1000, b"\n" * 1000, GOOD])
def test_a_bomb_is_refused_after_a_bounded_part_of_it(tmp_path, monkeypatch, what):
    monkeypatch.setattr(_lines, "LARGE", 4 << 20)
    path = tmp_path / "batch-0.jsonl.gz"
    bomb = gzip.compress(what * (200_000_000 // len(what)), 9)
    assert len(bomb) < 1 << 20
    path.write_bytes(bomb)
    tracemalloc.start()
    said = broken(path, bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "decompression bomb" in said or "longer than" in said
    assert peak < 80 << 20


def test_a_line_that_is_too_long_is_named(tmp_path):
    assert "line 2: longer than 16,777,216 bytes" in broken(tmp_path / "batch-0.jsonl", GOOD + b" " * (18 << 20) + GOOD)


def test_lines_are_held_one_at_a_time(tmp_path):
    path = tmp_path / "batch-0.jsonl.gz"
    with gzip.open(path, "wb", 1) as out:
        for i in range(20_000):
            out.write(GOOD.replace(b'"a"', b'"%d"' % i) + b" " * 2000 + b"\n")
    tracemalloc.start()
    assert sum(1 for _ in _lines.lines(SourceFile(str(path)))) == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20


def test_nothing_of_a_file_that_breaks_at_its_end_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(imports, "PART_ROWS", 10)
    monkeypatch.setattr("nscore.importers._dashboards.PIECE_ROWS", 4)
    good = [activation(n, ([f"t{i}", "x"], [1.0, 0.0], HIGH)) for n in range(2) for i in range(20)]
    write_lines(tmp_path / "in/batch-0.jsonl", good)
    path = write_lines(tmp_path / "in/batch-1.jsonl", [line | {"index": "9"} for line in good])
    told = ns.import_files("neuronpedia", tmp_path / "in", tmp_path / "out", on_error="skip")
    assert read(tmp_path / "out")["neuron"].n_unique() == 3
    # what breaks is found in the second reading alone, when parts of the file are written
    monkeypatch.setattr("nscore.importers.neuronpedia.Gathering.rest", _breaks(path))
    told = ns.import_files("neuronpedia", tmp_path / "in", tmp_path / "again", on_error="skip")
    assert [Path(file).name for file, _ in told.skipped] == ["batch-1.jsonl"]
    assert sorted(read(tmp_path / "again")["neuron"].unique()) == [0, 1]
    assert (told.neurons, told.files) == (2, 1)


def _breaks(path):
    from nscore.importers._dashboards import Gathering

    kept = Gathering.rest

    def rest(self):
        if self._neurons[:1] == [9] and self._start > 10:
            raise SourceError(str(path), "breaks")
        yield from kept(self)

    return rest


@given(st.binary(max_size=300), st.sampled_from(["jsonl", "jsonl.gz"]))
@settings(max_examples=150, deadline=None)
def test_arbitrary_bytes_are_a_source_error_or_nothing(content, suffix):
    _survives(content, suffix)
    _survives(gzip.compress(content), suffix)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_flipped_bytes_are_a_source_error_or_other_values(data):
    lines = [activation(7, (["a", "\u00e9"], [1.0, 0.0], HIGH)), explanation(7, "x"), feature(7)]
    content = bytearray("".join(json.dumps(line) + "\n" for line in lines).encode())
    if packed := data.draw(st.booleans()):
        content = bytearray(gzip.compress(bytes(content)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    _survives(bytes(content), "jsonl.gz" if packed else "jsonl")


JSON = st.recursive(
    st.one_of(
        *(st.none(), st.booleans(), st.floats(), st.text(max_size=3)),
        *(st.integers(-5, 5), st.sampled_from([2**63, 2**64, -(2**63), 10**400, "9" * 30, "\ud800", 1e308])),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=5,
)


@given(st.sampled_from([activation(7, (["a", "b"], [1.0, 0.0], HIGH)), explanation(7, "x"), feature(7)]), st.data())
@settings(max_examples=200, deadline=None)
def test_wrong_types_in_any_field_are_a_source_error_or_nothing(line, data):
    name = data.draw(st.sampled_from([*line, "scores", "scoreV2", "value"]))
    other = json.dumps(line | {name: data.draw(JSON)}) + "\n"
    _survives((json.dumps(line | {"index": 9}) + "\n" + other).encode(), "jsonl")


def _survives(content, suffix):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"batch-0.{suffix}"
        path.write_bytes(content)
        try:
            ns.import_files("neuronpedia", path, Path(name) / "out", executor="local")
        except SourceError as error:
            assert str(path) in str(error) or "more than once" in str(error) or "as " in str(error)  # noqa: PT017
