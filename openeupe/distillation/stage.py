"""A stage: frozen teachers, trainable students, and the losses between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from openeupe.data import resize
from openeupe.distillation.adapter_heads import TeacherHeads
from openeupe.distillation.loss import TokenLosses, token_losses
from openeupe.distillation.precision import autocast, depthwise_in_float32
from openeupe.distillation.recipe import StageConfig
from openeupe.distillation.standardize import Moments, Standardizer
from openeupe.encoders import Encoder, Tokens
from openeupe.errors import InputError
from openeupe.identity import encoder_identity
from openeupe.seeds import derive_seed, seeded


class Views:
    """A uint8 batch `[B, 3, S, S]`, as float [0, 1] images at each resolution.

    The crop was made once, at the largest resolution of the pyramid (paper section 3.1); encoders
    that draw the same resolution share the resized batch.
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self._at: dict[int, Tensor] = {}

    def at(self, resolution: int) -> Tensor:
        """Float images `[B, 3, S, S]`."""
        if resolution not in self._at:
            self._at[resolution] = resize(self.images, resolution)
        return self._at[resolution]


class Stage(nn.Module):
    """N frozen teachers x M students. Owns the adapter heads and the teacher statistics.

    One teacher pass serves every student: `targets` once a step, then `losses` per student.
    """

    def __init__(
        self,
        name: str,
        config: StageConfig,
        teachers: Mapping[str, Encoder],
        students: Mapping[str, Encoder],
        seed: int,
    ) -> None:
        super().__init__()
        self.name = name
        self.config = config
        self.seed = seed
        self.teachers = nn.ModuleDict(teachers)
        self.teachers.requires_grad_(False).eval()
        # By name; taken before the networks are placed and sharded.
        self.identities = {k: encoder_identity(teacher) for k, teacher in teachers.items()}
        self.students = nn.ModuleDict(students)
        self.heads = nn.ModuleDict()
        for student_name, student in students.items():
            # Each student's heads have a seed of their own: students trained together start
            # as its members would alone.
            with seeded(derive_seed(seed, name, "heads", student_name)):
                self.heads[student_name] = nn.ModuleDict(
                    {
                        t: TeacherHeads(student, teachers[t], config.head_hidden)
                        for t in config.teachers_of(student_name)
                    }
                )
        self.statistics = nn.ModuleDict({t: Standardizer(e) for t, e in teachers.items()})

    def train(self, mode: bool = True) -> Stage:
        """Students and heads follow `mode`; teachers stay in eval mode for good."""
        super().train(mode)
        self.teachers.eval()
        return self

    def check_teachers(self, before: Mapping[str, str]) -> None:
        """Raise `InputError` if a teacher has changed. `before` has the identities by name."""
        for name, identity in before.items():
            if self.identities.get(name) != identity:
                raise InputError(
                    f"stages.{self.name}: {name} is not the teacher that the stage began with: put "
                    "that one back, or begin a run in another folder"
                )

    def trainable(self, student: str) -> nn.ModuleList:
        """What one student's optimizer moves: its network and its heads."""
        return nn.ModuleList([self.students[student], self.heads[student]])

    def resolution(self, kind: str, name: str, step: int) -> int:
        """The resolution that an encoder sees at `step`: drawn by (seed, stage, step, name) alone.

        Every encoder draws for itself, so teacher and student scales are independent (paper
        section 3.1, stage 3), and the draw is the same on every rank and after a resume.
        """
        encoders = self.config.teachers if kind == "teacher" else self.config.students
        resolutions = encoders[name].resolution
        if len(resolutions) == 1:
            return resolutions[0]
        return resolutions[
            derive_seed(self.seed, self.name, step, "side", kind, name) % len(resolutions)
        ]

    @torch.no_grad()
    def teacher_tokens(self, teacher: str, views: Views, step: int) -> Tokens:
        """Raw tokens of a teacher at the resolution it draws for `step`."""
        images = views.at(self.resolution("teacher", teacher, step))
        with autocast(self.config.teacher_precision, images.device):
            return self.teachers[teacher](images)

    @torch.no_grad()
    def targets(self, views: Views, step: int) -> dict[str, Tokens]:
        """Standardized float32 tokens of every teacher."""
        return {t: self.statistics[t](self.teacher_tokens(t, views, step)) for t in self.teachers}

    def losses(
        self, student: str, views: Views, targets: Mapping[str, Tokens], step: int
    ) -> dict[str, TokenLosses]:
        """Unweighted losses of one student, by teacher (Eq. 4 to 6)."""
        images = views.at(self.resolution("student", student, step))
        frozen = self.config.optimizer_of(student).freeze_backbone_steps
        learns = torch.is_grad_enabled() and step >= frozen
        # Neither recomputation in backward nor compiled code knows of a mode around the call.
        plain = (
            self.config.compile != "all"
            and not self.config.students[student].checkpoint_activations
        )
        with autocast(self.config.student_precision, images.device):
            with torch.set_grad_enabled(learns), depthwise_in_float32(learns and plain):
                tokens = self.students[student](images)
            heads = cast(nn.ModuleDict, self.heads[student])
            adapted = {t: heads[t](tokens) for t in self.config.teachers_of(student)}
        return {t: token_losses(a, targets[t], self.config.loss) for t, a in adapted.items()}

    def total(self, losses: Mapping[str, TokenLosses]) -> Tensor:
        """Sum over teachers of the weighted class and patch losses."""
        terms = []
        for teacher, loss in losses.items():
            config = self.config.teachers[teacher]
            terms.append(config.cls_weight * loss.cls + config.patch_weight * loss.patches)
        return torch.stack(terms).sum()

    @torch.no_grad()
    def measure_statistics(
        self,
        batches: Iterable[tuple[int, Tensor]],
        gather: Callable[[Tensor], list[Tensor]] | None = None,
    ) -> None:
        """Fix every teacher's mean and std from `(step, images)` batches (paper section 4.1).

        gather: gives the tensor of every process, where there are several.
        """
        moments: dict[str, tuple[Moments, Moments]] = {}
        for step, images in batches:
            views = Views(images)
            for name in self.teachers:
                tokens = self.teacher_tokens(name, views, step)
                cls, patches = moments.setdefault(
                    name,
                    (
                        Moments(tokens.cls.shape[1], images.device),
                        Moments(tokens.patches.shape[1], images.device),
                    ),
                )
                cls.add(tokens.cls)
                patches.add(tokens.patches.flatten(2).transpose(1, 2).flatten(0, 1))
        for name, (cls, patches) in moments.items():
            if gather is not None:
                cls, patches = cls.gathered(gather), patches.gathered(gather)
            cast(Standardizer, self.statistics[name]).set(
                cls, patches, self.config.statistics.min_std
            )
