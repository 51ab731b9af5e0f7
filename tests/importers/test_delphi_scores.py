"""Delphi's explanations, judgements and simulations, old forms included; what its own formulas give is what nscore gives."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import polars as pl
import pytest
from delphi_files import group, judged, simulated, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

import nscore as ns
from nscore.errors import SettingError, SourceError
from nscore.importers import Delphi, SourceFile

FORMATS = Path(__file__).parents[3] / "shared" / "data" / "formats"


def imported(folder, **options):
    told = ns.import_files("delphi", folder, folder / "out", **options)
    return told, {name: pl.read_parquet(folder / f"out/{name}.parquet") for name in told.tables}


def scores(folder, scorer, content, name="layers.16_latent389"):
    return write(folder / "scores" / scorer / f"{name}.txt", content)


def test_explanations_are_the_texts_under_the_latents_of_their_names(tmp_path):
    write(tmp_path / "explanations/layers.16_latent389.txt", 'words about "stocks" \ud83d')
    write(tmp_path / "explanations/transformer.h.0_feature0.txt", "the word everybody")
    write(tmp_path / "explanations/a/b_latent_latent7.txt", "folders")
    write(tmp_path / "explanations/layers.9_latent1.txt", b"null")
    told, tables = imported(tmp_path, explanation_id="run 3")
    assert tables["explanations"].sort("layer").rows() == [
        ("a/b_latent", 7, "run 3", "folders"),
        ("layers.16", 389, "run 3", 'words about "stocks" \ufffd'),
        ("transformer.h.0", 0, "run 3", "the word everybody"),
    ]
    assert told.left_out == {"explanations that are null": 1}
    ns.validate(tables["explanations"], "explanations")


def test_judgements_and_what_was_judged(tmp_path):
    entries = [
        judged(True, True, probability=0.9, distance=4, tokens=["St", "ock"], activations=[4.75, 0.0]),
        judged(False, True, probability=0.6),
        judged(True, None, distance=0, tokens=["x"]),
    ]
    scores(tmp_path, "detection", entries)
    scores(tmp_path, "fuzz", [judged(False, False, probability=0.0)], name="m--layers.16_latent389")
    told, tables = imported(tmp_path)
    columns = [
        "layer",
        "neuron",
        "explanation_id",
        "scorer",
        "item",
        "label",
        "predicted_label",
        "probability",
        "status",
    ]
    judgements = tables["judgements"]
    assert judgements.select(columns).rows() == [
        ("layers.16", 389, "delphi", "detection", 0, True, True, 0.9, "ok"),
        ("layers.16", 389, "delphi", "detection", 1, False, True, 0.6, "ok"),
        ("layers.16", 389, "delphi", "detection", 2, True, None, None, "parse_error"),
        ("m/layers.16", 389, "delphi", "fuzz", 0, False, False, 0.0, "ok"),
    ]
    assert judgements.select("stratum", "distance", "highlighted", "text").rows() == [
        ("quantile_4", 4.0, None, "Stock"),
        ("not_active", -1.0, None, "a b"),
        ("quantile_0", 0.0, None, "x"),
        ("not_active", -1.0, None, "a b"),
    ]
    assert tables["judged"].columns == [
        *("layer", "neuron", "scorer", "sequence", "position", "token", "activation", "stratum")
    ]
    assert tables["judged"].filter(pl.col("scorer") == "detection").select(
        "sequence", "token", "activation"
    ).rows() == [
        (0, "St", 4.75),
        (0, "ock", 0.0),
        (1, "a", 0.0),
        (1, " b", 0.0),
        (2, "x", 1.5),
    ]
    assert told.left_out == {"answers of judges that Delphi could not get or read (now null)": 1}
    ns.validate(judgements, "judgements")
    ns.validate(tables["judged"], "records", by=["layer", "neuron", "scorer"])


def test_older_runs_say_it_in_other_words(tmp_path):
    old = {"id": -4056701760917529458, "distance": 5, "highlighted": True, "text": "<< every>>body"}
    said = [True, False, None, -1, 1, 0, 1.0, -1.0]
    entries = [old | {"ground_truth": i % 2 == 0, "prediction": p} for i, p in enumerate(said)]
    entries.append(old | {"ground_truth": False, "distance": -1})
    between = {"str_tokens": ["a"], "activations": [None], "probability": None, "correct": True}
    entries.append(old | between | {"ground_truth": 1, "prediction": 1, "highlighted": False, "text": None})
    scores(tmp_path, "fuzz", entries, name="transformer.h.0_feature0")
    told, tables = imported(tmp_path)
    judgements = tables["judgements"]
    assert judgements["predicted_label"].to_list() == [True, False, None, None, True, False, True, None, None, True]
    assert judgements["status"].to_list() == [{None: "parse_error"}.get(p, "ok") for p in judgements["predicted_label"]]
    assert judgements["label"].to_list() == [True, False] * 4 + [False, True]
    assert set(judgements["text"][:9]) == {"<< every>>body"}
    assert judgements["text"][9] == "a"
    assert judgements["stratum"].to_list() == ["quantile_5", "not_active"] * 4 + ["not_active", "quantile_5"]
    assert tables["judged"]["activation"].to_list() == [None]
    assert told.left_out == {
        "activations that are no finite numbers (now null)": 1,
        "answers of judges that Delphi could not get or read (now null)": 4,
        "judged items without activations (older runs have texts alone)": 9,
    }


def test_probabilities_that_are_none_are_null(tmp_path):
    content = json.dumps([judged(True, True, probability=p) for p in (1.5, -0.1, math.nan, 1.0)])
    scores(tmp_path, "detection", content.encode())
    _, tables = imported(tmp_path)
    assert tables["judgements"]["probability"].to_list() == [None, None, None, 1.0]


def test_other_score_files_are_left_out_by_name(tmp_path):
    scores(tmp_path, "embedding", [{"text": "a", "distance": 1, "similarity": 0.4}])
    scores(tmp_path, "intruder", [{"interpretation": "", "sample": {}, "prediction": 2, "correct": False}])
    scores(tmp_path, "fuzz", [])
    told = ns.import_files("delphi", tmp_path, tmp_path / "out")
    assert told.tables == {}
    assert told.left_out == {
        "score files of a kind that is not read (embedding)": 1,
        "score files of a kind that is not read (intruder)": 1,
        "score files without an entry": 1,
    }


def test_simulations_have_their_quantiles_as_strata(tmp_path):
    one, two = simulated(["a", "b"], [3, 0], [2.5, 0.5], 1, score=1.0), simulated(["c"], [7], [6.0], 4, score="nan")
    silent = simulated(["d", "e"], [0, 0], [0.0, 1.0], -1, score="nan")
    content = [group(2, [one], 0.75), group(5, [two], "nan"), group(0, [one, two, silent], 0.625)]
    scores(tmp_path, "simulation", content)
    told, tables = imported(tmp_path)
    assert tables.keys() == {
        *("simulated", "published_scores", "published_sequence_scores", "published_stratum_scores")
    }
    frame = tables["simulated"]
    columns = ["sequence", "position", "token", "activation", "predicted", "status", "stratum"]
    assert frame.select(columns).rows() == [
        (0, 0, "a", 3.0, 2.5, "ok", "quantile_1"),
        (0, 1, "b", 0.0, 0.5, "ok", "quantile_1"),
        (1, 0, "c", 7.0, 6.0, "ok", "quantile_4"),
        (2, 0, "d", 0.0, 0.0, "ok", "not_active"),
        (2, 1, "e", 0.0, 1.0, "ok", "not_active"),
    ]
    assert set(frame["layer"]) == {"layers.16"}
    assert tables["published_scores"].row(0) == ("layers.16", 389, "delphi", 0.625, None, None)
    each = tables["published_sequence_scores"]
    assert each.select("sequence", "stratum").rows() == [(0, "quantile_1"), (1, "quantile_4"), (2, "not_active")]
    assert each["ev_correlation_score"][0] == 1.0
    assert each["ev_correlation_score"].is_nan().to_list() == [False, True, True]
    strata = tables["published_stratum_scores"]
    assert strata.columns[:5] == ["layer", "neuron", "explanation_id", "stratum", "n_sequences"]
    assert strata.select("stratum", "n_sequences").rows() == [("quantile_1", 1), ("quantile_4", 1)]
    assert strata["ev_correlation_score"][0] == 0.75
    assert math.isnan(strata["ev_correlation_score"][1])
    assert told.left_out == {
        "rsquared_score and absolute_dev_explained_score (Delphi has 0 for them, whatever they are)": 1
    }
    assert ns.score(frame, strata=True)["quantile_1_only_ev_correlation_score"].item() == pytest.approx(1.0)


def test_without_a_group_of_all_the_sequences_are_those_of_the_quantiles(tmp_path):
    content = [group(q + 1, [simulated([f"t{q}", "b"], [q, 0], [1.0, 0.0], q)]) for q in range(3)]
    scores(tmp_path, "simulation", content)
    _, tables = imported(tmp_path)
    assert tables["simulated"]["token"].to_list() == ["t0", "b", "t1", "b", "t2", "b"]
    assert tables["published_scores"]["ev_correlation_score"].to_list() == [None]
    assert tables["published_stratum_scores"].height == 3


def test_scores_that_are_not_zero_are_kept(tmp_path):
    content = [group(0, [simulated(["a"], [1], [1.0], 0)]) | {"rsquared_score": 0.5}]
    scores(tmp_path, "simulation", content)
    told, tables = imported(tmp_path)
    assert tables["published_scores"]["rsquared_score"].to_list() == [0.5]
    assert told.left_out == {}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "neither an explanation"),
        (b"{}", "neither an explanation"),
        (b'"half', "no JSON"),
        (b"[1]", r"\$\[0\]: Expected `object`"),
        (b'[{"activating": "yes"}]', "Expected `bool"),
        ([judged(True, True), judged(False, True) | {"activating": None}], r"\$\[1\]\.activating: found None"),
        ([judged(True, True) | {"activating": 2}], "found 2.0, expected true or false|found 2, expected"),
        ([judged(True, True, activations=[1.0])], r"\$\[0\]: 2 str_tokens and 1 activations"),
        ([judged(True, "maybe")], "Expected"),
        ([group(0, []), judged(True, True)], r"\$\[1\]: no scored_sequence_simulations"),
        ([group(0, []), group(0, [])], "2 groups of distance 0"),
        ([group(0, [simulated(["a"], [1, 2], [1.0], 0)])], "1 tokens, 2 true_activations"),
        (b"[" * 100_000, "nested too deep|no JSON"),
    ],
)
def test_a_broken_file_is_named_with_what_is_wrong(tmp_path, content, found):
    file = scores(tmp_path, "fuzz", content)
    with pytest.raises(SourceError, match=found) as caught:
        ns.import_files("delphi", tmp_path, tmp_path / "out")
    assert caught.value.path == str(file)


def test_a_text_without_a_latent_in_its_name_is_refused(tmp_path):
    file = write(tmp_path / "notes.txt", "a")
    assert not Delphi().wants(str(file))
    with pytest.raises(SourceError, match="its name does not say of which latent it is"):
        ns.import_files("delphi", file, tmp_path / "out")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(judged(True, True))), inner),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "activating": st.booleans() | JSON,
        "ground_truth": JSON,
        "prediction": st.booleans() | JSON,
        "probability": st.floats() | JSON,
        "distance": st.floats() | st.integers(-3, 11) | JSON,
        "str_tokens": st.just(["a"]) | JSON,
        "activations": st.just([1.0]) | JSON,
        "text": JSON,
        "scored_sequence_simulations": st.just([simulated(["a"], [1], [1.0], 2)]) | JSON,
    },
)


@given(st.binary(max_size=60) | st.builds(lambda e: json.dumps(e).encode(), st.lists(ENTRY, max_size=4) | JSON))
@settings(max_examples=300, deadline=None)
@example(b'[{"activating": true, "distance": 1e400}]')
def test_whatever_a_file_holds_it_is_read_or_refused(content):
    reader = Delphi()
    with tempfile.TemporaryDirectory() as folder:
        file = scores(Path(folder), "fuzz", content)
        try:
            parsed = [p.content for p in reader.parse(SourceFile(str(file))) if p.content is not None]
        except SourceError:
            return
        tables = reader.tables(parsed)
    if "judgements" in tables:
        ns.validate(tables["judgements"], "judgements")
        ns.score_judgements(tables["judgements"])


def confusion_scores(entries):
    """As Delphi's own formulas have it: answers that are not known are dropped, a rate over nothing is 0."""
    known = [e for e in entries if e.get("prediction") is not None]
    truth = [bool(e["activating"] if "activating" in e else e["ground_truth"]) for e in known]
    said = [e["prediction"] >= 0.5 for e in known]
    pairs = list(zip(truth, said, strict=True))
    tp, fn, fp, tn = (pairs.count(pair) for pair in [(True, True), (True, False), (False, True), (False, False)])
    precision, recall = tp / (tp + fp) if tp + fp else 0, tp / (tp + fn) if tp + fn else 0
    specificity = tn / (tn + fp) if tn + fp else 0
    both = precision + recall
    return {
        "precision": precision,
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * precision * recall / both if both else 0,
        "balanced_accuracy": (recall + specificity) / 2,
    }


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the folder of real files is not here")
def test_scores_of_real_files_are_what_delphis_formulas_give(tmp_path):
    told = ns.import_files("delphi", [FORMATS / "delphi_detection", FORMATS / "delphi_fuzz"], tmp_path / "out")
    judgements = pl.read_parquet(tmp_path / "out/judgements.parquet")
    assert judgements.height == 230
    assert judgements["predicted_label"].null_count() == 4
    assert told.tables["judged"] == 110 * 32
    ns.validate(pl.read_parquet(tmp_path / "out/judged.parquet"), "records")
    scored = ns.score_judgements(judgements)
    assert scored.select("layer", "neuron", "scorer").rows() == [
        ("layers.16", 389, "delphi_detection"),
        ("layers.4", 269, "delphi_detection"),
        ("transformer.h.0", 0, "delphi_fuzz"),
        ("transformer.h.10", 12, "delphi_fuzz"),
    ]
    for row in scored.iter_rows(named=True):
        word = {"delphi_detection": "latent", "delphi_fuzz": "feature"}[row["scorer"]]
        file = FORMATS / row["scorer"] / f"{row['layer']}_{word}{row['neuron']}.txt"
        expected = confusion_scores(json.loads(file.read_bytes()))
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert scored["failures"].struct.field("parse_error").to_list() == [1, 3, 0, 0]


