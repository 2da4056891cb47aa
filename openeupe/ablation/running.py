"""Run a study: train and evaluate missing results in several processes."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from openeupe.ablation.addresses import (
    address,
    evaluation_folder,
    link_run,
    needs,
    only,
    stage_folder,
)
from openeupe.ablation.evaluating import evaluate_arm, forget
from openeupe.ablation.inputs import check_inputs, rooted, settle_precision, settled
from openeupe.ablation.study import LoadedStudy
from openeupe.distillation.check import check_recipe
from openeupe.distillation.recipe import Recipe
from openeupe.distillation.run import run_recipe
from openeupe.distillation.run_folder import Run
from openeupe.distributed import default_device
from openeupe.encoders import resolve
from openeupe.encoders.run_layout import FINISHED, RECIPE
from openeupe.errors import InputError
from openeupe.identity import facts_identity
from openeupe.known_warnings import ignore_known_warnings
from openeupe.locks import locked
from openeupe.progress import LOGGED, SILENT, Progress
from openeupe.stopping import Stopped, end_with_parent


@dataclass(frozen=True)
class Place:
    """Settings of running a study.

    data: where relative paths of recipes and suite start. device: None: the GPU if there is one.
    """

    out: Path
    data: Path
    device: str | None = None


@dataclass
class Task:
    """A task, with the names of tasks that it depends on.

    call: returns a message to print instead of its time, or None.
    """

    name: str
    call: Callable[..., str | None]
    arguments: tuple[object, ...]
    after: list[str] = field(default_factory=list)


def check(loaded: LoadedStudy, place: Place) -> None:
    """Open every data set and build every architecture, before any work.

    Raises:
        InputError: in one line.
    """
    for name, recipe in loaded.recipes.items():
        try:
            check_recipe(rooted(recipe, place.data))
        except InputError as error:
            raise InputError(f"recipe {name}: {error}") from None
    for name, arm in loaded.study.arms.items():
        try:
            if arm.encoder:
                resolve(arm.encoder, allow_code=True)  # `load_study` has asked
        except InputError as error:
            raise InputError(f"arms.{name}.encoder: {error}") from None
    for name in loaded.benchmarks:
        try:
            loaded.suite.benchmarks[name].open(place.data)
        except InputError as error:
            raise InputError(f"benchmark {name}: {error}") from None


def warm_up() -> None:
    """Start the imports of other processes in parallel with this one's checks."""
    if _processes().get_start_method() == "forkserver":
        from multiprocessing import forkserver

        forkserver.ensure_running()


def run_study(
    loaded: LoadedStudy, place: Place, jobs: int = 1, progress: Progress = LOGGED
) -> list[str]:
    """Train and evaluate missing results; failures are reported, independent tasks continue.

    Returns one line for each piece of work that failed.

    Raises:
        InputError: if finished stages were trained on other images or encoders.
    """
    with locked(place.out, "the study"):
        check_inputs(loaded, place.data, place.out)
        settle_precision(place.out, _device(place), progress.message)
        forget()
        tasks = {task.name: task for task in _tasks(loaded, place)}
        if jobs == 1:
            return _one_by_one(tasks, progress)
        return _side_by_side(tasks, jobs, progress)


def results_folder(loaded: LoadedStudy, place: Place, arm: str, seed: int) -> Path:
    """Folder of the results of an arm's encoder of one seed."""
    trained = loaded.trained(arm)
    if trained is None:
        source = facts_identity(loaded.study.arms[arm].encoder)
        return place.out / "encoders" / f"{arm}-{source[:12]}" / loaded.suite.name
    recipe = loaded.seeded(trained.recipe, seed)
    return evaluation_folder(place.out, recipe, trained.stage, trained.student, loaded.suite.name)


def source_of(loaded: LoadedStudy, place: Place, arm: str, seed: int) -> str:
    """Source of the encoder of one arm and seed, after its stage."""
    trained = loaded.trained(arm)
    if trained is None:
        return str(loaded.study.arms[arm].encoder)
    recipe = loaded.seeded(trained.recipe, seed)
    run = place.out / "runs" / address(recipe, trained.stage)
    if not (run / RECIPE).is_file():  # the stages are there, but not the run that links them
        run, cut = link_run(place.out, recipe, trained.stage)
        Run.start(rooted(cut, place.data), run)
    return str(run / trained.stage / trained.student)


