"""The original's names on nscore's engine: code for OpenAI's `neuron_explainer` runs when its imports name this package.

The modules are called as the original's (`explanations.scoring`, `explanations.simulator`, `activations.activations`, ...),
and all names are here, too. Signatures, results and numbers are the original's, of both of its forms where they differ.
Where the original goes wrong, nscore does not: a token without an answer is NaN and not 0, tokens with tabs do not shift
the answers, NaN is no number between 0 and 10, the last token has a prediction, and a bad key ends in an error at once.

`tables` turns what comes out into nscore's tables, and back.
"""

from nscore.neuron_explainer.activations.activation_records import (
    calculate_max_activation,
    normalize_activations,
    normalize_activations_symmetric,
)
from nscore.neuron_explainer.activations.activations import (
    ActivationRecord,
    ActivationRecordSliceParams,
    NeuronId,
    NeuronRecord,
    load_neuron,
    load_neuron_async,
    neuron_exists,
    read_neuron_file,
)
from nscore.neuron_explainer.api_client import ApiClient
from nscore.neuron_explainer.explanations.calibrated_simulator import (
    CalibratedNeuronSimulator,
    LinearCalibratedNeuronSimulator,
    PercentileMatchingCalibratedNeuronSimulator,
    UncalibratedNeuronSimulator,
)
from nscore.neuron_explainer.explanations.explanations import (
    ActivationScale,
    NeuronSimulationResults,
    ScoredExplanation,
    ScoredSequenceSimulation,
    ScoredSimulation,
    SequenceSimulation,
    load_neuron_explanations,
    load_neuron_explanations_async,
    read_explanation_file,
)
from nscore.neuron_explainer.explanations.few_shot_examples import FewShotExampleSet
from nscore.neuron_explainer.explanations.prompt_builder import PromptFormat
from nscore.neuron_explainer.explanations.scoring import (
    absolute_dev_explained_score_from_sequences,
    aggregate_scored_sequence_simulations,
    correlation_score,
    flatten_list,
    make_explanation_simulator,
    make_simulator_and_score,
    make_uncalibrated_explanation_simulator,
    rsquared_score_from_sequences,
    score_from_simulation,
    simulate_and_score,
)
from nscore.neuron_explainer.explanations.simulator import (
    ExplanationNeuronSimulator,
    ExplanationTokenByTokenSimulator,
    LogprobFreeExplanationTokenSimulator,
    NeuronSimulator,
    SimulationType,
)
from nscore.neuron_explainer.tables import (
    records_table,
    results_tables,
    scored_simulations,
    sequence_simulations,
    simulated_table,
)

__all__ = [
    "ActivationRecord",
    "ActivationRecordSliceParams",
    "ActivationScale",
    "ApiClient",
    "CalibratedNeuronSimulator",
    "ExplanationNeuronSimulator",
    "ExplanationTokenByTokenSimulator",
    "FewShotExampleSet",
    "LinearCalibratedNeuronSimulator",
    "LogprobFreeExplanationTokenSimulator",
    "NeuronId",
    "NeuronRecord",
    "NeuronSimulationResults",
    "NeuronSimulator",
    "PercentileMatchingCalibratedNeuronSimulator",
    "PromptFormat",
    "ScoredExplanation",
    "ScoredSequenceSimulation",
    "ScoredSimulation",
    "SequenceSimulation",
    "SimulationType",
    "UncalibratedNeuronSimulator",
    "absolute_dev_explained_score_from_sequences",
    "aggregate_scored_sequence_simulations",
    "calculate_max_activation",
    "correlation_score",
    "flatten_list",
    "load_neuron",
    "load_neuron_async",
    "load_neuron_explanations",
    "load_neuron_explanations_async",
    "make_explanation_simulator",
    "make_simulator_and_score",
    "make_uncalibrated_explanation_simulator",
    "neuron_exists",
    "normalize_activations",
    "normalize_activations_symmetric",
    "read_explanation_file",
    "read_neuron_file",
    "records_table",
    "results_tables",
    "rsquared_score_from_sequences",
    "score_from_simulation",
    "scored_simulations",
    "sequence_simulations",
    "simulate_and_score",
    "simulated_table",
]
