"""The server behind the page: the model's own numbers, for its own page alone, and one line for what makes no sense."""

import base64
import http.client
import json
import threading

import pytest
import torch
from tiny import tiny

from lib.errors import CourseError
from lib.view.host import BODY, Host, Looker
from lib.view.inside import Changes, forward

ASKED = {"ids": [1, 2, 3, 2], "at": {"layer": 1, "head": 0, "query": 3, "key": 1},
         "changes": {"mask": True, "scale": True, "order": True, "heads": [[0, 1]], "features": []}}  # fmt: skip


@pytest.fixture(scope="module")
def server():
    with Host(tiny(), "<p>page</p>") as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, body=b"", method="POST", path="/see", **headers):
    port = server.server_address[1]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    given = {"Host": f"127.0.0.1:{port}", "Content_Type": "application/json", "Content_Length": str(len(body))}
    for name, value in (given | headers).items():
        if value is not None:
            connection.putheader(name.replace("_", "-"), value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_it_shows_the_models_own_numbers(server):
    status, body = ask(server, json.dumps(ASKED).encode())
    told = json.loads(body)
    run = forward(server.looker.model, ASKED["ids"], Changes(heads=frozenset([(0, 1)])))
    logits = torch.frombuffer(bytearray(base64.b64decode(told["last"]["f32"])), dtype=torch.float32)
    assert status == 200 and torch.equal(logits, run.logits[-1])
    assert told["lens"]["rows"] == [0, 1, 2, 3]


def test_the_page_is_at_the_root_and_nothing_elsewhere(server):
    assert ask(server, method="GET", path="/") == (200, b"<p>page</p>")
    assert ask(server, method="GET", path="/etc/passwd")[0] == 404
    assert ask(server, method="GET", path="/../lib")[0] == 404
    assert ask(server, b"{}", path="/")[0] == 404
    assert ask(server, method="OPTIONS")[0] == 501


@pytest.mark.parametrize("headers", [
    {"Host": "evil.example"}, {"Host": None}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "https://127.0.0.1:1"}, {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
])  # fmt: skip
def test_nobody_elses_page_may_ask(server, headers):
    for method, path in (("GET", "/"), ("POST", "/see")):
        status, body = ask(server, json.dumps(ASKED).encode(), method, path, **headers)
        assert status == 403 and b"only the page" in body


def test_its_own_page_may(server):
    port = server.server_address[1]
    for name in ("127.0.0.1", "localhost"):
        headers = {"Host": f"{name}:{port}", "Origin": f"http://{name}:{port}", "Sec_Fetch_Site": "same-origin"}
        assert ask(server, json.dumps(ASKED).encode(), **headers)[0] == 200


def test_what_is_too_large_or_no_json_is_refused(server):
    assert ask(server, b"x", Content_Length=str(BODY + 1))[0] == 413
    assert ask(server, b"x", Content_Length="9" * 20)[0] == 411
    assert ask(server, b"x", Content_Length="-1")[0] == 411
    assert ask(server, b"{}", Content_Type="text/plain")[0] == 415
    for body in (b"{", b"\xff", b"[" * 60_000, b"NaN"):
        assert ask(server, body)[0] == 400


WRONG = [
    1, None, [], {}, ASKED | {"ids": []}, ASKED | {"ids": "abc"}, ASKED | {"ids": [17]}, ASKED | {"ids": [-1]},
    ASKED | {"ids": [True]}, ASKED | {"ids": [1.0]}, ASKED | {"ids": [1] * 17}, ASKED | {"at": {}}, ASKED | {"at": 3},
    ASKED | {"at": ASKED["at"] | {"layer": 2}}, ASKED | {"at": ASKED["at"] | {"key": 4}},
    ASKED | {"changes": {}}, ASKED | {"changes": ASKED["changes"] | {"mask": 1}},
    ASKED | {"changes": ASKED["changes"] | {"heads": [[0, 2]]}},
    ASKED | {"changes": ASKED["changes"] | {"heads": [[0]]}},
    ASKED | {"changes": ASKED["changes"] | {"heads": {"a": 1}}},
    ASKED | {"changes": ASKED["changes"] | {"features": [[0, 10**9]]}},
]  # fmt: skip


@pytest.mark.parametrize("asked", WRONG, ids=range(len(WRONG)))
def test_what_makes_no_sense_is_one_line(asked):
    with pytest.raises(CourseError, match="makes no sense"):
        Looker(tiny()).answer(asked)


def test_a_port_in_use_is_one_line(server):
    with pytest.raises(CourseError, match=r"choose another --port"):
        Host(tiny(), "", server.server_address[1])
