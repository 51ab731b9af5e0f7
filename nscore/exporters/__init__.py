"""Exporters: each knows one format of other systems, one to a file, and writes nscore's tables in it.

A new one is a file beside these with a class under `@exporter("name")`, an import line here, and its test.
"""

from nscore.exporters._paths import safe_name
from nscore.exporters._protocol import EXPORTERS, Exporter, OutFile, Part, exporter, make_exporter
from nscore.exporters.delphi import Delphi
from nscore.exporters.neuronpedia import Neuronpedia
from nscore.exporters.openai import OpenAI

__all__ = [
    "EXPORTERS",
    "Delphi",
    "Exporter",
    "Neuronpedia",
    "OpenAI",
    "OutFile",
    "Part",
    "exporter",
    "make_exporter",
    "safe_name",
]
