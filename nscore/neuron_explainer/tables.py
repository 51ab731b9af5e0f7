"""The original's objects as nscore's tables (`records_table`, `simulated_table`, `results_tables`), and back again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import polars as pl

from nscore.errors import TableError
from nscore.frames import Frame, source
from nscore.neuron_explainer._scores import aggregated, scored
from nscore.neuron_explainer.activations.activations import NeuronRecord
from nscore.neuron_explainer.explanations.explanations import (
    ActivationScale,
    NeuronSimulationResults,
    ScoredSequenceSimulation,
    ScoredSimulation,
    SequenceSimulation,
)
from nscore.records import (
    ACTIVATION,
    DISTRIBUTION,
    EXPLANATION,
    EXPLANATION_ID,
    LAYER,
    NEURON,
    NOT_RUN,
    OK,
    POSITION,
    PREDICTED,
    PREDICTED_RAW,
    SEQUENCE,
    SIMULATED,
    SIMULATOR,
    STATUS,
    STRATUM,
    TOKEN,
    default_by,
)

__all__ = ["records_table", "results_tables", "scored_simulations", "sequence_simulations", "simulated_table"]

RANK, SCALE = "rank", "activation_scale"
VALUES, PROBABILITIES = "distribution_values", "distribution_probabilities"
TOP = 10

Row = dict[str, Any]
Scored = ScoredSequenceSimulation | SequenceSimulation
Simulations = ScoredSimulation | Sequence[ScoredSequenceSimulation] | Sequence[SequenceSimulation]


def records_table(neurons: NeuronRecord | Iterable[NeuronRecord]) -> pl.DataFrame:
    """The activation records of neurons as a `records` table, for `nscore.assign_splits` and `nscore.simulate`.

    Keys, `sequence`, `position`, `token`, `activation`, `stratum` (`top`, `random`) and `rank`: the record's place in its
    stratum. Sequences are counted through a neuron's records, the strongest first.

    >>> from nscore.neuron_explainer import ActivationRecord, NeuronId, NeuronRecord
    >>> few = [ActivationRecord(["a", " b"], [0.0, 2.0])]
    >>> neuron = NeuronRecord(NeuronId(layer_index=5, neuron_index=7), most_positive_activation_records=few)
    >>> records_table(neuron).row(1)
    (5, 7, 0, 1, ' b', 2.0, 'top', 0)
    """
    records: list[Row] = []
    for n in [neurons] if isinstance(neurons, NeuronRecord) else neurons:
        own = {LAYER: n.neuron_id.layer_index, NEURON: n.neuron_id.neuron_index}
        top = (("top", rank, record) for rank, record in enumerate(n.most_positive_activation_records))
        random = (("random", rank, record) for rank, record in enumerate(n.random_sample))
        for sequence, (stratum, rank, record) in enumerate(chain(top, random)):
            content: Row = {TOKEN: list(record.tokens), ACTIVATION: _known(record.activations)}
            _check_lengths(content, f"{stratum} record {rank} of {own}")
            records.append(own | {SEQUENCE: sequence, STRATUM: stratum, RANK: rank} | content)
    return _exploded(records, [LAYER, NEURON, SEQUENCE, POSITION, TOKEN, ACTIVATION, STRATUM, RANK])


def simulated_table(
    simulations: Simulations,
    *,
    layer: int | str = 0,
    neuron: int = 0,
    explanation_id: str | None = None,
    simulator: str | None = None,
) -> pl.DataFrame:
    """Simulations of one explanation as a `simulated` table, as `nscore.score` takes it.

    Args:
        simulations: a scored simulation, or the sequences of one, scored or not. Their places are the `sequence`.
        layer: the neuron's layer.
        neuron: the neuron.
        explanation_id: the explanation's name, where there is to be such a column.
        simulator: the simulator's name, where there is to be such a column.

    Returns:
        Keys, `sequence`, `position`, `token`, `activation` (null where nobody knows it), `predicted` (null where there is
        no prediction), `status`, `activation_scale`, and where there are such: `predicted_raw`, `distribution` (the
        probability of each raw activation 0, 1, ..., 10), and `distribution_values` with `distribution_probabilities`,
        where a distribution is over other values than those, or in another order.

    Raises:
        TableError: if a simulation has more of one thing than of another.

    >>> from nscore.neuron_explainer import ActivationScale, SequenceSimulation
    >>> scale = ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS
    >>> few = [SequenceSimulation(["a", "b"], [0.5, float("nan")], scale, [[0.0, 1.0], []], [[0.5, 0.5], []])]
    >>> simulated_table(few).select("position", "predicted", "status", "distribution").rows()
    [(0, 0.5, 'ok', [0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), (1, None, 'not_run', None)]
    """
    own: Row = {LAYER: layer, NEURON: neuron}
    own |= {} if simulator is None else {SIMULATOR: simulator}
    own |= {} if explanation_id is None else {EXPLANATION_ID: explanation_id}
    given = simulations.scored_sequence_simulations if isinstance(simulations, ScoredSimulation) else simulations
    each: Sequence[Scored] = given
    return _simulated([own | {SEQUENCE: i} | _columns(s) for i, s in enumerate(each)], list(own))


def results_tables(
    results: NeuronSimulationResults | Iterable[NeuronSimulationResults],
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The results of neurons as an `explanations` and a `simulated` table; an explanation's id is its place, as a text."""
    explained: list[Row] = []
    simulated: list[Row] = []
    for neuron in [results] if isinstance(results, NeuronSimulationResults) else results:
        for i, each in enumerate(neuron.scored_explanations):
            own: Row = {LAYER: neuron.neuron_id.layer_index, NEURON: neuron.neuron_id.neuron_index}
            own |= {EXPLANATION_ID: str(i)}
            explained.append(own | {EXPLANATION: each.explanation})
            sequences = each.scored_simulation.scored_sequence_simulations
            simulated += [own | {SEQUENCE: k} | _columns(s) for k, s in enumerate(sequences)]
    keys = [LAYER, NEURON, EXPLANATION_ID]
    return _framed(explained, [*keys, EXPLANATION]), _simulated(simulated, keys)


def sequence_simulations(simulated: Frame, *, by: Sequence[str] | None = None) -> list[SequenceSimulation]:
    """The rows of a `simulated` table as simulations, one a record, in the order of the keys and `sequence`.

    A prediction that is null becomes NaN, and `status` says why. Where there is a `predicted_raw`, it is the
    `uncalibrated_simulation`, and a `distribution` is that one's: what a calibration makes of its values is in no table
    but one of `simulated_table`.

    Args:
        simulated: the table, as `nscore.score` takes it, with `token`.
        by: the keys of an explanation; see `nscore.score`.

    Raises:
        TableError: if a column is missing.
    """
    return [simulation for _, simulation, _ in _records(simulated, by)]


def scored_simulations(
    simulated: Frame, *, by: Sequence[str] | None = None
) -> dict[tuple[object, ...], ScoredSimulation]:
    """The rows of a `simulated` table as scored simulations, one an explanation, by the values of its keys.

    All records are scored, whatever their split; see `sequence_simulations` for the rest.

    >>> frame = pl.DataFrame({"layer": 5, "neuron": 7, "sequence": 0, "token": list("abcd"),
    ...                       "activation": [0, 0, 2, 2], "predicted": [1, 1, 5, 5]})
    >>> scored_simulations(frame)[5, 7].get_preferred_score()
    1.0
    """
    found: dict[tuple[object, ...], list[ScoredSequenceSimulation]] = {}
    for keys, simulation, truth in _records(simulated, by):
        found.setdefault(keys, []).append(scored(simulation, truth))
    return {keys: aggregated(sequences) for keys, sequences in found.items()}


def one_simulation(rows: pl.DataFrame) -> SequenceSimulation:
    """The rows of one record, in their order, as a simulation; as `sequence_simulations`, and quicker."""
    return _simulation({c: rows[c].to_list() for c in (*_LISTED, SCALE) if c in rows.columns})


def _columns(given: Scored) -> Row:
    """The columns of one record, each a list."""
    truth = given.true_activations if isinstance(given, ScoredSequenceSimulation) else None
    simulation = given.sequence_simulation if isinstance(given, ScoredSequenceSimulation) else given
    raw = simulation.uncalibrated_simulation
    predicted = _known(simulation.expected_activations)
    nothing: list[Any] = [None] * len(simulation.tokens)
    chances, is_all = _chances(raw or simulation)
    listed = raw is not None or not is_all
    columns: Row = {
        TOKEN: list(simulation.tokens),
        ACTIVATION: nothing if truth is None else _known(truth),
        PREDICTED: predicted,
        STATUS: simulation.status or [NOT_RUN if x is None else OK for x in predicted],
        PREDICTED_RAW: nothing if raw is None else _known(raw.expected_activations),
        DISTRIBUTION: chances or nothing,
        VALUES: (listed and simulation.distribution_values) or nothing,
        PROBABILITIES: (listed and simulation.distribution_probabilities) or nothing,
    }
    _check_lengths(columns, "a simulation")
    return columns | {SCALE: ActivationScale(simulation.activation_scale).value}


def _check_lengths(columns: Row, where: str) -> None:
    tokens = len(columns[TOKEN])
    if other := {name: len(values) for name, values in columns.items() if len(values) != tokens}:
        found = ", ".join(f"{n} of {name}" for name, n in other.items())
        raise TableError(
            "lengths differ", where, found=f"{tokens} tokens, {found}", mend="Expected one for each token."
        )


def _chances(simulation: SequenceSimulation) -> tuple[list[list[float] | None], bool]:
    """The probability of 0, 1, ..., 10 at each token, none where there are other values; and whether that says all."""
    made: list[list[float] | None] = []
    is_all = True
    for values, chances in zip(simulation.distribution_values, simulation.distribution_probabilities, strict=True):
        if len(set(values)) < len(values) or not all(v in range(TOP + 1) for v in values):
            return [], False
        of = dict(zip(map(int, values), chances, strict=True))
        made.append([of.get(i, 0.0) for i in range(TOP + 1)] if of else None)
        is_all = is_all and list(of) == sorted(of) and all(p > 0 for p in chances)
    return made, is_all


def _simulated(rows: list[Row], keys: list[str]) -> pl.DataFrame:
    optional = [PREDICTED_RAW, DISTRIBUTION, VALUES, PROBABILITIES]
    columns = [*keys, SEQUENCE, POSITION, TOKEN, ACTIVATION, PREDICTED, STATUS, SCALE, *optional]
    frame = _exploded(rows, columns)
    return frame.drop(c for c in optional if frame[c].null_count() == frame.height)


_LISTED = {
    TOKEN: pl.String(),
    STATUS: pl.String(),
    **dict.fromkeys([ACTIVATION, PREDICTED, PREDICTED_RAW], pl.Float64()),
    **dict.fromkeys([DISTRIBUTION, VALUES, PROBABILITIES], pl.List(pl.Float64)),
}
_KINDS = {
    **{name: pl.List(kind) for name, kind in _LISTED.items()},
    **dict.fromkeys([NEURON, SEQUENCE, RANK], pl.Int64()),
    **dict.fromkeys([EXPLANATION_ID, EXPLANATION, SIMULATOR, STRATUM, SCALE], pl.String()),
}


def _framed(rows: list[Row], columns: list[str]) -> pl.DataFrame:
    """A frame of the columns; layers are numbers where all of them are."""
    numbers = all(isinstance(row[LAYER], int) for row in rows)
    data = {c: [row[c] for row in rows] for c in columns}
    if not numbers:
        data[LAYER] = list(map(str, data[LAYER]))
    kinds: dict[str, pl.DataType] = {LAYER: pl.Int64() if numbers else pl.String(), **_KINDS}
    return pl.DataFrame(data, schema={c: kinds[c] for c in columns})


def _exploded(rows: list[Row], columns: list[str]) -> pl.DataFrame:
    """Rows a record, whose columns are lists, as rows a token."""
    return (
        _framed(rows, [c for c in columns if c != POSITION])
        .filter(pl.col(TOKEN).list.len() > 0)
        .with_columns(pl.int_ranges(pl.col(TOKEN).list.len()).alias(POSITION))
        .explode(POSITION, *(c for c in columns if c in _LISTED), empty_as_null=False)
        .select(columns)
    )


def _records(
    simulated: Frame, by: Sequence[str] | None
) -> Iterator[tuple[tuple[object, ...], SequenceSimulation, list[float]]]:
    """The keys, the simulation and the truth of each record."""
    given = source(simulated)
    schema = given.schema()
    keys = list(by) if by is not None else default_by(schema)
    SIMULATED.check(schema, given.name, keys)
    if TOKEN not in schema:
        columns = f"the columns are {', '.join(schema)}"
        raise TableError("missing column", given.name, column=TOKEN, found=columns, mend="Add the tokens.")
    order = [*keys, SEQUENCE, *([POSITION] if POSITION in schema else [])]
    kinds = _LISTED | {SCALE: pl.String()}
    lists = [pl.col(c).cast(kind) for c, kind in kinds.items() if c in schema]
    ordered = given.frame.sort(order, maintain_order=True).select(*keys, SEQUENCE, *lists)
    grouped = given.collect(ordered.group_by(*keys, SEQUENCE, maintain_order=True).agg(pl.all()))
    for row in grouped.iter_rows(named=True):
        yield tuple(row[k] for k in keys), _simulation(row), _floats(row[ACTIVATION])


def _simulation(row: Row) -> SequenceSimulation:
    tokens = row[TOKEN]
    chances = [list(enumerate(c or ())) for c in row.get(DISTRIBUTION) or ()]
    over = [[float(i) for i, p in c if p > 0] for c in chances] if any(chances) else []
    listed = over, [[p for _, p in c if p > 0] for c in chances] if any(chances) else []
    scale, raw = ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS, None
    if any(x is not None for x in row.get(PREDICTED_RAW) or ()):
        raw = SequenceSimulation(tokens, _floats(row[PREDICTED_RAW]), scale, *listed)
        scale, listed = ActivationScale.NEURON_ACTIVATIONS, ([], [])
    if any(x is not None for x in row.get(VALUES) or ()):
        listed = [x or [] for x in row[VALUES]], [x or [] for x in row[PROBABILITIES]]
    if SCALE in row and row[SCALE][0] is not None:
        scale = ActivationScale(row[SCALE][0])
    made = SequenceSimulation(tokens, _floats(row[PREDICTED]), scale, *listed, raw)
    if any(status not in {OK, None} for status in row.get(STATUS) or ()):
        made.status = [status or OK for status in row[STATUS]]
    return made


def _known(values: Sequence[float]) -> list[float | None]:
    return [None if math.isnan(x) else float(x) for x in values]


def _floats(values: Sequence[float | None]) -> list[float]:
    return [math.nan if x is None else float(x) for x in values]
