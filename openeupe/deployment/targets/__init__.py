"""Export targets, one file for each."""

from __future__ import annotations

from openeupe.deployment.targets.aoti import AotiTarget
from openeupe.deployment.targets.coreml import CoreMlTarget
from openeupe.deployment.targets.executorch import ExecuTorchTarget
from openeupe.deployment.targets.onnx import OnnxTarget
from openeupe.deployment.targets.openvino import OpenVinoTarget
from openeupe.deployment.targets.target import Job, Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (OnnxTarget(), OpenVinoTarget(), ExecuTorchTarget(), AotiTarget(), CoreMlTarget())
}

__all__ = ["TARGETS", "Job", "Target"]
