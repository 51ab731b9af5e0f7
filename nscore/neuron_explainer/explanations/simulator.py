"""Simulators that ask a language model: the original's classes on nscore's prompts, parsers and transport."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from enum import Enum

from nscore.errors import SimulatorError
from nscore.exchange import Capabilities, Prompt
from nscore.neuron_explainer._asking import asked, capabilities
from nscore.neuron_explainer.api_client import ApiClient
from nscore.neuron_explainer.explanations.explanations import ActivationScale, SequenceSimulation
from nscore.neuron_explainer.explanations.few_shot_examples import FewShotExampleSet
from nscore.neuron_explainer.explanations.prompt_builder import PromptFormat
from nscore.neuron_explainer.tables import one_simulation
from nscore.records import OK
from nscore.simulators import AllAtOnce, JsonList, PromptSimulator, TabList, TokenByToken

__all__ = [
    "ExplanationNeuronSimulator",
    "ExplanationTokenByTokenSimulator",
    "LogprobFreeExplanationTokenSimulator",
    "NeuronSimulator",
    "SimulationType",
]

logger = logging.getLogger(__name__)

Messages = list[dict[str, str]]
# What may come without its name, in the order of either form.
BY_MODEL = ("max_concurrent", "few_shot_example_set", "prompt_format", "cache")
BY_CLIENT = ("few_shot_example_set", "prompt_format")


class SimulationType(str, Enum):  # noqa: UP042  (the original's)
    """Whether one prompt is for all tokens, or for each."""

    ALL_AT_ONCE = "all_at_once"
    ONE_AT_A_TIME = "one_at_a_time"

    @classmethod
    def from_string(cls, s: str) -> SimulationType:
        """The type of that name; a `ValueError` where there is none."""
        return cls(s)


class NeuronSimulator(ABC):
    """Predicts the activations of a neuron on the tokens of a text; subclasses of your own can be scored and calibrated."""

    @abstractmethod
    async def simulate(self, tokens: Sequence[str]) -> SequenceSimulation:
        """The predictions for one text."""


class _AskingSimulator(NeuronSimulator):
    """Asks a model with the prompts of one of nscore's simulators.

    Takes the arguments of both forms of the original: a `client`, or the `model_name` (then `max_concurrent` and `cache`
    are for the client that is made). What the server can do is found out by a small probe, once for all simulators in a
    process, and decides how prompts are sent: `prompt_format` changes nothing, and neither does `few_shot_example_set`,
    since nscore shows examples of its own.

    Predictions are on the scale 0 to 10; 0 to 9 where logprobs are read and the model writes "10" as two tokens. A token
    without one is NaN and never 0: see `SequenceSimulation`. Texts of more tokens than `nscore` sends are `too_long`.

    Args:
        client: an `ApiClient`, or the name of a model.
        explanation: what the neuron is said to fire on.
        positional: what else comes without its name, in the order of either form.
        model_name: the name of a model, in place of `client`.
        max_concurrent: the most requests in flight, of a client that is made here.
        few_shot_example_set: taken, and without effect.
        prompt_format: taken, and without effect.
        cache: whether a client that is made here answers the same request from memory.
    """

    def __init__(  # (both forms of the original)
        self,
        client: ApiClient | str | None = None,
        explanation: str | None = None,
        *positional: object,
        model_name: str | None = None,
        max_concurrent: int | None = 10,
        few_shot_example_set: FewShotExampleSet | None = None,
        prompt_format: PromptFormat | None = None,
        cache: bool = False,
    ) -> None:
        if isinstance(client, str):
            client, model_name = None, client
        names = BY_MODEL if client is None else BY_CLIENT
        if len(positional) > len(names) or explanation is None:
            raise TypeError(
                f"{type(self).__name__}: expected (model_name, explanation, {', '.join(BY_MODEL)}) or "
                f"(client, explanation, {', '.join(BY_CLIENT)})"
            )
        more = dict(zip(names, positional, strict=False))
        self.few_shot_example_set = more.get("few_shot_example_set", few_shot_example_set)
        self.prompt_format = more.get("prompt_format", prompt_format)
        self.explanation = explanation
        if client is None and model_name is not None:
            most, kept = more.get("max_concurrent", max_concurrent), more.get("cache", cache)
            client = ApiClient(model_name, most, bool(kept))  # type: ignore[arg-type]
            self._by_model = True
        else:
            self._by_model = False
        self.client = client

    @property
    def api_client(self) -> ApiClient | None:
        """`client` under its older name."""
        return self.client

    @property
    @abstractmethod
    def asking(self) -> PromptSimulator:
        """The simulator of nscore that makes the prompts and reads the replies."""

    async def simulate(self, tokens: Sequence[str]) -> SequenceSimulation:
        """The predictions for one text.

        Raises:
            BackendError: if the server cannot do what this simulator needs, refuses the request or the key, or does not
                answer as such servers do.
            OutageError: if it could not be reached, after all tries.
        """
        if self.client is None:
            raise SimulatorError(
                f"{type(self).__name__}: there is no client to ask: give an ApiClient, or a model's name"
            )
        listed = list(tokens)
        if not listed:
            return SequenceSimulation([], [], ActivationScale.SIMULATED_NORMALIZED_ACTIVATIONS, [], [])
        can = self._seen(await capabilities(self.client))
        simulation = one_simulation(await asked(self.client, self.asking, self.explanation, listed, can))
        if simulation.status is not None:
            counts = ", ".join(f"{n} {s}" for s, n in sorted(Counter(simulation.status).items()) if s != OK)
            logger.warning("%s: of %d tokens have no prediction: %s", type(self).__name__, len(listed), counts)
        return simulation

    def make_simulation_prompt(self, tokens: Sequence[str], explanation: str | None = None) -> str | Messages:
        """The prompt for a text, as a server gets it that does what OpenAI's API can: a text, or a conversation."""
        return self._prompts(tokens, explanation)[0]

    def _prompts(self, tokens: Sequence[str], explanation: str | None) -> list[str | Messages]:
        can = self._seen(Capabilities(logprobs=15, prompt_logprobs=15, ten=1))
        asks = self.asking.asks(self.explanation if explanation is None else explanation, [list(tokens)], can)
        return [_shown(ask.prompt) for ask in asks]

    def _seen(self, can: Capabilities) -> Capabilities:
        """What of the server this simulator makes use of."""
        return can


