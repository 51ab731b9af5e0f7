"""Importers: each knows one format of other systems, one to a file, and makes nscore's tables of it.

A new one is a file beside these with a class under `@importer("name")`, an import line here, and its test.
"""

from nscore.importers._places import SourceFile, listed
from nscore.importers._protocol import IMPORTERS, Importer, Parsed, importer, make_importer
from nscore.importers.delphi import Delphi
from nscore.importers.neuronpedia import Neuronpedia
from nscore.importers.openai import OpenAI
from nscore.importers.saedashboard import SAEDashboard
from nscore.importers.table import Table

__all__ = [
    "IMPORTERS",
    "Delphi",
    "Importer",
    "Neuronpedia",
    "OpenAI",
    "Parsed",
    "SAEDashboard",
    "SourceFile",
    "Table",
    "importer",
    "listed",
    "make_importer",
]
