"""Text as it is written: tokens in, characters out as soon as they are sure."""

from collections.abc import Collection, Iterator, Sequence

from lib.generation import left_pad, stream
from lib.transformer import Transformer

HALF = "\ufffd"  # what a decoder puts for half a character


class Text:
    """Tokens in, text out as soon as it is sure: whole characters, and nothing that may become a stop string.

    after: what the text goes on from, so that a space between the two is not lost.
    """

    def __init__(self, tokenizer, stop: Sequence[str] = (), after: Sequence[int] = ()):
        self.tokenizer, self.stop = tokenizer, stop
        self.ids = [int(id) for id in after]  # those that the next text depends on
        self.known = len(self.ids)  # how many of them are out as text; they stay, for some decoders look one token back
        self.held = ""  # text that may be the beginning of a stop string
        self.stopped = False

    def add(self, id: int) -> str:
        """The text that this token makes sure; "" where it is too early to say."""
        self.ids.append(id)
        new = self._new()
        if not new or new.endswith(HALF):
            return ""
        self.ids, self.known = self.ids[self.known :], len(self.ids) - self.known
        return self._sift(new)

    def end(self) -> str:
        """What was held back, now that no more comes."""
        text = self._sift(self._new())
        text, self.held, self.ids, self.known = text + self.held, "", [], 0
        return text

    def _new(self) -> str:
        before = self.tokenizer.decode(self.ids[: self.known])
        return self.tokenizer.decode(self.ids)[len(before) :]

    def _sift(self, new: str) -> str:
        text = self.held + new
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        if found:
            self.held, self.stopped = "", True
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self.stop), default=0)
        self.held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text are the beginning of the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


def endings(tokenizer) -> frozenset[int]:
    """The ids that end a text: all that a model's folder declares (`ends`), else the one `eos_id`, if any."""
    one = getattr(tokenizer, "eos_id", None)
    return frozenset(getattr(tokenizer, "ends", () if one is None else (one,)))


def stream_text(
    model: Transformer, tokenizer, ids: Sequence[int], max_new_tokens: int, stop: Collection[int] = (), **options
) -> Iterator[str]:
    """Yield what follows a prompt of ids (T,) piece by piece, as text; a character that spans tokens comes whole.

    Ends before the first token in `stop`. Options are those of `stream`.
    """
    tokens, _ = left_pad([ids], device=model.embedding.weight.device)  # (1, T)
    text = Text(tokenizer, after=ids[-1:])
    for token in stream(model, tokens, max_new_tokens, **options):
        if token.item() in stop:
            break
        if piece := text.add(token.item()):
            yield piece
    if rest := text.end():
        yield rest
