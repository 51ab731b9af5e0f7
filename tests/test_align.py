"""Prompts cut at random bytes and spelled as servers do: the token at a place is the one that was cut there, or None."""

from __future__ import annotations

import time
from bisect import bisect_right
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nscore._sending import align as _align
from nscore._sending.align import Found, locate

MANY = settings(max_examples=120, deadline=None)
LOOKALIKES = [
    *(
        "unknown",
        "\tunknown",
        "\tunknown\n",
        "unk",
        "u",
        "<s>",
        "<start>",
        "<end>",
        "\t",
        "\n",
        " ",
        "  ",
        "",
        "a",
        "the",
    ),
    *(
        "▁",
        "▁the",
        "<0xE2>",
        "<0x75>",
        "bytes:\\xe2\\x96",
        "bytes: \\x75",
        "byte: \\xe2",
        "Ġ",
        "Ċ",
        "ĉ",
        "âĢľ",
        "\\x75",
    ),
    *(
        "\ufffd",
        "\ufffd\ufffd",
        "é",
        "è",
        "█",
        "—",
        "中文",
        "😀",
        "👩‍👩‍👧",
        "e\u0301",
        "\x00",
        "\x85",
        "\u2028",
        "\u00ad",
    ),
]
FRONTS = [[], ["<s>"], [""], ["<|begin_of_text|>", ""], ["<s>", "\ufffd"], ["<|user|>", "\n", "\n"], ["▁"]]
BEHINDS = [[], ["5"], ["", "unknown"], ["\tunknown\n", "<end>"], ["\ufffd", "\ufffd"]]
RAW = {value: char for char, value in _align._RAW.items()}  # noqa: SLF001

strings = st.one_of(st.sampled_from(LOOKALIKES), st.text(max_size=6), st.text("aé中😀\t\n \ufffd", max_size=6))
seeds = st.integers(0, 2**32)


def table(tokens):
    """A prompt as the simulator writes it."""
    return "<start>\n" + "".join(f"{token}\tunknown\n" for token in tokens) + "<end>\n"


def places_in(prompt):
    return [at for at in range(len(prompt)) if prompt.startswith("unknown", at)]


def pieces_of(data, rng, share, *, whole=False):
    """Bytes cut at random, between characters only where a tokenizer falls back to single bytes."""
    cuts = [at for at in range(1, len(data)) if rng.random() < share and not (whole and data[at] & 0xC0 == 0x80)]
    return [data[a:b] for a, b in pairwise([0, *cuts, len(data)])]


def single_bytes(pieces, rng):
    """Some tokens that are not in a sentencepiece vocabulary, byte by byte."""
    for piece in pieces:
        if max(piece) < 0x80 or rng.random() < 0.5:
            yield piece
        else:
            yield from (bytes([byte]) for byte in piece)


def decodes(piece):
    try:
        piece.decode()
    except UnicodeDecodeError:
        return False
    return True


def replaced(pieces):
    return [piece.decode(errors="replace") for piece in pieces]


def left_out(pieces):
    return [piece.decode(errors="ignore") for piece in pieces]


def held_back(pieces):
    """A character stands whole where its last byte comes."""
    done = [len(b"".join(pieces[: n + 1]).decode(errors="ignore")) for n in range(len(pieces))]
    text = b"".join(pieces).decode()
    return [text[a:b] for a, b in pairwise([0, *done])]


def escaped(pieces):
    def spell(byte):
        return chr(byte) if byte < 0x80 else f"\\x{byte:02x}"

    return [p.decode() if decodes(p) else "bytes:" + "".join(map(spell, p)) for p in pieces]


def raw(pieces):
    return ["".join(RAW[byte] for byte in piece) for piece in pieces]


def sentencepiece(pieces):
    return [p.decode().replace(" ", "▁") if decodes(p) else f"<0x{p[0]:02X}>" for p in pieces]


def dummy_space(pieces):
    first, *others = sentencepiece(pieces)
    return ["▁" + first if decodes(pieces[0]) else first, *others]


def dropped_space(pieces):
    return [text.removeprefix(" ") for text in replaced(pieces)]


BYTE_LEVEL = [replaced, left_out, held_back, escaped, raw]
STYLES = [*BYTE_LEVEL, sentencepiece, dummy_space, dropped_space]
# There the text of a token tells where it starts.
TELLING = [replaced, escaped, raw, sentencepiece, dummy_space]


