"""How a run of requests stands: what is settled, how it fared, what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from nscore.exchange import Usage
from nscore.records import OK, Status

__all__ = ["Tally", "total"]


@dataclass(slots=True)
class Tally:
    """How a run stands.

    Attributes:
        done: requests that are settled, one way or another.
        failed: those of them without an answer for every token.
        statuses: how many requests ended in each status.
        sent: calls that were made.
        prompt_tokens: tokens in.
        completion_tokens: tokens out.
        spent: dollars, of earlier sessions too; None where no price is known.
        in_doubt: requests of sessions that were killed, which the server may have billed without anybody having a reply.
        broke: whether the spending limit ended the run.
    """

    done: int = 0
    failed: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    spent: float | None = None
    in_doubt: int = 0
    broke: bool = False

    def count(self, status: Status, requests: int = 1) -> None:
        """Counts requests that are settled."""
        self.done += requests
        self.failed += requests if status != OK else 0
        self.statuses[status] = self.statuses.get(status, 0) + requests

    def add_tokens(self, usage: Usage) -> None:
        """Counts the tokens of a request that is settled."""
        self.prompt_tokens += usage.prompt_tokens or 0
        self.completion_tokens += usage.completion_tokens or 0


def total(tallies: Iterable[Tally], *, spent: float | None, in_doubt: int) -> Tally:
    """The tallies of several parts of a run as one; what was spent, and is in doubt, is of the whole run."""
    whole = Tally(spent=spent, in_doubt=in_doubt)
    for each in tallies:
        for name in ("done", "failed", "sent", "prompt_tokens", "completion_tokens"):
            setattr(whole, name, getattr(whole, name) + getattr(each, name))
        for status, requests in each.statuses.items():
            whole.statuses[status] = whole.statuses.get(status, 0) + requests
        whole.broke = whole.broke or each.broke
    return whole
