"""lib.inference.engine behind HTTP, in the words of OpenAI's chat-completions protocol, with a page to chat in.

A request passes five gates before it costs anything: the token, the size of its body, its form, its length in model
tokens, and a place in the queue. What is refused gets OpenAI's error body, {"error": {message, type, param, code}}.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import re
import secrets
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from lib.errors import CourseError
from lib.inference.engine import Closed, Engine, Full, Piece
from lib.inference.engine import Request as EngineRequest

PAGE = Path(__file__).with_name("server.html")
SEEDS = 2**63  # seeds lie between minus this and this


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    body: int = 2**20  # bytes
    messages: int = 256
    max_tokens: int = 1024  # of an answer
    stops: int = 4
    stop_length: int = 256  # characters
    body_seconds: float = 20  # for the body to arrive
    answer_seconds: float = 600  # from the request to the end of its answer


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error", param: str | None = None,
                 code: str | None = None, headers: dict[str, str] | None = None):
        self.status, self.headers = status, headers
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


# What a client may send. Fields that would change the answer in a way that we can't are known only at the values that
# change nothing; all that is unknown is refused, for an option that is silently ignored is a bug that nobody finds.


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


Nothing = Annotated[list, Field(max_length=0)] | None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    name: str | None = None
    refusal: str | None = None  # this one and those below come back when a client sends our own answers again
    annotations: Nothing = None
    audio: None = None
    function_call: None = None
    tool_calls: Nothing = None

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextFormat(Strict):
    type: Literal["text"]


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Zero = Annotated[float, Field(ge=0, le=0)]
Count = Annotated[int, Field(ge=1)]


class ChatRequest(Strict):
    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Share | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    frequency_penalty: Zero | None = None
    presence_penalty: Zero | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: TextFormat | None = None
    tools: Nothing = None
    user: str | None = None  # these four say something about the request and nothing about the answer
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None


class Answer:
    """One request on its way through the engine: its pieces, awaited in the event loop."""

    def __init__(self, engine: Engine, request: EngineRequest, seconds: float):
        loop = asyncio.get_running_loop()
        self.queue: asyncio.Queue[Piece] = asyncio.Queue()
        self.engine, self.prompt_tokens = engine, len(request.prompt)
        self.until = loop.time() + seconds
        self.id, self.created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

        def listener(piece: Piece) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self.queue.put_nowait, piece)

        self.request = replace(request, listener=listener)
        engine.submit(self.request)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Until the last. Raises Refused where the answer fails; whoever stops listening gives up the place."""
        try:
            while True:
                try:
                    async with asyncio.timeout_at(self.until):
                        piece = await self.queue.get()
                except TimeoutError:
                    raise Refused(504, "the answer took too long; ask for fewer tokens, or try again later",
                                  "server_error", code="timeout") from None
                if piece.finish == "closed":
                    raise closing()
                if piece.finish == "error":
                    raise Refused(500, "a fault in the engine; the server's log has it", "server_error")
                yield piece
                if piece.finish:
                    return
        finally:
            self.engine.cancel(self.request)

    def usage(self, tokens: int) -> dict[str, int]:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": tokens,
                "total_tokens": self.prompt_tokens + tokens}


def closing() -> Refused:
    return Refused(503, "the server is shutting down", "server_error", code="shutting_down",
                   headers={"Retry-After": "30", "Connection": "close"})


def parse(body: bytes, limits: Limits, name: str) -> ChatRequest:
    """The body's fields. Raises Refused with the status and the field that is wrong."""
    try:
        asked = ChatRequest.model_validate_json(body)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise Refused(400, f"the body is not JSON: {first['msg']}", code="invalid_json") from None
        where = ".".join(str(part) for part in first["loc"] if part not in ("str", "list[TextPart]", "list[str]"))
        if first["type"] == "extra_forbidden":
            raise Refused(400, f"{where[:100]} is not supported here", param=where[:100],
                          code="unsupported_parameter") from None
        said = f"{where}: {first['msg']}" if where else first["msg"]
        raise Refused(400, said, param=where or None, code="invalid_value") from None
    except (UnicodeError, RecursionError) as problem:
        raise Refused(400, f"the body is not JSON: {problem}", code="invalid_json") from None
    if asked.model != name:
        raise Refused(404, f"there is no model {asked.model[:100]!r} here; this server has {name!r}",
                      param="model", code="model_not_found")
    stops = asked.stop if isinstance(asked.stop, list) else [asked.stop or ""] if asked.stop is not None else []
    for field, wrong, why in (
        ("messages", len(asked.messages) > limits.messages, f"at most {limits.messages} messages"),
        ("stop", len(stops) > limits.stops, f"at most {limits.stops} stop strings"),
        ("stop", not all(0 < len(s) <= limits.stop_length for s in stops),
         f"each stop string has 1 to {limits.stop_length} characters"),
        ("max_tokens", (asked.max_tokens or 0) > limits.max_tokens, f"at most {limits.max_tokens}"),
        ("max_completion_tokens", (asked.max_completion_tokens or 0) > limits.max_tokens,
         f"at most {limits.max_tokens}"),
        ("stream_options", asked.stream_options is not None and not asked.stream, "only with stream: true"),
    ):
        if wrong:
            raise Refused(400, f"{field}: {why}", param=field, code="invalid_value")
    asked.stop = stops
    return asked


