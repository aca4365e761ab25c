"""The same page with the real model behind it: a server on this machine, for this machine alone.

It answers two things: the page, and what is shown of a pass over given ids. A request must name this very server as
its host, and a browser must say that the page itself has sent it; so no other page can ask, not by another name either.
"""

import base64
import json
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from torch import Tensor

from lib.errors import CourseError
from lib.transformer import Transformer
from lib.view.inside import Changes, Pass, forward, see
from lib.view.page import SHOWN, data

BODY = 64 * 1024  # bytes of a request
KEPT = 4  # passes: what is pointed at moves more often than the text
SWITCHES = ("mask", "scale", "order")


class Looker:
    """A model, and the newest few passes through it."""

    def __init__(self, model: Transformer):
        self.model, self.lock = model, threading.Lock()
        self.passes: OrderedDict[Any, Pass] = OrderedDict()

    def answer(self, asked: Any) -> dict[str, Any]:
        """{ids, changes, at} → what `see` shows, as JSON. Raises CourseError for a request that makes no sense."""
        ids, changes, at = self.understood(asked)
        with self.lock:
            key = (tuple(ids), changes)
            if key not in self.passes:
                self.passes[key] = forward(self.model, ids, changes)
            self.passes.move_to_end(key)
            while len(self.passes) > KEPT:
                self.passes.popitem(last=False)
            return plain(see(self.model, self.passes[key], ids, at))

    def understood(self, asked: Any) -> tuple[list[int], Changes, dict[str, int]]:
        config = self.model.config
        try:
            ids, changes, at = asked["ids"], asked["changes"], asked["at"]
            sizes = {"layer": config.n_layer, "head": config.n_head, "query": len(ids), "key": len(ids)}
            fits = 0 < len(ids) <= min(SHOWN, config.block_size) and whole(ids, config.vocab_size)
            fits = fits and all((at[name] == -1 and name == "key") or whole([at[name]], size)
                                for name, size in sizes.items())  # fmt: skip
            fits = fits and all(isinstance(changes[name], bool) for name in SWITCHES)
            off = {}
            for name, size in (("heads", config.n_head), ("features", config.d_ff)):
                pairs = [(layer, n) for layer, n in changes[name]]
                fits = fits and all(whole([layer], config.n_layer) and whole([n], size) for layer, n in pairs)
                off[name] = frozenset(pairs)
        except (KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise CourseError("this request makes no sense to the model; load the page anew")
        return ids, Changes(**{name: changes[name] for name in SWITCHES}, **off), {name: at[name] for name in sizes}


def whole(values: list, size: int) -> bool:
    return all(type(value) is int and 0 <= value < size for value in values)


def plain(shown: Any) -> Any:
    """Tensors as explore.js reads them: numbers as float32 in base64, ids and ranks as lists."""
    if isinstance(shown, dict):
        return {name: plain(value) for name, value in shown.items()}
    if not isinstance(shown, Tensor):
        return shown
    if not shown.is_floating_point():
        return shown.flatten().tolist()
    blob = shown.float().contiguous().numpy().astype("<f4").tobytes()
    return {"f32": base64.b64encode(blob).decode(), "n": shown.numel()}


class Handler(BaseHTTPRequestHandler):
    server: "Host"
    timeout = 30  # seconds to send a request
    server_version, sys_version = "course", ""

    def do_GET(self) -> None:
        if self.admitted():
            if self.path.split("?")[0] == "/":
                self.say(HTTPStatus.OK, self.server.html, "text/html; charset=utf-8")
            else:
                self.refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address; the page is at /")

    def do_POST(self) -> None:
        if not self.admitted():
            return
        size = self.headers.get("Content-Length", "")
        if self.path != "/see":
            self.refuse(HTTPStatus.NOT_FOUND, "there is nothing at this address")
        elif self.headers.get_content_type() != "application/json":
            self.refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON, as application/json")
        elif not (size.isascii() and size.isdigit()) or len(size) > 9:
            self.refuse(HTTPStatus.LENGTH_REQUIRED, "say how long the request is")
        elif int(size) > BODY:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {BODY} bytes")
        else:
            try:
                answer = self.server.looker.answer(json.loads(self.rfile.read(int(size))))
            except (ValueError, RecursionError):
                self.refuse(HTTPStatus.BAD_REQUEST, "the request is not JSON")
            except CourseError as problem:
                self.refuse(HTTPStatus.BAD_REQUEST, str(problem))
            else:
                self.say(HTTPStatus.OK, data(answer).encode(), "application/json")

    def admitted(self) -> bool:
        """Whether it is this server that is meant, and its own page that asks."""
        port = self.server.server_address[1]
        names = {f"127.0.0.1:{port}", f"localhost:{port}"}
        origin = self.headers.get("Origin")
        own = origin is None or origin in {f"http://{name}" for name in names}
        if self.headers.get("Host") in names and own and self.headers.get("Sec-Fetch-Site") in OURS:
            return True
        self.refuse(HTTPStatus.FORBIDDEN, "only the page of this very server may ask here")
        return False

    def refuse(self, status: HTTPStatus, why: str) -> None:
        self.close_connection = True
        self.say(status, data({"error": why}).encode(), "application/json")

    def say(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
                            "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
                            "Cross-Origin-Resource-Policy": "same-origin",
                            "Referrer-Policy": "no-referrer"}.items():  # fmt: skip
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing: a line for each look would be noise."""


OURS = (None, "same-origin", "none")  # None: not a browser


class Host(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, model: Transformer, html: str, port: int = 0):
        self.looker, self.html = Looker(model), html.encode()
        try:
            super().__init__(("127.0.0.1", port), Handler)
        except OSError as problem:
            raise CourseError(f"cannot serve at port {port} ({problem.strerror}); choose another --port") from None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def handle_error(self, request: Any, client: Any) -> None:
        """A browser that hangs up in the middle is no event."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client)


def host(model: Transformer, html: str, port: int, told: Callable[[str], object]) -> int:
    """Serve until Ctrl-C."""
    with Host(model, html, port) as server:
        told(f"look into it at {server.address} (Ctrl-C ends)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            told("ended")
    return 0