def _tasks(loaded: LoadedStudy, place: Place) -> list[Task]:
    """Evaluations in order of priority, see `LoadedStudy.wanted`."""
    tasks: dict[str, Task] = {}
    for arm, seed in loaded.wanted():
        trained = loaded.trained(arm)
        after = []
        if trained:
            recipe = loaded.seeded(trained.recipe, seed)
            for stage in (*needs(recipe, trained.stage), trained.stage):
                name = address(recipe, stage)
                done = (stage_folder(place.out, recipe, stage) / FINISHED).is_file()
                if not done and name not in tasks:
                    before = [address(recipe, earlier) for earlier in needs(recipe, stage)]
                    tasks[name] = Task(name, _train, (recipe, stage, place), before)
                if not done:
                    after = [name]
        # Always: it takes the encoder and the data to check whether saved results are theirs.
        arguments = (loaded, place, arm, seed)
        name = f"evaluate {arm}, seed {seed}" if trained else f"evaluate {arm}"
        tasks[name] = Task(name, _evaluate, arguments, after)
    for task in tasks.values():
        task.after = [name for name in task.after if name in tasks]
    return list(tasks.values())


def _train(recipe: Recipe, stage: str, place: Place) -> None:
    folder, _ = link_run(place.out, recipe, stage)
    names = [*needs(recipe, stage), stage]
    there = settled(rooted(only(recipe, names), place.data), place.out)
    run_recipe(there, folder, device=_device(place), progress=SILENT)


def _evaluate(loaded: LoadedStudy, place: Place, arm: str, seed: int) -> str | None:
    source = source_of(loaded, place, arm, seed)
    folder = results_folder(loaded, place, arm, seed)
    new = evaluate_arm(loaded, place.data, source, arm, folder, _device(place))
    return None if new else "saved before"


def _device(place: Place) -> torch.device:
    return torch.device(place.device) if place.device else default_device()


def _one_by_one(tasks: dict[str, Task], progress: Progress) -> list[str]:
    failed: dict[str, str] = {}
    for task in tasks.values():
        start, message = time.perf_counter(), None
        if not _lacks(task, failed):
            try:
                message = task.call(*task.arguments)
            except InputError as error:
                failed[task.name] = str(error)
        _report(task, failed, message, start, progress)
    return [f"{name}: {why}" for name, why in failed.items()]


def _side_by_side(tasks: dict[str, Task], jobs: int, progress: Progress) -> list[str]:
    failed: dict[str, str] = {}
    waiting = dict(tasks)
    running: dict[Future[str | None], tuple[Task, float]] = {}
    with (
        ProcessPoolExecutor(jobs, mp_context=_processes(), initializer=_quiet_start) as pool,
        _passing_stops_on(pool),
    ):
        while waiting or running:
            open_names = {*waiting, *(task.name for task, _ in running.values())}
            for task in list(waiting.values()):
                if _lacks(task, failed):
                    del waiting[task.name]
                    _report(task, failed, None, time.perf_counter(), progress)
                elif len(running) < jobs and not open_names & set(task.after):
                    del waiting[task.name]
                    future = pool.submit(task.call, *task.arguments)
                    running[future] = (task, time.perf_counter())
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                task, start = running.pop(future)
                error = future.exception()
                if error is not None:
                    if not isinstance(error, InputError):
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise error
                    failed[task.name] = str(error)
                _report(task, failed, None if error else future.result(), start, progress)
    return [f"{name}: {why}" for name, why in failed.items()]


@contextmanager
def _passing_stops_on(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Stop the processes, which save their work, if this one is stopped."""
    try:
        yield
    except Stopped:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise


def _processes() -> multiprocessing.context.BaseContext:
    """Start method of processes. Copies of this one could not use the GPU."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.utils.tensorboard", __name__])  # imported once for all
    return context


def _quiet_start() -> None:
    """In each process: threads are shared out by running several processes, not inside one.

    Ctrl-C reaches all of them: the first process passes it on, as SIGTERM.
    """
    torch.set_num_threads(1)
    ignore_known_warnings()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _lacks(task: Task, failed: dict[str, str]) -> bool:
    """Whether a dependency of the task has failed."""
    lacking = [name for name in task.after if name in failed]
    if lacking:
        failed[task.name] = f"{lacking[0]} failed"
    return bool(lacking)


def _report(
    task: Task, failed: dict[str, str], message: str | None, start: float, progress: Progress
) -> None:
    message = failed.get(task.name) or message or f"{time.perf_counter() - start:.0f} s"
    progress.message(f"{task.name}: {message}")
