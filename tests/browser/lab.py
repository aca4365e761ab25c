"""JupyterLab, started as a learner starts it, and a lesson open in it."""

import json
import os
import re
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import BrowserContext, Locator, Page, Request, Response

from lib.lesson.series import Lesson, source

STEP = 0.5  # seconds between looks
PATIENCE = 600  # seconds for what takes a moment: on a busy machine it takes many


class Server:
    """`course lab` with a workspace and a learner's home of its own. Everything it writes is under `folder`."""

    def __init__(self, folder: Path, preset: str):
        self.notebooks, self.home = folder / "workspace", folder / "home"
        self.token = secrets.token_hex(16)
        self.log = folder / "jupyter.log"
        self._out = self.log.open("wb")
        jupyter = {f"JUPYTER_{what}_DIR": str(folder / what.lower()) for what in ("CONFIG", "DATA", "RUNTIME")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lib.course", "lab", "--dir", self.notebooks, "--",
             "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"],
            env={**os.environ, **jupyter, "JUPYTER_TOKEN": self.token, "COURSE_HOME": str(self.home),
                 "COURSE_PRESET": preset},
            stdout=self._out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self.address = until(self._address, PATIENCE, "JupyterLab does not start")
        except BaseException:
            self.close()
            raise

    def _address(self) -> str | None:
        said = self.log.read_text()
        assert self.process.poll() is None, f"JupyterLab ended: {said[-2000:]}"
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        return found and found[0]

    def ask(self, path: str, method: str = "GET") -> Any:
        """What the server's own interface answers."""
        request = urllib.request.Request(
            f"{self.address}/api/{path}", method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or "null")

    def close(self) -> None:
        self.process.terminate()  # the server ends its kernels
        self.process.wait(PATIENCE)
        self._out.close()


