"""The door between a function of the story and the kernel that computes it faster.

    @with_kernel(fused_attention)
    def grouped_attention(q, k, v, context): ...

A kernel has the plain form's signature and gives its result but for rounding, or NotImplemented for inputs that it is
not for. Which kernel serves which inputs is written in the kernel's own file.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator

_written_out: list[Callable] = []  # the plain forms that run themselves just now


def with_kernel(kernel: Callable) -> Callable[[Callable], Callable]:
    """Let a kernel compute what a function says, wherever it can. The function itself stays there as `.plain`."""

    def door(plain: Callable) -> Callable:
        @functools.wraps(plain)
        def function(*args, **options):
            result = NotImplemented if plain in _written_out else kernel(*args, **options)
            return plain(*args, **options) if result is NotImplemented else result

        function.plain = plain
        return function

    return door


@contextlib.contextmanager
def written_out(*functions: Callable) -> Iterator[None]:
    """Meanwhile these functions, made by `with_kernel`, run in their plain form, in the whole process."""
    plain = [function.plain for function in functions]
    _written_out.extend(plain)
    try:
        yield
    finally:
        for each in plain:
            _written_out.remove(each)
