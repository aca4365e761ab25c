"""`course generate`: a model writes on, and you watch."""

from itertools import chain
from pathlib import Path

import click

from lib.errors import CourseError


@click.command("generate")
@click.option("--model", "source", required=True, metavar="DIR|smollm2", help="A model's folder, or smollm2.")
@click.option("--prompt", required=True, metavar="TEXT", help="What to go on from.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), metavar="N",
              help="Stop after so many tokens; default: 128, or what the model's block has room for.")
@click.option("--temperature", type=float, metavar="X", help="Above 0: draw, at this temperature.")
@click.option("--top-k", type=int, metavar="K", help="Draw from the K likeliest tokens.")
@click.option("--top-p", type=float, metavar="P", help="Draw from the likeliest that together reach a chance of P.")
@click.option("--min-p", type=float, metavar="P", help="Draw from those with P times the likeliest one's chance.")
@click.option("--repetition-penalty", type=float, metavar="X", help="Above 1: make what has occurred less likely.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Which draw.")
@click.option("--chat", is_flag=True, help="The prompt is a user's message; the model answers (its own chat template).")
def generate(
    source: str,
    prompt: str,
    max_new_tokens: int | None,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
    seed: int,
    chat: bool,
) -> None:
    """Let a model write on from a prompt, as you watch.

    A model is `smollm2`, or a folder in Hugging Face's format with its tokenizer.json, or one that `course train`
    wrote. Without sampling options the likeliest token is taken each time; with any of them, tokens are drawn.
    The prompt and the new tokens must fit the model's block: nothing is dropped to make room.
    """
    from lib.device import generator
    from lib.generation import check_sampling
    from lib.inference.decoding import Decoder
    from lib.inference.text import endings, stream_text

    if not prompt:
        raise CourseError("an empty prompt gives nothing to continue; pass --prompt with some text")
    options = dict(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                   repetition_penalty=repetition_penalty)
    check_sampling(**options)  # before the seconds that loading takes
    generator(seed)
    model, tokenizer = load_model(source)
    if chat:
        if not getattr(tokenizer, "knows_chat", False):
            raise CourseError(f"the model in {source} knows no conversations; leave out --chat")
        ids = tokenizer.chat([{"role": "user", "content": prompt}])
    else:
        ids = getattr(tokenizer, "prompt", tokenizer.encode)(prompt)
    if not ids:
        raise CourseError("this tokenizer makes no tokens of the prompt; pass another --prompt")
    if max_new_tokens is None:
        max_new_tokens = min(128, max(1, model.config.block_size - len(ids)))
    pieces = stream_text(Decoder(model), tokenizer, ids, max_new_tokens, endings(tokenizer), seed=seed, **options)
    first = next(pieces, "")  # what cannot be done is said before anything is printed
    for piece in chain([first if chat else prompt + first], pieces):
        click.echo(piece, nl=False)
    click.echo()


def load_model(source: str):
    """A Transformer and its tokenizer from what --model names. Raises CourseError where the two don't fit."""
    from lib.tokenizer import load as load_tokenizer
    from lib.weights.pretrained import ChatTokenizer, load

    if source == "smollm2":
        from lib.sources.catalogue import smollm2_folder

        folder = smollm2_folder()
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise CourseError(f"no model folder at {source}; give a folder with config.json, or smollm2")
    model = load(folder)
    if bad := [name for name, p in model.named_parameters() if not p.isfinite().all()]:
        raise CourseError(f"weights of the model in {source} are NaN or infinite ({bad[0]}); train it anew, or take "
                          "another copy")  # fmt: skip
    trained = folder / "course_tokenizer.json"
    tokenizer = load_tokenizer(trained) if trained.exists() else ChatTokenizer(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CourseError(
            f"the tokenizer in {source} knows {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}; "
            f"they do not belong together"
        )
    return model, tokenizer