async def read_body(request: Request, limits: Limits) -> bytes:
    """All of the body, if it is small enough and comes in time."""
    body, size = bytearray(), 0
    announced = int(request.headers.get("content-length", 0))  # digits alone, else uvicorn would not have let it in
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                # A client that still sends does not listen: hear out what is not too much too long.
                if max(size, announced) <= limits.body:
                    body += part
                elif max(size, announced) > 16 * limits.body:
                    break
    except TimeoutError:
        raise Refused(408, "the body did not arrive in time", code="timeout", headers={"Connection": "close"}) from None
    if max(size, announced) > limits.body:
        raise Refused(413, f"the body is larger than {limits.body} bytes", code="body_too_large",
                      headers={"Connection": "close"})
    return bytes(body)


def to_engine(asked: ChatRequest, prompt: list[int], engine: Engine, limits: Limits) -> EngineRequest:
    """The engine's request. Raises Refused where prompt and answer do not fit the context."""
    room = engine.context - len(prompt)
    wanted = asked.max_completion_tokens or asked.max_tokens
    if room < (wanted or 1):
        raise Refused(400, f"the messages are {len(prompt)} tokens, and {wanted or 1} of an answer would exceed the "
                           f"context of {engine.context}; shorten one of them",
                      param="messages", code="context_length_exceeded")
    temperature = 1.0 if asked.temperature is None else asked.temperature
    top_p = None if asked.top_p in (None, 1) else max(asked.top_p, 1e-9)  # 0: the likeliest alone
    return EngineRequest(
        prompt,
        min(limits.max_tokens, room) if wanted is None else wanted,
        temperature=max(temperature, 1e-3) if temperature else None,
        top_p=top_p if temperature else None,
        seed=secrets.randbits(63) if asked.seed is None else asked.seed,
        stop=tuple(asked.stop),
    )