def cut(prompt, style, rng):
    share = rng.choice([0.05, 0.2, 0.5, 1.0])
    data = prompt.encode()
    if style in BYTE_LEVEL:
        return pieces_of(data, rng, share)
    return list(single_bytes(pieces_of(data, rng, share, whole=True), rng))


def truth(prompt, pieces, place):
    """By the cuts themselves: the token and what it holds before the place."""
    starts = [0]
    for piece in pieces:
        starts.append(starts[-1] + len(piece))
    at = len(prompt[:place].encode())
    index = bisect_right(starts, at) - 1
    held = prompt.encode()[starts[index] : at]
    text = held.lstrip(bytes(range(0x80, 0xC0)))
    return Found(index, "\ufffd" * (text != held) + text.decode())


def spelled(style, pieces, rng):
    front, behind = rng.choice(FRONTS), rng.choice(BEHINDS)
    return len(front), [*front, *style(pieces), *behind]


@pytest.mark.parametrize("style", STYLES)
@given(tokens=st.lists(strings, max_size=8), seed=seeds)
@MANY
def test_the_token_at_a_place_is_the_one_that_was_cut_there(style, tokens, seed):
    rng = Random(seed)
    prompt = table(tokens)
    pieces = cut(prompt, style, rng)
    skipped, texts = spelled(style, pieces, rng)
    places = places_in(prompt)
    found = locate(prompt, places, texts)
    if found is None and style is escaped and "\\x" in prompt:
        return  # a token may hold both an escape and the look of one
    if found is None and "▁" in prompt and any(text.count("▁") > 3 for text in texts):
        return  # it may hold both spaces and that character
    assert found is not None
    for place, (index, prefix) in zip(places, found, strict=True):
        true = truth(prompt, pieces, place)
        assert index == true.index + skipped
        if style in TELLING and "\ufffd" not in prompt:
            assert prefix == true.prefix
        assert prompt[:place].endswith(prefix.removeprefix("\ufffd"))


@pytest.mark.parametrize("style", STYLES)
@given(tokens=st.lists(st.sampled_from(LOOKALIKES), min_size=1, max_size=10), seed=seeds)
@MANY
def test_a_prompt_that_repeats_itself_and_looks_like_spellings_is_located_rightly_or_not_at_all(style, tokens, seed):
    rng = Random(seed)
    prompt = "".join(tokens) or "unknown"
    pieces = cut(prompt, style, rng)
    skipped, texts = spelled(style, pieces, rng)
    places = places_in(prompt)
    found = locate(prompt, places, texts)
    if found is not None:
        assert [index for index, _ in found] == [truth(prompt, pieces, place).index + skipped for place in places]


@pytest.mark.parametrize("style", STYLES)
@given(tokens=st.lists(strings, max_size=8), seed=seeds)
@MANY
def test_a_reply_with_a_wrong_token_is_located_rightly_or_not_at_all(style, tokens, seed):
    rng = Random(seed)
    prompt = table(tokens)
    pieces = cut(prompt, style, rng)
    texts = [*enumerate(style(pieces))]  # each with the number of the piece that it spells
    at = rng.randrange(len(texts))
    text, number = texts[at][1], at
    change = rng.choice(["dropped", "twice", "changed", "swapped"])
    if change == "dropped":
        del texts[at]
    elif change == "twice":
        texts.insert(at, texts[at])
    elif change == "changed":
        texts[at] = (number, rng.choice([*LOOKALIKES, text + "x", text[1:], text[:-1], text.upper()]))
    else:
        other = rng.randrange(len(texts))
        texts[at], texts[other] = texts[other], texts[at]
    places = places_in(prompt)
    found = locate(prompt, places, [text for _, text in texts] + rng.choice([[], ["5"]]))
    if found is not None:
        for place, (index, _) in zip(places, found, strict=True):
            same = [text for _, text in texts].count(texts[index][1]) > 1 and change == "swapped"
            assert texts[index][0] == truth(prompt, pieces, place).index or same


@given(tokens=st.lists(strings, max_size=8), seed=seeds)
@MANY
def test_known_bytes_are_followed_whatever_the_texts(tokens, seed):
    rng = Random(seed)
    prompt = table(tokens)
    pieces = cut(prompt, raw, rng)
    known = [None if decodes(piece) and rng.random() < 0.5 else piece for piece in pieces]
    texts = [piece.decode() if given is None else "?" for piece, given in zip(pieces, known, strict=True)]
    places = places_in(prompt)
    found = locate(prompt, places, ["<s>", *texts], [None, *known])
    if found is None and any(escape in prompt for escape in ("\\x", "<0x")):
        return  # a token whose bytes are not known may be an escape
    assert found == [Found(n + 1, prefix) for n, prefix in (truth(prompt, pieces, place) for place in places)]


