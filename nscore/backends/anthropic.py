"""`anthropic`: Anthropic's messages. It gives no logprobs, so it is for the list simulators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from nscore.backends._decode import NOTHING, count, decode, decode_if_any, shown
from nscore.backends._protocol import Call, Server, backend
from nscore.errors import BackendError, ReplyError
from nscore.exchange import Capabilities, Finish, Prompt, Reply, Usage

__all__ = ["Anthropic"]

VERSION = "2023-06-01"


@backend("anthropic")
@dataclass(frozen=True, slots=True)
class Anthropic(Server):
    """Anthropic's messages.

    `base_url` is `$ANTHROPIC_BASE_URL` or https://api.anthropic.com where left out, `api_key` `$ANTHROPIC_API_KEY`; a
    `/v1` at the end of the URL is left out. The instruction and the examples are marked for its prompt cache.
    """

    def __post_init__(self) -> None:
        self._resolve("ANTHROPIC_BASE_URL", "https://api.anthropic.com", ("ANTHROPIC_API_KEY",), without="/v1")

    @property
    def name(self) -> str:
        """`anthropic`."""
        return "anthropic"

    @property
    def assumed(self) -> Capabilities:
        """See `Backend.assumed`."""
        return Capabilities(completions=False)

    def headers(self) -> Mapping[str, str]:
        """See `Backend.headers`."""
        return {"anthropic-version": VERSION} | ({"x-api-key": self.api_key} if self.api_key else {})

    def call(self, prompt: Prompt, can: Capabilities, *, seed: int | None = None) -> Call:
        """See `Backend.call`. There is no seed: replicates differ by their temperature."""
        del seed
        if prompt.form != "chat":
            raise BackendError("anthropic: its messages do not go on with a plain text")
        turns: list[dict[str, object]] = [
            {"role": m.role, "content": m.text} for m in prompt.messages if m.role != "system"
        ]
        if len(turns) > 1:  # the examples end at the turn before the last
            before = turns[-2]
            before["content"] = [{"type": "text", "text": before["content"], "cache_control": {"type": "ephemeral"}}]
        system = "\n\n".join(m.text for m in prompt.messages if m.role == "system")
        return Call(
            "/v1/messages",
            self._body(
                system=system or None,
                messages=turns,
                max_tokens=self._limit(prompt, can),
                temperature=prompt.temperature if can.temperature else None,
            ),
        )

    def read(self, raw: bytes) -> Reply:
        """See `Backend.read`."""
        content = decode(_MESSAGE, raw)
        if content.type == "error" or content.content is None:
            raise ReplyError("http_error", f"status 200 with an error: {shown(raw, self.secrets())}", again=True)
        used = decode_if_any(_USAGE, content.usage) or _Usage()
        cached = used.cache_read_input_tokens
        # input_tokens leaves out what was read from or written to the cache
        parts = [count(n) for n in (used.input_tokens, cached, used.cache_creation_input_tokens)]
        whole = sum(p for p in parts if p is not None) if parts[0] is not None else None
        text = "".join(block.text or "" for block in content.content if block.type == "text")
        finish: Finish = _FINISH.get(content.stop_reason or "end_turn", "stop")
        if not text and finish == "stop":
            raise ReplyError("parse_error", "the reply holds no text")
        thought = any("thinking" in block.type for block in content.content)
        return Reply(text, finish, Usage(whole, count(used.output_tokens), count(cached)), thought=thought)


_FINISH: dict[str, Finish] = {"max_tokens": "length", "model_context_window_exceeded": "length", "refusal": "refused"}


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Block(msgspec.Struct):
    type: str = "text"
    text: str | None = None


class _Message(msgspec.Struct):
    type: str = "message"
    content: list[_Block] | None = None
    stop_reason: str | None = None
    usage: msgspec.Raw = NOTHING


_MESSAGE = msgspec.json.Decoder(_Message)
_USAGE = msgspec.json.Decoder(_Usage | None)
