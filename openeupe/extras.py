"""Which extra of the package installs an optional library."""

from __future__ import annotations

from openeupe.errors import InputError

EXTRAS = {
    "cv2": "curate",
    "faiss": "curate",
    "pyarrow": "curate",
    "datasets": "hf",
    "gguf": "language",
    "transformers": "language",
    "open_clip": "clip",
    "gradio": "demo",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "nncf": "openvino",
    "openvino": "openvino",
    "executorch": "executorch",
    "coremltools": "coreml",
    "lmms_eval": "vlm-bench",
    "mlflow": "mlflow",
    "trackio": "trackio",
    "wandb": "wandb",
}


def missing_extra(error: ImportError) -> InputError | None:
    """The one-line message for an optional library that is not installed. None for others."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return InputError(
        f"this needs the extra package {library}: pip install 'openeupe[{EXTRAS[library]}]'"
    )
