"""Kills, stops, power cuts, full disks and second processes, against every command that writes.

    python tests/crash_matrix.py FOLDER [--kill N] [--stop N] [--cut N] [--full N] [--pair N]
                                 [--seed N] [--commands distill,save,...]

Each attempt disturbs one command at a random moment and then gives the same command again. It
passes if the second one ends with 0, the files are those of a run that nobody disturbed (weights,
figures and metrics to the last bit), what had been finished was not made again, nothing else lies
about, no process is left, and no traceback was printed. Power cuts (an ext4 image is copied while
the command stands still) and full disks (a small tmpfs) need root. Ends with 1 if any failed.

Commands run in forked children, because importing torch costs seconds; this process computes
nothing itself.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from openeupe.distillation.metrics import read_metrics
from tests.crash_commands import COMMANDS, TO_BEGIN, prepare
from tests.crash_process import Command, Ended

MARKERS = ("finished.json", "benchmarks/knn.json", "benchmarks/again.json")  # of something finished


def state(place: Path) -> dict[str, str]:
    """A digest of each file by its name; of metrics without the times."""
    found = {}
    for path in sorted(place.rglob("*")):
        if not path.is_file() or path.name == ".lock" or "tensorboard" in path.parts:
            continue
        if path.name == "metrics.jsonl":
            content = json.dumps(timeless(read_metrics(path))).encode()
        elif path.suffix == ".json":
            content = json.dumps(timeless(json.loads(path.read_text()))).encode()
        else:
            content = path.read_bytes()
        found[str(path.relative_to(place))] = hashlib.sha256(content).hexdigest()
    return found


def timeless(content: Any) -> Any:
    """Plain data without what differs from run to run."""
    if isinstance(content, list):
        return [timeless(value) for value in content]
    if not isinstance(content, dict):
        return content
    times = ("seconds", "date", "images_per_s", "waiting")
    return {key: timeless(value) for key, value in content.items() if key not in times}


def finished(place: Path) -> dict[str, str]:
    """What says that something is finished: it must stay as it is."""
    return {name: digest for name, digest in state(place).items() if name.endswith(MARKERS)}


class Matrix:
    """The attempts, and what came of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.material = folder / "material"
        self.place = folder / "place"  # always the same: some files hold its name
        self.wanted: dict[str, dict[str, str]] = {}
        self.seconds: dict[str, float] = {}
        self.table: dict[str, dict[str, list[str]]] = {}

    def start(self, name: str, log: str = "log") -> Command:
        return Command(COMMANDS[name](self.material, self.place), self.folder / log)

    def undisturbed(self, names: list[str]) -> None:
        """Run each command twice; what differs between the two says nothing, such as dates."""
        prepare(self.material)
        words = COMMANDS[TO_BEGIN](self.material, self.material)
        begun = Command(words, self.folder / "log").wait()
        assert begun.code == 0, begun.said
        for name in names:
            both = []
            for _ in range(2):
                self.fresh()
                ended = self.start(name).wait()
                self.seconds[name] = ended.seconds
                assert ended.code == 0, (name, ended.said)
                both.append(state(self.place))
            one, two = both
            assert set(one) == set(two), set(one) ^ set(two)
            self.wanted[name] = {k: v if two[k] == v else "" for k, v in one.items()}
            print(f"{name}: {self.seconds[name]:.1f} s, {len(one)} files", flush=True)

    def fresh(self) -> None:
        for inner in self.place.iterdir() if self.place.is_dir() else ():
            shutil.rmtree(inner) if inner.is_dir() and not inner.is_symlink() else inner.unlink()
        self.place.mkdir(exist_ok=True)

    def moment(self, command: Command, name: str, share: float = 1) -> None:
        """Wait for a random moment of it, in the first `share` of its work."""
        command.reach(self.random.uniform(0, share * self.seconds[name]))
        time.sleep(self.random.uniform(0, 0.01))  # the system counts hundredths of a second

    def again(self, names: list[str], before: dict[str, str]) -> list[str]:
        """Give the commands again; what is wrong then."""
        wrong = []
        wanted: dict[str, str] = {}
        for name in dict.fromkeys(names):
            ended = self.start(name).wait()
            wanted |= self.wanted[name]
            if ended.code != 0:
                wrong.append(f"{name} again: {ended.code}, {ended.said[-600:]}")
        found = state(self.place)
        wrong += [f"missing: {k}" for k in wanted if k not in found]
        wrong += [f"stray: {k}" for k in found if k not in wanted]
        wrong += [f"differs: {k}" for k, v in wanted.items() if v and found.get(k, v) != v]
        wrong += [f"made again: {k}" for k, v in before.items() if found.get(k) != v]
        return wrong

    def note(self, kind: str, name: str, ended: list[Ended], codes: set[int], wrong: list[str],
             ) -> None:  # fmt: skip
        for one in ended:
            if one.code not in codes:
                wrong = [*wrong, f"exit code {one.code}: {one.said[-600:]}"]
            elif "Traceback" in one.said:
                wrong = [*wrong, f"traceback: {one.said[-600:]}"]
        self.table.setdefault(name, {}).setdefault(kind, []).append("; ".join(wrong))
        print(f"{kind} {name}: {'; '.join(wrong) or 'ok'}", flush=True)

    def kill(self, name: str) -> None:
        """`kill -9` of the first process alone, as the out-of-memory killer does."""
        self.fresh()
        command = self.start(name)
        self.moment(command, name)
        os.kill(command.pid, signal.SIGKILL)
        ended = command.wait()
        before = finished(self.place)
        self.note("kill", name, [ended], {-9, 0}, self.again([name], before))

    def stop(self, name: str) -> None:
        """SIGTERM to the first process, or to all, as batch systems do."""
        self.fresh()
        command = self.start(name)
        self.moment(command, name)
        if self.random.random() < 0.5:
            os.kill(command.pid, signal.SIGTERM)
        else:
            os.killpg(command.pid, signal.SIGTERM)
        ended = command.wait()
        before = finished(self.place)
        self.note("stop", name, [ended], {143, -15, 0}, self.again([name], before))

    def cut(self, name: str) -> None:
        """A power cut: what an ext4 image holds while the command stands still."""
        image, copy = self.folder / "disk.img", self.folder / "cut.img"
        with image.open("wb") as file:
            file.truncate(256 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        with mounted(image, self.place):
            shutil.rmtree(self.place / "lost+found")
            command = self.start(name)
            self.moment(command, name)
            os.killpg(command.pid, signal.SIGSTOP)
            shutil.copyfile(image, copy)
            os.killpg(command.pid, signal.SIGKILL)
            ended = command.wait()
        with mounted(copy, self.place):
            before = finished(self.place)
            self.note("cut", name, [ended], {-9, 0}, self.again([name], before))

    def full(self, name: str) -> None:
        """A disk that gets full at a random byte; then there is space again."""
        self.fresh()
        needed = sum(p.stat().st_size for p in self._whole(name).rglob("*") if p.is_file())
        size = 4096 * self.random.randint(2, max(3, 3 * needed // 4096 // 2))
        with mounted(f"size={size}", self.place):
            ended = self.start(name).wait()
            before = finished(self.place)
            subprocess.run(["mount", "-o", "remount,size=1g", str(self.place)], check=True)
            self.note("full", name, [ended], {0, 2}, self.again([name], before))

    def _whole(self, name: str) -> Path:
        """The folder of an undisturbed run, to know its size."""
        whole = self.folder / f"whole-{name}"
        if not whole.is_dir():
            self.start(name).wait()
            shutil.copytree(self.place, whole, symlinks=True)
            self.fresh()
        return whole

    def pair(self, one: str, two: str) -> None:
        """Two processes at once: the second may be refused, in one line."""
        self.fresh()
        commands = [self.start(one, "one")]
        self.moment(commands[0], one, share=0.5)
        commands.append(self.start(two, "two"))
        ended = [command.wait() for command in commands]
        wrong = [] if any(end.code == 0 for end in ended) else ["both failed"]
        wrong += [f"refused: {end.said[-600:]}" for end in ended
                  if end.code == 2 and "is in use by" not in end.said]  # fmt: skip
        wrong += self.again([one, two], finished(self.place))
        self.note("pair", f"{one} + {two}", ended, {0, 2}, wrong)


@contextmanager
def mounted(what: Path | str, place: Path) -> Iterator[None]:
    """An image, or a tmpfs with such options, at `place` while it lasts."""
    kind = ["-o", "loop", str(what)] if isinstance(what, Path) else ["-t", "tmpfs", "-o", what, "x"]
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", *kind, str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("folder", type=Path)
    words.add_argument("--commands", default=",".join(COMMANDS), help="some of them, with commas")
    for kind in ("kill", "stop", "cut", "full", "pair"):
        words.add_argument(f"--{kind}", type=int, default=0, help="attempts, over all commands")
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    given.folder.mkdir(parents=True)
    matrix = Matrix(given.folder.resolve(), given.seed)
    names = given.commands.split(",")
    matrix.undisturbed(names)
    for kind in ("kill", "stop", "cut", "full"):
        for number in range(getattr(given, kind)):
            getattr(matrix, kind)(names[number % len(names)])
    pairs = [(one, two) for place, one in enumerate(names) for two in names[place:]]
    for number in range(given.pair):
        matrix.pair(*pairs[number % len(pairs)])
    failed = 0
    for name, kinds in matrix.table.items():
        counts = {kind: sum(map(bool, wrong)) for kind, wrong in kinds.items()}
        failed += sum(counts.values())
        told = ", ".join(f"{kind} {len(kinds[kind]) - bad}/{len(kinds[kind])}"
                         for kind, bad in counts.items())  # fmt: skip
        print(f"{name:20} {told}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