def build(engine: Engine, tokenizer, name: str, token: str, limits: Limits = Limits()) -> FastAPI:
    """The application. The engine must be running. `app.state.closing` set to True makes it refuse new work."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # the pages for these fetch from other hosts
    app.state.closing = False
    created = int(time.time())
    page = PAGE.read_text(encoding="utf-8")
    policy = content_policy(page)

    def admit(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Refused(401, "a wrong token, or none; send Authorization: Bearer TOKEN, with the token that "
                               "`course serve` printed", "authentication_error", code="invalid_api_key",
                          headers={"WWW-Authenticate": "Bearer"})
        if app.state.closing:
            raise closing()

    @app.exception_handler(Refused)
    async def refused(request: Request, problem: Refused) -> Response:
        return problem.response()

    @app.exception_handler(HTTPException)
    async def http_problem(request: Request, problem: HTTPException) -> Response:
        kinds = {404: "there is nothing at this address", 405: "this address takes no such method"}
        said = kinds.get(problem.status_code, str(problem.detail))
        return Refused(problem.status_code, said, headers=problem.headers).response()

    @app.exception_handler(Exception)
    async def fault(request: Request, problem: Exception) -> Response:
        return Refused(500, "a fault in the server; its log has it", "server_error").response()

    @app.get("/")
    async def chat_page() -> Response:
        return HTMLResponse(page, headers={
            "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        })

    @app.get("/health")
    async def health() -> Response:
        state = {"status": "closing" if app.state.closing else "ok", "running": engine.seated,
                 "waiting": engine.waiting}
        return JSONResponse(state, 503 if app.state.closing else 200)

    model = {"id": name, "object": "model", "created": created, "owned_by": "course"}

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        admit(request)
        return JSONResponse({"object": "list", "data": [model]})

    @app.get("/v1/models/{wanted:path}")
    async def one_model(request: Request, wanted: str) -> Response:
        admit(request)
        if wanted != name:
            raise Refused(404, f"there is no model {wanted[:100]!r} here; this server has {name!r}", param="model",
                          code="model_not_found")
        return JSONResponse(model)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        admit(request)
        asked = parse(await read_body(request, limits), limits, name)
        try:
            prompt = await asyncio.to_thread(tokenizer.chat, [message.plain() for message in asked.messages])
            answer = Answer(engine, to_engine(asked, prompt, engine, limits), limits.answer_seconds)
        except Full:
            raise Refused(429, "the queue is full; try again in a moment", "rate_limit_error", code="queue_full",
                          headers={"Retry-After": "2"}) from None
        except Closed:
            raise closing() from None
        except CourseError as problem:
            raise Refused(400, str(problem)) from None
        if asked.stream:
            usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return Stream(answer, stream(answer, name, usage))
        return await whole(answer, name, request)

    return app


async def whole(answer: Answer, name: str, request: Request) -> Response:
    """The answer in one piece. Listens for the client all the while: whoever hangs up frees the place."""

    async def collect() -> tuple[str, Piece]:
        texts = []
        async with contextlib.aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                texts.append(piece.text)
        return "".join(texts), piece

    async def hung_up() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, listening = asyncio.create_task(collect()), asyncio.create_task(hung_up())
    try:
        await asyncio.wait((collecting, listening), return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            return Response(status_code=499)  # to nobody
        text, last = collecting.result()
    finally:
        for task in (collecting, listening):
            task.cancel()
        answer.engine.cancel(answer.request)
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish}
    return JSONResponse({"id": answer.id, "object": "chat.completion", "created": answer.created, "model": name,
                         "choices": [choice], "usage": answer.usage(last.tokens)})


class Stream(StreamingResponse):
    """A stream of events that gives up its place however it ends, even before its first event."""

    def __init__(self, answer: Answer, events: AsyncIterator[str]):
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self.answer = answer

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.answer.engine.cancel(self.answer.request)


async def stream(answer: Answer, name: str, usage: bool) -> AsyncIterator[str]:
    """The answer as server-sent events: one for its beginning, one a piece, one for its end, and [DONE]."""
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": answer.created, "model": name}
    nothing = {"usage": None} if usage else {}

    def event(delta: dict[str, Any], finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return f"data: {json.dumps(head | {'choices': [choice]} | nothing, ensure_ascii=False)}\n\n"

    try:
        yield event({"role": "assistant", "content": ""})
        async with contextlib.aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield event({"content": piece.text})
        yield event({}, piece.finish)
        if usage:
            yield f"data: {json.dumps(head | {'choices': [], 'usage': answer.usage(piece.tokens)})}\n\n"
        yield "data: [DONE]\n\n"
    except Refused as problem:  # too late for a status
        yield f"data: {json.dumps(problem.body)}\n\n"


def content_policy(page: str) -> str:
    """A Content-Security-Policy that lets the page run its own script and style and speak to this server alone."""

    def hashes(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
                        for text in found)

    return (f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


# Running it


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, port 0 for any that is free. Raises CourseError where that is not possible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as problem:
        raise CourseError(f"cannot serve at {host!r} ({getattr(problem, 'strerror', problem)}); "
                          f"choose another --host") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as problem:
        bound.close()
        raise CourseError(f"cannot serve at {host} port {port} ({problem.strerror}); choose another --port") from None
    return bound


class Server(uvicorn.Server):
    """uvicorn's, which on Ctrl-C or a SIGTERM refuses new work, lets running answers end, and then ends in peace.

    A second Ctrl-C ends at once.
    """

    def __init__(self, app: FastAPI, engine: Engine, told: Callable[[str], None] = lambda line: None):
        super().__init__(uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False, server_header=False,
                                        timeout_keep_alive=30, timeout_graceful_shutdown=30))
        self.app, self.engine, self.told = app, engine, told
        self.forced = False

    def handle_exit(self, sig: int, frame) -> None:
        if self.app.state.closing and sig == signal.SIGINT:
            self.forced = self.should_exit = self.force_exit = True
        elif not self.app.state.closing:
            self.told("no new requests; running answers end first (Ctrl-C again to stop at once)")
            self.app.state.closing = True
            # Not here: a signal's handler must not take the engine's lock, which this thread may hold.
            threading.Thread(target=self.engine.close, daemon=True).start()

    async def on_tick(self, counter: int) -> bool:
        """Every 0.1 s. New connections still hear 503 while answers end; after that, uvicorn's own end."""
        if self.app.state.closing and not self.engine.seated and not self.engine.waiting:
            self.should_exit = True
        return await super().on_tick(counter)


@contextlib.contextmanager
def running(engine: Engine, tokenizer, name: str, token: str, limits: Limits = Limits()) -> Iterator[str]:
    """Serve in a thread on a free port of this machine, for a notebook or a test: gives http://127.0.0.1:PORT."""
    server = Server(build(engine, tokenizer, name, token, limits), engine)
    bound = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([bound],), name="server", daemon=True)
    with engine.running():
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
