"""A real S3 server on loopback, the environment in which Polars and pyarrow find it, what tests put there, and who writes there."""

import contextlib
import os
import subprocess
import sys
from unittest import mock

import polars as pl
from moto.server import ThreadedMotoServer

SECRET = "hunter22/secret+canary"  # noqa: S105


@contextlib.contextmanager
def serving():
    """Runs a server; gives its address."""
    started = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    started.start()
    host, port = started.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "canarykey",
        "AWS_SECRET_ACCESS_KEY": SECRET,
    }
    with mock.patch.dict(os.environ, environment):
        try:
            yield environment["AWS_ENDPOINT_URL"]
        finally:
            started.stop()


def keys(client, bucket):
    return [each["Key"] for each in client.list_objects_v2(Bucket=bucket[5:]).get("Contents", [])]


def put(client, address, content):
    name, key = address[5:].split("/", 1)
    client.put_object(Bucket=name, Key=key, Body=content)


def simulated(neurons=3):
    return pl.DataFrame(
        {
            "layer": 0,
            "neuron": [n for n in range(neurons) for _ in range(4)],
            "sequence": [0, 0, 1, 1] * neurons,
            "position": [0, 1] * 2 * neurons,
            "token": ["a", " red", "the", " fox"] * neurons,
            "activation": [0.0, 2.0, 1.0, 0.5] * neurons,
            "predicted": [0.0, 1.0, 1.0, 0.0] * neurons,
            "split": ["valid", "valid", "calibration", "calibration"] * neurons,
        },
        schema_overrides={"layer": pl.Int32},
    )


def writer_of(file, size=24_000_000):
    code = f"from nscore._tables.disk import *; from nscore._tables.stores import place; write_whole(place({str(file)!r}), b'n' * {size})"
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
