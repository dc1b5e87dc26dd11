"""A stock client with its default retries against a server that refuses: attempts are bounded, the
final error has the right class and code, and the wait that the server named is obeyed."""

import json
import subprocess
import threading
import time

import openai
import pytest

from server import binary

HELLO = [{"role": "user", "content": "Hello"}]
SIM = ("--device", "sim")
# What the SDK does by itself: one attempt and two retries.
ATTEMPTS_MAX = 3
# A clock that the client reads and one that the server reads may differ by a little.
SLACK_S = 0.01


class Client:
    """The stock SDK, with a note of each attempt: when it was answered, and how."""

    def __init__(self, server):
        self.answers = []
        note = lambda response: self.answers.append((time.monotonic(), response))
        http = openai.DefaultHttpxClient(event_hooks={"response": [note]})
        self.sdk = openai.OpenAI(base_url=server.base_url, api_key="none", http_client=http)

    def ask(self, **settings):
        settings = {"model": "demo", "messages": HELLO, "max_tokens": 4, **settings}
        return self.sdk.chat.completions.create(**settings)

    def check_waits(self):
        """Each retry came no sooner than the answer before it had asked for."""
        for (earlier, answer), (later, _) in zip(self.answers, self.answers[1:]):
            wait_s = int(answer.headers["retry-after-ms"]) / 1000
            assert 0 < wait_s <= 60, "a longer wait makes SDKs give up"
            assert int(answer.headers["retry-after"]) >= wait_s
            assert later - earlier >= wait_s - SLACK_S


@pytest.fixture
def limited(start, tmp_path):
    """Starts a server on the simulated device with settings of the default tenant."""

    def start_limited(settings: str, *flags: str):
        file = tmp_path / "weir.toml"
        file.write_text("[tenant-defaults]\n" + settings)
        return start(*SIM, "--config", str(file), "--state-dir", str(tmp_path / "state"), *flags)

    return start_limited


def total(server, name, **labels):
    """The sum of a metric's series that have these labels."""
    lines = [l for l in server.get("/metrics").splitlines() if l.startswith(name + "{")]
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(l.rsplit(" ", 1)[1]) for l in lines if all(w in l for w in wanted))


def attempts(server):
    return total(server, "weir_requests_total", endpoint="/v1/chat/completions")


def crowd(server, clients, **settings):
    """As many clients at once; returns them with their answers or errors."""
    outcomes = []

    def one():
        client = Client(server)
        try:
            outcomes.append((client, client.ask(**settings)))
        except openai.APIError as error:
            outcomes.append((client, error))

    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_a_used_up_budget_is_told_once(limited):
    server = limited("tokens-per-day = 100\n")
    client = Client(server)
    used = client.ask(extra_body={"ignore_eos": True}).usage.total_tokens
    client.ask(max_tokens=100 - 2 * used + 4, extra_body={"ignore_eos": True})
    client.answers.clear()
    before = attempts(server)
    with pytest.raises(openai.RateLimitError) as refused:
        client.ask()
    error = refused.value
    assert (error.status_code, error.code, error.type) == (
        429,
        "insufficient_quota",
        "insufficient_quota",
    )
    assert "resets at" in str(error) and "100 tokens a day" in str(error)
    assert error.response.headers["x-should-retry"] == "false"
    assert len(client.answers) == attempts(server) - before == 1, "the SDK does not come back"
    outcomes = crowd(server, 20)
    assert all(isinstance(error, openai.RateLimitError) for _, error in outcomes)
    assert attempts(server) - before == 21
    assert total(server, "weir_refusals_total", code="insufficient_quota") == 21
    usage = openai.OpenAI(base_url=server.base_url, api_key="none").get("/usage", cast_to=dict)
    day = next(window for window in usage["windows"] if window["window"] == "day")
    assert day["limit"] == 100 and day["used"] + day["held"] + day["remaining"] == 100


def test_a_request_above_its_budget_is_told_to_be_smaller(limited):
    server = limited("tokens-per-hour = 500\n")
    client = Client(server)
    with pytest.raises(openai.RateLimitError) as refused:
        client.ask(max_tokens=600)
    assert refused.value.code == "insufficient_quota" and "lower max_tokens" in str(refused.value)
    assert len(client.answers) == 1
    assert client.ask(max_tokens=100).choices


def test_a_rate_limit_is_waited_for_exactly(limited):
    server = limited("requests-per-minute = 40\n")
    client = Client(server)
    headers, began = None, time.monotonic()
    for _ in range(40):
        raw = client.sdk.chat.completions.with_raw_response.create(
            model="demo", messages=HELLO, max_tokens=1
        )
        headers = raw.headers
    assert headers["x-ratelimit-limit-requests"] == "40"
    refilled = (time.monotonic() - began) * 40 / 60
    assert int(headers["x-ratelimit-remaining-requests"]) <= refilled + 1
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    client.answers.clear()
    # One enters each 1.5 s: those that are waited for are answered, within the SDK's own retries.
    while client.ask() and len(client.answers) == 1:
        client.answers.clear()
    statuses = [answer.status_code for _, answer in client.answers]
    assert statuses == [429, 200], "the first retry comes when there is room, and not before"
    client.check_waits()
    assert client.answers[0][1].json()["error"]["type"] == "requests"
    before = attempts(server)
    outcomes = crowd(server, 8)
    errors = [error for _, error in outcomes if isinstance(error, openai.APIError)]
    assert 8 <= attempts(server) - before <= 8 * ATTEMPTS_MAX
    assert errors, "not all of them can enter in time"
    for error in errors:
        assert isinstance(error, openai.RateLimitError)
        assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
    for client, _ in outcomes:
        client.check_waits()


