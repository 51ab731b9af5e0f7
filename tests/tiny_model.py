"""A small language model: one distribution for each prefix of tokens, whichever route of a server asks for it.

Its logits are noise drawn from a hash of the whole prefix, with numbers made likely where a number belongs, so a test
can compute what a server must answer. Nothing in it is learned.
"""

import bisect
import itertools
import re
import threading
import zlib
from functools import lru_cache
from typing import NamedTuple

import numpy as np

BOS = b"<s>"
CHAT_MARKS = (b"<|system|>", b"<|user|>", b"<|assistant|>", b"<|end|>")

_WORDS = """
a about after all also an and any are as at be because been but by can cat could day did do dog each even explanation
first for from get give go good had has have he her him his how if in into is it its just know language like look main
make man many may me model more most my neuron new no not now number of on one only or other our out over people said
see she should so some start such take text than that the their them then there these they thing think this time to
token tokens two unknown up use very want was water way we well were what when where which who will with word words
work would year you your activation activations output input sequence document range between behavior looks
"""
_PIECES = """
ing ed er tion ly es en re th st on al ar or it is le ic ou ve un de co pro ment ness able ate ize ism con per str
"""
_MARKS = (
    *(b"\n\n", b"\n\n\n", b"\t\t", b"\n\t", b"\t\n", b"\r\n", b"  ", b"    ", b"\n  ", b"...", b"--", b"=="),
    *(
        b'":',
        b'",',
        b"[{",
        b"}]",
        b"},",
        b'{"',
        b"<start>",
        b"<end>",
        b"<think>",
        b"</think>",
        b"Activation",
        b"Tokens",
    ),
    *(b"\xe2\x80", b" \xe2", b"\xf0\x9f", "é".encode(), "ü".encode(), "日本".encode(), "—".encode(), b" \xc3"),
)

_NUMBER_FOLLOWS = (b"\t", b"Activation:", b": ", b",", b", ", b"[")
_ONE_AFTER = tuple(end + b"1" for end in _NUMBER_FOLLOWS)
_TAIL = 16
_MASK = (1 << 64) - 1
_NOTHING, _NUMBER, _SECOND_DIGIT = range(3)
_TOP = 24
_CHUNK = 256


class State(NamedTuple):
    """All that a prefix leaves behind: the hash of its tokens and its last bytes."""

    hash: int = 0x243F6A8885A308D3
    tail: bytes = b""

    def after(self, token_id, token):
        mixed = ((self.hash ^ (token_id + 1)) * 0x9E3779B97F4A7C15 + 0x7F4A7C15) & _MASK
        return State(mixed ^ (mixed >> 29), (self.tail + token)[-_TAIL:])

    def wants(self):
        if self.tail.endswith(_NUMBER_FOLLOWS):
            return _NUMBER
        return _SECOND_DIGIT if self.tail.endswith(_ONE_AFTER) else _NOTHING


class Row(NamedTuple):
    """The distribution of one token: logprobs over the vocabulary, and the best (id, logprob) in falling order."""

    logprobs: np.ndarray
    best: list[tuple[int, float]]

    def top(self, k):
        if k <= len(self.best):
            return self.best[:k]
        order = np.argsort(-self.logprobs, kind="stable")[:k]
        return list(zip(order.tolist(), self.logprobs[order].tolist(), strict=True))

    def logprob(self, token_id):
        return float(self.logprobs[token_id])

    def rank(self, token_id):
        return int((self.logprobs > self.logprobs[token_id]).sum()) + 1

    def listed(self, k, actual):
        """The actual token first, then the top k: k or k + 1 entries, as vLLM lists them."""
        return [(actual, self.logprob(actual)), *(pair for pair in self.top(k) if pair[0] != actual)]


