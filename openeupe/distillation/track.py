"""Experiment trackers: TensorBoard, wandb, mlflow and trackio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from openeupe.errors import InputError
from openeupe.files import write_atomically

TrackerName = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class Tracker(Protocol):
    """Interface of trackers."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the scalars of a step."""

    def close(self) -> None:
        """Flush and close."""


def check_tracker(name: TrackerName) -> None:
    """Raise `InputError` if the tracker's package is not installed: before any work."""
    if name != "tensorboard":
        _module(name)


def open_tracker(name: TrackerName, folder: Path, run: str, stage: str, first_step: int) -> Tracker:
    """Open the tracker of one stage; a resumed stage continues its run.

    Args:
        folder: of the stage; local files are written to it (trackio: to $TRACKIO_DIR).
        run: the recipe's name, which is the project of wandb, mlflow and trackio.
        stage: the name of their run.
        first_step: finished steps; later records are replaced.

    Raises:
        InputError: if the tracker's package is not installed.
    """
    if name == "tensorboard":
        return TensorBoard(folder, first_step)
    module = _module(name)
    if name == "mlflow":
        return _Mlflow(module, folder, run, stage)
    return _Wandb(module, name, folder, run, stage)


def _module(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise InputError(
            f"tracker {name} is not installed: pip install 'openeupe[{name}]', or leave tracker out"
        ) from None


class TensorBoard:
    """Event files in the stage's folder."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder / "tensorboard"
        self.board = SummaryWriter(str(self.folder), purge_step=first_step + 1)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log the scalars of a step."""
        with self._named():
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        with self._named():
            self.board.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Report a failed write of TensorBoard's thread with the folder."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"cannot write to {self.folder} ({error.strerror}): free space and run the same "
                "command again"
            ) from None


class _Wandb:
    """wandb, and trackio with the same API. The id identifies a resumed stage."""

    def __init__(self, module: Any, name: str, folder: Path, run: str, stage: str) -> None:
        more = {"dir": str(folder), "id": _identity(folder)} if name == "wandb" else {}
        self.module = module
        self.module.init(project=run, name=stage, resume="allow", **more)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.module.log(dict(values), step=step)

    def close(self) -> None:
        self.module.finish()


class _Mlflow:
    """mlflow, at MLFLOW_TRACKING_URI, else in a SQLite file of the stage's folder."""

    def __init__(self, module: Any, folder: Path, run: str, stage: str) -> None:
        import os

        if "MLFLOW_TRACKING_URI" not in os.environ:
            module.set_tracking_uri(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
        experiment = module.set_experiment(run)
        known = folder / "mlflow-run"
        self.module = module
        if known.is_file():
            module.start_run(run_id=known.read_text())
        else:
            begun = module.start_run(run_name=stage, experiment_id=experiment.experiment_id)
            write_atomically(known, begun.info.run_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.module.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self.module.end_run()


def _identity(folder: Path) -> str:
    """Id that is saved in the folder, for resumed stages."""
    import uuid

    path = folder / "wandb-run"
    if not path.is_file():
        write_atomically(path, uuid.uuid4().hex[:12])
    return path.read_text()
