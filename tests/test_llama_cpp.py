"""A real server: llama-cpp-python with a tiny random Llama made on the spot, compared with its logits.

Runs where it is asked for: `pip install 'nscore[test,llama]'`, then `pytest -m llama_cpp`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time

import httpx
import numpy as np
import polars as pl
import pytest
from simulation_tables import explained, record

import nscore as ns
from nscore.exchange import Capabilities
from nscore.simulators import AllAtOnce, TokenByToken

pytestmark = pytest.mark.llama_cpp

# Words that are one token; of each its beginnings are tokens, too.
WORDS = ["unknown", "start", "end", "The", "colours", "were", "red", "blue", "Neuron", "fires", "token", "number", "10"]
BOS, VOCABULARY_BEGINS = 1, 3
WIDTH, INNER, HEADS, LAYERS, CONTEXT = 64, 32, 4, 2, 4096
TEMPLATE = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<answer>"
RECORDS = {
    1: ["The", " red", " and", " blue", " colours"],
    2: ["10", " apples", "\t", "\n", "", "unknown", " 7", "<start>", "é", "\ufffd", "🦊"],
    3: [" token"] * 40,
}
TOLERANCE = 1e-3


def byte_letters():
    """The letter that stands for each byte in a byte-level BPE, as GPT-2 has it."""
    own = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(b) if b in own else chr(next(others)) for b in range(256)]


def write_model(path, *, bos):
    """A Llama with random weights, for which numbers are likely and parts of characters are not."""
    from gguf import GGUFWriter, TokenType

    letters = byte_letters()
    merges = dict.fromkeys((word[:i], word[i]) for word in WORDS for i in range(1, len(word)))
    tokens = ["<unk>", "<s>", "</s>", *letters, *map("".join, merges)]
    kinds = [TokenType.UNKNOWN, TokenType.CONTROL, TokenType.CONTROL]
    draw = np.random.default_rng(0)

    def weights(*shape, scale=1.0):
        return (scale * draw.standard_normal(shape)).astype(np.float32)

    # The first dimension is the same for every token: what the output gives it is each token's likelihood.
    inner, outer = weights(len(tokens), WIDTH), weights(len(tokens), WIDTH, scale=0.25)
    inner[:, 0] = 4
    for number in map(str, range(11)):
        outer[tokens.index(number), 0] += 1
    for byte in (*range(9), *range(14, 32), *range(127, 256)):
        outer[VOCABULARY_BEGINS + byte, 0] -= 2
    outer[:VOCABULARY_BEGINS, 0] -= 2

    writer = GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([*kinds, *[TokenType.NORMAL] * (len(tokens) - len(kinds))])
    writer.add_token_merges([f"{a} {b}" for a, b in merges])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(bos)
    writer.add_chat_template(TEMPLATE)
    writer.add_tensor("token_embd.weight", inner)
    writer.add_tensor("output.weight", outer)
    ones = np.ones(WIDTH, np.float32)
    writer.add_tensor("output_norm.weight", ones)
    shapes = {f"attn_{name}": (WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
    shapes |= {"ffn_gate": (INNER, WIDTH), "ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
    for block in range(LAYERS):
        writer.add_tensor(f"blk.{block}.attn_norm.weight", ones)
        writer.add_tensor(f"blk.{block}.ffn_norm.weight", ones)
        for name, shape in shapes.items():
            writer.add_tensor(f"blk.{block}.{name}.weight", weights(*shape, scale=1.5 / shape[1] ** 0.5))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Server:
    """llama-cpp-python's server in a process of its own."""

    def __init__(self, model, log):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{port}/v1"
        run = [sys.executable, "-m", "llama_cpp.server", "--model", model, "--model_alias", "tiny"]
        run += ["--n_ctx", str(CONTEXT), "--host", "127.0.0.1", "--port", str(port)]
        self._log = log.open("wb")
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
        self._process = subprocess.Popen(run, stdout=self._log, stderr=self._log, env=clean)
        for _ in range(600):
            try:
                httpx.get(f"{self.base_url}/models")
            except httpx.TransportError:
                assert self._process.poll() is None, log.read_text(errors="replace")
                time.sleep(0.1)
            else:
                return
        self.stop()
        pytest.fail(log.read_text(errors="replace"))

    @property
    def backend(self):
        return ns.OpenAI(model="tiny", base_url=self.base_url)

    def stop(self):
        self._process.terminate()
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    write_model(folder / "with.gguf", bos=True)
    write_model(folder / "without.gguf", bos=False)
    return folder