def test_bytes_that_do_not_cover_the_prompt_are_no_hindrance():
    assert locate("a\tunknown", [2], ["a", "\t", "unknown"], [b"a", b"x", None]) == [Found(2, "")]
    assert locate("a\tunknown", [2], ["a", "\t", "unknown"], [b"a"]) == [Found(2, "")]


@pytest.mark.parametrize("style", BYTE_LEVEL)
def test_long_texts_of_many_bytes_a_character_are_hardly_ever_given_up(style):
    rng = Random(0)
    alphabet = "é中文█—😀👩\ufffd\u0301▁Ġ a\n"
    given_up = 0
    for _ in range(100):
        prompt = table("".join(rng.choices(alphabet, k=rng.randrange(12))) for _ in range(20))
        pieces = cut(prompt, style, rng)
        places = places_in(prompt)
        found = locate(prompt, places, style(pieces))
        given_up += found is None
        assert found is None or [n for n, _ in found] == [truth(prompt, pieces, place).index for place in places]
    assert given_up == 0


def test_plain_texts_are_laid_without_a_search(monkeypatch):
    monkeypatch.setattr(_align, "_walk", None)
    prompt = table(["the", " cat", "—"])
    pieces = pieces_of(prompt.encode(), Random(1), 0.5, whole=True)
    found = locate(prompt, places_in(prompt), ["<s>", *replaced(pieces), "5"])
    assert [n - 1 for n, _ in found] == [truth(prompt, pieces, place).index for place in places_in(prompt)]
    assert locate(prompt, places_in(prompt), ["?"] * len(pieces), pieces) is not None


def test_a_search_that_grows_without_bound_is_given_up():
    prompt = "中" * 2000 + "\tunknown"
    assert locate(prompt, [2001], [""] * 6000 + ["\tunknown"]) is None


def test_two_ways_that_disagree_are_none_and_two_that_agree_are_found():
    assert locate("unknown\nunknown\n", [0, 8], ["unknown\n"] * 3) is None
    assert locate("\n\nunknown", [2], ["\n", "\n", "\n", "unknown"]) == [Found(3, "")]


def test_a_bos_that_runs_into_the_prompt_is_not_skipped():
    assert locate("s>\tunknown", [3], ["<s>", "\tunknown"]) is None
    assert locate("<s>\tunknown", [4], ["<s>", "<s>", "\tunknown"]) == [Found(2, "\t")]


def test_a_prompt_that_ends_inside_a_token_is_not_covered():
    assert locate("a\tunknown", [2], ["a", "\tunknown5"]) is None


def test_a_place_outside_the_prompt_is_an_error_and_no_place_asks_for_nothing():
    with pytest.raises(IndexError, match="7 characters"):
        locate("unknown", [0, 7], ["unknown"])
    with pytest.raises(IndexError, match="they ascend"):
        locate("unknown", [1, 0], ["unknown"])
    assert locate("", [], []) == []
    assert locate("a", [], ["b"]) == []


def test_letters_that_come_again_nearly_everywhere_are_given_up_at_once():
    begun = time.process_time()
    assert locate("a" * 50_000 + " 7", [50_001], [*["a" * 10] * 10_000, "▁7"]) is None
    assert locate("a" * 20 + " 7", [21], ["a" * 10, "b", *["a" * 10] * 2, "▁7"]) == [Found(4, " ")]
    assert time.process_time() - begun < 5


def test_more_tokens_than_an_answer_and_its_thinking_can_have_are_not_searched():
    texts = [*["."] * (1 << 18), "a▁b\tunknown"]
    assert locate("a b\tunknown", [4], texts) == [Found(1 << 18, "a b\t")]
    assert locate("a b\tunknown", [4], [*["."] * 20, *texts]) is None


def test_a_token_of_many_parts_ends_where_its_characters_do():
    prompt = "\ufffd" * 5 + "👍\tunknown"
    for parts in range(6, 9):  # five characters that are U+FFFD, and one to three bytes of the next
        texts = ["\ufffd" * parts, *["\ufffd"] * (9 - parts), "\tunknown"]
        assert locate(prompt, [7], texts) == [Found(len(texts) - 1, "\t")]


def test_a_long_text_in_which_spaces_are_spelled_otherwise_is_found():
    prompt = "a " * 500 + "\tunknown"
    assert locate(prompt, [1001], [prompt[:1000].replace(" ", "▁"), "\tunknown"]) == [Found(1, "\t")]
