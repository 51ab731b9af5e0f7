"""A run in words: what it asks, how far it is, what it cost, what is missing and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nscore._drawing.markup import tag
from nscore._drawing.numbers import count
from nscore._drawing.pieces import cards, fragment, table
from nscore._sending.history import History
from nscore._sending.prices import dollars
from nscore.errors import NscoreError
from nscore.records import OK, STATUS
from nscore.run import Run, history_of, opened

__all__ = ["Description", "describe"]


@dataclass(frozen=True, slots=True)
class Description:
    """How a run stands.

    Attributes:
        settings: what it was started with, and what its server was found to do.
        inputs: what the plan of its last session came to; None where it never came so far.
        sent: calls that were made.
        replies: that are stored.
        in_doubt: calls that may have been billed without anybody having the reply: they were on their way when a
            session was killed.
        spent: dollars, those in doubt counted at their most; 0 where no price is known.
        journal_bytes: the size of the journal, and of those of shards that other processes worked on.
        shards_begun: parts of the plan that were begun.
        shards_written: those whose tables are written.
        statuses: rows of the `requests` table by status; None where it cannot be read.
        advice: what to do next, in a sentence.
    """

    settings: dict[str, Any]
    inputs: dict[str, Any] | None
    sent: int
    replies: int
    in_doubt: int
    spent: float
    journal_bytes: int
    shards_begun: int
    shards_written: int
    statuses: dict[str, int] | None
    advice: str

    def _repr_html_(self) -> str:
        backend, statuses = self.settings["backend"], self.statuses or {}
        simulators = ", ".join(simulator["name"] for simulator in self.settings["simulators"])
        facts = [("simulators", simulators), ("model", str(backend["model"])), ("server", str(backend["base_url"]))]
        facts += [("nscore", str(self.settings["nscore"])), ("spent at most", dollars(self.spent))]
        facts += [("requests planned", count(self.inputs["requests"]))] if self.inputs else []
        counts = [("calls sent", self.sent), ("replies", self.replies), ("in doubt", self.in_doubt)]
        counts += [("shards begun", self.shards_begun), ("shards written", self.shards_written)]
        return fragment(
            cards((name, count(n)) for name, n in counts),
            table(["the run", ""], facts, caption="What it asks, and what it cost", texts=2),
            table(["status", "requests"], [(s, count(n)) for s, n in statuses.items()], caption="Requests by status")
            if statuses
            else None,
            tag("p", self.advice),
        )


def describe(path: str | Path) -> Description:
    """Says how a run stands; changes nothing, and may be called while it goes on.

    Args:
        path: the folder of the run.

    Raises:
        RunError: if no run was started there, or it is one of a newer nscore.
        JournalError: if its journal is damaged.

    Examples:
        >>> describe("nowhere")
        Traceback (most recent call last):
        nscore.errors.RunError: nowhere: no run was started here. Name the folder of a run.
    """
    path = Path(path)
    history = history_of(path)
    settings = opened(path, history)
    statuses, trouble = _statuses(path) if history.written else ({}, None)
    planned = None if history.inputs is None else int(history.inputs["requests"])
    return Description(
        settings=settings,
        inputs=history.inputs,
        sent=history.sent,
        replies=history.replies,
        in_doubt=history.in_doubt,
        spent=history.spent,
        journal_bytes=sum(file.stat().st_size for folder in history.folders for file in folder.glob("*.log")),
        shards_begun=len(history.planned),
        shards_written=len(history.written),
        statuses=statuses,
        advice=trouble or _advice(planned, statuses or {}, history),
    )


def _statuses(path: Path) -> tuple[dict[str, int] | None, str | None]:
    try:
        counts = Run(path).requests().group_by(STATUS).len().sort(STATUS).collect()
    except NscoreError as error:
        return None, str(error)
    return dict(counts.iter_rows()), None


def _advice(planned: int | None, statuses: dict[str, int], history: History) -> str:
    limit = history.inputs["limit"] if history.inputs else None
    missing = (planned or 0) - sum(statuses.values())
    unfinished = missing > 0 or not all(shard.final for shard in history.written.values()) or not history.written
    failed = sum(n for status, n in statuses.items() if status != OK)
    if limit is not None and not missing:
        return f"It was tried with a limit of {limit:,} requests: the same command without it goes on."
    if unfinished:
        return "It is not done: the command that started it goes on, and asks nothing twice."
    if failed:
        return "It is done; requests that failed hold no answer, and asking again would bring the same."
    return "It is done."
