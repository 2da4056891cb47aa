"""Several processes make the manifest that one process makes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from .conftest import jpeg, photo


@pytest.mark.slow
def test_two_processes_share_the_work(image_pool: Path, tmp_path: Path) -> None:
    for number in range(30, 60):
        (image_pool / f"{number}.jpg").write_bytes(jpeg(photo(number)))
    command = ["openeupe", "curate", str(image_pool), "--encoder", "untrained:test_resnet"]
    command += ["resolution=32", "clusters=4", "hash_distance=12", "--device", "cpu"]
    launch = [sys.executable, "-c", f"import openeupe.curation.image_pool as h; h.PART = 7; {_RUN}"]
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    script = tmp_path / "run.py"
    script.write_text(launch[-1])
    subprocess.run([sys.executable, script, *command[1:], "--out", one], check=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, script, *command[1:], "--out", two], check=True)
    assert pq.read_table(one).equals(pq.read_table(two))
    assert len(list((tmp_path / "two.work" / "pool-scan").glob("*.parquet"))) == 7


_RUN = "import openeupe.cli as c; c.main()"
