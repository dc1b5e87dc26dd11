"""Error classes, timeouts, retries and backpressure, as the official SDK sees them."""

import threading
import time

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello"}]

# A simulated device of which one answer of 200 tokens takes two seconds.
SLOW = ("--device", "sim", "--sim-step-us", "10000", "--max-num-seqs", "1")


def connect(server, **settings):
    settings = {"max_retries": 0, "api_key": "none", **settings}
    return openai.OpenAI(base_url=server.base_url, **settings)


def ask(client, **settings):
    settings = {"model": "demo", "messages": HELLO, "max_tokens": 4, **settings}
    return client.chat.completions.create(**settings)


def test_an_unknown_model_is_not_found(client):
    with pytest.raises(openai.NotFoundError) as error:
        ask(client, model="gpt-6")
    assert error.value.code == "model_not_found" and error.value.param == "model"
    assert error.value.request_id


@pytest.mark.parametrize(
    "settings, param",
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": ["a"] * 100}, "stop"),
        ({"logit_bias": {"foo": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    ],
)
def test_a_bad_value_names_its_parameter(client, settings, param):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, **settings)
    assert error.value.param == param
    assert error.value.type == "invalid_request_error" and error.value.code


def test_a_prompt_too_long_has_the_code_that_clients_know(client):
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, messages=[{"role": "user", "content": "word " * 20000}])
    assert error.value.code == "context_length_exceeded"
    assert "maximum context length is" in str(error.value)


def test_keys_are_checked(start):
    server = start("--device", "sim", "--api-key", "right")
    assert ask(connect(server, api_key="right")).choices
    for wrong in ("wrong", "RIGHT"):
        with pytest.raises(openai.AuthenticationError) as error:
            ask(connect(server, api_key=wrong))
        assert error.value.code == "invalid_api_key"
    assert server.status("/metrics") == 401
    assert server.status("/livez") == server.status("/readyz") == 200


def test_a_timeout_cancels_the_request(start):
    server = start(*SLOW)
    started = time.monotonic()
    with pytest.raises(openai.APITimeoutError):
        ask(connect(server, timeout=0.3), max_tokens=2000)
    assert time.monotonic() - started < 5
    server.wait_until_idle()
    assert server.metric("weir_requests_total", outcome="cancelled") == 1


def test_leaving_a_stream_cancels_the_request(start):
    server = start(*SLOW)
    stream = ask(connect(server), max_tokens=2000, stream=True)
    next(iter(stream))
    server.wait_until(lambda: server.metric("weir_requests_running") == 1)
    stream.close()
    server.wait_until_idle()


def test_a_full_queue_refuses_and_the_sdk_comes_back(start):
    server = start(*SLOW, "--max-num-queued-reqs", "1")
    client = connect(server)
    streams = [ask(client, max_tokens=100, stream=True)]
    next(iter(streams[0]))
    waiting = threading.Thread(target=lambda: ask(client, max_tokens=1))
    waiting.start()
    server.wait_until(lambda: server.metric("weir_requests_waiting") == 1)
    with pytest.raises(openai.InternalServerError) as refused:
        ask(client)
    assert refused.value.status_code == 503
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after-ms"]) <= 120_000 and int(headers["retry-after"]) >= 1
    patient = connect(server, max_retries=10)
    assert ask(patient).choices, "the same request is answered after the SDK's own retries"
    assert server.metric("weir_sdk_retries_total") >= 1
    waiting.join()
    list(streams[0])


def test_sigterm_lets_running_streams_finish(start):
    server = start(*SLOW)
    stream = iter(ask(connect(server), max_tokens=100, stream=True))
    next(stream)
    server.process.terminate()
    server.wait_until(lambda: server.status("/readyz") == 503)
    with pytest.raises(openai.APIError):
        ask(connect(server))
    chunks = list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert server.process.wait(timeout=20) == 0
