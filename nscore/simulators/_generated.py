"""What a model could have written where it wrote a number: the logprobs of an answer, by places in its text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from nscore._sending.align import Found, locate
from nscore.exchange import TokenLogprobs
from nscore.simulators._values import Expected, expected, number_in

__all__ = ["Generated"]

# As far as it goes on: a token that holds the first digits of a number says nothing about the number.
_WRITTEN = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# The longest tokens of vocabularies are runs of 128 signs; one that holds more before a number is no number.
_LONGEST = 1024


class Generated:
    """The tokens of an answer, laid over its text.

    Args:
        text: the answer, without thinking.
        tokens: all that was generated, thinking included.
        places: all offsets in the text that will be asked for.
    """

    def __init__(self, text: str, tokens: TokenLogprobs, places: Iterable[int]) -> None:
        self._text, self._tokens = text, tokens
        wanted = sorted(set(places))
        found = _joined(text, wanted, tokens)
        if found is None:
            found = dict(zip(wanted, locate(text, wanted, tokens.texts, tokens.exact) or [], strict=False))
        self._found = found

    def expected(self, place: int, top: int) -> Expected | None:
        """The activation that is expected at a place; None where no token is known to hold just the number there."""
        found, written = self._found.get(place), _WRITTEN.match(self._text, place)
        if found is None or written is None:
            return None
        if number_in(self._tokens.texts[found.index], found.prefix) != written[0]:
            return None
        return expected(self._tokens.top(found.index), top, found.prefix)


def _joined(text: str, places: Sequence[int], tokens: TokenLogprobs) -> dict[int, Found] | None:
    """The token at each place, where the tokens as they are spelled make up the text."""
    exact = tokens.exact
    known = exact is not None and None not in exact
    parts = [p or b"" for p in exact or ()] if known else [_utf8(part) for part in tokens.texts]
    starts = [0, *accumulate(map(len, parts))]
    whole, data = b"".join(parts), _utf8(text)
    # thinking comes first; backwards and not by `rfind`, which takes quadratic time on texts made for it
    behind = whole[::-1].find(data[::-1])
    if behind < 0:
        return None
    found = {}
    at = len(whole) - behind - len(data)
    for last, place in pairwise([0, *places]):
        at += len(_utf8(text[last:place]))
        index = bisect_right(starts, at) - 1
        if at - starts[index] <= _LONGEST:
            found[place] = Found(index, parts[index][: at - starts[index]].decode(errors="replace"))
    return found


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
