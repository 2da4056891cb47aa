"""Adapter heads that map a student's tokens to a teacher's (paper section 4.1)."""

from __future__ import annotations

from torch import Tensor, nn

from openeupe.encoders.encoder import Tokens, TokenWidths


class AdapterHead(nn.Sequential):
    """Two-layer MLP: Linear (no bias) -> LayerNorm -> GELU -> Linear (no bias).

    `[..., in_dim] -> [..., out_dim]`. Hidden width 1536 in stage 1, 3072 in stages 2 and 3
    (paper section 4.1; the missing biases follow from the size of the released files).
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        super().__init__(
            nn.Linear(in_dim, hidden, bias=False),
            nn.LayerNorm(hidden),
            nn.GELU(),
            nn.Linear(hidden, out_dim, bias=False),
        )


class TeacherHeads(nn.Module):
    """Class head and patch head of one student for one teacher.

    Maps the student's `Tokens` to `Tokens` of the teacher's widths on the student's grid.
    """

    def __init__(self, student: TokenWidths, teacher: TokenWidths, hidden: int) -> None:
        super().__init__()
        self.cls = AdapterHead(student.cls_dim, hidden, teacher.cls_dim)
        self.patches = AdapterHead(student.patch_dim, hidden, teacher.patch_dim)

    def forward(self, tokens: Tokens) -> Tokens:
        """Predict the teacher\'s tokens."""
        grid: Tensor = tokens.patches
        adapted = self.patches(grid.flatten(2).transpose(1, 2))
        return Tokens(
            cls=self.cls(tokens.cls),
            patches=adapted.transpose(1, 2).unflatten(2, grid.shape[-2:]),
        )
