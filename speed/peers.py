"""One training step of ours and of others, on the same networks and images.

    python -m speed.peers [--batch 16] [--rounds 8] [--device cpu] [--compile]

Peers, where they can be imported (in an environment of their own, see docs/speed.md):
lightly-train 0.18's `distillationv3` and timm's `FeatureDistillationTask`. All have random weights,
fused AdamW and clipping at 3; rounds are interleaved in one process. Ours reads uint8 images, the
others float ones. Losses and heads differ, so each runs a second time with its loss replaced by
zero times the sum of what the loss would see:

  ours          heads of the paper (MLP, hidden width --hidden), cosine + smooth-L1
  lightly       one linear layer a head; mixup, KL to a queue of 8192, KL of token similarities
  timm          pooled features only: one linear layer, mean squared error, and cross-entropy

Also: ours with one linear-sized head (hidden width 96), with cached teacher outputs, and compiled;
and the student alone, forward, backward and optimizer, which cached outputs should come close to.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor

from openeupe.distillation import stage as stage_module
from openeupe.distillation.loss import TokenLosses
from openeupe.distillation.teacher_cache import pack
from openeupe.distillation.trainer import Trainer
from openeupe.encoders import Tokens
from speed import stages
from speed.stages import Step
from speed.step import one_to_one, student_alone

Makers = dict[str, Callable[[], Step]]  # by the name in the table


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=1, help="steps a round, which may overlap")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--teacher", default="vit_small_patch16_224")
    parser.add_argument("--student", default="vit_tiny_patch16_224")
    parser.add_argument("--hidden", type=int, default=3072)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--compile", action="store_true", help="also ours and timm compiled")
    parser.add_argument("--only", default="", help="names in the table, separated by ;")
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    torch.manual_seed(0)
    images = stages.random_images(given.batch, given.resolution, device)
    makers = {**ours(given, images), **timm_task(given, images), **lightly(given, images)}
    wanted = given.only.split(";") if given.only else list(makers)
    steps = {name: make() for name, make in makers.items() if name in wanted}
    times = stages.interleaved(steps, device, given.rounds, given.repeat)
    print(f"{given.teacher} -> {given.student}, batch {given.batch}, {given.resolution} px")
    print(
        f"{given.precision}, {stages.name_of(device)}, {given.rounds} interleaved rounds; medians"
    )
    print(f"{'':28}{'wall ms':>9}{'CPU ms':>9}{'lightly/this':>14}{'reads':>7}")
    peer = times.get("lightly")
    for name, pairs in times.items():
        wall, cpu = stages.medians_ms(pairs)
        ratio = f"{stages.median_ratio(peer, pairs, device):14.2f}" if peer else f"{'':14}"
        print(
            f"{name:28}{wall:9.1f}{cpu:9.1f}{ratio}{stages.host_reads(steps[name]):7d}", flush=True
        )


def ours(given: argparse.Namespace, images: Tensor) -> Makers:
    """`Trainer.step` in its variants, and the student alone."""

    def trainer(hidden: int = given.hidden, compile: str = "none") -> Trainer:
        recipe = one_to_one(given, given.batch, head_hidden=hidden, compile=compile)
        return stages.trainer(recipe, images.device)

    makers: Makers = {
        "ours": lambda: stages.running(trainer(), images),
        "ours, loss zeroed": lambda: without_loss(stages.running(trainer(), images)),
        "ours, small heads": lambda: stages.running(trainer(hidden=96), images),
        "ours, cached outputs": lambda: cached(trainer(), images),
        "student alone": lambda: student_alone(trainer(), images),
    }
    if given.compile:
        makers["ours, compiled"] = lambda: stages.running(trainer(compile="all"), images)
        makers["ours, compiled and cached"] = lambda: cached(trainer(compile="all"), images)
    return makers


def cached(trainer: Trainer, images: Tensor) -> Step:
    """Steps that are given the teacher's tokens."""
    with torch.no_grad():
        tokens = trainer.stage.teacher_tokens("teacher", stage_module.Views(images), 0)
    trainer.stage.teachers.to("meta")
    return stages.running(trainer, images, pack("teacher", tokens, "bf16"))


def without_loss(step: Step) -> Step:
    """The same step with a loss that costs nothing but lets gradients through."""

    def nothing(predicted: Tokens, target: Tokens, config: Any) -> TokenLosses:
        return TokenLosses(0 * predicted.cls.sum(), 0 * predicted.patches.sum())

    def run() -> None:
        real = stage_module.token_losses
        stage_module.token_losses = nothing
        try:
            step()
        finally:
            stage_module.token_losses = real

    return run


def optimized(loss: Callable[[], Tensor], parameters: list[Any], given: argparse.Namespace) -> Step:
    """A plain training step: loss, backward, clipping, fused AdamW."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

    def run() -> None:
        with stage_module.autocast(given.precision, torch.device(given.device)):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 3.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def timm_task(given: argparse.Namespace, images: Tensor) -> Makers:
    """timm's feature distillation; none where timm has no tasks yet."""
    try:
        from timm.task import FeatureDistillationTask
    except ImportError:
        return {}
    floats = images.float() / 255
    labels = torch.zeros(len(images), dtype=torch.long, device=images.device)

    def make(compiled: bool) -> Step:
        student, teacher = (
            timm.create_model(n, num_classes=10).to(images.device)
            for n in (given.student, given.teacher)
        )
        task = FeatureDistillationTask(
            student, teacher, distill_loss_weight=1.0, device=images.device, verbose=False
        ).train()
        parameters = [p for p in task.parameters() if p.requires_grad]
        called = torch.compile(task, dynamic=False) if compiled else task
        return optimized(lambda: called(floats, labels)["loss"], parameters, given)

    makers: Makers = {"timm": lambda: make(False)}
    if given.compile:
        makers["timm, compiled"] = lambda: make(True)
    return makers


def lightly(given: argparse.Namespace, images: Tensor) -> Makers:
    """lightly-train's distillationv3, by its own classes, which are private: 0.18 only."""
    try:
        from lightly_train._methods.distillationv3 import distillationv3 as v3
        from lightly_train._models import package_helpers
        from lightly_train._models.embedding_model import EmbeddingModel
    except ImportError:
        return {}
    batch = {"views": [images.float() / 255]}

    def nothing(
        student_features_global: Tensor, student_features_local: Tensor, **_: Any
    ) -> tuple[Tensor, Tensor]:
        return 0 * student_features_global.sum(), 0 * student_features_local.sum()

    def make(zeroed: bool) -> Step:
        wrapped = package_helpers.get_wrapped_model(
            model=f"timm/{given.student}",
            num_input_channels=3,
            model_args={"pretrained": False},
            load_weights=False,
        )
        method = v3.DistillationV3(
            method_args=v3.DistillationV3Args(
                teacher=f"timm/{given.teacher}", teacher_args={"pretrained": False}, queue_size=8192
            ),
            optimizer_args=v3.DistillationV3AdamWArgs(),
            embedding_model=EmbeddingModel(wrapped_model=wrapped),
            global_batch_size=given.batch,
            num_input_channels=3,
        )
        method = method.to(images.device).train()
        method.teacher_embedding_model.eval().requires_grad_(False)
        if zeroed:
            method.criterion.forward = nothing
        parameters = [p for m in method.trainable_modules().modules for p in m.parameters()]
        return optimized(lambda: method.training_step_impl(batch, 0).loss, parameters, given)

    return {"lightly": lambda: make(False), "lightly, loss zeroed": lambda: make(True)}


if __name__ == "__main__":
    main()
