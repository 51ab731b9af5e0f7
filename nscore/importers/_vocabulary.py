"""Token ids as texts: by a `tokenizer.json`, or as their digits."""

from __future__ import annotations

import functools
import string
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from nscore.errors import SettingError, SourceError

__all__ = ["Vocabulary", "digits", "vocabulary"]


def digits(ids: npt.NDArray[np.integer[Any]]) -> pl.Series:
    """Each id as its decimal digits.

    >>> digits(np.array([13, 7])).to_list()
    ['13', '7']
    """
    return pl.Series(ids).cast(pl.String)


@functools.lru_cache(maxsize=2)
def vocabulary(path: str) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`.

    Raises:
        SettingError: if the package `tokenizers` is not installed.
        SourceError: if the file is none.
    """
    try:
        from tokenizers import Tokenizer  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise SettingError(
            "tokenizer: needs the package tokenizers: pip install 'nscore[delphi]'; or leave it out: tokens are then ids"
        ) from error
    try:
        return Vocabulary(path, Tokenizer.from_file(path))
    except Exception as error:  # the package raises nothing narrower
        said = str(error).split("\n", maxsplit=1)[0]
        raise SourceError(
            path, f"no tokenizer: {said}", mend="It is the file tokenizer.json beside a model's weights."
        ) from error


class Vocabulary:
    """The texts of token ids, each decoded once.

    Each token is decoded behind a letter, so that it keeps the space before it: alone, as Delphi decodes them, tokens of
    SentencePiece's kind lose it.
    """

    def __init__(self, path: str, tokenizer: Any) -> None:  # noqa: ANN401  (of an extra)
        self._path, self._tokenizer = path, tokenizer
        self.size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        """Ids from here on are none of its tokens."""
        self._texts = np.full(self.size, None, dtype=object)
        letters = [tokenizer.token_to_id(letter) for letter in string.ascii_letters]
        self._letter = next(
            (i for i in letters if i is not None and self._decoded([i]) in set(string.ascii_letters)), None
        )

    def texts(self, ids: npt.NDArray[np.integer[Any]]) -> pl.Series:
        """The text of each id; they must be smaller than `size`."""
        unique, places = np.unique(ids, return_inverse=True)
        for i in unique.tolist():
            if self._texts[i] is None:
                self._texts[i] = self._text(i)
        return pl.Series(self._texts[unique].tolist(), dtype=pl.String).gather(pl.Series(places.astype(np.uint32)))

    def _text(self, i: int) -> str:
        if self._letter is not None:
            letter, both = self._decoded([self._letter]), self._decoded([self._letter, i])
            if both.startswith(letter):
                return both[len(letter) :]
        return self._decoded([i])

    def _decoded(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))
