"""`vllm`: OpenAI's forms, and vLLM's own `prompt_logprobs` in place of `echo`."""

from __future__ import annotations

from dataclasses import dataclass

from nscore.backends._protocol import backend
from nscore.backends.openai import OpenAI
from nscore.exchange import Capabilities, Prompt

__all__ = ["VLLM"]


@backend("vllm")
@dataclass(frozen=True, slots=True)
class VLLM(OpenAI):
    """vLLM's server. See `OpenAI`; logprobs of a prompt are asked for by `prompt_logprobs`.

    The reply's text is then the answer alone, and every token of the prompt comes with its own logprobs.
    """

    @property
    def name(self) -> str:
        """`vllm`."""
        return "vllm"

    def _text_logprobs(self, prompt: Prompt, can: Capabilities) -> dict[str, object]:
        return {
            "prompt_logprobs": min(prompt.prompt_logprobs, can.prompt_logprobs) or None,
            "logprobs": min(prompt.logprobs, can.logprobs) or None,
        }
