"""Files of OpenAI's neurons to Parquet, beside what a user would otherwise run, in one run.

python benchmarks/imports.py                  10,000 files of 40 records of 64 tokens, about 0.8 GB
python benchmarks/imports.py --files 2500     to see that memory does not grow with the files

neuron-explainer is the package whose files these are, as it is published: pip install -e '.[bench]'. Each contender runs
in a new process. Peak memory is that of its largest process; the pages of files are not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

import nscore as ns

BATCH = 400  # files whose lists are held before they become a frame
WORDS = [" the", " of", "\n", "ing", "é", '"', "\t", *(f" w{i}" for i in range(5000))]


@dataclass
class ActivationRecord:
    """As the original has it."""

    tokens: list[str]
    activations: list[float]


@dataclass
class NeuronRecord:
    """As the original has it."""

    layer: int
    neuron: int
    random_sample: list[ActivationRecord]
    most_positive_activation_records: list[ActivationRecord]


def make(folder: Path, files: int) -> int:
    """Writes the files; gives their bytes."""
    rng = np.random.default_rng(0)
    size = 0
    for i in range(files):
        values = np.maximum(rng.normal(size=(40, 64)).astype(np.float32), -0.1).tolist()
        words = rng.integers(0, len(WORDS), (40, 64)).tolist()
        records = [
            {"dataclass_name": "ActivationRecord", "activations": a, "tokens": [WORDS[k] for k in w]}
            for a, w in zip(values, words, strict=True)
        ]
        neuron = {
            "dataclass_name": "NeuronRecord",
            "neuron_id": {"dataclass_name": "NeuronId", "neuron_index": i % 1000, "layer_index": i // 1000},
            "random_sample": records[20:],
            "random_sample_by_quantile": None,
            "quantile_boundaries": None,
            "mean": 0.1,
            "variance": 0.2,
            "skewness": 0.3,
            "kurtosis": float("nan") if i % 10 == 0 else 0.4,
            "most_positive_activation_records": records[:20],
        }
        file = folder / str(i // 1000) / f"{i % 1000}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        size += file.write_text(json.dumps(neuron), "utf-8")
    return size


def loaded(file: Path) -> NeuronRecord:
    """One file, as lists in dataclasses."""
    with file.open() as stream:
        said = json.load(stream)
    lists = [
        [ActivationRecord(r["tokens"], r["activations"]) for r in said[name]]
        for name in ("random_sample", "most_positive_activation_records")
    ]
    return NeuronRecord(said["neuron_id"]["layer_index"], said["neuron_id"]["neuron_index"], *lists)


def load_only(files: list[Path], out: Path) -> None:
    """json.load into dataclasses, and nothing else."""
    del out
    for file in files:
        loaded(file)


def by_the_original(file: Path) -> NeuronRecord:
    """One file, as OpenAI's own package reads it: by its layer and neuron, in a folder or at an address."""
    from neuron_explainer.activations.activations import load_neuron

    neuron = load_neuron(file.parent.name, file.stem, file.parent.parent.as_uri())
    identity = neuron.neuron_id
    return NeuronRecord(
        identity.layer_index, identity.neuron_index, neuron.random_sample, neuron.most_positive_activation_records
    )


def load_and_write(load: Callable[[Path], NeuronRecord], files: list[Path], out: Path) -> None:
    """The same, and from the lists a frame and Parquet, some hundred files at a time."""
    out.mkdir()
    for start in range(0, len(files), BATCH):
        columns: dict[str, list[object]] = {
            name: [] for name in ("layer", "neuron", "sequence", "position", "token", "activation", "stratum")
        }
        for neuron in map(load, files[start : start + BATCH]):
            strata = (("top", neuron.most_positive_activation_records), ("random", neuron.random_sample))
            every = [(stratum, record) for stratum, group in strata for record in group]
            for sequence, (stratum, record) in enumerate(every):
                n = len(record.tokens)
                columns["layer"] += [neuron.layer] * n
                columns["neuron"] += [neuron.neuron] * n
                columns["sequence"] += [sequence] * n
                columns["position"] += range(n)
                columns["token"] += record.tokens
                columns["activation"] += record.activations
                columns["stratum"] += [stratum] * n
        pl.DataFrame(columns).write_parquet(out / f"part-{start:06d}.parquet")


def nscore_with(processes: int) -> object:
    """`nscore import openai`, with splits, statistics of the neurons, and every check."""

    def run(files: list[Path], out: Path) -> None:
        folder = files[0].parent.parent
        ns.import_files(
            "openai",
            folder,
            out,
            executor="local" if processes == 1 else "processes",
            workers=None if processes == 1 else processes,
        )

    return run


CONTENDERS = {
    "json.load into dataclasses, no Parquet": load_only,
    "neuron-explainer's load_neuron, frame, Parquet": partial(load_and_write, by_the_original),
    "json.load into dataclasses, frame, Parquet": partial(load_and_write, loaded),
    "nscore import, 1 process": nscore_with(1),
    "nscore import, 2 processes": nscore_with(2),
}


def one(name: str, folder: Path, out: Path) -> None:
    """Runs one contender and prints its seconds and peak memory."""
    files = sorted(folder.rglob("*.json"))
    started = time.perf_counter()
    CONTENDERS[name](files, out)
    seconds = time.perf_counter() - started
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([seconds, max(peaks) / 1024]))


def main() -> None:
    """Makes the files, runs all, prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], *map(Path, arguments.one[1:]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "files"
        size = make(folder, arguments.files)
        print(
            f"{arguments.files:,} files, {size / 1e6:,.0f} MB; Polars {pl.__version__}, Python {platform.python_version()}"
        )
        took: dict[str, list[float]] = {name: [] for name in CONTENDERS}
        peaks = dict.fromkeys(CONTENDERS, 0.0)
        for contender in arguments.rounds * list(CONTENDERS):
            out = Path(name) / "out"
            command = [sys.executable, __file__, "--one", contender, str(folder), str(out)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, peak = json.loads(done.stdout.splitlines()[-1])
            took[contender].append(seconds)
            peaks[contender] = max(peaks[contender], peak)
            shutil.rmtree(out, ignore_errors=True)
        best = statistics.median(took["nscore import, 2 processes"])
        print("\n| contender | s | median | ms a file | against nscore | peak MiB |\n|---|---|---|---|---|---|")
        for contender, each in took.items():
            median = statistics.median(each)
            said = f"{', '.join(f'{s:.1f}' for s in each)} | {median:.1f} | {median / arguments.files * 1e3:.2f}"
            print(f"| {contender} | {said} | {median / best:.1f}x | {peaks[contender]:.0f} |")


if __name__ == "__main__":
    main()
