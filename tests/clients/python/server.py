"""Starts and stops Weir for the client tests, as a user would: by its binary and flags."""

import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[3]


def binary() -> str:
    given = os.environ.get("WEIR_BIN")
    if given:
        return given
    for profile in ("release", "debug"):
        path = ROOT / "target" / profile / "weir"
        if path.exists():
            return str(path)
    raise SystemExit("no weir binary: run `cargo build --release` first, or set WEIR_BIN")


class Server:
    """A running Weir. The port is one that the system gave it (`--port 0`)."""

    def __init__(self, *flags: str):
        port = [] if "--port" in flags else ["--port", "0"]
        command = [binary(), *port, "--log-format", "json", *flags]
        # Keys of whoever runs the tests must not close the servers of the tests.
        self.state = tempfile.TemporaryDirectory()
        environment = {**os.environ, "XDG_STATE_HOME": self.state.name}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        )
        self.lines = []
        self.root = self._wait_for_address()
        self.base_url = self.root + "/v1"
        self._drain_output()

    def _wait_for_address(self) -> str:
        for line in self.process.stdout:
            self.lines.append(line)
            found = re.search(r"http://[0-9.\[\]:]+:\d+", line)
            if found:
                return found.group(0)
        raise RuntimeError("weir ended before it listened:\n" + "".join(self.lines))

    def _drain_output(self) -> None:
        """Keeps the pipe empty, so that a chatty log never blocks the server."""
        import threading

        threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True).start()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.root + path, timeout=10) as answer:
            return answer.read().decode()

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.root + path, timeout=10) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    def metric(self, name: str, **labels: str) -> float:
        """The value of a sample (0 when there is none yet)."""
        for line in self.get("/metrics").splitlines():
            if line.startswith(name) and all(f'{k}="{v}"' in line for k, v in labels.items()):
                rest = line[len(name):]
                if rest[:1] in (" ", "{"):
                    return float(line.rsplit(" ", 1)[1])
        return 0.0

    def wait_until(self, condition, seconds: float = 10.0) -> None:
        """Polls: what happens on the server's side of a closed socket has no event here."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            time.sleep(0.02)

    def wait_until_idle(self) -> None:
        def idle() -> bool:
            running = self.metric("weir_requests_running")
            return running + self.metric("weir_requests_waiting") == 0

        self.wait_until(idle)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)
