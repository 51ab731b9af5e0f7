"""Executors: where shards are worked on: in this process, in several, on a Ray cluster. They know nothing of the work."""

from nscore.executors._protocol import EXECUTORS, Executor, executor, make_executor
from nscore.executors.local import Local
from nscore.executors.processes import Processes
from nscore.executors.ray import Ray

__all__ = ["EXECUTORS", "Executor", "Local", "Processes", "Ray", "executor", "make_executor"]
