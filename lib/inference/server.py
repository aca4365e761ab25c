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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from lib.errors import CourseError
from lib.inference.engine import Closed, Engine, Full, Piece
from lib.inference.engine import Request as EngineRequest

PAGE = Path(__file__).with_name("server.html")
READ = ["GET", "HEAD"]
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


# What a client may send: one rule for every field. null asks for nothing, wherever it stands. A field that says nothing
# about the answer is accepted (NOTHING), and so is one at the value that leaves the answer as it is (NEUTRAL). All else
# is refused, by its name and with the reason: an option that is silently ignored is a bug that nobody finds.

NOTHING = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key",
           "prompt_cache_retention", "prediction"}  # the last makes others faster
NEUTRAL: dict[str, tuple] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "repetition_penalty": (1,), "top_k": (0, -1), "min_p": (0,), "logprobs": (False,), "top_logprobs": (0,),
    "logit_bias": ({},), "response_format": ({"type": "text"},), "modalities": (["text"],), "audio": (),
    "tools": ([],), "functions": ([],), "tool_choice": ("none", "auto"), "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False), "reasoning_effort": ("none",), "verbosity": ("medium",),
    "web_search_options": (),
}  # fmt: skip
WHY = {
    "this server calls no tools": {"tools", "functions", "tool_choice", "function_call", "tool_calls"},
    "the chances of tokens are not told here": {"logprobs", "top_logprobs"},
    "a request has one answer; send it again for another": {"n", "best_of"},
    "answers are plain text, and no other form is enforced": {"response_format"},
    "answers are text alone": {"modalities", "audio"},
    "this model answers without reasoning first": {"reasoning_effort", "reasoning", "reasoning_content"},
    "nothing is looked up": {"web_search_options"},
}
MESSAGE_NOTHING = {"name", "id", "refusal", "annotations", "cache_control"}  # come back with our own answers, mostly
MESSAGE_NEUTRAL: dict[str, tuple] = {"audio": (), "function_call": (), "tool_calls": ([],), "reasoning": ("",),
                                     "reasoning_content": ("",)}  # fmt: skip
NOT_UNDERSTOOD = {"image": "images", "audio": "sound", "file": "files", "video": "films", "document": "files"}


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    def plain(self) -> dict[str, str]:
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(Strict):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
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


def _asked(fields: dict[str, Any], nothing: set[str], neutral: dict[str, tuple], at: str = "") -> dict[str, Any]:
    """The fields that ask for something. Raises Refused for one at a value that would change the answer."""
    asked = {}
    for name, value in fields.items():
        if value is None or name in nothing:
            continue
        if name not in neutral:
            asked[name] = value
        elif not any(value == same and isinstance(value, bool) == isinstance(same, bool) for same in neutral[name]):
            known = " or ".join(json.dumps(same, allow_nan=False) for same in (*neutral[name], None))
            why = next((why for why, names in WHY.items() if name in names), "this server has no such option")
            raise Refused(400, f"{at}{name}: {why}; only {known} is accepted", param=f"{at}{name}",
                          code="invalid_value")
    return asked


