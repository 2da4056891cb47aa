from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from openeupe.distillation.standardize import Moments, Standardizer, StatisticsConfig
from openeupe.encoders import Tokens


def moments(rows: torch.Tensor, chunks: int = 1) -> Moments:
    result = Moments(rows.shape[1], rows.device)
    for chunk in rows.chunk(chunks):
        result.add(chunk)
    return result


def test_moments_over_chunks_equal_those_of_all_rows() -> None:
    # A mean far from zero is where a naive sum of squares in float32 loses everything.
    rows = torch.randn(1000, 5, generator=torch.Generator().manual_seed(0)) * 0.01 + 1000
    one, many = moments(rows), moments(rows, chunks=7)
    torch.testing.assert_close(many.mean, one.mean)
    torch.testing.assert_close(many.std(), rows.double().std(dim=0, correction=0))


def test_standardized_tokens_have_mean_0_and_std_1_apart_by_kind() -> None:
    cls, patches = torch.randn(64, 4) * 3 + 7, torch.randn(64, 6, 3, 3) * 0.1 - 2
    standardizer = Standardizer(SimpleNamespace(cls_dim=4, patch_dim=6))
    rows = patches.flatten(2).transpose(1, 2).flatten(0, 1)
    standardizer.set(moments(cls), moments(rows), min_std=0.01)
    out = standardizer(Tokens(cls, patches))
    torch.testing.assert_close(out.cls.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.cls.std(0, correction=0), torch.ones(4))
    torch.testing.assert_close(out.patches.std((0, 2, 3), correction=0), torch.ones(6))
    back = standardizer.inverse(out)
    torch.testing.assert_close(back.cls, cls)
    torch.testing.assert_close(back.patches, patches)


def test_dead_coordinates_are_not_blown_up() -> None:
    rows = torch.randn(100, 3)
    rows[:, 1] = 0.5
    standardizer = Standardizer(SimpleNamespace(cls_dim=3, patch_dim=3))
    standardizer.set(moments(rows), moments(torch.zeros(100, 3)), min_std=0.01)
    surprise = Tokens(torch.full((1, 3), 0.6), torch.ones(1, 3, 1, 1))
    out = standardizer(surprise)
    assert out.cls[0, 1] < 0.1 / (0.01 * 0.5)  # min_std, not 0.1 / 0
    assert torch.isfinite(out.patches).all()  # a teacher that never varied at all
    assert (out.patches == 1).all()


def test_floor_0_is_the_papers_plain_standardization() -> None:
    scales = torch.tensor([1.0, 4.7, 20.1, 97.5])
    rows = torch.randn(2000, 4, generator=torch.Generator().manual_seed(0)) * scales + 3
    rows[:, 0] = 1 / 3  # constant: its mean in float64 differs from each row by rounding
    patches = rows.view(500, 4, 4, 1).transpose(1, 2)
    standardizer = Standardizer(SimpleNamespace(cls_dim=4, patch_dim=4))
    by_kind = patches.flatten(2).transpose(1, 2).flatten(0, 1)
    standardizer.set(moments(rows, chunks=7), moments(by_kind, chunks=3), min_std=0)
    out = standardizer(Tokens(rows, patches))
    torch.testing.assert_close(out.cls[:, 1:].std(0, correction=0), torch.ones(3))
    torch.testing.assert_close(standardizer.cls_std[0], torch.tensor(1.0))
    assert out.cls[:, 0].abs().max() < 1e-6
    torch.testing.assert_close(standardizer.patch_std[1:], by_kind[:, 1:].std(0, correction=0))


@pytest.mark.parametrize(
    ("settings", "batch", "batches"),
    [
        ({}, 8, 500),
        ({"standard_error": 0.1}, 8, 13),  # 100 images
        ({"standard_error": 0.1}, 1024, 1),
        ({"standard_error": 0.01, "iterations": 20}, 8, 20),
    ],
)
def test_statistics_end_once_means_are_precise_enough(
    settings: dict[str, float], batch: int, batches: int
) -> None:
    assert StatisticsConfig.model_validate(settings).batches(batch) == batches


def test_the_standard_error_of_a_mean_is_what_was_asked_for() -> None:
    """Over many measurements of as many images as 0.1 takes."""
    images = StatisticsConfig(standard_error=0.1).batches(1)
    drawn = 3 + 2 * torch.randn(2000, images, generator=torch.Generator().manual_seed(0))
    assert drawn.mean(1).std() / 2 == pytest.approx(0.1, rel=0.05)
