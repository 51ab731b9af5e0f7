"""Several model servers that are declared equal: one backend, whose requests any of them may answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nscore.backends._protocol import Backend, Call, remade
from nscore.backends.replay import Replay
from nscore.errors import BackendError
from nscore.exchange import Capabilities, Prompt, Reply

__all__ = ["Servers", "members_of"]


@dataclass(frozen=True, slots=True)
class Servers:
    """Several servers of the same model that are declared equal: an answer of one counts as an answer of all.

    Requests of one explanation go to one server, for its prefix cache, but while that has far more than its share in flight;
    as many explanations take turns as there are servers, so that each has its own. A server that does not answer is set
    aside, its requests go to the others, and it is tried again later. In everything that decides an answer (the request key,
    the settings of the run) the group stands under one base URL: that of the first server, or `group`. So a run that began
    with one server goes on with several, the first of which it is, and nothing is asked again; and servers may be added, left
    out or exchanged as long as `group` stays the same.

    Args:
        members: backends of one kind that differ in nothing but address and key.
        weights: how much of the work each is given, relative to the others; the same for all if left out.
        group: the base URL that the group is known by; nothing is sent there unless it is a member's.

    Examples:
        >>> from nscore import OpenAI, Servers
        >>> two = [OpenAI(model="m", base_url=f"http://node{i}:8000/v1", api_key="none is needed") for i in (1, 2)]
        >>> Servers(two, weights=[2, 1]).url
        'http://node1:8000/v1'
    """

    members: Sequence[Backend]
    weights: Sequence[float] | None = None
    group: str | None = None

    def __post_init__(self) -> None:
        members = tuple(self.members)
        weights = (1.0,) * len(members) if self.weights is None else tuple(map(float, self.weights))
        object.__setattr__(self, "members", members)
        object.__setattr__(self, "weights", weights)
        if not members:
            raise BackendError("servers: name at least one")
        if len(weights) != len(members) or not all(0 < weight < math.inf for weight in weights):
            raise BackendError(f"servers: found weights {list(weights)}, expected {len(members)} numbers above 0")
        if any(isinstance(member, Servers | Replay) for member in members):
            raise BackendError("servers: each must be a model server, neither a replayed run nor a group")
        if len({member.url for member in members}) < len(members):
            raise BackendError(f"servers: {_twice([m.url for m in members])} is named twice; give it a weight instead")
        first = _settings(members[0])
        for member in members[1:]:
            if _settings(member) != first:
                raise BackendError(
                    f"servers: {member.url} and {members[0].url} are not equal: found {_settings(member)}, expected "
                    f"{first}. An answer of one could not count as an answer of the other."
                )
        if self.group is not None:  # a URL that cannot be, or holds a secret, is said so by the backend
            object.__setattr__(self, "group", remade(self.settings()).url)

    @property
    def name(self) -> str:
        """That of the members."""
        return self.members[0].name

    @property
    def model(self) -> str:
        """That of the members."""
        return self.members[0].model

    @property
    def url(self) -> str:
        """What the group is known by, in the keys of requests too."""
        return self.group or self.members[0].url

    @property
    def address(self) -> str:
        """That of the first."""
        return self.members[0].address

    @property
    def assumed(self) -> Capabilities:
        """As the members."""
        return self.members[0].assumed

    def call(self, prompt: Prompt, can: Capabilities, *, seed: int | None = None) -> Call:
        """As the members."""
        return self.members[0].call(prompt, can, seed=seed)

    def headers(self) -> Mapping[str, str]:
        """Those of the first: each member has its own."""
        return self.members[0].headers()

    def secrets(self) -> tuple[str, ...]:
        """Those of all."""
        return tuple(dict.fromkeys(secret for member in self.members for secret in member.secrets()))

    def settings(self) -> dict[str, object]:
        """As a single server at the group's URL: which of them answered decides nothing."""
        return self.members[0].settings() | {"base_url": self.url}

    def read(self, raw: bytes) -> Reply:
        """As the members."""
        return self.members[0].read(raw)


def members_of(backend: Backend) -> list[tuple[Backend, float]]:
    """The servers behind a backend, and the weight of each."""
    if isinstance(backend, Servers):
        return list(zip(backend.members, backend.weights or (), strict=True))
    return [(backend, 1.0)]


def _settings(member: Backend) -> dict[str, object]:
    return {name: value for name, value in member.settings().items() if name != "base_url"}


def _twice(urls: Sequence[str]) -> str:
    return next(url for url in urls if urls.count(url) > 1)
