"""The linear probe of the dense columns: BatchNorm and a 1x1 convolution on frozen patch tokens."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from openeupe.seeds import derive_seed


class LinearProbe(nn.Module):
    """Dropout2d -> BatchNorm2d -> 1x1 convolution: `[B, D, h, w]` tokens -> `[B, outputs, h, w]`.

    Weights start from N(0, 0.01) and biases from 0 (paper C.3, C.4). With several devices convert
    it by `nn.SyncBatchNorm.convert_sync_batchnorm`.
    """

    def __init__(self, width: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout) if dropout else nn.Identity()
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Conv2d(width, outputs, 1)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.linear(self.norm(self.dropout(tokens)))
        return out


def fit_cached(
    tokens: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    outputs: int,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    warmup_steps: int,
    seed: int,
    dropout: float = 0.0,
    device: torch.device | str = "cpu",
) -> LinearProbe:
    """Train a probe on tokens computed once: the short variant that CPU users can afford.

    AdamW, linear warm-up, cosine to zero; the last iterate is kept (no selection on test data).

    Args:
        tokens: `[N, D, h, w]` float16 or float32, on the CPU.
        loss: (`[B, outputs, h, w]` logits, `[B]` indices of the images) -> scalar.
        seed: fixes the start and the order of the images.
    """
    device = torch.device(device)
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators), torch.enable_grad():
        torch.manual_seed(derive_seed(seed, "probe"))
        probe = LinearProbe(tokens.shape[1], outputs, dropout).to(device)
        order = torch.Generator().manual_seed(derive_seed(seed, "order"))
        optimizer = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=weight_decay)
        warmup = max(min(warmup_steps, steps - 1), 0)
        schedule = torch.optim.lr_scheduler.SequentialLR(
            optimizer,
            [
                torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup + 1),
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps - warmup, 1)),
            ],
            [warmup],
        )
        queue = torch.empty(0, dtype=torch.int64)
        for _ in range(steps):
            while len(queue) < batch_size:
                queue = torch.cat([queue, torch.randperm(len(tokens), generator=order)])
            chosen, queue = queue[:batch_size], queue[batch_size:]
            value = loss(probe(tokens[chosen].to(device).float()), chosen)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
    return probe.eval()
