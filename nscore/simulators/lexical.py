# ruff: noqa: RUF001  (dashes and quotation marks are what it looks for)
"""`lexical`: reads the explanation itself, its quoted examples and its words, and looks for them among the tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from nscore.records import EXPLANATION, EXPLANATION_ID, OK, PREDICTED, SEQUENCE, STATUS, TOKEN
from nscore.simulators._protocol import simulator

__all__ = ["Lexical"]

QUOTED, NAMED = 10.0, 5.0
# What a term of an explanation is compared with: the token itself, its word, or whether that is a number.
FORMS = ("__piece", "__stem", "__number")

# Words of an explanation that say how it speaks, not when the neuron fires.
_SILENT = """
about activate activates active activation after against also and any are around associated before being between
both broad but certain concept concepts contain containing context contexts describe describing either else end
especially essentially etc even ever every example examples expression expressions fire fires firing first
follow followed following for form forms found from function general generally had has have having here how
including indicate indicating into its itself just kind kinds language last less letter letters like likely
little mainly many mean meaning mention mentions mix mixed more most mostly name names near neuron nor not
nothing occasionally occurs often one only other others out over part parts particular particularly pattern
patterns phrase phrases piece pieces plus point prefix primarily quoted rather refer reference references
referring related respond responds scattered second sense sentence sentences several similar some sometimes
strong stronger strongest strongly such suffix suffixes term terms text than that the their them then there
these they this those though token tokens too two type types under upon use used uses using usually various very
way weak weaker weakly well what when where which while who whose will with within word words your
"""
SILENT = frozenset(_SILENT.split())

# Names of what is no word, and the tokens they stand for.
SIGNS = {
    "ampersand": "&",
    "apostrophe": "'",
    "asterisk": "*",
    "bracket": "()[]{}",
    "colon": ":",
    "comma": ",",
    "dash": "-–—",
    "ellipses": "…",
    "ellipsis": "…",
    "exclamation": "!",
    "hyphen": "-",
    "parentheses": "()",
    "parenthesis": "()",
    "percent": "%",
    "period": ".",
    "punctuation": ".,;:!?-\"'()",
    "question": "?",
    "quotation": "\"“”'",
    "semicolon": ";",
    "slash": "/",
    "stop": ".",
    "underscore": "_",
}
NUMBERS = ("digit", "number", "numeral", "numeric")

_QUOTES = r'["“”]([^"“”]+)["“”]'
_WORD = r"[\p{L}\p{N}][\p{L}\p{N}'’]*"


@simulator("lexical")
@dataclass(frozen=True, slots=True)
class Lexical:
    """Predicts 10 for a token of a word that the explanation quotes, 5 for one that it names, else 0.

    Words are compared by their stems, in lower case; the pieces of a word (`##ing`, or pieces without a leading
    `Ġ`, `▁` or space where the record has such) are joined first and predicted alike. A quoted piece is found as a
    piece too. Names of signs ("comma", "hyphen") and "digits" or "numbers" stand for the tokens they name. Words
    about the explanation itself ("fires", "such as", "strongly") say nothing.
    """

    @property
    def name(self) -> str:
        """`lexical`."""
        return "lexical"

    def simulate(self, pairs: pl.LazyFrame, *, keys: Sequence[str], train: pl.LazyFrame | None) -> pl.LazyFrame:
        """See `Simulator.simulate`."""
        del train
        own = [*keys, EXPLANATION_ID]
        columns = pairs.collect_schema().names()
        terms = _terms(pairs.select(*own, EXPLANATION).unique(), own)
        tokens = _words(pairs, [*own, SEQUENCE])
        for form in FORMS:
            matches = terms.filter(pl.col("form") == form).group_by(*own, "term").agg(pl.col("weight").max())
            tokens = tokens.join(
                matches.rename({"term": form, "weight": f"{form}_weight"}),
                on=[*own, form],
                how="left",
                nulls_equal=True,
                maintain_order="left",
            )
        weight = pl.max_horizontal(f"{form}_weight" for form in FORMS).fill_null(0.0)
        return tokens.select(*columns, weight.alias(PREDICTED), pl.lit(OK).alias(STATUS))


def _terms(explanations: pl.LazyFrame, own: list[str]) -> pl.LazyFrame:
    """One row for each thing that an explanation says: the term, whether it is a stem or a piece, and its weight."""
    text = pl.col(EXPLANATION).cast(pl.String)
    quoted = text.str.extract_all(_QUOTES).list.eval(pl.element().str.strip_chars('"“”'))
    plain = text.str.replace_all(_QUOTES, " ").str.to_lowercase().str.extract_all(_WORD)

    def stems(words: pl.LazyFrame, weight: float) -> pl.LazyFrame:
        return words.select(*own, _stem(pl.col("term")).alias("term"), form=pl.lit("__stem"), weight=pl.lit(weight))

    quotes = explanations.select(*own, quoted.alias("term")).explode("term", empty_as_null=False).drop_nulls("term")
    pieces = quotes.select(
        *own,
        _bare(pl.col("term")).str.strip_chars().alias("term"),
        form=pl.lit("__piece"),
        weight=pl.lit(QUOTED),
    )
    # a quoted piece (##ing) is no word; its letters alone must not be taken for one
    words = quotes.filter(~pl.col("term").str.starts_with("##")).with_columns(
        pl.col("term").str.to_lowercase().str.extract_all(_WORD)
    )
    named = explanations.select(*own, plain.alias("term")).explode("term", empty_as_null=False).drop_nulls("term")
    heard = named.filter(~pl.col("term").is_in(SILENT) & (pl.col("term").str.len_chars() > 2))
    stemmed = heard.with_columns(_stem(pl.col("term")))
    names = pl.LazyFrame({"term": list(SIGNS), "signs": list(SIGNS.values())}).with_columns(_stem(pl.col("term")))
    signs = stemmed.join(names.unique(), on="term").select(*own, pl.col("signs").str.split("").alias("term"))
    numbers = pl.LazyFrame({"term": NUMBERS}).with_columns(_stem(pl.col("term")))
    digits = stemmed.join(numbers, on="term", how="semi").select(own)
    return pl.concat(
        [
            pieces,
            stems(words.explode("term", empty_as_null=False).drop_nulls("term"), QUOTED),
            stems(heard, NAMED),
            signs.explode("term", empty_as_null=False).select(
                *own, "term", form=pl.lit("__piece"), weight=pl.lit(NAMED)
            ),
            digits.select(*own, term=pl.lit(_DIGIT), form=pl.lit("__number"), weight=pl.lit(NAMED)),
        ]
    ).filter(pl.col("term") != "")


# What every number is found by, beside its own digits: no token is spelled so.
_DIGIT = "any number"


def _words(pairs: pl.LazyFrame, record: list[str]) -> pl.LazyFrame:
    """Adds each token's bare text as `__piece`, the stem of its word as `__stem`, and `__number` where that is one."""
    token = pl.col(TOKEN).cast(pl.String)
    marked = token.str.contains("^[Ġ▁ ]")
    lettered = _bare(token).str.contains(r"^[\p{L}\p{N}'’]+$")
    # Pieces that continue a word: marked so (##), or unmarked where the record marks those that begin one.
    joined = ~marked & lettered & lettered.shift(1, fill_value=False)
    continues = token.str.starts_with("##") | (joined & marked.any().over(record))
    number = pl.when(pl.col("__stem").str.contains(r"^\p{N}+$")).then(pl.lit(_DIGIT))
    return (
        pairs.with_columns(_bare(token).alias("__piece"), continues.over(record).alias("__continues"))
        .with_columns((~pl.col("__continues")).cum_sum().over(record).alias("__word"))
        .with_columns(pl.col("__piece").str.join("").over([*record, "__word"]).alias("__stem"))
        .with_columns(_stem(pl.col("__stem")))
        .with_columns(number.alias("__number"))
    )


def _bare(token: pl.Expr) -> pl.Expr:
    """A token without the mark that its tokenizer gives to beginnings or continuations of words."""
    return token.str.replace("^(##|[Ġ▁ ])", "").str.to_lowercase()


def _stem(word: pl.Expr) -> pl.Expr:
    """A word without its commonest English endings: runs, running and run are one; so are cities and city."""
    short = (
        word.str.replace(r"['’]s?$", "")
        .str.replace(r"^(.{2,})ies$", "${1}y")
        .str.replace(r"^(.{2,}(?:s|x|z|ch|sh))es$", "${1}")
        .str.replace(r"^(.{2,}[^su])s$", "${1}")
        .str.replace(r"^(.{3,})(?:ing|ed|ly)$", "${1}")
    )
    # stopped, running: the doubled letter goes with the ending
    doubled = word.str.contains(r"(?:bb|dd|gg|mm|nn|pp|rr|tt)(?:ing|ed)$")
    short = pl.when(doubled).then(short.str.head(-1)).otherwise(short)
    return short.str.replace(r"^(.{3,})e$", "${1}")
