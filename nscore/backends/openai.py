"""`openai`: completions and chat as OpenAI defined them and vLLM, SGLang, llama-cpp-python, Together and others speak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import ClassVar

import msgspec

from nscore.backends._decode import NOTHING, Tops, count, decode, decode_if_any, shown, without_thinking
from nscore.backends._protocol import Call, Server, backend
from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Finish, Prompt, Reply, TokenLogprobs, Usage

__all__ = ["OpenAI"]


@backend("openai")
@dataclass(frozen=True, slots=True)
class OpenAI(Server):
    """A server that speaks OpenAI's completions and chat completions.

    `base_url` is `$OPENAI_BASE_URL` or https://api.openai.com/v1 where left out, `api_key` `$OPENAI_API_KEY`. A prompt
    whose own logprobs are wanted goes to completions with `echo`; other plain texts to completions; conversations to
    chat completions, or, where the server has none, to completions as plain text.
    """

    ROOT: ClassVar[str] = ""
    USUAL: ClassVar[str] = "https://api.openai.com/v1"

    def __post_init__(self) -> None:
        self._resolve("OPENAI_BASE_URL", self.USUAL, ("OPENAI_API_KEY",))

    @property
    def name(self) -> str:
        """`openai`."""
        return "openai"

    @property
    def assumed(self) -> Capabilities:
        """See `Backend.assumed`."""
        return Capabilities(logprobs=15, prompt_logprobs=15, aligned=True, structured=True, ten=1)

    def headers(self) -> Mapping[str, str]:
        """See `Backend.headers`."""
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    def call(self, prompt: Prompt, can: Capabilities, *, seed: int | None = None) -> Call:
        """See `Backend.call`."""
        chat = prompt.form == "chat" and can.chat
        common = {
            can.limit if chat else "max_tokens": self._limit(prompt, can),
            "temperature": prompt.temperature if can.temperature else None,
            "seed": seed,
        }
        if not chat:
            return Call(
                f"{self.ROOT}/completions",
                self._body(prompt=_flat(prompt), **common, **self._text_logprobs(prompt, can)),
            )
        top = min(prompt.logprobs, can.logprobs)
        schema = None
        if prompt.schema is not None and can.structured:
            named = {"name": "activations", "strict": True, "schema": prompt.schema}
            schema = {"type": "json_schema", "json_schema": named}
        body = self._body(
            messages=[{"role": m.role, "content": m.text} for m in prompt.messages],
            logprobs=True if top else None,
            top_logprobs=top or None,
            response_format=schema,
            **common,
        )
        return Call(f"{self.ROOT}/chat/completions", body)

    def _text_logprobs(self, prompt: Prompt, can: Capabilities) -> dict[str, object]:
        if wanted := min(prompt.prompt_logprobs, can.prompt_logprobs):
            return {"echo": True, "logprobs": wanted}
        return {"logprobs": min(prompt.logprobs, can.logprobs) or None}

    def read(self, raw: bytes) -> Reply:
        """See `Backend.read`."""
        content = decode(_COMPLETION, raw)
        choice = content.choices[0] if content.choices else None
        if choice is None or bytes(content.error) != b"null" or bytes(choice.error) != b"null":
            raise ReplyError("http_error", f"status 200 with an error: {shown(raw, self.secrets())}", again=True)
        usage = decode_if_any(_USAGE, content.usage) or _Usage()
        details = usage.prompt_tokens_details or _Details()
        counted = Usage(count(usage.prompt_tokens), count(usage.completion_tokens), count(details.cached_tokens))
        finish: Finish = _FINISH.get(choice.finish_reason or "stop", "stop")
        entries = choice.prompt_logprobs or content.prompt_logprobs
        of_prompt = _PromptTops(entries, choice.text or "") if entries is not None else _of_prompt(content.prompt)
        if choice.message is None:
            echoed = _echoed(choice.logprobs)
            text, thought = without_thinking(choice.text or "")
            return Reply(text, finish, counted, echoed, of_prompt or echoed, thought)
        message = choice.message
        if message.refusal:
            return Reply(message.refusal, "refused", counted)
        text, thought = without_thinking(message.content or "")
        thought = thought or bool(message.reasoning_content or message.reasoning)
        if not text and finish == "stop" and of_prompt is None:
            raise ReplyError("parse_error", "the reply's message is empty")
        return Reply(text, finish, counted, _generated(choice.logprobs), of_prompt, thought)


# So many tokens that their text comes but once.
FOLLOWING = 17
_PART = "\ufffd"
_FINISH: dict[str, Finish] = {"length": "length", "max_tokens": "length", "content_filter": "refused"}


def _flat(prompt: Prompt) -> str:
    """A conversation as plain text, for servers that only go on with a text."""
    if prompt.form == "text":
        return prompt.text
    turns = {"system": "{}\n\n", "user": "{}\nAnswer:", "assistant": " {}\n\n"}
    return "".join(turns[m.role].format(m.text) for m in prompt.messages)


# What is read of a reply; all else is passed over without being decoded, and so is what an answer can do without.
class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Top(msgspec.Struct):
    token: str = ""
    logprob: float | None = None


class _ChatToken(msgspec.Struct):
    token: str = ""
    bytes: list[int] | None = None
    top_logprobs: msgspec.Raw = msgspec.Raw(b"[]")


class _Logprobs(msgspec.Struct):
    tokens: list[str | None] | None = None
    top_logprobs: list[msgspec.Raw] | None = None
    content: list[_ChatToken] | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class _PromptTop(msgspec.Struct):
    logprob: float | None = None
    decoded_token: str | None = None


_Entries = list[dict[str, _PromptTop] | None]


class _Choice(msgspec.Struct):
    text: str | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    prompt_logprobs: _Entries | None = None
    error: msgspec.Raw = NOTHING


class _Part(msgspec.Struct):
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: msgspec.Raw = NOTHING
    error: msgspec.Raw = NOTHING
    prompt_logprobs: _Entries | None = None
    prompt: msgspec.Raw = NOTHING


_COMPLETION = msgspec.json.Decoder(_Completion)
_USAGE = msgspec.json.Decoder(_Usage | None)
_PARTS = msgspec.json.Decoder(list[_Part] | None)
_TEXT_TOPS = msgspec.json.Decoder(dict[str, float | None] | None)
_CHAT_TOPS = msgspec.json.Decoder(list[_Top] | None)


class _ChatTops:
    """Logprobs of a chat reply, whose alternatives are lists."""

    def __init__(self, content: list[_ChatToken]) -> None:
        self._content = content
        self.texts = [t.token for t in content]
        known = [bytes(b % 256 for b in t.bytes) if t.bytes is not None else None for t in content]
        self.exact = known if any(k is not None for k in known) else None

    def top(self, index: int) -> list[tuple[str, float]]:
        """See `TokenLogprobs.top`."""
        tops = decode(_CHAT_TOPS, bytes(self._content[index].top_logprobs)) or []
        return [(t.token, t.logprob) for t in tops if t.logprob is not None]


class _PromptTops:
    """vLLM's logprobs of a prompt: at each token a table of texts, its own first.

    Of the first token it tells nothing. Where the prompt was echoed, that token is what stands there before the second.
    """

    exact = None

    def __init__(self, entries: _Entries, echoed: str) -> None:
        self._entries = entries
        self.texts = [next((e.decoded_token or "" for e in (entry or {}).values()), "") for entry in entries]
        if self.texts and not self.texts[0]:
            following = "".join(takewhile(lambda t: t and _PART not in t, self.texts[1:FOLLOWING]))
            self.texts[0] = echoed[: max(echoed.find(following), 0)]

    def top(self, index: int) -> list[tuple[str, float]]:
        """See `TokenLogprobs.top`."""
        tops = (self._entries[index] or {}).values()
        return [(t.decoded_token, t.logprob) for t in tops if t.decoded_token is not None and t.logprob is not None]


def _echoed(logprobs: _Logprobs | None) -> TokenLogprobs | None:
    if logprobs is None or not logprobs.tokens or logprobs.top_logprobs is None:
        return None
    if len(logprobs.tokens) != len(logprobs.top_logprobs):  # nobody can tell which belong to which
        return None
    return Tops([token or "" for token in logprobs.tokens], logprobs.top_logprobs, _TEXT_TOPS)


def _of_prompt(parts: msgspec.Raw) -> TokenLogprobs | None:
    """Together's echo: the prompt's logprobs stand beside the choices."""
    found = decode_if_any(_PARTS, parts)
    return _echoed(found[0].logprobs) if found else None


def _generated(logprobs: _Logprobs | None) -> TokenLogprobs | None:
    if logprobs is None:
        return None
    if logprobs.content:
        return _ChatTops(logprobs.content)
    return _echoed(logprobs)  # llama-cpp-python answers a chat in the form of completions
