"""Simulators: each turns (explanation, tokens) into predicted activations, one to a file, without I/O.

A new one is a file beside these with a class under `@simulator("name")`, an import line here, and its test.
"""

from nscore.simulators._protocol import SIMULATORS, Simulator, resolve_simulator, simulator
from nscore.simulators.constant import Constant
from nscore.simulators.lexical import Lexical
from nscore.simulators.shuffled import Shuffled
from nscore.simulators.token_lookup import TokenLookup

__all__ = [
    "SIMULATORS",
    "Constant",
    "Lexical",
    "Shuffled",
    "Simulator",
    "TokenLookup",
    "resolve_simulator",
    "simulator",
]