def test_tokens_a_minute_that_are_not_used_come_back(limited):
    server = limited("tokens-per-minute = 3000\n")
    client = Client(server)
    for _ in range(5):
        # Each may need more than half of the limit, and uses little of it.
        raw = client.sdk.chat.completions.with_raw_response.create(
            model="demo", messages=HELLO, max_tokens=2000, stop=["e", "a", "o", "t"]
        )
        assert raw.parse().usage.total_tokens < 500
    assert [answer.status_code for _, answer in client.answers] == [200] * 5
    with pytest.raises(openai.RateLimitError) as refused:
        client.ask(max_tokens=3000)
    assert refused.value.type == "tokens" and "3000 per minute" in str(refused.value)
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_a_tenants_own_queue_is_429_and_bounded(limited):
    server = limited("concurrent-requests = 2\n", "--sim-step-us", "20000")
    streams = [Client(server).ask(max_tokens=1000, stream=True) for _ in range(2)]
    before = attempts(server)
    outcomes = crowd(server, 6)
    assert attempts(server) - before == 6 * ATTEMPTS_MAX, "each comes back twice, and no more"
    for client, error in outcomes:
        assert isinstance(error, openai.RateLimitError)
        assert (error.code, error.type) == ("rate_limit_exceeded", "requests")
        client.check_waits()
    for stream in streams:
        stream.close()


def test_a_full_queue_is_503_and_bounded(start):
    slow = ("--sim-step-us", "20000", "--max-num-seqs", "1", "--max-num-queued-reqs", "1")
    server = start(*SIM, *slow)
    stream = Client(server).ask(max_tokens=1000, stream=True)
    next(iter(stream))
    waiting = threading.Thread(target=lambda: Client(server).ask(max_tokens=1))
    waiting.start()
    server.wait_until(lambda: server.metric("weir_requests_waiting") == 1)
    refused = total(server, "weir_refusals_total")
    outcomes = crowd(server, 10)
    tried = total(server, "weir_refusals_total") - refused
    errors = [error for _, error in outcomes if isinstance(error, openai.APIError)]
    assert len(errors) == 10 and tried == 10 * ATTEMPTS_MAX
    for client, error in outcomes:
        assert isinstance(error, openai.InternalServerError)
        assert (error.status_code, error.code, error.type) == (503, "queue_full", "server_error")
        assert len(client.answers) == ATTEMPTS_MAX
        client.check_waits()
    assert server.metric("weir_sdk_retries_total") == 20
    stream.close()
    waiting.join()


def test_a_predicted_late_answer_is_refused_with_its_wait(limited):
    slow = ("--sim-step-us", "5000", "--max-num-seqs", "1")
    server = limited("ttft-objective-ms = 200\n", *slow)
    long = {"max_tokens": 200, "extra_body": {"ignore_eos": True}}
    # The gate learns how long answers are from those that have ended.
    for _ in range(4):
        Client(server).ask(**long)
    before = attempts(server)
    flex = []
    ask_flex = lambda: flex.append(Client(server).ask(**long, service_tier="flex"))
    thread = threading.Thread(target=ask_flex)
    thread.start()
    outcomes = crowd(server, 20, **long)
    thread.join()
    assert flex[0].usage.completion_tokens == 200, "flex waits without a promise"
    errors = [error for _, error in outcomes if isinstance(error, openai.APIError)]
    assert errors, "one at a time, not all of them can be answered within the SDK's retries"
    for error in errors:
        assert isinstance(error, openai.InternalServerError)
        # `late`: it was admitted, and then its first token could not be in time.
        assert (error.status_code, error.type) == (503, "server_error")
        assert error.code in ("predicted_late", "late")
        assert error.response.headers["x-should-retry"] == "true"
    assert "predicted_late" in [error.code for error in errors]
    for client, _ in outcomes:
        assert len(client.answers) <= ATTEMPTS_MAX
        client.check_waits()
    assert attempts(server) - before <= 20 * ATTEMPTS_MAX + 1
    assert total(server, "weir_refusals_total", code="predicted_late") > 0


def test_the_operator_reads_usage_beside_the_server(limited, tmp_path):
    server = limited("tokens-per-day = 100000\n")
    used = sum(Client(server).ask(max_tokens=n).usage.total_tokens for n in (3, 30, 300))
    sdk = openai.OpenAI(base_url=server.base_url, api_key="none")
    day = lambda: sdk.get("/usage", cast_to=dict)["windows"][1]
    server.wait_until(lambda: day()["held"] == 0)
    assert day()["used"] == used

    def usage(*flags):
        command = [binary(), "usage", "--state-dir", str(tmp_path / "state"), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    told = json.loads(usage("--json", "--tenant", "default"))["tenants"][0]
    assert told["days"][0]["charged_tokens"] == told["windows"][1]["used"] == used
    assert told["days"][0]["requests"] == 3
    assert usage("--csv").splitlines()[1].startswith("default,20")
    assert usage().splitlines()[-1].split()[-1] == str(used)
    assert json.loads(usage("--json", "--tenant", "nobody"))["tenants"] == []