class Model:
    """Tokenizer and distributions. Tokens are byte strings; `vocab[i]` is the token with id i.

    A prefix is a list of tokens; it begins with `BOS` where the model has one (see `prompt`).
    """

    def __init__(self, *, bos=True, ten_is_one_token=True, merge_tab_unknown=False, cache_rows=8192):
        words = [w.encode() for w in _WORDS.split()]
        merges = dict.fromkeys(
            [
                *CHAT_MARKS,
                *_MARKS,
                *(w for w in words if len(w) > 1),
                *(b" " + w for w in words),
                *(w.capitalize() for w in words if len(w) > 1),
                *(piece.encode() for piece in _PIECES.split()),
                *([b"10"] if ten_is_one_token else []),
                *([b"\tunknown"] if merge_tab_unknown else []),
            ]
        )
        self.bos = bos
        self.vocab = [BOS, *(bytes([b]) for b in range(256)), *merges]
        self.ids = {token: i for i, token in enumerate(self.vocab)}
        self._pattern = re.compile(b"|".join(map(re.escape, sorted(merges, key=len, reverse=True))) + b"|(?s:.)")
        self._salt = np.array([zlib.crc32(token) << 20 for token in self.vocab], np.uint64)
        self._base = np.array([-30.0 if token == BOS else _likelihood(token) for token in self.vocab])
        self._numbers = np.array([self.ids[n] for n in map(_digits, range(11)) if n in self.ids])
        self._rows: dict[int, Row] = {}
        self._cache_rows = cache_rows
        self._lock = threading.Lock()
        self.encode = lru_cache(maxsize=256)(self._encode)

    def tokenize(self, text):
        """The tokens of a text, without BOS; joined, they are its UTF-8 bytes."""
        return self._pattern.findall(text.encode())

    def prompt(self, text):
        """The tokens of a prompt: BOS, where the model has one, and those of the text."""
        return [BOS, *self.tokenize(text)] if self.bos else self.tokenize(text)

    def logprobs(self, prefix):
        """Log-probabilities of the next token, over `vocab`."""
        return self.rows([*map(self.ids.__getitem__, prefix)], len(prefix), len(prefix) + 1)[0].logprobs.copy()

    def top(self, prefix, k):
        """The k likeliest next tokens as (token, logprob), the best first."""
        row = self.rows([*map(self.ids.__getitem__, prefix)], len(prefix), len(prefix) + 1)[0]
        return [(self.vocab[i], value) for i, value in row.top(k)]

    def at(self, text, offset):
        """Log-probabilities, over `vocab`, of the token of the prompt that covers the character at this offset."""
        return self.logprobs(self.prompt(text)[: self.position(text, offset)])

    def position(self, text, offset):
        """The place among `prompt(text)` of the token that covers the character at this offset."""
        tokens = self.prompt(text)
        first = int(self.bos)
        ends = list(itertools.accumulate(len(token) for token in tokens[first:]))
        return bisect.bisect_right(ends, len(text[:offset].encode())) + first

    def _encode(self, text):
        return tuple(map(self.ids.__getitem__, self.tokenize(text)))

    def prompt_ids(self, text):
        return (0, *self.encode(text)) if self.bos else self.encode(text)

    def decode(self, ids):
        """The text of tokens, BOS left out, U+FFFD for what is no whole character."""
        return b"".join(self.vocab[i] for i in ids if i).decode("utf-8", "replace")

    def rows(self, ids, start=0, stop=None):
        """The distributions of the tokens at positions start to stop, each given all tokens before it.

        `stop` may be `len(ids) + 1`: the last one is then that of the token to come.
        """
        stop = len(ids) if stop is None else stop
        states = [State()]
        for token_id in ids[: max(stop - 1, 0)]:
            states.append(states[-1].after(token_id, self.vocab[token_id]))
        return self._known_rows(states[start:stop])

    def generate(self, ids, count, *, temperature=0.0, seed=0):
        """The ids of `count` tokens that follow: the likeliest, or drawn by the seed where the temperature is above 0."""
        draw = np.random.default_rng([seed & _MASK, zlib.crc32(repr(ids).encode())])
        state = State()
        for token_id in ids:
            state = state.after(token_id, self.vocab[token_id])
        made = []
        for _ in range(count):
            row = self._known_rows([state])[0]
            chosen = row.best[0][0]
            if temperature > 0:
                chosen = int(np.argmax(row.logprobs / temperature + draw.gumbel(size=len(self.vocab))))
            made.append(chosen)
            state = state.after(chosen, self.vocab[chosen])
        return made

    def _known_rows(self, states):
        with self._lock:
            missing = list({state.hash: state for state in states if state.hash not in self._rows}.values())
            fresh = {}
            for at in range(0, len(missing), _CHUNK):
                fresh.update(self._fresh_rows(missing[at : at + _CHUNK]))
            rows = []
            for state in states:
                row = self._rows.pop(state.hash, None) or fresh[state.hash]
                self._rows[state.hash] = row
                rows.append(row)
            for oldest in list(itertools.islice(self._rows, max(len(self._rows) - self._cache_rows, 0))):
                del self._rows[oldest]
            return rows

    def _fresh_rows(self, states):
        noise = _uniform(np.array([state.hash for state in states], np.uint64)[:, None] ^ self._salt)
        wants = np.array([state.wants() for state in states])
        logits = self._base + 6 * noise**8
        number = np.ix_(wants == _NUMBER, self._numbers)
        logits[number] = 5.5 + 6 * noise[number]
        logits[wants == _SECOND_DIGIT, self.ids[b"0"]] += 6
        logits[wants == _SECOND_DIGIT, self.ids[b"\n"]] += 6
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        best = np.argpartition(-logits, _TOP, axis=1)[:, :_TOP]
        values = np.take_along_axis(logits, best, axis=1)
        order = np.argsort(-values, axis=1)
        best = np.take_along_axis(best, order, axis=1).tolist()
        values = np.take_along_axis(values, order, axis=1).tolist()
        return {
            state.hash: Row(logits[i], list(zip(best[i], values[i], strict=True))) for i, state in enumerate(states)
        }


