"""`sglang`: SGLang's own `/generate` for plain texts, OpenAI's form for chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import msgspec

from nscore.backends._decode import NOTHING, count, decode, decode_if_any, shown, without_thinking
from nscore.backends._protocol import Call, backend
from nscore.backends.openai import OpenAI
from nscore.errors import ReplyError
from nscore.exchange import Capabilities, Finish, Prompt, Reply, TokenLogprobs, Usage

__all__ = ["SGLang"]


@backend("sglang")
@dataclass(frozen=True, slots=True)
class SGLang(OpenAI):
    """SGLang's server. See `OpenAI`; a base URL that ends in `/v1`, that of its OpenAI routes, is taken without it.

    `base_url` is `$OPENAI_BASE_URL` or http://localhost:30000 where left out.
    """

    ROOT: ClassVar[str] = "/v1"
    USUAL: ClassVar[str] = "http://localhost:30000"

    def __post_init__(self) -> None:
        self._resolve("OPENAI_BASE_URL", self.USUAL, ("OPENAI_API_KEY",), without="/v1")

    @property
    def name(self) -> str:
        """`sglang`."""
        return "sglang"

    def call(self, prompt: Prompt, can: Capabilities, *, seed: int | None = None) -> Call:
        """See `Backend.call`."""
        if prompt.form == "chat":
            return OpenAI.call(self, prompt, can, seed=seed)
        of_prompt = min(prompt.prompt_logprobs, can.prompt_logprobs)
        wanted = of_prompt or min(prompt.logprobs, can.logprobs)
        sampling = {
            "max_new_tokens": self._limit(prompt, can),
            "temperature": prompt.temperature,
            "sampling_seed": seed,
        }
        fields: dict[str, object] = {
            "model": None,
            "text": prompt.text,
            "sampling_params": {k: v for k, v in sampling.items() if v is not None},
            "return_logprob": True if wanted else None,
            "top_logprobs_num": wanted or None,
            "return_text_in_logprobs": True if wanted else None,
            "logprob_start_len": 0 if of_prompt else None,
        }
        return Call("/generate", self._body(**fields))

    def read(self, raw: bytes) -> Reply:
        """See `Backend.read`."""
        content = decode(_GENERATED, raw)
        meta = content.meta_info
        if meta is None:
            return OpenAI.read(self, raw)
        if meta.finish_reason is not None and meta.finish_reason.type == "abort":
            raise ReplyError("http_error", f"aborted: {shown(meta.finish_reason.message, self.secrets())}", again=True)
        kind = meta.finish_reason.type if meta.finish_reason is not None else "stop"
        finish: Finish = "length" if kind == "length" else "stop"
        text, thought = without_thinking(content.text or "")
        return Reply(
            text,
            finish,
            Usage(*(_count(n) for n in (meta.prompt_tokens, meta.completion_tokens, meta.cached_tokens))),
            _tokens(meta.output_token_logprobs, meta.output_top_logprobs),
            _tokens(meta.input_token_logprobs, meta.input_top_logprobs),
            thought,
        )


_Scored = tuple[float | None, int | None, str | None]


class _Finish(msgspec.Struct):
    type: str = "stop"
    message: str | None = None


class _Meta(msgspec.Struct):
    finish_reason: _Finish | None = None
    prompt_tokens: msgspec.Raw = NOTHING
    completion_tokens: msgspec.Raw = NOTHING
    cached_tokens: msgspec.Raw = NOTHING
    input_token_logprobs: list[_Scored] | None = None
    output_token_logprobs: list[_Scored] | None = None
    input_top_logprobs: list[msgspec.Raw] | None = None
    output_top_logprobs: list[msgspec.Raw] | None = None


class _Generated(msgspec.Struct):
    text: str | None = None
    meta_info: _Meta | None = None


_GENERATED = msgspec.json.Decoder(_Generated)
_TOPS = msgspec.json.Decoder(list[_Scored] | None)
_COUNT = msgspec.json.Decoder(int | None)


class _Tops:
    exact = None

    def __init__(self, tokens: list[_Scored], tops: list[msgspec.Raw]) -> None:
        self._tops = tops
        self.texts = [text or "" for _, _, text in tokens]

    def top(self, index: int) -> list[tuple[str, float]]:
        """See `TokenLogprobs.top`."""
        if index >= len(self._tops):
            return []
        tops = decode(_TOPS, bytes(self._tops[index])) or []
        return [(text, p) for p, _, text in tops if p is not None and text is not None]


def _count(number: msgspec.Raw) -> int | None:
    return count(decode_if_any(_COUNT, number))


def _tokens(tokens: list[_Scored] | None, tops: list[msgspec.Raw] | None) -> TokenLogprobs | None:
    return _Tops(tokens, tops) if tokens and tops and len(tokens) == len(tops) else None