@pytest.fixture(scope="module", params=["with"])
def server(request, folder):
    """A server of the model that puts a token before each text, or, by the parameter, of the one that does not."""
    server = Server(str(folder / f"{request.param}.gguf"), folder / f"{request.param}.log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def model(folder):
    """The model itself, in this process."""
    from llama_cpp import Llama

    model = Llama(str(folder / "with.gguf"), n_ctx=CONTEXT, logits_all=True, verbose=False)
    yield model
    model.close()


def rows_of(model, ids):
    """The probabilities of the token after each, over the whole vocabulary, from one forward pass."""
    model.reset()
    model.eval(ids)
    logits = np.array(model.scores[: len(ids)], dtype=np.float64)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def activation(model, chances):
    """From the 15 likeliest tokens: the expected number, and the probability of all numbers."""
    best = np.argsort(-chances)[:15]
    numbers = {model.detokenize([i]): chances[i] for i in best.tolist()}
    mass = [numbers.get(str(n).encode(), 0.0) for n in range(11)]
    return np.dot(range(11), mass) / (sum(mass) or np.nan), sum(mass)


def tables():
    records = pl.concat([record(tokens, sequence=s) for s, tokens in RECORDS.items()])
    return records, explained("words for colours", "numbers, such as 7")


def test_probe_finds_what_it_can_do(server):
    can = ns.probe(server.backend)
    assert (can.chat, can.completions, can.logprobs, can.prompt_logprobs) == (True, True, 15, 15)
    assert (can.aligned, can.ten, can.thinks) == (True, 1, False)
    assert not can.structured  # it takes a JSON schema, but not in OpenAI's form


def test_all_at_once_predicts_what_the_logits_of_a_forward_pass_say(server, model, tmp_path):
    records, explanations = tables()
    run = ns.simulate(records, explanations, simulator="all_at_once", backend=server.backend, out=tmp_path / "run")
    given = run.simulated().sort("explanation_id", "sequence", "position").collect()
    assert given["status"].unique().to_list() == ["ok"]
    expected = []
    for text in explanations["explanation"]:
        for ask in AllAtOnce().asks(text, list(RECORDS.values()), Capabilities(ten=1)):
            prompt = ask.prompt.text
            ids = model.tokenize(prompt.encode(), special=True)
            ends = np.cumsum([0, *(len(model.detokenize([i])) for i in ids[1:])])
            assert (ids[0], ends[-1]) == (BOS, len(prompt.encode()))
            chances = rows_of(model, ids)
            for place in ask.prompt.places:
                assert prompt.startswith("unknown\n", place)
                # token i + 1 is the one that begins at ends[i]; what stood before it says what was expected there
                before = int(np.searchsorted(ends, len(prompt[:place].encode())))
                assert ends[before] == len(prompt[:place].encode())
                expected.append(activation(model, chances[before]))
    values, masses = np.array(expected).T
    differences = [np.abs(given["predicted"] - values).max(), np.abs(given["digit_mass"] - masses).max()]
    print(f"largest differences of {len(values)}: predicted {differences[0]:.1e}, digit mass {differences[1]:.1e}")  # noqa: T201
    assert max(differences) < TOLERANCE
    assert given["predicted"].std() > 0.1


def test_token_by_token_predicts_what_the_logits_of_a_forward_pass_say(server, model, tmp_path):
    tokens = RECORDS[1] + RECORDS[2]
    # the server holds repetitions down unless it is told not to
    backend = ns.OpenAI(model="tiny", base_url=server.base_url, extra={"repeat_penalty": 1.0})
    run = ns.simulate(
        record(tokens), explained("colours"), simulator="token_by_token", backend=backend, out=tmp_path / "run"
    )
    given = run.simulated().sort("position").collect()["predicted"].to_list()
    expected = [
        expected_answer(model, ask.prompt)
        for ask in TokenByToken().asks("colours", [tokens], Capabilities(ten=1, logprobs=15))
    ]
    assert [g is not None for g in given] == [e is not None for e in expected]
    known = [(g, e) for g, e in zip(given, expected, strict=True) if e is not None]
    print(f"largest difference of {len(known)}: {max(abs(g - e) for g, e in known):.1e}")  # noqa: T201
    assert len(known) > 3
    assert max(abs(g - e) for g, e in known) < TOLERANCE


def expected_answer(model, prompt):
    """What is expected at the first number of the likeliest answer; None where that is no token of its own."""
    text = "".join(f"<{m.role}>{m.text}\n" for m in prompt.messages)
    ids = [BOS, *model.tokenize(f"{text}<answer>".encode(), add_bos=False, special=True)]
    answer, values = [], []
    for _ in range(prompt.max_tokens):
        chances = rows_of(model, ids)[-1]
        ids.append(int(chances.argmax()))
        answer.append(model.detokenize(ids[-1:]))
        values.append(activation(model, chances)[0])
    number = re.search(rb"[0-9]+", b"".join(answer))
    return values[answer.index(number[0])] if number and number[0] in answer else None


@pytest.mark.parametrize("simulator", ["json_list", "tab_list"])
def test_what_is_no_list_is_told_so_and_ends_no_run(server, tmp_path, simulator):
    run = ns.simulate(
        record(RECORDS[1]), explained("colours"), simulator=simulator, backend=server.backend, out=tmp_path / "run"
    )
    assert set(run.simulated().collect()["status"]) <= {"truncated", "parse_error", "length_mismatch"}
    row = run.requests().collect().row(0, named=True)
    assert (row["http_status"], row["attempts"]) == (200, 1)
    assert row["prompt_tokens"] > 500


@pytest.mark.parametrize("server", ["without"], indirect=True)
def test_logprobs_that_stand_at_other_tokens_than_their_own_are_refused(server, tmp_path):
    assert ns.probe(server.backend).aligned is False
    records, explanations = tables()
    with pytest.raises(ns.BackendError, match=r"stand at other tokens.*would work there: json_list"):
        ns.simulate(records, explanations, simulator="all_at_once", backend=server.backend, out=tmp_path / "run")
    assert not (tmp_path / "run" / "simulated.parquet").exists()
