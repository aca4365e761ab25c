"""One self-contained page for a model: its weights, its tokenizer, and explore.js, which computes it.

Opened from disk it asks nobody for anything: a content policy forbids it. Weights go in as they are, in float32: the
page shows the very numbers of PyTorch, to rounding.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import torch

from lib.errors import CourseError
from lib.tokenizer import BYTES, BPETokenizer, CharTokenizer
from lib.transformer import Transformer, count_parameters

HERE = Path(__file__).parent
LARGEST = 5_000_000  # parameters of a page: beyond, it takes long to open and a second a look
SHOWN = 128  # pieces of a text that are shown at once, the last ones
SELF, NOBODY = "'self'", "'none'"
TEXT = "To be, or not to be, that is the question"


def too_large(model: Transformer) -> bool:
    """Whether a page would be too large for this model, which a server can show all the same."""
    return count_parameters(model) > LARGEST


def page(model: Transformer, tokenizer, name: str, text: str | None = None, served: bool = False) -> str:
    """The whole page as HTML. tokenizer: ours, or one with a `tokenizers` Tokenizer as .tokenizer. served: the model
    stays with the server that sends the page. Raises CourseError for a tokenizer that explore.js does not know."""
    if not served and too_large(model):
        raise CourseError(f"{count_parameters(model):,} weights are too many for a page (at most {LARGEST:,})")
    cutter = describe(tokenizer)
    about = {
        "name": name, "config": model.config.to_dict(), "parameters": count_parameters(model), "shown": SHOWN,
        "tokenizer": cutter, "text": start(tokenizer) if text is None else text, "served": served,
        "questions": json.loads((HERE / "questions.json").read_text(encoding="utf-8")), "layout": [],
    }  # fmt: skip
    blob = b""
    if not served:
        about["layout"], blob = pack(model)
    script, style = ((HERE / f"explore.{kind}").read_text(encoding="utf-8") for kind in ("js", "css"))
    policy = (f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
              f"connect-src {SELF if served else NOBODY}; base-uri 'none'; form-action 'none'")  # fmt: skip
    html = (HERE / "explore.html").read_text(encoding="utf-8")
    parts = {"POLICY": policy, "STYLE": style, "ABOUT": data(about), "SCRIPT": script,
             "WEIGHTS": base64.b64encode(blob).decode()}  # fmt: skip
    html = (HERE / "explore.html").read_text(encoding="utf-8")
    return re.sub(f"@({'|'.join(parts)})@", lambda mark: parts[mark[1]], html)


def data(value: Any) -> str:
    """JSON that no parser of HTML can take for a tag."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def pack(model: Transformer) -> tuple[list[list], bytes]:
    """[[name, shape], …] and all weights after one another, little-endian float32; a tied head is left out."""
    state = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in model.state_dict().items()
             if not (name == "head.weight" and model.config.tie)}  # fmt: skip
    blob = b"".join(tensor.numpy().astype("<f4").tobytes() for tensor in state.values())
    return [[name, list(tensor.shape)] for name, tensor in state.items()], blob


def start(tokenizer) -> str:
    """A text to begin with: a well-known one, or, for a model of other letters, the letters it has."""
    if not isinstance(tokenizer, CharTokenizer):
        return TEXT
    known = tokenizer.decode(range(tokenizer.vocab_size))
    if sum(sign in known for sign in TEXT) > 0.9 * len(TEXT):
        return "".join(sign for sign in TEXT if sign in known)
    letters = "".join(sign for sign in known if sign.isalnum()) or known
    return letters[:24]


# --- the tokenizer, as explore.js wants it ---

LETTERS = {byte: chr(byte) if 0x20 < byte < 0x7F or (0xA0 < byte and byte != 0xAD) else None for byte in range(256)}
LETTERS |= {byte: chr(256 + n) for n, byte in enumerate(byte for byte, sign in LETTERS.items() if sign is None)}


def describe(tokenizer) -> dict[str, Any]:
    """Pieces, merges and how a text is cut into words. Raises CourseError for anything that is not understood."""
    if isinstance(tokenizer, CharTokenizer):
        return {"kind": "characters", "pieces": [tokenizer.decode([id]) for id in range(tokenizer.vocab_size)]}
    if isinstance(tokenizer, BPETokenizer):
        pieces = ["".join(LETTERS[byte] for byte in tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
        merges = [[*pair, len(BYTES) + n] for n, pair in enumerate(tokenizer._pairs)]
        return {"kind": "bytes", "pieces": pieces, "merges": merges, "words": True}
    return _described(json.loads(tokenizer.tokenizer.to_str()))


def _described(theirs: dict) -> dict[str, Any]:
    """What a tokenizer.json says."""

    def refuse(what: str) -> CourseError:
        return CourseError(f"this model's tokenizer {what}, which the view does not understand; it knows characters "
                           f"and byte-level BPE as GPT-2 has it")  # fmt: skip

    model, normalizer = theirs["model"], theirs.get("normalizer")
    if model.get("type") != "BPE":
        raise refuse(f"is of type {model.get('type')}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(name):
            raise refuse(f"has {name} set")
    if normalizer not in (None, {"type": "NFC"}):
        raise refuse("changes the text first")
    found: dict[str, Any] = {"kind": "bytes", "nfc": normalizer is not None, "digits": "", "words": False}
    cuts = theirs.get("pre_tokenizer") or {"type": "none"}
    cuts = cuts.get("pretokenizers", [cuts])
    kinds = [cut["type"] for cut in cuts]
    if kinds not in (["ByteLevel"], ["Digits", "ByteLevel"]):
        raise refuse("cuts texts into words in a way of its own")
    found |= {"words": cuts[-1].get("use_regex", True), "prefix": cuts[-1].get("add_prefix_space", True)}
    if "Digits" in kinds:
        found["digits"] = "each" if cuts[0].get("individual_digits") else "runs"
    vocab, added = dict(model["vocab"]), {}
    for token in theirs.get("added_tokens", []):
        if token.get("lstrip") or token.get("rstrip") or token.get("single_word") or not token["content"]:
            raise refuse("has added tokens with conditions")
        added[token["content"]] = token["id"]
    pieces = [""] * (max([*vocab.values(), *added.values()], default=-1) + 1)
    for piece, id in (vocab | added).items():
        pieces[id] = piece
    merges = []
    for pair in model["merges"]:
        left, right = pair.split(" ") if isinstance(pair, str) else pair
        merges.append([vocab[left], vocab[right], vocab[left + right]])
    return found | {"pieces": pieces, "merges": merges, "added": added}
