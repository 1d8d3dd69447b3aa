"""A headless Chromium, driven over a pipe with its DevTools protocol: what a page looks like, says and asks for."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The protocol's pipes are file descriptors 3 and 4.
START = 'ours=$1 theirs=$2; shift 2; exec "$@" 3<&$ours 4>&$theirs'
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip

# Some time after the page has heard of its new size and scheme, which it does before a frame's callbacks.
DRAWN = """
new Promise(done => {
    const look = () => innerWidth === %d && matchMedia("(prefers-color-scheme: %s)").matches
        ? requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 300)))
        : requestAnimationFrame(look);
    look();
})
"""


class Page:
    """A tab. All that it logs and asks for is kept.

    Attributes:
        problems: Messages on the console that are warnings or errors, and exceptions.
        requests: Addresses that it has asked for, its own included.
    """

    def __init__(self, send: Callable[..., dict[str, Any]], session: str) -> None:
        self._send = send
        self._session = session
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.loaded = 0

    def heard(self, method: str, params: dict[str, Any]) -> None:
        """Take an event of the tab's."""
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Page.loadEventFired":
            self.loaded += 1
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._send(method, params, self._session)

    def open(self, file: Path) -> None:
        """Load a page from disk; its script has run when this returns."""
        before = self.loaded
        self.call("Page.navigate", url=file.resolve().as_uri())
        while self.loaded == before:
            self.run("0")

    def run(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def look(self, width: int = 1200, height: int = 900, scheme: str = "light") -> None:
        """Make it so wide and high, in ``light`` or ``dark``, and wait until it is drawn."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.run(DRAWN % (width, scheme))

    def move(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str, code: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **typed)

    def screenshot(self, out: Path, whole: bool = True) -> None:
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        out.write_bytes(base64.b64decode(found["data"]))

    def print(self, out: Path) -> None:
        """As a PDF file."""
        out.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """A tab in a browser of its own, which ends with the block."""
    assert CHROMIUM
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(
            ["bash", "-c", START, "bash", str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "HOME": profile},
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        with os.fdopen(ours_out, "wb", buffering=0) as out, os.fdopen(ours_in, "rb") as answers:
            try:
                yield _first_tab(out, answers)
            finally:
                process.kill()
                process.wait()


def _first_tab(out: Any, answers: Any) -> Page:
    pages: dict[str, Page] = {}
    numbers = iter(range(1, 10**9))
    heard = _messages(answers)

    def send(method: str, params: dict[str, Any] | None = None, session: str = "") -> dict[str, Any]:
        number = next(numbers)
        message = {
            "id": number,
            "method": method,
            "params": params or {},
            **({"sessionId": session} if session else {}),
        }
        out.write(json.dumps(message).encode() + b"\0")
        for text in heard:
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])
            if page := pages.get(answer.get("sessionId", "")):
                page.heard(answer["method"], answer["params"])
        raise AssertionError("the browser has ended")

    tabs: list[str] = []
    while not tabs:
        targets = send("Target.getTargets")["targetInfos"]
        tabs = [target["targetId"] for target in targets if target["type"] == "page"]
    session = send("Target.attachToTarget", {"targetId": tabs[0], "flatten": True})["sessionId"]
    page = pages[session] = Page(send, session)
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.call(f"{domain}.enable")
    while page.run("document.readyState") != "complete":
        pass
    return page


def _messages(answers: Any) -> Iterator[bytes]:
    """Each ends in a zero byte."""
    rest = bytearray()
    while part := answers.read1(1 << 20):
        rest += part
        if b"\0" in part:
            *whole, rest = rest.split(b"\0")
            yield from map(bytes, whole)
