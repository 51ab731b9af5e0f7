"""`delphi`: a run of EleutherAI's Delphi: its cache of latents, explanations, and scores; older forms included."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import msgspec
import polars as pl

from nscore.errors import SettingError
from nscore.importers._delphi_latents import SHARD, Latents, latent_tables, parse_latents
from nscore.importers._delphi_scores import (
    SCORES_MADE,
    Judged,
    SimulatedLatent,
    judgement_tables,
    parse_scores,
    simulation_tables_of,
)
from nscore.importers._delphi_windows import Drawing
from nscore.importers._json import decoded
from nscore.importers._long import keys_of
from nscore.importers._places import SourceFile
from nscore.importers._protocol import Parsed, importer
from nscore.importers._vocabulary import vocabulary
from nscore.records import EXPLANATION, EXPLANATION_ID

__all__ = ["Delphi"]

LATENT = re.compile(r"(.+)_(?:latent|feature)([0-9]{1,18})\.txt")


@dataclass(frozen=True, slots=True)
class _Explained:
    """An explanation of one latent."""

    layer: str
    neuron: int
    text: str


_Piece = Latents | Judged | SimulatedLatent | _Explained
_TEXT = msgspec.json.Decoder(str)


@importer("delphi")
@dataclass(frozen=True, slots=True, kw_only=True)
class Delphi:
    """Reads the folders `latents`, `explanations` and `scores` of a run, or parts of them.

    `latents/{hookpoint}/{start}_{end}.safetensors` become `records` and `neurons`. As Delphi does, the rows of text are cut into
    windows of `context` tokens, one after another. The record of a latent are the windows in which it fires most strongly
    (stratum `top`), and some in which it does not fire at all (`random`), each at most once; where quantiles are asked
    for, the windows below the top are split into so many of one size, the strongest first, and some are drawn from each
    (`quantile_0`, `quantile_1`, ...). The splits are the original's. What is drawn for a latent depends on its number and
    the seed. A latent that never fires has no rows. `neurons` says on how many tokens each fires, of how many.

    `explanations/{hookpoint}_latent{i}.txt` become `explanations`.

    `scores/{scorer}/{hookpoint}_latent{i}.txt` become `judgements`, the `item` being the place in the file. `judged` holds their
    tokens and activations (those of one scorer are a table of records); in the `text` of older runs, marks `<<...>>` say which
    tokens the judge saw marked; newer runs do not tell. An answer that Delphi could not get or read, which it does not tell
    apart, is null with the status `parse_error`. Whether an answer is correct, and the `id` of older runs, are left out.
    Scored simulations become `simulated`, with their quantiles as strata, and the published scores beside it.

    Where a hook point's name has a `/`, Delphi writes `--` in the names of scores: it becomes a `/` again.

    Args:
        context: how many tokens a window has; the last of a row may have fewer.
        top: how many of the strongest windows of each latent become records.
        random: how many windows in which it does not fire.
        quantiles: into how many parts the other windows in which it fires are split; none are drawn from them if 0.
        per_quantile: how many are drawn from each.
        seed: of what is drawn.
        max_latents: only the latents of each hook point whose number is smaller; all if left out.
        tokenizer: the `tokenizer.json` of the model, for the texts of tokens (needs `nscore[delphi]`); without it a token is its
            id in decimal digits.
        explanation_id: what the run's explanations are called.

    Raises:
        SettingError: if an option is out of range, or the package that reads a tokenizer is not installed.
        SourceError: if the tokenizer is none.

    Source: the code of EleutherAI's Delphi, and of its earlier form sae-auto-interp.
    """

    makes: ClassVar[tuple[str, ...]] = ("records", "neurons", "explanations", *SCORES_MADE)

    context: int = 32
    top: int = 20
    random: int = 20
    quantiles: int = 0
    per_quantile: int = 5
    seed: int = 0
    max_latents: int | None = None
    tokenizer: str | None = None
    explanation_id: str = "delphi"

    def __post_init__(self) -> None:
        least = {"context": 1, "top": 0, "random": 0, "quantiles": 0, "per_quantile": 1, "seed": 0, "max_latents": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not (isinstance(value, int) and low <= value < 1 << 31) and not (
                name == "max_latents" and value is None
            ):
                raise SettingError(f"{name}: found {value!r}, expected a whole number from {low} on")
        if self.tokenizer is not None:
            vocabulary(self.tokenizer)

    @property
    def name(self) -> str:
        """`delphi`."""
        return "delphi"

    def wants(self, path: str) -> bool:
        """`{start}_{end}.safetensors`, and texts about one latent."""
        name = path.rpartition("/")[2]
        return SHARD.fullmatch(name) is not None or LATENT.fullmatch(name) is not None

    def parse(self, file: SourceFile) -> Iterator[Parsed[_Piece]]:
        """Some latents at a time of a cache; else all of a file; see `Importer.parse`."""
        path = file.path.split("?", 1)[0]
        if path.endswith(".safetensors"):
            yield from parse_latents(
                file, _hookpoint(file, path), self._drawing(), latents=self.max_latents, tokenizer=self.tokenizer
            )
            return
        named = LATENT.fullmatch(
            path.rpartition("/explanations/")[2] if "/explanations/" in path else path.rpartition("/")[2]
        )
        if named is None:
            raise file.fault(
                "its name does not say of which latent it is",
                mend="Expected HOOKPOINT_latentNUMBER.txt, or START_END.safetensors; see whether the format is delphi.",
            )
        layer, neuron = named[1].replace("--", "/"), int(named[2])
        content = file.read()
        start = content.lstrip()[:1]
        if start == b'"':
            yield Parsed(1, _Explained(layer, neuron, decoded(file, content, _TEXT)))
        elif start == b"[":
            scorer = path.rpartition("/")[0].rpartition("/")[2] or "scores"
            yield parse_scores(file, content, (layer, neuron), scorer=scorer, explanation_id=self.explanation_id)
        elif content.strip() == b"null":
            yield Parsed(0, None, Counter({"explanations that are null": 1}))
        else:
            raise file.fault(
                "neither an explanation (a JSON string) nor scores (a JSON list)",
                mend="Write the file again, or leave it out (--on-error skip).",
            )

    def tables(self, parsed: Sequence[_Piece]) -> dict[str, pl.DataFrame]:
        """See `Importer.tables`."""
        made: dict[str, pl.DataFrame] = {}
        if latents := [each for each in parsed if isinstance(each, Latents)]:
            made |= latent_tables(latents, self.tokenizer)
        if explained := [each for each in parsed if isinstance(each, _Explained)]:
            made |= {"explanations": self._explanations(explained)}
        if judged := [each for each in parsed if isinstance(each, Judged)]:
            made |= judgement_tables(judged, self.explanation_id)
        if simulated := [each for each in parsed if isinstance(each, SimulatedLatent)]:
            made |= simulation_tables_of(simulated)
        return made

    def _drawing(self) -> Drawing:
        return Drawing(self.context, self.top, self.random, self.quantiles, self.per_quantile, self.seed)

    def _explanations(self, explained: Sequence[_Explained]) -> pl.DataFrame:
        texts = {
            EXPLANATION_ID: pl.Series([self.explanation_id] * len(explained), dtype=pl.String),
            EXPLANATION: pl.Series([each.text for each in explained], dtype=pl.String),
        }
        return pl.DataFrame(keys_of([each.layer for each in explained], [each.neuron for each in explained]) | texts)


def _hookpoint(file: SourceFile, path: str) -> str:
    """The folders under `latents`, or the one that the file lies in."""
    folder = path.rpartition("/")[0]
    name = f"/{folder}".rpartition("/latents/")[2] if "/latents/" in f"/{folder}" else folder.rpartition("/")[2]
    if not name:
        raise file.fault("it lies in no folder that names its hook point", mend="Put it into latents/HOOKPOINT.")
    return name
