"""Faster arithmetic: matrix products in bfloat16 (autocast), and the model through torch.compile."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lib.errors import CourseError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def in_precision(function: Callable, precision: str, device: torch.device) -> Callable:
    """The same function, the matrix products inside it in one of PRECISIONS; the weights stay in float32."""
    if PRECISIONS[precision] is torch.float32:
        return function

    @functools.wraps(function)
    def cast(*arguments):
        with torch.autocast(device.type, PRECISIONS[precision]):  # a new one for each call: threads may share this
            return function(*arguments)

    return cast


class Compiled(nn.Module):
    """A model through torch.compile, which looks for a compiler only when it is first called."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.fast = torch.compile(model)  # the same parameters

    def forward(self, tokens: Tensor) -> Tensor:
        try:
            return self.fast(tokens)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            why = str(error).strip().split("\n")[0]
            raise CourseError(f"torch.compile failed ({why}); install a C++ compiler or set compile=False") from None
