from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from openeupe.visualization.align import rotated, rotation
from openeupe.visualization.colours import Colouring, colour
from openeupe.visualization.pca import coherence, fit_pca, foreground


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(20, 5, 7), (60, 5, 7)], ids=["many patches", "few patches"])
def test_components_are_those_of_scikit_learn(shape: tuple[int, int, int]) -> None:
    patches = tokens(*shape)
    pca = fit_pca([patches], 5)
    other = PCA(5, svd_solver="full").fit(patches.flatten(1).T.double().numpy())
    torch.testing.assert_close(
        pca.explained, torch.from_numpy(other.explained_variance_ratio_), rtol=1e-6, atol=1e-9
    )
    for mine, theirs in zip(pca.axes.numpy(), other.components_, strict=True):
        assert abs(abs(float(mine @ theirs)) - 1) < 1e-6
        assert mine[np.abs(mine).argmax()] > 0  # the sign rule
    scores = pca.scores(patches).flatten(1)
    torch.testing.assert_close(scores.square().mean(dim=1), torch.ones(5))


def test_a_flat_image_and_few_directions_are_no_error() -> None:
    flat = colour({"flat": [torch.ones(2, 4, 4)], "thin": [tokens(1, 4, 4)]})
    assert bool(torch.isfinite(flat["flat"][0].rgb).all())
    assert flat["flat"][0].explained.tolist() == [0.0] * 8
    assert float(flat["thin"][0].explained[0]) == pytest.approx(1)
    assert float(flat["thin"][0].explained[1]) == 0


def test_axes_of_a_batch_and_of_a_reference_set_are_shared() -> None:
    images = [tokens(6, 4, 4), tokens(6, 4, 5, seed=1)]
    together = fit_pca(images)
    by_batch = colour({"a": images}, Colouring(axes="batch"))["a"]
    for one, image in zip(by_batch, images, strict=True):
        torch.testing.assert_close(one.components, together.scores(image))
    values = torch.cat([one.rgb.flatten(0, 1) for one in by_batch])
    assert values.amin(0).tolist() == [0, 0, 0]  # one range for both images
    assert values.amax(0).tolist() == pytest.approx([1, 1, 1])
    set_ = [tokens(6, 9, 9, seed=2)]
    by_set = colour({"a": images}, Colouring(axes="reference"), {"a": set_})["a"]
    torch.testing.assert_close(by_set[0].components, fit_pca(set_).scores(images[0]))


def test_ranges() -> None:
    patches = tokens(6, 8, 8)
    patches[:, 0, 0] = 1000  # one outlier token
    spread = {
        how: colour({"a": [patches]}, Colouring(range=how))["a"][0].rgb[1:, :, 0].std()
        for how in ("minmax", "robust", "whiten")
    }
    assert spread["minmax"] < 0.05  # the outlier took the first component's range
    assert spread["robust"] > 0.05


def test_a_mask_leaves_tokens_out_of_the_axes_and_paints_them_grey() -> None:
    patches = tokens(6, 8, 8)
    patches[:, :, :4] += 50
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[:, 32:] = True
    one = colour({"a": [patches]}, Colouring(mask=[mask]))["a"][0]
    alone = fit_pca([patches[:, :, 4:]])
    torch.testing.assert_close(one.explained, alone.explained)
    assert one.components[:, :, :4].isnan().all()
    assert one.components[:, :, 4:].isfinite().all()
    torch.testing.assert_close(one.rgb[:, :4], torch.full((8, 4, 3), 0.93))


def test_the_first_component_parts_the_thing_from_its_ground() -> None:
    patches = tokens(6, 9, 9) * 0.1
    patches[:, 3:6, 3:6] += 4
    assert foreground(patches).nonzero().tolist() == [[r, c] for r in (3, 4, 5) for c in (3, 4, 5)]
    assert foreground(-patches).sum() == 9
    assert foreground(torch.ones(3, 4, 4)).all()


def test_coherence_is_none_for_noise_and_one_for_a_slope() -> None:
    assert abs(coherence(tokens(8, 60, 60))) < 0.03
    slope = torch.linspace(0, 1, 60).expand(1, 60, 60)
    assert coherence(slope) > 0.95


def test_colours_are_turned_back_from_a_rotation_and_a_mirror() -> None:
    scores = [fit_pca([tokens(9, 12, 12)], 3).scores(tokens(9, 12, 12))]
    turn, _ = torch.linalg.qr(tokens(3, 3, seed=5).double())
    turn[:, 0] *= -1
    moved = [rotated(scores[0], turn)]
    back = rotation(moved, scores)
    torch.testing.assert_close(back @ back.T, torch.eye(3, dtype=torch.float64))
    torch.testing.assert_close(rotated(moved[0], back), scores[0], rtol=1e-5, atol=1e-5)


def test_aligned_encoders_share_colours_and_the_caption_says_so() -> None:
    base = tokens(12, 10, 10)
    mixing, _ = torch.linalg.qr(tokens(12, 12, seed=3))
    other = torch.einsum("ij,jhw->ihw", mixing, base)  # the same space, turned
    both = colour({"a": [base], "b": [other]})
    torch.testing.assert_close(both["a"][0].rgb, both["b"][0].rgb, rtol=1e-3, atol=1e-3)
    assert "aligned orthogonally with a" in Colouring().caption("a")
    assert "aligned" not in Colouring(align=False).caption("a")
