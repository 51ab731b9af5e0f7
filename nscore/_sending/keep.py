"""A reply cut down to what its parser read, in a form of nscore's own: a hundredth of an echo's bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nscore._sending.align import locate
from nscore.errors import ReplyError
from nscore.exchange import Finish, Prompt, Reply, TokenLogprobs, Usage

__all__ = ["needed", "restored"]

# No JSON, no text begins so: what a server sent is never taken for this.
_MARK = b"\xffnscore reply 1\n"
# More tokens than backends let a reply count.
_MOST = 1 << 40


class _Tokens(msgspec.Struct):
    texts: list[str]
    exact: list[bytes | None] | None
    tops: dict[int, list[tuple[str, float]]]

    def top(self, index: int) -> list[tuple[str, float]]:
        """See `TokenLogprobs.top`."""
        return self.tops.get(index, [])


class _Kept(msgspec.Struct):
    text: str
    finish: Finish
    usage: Usage
    thought: bool
    tokens: _Tokens | None
    prompt: _Tokens | None


_DECODER = msgspec.json.Decoder(_Kept)


def needed(reply: Reply, prompt: Prompt) -> bytes:
    """What the simulators read of a reply; `restored` gives it back.

    Of the alternatives at a token those are read that hold a number. Where logprobs of the prompt were asked for, they
    are all that is read: neither its text nor what was generated.
    """
    looked_at = prompt.prompt_logprobs > 0 and reply.prompt is not None
    tokens, of_prompt = (None, reply.prompt) if looked_at else (reply.tokens, None)
    places: Sequence[int] = ()
    if of_prompt is not None:
        found = locate(prompt.text, prompt.places, of_prompt.texts, of_prompt.exact)
        places = range(len(of_prompt.texts)) if found is None else sorted({f.index for f in found})
    texts = tokens.texts if tokens is not None else ()
    numbers = [i for i, text in enumerate(texts) if _has_digit(text)]
    kept = _Kept(
        "" if looked_at else reply.text,
        reply.finish,
        reply.usage,
        reply.thought,
        _tokens(tokens, numbers),
        _tokens(of_prompt, places),
    )
    return _MARK + msgspec.json.encode(kept)


def restored(raw: bytes) -> Reply | None:
    """The reply that `needed` cut down; None where the bytes are a server's own.

    Raises:
        ReplyError: if they only begin like such a reply.
    """
    if not raw.startswith(_MARK):
        return None
    try:
        kept = _DECODER.decode(memoryview(raw)[len(_MARK) :])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReplyError("parse_error", f"a reply that was cut down cannot be read: {error}") from None
    if not _is_sound(kept):
        raise ReplyError("parse_error", "a reply that was cut down holds what none can")
    return Reply(kept.text, kept.finish, kept.usage, kept.tokens, kept.prompt, kept.thought)


def _is_sound(kept: _Kept) -> bool:
    """Whether a reply could have been cut down to this: a server may send the mark too."""
    usage = (kept.usage.prompt_tokens, kept.usage.completion_tokens, kept.usage.cached_tokens)
    exact = [(t.exact, t.texts) for t in (kept.tokens, kept.prompt) if t is not None]
    return all(n is None or 0 <= n <= _MOST for n in usage) and all(e is None or len(e) == len(t) for e, t in exact)


def _tokens(tokens: TokenLogprobs | None, places: Sequence[int]) -> _Tokens | None:
    if tokens is None:
        return None
    exact = None if tokens.exact is None else list(tokens.exact)
    tops = {i: [(text, logprob) for text, logprob in tokens.top(i) if _has_digit(text)] for i in places}
    return _Tokens(list(tokens.texts), exact, tops)


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))
