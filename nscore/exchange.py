"""What goes between simulators and backends: a prompt out, a reply back. Neither side knows the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = ["Capabilities", "Finish", "Message", "Prompt", "Reply", "TokenLogprobs", "Usage"]

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "length", "refused"]


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked, before any server's wire format.

    Attributes:
        messages: the conversation; of a `text` prompt, one message whose text the model goes on with.
        form: `chat`, or `text` for a plain text that is continued or looked at.
        max_tokens: the room that the whole answer needs, thinking not counted.
        logprobs: how many logprobs are wanted at each generated token; 0 for none.
        prompt_logprobs: how many are wanted at each token of the prompt; 0 for none.
        schema: the JSON schema of the answer, for servers that honour one.
        temperature: 0 for the likeliest answer.
        places: of a `text` prompt, the character offsets at which the answers would stand.
    """

    messages: tuple[Message, ...]
    form: Literal["chat", "text"] = "chat"
    max_tokens: int = 16
    logprobs: int = 0
    prompt_logprobs: int = 0
    schema: Mapping[str, object] | None = None
    temperature: float = 0.0
    places: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The text of a `text` prompt."""
        return self.messages[-1].text


class TokenLogprobs(Protocol):
    """Tokens in the order of the text, and at each what else could have stood there."""

    @property
    def texts(self) -> Sequence[str]:
        """Each token as the server spells it."""

    @property
    def exact(self) -> Sequence[bytes | None] | None:
        """Each token's bytes, where the server gives them."""

    def top(self, index: int) -> list[tuple[str, float]]:
        """The likeliest texts at a token with their logprobs; none where the server gave none."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was counted, and is paid for; None where the server does not say."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A server's answer, whatever its wire format.

    Attributes:
        text: the answer without thinking, and without the prompt where that was echoed.
        finish: why it ended.
        usage: tokens in and out.
        tokens: logprobs of the generated tokens, those of thinking included.
        prompt: logprobs of the tokens of the prompt, perhaps with generated ones after them.
        thought: whether there was thinking, which the text leaves out.
    """

    text: str
    finish: Finish = "stop"
    usage: Usage = Usage()
    tokens: TokenLogprobs | None = None
    prompt: TokenLogprobs | None = None
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a server was found to be able to do, and by which names it wants things.

    Attributes:
        chat: it takes conversations.
        completions: it takes a plain text to go on with.
        logprobs: how many logprobs it gives at a generated token.
        prompt_logprobs: how many it gives at a token of the prompt.
        aligned: whether those stand at the tokens they belong to; None where it could not be told.
        structured: it honours a JSON schema.
        ten: as how many tokens it writes "10"; None where it could not be told.
        temperature: it takes a temperature.
        limit: its name for the limit of an answer.
        thinks: it thinks before it answers, out of the same limit.
    """

    chat: bool = True
    completions: bool = True
    logprobs: int = 0
    prompt_logprobs: int = 0
    aligned: bool | None = None
    structured: bool = False
    ten: Literal[1, 2] | None = None
    temperature: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    thinks: bool = False
