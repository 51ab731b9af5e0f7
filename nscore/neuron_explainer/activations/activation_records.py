"""Activations on the scale 0 to 10 that prompts show."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nscore.neuron_explainer.activations.activations import ActivationRecord

__all__ = ["calculate_max_activation", "normalize_activations", "normalize_activations_symmetric", "relu"]

TOP = 10


def relu(x: float) -> float:
    """The number, or 0 where it is below."""
    return max(0.0, x)


def calculate_max_activation(activation_records: Sequence[ActivationRecord]) -> float:
    """The largest activation in all the records; 0.0 where none is above it.

    Records without tokens are passed over; with no record at all it is a `ValueError`.

    >>> calculate_max_activation([ActivationRecord(["a", "b"], [-1.0, 2.5]), ActivationRecord(["c"], [1.0])])
    2.5
    """
    return max(max(map(relu, record.activations), default=0.0) for record in activation_records)


def normalize_activations(activation_record: Sequence[float], max_activation: float) -> list[int]:
    """Activations as whole numbers, `min(10, floor(10 relu(x) / max))`; all 0 where max is not above 0.

    >>> normalize_activations([-1.0, 0.6, 2.0, 3.0], 2.0)
    [0, 3, 10, 10]
    """
    if max_activation <= 0:
        return [0] * len(activation_record)
    return [min(TOP, math.floor(TOP * relu(x) / max_activation)) for x in activation_record]


def normalize_activations_symmetric(activation_record: Sequence[float], max_activation: float) -> list[int]:
    """The same with what is below zero: 10 x / max cut off towards 0, and kept between -10 and 10.

    >>> normalize_activations_symmetric([-1.0, 0.6, -3.0], 2.0)
    [-5, 3, -10]
    """
    if max_activation == 0:
        return [0] * len(activation_record)
    return [max(-TOP, min(TOP, math.trunc(TOP * x / max_activation))) for x in activation_record]
