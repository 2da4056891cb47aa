"""Upload a saved folder to a Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

from openeupe.distillation.student import DISTILLATION
from openeupe.encoders.openeupe_folder import FILES
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError
from openeupe.files import read_mapping
from openeupe.share.origin import for_others


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload the files that `save` wrote; return the page's address.

    Files of an earlier encoder in the repository are removed; other files stay.

    The token is the client's own: `$HF_TOKEN`, or that of `hf auth login`. It is never an
    option, a setting or a file of ours.

    Raises:
        InputError: if the folder was not saved for others, or the hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    if repository.count("/") != 1:
        raise InputError(f"{repository}: a repository is OWNER/NAME")
    lacking = [name for name in ("README.md", "config.json", "model.safetensors")
               if not (folder / name).is_file()]  # fmt: skip
    if lacking:
        raise InputError(f"{folder} lacks {lacking[0]}: make it with openeupe save")
    if get_token() is None:
        raise InputError("there is no token for the hub: set HF_TOKEN, or hf auth login")
    card = (folder / "README.md").read_text(encoding="utf-8")
    # The card was written for the folder; on the hub its examples name the repository.
    for here, there in (
        (f'load("{folder.name}")', f'load("hf-hub:{repository}")'),
        (f'"local-dir:{folder.name}"', f'"hf-hub:{repository}"'),
        (f'from_pretrained("{folder.name}")', f'from_pretrained("{repository}")'),
    ):
        card = card.replace(here, there)
    texts = {"README.md": card}
    if info := read_mapping(folder / DISTILLATION):
        texts[DISTILLATION] = json.dumps(for_others(info), indent=2)
    client = HfApi()
    try:
        client.create_repo(repository, private=private, exist_ok=True)
        client.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[name for name in FILES if name not in texts],
            # Heads and statistics of an encoder that was pushed there before are not this one's.
            delete_patterns=[name for name in FILES if not (folder / name).is_file()],
            commit_message="An encoder made with OpenEUPE",
        )
        for name, text in texts.items():
            client.upload_file(path_or_fileobj=text.encode(), path_in_repo=name, repo_id=repository)
    except Exception as error:  # hub clients raise errors of their network library
        raise InputError(
            f"{repository} cannot be written ({first_line(error)}): check the name, the network "
            "and what the token may do"
        ) from error
    return f"https://huggingface.co/{repository}"
