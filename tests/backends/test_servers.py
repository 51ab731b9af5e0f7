"""Several servers that are declared equal are one backend, known by one URL, whichever of them answers."""

from __future__ import annotations

import pickle

import pytest

import nscore as ns
from nscore._running.shards import request_key
from nscore.backends import Backend, members_of, remade

A, B, C = (f"http://{host}:8000/v1" for host in ("node1", "node2", "node3"))


def server(url=A, **given):
    return ns.OpenAI(**{"model": "m", "base_url": url, "api_key": "canary-key"} | given)


def test_a_group_is_known_by_its_first_server():
    group = ns.Servers([server(A), server(B)])
    assert isinstance(group, Backend)
    assert group.settings() == server(A).settings()
    assert (group.name, group.model, group.url) == ("openai", "m", A)
    assert request_key(group.url, "/p", b"{}", 0) == request_key(server(A).url, "/p", b"{}", 0)
    assert remade(group.settings()).url == A
    assert members_of(group) == [(server(A), 1.0), (server(B), 1.0)]
    assert members_of(server(A)) == [(server(A), 1.0)]


def test_a_group_with_a_name_keeps_its_keys_whichever_servers_there_are():
    one, other = ns.Servers([server(A), server(B)], group=C), ns.Servers([server(B)], weights=[3], group=C + "/")
    assert one.url == other.url == C
    assert one.settings() == other.settings()


def test_secrets_of_all_are_known_and_none_is_shown():
    group = ns.Servers([server(A), server(B, base_url="http://me:canary-pass@node2/v1", api_key="canary-2")])
    assert {"canary-key", "canary-2", "canary-pass"} <= set(group.secrets())
    assert "canary" not in repr(group)
    assert "canary" not in str(group.settings())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: ns.Servers([]), "name at least one"),
        (lambda: ns.Servers([server(A), server(A + "/")]), f"{A} is named twice"),
        (lambda: ns.Servers([server(A), server(B, model="n")]), "are not equal"),
        (lambda: ns.Servers([server(A), ns.VLLM(model="m", base_url=B)]), "are not equal"),
        (lambda: ns.Servers([server(A), server(B, extra={"top_p": 0.5})]), "are not equal"),
        (lambda: ns.Servers([server(A)], weights=[1, 2]), "expected 1 numbers above 0"),
        (lambda: ns.Servers([server(A), server(B)], weights=[1, 0]), "expected 2 numbers above 0"),
        (lambda: ns.Servers([ns.Servers([server(A)])]), "neither a replayed run nor a group"),
        (lambda: ns.Servers([server(A)], group="node9"), "expected http://HOST"),
    ],
)
def test_what_is_no_group_is_refused_in_words(made, said):
    with pytest.raises(ns.BackendError, match=said):
        made()


def test_a_group_goes_to_other_processes():
    group = ns.Servers([server(A), server(B)], weights=[1, 2])
    assert pickle.loads(pickle.dumps(group)) == group  # noqa: S301  (its own)
