"""A peer's run for `speed.race`, in the peers' own environment (it imports nothing of ours).

    python race_peers.py lightly-train JOB.json

JOB.json holds `data` (a folder of images), `teacher` (weights of timm's
`vit_small_patch14_dinov2`), `student` (a timm name), `weights` (its first weights), `resolution`,
`batch`, `steps`, `lr` (null: the peer's default), `seed` and `out`. Written are OUT/student.pt and
OUT/cost.json: processor seconds after the imports, and images. lightly-train is called by its
public function; timm has a task and a loader, so the loop around them is ours: AdamW with a cosine,
fp32.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

TEACHER = "vit_small_patch14_dinov2"


def main() -> None:
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    import torch

    torch.set_num_threads(1)
    run = {"lightly-train": lightly, "timm": timm_task}[name]
    state, seconds = run(job)
    out = Path(job["out"])
    torch.save(state, out / "student.pt")
    cost = {"cpu_s": round(seconds, 2), "images": job["steps"] * job["batch"]}
    (out / "cost.json").write_text(json.dumps(cost))


def student(job: dict[str, Any]) -> Any:
    """The student with the first weights of the race."""
    import timm
    import torch

    network = timm.create_model(job["student"], num_classes=0, **job["student_args"])
    network.load_state_dict(torch.load(job["weights"], weights_only=True))
    return network


def lightly(job: dict[str, Any]) -> tuple[Any, float]:
    """`lightly_train.pretrain` with distillationv3; its other settings are its own."""
    import lightly_train  # type: ignore[import-not-found]
    import torch

    network = student(job)
    size = job["resolution"] // 14 * 14  # one size for both: the teacher's patches are 14 wide
    images = sum(1 for path in Path(job["data"]).rglob("*") if path.is_file())
    start = time.process_time()
    lightly_train.pretrain(
        out=f"{job['out']}/lightly",
        data=job["data"],
        model=network,
        method="distillationv3",
        method_args={
            "teacher": f"timm/{TEACHER}",
            "teacher_weights": job["teacher"],
            "teacher_args": {"num_classes": 0, "dynamic_img_size": True},
        },
        batch_size=job["batch"],
        num_workers=0,
        accelerator="cpu",
        devices=1,
        precision="32-true",
        seed=job["seed"],
        optim_args={} if job["lr"] is None else {"lr": job["lr"]},
        transform_args={"image_size": (size, size)},
        epochs=-(-job["steps"] // (images // job["batch"])),  # its warm-up is a share of these
        trainer_args={"max_steps": job["steps"]},
        overwrite=True,
    )
    seconds = time.process_time() - start
    saved = torch.load(f"{job['out']}/lightly/exported_models/exported_last.pt", weights_only=False)
    return (saved if isinstance(saved, dict) else saved.state_dict()), seconds


def timm_task(job: dict[str, Any]) -> tuple[Any, float]:
    """timm's `FeatureDistillationTask` with timm's loader and augmentation."""
    import timm
    import torch
    from timm.data import ImageDataset, create_transform
    from timm.optim import create_optimizer_v2
    from timm.scheduler import CosineLRScheduler
    from timm.task import FeatureDistillationTask

    torch.manual_seed(job["seed"])
    network = student(job)
    size = job["resolution"] // 14 * 14
    teacher = timm.create_model(TEACHER, num_classes=0, dynamic_img_size=True)
    teacher.load_state_dict(torch.load(job["teacher"], weights_only=True))
    start = time.process_time()
    task = FeatureDistillationTask(
        network, teacher.eval(), criterion=torch.nn.CrossEntropyLoss(), distill_loss_weight=1.0,
        task_loss_weight=0.0, device=torch.device("cpu"), verbose=False,
    )  # fmt: skip
    labels = torch.zeros(job["batch"], dtype=torch.long)  # their loss has no weight
    data = ImageDataset(job["data"], transform=create_transform(size, is_training=True))
    loader = torch.utils.data.DataLoader(data, job["batch"], shuffle=True, drop_last=True)
    optimizer = create_optimizer_v2(
        task, opt="adamw", lr=job["lr"] or 1e-3, weight_decay=0.05, betas=(0.9, 0.999)
    )
    warm = job["steps"] // 10
    schedule = CosineLRScheduler(
        optimizer, job["steps"], warmup_t=warm, warmup_lr_init=1e-5, t_in_epochs=False
    )
    task.train()
    step = 0
    while step < job["steps"]:
        for images, _ in loader:
            loss = task(images, labels)["loss"]
            loss.backward()
            torch.nn.utils.clip_grad_norm_(task.parameters(), 3.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            schedule.step_update(step)
            if step == job["steps"]:
                break
    return network.state_dict(), time.process_time() - start


if __name__ == "__main__":
    main()
