"""Simulators: each turns (explanation, tokens) into predicted activations, one to a file, without I/O.

A `Simulator` predicts by itself, from frame to frame. A `PromptSimulator` asks a language model: it makes prompts and
reads replies, and the engine does the rest. A new one is a file beside these with a class under `@simulator("name")`, an
import line here, and its test.
"""

from nscore.simulators._described import described, remade
from nscore.simulators._prompted import Ask, Predictions, Prompted, PromptSimulator, Span
from nscore.simulators._protocol import SIMULATORS, Simulator, resolve_simulator, simulator
from nscore.simulators.all_at_once import AllAtOnce
from nscore.simulators.constant import Constant
from nscore.simulators.json_list import JsonList
from nscore.simulators.lexical import Lexical
from nscore.simulators.shuffled import Shuffled
from nscore.simulators.tab_list import TabList
from nscore.simulators.token_by_token import TokenByToken
from nscore.simulators.token_lookup import TokenLookup

__all__ = [
    "SIMULATORS",
    "AllAtOnce",
    "Ask",
    "Constant",
    "JsonList",
    "Lexical",
    "Predictions",
    "PromptSimulator",
    "Prompted",
    "Shuffled",
    "Simulator",
    "Span",
    "TabList",
    "TokenByToken",
    "TokenLookup",
    "described",
    "remade",
    "resolve_simulator",
    "simulator",
]
