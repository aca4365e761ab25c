"""Muon: momentum for the hidden matrices, each update made orthogonal (Jordan 2024). Lesson 05 shows what that does."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from lib.trainer.parallel import cut, is_cut, whole


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal: every direction of a matrix moves by the same amount (Jordan 2024).

    For the hidden matrices only. Matrices of one shape are stacked and orthogonalised together, in float32 on a CPU
    and bfloat16 on a GPU, by five steps of a Newton–Schulz iteration. Of matrices that are cut between processes each
    is made whole in turn: every process orthogonalises all of it and keeps its share.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay=0.0):
        super().__init__(parameters, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))

    @staticmethod
    def orthogonalise(g: Tensor) -> Tensor:
        """The nearest matrices with all singular values near 1: (n, R, C) → (n, R, C)."""
        x = g.bfloat16() if g.is_cuda else g  # (n, R, C)
        if tall := x.size(-2) > x.size(-1):
            x = x.mT
        x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
        for _ in range(5):  # an odd polynomial of the singular values: 3.4445 x − 4.7750 x³ + 2.0315 x⁵
            gram = x @ x.mT  # (n, R, R)
            cubic = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)  # (n, R, R)
            x = torch.baddbmm(x, cubic, x, beta=3.4445)  # (n, R, C)
        return (x.mT if tall else x).to(g.dtype)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append(p)
            for shape, parameters in shapes.items():
                gradients = [p.grad for p in parameters]
                for p in parameters:
                    if not self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)  # (R, C)
                momenta = [self.state[p]["momentum"] for p in parameters]
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                updates = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov's look ahead
                if is_cut(updates[0]):
                    orthogonal = [cut(self.orthogonalise(whole(u)[None])[0], like=u) for u in updates]  # (R, C) each
                else:
                    orthogonal = list(self.orthogonalise(torch.stack(updates)))  # (R, C) each
                scale = group["lr"] * math.sqrt(max(1, shape[0] / shape[1]))
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_sub_(parameters, orthogonal, alpha=scale)
