"""Every executor gives the results in the order of the jobs, survives the loss of a worker, and passes errors on."""

from __future__ import annotations

import os

import executor_work as work
import pytest

from nscore.errors import ExecutorError, SettingError, TableError, UnknownNameError
from nscore.executors import EXECUTORS, Local, Processes, Ray, make_executor


def made(name, request):
    if name == "ray":
        request.getfixturevalue("cluster")
    return make_executor(name) if name == "local" else make_executor(name, workers=2)


@pytest.fixture(params=["local", "processes", "ray"])
def any_executor(request):
    return made(request.param, request)


@pytest.fixture(params=["processes", "ray"])
def others(request):
    return made(request.param, request)


def test_results_come_in_the_order_of_the_jobs(any_executor):
    assert list(any_executor.each(work.squared, range(20))) == [n * n for n in range(20)]
    assert list(any_executor.each(work.squared, [])) == []


def test_two_workers_work_at_a_time_in_processes_of_their_own(others):
    pids = set(others.each(work.process_of, range(6)))
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert others.workers == 2


def test_no_more_jobs_are_taken_than_keep_the_workers_busy(any_executor):
    taken = []

    def jobs():
        for n in range(40):
            taken.append(n)
            yield n

    results = any_executor.each(work.squared, jobs())
    next(results)
    assert len(taken) <= 2 * any_executor.workers + 1
    results.close() if hasattr(results, "close") else None


def test_an_error_of_the_work_is_the_same_error_here(any_executor):
    results = any_executor.each(work.failing, range(9))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TableError, match="here: wrong: 3"):
        next(results)


def test_work_that_ends_in_the_middle_of_its_jobs_again_and_again_ends_nothing_else(request):
    crew = made("ray", request)
    for _ in range(40):  # tasks that end while they are cancelled took this process down about one time in twenty
        results = crew.each(work.failing, range(9))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TableError):
            next(results)
        closed = crew.each(work.squared, range(40))
        next(closed)
        closed.close()


def test_a_job_whose_worker_was_killed_is_done_again(others, tmp_path):
    jobs = [(n, str(tmp_path)) for n in range(6)]
    assert list(others.each(work.killed_once, jobs)) == list(range(6))
    assert (tmp_path / "been-2").exists()


def test_workers_that_are_killed_again_and_again_are_an_error(others):
    with pytest.raises(ExecutorError, match=r"again and again|lost the workers"):
        list(others.each(work.killed_always, range(4)))


def test_processes_share_the_processors_out(monkeypatch):
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    monkeypatch.setattr("nscore.executors.processes.cores", lambda: 4)
    assert set(Processes(2).each(work.threads, range(2))) == {2}
    assert "POLARS_MAX_THREADS" not in os.environ
    monkeypatch.setenv("POLARS_MAX_THREADS", "1")
    assert set(Processes(2).each(work.threads, range(2))) == {1}


def test_each_process_keeps_to_its_own_processors_where_all_are_given_out(monkeypatch):
    monkeypatch.delenv("POLARS_MAX_THREADS", raising=False)
    mine = os.sched_getaffinity(0)
    if len(mine) < 2:
        pytest.skip("one processor")
    first, second = sorted(set(Processes(2).each(work.processors, range(8))))
    assert set(first) | set(second) == mine
    assert not set(first) & set(second)
    assert os.sched_getaffinity(0) == mine
    monkeypatch.setenv("POLARS_MAX_THREADS", str(len(mine)))
    assert set(Processes(2).each(work.processors, range(8))) == {tuple(sorted(mine))}


def test_executors_are_made_by_name():
    assert list(EXECUTORS)[:3] == ["local", "processes", "ray"]
    assert isinstance(make_executor("local", workers=None), Local)
    assert make_executor("processes", workers=3) == Processes(3)
    assert Processes().workers == len(os.sched_getaffinity(0))
    mine = Processes(1)
    assert make_executor(mine) is mine
    with pytest.raises(UnknownNameError, match="process"):
        make_executor("process")
    with pytest.raises(SettingError, match="workers: the executor local has no such option"):
        make_executor("local", workers=2)
    for kind in (Processes, Ray):
        with pytest.raises(SettingError, match="workers"):
            kind(-1)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ExecutorError, match=r"pip install 'nscore\[ray\]'"):
        make_executor("ray")


def test_a_cluster_that_is_not_there_is_an_error():
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        pytest.skip("Ray runs already")
    with pytest.raises(ExecutorError, match=r"ray at 127\.0\.0\.1:1"):
        Ray(address="127.0.0.1:1")
