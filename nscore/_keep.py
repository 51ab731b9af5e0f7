"""A reply cut down to what its parser read, in a form of nscore's own: a hundredth of an echo's bytes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nscore._align import locate
from nscore.exchange import Finish, Prompt, Reply, TokenLogprobs, Usage

__all__ = ["needed", "restored"]

_MARK = b'{"nscore_reply":1,'


class _Tokens(msgspec.Struct):
    texts: list[str]
    exact: list[bytes | None] | None
    tops: dict[int, list[tuple[str, float]]]

    def top(self, index: int) -> list[tuple[str, float]]:
        """See `TokenLogprobs.top`."""
        return self.tops.get(index, [])


class _Kept(msgspec.Struct):
    nscore_reply: int
    text: str
    finish: Finish
    usage: Usage
    thought: bool
    tokens: _Tokens | None
    prompt: _Tokens | None


_DECODER = msgspec.json.Decoder(_Kept)


def needed(reply: Reply, prompt: Prompt) -> bytes:
    """What the simulators read of a reply; `restored` gives it back."""
    places: Sequence[int] = ()
    if reply.prompt is not None:
        found = locate(prompt.text, prompt.places, reply.prompt.texts, reply.prompt.exact)
        places = range(len(reply.prompt.texts)) if found is None else [f.index for f in found]
    numbers = [
        i
        for i, text in enumerate(reply.tokens.texts if reply.tokens is not None else ())
        if any(map(str.isdigit, text))
    ]
    kept = _Kept(
        1,
        reply.text,
        reply.finish,
        reply.usage,
        reply.thought,
        _tokens(reply.tokens, numbers),
        _tokens(reply.prompt, places),
    )
    return msgspec.json.encode(kept)


def restored(raw: bytes) -> Reply | None:
    """The reply that `needed` cut down; None where the bytes are a server's own."""
    if not raw.startswith(_MARK):
        return None
    kept = _DECODER.decode(raw)
    return Reply(kept.text, kept.finish, kept.usage, kept.tokens, kept.prompt, kept.thought)


def _tokens(tokens: TokenLogprobs | None, places: Sequence[int]) -> _Tokens | None:
    if tokens is None:
        return None
    exact = None if tokens.exact is None else list(tokens.exact)
    return _Tokens(list(tokens.texts), exact, {i: tokens.top(i) for i in places})
