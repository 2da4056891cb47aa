"""Text towers, and mappings of experts' class tokens to their spaces."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F

from openeupe.encoders.expert_weights import MINILM, MINILM_TOKENIZER
from openeupe.encoders.experts import imagenet_classifier
from openeupe.encoders.weights import first_line
from openeupe.errors import InputError
from openeupe.registry import fetch_all

_BATCH = 64  # texts a forward pass
_MINILM_TOKENS = 256  # as its authors cut texts


class TextTower(nn.Module):
    """A frozen text encoder. name: saved with every result."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def embed(self, texts: list[str]) -> Tensor:
        """Encode a batch to `[N, D]`; subclasses implement it."""
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """L2-normalized float32 vectors `[N, D]` on the CPU."""
        batches = [list(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
        return torch.cat([F.normalize(self.embed(b).float(), dim=1).cpu() for b in batches])


class MiniLM(TextTower):
    """all-MiniLM-L6-v2, a sentence encoder of 384 dimensions (Apache-2.0, 22 M), mean-pooled.

    Its weights come from the package registry. It was trained on text only: images are
    mapped to it by the class names of a classifier.

    Raises:
        InputError: if transformers is not installed or the weights cannot be loaded.
    """

    def __init__(self) -> None:
        super().__init__("all-MiniLM-L6-v2")
        try:
            from tokenizers import Tokenizer
            from transformers import BertConfig, BertModel
        except ImportError:
            raise InputError(
                "the text tower all-MiniLM-L6-v2 needs transformers: pip install "
                "'openeupe[language]'"
            ) from None
        from safetensors.torch import load_file

        weights, tokenizer = fetch_all([MINILM, MINILM_TOKENIZER])
        config = BertConfig(
            hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
        )
        self.bert: Any = BertModel(config, add_pooling_layer=False)
        known = self.bert.state_dict()
        self.bert.load_state_dict({k: v for k, v in load_file(weights).items() if k in known})
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.tokenizer.enable_padding()
        self.tokenizer.enable_truncation(_MINILM_TOKENS)
        self.eval().requires_grad_(False)

    def embed(self, texts: list[str]) -> Tensor:
        device = next(self.bert.parameters()).device
        encoded = self.tokenizer.encode_batch(texts)
        ids = torch.tensor([text.ids for text in encoded], device=device)
        mask = torch.tensor([text.attention_mask for text in encoded], device=device)
        states: Tensor = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(states)
        return (states * weight).sum(dim=1) / weight.sum(dim=1)


class OpenClipTower(TextTower):
    """Text tower of an open_clip model.

    Its tokenizer cleans the text (SigLIP2: lower case, no punctuation).

    Args:
        architecture: open_clip's name, such as "PE-Core-bigG-14-448".
        pretrained: open_clip's weights tag; None: random weights.

    Raises:
        InputError: if open_clip is not installed or the weights cannot be loaded.
    """

    def __init__(self, architecture: str, pretrained: str | None) -> None:
        super().__init__(f"{architecture}/{pretrained or 'untrained'}")
        try:
            import open_clip
        except ImportError:
            raise InputError(
                f"the text tower {architecture} needs open_clip: pip install 'openeupe[clip]'"
            ) from None
        try:
            self.model: Any = open_clip.create_model(architecture, pretrained=pretrained)
            self.tokenizer = open_clip.get_tokenizer(architecture)
        except Exception as error:  # hub clients raise errors of their network library
            raise InputError(
                f"the text tower {architecture} cannot be loaded ({first_line(error)}): connect to "
                "the hub once"
            ) from error
        self.model.visual = None
        self.eval().requires_grad_(False)

    def embed(self, texts: list[str]) -> Tensor:
        device = next(self.model.parameters()).device
        vectors: Tensor = self.model.encode_text(self.tokenizer(texts).to(device))
        return vectors


class TextSpace:
    """A text tower and a mapping from class tokens to its space.

    expert: encoder name. width: of the expert's class tokens.
    """

    def __init__(self, expert: str, width: int, tower: TextTower) -> None:
        self.expert, self.width, self.tower = expert, width, tower

    def image_vectors(self, cls: Tensor) -> Tensor:
        """Class tokens of the expert `[B, De]` -> L2-normalized float32 vectors `[B, D]`."""
        return F.normalize(cls.float(), dim=1)


class Conse(TextSpace):
    """Text space of a classifier's class names (ConSE, arXiv 1312.5650).

    An image's vector is the mean of the text vectors of its ten likeliest ImageNet classes,
    weighted by their probabilities.
    """

    likeliest = 10

    def __init__(self) -> None:
        super().__init__("efficientnet_lite0", 1280, MiniLM())
        self.classifier = imagenet_classifier()
        self.words = self.tower.encode(imagenet_words())

    def image_vectors(self, cls: Tensor) -> Tensor:
        probability = self.classifier(cls.float().cpu()).softmax(dim=1)
        top, classes = probability.topk(self.likeliest, dim=1)
        return F.normalize((top[..., None] * self.words[classes]).sum(dim=1), dim=1)


def imagenet_words() -> list[str]:
    """WordNet's words for each ImageNet-1k class, all synonyms: "tench, Tinca tinca"."""
    info = ImageNetInfo()
    return [info.label_name_to_description(name) for name in info.label_names()]


TEXT_SPACES: dict[str, Callable[[], TextSpace]] = {
    "efficientnet_lite0": Conse,
    "pe_core_g": lambda: TextSpace("pe_core_g", 1280, OpenClipTower("PE-Core-bigG-14-448", "meta")),
    "siglip2_g": lambda: TextSpace(
        "siglip2_g", 1536, OpenClipTower("ViT-gopt-16-SigLIP2-384", "webli")
    ),
}


@functools.cache
def text_space(expert: str) -> TextSpace:
    """Load the text space of a text-aligned expert, once per process.

    Raises:
        InputError: for an expert without one, a missing extra, or weights that cannot be loaded.
    """
    if expert not in TEXT_SPACES:
        raise InputError(f"{expert} shares no space with text: use one of {', '.join(TEXT_SPACES)}")
    return TEXT_SPACES[expert]()
