"""The formats that an encoder can be exported to, a file for each."""

from __future__ import annotations

from openeupe.deploy.targets.aoti import AotiTarget
from openeupe.deploy.targets.coreml import CoreMlTarget
from openeupe.deploy.targets.executorch import ExecuTorchTarget
from openeupe.deploy.targets.onnx import OnnxTarget
from openeupe.deploy.targets.openvino import OpenVinoTarget
from openeupe.deploy.targets.target import Job, Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (OnnxTarget(), OpenVinoTarget(), ExecuTorchTarget(), AotiTarget(), CoreMlTarget())
}

__all__ = ["TARGETS", "Job", "Target"]