def tokenizer_file(folder, model, pre, decoder):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer, made.decoder = pre, decoder
    made.add_special_tokens(["<eos>"])
    made.save(str(folder / "tokenizer.json"))
    return str(folder / "tokenizer.json")


def test_tokens_have_the_texts_of_the_tokenizer(tmp_path):
    from delphi_files import cache, shard

    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"a": 0, "b": 1, "\u0120the": 2, "\u00f0": 3, "\u010a": 4}
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[])
    decoder = tokenizers.decoders.ByteLevel()
    path = tokenizer_file(tmp_path, model, tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), decoder)
    shard(tmp_path, "0_0", cache([(0, 0, 0)], [1.0], [[0, 2, 3, 4, 5, 1]]))
    told, tables = imported(tmp_path / "latents", tokenizer=path)
    assert tables["records"]["token"].to_list() == ["a", " the", "\ufffd", "\n", "<eos>", "b"]
    assert not told.left_out
    shard(tmp_path / "more", "0_0", cache([(0, 0, 0)], [1.0], [[0, 6]]))
    with pytest.raises(SourceError, match=r"tokens\[0, 1\]: token 6: expected 0 to 5"):
        imported(tmp_path / "more", tokenizer=path)


def test_tokens_of_sentencepieces_kind_keep_the_space_before_them(tmp_path):
    from delphi_files import cache, shard

    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"<unk>": 0, "\u2581the": 1, "a": 2, "ck": 3, "\u2581": 4}
    model = tokenizers.models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>")  # noqa: S106
    pre, decoder = tokenizers.pre_tokenizers.Metaspace(), tokenizers.decoders.Metaspace()
    path = tokenizer_file(tmp_path, model, pre, decoder)
    shard(tmp_path, "0_0", cache([(0, 0, 0)], [1.0], [[1, 3, 4, 2]]))
    _, tables = imported(tmp_path / "latents", tokenizer=path)
    assert tables["records"]["token"].to_list() == [" the", "ck", " ", "a"]


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    pytest.importorskip("tokenizers")
    file = write(tmp_path / "tokenizer.json", {"version": "1.0"})
    with pytest.raises(SourceError, match="no tokenizer") as caught:
        Delphi(tokenizer=str(file))
    assert caught.value.path == str(file)


def test_without_the_package_a_tokenizer_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(SettingError, match=r"pip install 'nscore\[delphi\]'"):
        Delphi(tokenizer=str(tmp_path / "other.json"))
