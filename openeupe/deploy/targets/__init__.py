"""The engines that an encoder can be exported to, a file for each."""

from __future__ import annotations

from openeupe.deploy.targets.aoti import AotInductor
from openeupe.deploy.targets.coreml import CoreMl
from openeupe.deploy.targets.executorch import ExecuTorch
from openeupe.deploy.targets.onnx import OnnxRuntime
from openeupe.deploy.targets.openvino import OpenVino
from openeupe.deploy.targets.target import Job, Precision, Session, Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (OnnxRuntime(), OpenVino(), ExecuTorch(), AotInductor(), CoreMl())
}

__all__ = ["TARGETS", "Job", "Precision", "Session", "Target"]
