"""What a model could have written where it wrote a number: the logprobs of an answer, by places in its text."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from nscore.exchange import TokenLogprobs
from nscore.simulators._values import Expected, expected

__all__ = ["Generated"]


class Generated:
    """The tokens of an answer, laid over its text.

    Args:
        text: the answer, without thinking.
        tokens: all that was generated, thinking included.
    """

    def __init__(self, text: str, tokens: TokenLogprobs) -> None:
        exact = tokens.exact
        if exact is not None and None not in exact:
            parts: Sequence[bytes] = [part for part in exact if part is not None]
        else:
            parts = [part.encode() for part in tokens.texts]
        self._text, self._tokens, self._parts = text, tokens, parts
        self._starts = [0, *accumulate(len(part) for part in parts)]
        # thinking comes first
        self._offset = b"".join(parts).rfind(text.encode())

    def expected(self, place: int, top: int) -> Expected | None:
        """The activation that is expected at a place; None where no token of the answer is known to stand there."""
        if self._offset < 0:
            return None
        at = self._offset + len(self._text[:place].encode())
        index = bisect_right(self._starts, at) - 1
        if index >= len(self._parts):
            return None
        before = self._parts[index][: at - self._starts[index]].decode(errors="replace")
        return expected(self._tokens.top(index), top, before)
