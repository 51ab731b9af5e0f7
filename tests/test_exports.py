"""What is exported is read back as it was; what a format cannot say is left out and counted; nothing is half there."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import nscore as ns
from nscore.cli import main
from nscore.errors import SettingError, UnknownNameError

TOKENS = st.sampled_from(["a", " red", "\t", "\n", "é", '"', "", "\U0001f98a"])
NUMBERS = st.floats(-100, 100)
KEYS = ["layer", "neuron", "explanation_id", "sequence", "position"]
VALUES = [*KEYS, "token", "activation", "predicted"]


@st.composite
def simulated_tables(draw):
    rows = []
    layer = draw(st.sampled_from([3, "blocks.3"]))
    for neuron in range(draw(st.integers(1, 3))):
        records = draw(st.lists(st.lists(st.tuples(TOKENS, NUMBERS), min_size=1, max_size=4), min_size=1, max_size=3))
        for explanation in range(draw(st.integers(1, 2))):
            for sequence, record in enumerate(records):
                for position, (token, true) in enumerate(record):
                    rows.append((layer, neuron, str(explanation), sequence, position, token, true, draw(NUMBERS)))
    return pl.DataFrame(rows, schema=VALUES, orient="row")


def texts_of(simulated):
    keys = simulated.select("layer", "neuron", "explanation_id").unique().sort("layer", "neuron", "explanation_id")
    return keys.with_columns(explanation=pl.format('fires on \t{} "{}"', "neuron", "explanation_id"))


def example(**columns):
    rows = [(5, n, "0", s, p, f"t{p}", float(n + p), float(p * s)) for n in (7, 12) for s in (0, 1) for p in (0, 1, 2)]
    return pl.DataFrame(rows, schema=VALUES, orient="row").with_columns(**columns)


def exported(form, simulated, out, **options):
    return ns.export_files(form, None, out, simulated=simulated, explanations=texts_of(simulated), **options)


@given(simulated_tables())
@settings(max_examples=40, deadline=None)
def test_openai_files_are_read_back_as_they_were_with_the_scores_beside(simulated):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported("openai", simulated, folder / "theirs")
        ns.import_files("openai", folder / "theirs", folder / "back")
        back = pl.read_parquet(folder / "back/simulated.parquet")
        assert back.select(VALUES).sort(KEYS).rows() == simulated.sort(KEYS).rows()
        texts = pl.read_parquet(folder / "back/explanations.parquet")
        assert sorted(texts["explanation"]) == sorted(texts_of(simulated)["explanation"])
        published = pl.read_parquet(folder / "back/published_scores.parquet").sort(KEYS[:3])
        scores = ns.score(simulated).sort(KEYS[:3])
        for score in ("ev_correlation_score", "rsquared_score", "absolute_dev_explained_score"):
            # the original writes null where a score is no finite number
            finite = pl.when(pl.col(score).is_finite()).then(score).alias(score)
            assert_frame_equal(published.select(score), scores.select(finite), rel_tol=1e-12)
        assert ns.check(folder / "back").agrees


@given(simulated_tables())
@settings(max_examples=25, deadline=None)
def test_delphi_files_are_read_back_as_they_were(simulated):
    simulated = simulated.filter(pl.col("explanation_id") == "0")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        exported("delphi", simulated, folder / "theirs")
        ns.import_files("delphi", folder / "theirs", folder / "back")
        back = pl.read_parquet(folder / "back/simulated.parquet")
        values = ["neuron", "position", "token", "activation", "predicted"]
        assert sorted(back.select(values).rows(), key=str) == sorted(simulated.select(values).rows(), key=str)


def test_openai_files_have_the_names_of_the_newest_form(tmp_path):
    done = exported("openai", example(), tmp_path / "out")
    assert (done.files, done.neurons, done.records, done.tokens) == (2, 2, 4, 12)
    content = json.loads((tmp_path / "out/5/7.jsonl").read_text())
    assert content["neuron_id"] == {"dataclass_name": "NeuronId", "neuron_index": 7, "layer_index": 5}
    (scored,) = content["scored_explanations"]
    sequence = scored["scored_simulation"]["scored_sequence_simulations"][1]
    assert sequence["true_activations"] == [7.0, 8.0, 9.0]
    simulation = sequence["sequence_simulation"]
    assert simulation["expected_activations"] == [0.0, 1.0, 2.0]
    assert len(simulation["distribution_values"]) == len(simulation["distribution_probabilities"]) == 3
    # a prediction that is the same everywhere: the original's correlation is 0
    assert scored["scored_simulation"]["scored_sequence_simulations"][0]["ev_correlation_score"] == 0.0


def test_records_with_a_failure_are_left_out_and_counted_or_zero_when_asked(tmp_path):
    failed = (pl.col("neuron") == 7) & (pl.col("sequence") == 1) & (pl.col("position") == 2)
    table = example(predicted=pl.when(failed).then(None).otherwise("predicted"))
    done = exported("openai", table, tmp_path / "a")
    assert done.records == 3
    assert done.incomplete
    assert sum(done.left_out.values()) == 1
    done = exported("openai", table, tmp_path / "b", on_failure="zero")
    assert (done.records, done.filled) == (4, 1)
    content = json.loads((tmp_path / "b/5/7.jsonl").read_text())
    last = content["scored_explanations"][0]["scored_simulation"]["scored_sequence_simulations"][1]
    assert last["sequence_simulation"]["expected_activations"] == [0.0, 1.0, 0.0]


def test_neuronpedia_lines_name_each_score(tmp_path):
    exported("neuronpedia", example(), tmp_path / "out", model_id="gpt2-small")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    lines = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    scores = {str(row["neuron"]): row for row in ns.score(example()).iter_rows(named=True)}
    assert {line["index"] for line in lines} == {"7", "12"}
    for line in lines:
        assert (line["modelId"], line["layer"], line["explanationId"]) == ("gpt2-small", "5", "0")
        assert line["value"] == pytest.approx(scores[line["index"]][line["explanationScoreTypeName"]], rel=1e-12)
        assert line["description"].startswith("fires on \t")
    assert {line["explanationScoreTypeName"] for line in lines} >= {"ev_correlation_score"}


@pytest.mark.parametrize("layer", ["../../out-of-it", "/etc", "a/../../b", "..", ".", "x\x00y", "c\\d"])
@pytest.mark.parametrize("form", ["openai", "delphi"])
def test_no_layer_leads_out_of_the_folder(tmp_path, layer, form):
    inner = tmp_path / "deep/deeper"
    inner.mkdir(parents=True)
    done = exported(form, example(layer=pl.lit(layer)), inner / "out")
    there = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert done.files == len(there) >= 2
    assert all(path.is_relative_to(inner / "out") for path in there)
    assert not Path("/etc/7.jsonl").exists()


def test_a_folder_with_files_in_it_is_refused_and_several_simulators_too(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(SettingError, match="out"):
        exported("openai", example(), tmp_path / "out")
    both = pl.concat([example(simulator=pl.lit(name)) for name in ("lexical", "shuffled")])
    with pytest.raises(SettingError, match="lexical, shuffled"):
        exported("openai", both, tmp_path / "b")
    done = exported("openai", both, tmp_path / "b", simulator="lexical")
    assert done.records == 4
    with pytest.raises(UnknownNameError, match="openai"):
        exported("opnai", example(), tmp_path / "c")


def test_the_command_prints_what_it_wrote_and_says_what_is_missing(tmp_path, capsys):
    example().write_parquet(tmp_path / "simulated.parquet")
    texts_of(example()).write_parquet(tmp_path / "explanations.parquet")
    given = ["export", "openai", str(tmp_path)]
    assert main([*given, "-o", str(tmp_path / "a")]) == 0
    assert "2 files" in capsys.readouterr().out
    example(predicted=None).with_columns(pl.col("predicted").cast(pl.Float64)).write_parquet(
        tmp_path / "simulated.parquet"
    )
    assert main([*given, "-o", str(tmp_path / "b"), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["left_out"]
    assert main([*given, "-o", str(tmp_path / "a")]) == 1
    assert "nscore export: " in capsys.readouterr().err
