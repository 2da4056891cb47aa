"""Inference engines that run exported files."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from openeupe.encoders.encoder import Tokens
from openeupe.errors import InputError

Precision = Literal["fp32", "fp16", "bf16", "int8"]
# Images as the file takes them, `[B, 3, H, W]` float32 or uint8 -> float32 tokens.
Session = Callable[[Tensor], Tokens]

INPUT, OUTPUTS = "images", ("cls", "patches")  # as they are named in every file
# Precision of OpenVINO's computation. Its default is bf16 where the processor has it.
INFERENCE = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "bf16"}


class Engine:
    """A file format and its inference engine.

    precisions: supported ones; the first is the default.
    runtime: packages that must be importable to run a file.
    extra: the extra of this package that installs them.
    batch: the batch size a file is fixed to; None: any.
    runs_here: whether this machine can run a file; otherwise parity is not verified, and this is
        reported.
    """

    name: str
    suffix: str
    precisions: tuple[Precision, ...]
    runtime: tuple[str, ...] = ()
    extra: str | None = None
    batch: int | None = None
    runs_here: bool = True

    def require(self, packages: tuple[str, ...]) -> None:
        """Raise `InputError` if a package is missing."""
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            raise InputError(
                f"{self.name} export needs the extra package {missing[0]}: "
                f"pip install 'openeupe[{self.extra}]'"
            )

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        """Load a file for running.

        Args:
            path: the file.
            precision: that it was exported with.
            threads: of the engine.
            batch: the only batch size that will be used, which makes some engines faster.
        """
        raise NotImplementedError

    def files(self, path: Path) -> list[Path]:
        """All files that belong to `path`."""
        return [path]


class AotInductor(Engine):
    """Machine code by PyTorch's compiler, for this machine's kind of processor."""

    name = "aoti"
    suffix = ".pt2"
    precisions: tuple[Precision, ...] = ("fp32",)

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        torch.set_num_threads(threads)
        model = torch._inductor.aoti_load_package(str(path))

        def run(images: Tensor) -> Tokens:
            cls, patches = model(images.contiguous())  # the machine code ignores strides
            return Tokens(cls, patches)

        return run


class CoreMl(Engine):
    """Apple's devices; runs on a Mac only."""

    name = "coreml"
    suffix = ".mlpackage"
    precisions: tuple[Precision, ...] = ("fp16", "fp32")
    runtime = ("coremltools",)
    extra = "coreml"
    batch = 1
    runs_here = platform.system() == "Darwin"

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        if not self.runs_here:
            raise InputError("Core ML files run on a Mac only: copy the folder to one")
        import coremltools

        model = coremltools.models.MLModel(str(path))

        def run(images: Tensor) -> Tokens:
            outputs = model.predict({INPUT: images.contiguous().numpy()})
            return Tokens(*(torch.from_numpy(outputs[name]).float() for name in OUTPUTS))

        return run


class ExecuTorch(Engine):
    """ExecuTorch with XNNPACK: phones and other small devices; runs on this machine, too."""

    name = "executorch"
    suffix = ".pte"
    precisions: tuple[Precision, ...] = ("fp32", "int8")
    runtime = ("executorch",)
    extra = "executorch"
    batch = 1

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        # ExecuTorch has one pool of threads for the process.
        reset = getattr(portable_lib, "_unsafe_reset_threadpool", None)
        if reset is not None:
            reset(threads)
        method = Runtime.get().load_program(path).load_method("forward")

        def run(images: Tensor) -> Tokens:
            cls, patches = method.execute([images.contiguous()])
            return Tokens(cls.clone(), patches.clone())

        return run


class OnnxRuntime(Engine):
    """ONNX files, run by ONNX Runtime on the CPU."""

    name = "onnx"
    suffix = ".onnx"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    runtime = ("onnxruntime",)
    extra = "onnx"

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Waiting threads would take the processor from other programs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if batch is not None:
            options.add_free_dimension_override_by_name("batch", batch)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        def run(images: Tensor) -> Tokens:
            cls, patches = session.run(list(OUTPUTS), {INPUT: images.numpy()})
            return Tokens(torch.from_numpy(cls), torch.from_numpy(patches))

        return run

    def files(self, path: Path) -> list[Path]:
        data = path.with_name(f"{path.name}.data")
        return [path, data] if data.exists() else [path]


class OpenVino(Engine):
    """Intel's engine, which is also fast on AMD processors. Runs on Arm, too."""

    name = "openvino"
    suffix = ".xml"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    runtime = ("openvino",)
    extra = "openvino"

    def open(self, path: Path, precision: Precision, threads: int, batch: int | None) -> Session:
        import openvino

        model = openvino.Core().read_model(path)
        if batch is not None:
            shape = model.input().get_partial_shape()
            shape[0] = batch
            model.reshape(shape)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": INFERENCE[precision],
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

        def run(images: Tensor) -> Tokens:
            request.infer([images.numpy()])
            cls, patches = (request.get_output_tensor(i).data.copy() for i in range(2))
            return Tokens(torch.from_numpy(cls).float(), torch.from_numpy(patches).float())

        return run

    def files(self, path: Path) -> list[Path]:
        return [path, path.with_suffix(".bin")]


ENGINES: dict[str, Engine] = {
    engine.name: engine
    for engine in (OnnxRuntime(), OpenVino(), ExecuTorch(), AotInductor(), CoreMl())
}
