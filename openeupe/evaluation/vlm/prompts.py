"""Convert questions and answers to token sequences with image places."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from openeupe.datasets.questions import Question
from openeupe.errors import InputError
from openeupe.evaluation.vlm.language import Tokenizer

Template = Literal["vicuna_v1", "plain", "chat", "bare"]
Turn = tuple[str, str]

IMAGE = -1  # stands in `ids` where a visual token goes
UNASKED = -100  # a label that the loss leaves out
_MARK = "<image>"  # as LLaVA's files write it
_SHORT = "\nAnswer the question using a single word or phrase."
_LETTER = "\nAnswer with the option's letter from the given choices directly."
_VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions. "
)


@dataclass(frozen=True)
class Sentence:
    """ids: tokens, `IMAGE` for each visual token. labels: the same where an answer is, else -100.

    Equally long.
    """

    ids: list[int]
    labels: list[int]

    @property
    def prefix(self) -> int:
        """Number of tokens up to the last visual token: what questions of one image share."""
        return max((k + 1 for k, token in enumerate(self.ids) if token == IMAGE), default=0)


@dataclass(frozen=True)
class Batch:
    """Padded sentences. ids, labels, positions, before: int64 `[B, L]`. before: the place in the
    row of the token before each in its own sentence, which predicts it (-1: none). mask: bool,
    True is looked at: `[B, L]`, or `[B, 1, L, L]` where several questions share the visual tokens
    of a row.
    """

    ids: Tensor
    labels: Tensor
    positions: Tensor
    before: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(*(t.to(device, non_blocking=True) for t in vars(self).values()))


def sentence(
    tokenizer: Tokenizer, template: Template, turns: Sequence[Turn], image_tokens: int
) -> Sentence:
    """A conversation about one image.

    vicuna_v1: LLaVA-1.5's second phase and its benchmarks; plain: its first phase (image, caption,
    no question); chat: the language model's own chat template; bare: question and answer alone.
    The image comes before the first question, wherever the text had its mark.

    Args:
        turns: (question, answer); a last answer of "" is left open, to be generated.
        image_tokens: number of visual tokens; 0: no image.

    Raises:
        InputError: if the tokenizer has no chat template, or one that cannot be marked.
    """
    turns = [(question.replace(_MARK, "").strip(), answer) for question, answer in turns]
    if image_tokens:
        turns[0] = (f"{_MARK}\n{turns[0][0]}", turns[0][1])
    pieces = _PIECES[template](tokenizer, turns)
    text = "".join(piece for piece, _ in pieces)
    spans, place = [], 0
    for piece, answered in pieces:
        if answered:
            spans.append((place, place + len(piece)))
        place += len(piece)
    ids: list[int] = []
    labels: list[int] = []
    start = tokenizer("").input_ids[:1]
    if template != "chat" and start == [tokenizer.bos_token_id]:
        ids, labels = list(start), [UNASKED]
    place = 0
    for number, part in enumerate(text.split(_MARK)):
        if number:
            ids += [IMAGE] * image_tokens
            labels += [UNASKED] * image_tokens
            place += len(_MARK)
        found = tokenizer(part, add_special_tokens=False, return_offsets_mapping=True)
        for token, (first, last) in zip(found.input_ids, found.offset_mapping, strict=True):
            inside = any(a < place + last and place + first < b for a, b in spans)
            ids.append(token)
            labels.append(token if inside else UNASKED)
        place += len(part)
    return Sentence(ids, labels)


def put(question: Question, template: Template) -> str:
    """Format a question with choices and an instruction."""
    options = zip(string.ascii_uppercase, question.choices, strict=False)
    if template == "bare":
        return " ".join([question.text, *(f"{letter} {words}" for letter, words in options)])
    lines = [question.text, *(f"{letter}. {words}" for letter, words in options)]
    return "\n".join(lines) + (_LETTER if question.choices else _SHORT)


def collate(rows: Sequence[Sequence[Sentence]], pad: int) -> Batch:
    """One row for each image, right-padded. Several sentences of a row share its visual tokens.

    Each sentence then sees the shared beginning and itself, at the positions it would have alone:
    the same answers and gradients as apart, for a fraction of the work.
    """
    joined = [_joined(row) for row in rows]
    length = max(len(ids) for ids, *_ in joined)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), UNASKED)
    positions = torch.zeros(len(rows), length, dtype=torch.int64)
    before, group = (torch.full((len(rows), length), -1) for _ in range(2))
    for k, row in enumerate(joined):
        for target, values in zip((ids, labels, positions, before, group), row, strict=True):
            target[k, : len(values)] = torch.tensor(values)
    mask = group >= 0
    if any(len(row) > 1 for row in rows):
        shared = (group[:, None, :] == 0) | (group[:, None, :] == group[:, :, None])
        mask = (shared & torch.ones(length, length).tril().bool())[:, None]
    return Batch(ids, labels, positions, before, mask)


def collate_left(sentences: Sequence[Sentence], pad: int) -> Batch:
    """One left-padded row per sentence, so that all end at one position."""
    batch = collate([[s] for s in sentences], pad)
    rolled = list(vars(batch).values())
    for k, one in enumerate(sentences):
        missing = batch.ids.shape[1] - len(one.ids)
        for tensor in rolled:
            tensor[k] = tensor[k].roll(missing, dims=0)
        batch.before[k][batch.before[k] >= 0] += missing
    return Batch(*rolled)


def _joined(row: Sequence[Sentence]) -> tuple[list[int], ...]:
    """ids, labels, positions, before and group (0: shared, 1...: which sentence) of one row."""
    first = row[0]
    shared = first.prefix if len(row) > 1 else 0
    ids, labels = first.ids[:shared], first.labels[:shared]
    positions, group = list(range(shared)), [0] * shared
    before = [place - 1 for place in positions]
    for number, one in enumerate(row):
        if one.ids[:shared] != ids[:shared]:
            raise ValueError("sentences of one row must begin the same way")
        own = len(one.ids) - shared
        # A sentence continues the shared part, not from the one before it in the row.
        before += [shared - 1, *range(len(ids), len(ids) + own - 1)][:own]
        ids = ids + one.ids[shared:]
        labels = labels + one.labels[shared:]
        positions += range(shared, len(one.ids))
        group += [number + 1] * own
    return ids, labels, positions, before, group


Pieces = list[tuple[str, bool]]  # text, and whether it is an answer


def _vicuna(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Pieces:
    pieces = [(_VICUNA, False)]
    for question, answer in turns:
        pieces.append((f"USER: {question} ASSISTANT:", False))
        if answer:
            pieces.append((f" {answer}{tokenizer.eos_token}", True))
    return pieces


def _plain(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Pieces:
    (question, answer) = turns[0]
    return [(_MARK if _MARK in question else "", False), (f"{answer}\n" if answer else "", True)]


def _bare(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Pieces:
    pieces = []
    for question, answer in turns:
        pieces.append((f"{question} ", False))
        if answer:
            pieces.append((f"{answer}{tokenizer.eos_token}", True))
    return pieces


def _chat(tokenizer: Tokenizer, turns: Sequence[Turn]) -> Pieces:
    if tokenizer.chat_template is None:
        raise InputError("this language model has no chat template: use template vicuna_v1")
    messages: list[dict[str, str]] = []
    pieces: Pieces = []
    text = ""
    for question, answer in turns:
        for role, words in (("user", question), ("assistant", answer)):
            if role == "assistant" and not words:
                break
            messages.append({"role": role, "content": words})
            whole = tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=role == "user"
            )
            if not whole.startswith(text):
                raise InputError(
                    "this language model's chat template rewrites earlier turns, so that answers "
                    "cannot be marked: use template vicuna_v1"
                )
            pieces.append((whole[len(text) :], role == "assistant"))
            text = whole
    return pieces


_PIECES = {"vicuna_v1": _vicuna, "plain": _plain, "chat": _chat, "bare": _bare}
