"""Encoders from a Hugging Face hub: the files named, verified, and never code beside them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from openeupe.encoders.weights import first_line
from openeupe.errors import InputError

HUB = "hf-hub:"  # as timm writes it
_FOLDER = ("config.json", "preprocessor_config.json", "model.safetensors", "heads.safetensors")


def download(source: str) -> Path:
    """Fetch `hf-hub:OWNER/NAME[@REVISION]`; a folder, or the one weights file of the repository.

    Weights are compared with the sha256 that the hub states for them. Without a network the hub
    client's cache is used. The token, if one is needed, is the one that the client has.

    Raises:
        InputError: if it cannot be had, or holds no encoder.
    """
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    name, _, revision = source.removeprefix(HUB).partition("@")
    try:
        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
    except Exception as error:  # hub clients raise whatever their network library raises
        try:
            return Path(
                snapshot_download(
                    name,
                    revision=revision or None,
                    allow_patterns=list(_FOLDER),
                    local_files_only=True,
                )
            )
        except Exception:
            raise InputError(
                f"{source} cannot be had ({first_line(error)}): check the name, the network, and "
                "whether it asks for a login (hf auth login)"
            ) from None
    files = {file.rfilename: file for file in info.siblings or []}
    wanted = [file for file in _FOLDER if file in files]
    if "config.json" not in wanted or "model.safetensors" not in wanted:
        weights = [file for file in files if file.startswith("EUPE-") and file.endswith(".pt")]
        if len(weights) != 1:
            raise InputError(f"{source} holds neither model.safetensors nor a released EUPE file")
        wanted = weights
    paths = {}
    for file in wanted:
        try:
            path = Path(hf_hub_download(name, file, revision=info.sha))
        except Exception as error:
            raise InputError(f"{source}: {file} cannot be had ({first_line(error)})") from error
        lfs = files[file].lfs
        if lfs is not None and _sha256(path) != lfs.sha256:
            raise InputError(f"{source}: {file} is not the file that the hub names: fetch it again")
        paths[file] = path
    return paths[wanted[0]].parent if "config.json" in paths else paths[wanted[0]]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
