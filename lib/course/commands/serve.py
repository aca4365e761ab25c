"""`course serve`: a model answers over HTTP, to any client of OpenAI's protocol and to a browser."""

import ipaddress
import os
import re
import secrets

import click

from lib.errors import CourseError

VARIABLE = "COURSE_SERVE_TOKEN"


@click.command("serve")
@click.option("--model", "source", required=True, metavar="DIR|smollm2", help="A model's folder, or smollm2.")
@click.option("--adapter", metavar="DIR", help="A LoRA adapter for it, in peft's format.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS",
              help="Where to listen; the default is reached from this machine alone.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, metavar="N",
              help="0 takes one that is free.")
@click.option("--token", envvar=VARIABLE, metavar="TOKEN",
              help=f"What clients must know; default: the variable {VARIABLE}, which a list of processes does not "
                   "show, or a fresh one, printed once.")
@click.option("--name", metavar="NAME", help="What clients call the model; default: smollm2, or the folder's name.")
@click.option("--max-batch", type=click.IntRange(1, 1024), default=32, show_default=True, metavar="N",
              help="How many requests are answered at once.")
@click.option("--queue", type=click.IntRange(0, 100_000), default=64, show_default=True, metavar="N",
              help="How many more may wait; beyond that a client is told to come later (429).")
@click.option("--context", type=click.IntRange(2), metavar="N",
              help="Most tokens of a conversation and its answer; default: 2048, or the model's block.")
@click.option("--max-tokens", type=click.IntRange(1), default=1024, show_default=True, metavar="N",
              help="Most tokens of one answer.")
@click.option("--max-body", type=click.IntRange(1), default=2**20, show_default=True, metavar="BYTES",
              help="Largest request (413 beyond).")
@click.option("--timeout", type=click.FloatRange(min=0.1), default=600, show_default=True, metavar="SECONDS",
              help="Longest time for one answer, waiting included (504 beyond).")
@click.option("--cors", "origins", multiple=True, metavar="ORIGIN",
              help="Whose pages may speak to it in a browser, as https://app.example; * for all; default: its own.")
@click.option("--threads", type=click.IntRange(1, 4096), default=1, show_default=True, metavar="N",
              help="CPU threads to compute on.")
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda or mps.")
def serve(
    source: str,
    adapter: str | None,
    host: str,
    port: int,
    token: str | None,
    name: str | None,
    max_batch: int,
    queue: int,
    context: int | None,
    max_tokens: int,
    max_body: int,
    timeout: float,
    origins: tuple[str, ...],
    threads: int,
    device: str,
) -> int:
    """Serve a model to OpenAI's clients, and a chat page to browsers.

    Clients POST to /v1/chat/completions, the chat page is at /.

    A model is `smollm2`, or a folder in Hugging Face's format with a tokenizer.json and a chat template. Requests
    share a batch, which they join and leave at any step; each has its own sampling options. temperature is 1 where a
    client sends none, as the protocol says; 0 takes the likeliest token.

    Only this machine can connect, and only who has the token gets an answer. There is no encryption: before you
    choose another --host, put a proxy with TLS in front.

    Ctrl-C takes no new requests, lets running answers end, and exits with status 0; a second one stops at once.
    """
    from lib.device import pick_device
    from lib.inference.server import Limits, Server, build, listen

    fresh = token is None
    token = secrets.token_urlsafe(24) if fresh else token
    if not token or not all("!" <= c <= "~" for c in token):
        raise CourseError("a token is printable ASCII without spaces, at least one character; choose another --token")
    for origin in origins:
        if not re.fullmatch(r"\*|(null|[a-z][a-z0-9+.-]*://[^\s/?#@]+)", origin):
            raise CourseError(f"--cors {origin!r} is no origin; write scheme, host and port alone: https://app.example")
    where = pick_device(device)
    bound = listen(host, port)  # before the seconds that loading takes
    try:
        import torch

        from lib.course.commands.generate import load_model
        from lib.inference.engine import Engine
        model, tokenizer = load_model(source)
        if not getattr(tokenizer, "knows_chat", False):
            raise CourseError(f"the model in {source} knows no conversations; `course generate` lets it write on")
        if adapter is not None:
            from lib.adapt.adapters import load_adapter
            from lib.adapt.lora import merge

            merge(load_adapter(model, adapter))
        torch.set_num_threads(threads)
        engine = Engine(model.to(where), tokenizer, max_batch, context, queue)
        del model  # the engine has its own copy of the weights
        name = name or (os.path.basename(os.path.abspath(source)))
        limits = Limits(body=max_body, max_tokens=min(max_tokens, engine.context - 1), answer_seconds=timeout)
        app = build(engine, tokenizer, name, token, limits, origins)
        server = Server(app, engine, lambda line: click.echo(line, err=True))
        port = bound.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        click.echo(f"{name} answers at {address}/v1 (Ctrl-C ends)")
        if fresh:
            click.echo(f"token: {token}")
        click.echo(f"chat page: {address}/" + (f"#token={token}" if fresh else ""))
        click.echo(f"up to {max_batch} answers at once; their memory: at most {engine.rows.most_bytes / 2**30:.1f} GiB")
        if not _is_here(host):
            click.echo("other machines can connect, and what is said is not encrypted", err=True)
        with engine.running():
            server.run([bound])
            if server.forced:
                os._exit(130)  # the engine's thread is in the middle of a step
    finally:
        bound.close()
    click.echo("ended; all running answers were given", err=True)
    return 0


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
