"""LLaVA-1.5's model: frozen encoder, two-layer projector, language model (paper C.2)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from openeupe import encoders
from openeupe.config import Config
from openeupe.data import View
from openeupe.encoders import Encoder, evaluating
from openeupe.errors import InputError
from openeupe.evaluation.features import frozen, mean_colour
from openeupe.evaluation.vlm.language import LanguageModel, Tokenizer, load_language
from openeupe.evaluation.vlm.prompts import (
    IMAGE,
    UNASKED,
    Sentence,
    Template,
    Turn,
    collate,
    collate_left,
    sentence,
)
from openeupe.files import durable, flush_folder, write_atomically
from openeupe.plain_json import parse_json
from openeupe.seeds import derive_seed, seeded

_CONFIG, _PROJECTOR, _FORMAT = "vision_language.json", "projector.safetensors", 2


class Form(Config):
    """Settings of images, prompts and projector."""

    resolution: int | None = Field(None, description="Pixels; default: the encoder's resolution")
    geometry: Literal["pad", "squash", "crop"] = Field(
        "pad", description="pad: to a square with the encoder's mean colour, as LLaVA-1.5 does"
    )
    grid: int | None = Field(
        None, ge=1, description="Patch tokens are averaged to grid x grid; default: all of them"
    )
    template: Template = "vicuna_v1"
    projector: Literal["mlp2x_gelu", "linear"] = Field(
        "mlp2x_gelu", description="LLaVA-1.5's two layers, or the one of LLaVA"
    )
    hidden: int | None = Field(
        None, ge=1, description="Width between the two layers; default: the language model's"
    )
    placed: bool = Field(
        False, description="Add each token's row and column in the grid to the projector's input"
    )

    @model_validator(mode="after")
    def _complete(self) -> Form:
        if self.placed and self.grid is None:
            raise ValueError("placed needs a grid")
        return self


class VisionLanguage(nn.Module):
    """A language model with visual tokens of a frozen encoder.

    The encoder's patch tokens, optionally averaged to a smaller grid, go through Linear, GELU,
    Linear and stand among the word embeddings as further tokens, row by row.

    Args:
        language, tokenizer: as `load_language` returns them.
        patch_dim: width of the patch tokens.
        encoder: of images; None if tokens are given instead of images.
        seed: of the projector's weights.
    """

    token_mean: Tensor
    token_std: Tensor

    def __init__(
        self,
        language: LanguageModel,
        tokenizer: Tokenizer,
        patch_dim: int,
        form: Form | None = None,
        *,
        encoder: Encoder | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.language, self.tokenizer = language, tokenizer
        self.patch_dim, self.form = patch_dim, form or Form()
        self.encoder = encoder
        if encoder is not None:
            encoder.requires_grad_(False).eval()
        width = language.get_input_embeddings().weight.shape[1]
        with seeded(derive_seed(seed, "projector")):
            place = 2 * (self.form.grid or 0) if self.form.placed else 0
            hidden = self.form.hidden or width
            self.projector = (
                nn.Linear(patch_dim + place, width)
                if self.form.projector == "linear"
                else nn.Sequential(
                    nn.Linear(patch_dim + place, hidden), nn.GELU(), nn.Linear(hidden, width)
                )
            )
        self.register_buffer("token_mean", torch.zeros(patch_dim))
        self.register_buffer("token_std", torch.ones(patch_dim))

    @property
    def device(self) -> torch.device:
        """The device of the projector and all trained weights."""
        return self.token_mean.device

    def train(self, mode: bool = True) -> VisionLanguage:
        """Set the mode, but keep the encoder in eval mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def standardize(self, tokens: Tensor) -> None:
        """Standardize each dimension of visual tokens over these tokens.

        tokens: `[N, D, h, w]`. LLaVA does not do this. It makes one learning
        rate fit encoders whose tokens differ in size by orders of magnitude.
        """
        values = tokens.float().transpose(0, 1).flatten(1)
        self.token_mean.copy_(values.mean(1))
        deviation = values.std(1)
        # What hardly varies here must not become huge where it does.
        self.token_std.copy_(deviation.clamp(min=0.1 * float(deviation.mean()) + 1e-6))

    def look(self, images: Sequence[Image.Image]) -> Tensor:
        """Patch tokens `[N, D, h, w]` of images, in float32."""
        if self.encoder is None:
            raise ValueError("this model has no encoder: give tokens in place of images")
        resolution = self.form.resolution or self.encoder.resolution
        view = View(
            resolution, resolution, "squash" if self.form.geometry == "pad" else self.form.geometry
        )
        if self.form.geometry == "pad":
            images = [padded(image, mean_colour(self.encoder)) for image in images]
        pixels = torch.stack([view.image(image.convert("RGB")) for image in images])
        with frozen(self.encoder) as encoder:
            return encoder(pixels.to(self.device).float() / 255).patches.float()

    def visual(self, tokens: Tensor) -> Tensor:
        """Patch tokens `[N, D, h, w]` -> embeddings `[N, n, width]` for the language model."""
        tokens = pooled(tokens.to(self.device).float(), self.form.grid).flatten(2).transpose(1, 2)
        tokens = (tokens - self.token_mean) / self.token_std
        projected: Tensor = self.projector(placed(tokens) if self.form.placed else tokens)
        return projected

    def image_tokens(self, tokens: Tensor) -> int:
        """Number of visual tokens that patch tokens `[N, D, h, w]` become."""
        return self.form.grid**2 if self.form.grid else tokens.shape[2] * tokens.shape[3]

    def sentence(
        self, turns: Sequence[Turn], image_tokens: int, template: Template | None = None
    ) -> Sentence:
        """A conversation by this model's template (or another); see `prompts.sentence`."""
        return sentence(self.tokenizer, template or self.form.template, turns, image_tokens)

    def loss(self, tokens: Tensor | None, rows: Sequence[Sequence[Sentence]]) -> Tensor:
        """Mean cross-entropy of the answers' tokens; 0 if there are none.

        Args:
            tokens: `[K, D, h, w]` patch tokens of the K rows that have an image, in order.
            rows: the sentences about each image (or about none); several share visual tokens,
                which asks for a language model that takes 4-D attention masks, as Llama does.
        """
        batch = collate(rows, self.tokenizer.pad_token_id).to(self.device)
        # Logits only where an answer's token comes next: vocabularies are large.
        asked = (batch.labels != UNASKED) & (batch.before >= 0)
        columns, place = batch.before[asked].unique(return_inverse=True)
        output = self.language(
            inputs_embeds=self._embedded(batch.ids, tokens),
            attention_mask=batch.mask,
            position_ids=batch.positions,
            logits_to_keep=columns,
            use_cache=False,
        )
        logits = output.logits[asked.nonzero()[:, 0], place].float()
        if not len(logits):
            return logits.sum()
        return F.cross_entropy(logits, batch.labels[asked])

    @torch.no_grad()
    def generate(
        self,
        images: Sequence[Image.Image | None] | Tensor,
        questions: Sequence[str],
        max_new_tokens: int = 16,
    ) -> list[str]:
        """Greedy answers to questions, without end mark and outer spaces.

        Args:
            images: an image (or None) for each question, or patch tokens `[N, D, h, w]`.
            max_new_tokens: longest answer, in tokens.
        """
        with evaluating(self):
            return self._generate(images, questions, max_new_tokens)

    def _generate(
        self,
        images: Sequence[Image.Image | None] | Tensor,
        questions: Sequence[str],
        max_new_tokens: int,
    ) -> list[str]:
        from transformers import GenerationConfig

        if isinstance(images, Tensor):
            shown, tokens = [True] * len(questions), images
        else:
            shown = [image is not None for image in images]
            seen = [image for image in images if image is not None]
            tokens = self.look(seen) if seen else torch.empty(0, self.patch_dim, 1, 1)
        count = self.image_tokens(tokens)
        sentences = [
            self.sentence([(question, "")], count if has else 0)
            for question, has in zip(questions, shown, strict=True)
        ]
        batch = collate_left(sentences, self.tokenizer.pad_token_id).to(self.device)
        ends = self.language.generation_config.eos_token_id
        found = self.language.generate(
            inputs_embeds=self._embedded(batch.ids, tokens),
            attention_mask=batch.mask.long(),
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self.tokenizer.eos_token_id if ends is None else ends,
                pad_token_id=self.tokenizer.pad_token_id,
            ),
        )
        decoded = self.tokenizer.batch_decode(found, skip_special_tokens=True)
        return [answer.strip() for answer in decoded]

    def _embedded(self, ids: Tensor, tokens: Tensor | None) -> Tensor:
        """`[B, L]` ids -> `[B, L, width]`, with the projected tokens where `IMAGE` stands."""
        words: Tensor = self.language.get_input_embeddings()(ids.clamp(min=0))
        places = int((ids == IMAGE).sum())
        given = 0 if tokens is None else len(tokens) * self.image_tokens(tokens)
        if places != given:  # or each row would be shown a part of the one before
            raise ValueError(f"{given} visual tokens for {places} places in the sentences")
        if tokens is None or not given:
            return words
        visual = self.visual(tokens).to(words.dtype)
        return words.masked_scatter((ids == IMAGE)[..., None], visual)

    def save(self, folder: str | Path) -> Path:
        """Write encoder, projector and language model to `folder`, for `load` and lmms-eval."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.encoder is not None:
            encoders.save(self.encoder, folder / "encoder")
        self.language.save_pretrained(folder / "language")
        self.tokenizer.save_pretrained(folder / "language")
        with durable(folder / _PROJECTOR) as partial:
            save_file(self.seeing(), partial)
        flush_folder(folder)
        facts = {"format": _FORMAT, "patch_dim": self.patch_dim, "form": self.form.model_dump()}
        write_atomically(folder / _CONFIG, json.dumps(facts, indent=2) + "\n")  # last
        return folder

    def seeing(self) -> dict[str, Tensor]:
        """Weights of the projector and the tokens' scale, on the CPU."""
        parts = {**self.projector.state_dict(prefix="projector."), **dict(self.named_buffers())}
        kept = {k: v for k, v in parts.items() if k.startswith(("projector.", "token_"))}
        return {key: value.detach().cpu().contiguous() for key, value in kept.items()}

    def see_by(self, weights: dict[str, Tensor], file: Path) -> None:
        """Load the tensors of `seeing`, read from `file`.

        Raises:
            InputError: if a tensor is missing, unknown or of another shape.
        """
        wanted = {key: value.shape for key, value in self.seeing().items()}
        found = {key: value.shape for key, value in weights.items()}
        wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if wrong:
            raise InputError(
                f"{file} does not fit the model ({', '.join(wrong)}): save the model again"
            )
        self.load_state_dict(weights, strict=False)  # the rest is encoder and language model

    @classmethod
    def load(
        cls,
        folder: str | Path,
        encoder: Encoder | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> VisionLanguage:
        """Load a model that `save` wrote, in eval mode on the CPU.

        Args:
            encoder: in place of the saved one.
            dtype: of the language model.

        Raises:
            InputError: if `folder` holds no such model.
        """
        folder = Path(folder)
        try:
            facts = parse_json((folder / _CONFIG).read_bytes())
            if facts["format"] != _FORMAT:
                raise InputError(f"{folder} is of another version: train the model again")
            patch_dim, form = int(facts["patch_dim"]), Form(**facts["form"])
            seeing = load_file(folder / _PROJECTOR)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(
                f"{folder} holds no vision-language model ({_CONFIG} and {_PROJECTOR}): check the "
                "path"
            ) from error
        if encoder is None and (folder / "encoder").is_dir():
            encoder = encoders.load(folder / "encoder")
        language, tokenizer = load_language(folder / "language", dtype)
        model = cls(language, tokenizer, patch_dim, form, encoder=encoder)
        model.see_by(seeing, folder / _PROJECTOR)
        return model.eval()


def placed(tokens: Tensor) -> Tensor:
    """Tokens `[N, grid * grid, D]` -> `[N, grid * grid, D + 2 grid]`: row and column, one-hot."""
    grid = round(tokens.shape[1] ** 0.5)
    one = torch.eye(grid, dtype=tokens.dtype, device=tokens.device)
    where = torch.cat([one.repeat_interleave(grid, 0), one.repeat(grid, 1)], 1)
    return torch.cat([tokens, where.expand(len(tokens), -1, -1)], 2)


def pooled(tokens: Tensor, grid: int | None) -> Tensor:
    """Tokens `[N, D, h, w]` averaged over cells to `[N, D, grid, grid]`; None: as they are."""
    return tokens if grid is None else F.adaptive_avg_pool2d(tokens, grid)


def padded(image: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The image padded to a square of this colour, as in LLaVA-1.5."""
    image = image.convert("RGB")
    resolution = max(image.size)
    if image.size == (resolution, resolution):
        return image
    square = Image.new("RGB", (resolution, resolution), colour)
    square.paste(image, ((resolution - image.width) // 2, (resolution - image.height) // 2))
    return square
