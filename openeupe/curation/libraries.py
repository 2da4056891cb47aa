"""Import optional libraries, or raise an `InputError` with the fix."""

from __future__ import annotations

from typing import Any

from openeupe.errors import InputError


def import_faiss() -> Any:
    """Nearest neighbours and k-means."""
    try:
        import faiss
    except ImportError:
        raise InputError("curating needs faiss: pip install 'openeupe[curate]'") from None
    return faiss


def import_opencv() -> Any:
    """Alignment of images."""
    try:
        import cv2
    except ImportError:
        raise InputError("curating needs OpenCV: pip install 'openeupe[curate]'") from None
    return cv2
