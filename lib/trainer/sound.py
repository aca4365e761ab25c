"""A run whose loss or weights are no numbers any more ends there, and the checkpoint before it stays."""

import math

from torch import Tensor, nn

from lib.errors import CourseError
from lib.trainer.history import History
from lib.trainer.parallel import ALONE, Team, is_cut
from lib.trainer.part import Part

EVERY = 20  # steps between two looks at a GPU's losses: each look makes it wait


class Diverged(CourseError):
    """A run went astray, seen at `step`, counted from 1. history: what it saw before that."""

    def __init__(self, step: int, what: str, rates: list[float], history: History):
        self.step, self.history = step, history
        rate = " and ".join(f"{rate:.3g}" for rate in dict.fromkeys(rates))
        super().__init__(f"the run diverged: {what} at step {step}, learning rate {rate}; take a smaller rate")


class Sound(Part):
    """Raises Diverged once the loss, or the weights where they are about to be kept, hold NaN or infinity.

    Stands behind the part that adds up a team's losses, and before the checkpoints. Losses from the first bad
    one on are taken out of the history.
    """

    def __init__(self, model: nn.Module, optimizers, config, team: Team = ALONE):
        self.model, self.optimizers, self.config, self.team = model, optimizers, config, team

    def begin(self, history: History) -> None:
        self.history, self.looked = history, history.step

    def after(self, done: int, loss: Tensor, ending: bool = False) -> bool:
        every = self.config.checkpoint_every
        kept = ending or done == self.config.steps or (every and done % every == 0)
        if kept or loss.device.type == "cpu" or done % EVERY == 0:
            self.look()
        if kept:
            shares = [p.detach().to_local() if is_cut(p) else p.detach() for p in self.model.parameters()]
            if self.team.total(float(sum(not share.isfinite().all() for share in shares)), loss.device):
                self._end(done, "weights are not finite")
        return ending

    def look(self) -> None:
        """At all losses since the last look."""
        self.history.settle()
        losses = self.history.train_loss
        for step in range(self.looked, len(losses)):
            if not math.isfinite(losses[step]):
                what = f"the loss is {losses[step]}"
                del losses[step:]
                self._end(step + 1, what)
        self.looked = len(losses)

    def judge(self, held_out: float) -> None:
        """A loss on held-out examples, after the newest step."""
        if not math.isfinite(held_out):
            self._end(self.looked, f"the held-out loss is {held_out}")

    def _end(self, step: int, what: str) -> None:
        rates = [group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups]
        raise Diverged(step, what, rates, self.history)