def _message(message: Any, at: str) -> Any:
    """A message with what is harmless taken out. Raises Refused for a part that is no text."""
    if not isinstance(message, dict):
        return message
    message = _asked(message, MESSAGE_NOTHING, MESSAGE_NEUTRAL, at)
    if isinstance(content := message.get("content"), list):
        parts = [_asked(part, MESSAGE_NOTHING, {}) if isinstance(part, dict) else part for part in content]
        for i, part in enumerate(parts):
            kind = str(part.get("type", "text")) if isinstance(part, dict) else "text"
            if kind != "text":
                what = next((f"{what} are" if what[-1] == "s" else f"{what} is" for word, what in NOT_UNDERSTOOD.items()
                             if word in kind), f"a part of type {kind[:40]!r} is")  # fmt: skip
                raise Refused(400, f"{at}content.{i}: {what} not understood here; this model reads text",
                              param=f"{at}content.{i}", code="invalid_value")
        message["content"] = parts
    return message


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
        fields = from_json(body, allow_inf_nan=False)
    except ValueError as problem:
        raise Refused(400, f"the body is not JSON: {problem}", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise Refused(400, "the body is not a JSON object", code="invalid_value")
    fields = _asked(fields, NOTHING, NEUTRAL)
    if isinstance(messages := fields.get("messages"), list):
        fields["messages"] = [_message(message, f"messages.{i}.") for i, message in enumerate(messages)]
    try:
        asked = ChatRequest.model_validate(fields)
    except ValidationError as problem:
        deepest = max(problem.errors(include_url=False), key=lambda error: len(error["loc"]))
        where = ".".join(str(part) for part in deepest["loc"] if part not in ("str", "list[TextPart]", "list[str]"))
        where = where[:100]
        if deepest["type"] == "extra_forbidden":
            raise Refused(400, f"{where} is not known here; leave it out", param=where,
                          code="unsupported_parameter") from None
        said = re.sub(r"a valid dictionary or instance of \w+", "an object", deepest["msg"])
        raise Refused(400, f"{where}: {said}", param=where, code="invalid_value") from None
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
        ("stream_options", bool(asked.stream_options and asked.stream_options.include_usage) and not asked.stream,
         "usage comes with every whole answer; include_usage is for stream: true"),
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


def build(
    engine: Engine, tokenizer, name: str, token: str, limits: Limits = Limits(), origins: Sequence[str] = ()
) -> FastAPI:
    """The application. The engine must be running. `app.state.closing` set to True makes it refuse new work.

    origins: whose pages a browser lets speak to it (CORS), such as https://app.example; "*" for all. The token is
    asked of them as of everybody, in its header: cookies are never used, so no page has it unless it was told.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)  # the pages for these fetch from other hosts
    app.state.closing = False
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "HEAD", "POST"],
                           allow_headers=["*"], allow_credentials=False, expose_headers=["Retry-After"])
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
        kinds = {404: "there is nothing at this address; there are /v1/chat/completions, /v1/models and /health",
                 405: "this address takes no such method"}
        said = kinds.get(problem.status_code, str(problem.detail))
        return Refused(problem.status_code, said, headers=problem.headers).response()

    @app.exception_handler(Exception)
    async def fault(request: Request, problem: Exception) -> Response:
        return Refused(500, "a fault in the server; its log has it", "server_error").response()

    @app.api_route("/", methods=READ)
    async def chat_page() -> Response:
        return HTMLResponse(page, headers={
            "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        })

    @app.api_route("/health", methods=READ)
    async def health() -> Response:
        state = {"status": "closing" if app.state.closing else "ok", "running": engine.seated,
                 "waiting": engine.waiting}
        return JSONResponse(state, 503 if app.state.closing else 200)

    model = {"id": name, "object": "model", "created": created, "owned_by": "course"}

    @app.api_route("/v1/models", methods=READ)
    async def models(request: Request) -> Response:
        admit(request)
        return JSONResponse({"object": "list", "data": [model]})

    @app.api_route("/v1/models/{wanted:path}", methods=READ)
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
        return f"data: {json.dumps(head | {'choices': [choice]} | nothing, ensure_ascii=False, allow_nan=False)}\n\n"

    try:
        yield event({"role": "assistant", "content": ""})
        async with contextlib.aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                if piece.text:
                    yield event({"content": piece.text})
        yield event({}, piece.finish)
        if usage:
            last = head | {"choices": [], "usage": answer.usage(piece.tokens)}
            yield f"data: {json.dumps(last, allow_nan=False)}\n\n"
        yield "data: [DONE]\n\n"
    except Refused as problem:  # too late for a status
        yield f"data: {json.dumps(problem.body, allow_nan=False)}\n\n"


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
def running(
    engine: Engine, tokenizer, name: str, token: str, limits: Limits = Limits(), origins: Sequence[str] = ()
) -> Iterator[str]:
    """Serve in a thread on a free port of this machine, for a notebook or a test: gives http://127.0.0.1:PORT."""
    server = Server(build(engine, tokenizer, name, token, limits, origins), engine)
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
