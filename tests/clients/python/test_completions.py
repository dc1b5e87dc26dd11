"""Completions through the official SDK, as lm-evaluation-harness and benchmark tools use them."""

PROMPT = "Once upon a time"


def test_a_text_goes_on(client):
    answer = client.completions.create(model="demo", prompt=PROMPT, max_tokens=16, temperature=0)
    assert answer.object == "text_completion"
    assert len(answer.choices[0].text) > 8


def test_streams_fold_to_the_answer(client):
    settings = dict(model="demo", prompt=PROMPT, max_tokens=16, seed=5, temperature=1)
    whole = client.completions.create(**settings)
    stream = client.completions.create(**settings, stream=True)
    assert "".join(c.choices[0].text for c in stream if c.choices) == whole.choices[0].text


def test_prompts_are_strings_or_token_ids(client, demo):
    ids = client.post(
        demo.root + "/tokenize", body={"model": "demo", "prompt": PROMPT}, cast_to=object
    )["tokens"]
    settings = dict(model="demo", max_tokens=8, temperature=0)
    text = client.completions.create(prompt=PROMPT, **settings).choices[0].text
    assert client.completions.create(prompt=ids, **settings).choices[0].text == text
    both = client.completions.create(prompt=[ids, ids], n=1, **settings)
    assert [c.index for c in both.choices] == [0, 1]
    assert [c.text for c in both.choices] == [text, text]
    back = client.post(
        demo.root + "/detokenize", body={"model": "demo", "tokens": ids}, cast_to=object
    )
    assert back["prompt"] == PROMPT


def test_the_harness_gets_its_prompt_scores(client, demo):
    ids = client.post(
        demo.root + "/tokenize", body={"model": "demo", "prompt": PROMPT}, cast_to=object
    )["tokens"]
    answer = client.completions.create(
        model="demo", prompt=[ids], echo=True, logprobs=1, max_tokens=1, temperature=0, seed=1234
    )
    scores = answer.choices[0].logprobs
    assert len(scores.token_logprobs) == len(ids) + 1
    assert scores.token_logprobs[0] is None and scores.top_logprobs[0] is None
    assert all(value <= 0 for value in scores.token_logprobs[1:])
    for value, top in list(zip(scores.token_logprobs, scores.top_logprobs))[1:]:
        assert value <= max(top.values()) + 1e-6
    assert answer.choices[0].text.startswith(PROMPT)
    assert scores.text_offset[0] == 0


def test_scores_alone_need_no_output(client):
    answer = client.completions.create(
        model="demo", prompt=PROMPT, echo=True, logprobs=0, max_tokens=0
    )
    assert answer.choices[0].text == PROMPT
    assert answer.usage.completion_tokens == 0
