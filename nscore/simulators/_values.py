"""Activations among the likeliest tokens: what number is expected where one was to stand."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Expected", "expected", "number_in"]

# What may follow a number in one token: the end of a list, of a line.
_NUMBER = re.compile(r"([0-9]{1,2})[\s,\]}]*")
_SPACES = " \u2581"  # sentencepiece spells a space as the latter


class Expected(NamedTuple):
    """A distribution over the activations, and its mean.

    Attributes:
        value: the mean, once the probabilities of the valid activations are brought to 1.
        mass: their sum before that.
        distribution: the probability of each activation 0, 1, 2, ... after that.
    """

    value: float
    mass: float
    distribution: list[float]


def expected(alternatives: Iterable[tuple[str, float]], top: int, prefix: str = "") -> Expected | None:
    r"""The activation that is expected at a token.

    Args:
        alternatives: texts that could have stood there, with their logprobs.
        top: the scale's end; activations are the whole numbers 0 to `top`.
        prefix: what the token that did stand there holds before the number's place: "\t" where a tab is part of it.
            Unless it is spaces alone, an activation in its stead begins with it too: "5" would not be "\t5".

    Returns:
        None where no alternative is an activation.

    >>> expected([("0", math.log(0.6)), ("5", math.log(0.2)), ("unknown", math.log(0.1))], 10).value  # doctest: +ELLIPSIS
    1.25...
    """
    chances = [0.0] * (top + 1)
    for text, logprob in alternatives:
        written = number_in(text, prefix)
        if written is None or math.isnan(logprob):
            continue
        number = int(written)
        if number <= top and str(number) == written:
            # servers round: a logprob a little above 0 is 0
            chances[number] += math.exp(min(logprob, 0.0))
    mass = math.fsum(chances)
    if mass <= 0.0:
        return None
    mean = math.fsum(i * p for i, p in enumerate(chances)) / mass
    # rounding may leave the mean of nothing but 10 above it
    return Expected(min(mean, float(top)), min(mass, 1.0), [p / mass for p in chances])


def number_in(text: str, prefix: str = "") -> str | None:
    """The digits of a token that is one number, after a prefix; None where it is not."""
    if prefix.strip(_SPACES):
        if not text.startswith(prefix):
            return None
        text = text[len(prefix) :]
    else:
        text = text.lstrip().lstrip(_SPACES)
    found = _NUMBER.fullmatch(text)
    return found[1] if found else None
