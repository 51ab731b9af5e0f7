"""A question in SQL before an engine sees it: its words, that it only reads, its numbers, where an error stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from nscore.errors import QueryError

__all__ = ["Question", "Token", "printable", "question"]

LONGEST = 1_000_000
# Statements that read. `FROM t` alone is DuckDB's short form of SELECT.
FIRST = ("select", "with", "values", "from", "(")
# Table functions of either engine that open files or addresses.
READER = re.compile(r"(?i)(?:read|scan)_\w+")
TOKEN = re.compile(
    r"""(?P<space>\s+|--[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<text>'(?:[^']|'')*+')
    |(?P<quoted>"(?:[^"]|"")*+")
    |(?P<number>(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)
    |(?P<word>\w+)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
# What nests a plan one step deeper wherever it is chained.
CHAINS = {
    *("and", "or", "not", "is", "like", "ilike", "between", "case", "when"),
    *("union", "except", "intersect", "select", "join"),
}


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a statement: its kind, as the pattern above names it, what is written, and where."""

    kind: str
    text: str
    place: int

    @property
    def said(self) -> str:
        """What a name or a text says without its quotes."""
        if self.kind == "quoted":
            return self.text[1:-1].replace('""', '"')
        return self.text[1:-1].replace("''", "'") if self.kind == "text" else self.text


@dataclass(frozen=True, slots=True)
class Question:
    """A statement that only reads.

    Attributes:
        asked: as it was written.
        tokens: what it consists of, without spaces and comments.
        added: what is put into it for an engine, and before which character.
    """

    asked: str
    tokens: tuple[Token, ...]
    added: tuple[tuple[int, str], ...] = ()

    @property
    def sql(self) -> str:
        """As an engine gets it."""
        ends = [0, *(place for place, _ in self.added), len(self.asked)]
        pieces = [self.asked[start:end] for start, end in pairwise(ends)]
        return "".join(piece + new for piece, (_, new) in zip(pieces, [*self.added, (0, "")], strict=True))

    @property
    def words(self) -> frozenset[str]:
        """Every name and text in it, in lower case; the tables that it reads are among them."""
        return frozenset(token.said.lower() for token in self.tokens if token.kind in {"word", "quoted", "text"})

    @property
    def depth(self) -> int:
        """How many operators, keywords and commas of it may each nest its plan one step deeper."""
        return sum(_nests(*three) for three in _with_neighbours(self.tokens))

    def adding(self, added: list[tuple[int, str]]) -> Question:
        """The same with more put into it; where two are put before one character, these come last."""
        return replace(self, added=tuple(sorted([*self.added, *added], key=lambda pair: pair[0])))

    def told(self, said: str, place: int | None = None) -> QueryError:
        """An error of an engine in a line and, where it says which character of `sql` is at fault, a caret below it."""
        said = printable(said.strip())
        if place is None:
            return QueryError(said)
        for at, new in self.added:
            if at < place:
                place = max(at, place - len(new))
        return QueryError(f"{said}\n{self.pointed(place)}")

    def pointed(self, place: int) -> str:
        """The line in which a character of `asked` stands, and a caret below it."""
        place = min(max(place, 0), len(self.asked))
        before = self.asked[:place].rpartition("\n")[2]
        after = self.asked[place:].partition("\n")[0]
        before = printable(before[-60:])
        return f"  {before}{printable(after[:60])}\n  {' ' * len(before)}^"


def question(sql: str) -> Question:
    """Looks at a statement, and makes floats of its decimals: `0.1` is sent as `0.1e0`, since engines' decimals differ.

    Raises:
        QueryError: if there is none, or more than one, or it does more than read the tables of the folder.
    """
    if len(sql) > LONGEST:
        raise QueryError(f"the question has {len(sql):,} characters; at most {LONGEST:,} are read")
    if "\x00" in sql or any("\ud800" <= c <= "\udfff" for c in sql):
        raise QueryError("the question is no text: found a null byte or half a character in it")
    found = [Token(m.lastgroup or "", m[0], m.start()) for m in TOKEN.finditer(sql)]
    tokens = [token for token in found if token.kind != "space"]
    while tokens and tokens[-1].text == ";":
        sql = sql[: tokens.pop().place]
    if not tokens:
        raise QueryError("there is no question: write a SELECT, such as SELECT * FROM scores LIMIT 10")
    asked = Question(sql, tuple(tokens))
    _check_quotes(asked, found)
    _check_reading(asked)
    return asked.adding(list(_floats(tokens)))


def printable(text: str) -> str:
    r"""A text that moves no cursor: what cannot be seen is written as an escape.

    >>> print(printable("a\n\x1b[2J"))
    a\n\x1b[2J
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _check_quotes(asked: Question, found: list[Token]) -> None:
    """Refuses ways to quote that engines do not all share: after one, a text may end elsewhere than it seems to."""
    plain = "texts are written as '...', names as \"...\", and comments hold no others"
    for before, token in pairwise([Token("", "", 0), *found]):
        prefixed = token.kind in {"text", "quoted"} and (
            before.kind in {"word", "text", "quoted"} or before.text == "&"
        )
        if token.text in {"$", "`", "#"} or prefixed or (token.kind == "space" and "/*" in token.text[2:]):
            raise asked.told(f"{printable(token.text[:20])}: {plain}", token.place)
        if token.text in {"'", '"'}:
            raise asked.told(f"{token.text} is never closed", token.place)


def _check_reading(asked: Question) -> None:
    first = asked.tokens[0]
    if first.text.lower() not in FIRST:
        said = f"{first.text[:20]}: a question starts with SELECT or WITH; tables are read here, never written"
        raise asked.told(said, first.place)
    for token, after in pairwise(asked.tokens):
        if after.text == "(" and token.kind in {"word", "quoted"} and READER.fullmatch(token.said):
            raise asked.told(f"{token.text}: only the tables of the folder are read, no other file", token.place)
        if token.text == ";":
            raise asked.told("one question at a time: found another after the ;", token.place)


def _floats(tokens: list[Token]) -> Iterator[tuple[int, str]]:
    """What makes floats of the numbers that have a point and no exponent."""
    for token in tokens:
        text = token.text
        if token.kind == "number" and "." in text and "e" not in text.lower():
            yield token.place + len(text), "0e0" if text.endswith(".") else "e0"


def _with_neighbours(tokens: tuple[Token, ...]) -> Iterator[tuple[Token, Token, Token]]:
    end = Token("", "", 0)
    return zip((end, *tokens), tokens, (*tokens[1:], end), strict=False)


def _nests(before: Token, token: Token, after: Token) -> bool:
    if token.kind == "word":
        return token.text.lower() in CHAINS
    if token.text == ",":
        return not {before.kind, after.kind} & {"number", "text"}
    return token.kind == "sign" and token.text not in "()."