class Visit:
    """One lesson open in the browser, as a person sees it: menus, cells, keys, and the file on disk."""

    def __init__(self, server: Server, context: BrowserContext, lesson: Lesson):
        self.server, self.path = server, server.notebooks / lesson.path.name
        self.wrong: list[str] = []  # page errors, and requests to another host
        self.page: Page = context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.on("pageerror", lambda error: self.wrong.append(f"page error: {error}"))
        context.on("request", self._look_at)
        dialog = self.page.locator("dialog.jp-Dialog")  # nothing here should need one
        self.page.add_locator_handler(dialog, self._complain)
        self.page.goto(f"{server.address}/lab/tree/{lesson.path.name}?reset&token={server.token}")
        self.page.locator(".jp-NotebookPanel:visible .jp-Cell").first.wait_for()
        until(self._idle, PATIENCE, "the kernel does not start")

    def _look_at(self, request: Request) -> None:
        if not request.url.startswith((f"{self.server.address}/", "data:", "blob:")):
            self.wrong.append(f"asks another host: {request.url}")

    def _complain(self, dialog: Locator) -> None:
        patience = dialog.get_by_role("button", name="Keep Waiting")
        if patience.count():  # asked while JupyterLab itself loads, on a busy machine
            patience.click()
            return
        self.wrong.append(f"a dialog: {dialog.inner_text()}")
        self.page.keyboard.press("Escape")

    def _idle(self) -> bool:
        """Whether the lesson's kernel is there and has nothing to do."""
        sessions = [s for s in self.server.ask("sessions") if s["path"] == self.path.name]
        return [s["kernel"]["execution_state"] for s in sessions] == ["idle"]

    def _rests(self) -> bool:
        """Whether the kernel is idle at several looks in a row."""
        for _ in range(4):
            if not self._idle():
                return False
            time.sleep(STEP)
        return True

    def choose(self, *path: str) -> None:
        """Click through a menu, such as ("Run", "Run All Cells")."""
        self.page.locator(f".lm-MenuBar-item:has-text('{path[0]}')").first.click()
        for label in path[1:]:
            self.page.locator(f".lm-Menu-item:has(.lm-Menu-itemLabel:text-is('{label}'))").click()

    def save(self) -> dict:
        """Save as a person does; returns the notebook in the file."""
        # A second save before the first is answered looks to JupyterLab as if somebody else had changed the file.
        with self.page.expect_response(self._is_save) as answered:
            self.choose("File", "Save Notebook")
        assert answered.value.ok, f"{self.path.name} is not saved: {answered.value.status_text}"
        return until(self._read, PATIENCE, f"{self.path.name} is no notebook")

    def _is_save(self, response: Response) -> bool:
        path = response.url.split("?")[0]
        return response.request.method == "PUT" and path.endswith(f"/api/contents/{self.path.name}")

    def _read(self) -> dict | None:
        try:
            return json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:  # saved on its own accord at this moment
            return None

    def run_all(self, seconds: float) -> dict:
        """Run All, wait until it is over, save; returns the notebook in the file."""
        self.choose("Edit", "Clear Outputs of All Cells")
        self.choose("Run", "Run All Cells")
        end = time.monotonic() + seconds
        while True:
            # Between two cells the kernel is idle as well, for a moment; in the end the file decides.
            left = end - time.monotonic()
            until(self._rests, left, f"{self.path.name} is still running after {seconds:.0f} s")
            nb = self.save()
            if all(cell["execution_count"] for cell in code(nb)) or errors(nb):
                return nb

    def answer(self, exercise: str, source: str) -> Locator:
        """Put an answer into its cell, run it and the check below it; returns the card that the check shows."""
        check = self.page.locator(".jp-NotebookPanel:visible .jp-CodeCell", has_text=f'check("{exercise}"')
        check.scroll_into_view_if_needed()
        check.locator(".cm-content").click()
        before = check.locator(".jp-InputPrompt").inner_text()
        for key in ("Escape", "ArrowUp", "Enter", "Control+A"):
            self.page.keyboard.press(key)
        self.page.keyboard.insert_text(source)
        self.page.keyboard.press("Shift+Enter")  # runs the answer, and goes on to the check
        self.page.keyboard.press("Shift+Enter")
        until(lambda: self._idle() and check.locator(".jp-InputPrompt").inner_text() not in (before, "[*]:"),
              PATIENCE, f"the check of {exercise} does not run")  # fmt: skip
        return check.locator("[role=group][aria-label]")

    def theme(self, name: str) -> None:
        """Put on a theme, such as "JupyterLab Dark"."""
        self.choose("Settings", "Theme", name)
        self.page.locator(f"body[data-jp-theme-name='{name}']").wait_for(state="attached")

    def close(self) -> None:
        """Shut the kernel down, then leave."""
        for session in self.server.ask("sessions"):
            self.server.ask(f"sessions/{session['id']}", "DELETE")
        self.page.close()


def code(nb: dict) -> list[dict]:
    """A notebook's code cells that hold anything."""
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code" and source(cell).strip()]


def errors(nb: dict) -> list[str]:
    """What went wrong in a notebook: errors, and text on stderr."""
    outputs = [(n, output) for n, cell in enumerate(code(nb), 1) for output in cell["outputs"]]
    return [f"code cell {n}: {o['ename']}: {o['evalue']}" for n, o in outputs if o["output_type"] == "error"] + [
        f"code cell {n}: stderr: {''.join(o['text'])}" for n, o in outputs if o.get("name") == "stderr"
    ]


def until(look: Callable[[], Any], seconds: float, why: str) -> Any:
    """What look() gives, as soon as it gives something. Fails with the reason after that many seconds."""
    end = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > end:
            raise AssertionError(why)
        time.sleep(STEP)
    return found


def contrast(element: Locator) -> float:
    """The least contrast of text within an element to what is behind it, as WCAG 2 counts it: 1 to 21."""
    return element.evaluate(CONTRAST)


CONTRAST = """
element => {
  const parts = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 10.31 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(linear)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = parts(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0.99) return colour;
    }
    return [255, 255, 255];
  };
  const worded = [element, ...element.querySelectorAll("*")]
    .filter(node => [...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim()));
  return Math.min(...worded.map(node => {
    const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }));
}
"""
