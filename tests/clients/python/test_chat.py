"""Chat completions through the official SDK."""

import asyncio

import openai
import pytest

HELLO = [{"role": "user", "content": "Hello! Who are you?"}]


def test_models_are_listed(client):
    names = [model.id for model in client.models.list()]
    assert names == ["demo"]
    assert client.models.retrieve("demo").object == "model"


def test_an_answer_is_whole(client):
    answer = client.chat.completions.create(model="demo", messages=HELLO, temperature=0)
    choice = answer.choices[0]
    assert answer.object == "chat.completion" and answer.model == "demo"
    assert choice.message.role == "assistant" and len(choice.message.content) > 3
    assert choice.finish_reason == "stop", "the demo model stops by itself"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id


@pytest.mark.parametrize("temperature", [0, 1])
def test_the_stream_folds_to_the_whole_answer(client, temperature):
    settings = dict(model="demo", messages=HELLO, temperature=temperature, seed=7, max_tokens=48)
    whole = client.chat.completions.create(**settings)
    stream = client.chat.completions.create(
        **settings, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert text == whole.choices[0].message.content
    assert [r for r in reasons if r] == [whole.choices[0].finish_reason]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({c.id for c in chunks}) == 1
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert all(c.usage is None for c in chunks[:-1])


def test_the_streaming_helper_works(client):
    with client.chat.completions.stream(model="demo", messages=HELLO, seed=1) as stream:
        stream.until_done()
        assert stream.get_final_completion().choices[0].message.content


def test_n_choices_differ_and_a_seed_repeats_them(client):
    settings = dict(
        model="demo",
        messages=[{"role": "user", "content": "Tell me a story."}],
        n=3,
        temperature=1,
        seed=11,
        max_tokens=24,
    )
    first = client.chat.completions.create(**settings)
    second = client.chat.completions.create(**settings)
    texts = [c.message.content for c in first.choices]
    assert [c.index for c in first.choices] == [0, 1, 2]
    assert len(set(texts)) > 1
    assert texts == [c.message.content for c in second.choices]
    other = client.chat.completions.create(**{**settings, "seed": 12})
    assert texts != [c.message.content for c in other.choices]


def test_n_choices_stream_interleaved(client):
    settings = dict(model="demo", messages=HELLO, n=2, seed=3, temperature=1, max_tokens=16)
    whole = client.chat.completions.create(**settings)
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(**settings, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {c.index: c.message.content for c in whole.choices}


def test_a_stop_string_ends_the_text_before_it(client):
    settings = dict(model="demo", messages=HELLO, temperature=0)
    whole = client.chat.completions.create(**settings).choices[0].message.content
    stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
    cut = client.chat.completions.create(**settings, stop=[stop, "\x00never"])
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    stream = client.chat.completions.create(**settings, stop=stop, stream=True)
    text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert text == whole[: whole.index(stop)], "no part of a stop string leaks"


def test_max_tokens_ends_with_length(client):
    answer = client.chat.completions.create(
        model="demo", messages=HELLO, max_completion_tokens=3, temperature=0
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 3


def test_logprobs_come_with_bytes_and_alternatives(client):
    answer = client.chat.completions.create(
        model="demo", messages=HELLO, temperature=0, max_tokens=8, logprobs=True, top_logprobs=3
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob, "greedy takes the most probable"
    text = b"".join(bytes(t.bytes) for t in content if t.bytes).decode(errors="replace")
    assert text.startswith(answer.choices[0].message.content.strip()[:4])


def test_usage_counts_what_is_scheduled(client, demo):
    answer = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=1)
    count = client.post(
        demo.root + "/tokenize", body={"model": "demo", "messages": HELLO}, cast_to=object
    )
    assert count["count"] == answer.usage.prompt_tokens == len(count["tokens"])


def test_a_prefix_is_found_again(client):
    long = [{"role": "user", "content": "Please remember these words: " + "blue bird " * 60}]
    first = client.chat.completions.create(model="demo", messages=long, max_tokens=4, temperature=0)
    again = client.chat.completions.create(model="demo", messages=long, max_tokens=4, temperature=0)
    assert again.usage.prompt_tokens_details.cached_tokens > 0
    assert again.choices[0].message.content == first.choices[0].message.content


def test_fields_of_vllm_users_work(client):
    answer = client.chat.completions.create(
        model="demo",
        messages=HELLO,
        max_tokens=12,
        extra_body={"top_k": 1, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True,
                    "min_tokens": 12, "skip_special_tokens": True},
    )
    assert answer.usage.completion_tokens == 12


def test_an_unsupported_field_is_refused_by_name(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="demo", messages=HELLO, response_format={"type": "json_object"}
        )
    assert refused.value.param == "response_format" and refused.value.code
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(model="demo", messages=HELLO, extra_body={"tempratur": 1})
    assert unknown.value.param == "tempratur" and "temperature" in str(unknown.value)


def test_many_streams_at_once_are_the_same_as_alone(demo):
    async def main():
        client = openai.AsyncOpenAI(base_url=demo.base_url, api_key="none", max_retries=0)

        async def one(seed: int) -> str:
            stream = await client.chat.completions.create(
                model="demo", messages=HELLO, temperature=1, seed=seed, max_tokens=16, stream=True
            )
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

        together = await asyncio.gather(*(one(seed) for seed in range(32)))
        alone = [await one(seed) for seed in range(0, 32, 8)]
        assert together[::8] == alone

    asyncio.run(main())
