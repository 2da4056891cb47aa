"""What `plan` says of memory and time, against a run.

    python -m speed.memory [--batch 16] [--checkpoint] [--accumulate 2] [--device cpu]

Some steps of one stage in a process of its own. Memory: on a GPU the allocator's peak; on a CPU
what the process grew by over its imports, at its peak. Time: the share of the device's measured
matrix peak that the fastest step reaches, which is the efficiency that `plan` asks for.
"""

from __future__ import annotations

import argparse
import resource

import torch

from openeupe.distillation.devices import device_tflops
from openeupe.distillation.plan import plan
from speed import stages


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--teacher", default="vit_small_patch16_224")
    parser.add_argument("--student", default="vit_small_patch16_224")
    parser.add_argument("--hidden", type=int, default=1536)
    parser.add_argument("--checkpoint", action="store_true", help="checkpoint activations")
    parser.add_argument("--accumulate", type=int, default=1)
    return parser


def main() -> None:
    given = options().parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    peak = device_tflops("this", 1.0)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = used(device)
    recipe = stages.recipe(
        {"teacher": {"encoder": given.teacher}},
        {"student": {"encoder": given.student, "checkpoint_activations": given.checkpoint}},
        given.resolution,
        given.batch,
        given.precision,
        accumulate=given.accumulate,
        head_hidden=given.hidden,
    )
    trainer = stages.trainer(recipe, device)
    if device.type == "cuda":  # not what making the weights took
        torch.cuda.reset_peak_memory_stats()
    step = stages.running(trainer, stages.random_images(given.batch, given.resolution, device))
    seconds = min(stages.timed(step, device)[0] for _ in range(4))
    measured = (used(device) - before) / 2**30
    cost = plan(recipe, 1.0)[0]
    tflops = cost.gflops_per_image * given.batch / seconds / 1e3
    error = cost.memory_gib / measured - 1
    print(f"memory: {cost.memory_gib:.2f} GiB planned, {measured:.2f} measured: {error:+.0%}")
    print(f"time: {seconds * 1e3:.0f} ms a step, {tflops:.3g} of {peak:.3g} TFLOP/s: ", end="")
    print(f"efficiency {tflops / peak:.2f} on {stages.name_of(device)}")


def used(device: torch.device) -> int:
    """Bytes at the peak so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