def chat_text(messages):
    """The prompt that a conversation becomes. No token reaches over its end, so an answer is tokenised alone."""
    turns = [f"<|{message['role']}|>{content_text(message.get('content'))}<|end|>" for message in messages]
    return "".join(turns) + "<|assistant|>"


def content_text(content):
    """The text of a message's content: a string, or a list of blocks."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(block.get("text", "") for block in content)


def fits(value, schema):
    """Whether a JSON value keeps to the plain part of a JSON schema."""
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return value in choices
    match schema.get("type"):
        case "object":
            properties = schema.get("properties", {})
            return (
                isinstance(value, dict)
                and all(name in value for name in schema.get("required", ()))
                and all(fits(value[name], part) for name, part in properties.items() if name in value)
            )
        case "array":
            return (
                isinstance(value, list)
                and schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value))
                and all(fits(item, schema.get("items", {})) for item in value)
            )
        case "integer" | "number" as kind:
            return (
                isinstance(value, int if kind == "integer" else int | float)
                and not isinstance(value, bool)
                and schema.get("minimum", value) <= value <= schema.get("maximum", value)
            )
        case "string":
            return isinstance(value, str)
    return True


def instance(schema, draw):
    """A smallest value that keeps to the schema; numbers are whole and drawn from the range, 0 to 10 where none is given."""
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return choices[int(draw.integers(len(choices)))]
    match schema.get("type"):
        case "object":
            return {name: instance(part, draw) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [instance(schema.get("items", {}), draw) for _ in range(schema.get("minItems", 0))]
        case "integer" | "number":
            low = schema.get("minimum", min(0, schema.get("maximum", 0)))
            return int(draw.integers(low, schema.get("maximum", low + 10), endpoint=True))
    return {"string": "", "boolean": False}.get(schema.get("type"))


def _digits(number):
    return str(number).encode()


def _likelihood(token):
    """Bytes of which a text is seldom made alone are unlikely."""
    return -4.0 if len(token) == 1 and (token > b"~" or token < b" ") and token not in b"\t\n" else 0.0


def _uniform(bits):
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(31)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(29)
    return (bits >> np.uint64(11)) * 2.0**-53
