from __future__ import annotations

import torch

from openeupe.distillation.adapter_heads import AdapterHead, TeacherHeads
from openeupe.encoders import Tokens, create


def test_head_is_the_papers() -> None:
    head = AdapterHead(192, 3072, 1536)
    kinds = [type(layer).__name__ for layer in head]
    assert kinds == ["Linear", "LayerNorm", "GELU", "Linear"]
    # Two such heads beside ViT-T are what fills the released file (paper-facts 1.4).
    assert sum(p.numel() for p in head.parameters()) == 192 * 3072 + 2 * 3072 + 3072 * 1536


def test_teacher_heads_keep_the_grid() -> None:
    student, teacher = create("test_vit"), create("test_resnet")
    heads = TeacherHeads(student, teacher, hidden=8)
    tokens = Tokens(torch.randn(2, student.cls_dim), torch.randn(2, student.patch_dim, 3, 5))
    adapted = heads(tokens)
    assert adapted.cls.shape == (2, teacher.cls_dim)
    assert adapted.patches.shape == (2, teacher.patch_dim, 3, 5)
    # Position (1, 4) depends on the student's token there and on no other.
    alone = heads.patches(tokens.patches[:, :, 1, 4])
    torch.testing.assert_close(adapted.patches[:, :, 1, 4], alone)