class ExplanationNeuronSimulator(_AskingSimulator):
    """One prompt shows every token as unknown; the logprobs of the prompt say what the model expected: `nscore.AllAtOnce`.

    Needs a server that gives logprobs of prompts. Tokens that hold tabs or line breaks, and those that the model's own
    tokenizer cuts otherwise, are found by their place in the prompt: with the original they shift the answers, or get 0.
    """

    @property
    def asking(self) -> PromptSimulator:
        """`nscore.AllAtOnce`."""
        return AllAtOnce()


class ExplanationTokenByTokenSimulator(_AskingSimulator):
    """One request a token, whose answer is one number: `nscore.TokenByToken`. Needs logprobs of generated tokens."""

    @property
    def asking(self) -> PromptSimulator:
        """`nscore.TokenByToken`."""
        return TokenByToken()

    def make_single_token_simulation_prompt(
        self, tokens: Sequence[str], explanation: str, token_index_to_score: int
    ) -> str | Messages:
        """The prompt for one token of a text."""
        return self._prompts(tokens, explanation)[token_index_to_score]


class LogprobFreeExplanationTokenSimulator(_AskingSimulator):
    """The model writes a number for each token, and no logprobs are read, so that there is no distribution.

    As the original's two forms: with a `client` in JSON, `nscore.JsonList`; with a `model_name` in lines of a token, a tab
    and a number, `nscore.TabList`. With the original the last of those lines is always 0, NaN passes as a number, a text
    of another length or bad JSON is all zeros, and long answers are cut off. Here the room for an answer is as large as
    it needs, and what cannot be read is NaN.
    """

    @property
    def asking(self) -> PromptSimulator:
        """`nscore.JsonList` or `nscore.TabList`."""
        return TabList() if self._by_model else JsonList()

    def _seen(self, can: Capabilities) -> Capabilities:
        return replace(can, logprobs=0)


def _shown(prompt: Prompt) -> str | Messages:
    if prompt.form == "text":
        return prompt.text
    return [{"role": message.role, "content": message.text} for message in prompt.messages]
