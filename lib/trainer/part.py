"""What may go along with the plain loop of lib.training without standing in it.

A part is told of each moment of a run and by default does nothing: checkpoints (lib.trainer.checkpoint), a team
(lib.trainer.parallel) and whoever watches are parts. The loop calls the methods in the order in which they stand here.
"""

from collections.abc import Callable, Iterable

from torch import Tensor

from lib.trainer.history import History


class Part:
    """One thing that goes along with a run."""

    def begin(self, history: History) -> None:
        """Before the first step; history: what the run saw before, if it goes on, and will see."""

    def before(self, step: int) -> None:
        """Before a step's first batch; its random state is set."""

    def weigh(self, loss: Tensor) -> Tensor:
        """A batch's loss, (), as it is to count in its step."""
        return loss

    def gradients(self, loss: Tensor) -> None:
        """All gradients of a step are there, not yet clipped; loss: the step's, (), to be changed in place."""

    def after(self, done: int, loss: Tensor, ending: bool = False) -> bool:
        """Step number `done`, counted from 1, is over. Whether the run ends here; ending: what the part before said."""
        return ending


class Parts(Part):
    """Several parts as one: each is told in turn."""

    def __init__(self, parts: Iterable[Part]):
        self.parts = tuple(parts)

    def begin(self, history: History) -> None:
        for part in self.parts:
            part.begin(history)

    def before(self, step: int) -> None:
        for part in self.parts:
            part.before(step)

    def weigh(self, loss: Tensor) -> Tensor:
        for part in self.parts:
            loss = part.weigh(loss)
        return loss

    def gradients(self, loss: Tensor) -> None:
        for part in self.parts:
            part.gradients(loss)

    def after(self, done: int, loss: Tensor, ending: bool = False) -> bool:
        for part in self.parts:
            ending = part.after(done, loss, ending)
        return ending


class Watch(Part):
    """Somebody looks at each step's loss, and may end the run: watch(done, loss) is true for that."""

    def __init__(self, watch: Callable[[int, Tensor], object]):
        self.watch = watch

    def after(self, done: int, loss: Tensor, ending: bool = False) -> bool:
        return bool(self.watch(done, loss)) or ending
