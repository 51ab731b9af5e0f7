"""Backends: the wire format of each kind of model server, one to a file, without I/O.

A new one is a file beside these with a class under `@backend("name")`, an import line here, and its test.
"""

from nscore.backends._protocol import BACKENDS, Backend, Call, Server, backend, remade
from nscore.backends.anthropic import Anthropic
from nscore.backends.openai import OpenAI
from nscore.backends.replay import Replay
from nscore.backends.servers import Servers, members_of
from nscore.backends.sglang import SGLang
from nscore.backends.vllm import VLLM

__all__ = [
    "BACKENDS",
    "VLLM",
    "Anthropic",
    "Backend",
    "Call",
    "OpenAI",
    "Replay",
    "SGLang",
    "Server",
    "Servers",
    "backend",
    "members_of",
    "remade",
]
