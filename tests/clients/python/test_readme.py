"""What the README prints is what happens: its commands run as they stand there."""

import re
import subprocess
import sys

import pytest

from server import ROOT, Server

README = (ROOT / "README.md").read_text()


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def default_server():
    """As the README starts it, on the port that its snippets name."""
    server = Server("--port", "8000")
    yield server
    assert server.stop() == 0


def test_the_snippets_work_as_printed(default_server):
    # Those with a variable need a key that somebody made.
    curls = [s for s in snippets("sh") if s.lstrip().startswith("curl") and "$" not in s]
    pythons = [s for s in snippets("python") if "OpenAI(" in s]
    assert curls and pythons
    for curl in curls:
        answer = subprocess.run(["bash", "-ec", curl], capture_output=True, text=True, timeout=60)
        assert answer.returncode == 0 and '"choices"' in answer.stdout, answer
    for python in pythons:
        answer = subprocess.run(
            [sys.executable, "-c", python], capture_output=True, text=True, timeout=60
        )
        assert answer.returncode == 0 and len(answer.stdout.strip()) > 3, answer


def test_the_server_prints_a_curl_line_that_works(default_server):
    default_server.wait_until(lambda: any("curl" in line for line in default_server.lines))
    line = next(line for line in default_server.lines if "curl" in line)
    curl = line[line.index("curl") :].strip()
    answer = subprocess.run(["bash", "-ec", curl], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0 and '"choices"' in answer.stdout, (curl, answer)


def test_help_names_every_flag_of_the_readme():
    from server import binary

    text = subprocess.run([binary(), "serve", "--help"], capture_output=True, text=True).stdout
    for flag in set(re.findall(r"`(--[a-z-]+)", README)):
        assert flag in text, f"{flag} is in the README and not in --help"
