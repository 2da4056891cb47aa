"""Good files to begin from: made once a process, by the program itself."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import openeupe
from openeupe.cli import main
from openeupe.encoders import save, timm_folder, transformers_folder
from tests.fuzz.labelled import write_labelled
from tests.tiny_recipe import write_images, write_recipe

SUITE = (
    "{name: cut, benchmarks: {knn: {kind: knn, protocol: knn/test-v1, domain: image, short: 32, "
    "crop: 32, k: [3], data: {layout: scenes, count: 12}}}}"
)
STUDY: dict[str, Any] = {
    "name": "cut",
    "suite": "suite.yaml",
    "recipes": {"r": {"base": "tiny.yaml"}},
    "arms": {"a": {"recipe": "r"}, "b": {"encoder": "raw_pixels"}},
    "tables": {"t": {"rows": ["a", "b"], "reference": "b"}},
}


def run(*arguments: object) -> tuple[int, str]:
    """Exit code of a command run in this process, and what it wrote to standard error."""
    told = io.StringIO()
    before = sys.argv
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    sys.argv = ["openeupe", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(told):
            main()
    except SystemExit as ended:
        return int(ended.code or 0), told.getvalue()
    finally:
        sys.argv = before
        for one, handler in handlers.items():
            signal.signal(one, handler)
    return 0, told.getvalue()


def _must(*arguments: object) -> None:
    code, told = run(*arguments)
    assert code == 0, told


class Good:
    """A folder of good files; each is made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_recipe(folder, 2, checkpoint_every=1, log_every=1)
        (folder / "suite.yaml").write_text(SUITE)
        self.images = folder / "images"

    def copy(self, name: str, into: Path) -> Path:
        """A copy of one of the things below."""
        made = self.folder / name
        if not made.exists():
            getattr(self, f"_make_{name}")(made)
        target = into / name
        if made.is_dir():
            shutil.copytree(made, target)
        else:
            shutil.copy(made, target)
        return target

    def encoded(self, form: str) -> bytes:
        """A small image file of a format."""
        pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form)
        return file.getvalue()

    def tar(self) -> bytes:
        """A shard with names and members that are odd, but can be read."""
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name in ("0.jpg", "../../1.png", "a/2.jpg", "/etc/3.jpg", "link.jpg", "0.json"):
                member = tarfile.TarInfo(name)
                data = self.encoded("JPEG")
                member.size = len(data)
                if name == "link.jpg":
                    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
                tar.addfile(member, io.BytesIO(data))
        return file.getvalue()

    def _make_run(self, made: Path) -> None:
        _must("distill", self.folder / "tiny.yaml", "--run", made, "--device", "cpu")

    def _make_cut(self, made: Path) -> None:
        """A run that was stopped before its last step: what it saved is still there."""
        from openeupe.distillation import trainer

        class Stop(Exception):
            pass

        def stop(record: dict[str, float]) -> None:
            if record["step"] == 2:
                raise Stop

        before = trainer.Trainer.__init__

        def stopping(own: Any, *arguments: Any, **options: Any) -> None:
            before(own, *arguments, **{**options, "on_log": stop})

        trainer.Trainer.__init__ = stopping  # type: ignore[method-assign]
        try:
            run("distill", self.folder / "tiny.yaml", "stages.student.steps=3", "--run", made,
                "--device", "cpu")  # fmt: skip
        finally:
            trainer.Trainer.__init__ = before  # type: ignore[method-assign]
        assert list(made.glob("student/checkpoints/step-*")), "nothing was saved"

    def _make_results(self, made: Path) -> None:
        _must("evaluate", "raw_pixels", "--suite", self.folder / "suite.yaml", "--out", made)

    def _make_curated(self, made: Path) -> None:
        write_images(made / "photos", 8)
        _must("curate", made / "photos", "--out", made / "it.parquet", "--encoder", "raw_pixels",
              "resolution=32", "min_resolution=8", "clusters=2", "--device", "cpu")  # fmt: skip

    def _make_labelled(self, made: Path) -> None:
        write_labelled(made)

    def _make_own(self, made: Path) -> None:
        save(openeupe.create("eupe_vit_t", depth=1, embed_dim=32, num_heads=2), made)

    def _make_timm(self, made: Path) -> None:
        made.mkdir()
        timm_folder.save(openeupe.create("test_vit"), made, "mit")

    def _make_transformers(self, made: Path) -> None:
        made.mkdir()
        small = openeupe.create("eupe_vit_t", depth=1, embed_dim=32, num_heads=2)
        transformers_folder.save(small, made)

    def _make_released(self, made: Path) -> None:
        made.mkdir()
        tensors = {"cls_token": torch.zeros(1, 1, 8), "storage_tokens": torch.zeros(1, 4, 8),
                   "blocks.0.attn.qkv.bias": torch.zeros(24)}  # fmt: skip
        torch.save(tensors, made / "EUPE-ViT-T.pt")
        shutil.copy(self.copy("own", made) / "model.safetensors", made / "EUPE-ViT-T.safetensors")
        shutil.rmtree(made / "own")

    def _make_export(self, made: Path) -> None:
        _must("export", self.copy("own", self.folder / "for-export"), "--to", "onnx",
              "--out", made, "--resolution", 32)  # fmt: skip
