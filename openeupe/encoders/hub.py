"""Download encoders from a Hugging Face hub: weights and config only, verified."""

from __future__ import annotations

import hashlib
from pathlib import Path

from openeupe.encoders.weights import first_line
from openeupe.errors import InputError

HUB = "hf-hub:"  # as timm writes it
_FOLDER = ("config.json", "preprocessor_config.json", "model.safetensors", "heads.safetensors")


def download(source: str) -> Path:
    """Fetch `hf-hub:OWNER/NAME[@REVISION]`; a folder, or the one weights file of the repository.

    Weights are compared with the sha256 that the hub states for them. Without a network, the
    hub client's cache is used. The token, if one is needed, is the client's own.

    Raises:
        InputError: if it cannot be loaded, or contains no encoder.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = source.removeprefix(HUB).partition("@")
    try:
        info = HfApi().model_info(name, revision=revision or None, files_metadata=True)
    except Exception as error:  # hub clients raise errors of their network library
        # If the hub answers that the file does not exist, the network is not the problem.
        answered = isinstance(error, RepositoryNotFoundError | RevisionNotFoundError)
        if not answered and (cached := _cached(name, revision or None)):
            return cached
        raise InputError(
            f"{source} cannot be downloaded ({first_line(error)}): check the name, the network, "
            "and whether it asks for a login (hf auth login)"
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
            reason = first_line(error)
            raise InputError(f"{source}: {file} cannot be downloaded ({reason})") from error
        lfs = files[file].lfs
        if lfs is not None and _sha256(path) != lfs.sha256:
            raise InputError(f"{source}: {file} is not the file that the hub names: fetch it again")
        paths[file] = path
    return paths[wanted[0]].parent if "config.json" in paths else paths[wanted[0]]


def _cached(name: str, revision: str | None) -> Path | None:
    """The encoder in the hub client's cache, if all of it is there."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # hub clients raise errors of their network library
        return None
    if all((folder / file).is_file() for file in ("config.json", "model.safetensors")):
        return folder
    released = list(folder.glob("EUPE-*.pt"))
    return released[0] if len(released) == 1 else None


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
