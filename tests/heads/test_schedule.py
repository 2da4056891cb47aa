"""Shapes of the schedules; the protocols' exact rates are in tests/evaluation/test_variants.py."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from openeupe.heads.schedule import half_cosine, learning_rates


def test_a_plain_schedule_rises_and_falls() -> None:
    rates = list(learning_rates(10, 2.0, 3, final_lr=0.5))
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[3:] == sorted(rates[3:], reverse=True)
    assert rates[-1] > 0.5
    assert list(learning_rates(6, 2.0, 1, final_lr=2.0)) == [1.0, *[2.0] * 5]
    assert list(learning_rates(0, 1.0, 0)) == []
    assert half_cosine(0, 8, 3.0, 1.0) == 3.0
    assert half_cosine(8, 8, 3.0, 1.0) == 1.0


@pytest.mark.parametrize(("steps", "warmup"), [(40, 7), (12, 0), (5, 4), (1, 0)])
def test_the_recursive_schedule_is_that_of_pytorch(steps: int, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    rise = lr_scheduler.LinearLR(optimizer, 1 / (warmup + 1), 1.0, warmup + 1)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, max(steps - warmup, 1))
    schedule = lr_scheduler.SequentialLR(optimizer, [rise, fall], [warmup])
    expected = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(steps):
            expected.append(optimizer.param_groups[0]["lr"])
            schedule.step()
    found = list(learning_rates(steps, 0.3, warmup, form="recursive"))
    assert found == pytest.approx(expected, rel=1e-12)


def test_a_warm_up_longer_than_the_training_ends_with_it() -> None:
    rates = list(learning_rates(4, 1.0, 50, form="recursive"))
    assert rates == sorted(rates)
    assert rates == list(learning_rates(4, 1.0, 3, form="recursive"))
    assert rates[-1] == 1.0
