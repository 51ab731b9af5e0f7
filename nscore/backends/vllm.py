"""`vllm`: OpenAI's forms, and vLLM's own `prompt_logprobs` in place of `echo`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from nscore.backends._protocol import backend
from nscore.backends.openai import OpenAI
from nscore.exchange import Capabilities, Prompt

__all__ = ["VLLM"]


@backend("vllm")
@dataclass(frozen=True, slots=True)
class VLLM(OpenAI):
    """vLLM's server. See `OpenAI`; logprobs of a prompt are asked for by `prompt_logprobs`.

    `base_url` is `$OPENAI_BASE_URL` or http://localhost:8000/v1 where left out.
    Every token of the prompt then comes with its own logprobs but the first, whose text only the echoed prompt tells.
    """

    USUAL: ClassVar[str] = "http://localhost:8000/v1"

    @property
    def name(self) -> str:
        """`vllm`."""
        return "vllm"

    def _text_logprobs(self, prompt: Prompt, can: Capabilities) -> dict[str, object]:
        wanted = min(prompt.prompt_logprobs, can.prompt_logprobs) or None
        return {
            "echo": True if wanted else None,
            "prompt_logprobs": wanted,
            "logprobs": min(prompt.logprobs, can.logprobs) or None,
        }
