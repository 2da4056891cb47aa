"""A process of a job, one of which is killed while it trains: a program for `test_distributed.py`.

python -m torch.distributed.run --nproc-per-node 2 torn.py RANK STEP distill RECIPE ...
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from openeupe.cli import main
from openeupe.distillation.trainer import Trainer


def kill_in(rank: int, step: int) -> None:
    """This process kills itself before `step` if it is `rank`."""
    whole = Trainer.step

    def torn(self: Trainer, images: Any, at: int, *kept: Any) -> Any:
        if at == step and self.processes.rank == rank:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(self, images, at, *kept)

    Trainer.step = torn  # type: ignore[method-assign]


if __name__ == "__main__":
    kill_in(int(sys.argv[1]), int(sys.argv[2]))
    sys.argv[1:3] = []
    main()
