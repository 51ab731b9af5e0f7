"""`nscore simulate`: records and explanations in, the simulated table out."""

from __future__ import annotations

import argparse
import inspect
import sys
from datetime import timedelta
from typing import Any

import polars as pl

import nscore as ns
from nscore._drawing.table import plain_table
from nscore._sending.prices import dollars
from nscore._tables.scan import scan
from nscore._tables.stores import Place
from nscore.cli._backend import add_backend, backend_of, money
from nscore.cli._common import add_by, add_executor, add_json, add_output, executor_of, names, print_json, write
from nscore.errors import SettingError
from nscore.frames import reading, source
from nscore.records import OK, SIMULATOR, STATUS
from nscore.simulators import SIMULATORS, PromptSimulator, Shuffled, Simulator, resolve_simulator

__all__ = ["configure", "run"]

OPTIONS = ("pack", "numbers_alone", "replicates", "temperature", "max_record_tokens", "long_records")
LIMITS = (
    "limit",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_s",
    "attempts",
    "price",
    "max_cost",
)


def configure(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    parser.add_argument("records", metavar="RECORDS", help="a Parquet file, folder or glob")
    parser.add_argument("explanations", metavar="EXPLANATIONS", help="a Parquet file, folder or glob")
    parser.add_argument(
        "--simulator",
        type=names,
        default=["lexical"],
        metavar="NAMES",
        help=f"separated by commas, of {', '.join(SIMULATORS)}, or shuffled_NAME for the control of another"
        " (default: lexical)",
    )
    add_output(parser)
    add_by(parser, "layer,neuron")
    parser.add_argument("--splits", type=names, metavar="SPLITS", help="(default: calibration,valid,test)")
    parser.add_argument("--leaks", choices=["refuse", "allow"], default="refuse", help="(default: refuse)")
    add_executor(parser, "local")
    add_json(parser)
    add_backend(parser)
    group = parser.add_argument_group("what is asked")
    group.add_argument("--pack", type=int, metavar="N", help="records of one explanation in one prompt (default: 1)")
    group.add_argument(
        "--numbers-alone",
        action="store_true",
        default=None,
        help="json_list: the answer repeats no tokens, and is cheaper",
    )
    group.add_argument("--replicates", type=int, metavar="N", help="answers that are averaged (default: 1)")
    group.add_argument("--temperature", type=float, metavar="T", help="(default: 0; 1 where there are replicates)")
    group.add_argument(
        "--max-record-tokens", type=int, metavar="N", help="the longest record sent whole (default: 512)"
    )
    group.add_argument(
        "--long-records", choices=["refuse", "cut"], help="what becomes of longer ones (default: refuse)"
    )
    group.add_argument("--distribution", action="store_true", help="keep the probability of each activation")
    group = parser.add_argument_group("limits")
    group.add_argument("--dry-run", action="store_true", help="print what the run comes to, and send nothing")
    group.add_argument("--limit", type=int, metavar="N", help="make at most so many requests")
    group.add_argument("--max-cost", type=float, metavar="DOLLARS", help="never spend more")
    group.add_argument(
        "--price",
        type=money,
        metavar="IN,OUT[,CACHED]",
        help="dollars for a million tokens (default: a small table of prices)",
    )
    group.add_argument("--concurrency", type=int, metavar="N", help="the most requests in flight (default: 64)")
    group.add_argument("--requests-per-minute", type=float, metavar="N")
    group.add_argument("--tokens-per-minute", type=float, metavar="N")
    group.add_argument(
        "--timeout-s", type=float, metavar="S", help="the longest that one attempt may take (default: 120)"
    )
    group.add_argument("--attempts", type=int, metavar="N", help="how often a request is sent at most (default: 8)")
    group.add_argument(
        "--keep",
        choices=["raw", "needed"],
        default="raw",
        help="all of each reply, or what is read of it (default: raw)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Simulates, writes the table, prints how the tokens fared."""
    options = {name: getattr(arguments, name) for name in OPTIONS if getattr(arguments, name) is not None}
    chosen = [_made(name, options) for name in arguments.simulator]
    common: dict[str, Any] = {
        "simulator": chosen,
        "by": arguments.by,
        "splits": arguments.splits,
        "leaks": arguments.leaks,
    }
    who = {"executor": executor_of(arguments) or "local", "workers": arguments.workers}
    if not any(_asks(s) for s in chosen):
        _check_offline(arguments)
        records = source(arguments.records)
        with reading(records):
            simulated = ns.simulate(records, arguments.explanations, **common, **who)
            return _report(arguments, write(simulated, arguments.out, "simulated"))
    limits = {name: getattr(arguments, name) for name in LIMITS if getattr(arguments, name) is not None}
    common |= {"backend": backend_of(arguments), "keep": arguments.keep}
    if arguments.dry_run:
        return _tell(arguments, common, limits)
    try:
        ns.simulate(
            arguments.records,
            arguments.explanations,
            out=arguments.out,
            distribution=arguments.distribution,
            **common,
            **limits,
            **who,
        )
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("what was answered is kept, and the same command goes on")
        raise
    return _report(arguments, arguments.out / "simulated.parquet", arguments.out / "requests.parquet")


def _made(name: str, options: dict[str, Any]) -> Simulator | PromptSimulator:
    """A simulator made with the options; one that it lacks is an error."""
    plain = resolve_simulator(name)
    if not _asks(plain):
        return plain
    inner = plain.inner if isinstance(plain, Shuffled) else plain
    known = inspect.signature(type(inner)).parameters
    lacking = [o for o in options if o not in known]
    if lacking:
        flags = ", ".join(f"--{o.replace('_', '-')}" for o in lacking)
        raise SettingError(f"{flags}: {name} has no such option")
    return resolve_simulator(name, **options)


def _check_offline(arguments: argparse.Namespace) -> None:
    """What would ask a model is not passed over in silence by a simulator that asks none."""
    names = [*OPTIONS, "distribution", "dry_run", "limit", "max_cost"]
    given = [name for name in names if getattr(arguments, name) is not None and getattr(arguments, name) is not False]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SettingError(f"{flags}: {', '.join(arguments.simulator)} asks no model; it is for those that do")


def _asks(simulator: Simulator | PromptSimulator) -> bool:
    return isinstance(simulator.inner if isinstance(simulator, Shuffled) else simulator, PromptSimulator)


def _tell(arguments: argparse.Namespace, common: dict[str, Any], limits: dict[str, Any]) -> int:
    """Prints what a run comes to."""
    known = inspect.signature(ns.estimate).parameters
    given = {name: value for name, value in limits.items() if name in known}
    told = ns.estimate(arguments.records, arguments.explanations, **common, **given)
    lines: dict[str, object] = {
        "requests": told.requests,
        "scored_tokens": told.scored_tokens,
        "prompt_tokens": told.prompt_tokens,
        "completion_tokens": told.completion_tokens,
        "price": told.price,
        "most": told.most,
        "duration_s": told.duration_s,
        "stored_bytes": told.stored_bytes,
    }
    if arguments.json:
        print_json(lines)
        return 0
    price = "unknown: say it with --price" if told.price is None else dollars(told.price)
    most = "" if told.most is None else f", at most {dollars(told.most)}"
    print(f"requests            {told.requests:>15,}")
    print(f"scored tokens       {told.scored_tokens:>15,}")
    print(f"prompt tokens       {told.prompt_tokens:>15,}   about")
    print(f"completion tokens   {told.completion_tokens:>15,}   about")
    print(f"price               {price:>15}   about{most}")
    print(f"length              {timedelta(seconds=round(told.duration_s))!s:>15}   about, with a server that keeps up")
    print(f"journal             {told.stored_bytes / 1e6:>12,.1f} MB   about (--keep {arguments.keep})")
    print("\nnothing was sent", file=sys.stderr)
    return 0


def _report(arguments: argparse.Namespace, *files: Place) -> int:
    """Prints how the tokens fared."""
    counts = source(files[0]).frame.group_by(SIMULATOR, STATUS).len("tokens").sort(SIMULATOR, STATUS).collect()
    if arguments.json:
        print_json({"tokens": counts, "files": list(files)})
    else:
        print(plain_table(counts))
        for requests in files[1:]:
            print(f"\n{_calls(requests)}")
        print(f"\nwrote {' and '.join(map(str, files))}")
    return 0 if (counts[STATUS] == OK).all() else 3


def _calls(file: Place) -> str:
    """What the calls came to, and why some failed."""
    rows = scan(str(file))
    failed = pl.col(STATUS) != OK
    sums = pl.col("prompt_tokens", "completion_tokens", "price").sum()
    told = rows.select(pl.len(), failed.sum().alias("failed"), pl.col("price").count().alias("priced"), sums).collect()
    row = told.row(0, named=True)
    price = f", {dollars(row['price'])}" if row["priced"] else ""
    tokens = f"{row['prompt_tokens']:,} tokens in, {row['completion_tokens']:,} out"
    lines = [f"{row['len']:,} requests, {row['failed']:,} failed, {tokens}{price}"]
    if row["failed"]:
        # the first words tell the kind: what follows is about one request
        why = pl.col("error").str.slice(0, 60).alias("why")
        worst = rows.filter(failed).group_by(STATUS, why).len("requests").sort("requests", descending=True).head(5)
        lines.append(plain_table(worst.collect()))
    return "\n".join(lines)
