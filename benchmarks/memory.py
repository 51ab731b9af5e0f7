"""Tables larger than memory ought to be: every command that reads one, its time and the peak of its memory.

python benchmarks/memory.py                          all of GPT-2 XL: 307,200 neurons, 196.6 million rows
python benchmarks/memory.py --neurons 20000 --only score,query

Each command is the command line's own, in a process of its own. The peak is `ru_maxrss` of its largest process: all that lay
in memory at once, pages of files that are mapped and could be let go at any time included. Nothing is subtracted. A
calibration needs splits, which the table of rows.py has not: it reads a second table, the same with five records of ten in the
split `calibration` and five in `test`. Needs about 10 GB on the disk for the full table: 4 for both, the rest for what the
commands write.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
RECORDS, TOKENS = 10, 64  # of rows.py, which imports numpy: a child begins with the memory of its parent
GIB = 2**20  # in the KiB of ru_maxrss
ORIGINAL, RANK = 2.0, 4.0  # GiB that are asked for

BY_LAYER = 'SELECT layer, avg(activation) FROM "{stem}" GROUP BY layer'
# Row group by row group, as rows.py wrote them.
SPLIT = """
import pyarrow as pa, pyarrow.parquet as pq
given = pq.ParquetFile({table!r})
names = pa.array(["calibration"] * 5 + ["test"] * 5)
writer = None
for group in range(given.num_row_groups):
    rows = given.read_row_group(group)
    rows = rows.append_column("split", names.take(rows["sequence"]))
    writer = writer or pq.ParquetWriter({part!r}, rows.schema, compression="zstd")
    writer.write_table(rows)
writer.close()
"""
# What stands in braces: the table, the one with splits, a folder to write to, and the folder of what `score` wrote.
COMMANDS = {
    "score": ("score {table} -o {out}", ORIGINAL),
    "score-spearman": ("score {table} -o {out} --metrics ev_correlation_score,spearman", RANK),
    "score-auroc": ("score {table} -o {out} --metrics auroc", RANK),
    "score-all": ("score {table} -o {out} --metrics all", RANK),
    "calibrate": ("calibrate {split} -o {out}", ORIGINAL),
    "calibrate-percentile": ("calibrate {split} -o {out} --method percentile", ORIGINAL),
    "query": ("query {table}", ORIGINAL),
    "query-polars": ("query {table} --engine polars", ORIGINAL),
    "report": ("report {table} -o {out}/report.html", ORIGINAL),
    "report-scored": ("report {table} -o {out}/report.html --scores {scored}/scores.parquet", ORIGINAL),
}


def arguments_of(name: str, **places: Path) -> list[str]:
    """What a command is called with."""
    words = [word.format(**places) for word in COMMANDS[name][0].split()]
    if words[0] == "query":  # the question is one word, and holds spaces
        words.insert(2, BY_LAYER.format(stem=places["table"].stem))
    return words


def peak_of(command: list[str], log: Path, *, limit_s: float, limit_gib: float) -> tuple[float, float, int]:
    """Seconds, GiB and exit code of a command: its own peak, or that of the largest process it waited for.

    Beyond a limit it is ended, and its exit code is -9: others work on the machine too.
    """
    start = time.perf_counter()
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            if time.perf_counter() - start > limit_s or _held(process.pid) > limit_gib:
                process.kill()
            time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    return time.perf_counter() - start, usage.ru_maxrss / GIB, process.returncode


def _held(process: int) -> float:
    """GiB of a process that lie in memory now; 0 where the system does not say, or it has just ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def made(neurons: int, folder: Path) -> tuple[Path, Path]:
    """Both tables, which other processes make if they are not there."""
    table, split = folder / f"simulated-{neurons}.parquet", folder / f"simulated-split-{neurons}.parquet"
    whole = "import rows; from pathlib import Path; rows.write(Path({part!r}), {neurons})"
    for file, line in ((table, whole), (split, SPLIT)):
        if not file.exists():
            part = file.with_suffix(".part")
            code = line.format(part=str(part), table=str(table), neurons=neurons)
            subprocess.run([sys.executable, "-c", code], cwd=HERE, check=True)
            part.replace(file)
    return table, split


def main() -> None:
    """Prints a row for each command; the exit code is 1 if one failed or took more than was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, default=307_200)
    parser.add_argument("--only", default=",".join(COMMANDS), help="names, separated by commas")
    parser.add_argument("--limit-s", type=float, default=600.0, help="after which a command is ended")
    parser.add_argument("--limit-gib", type=float, default=12.0, help="of memory, beyond which it is ended")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "nscore-benchmarks")
    arguments = parser.parse_args()
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in COMMANDS]:
        parser.error(f"no such commands: {', '.join(unknown)}; there are {', '.join(COMMANDS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    table, split = made(arguments.neurons, arguments.folder)
    rows = arguments.neurons * RECORDS * TOKENS
    print(
        f"{arguments.neurons:,} neurons, {rows:,} rows, {table.stat().st_size / 1e9:.2f} GB; {os.cpu_count()} cores\n"
    )
    print("| command | time | peak memory | asked | load | exit |\n|---|---|---|---|---|---|", flush=True)
    held = True
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        scored = Path(name) / "scored"
        if "report-scored" in names:
            words = arguments_of("score", table=table, out=scored)
            subprocess.run([sys.executable, "-m", "nscore", *words], check=True, capture_output=True)
        for chosen in names:
            out, log = Path(name) / "out", Path(name) / "log"
            out.mkdir()
            load = os.getloadavg()[0]
            words = arguments_of(chosen, table=table, split=split, out=out, scored=scored)
            command, limits = [sys.executable, "-m", "nscore", *words], (arguments.limit_s, arguments.limit_gib)
            seconds, peak, code = peak_of(command, log, limit_s=limits[0], limit_gib=limits[1])
            asked = COMMANDS[chosen][1]
            held = held and code == 0 and peak <= asked
            shown = f"{seconds:.1f} s | {peak:.2f} GiB | {asked:g} GiB | {load:.1f} | {code}"
            print(f"| `{chosen}` | {shown} |", flush=True)
            if code:
                print(log.read_text("utf-8", "replace")[-2000:], file=sys.stderr, flush=True)
            shutil.rmtree(out)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
