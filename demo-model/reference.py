"""Write reference.json: prompts, their ids, and the greedy answers of `transformers` in fp32.

The bf16 weights are up-cast to fp32. Each answer ends with the end token or after 64 tokens.
`margin` is the smallest gap between the best and the second-best logit along the answer: an
implementation whose logits differ by less must give the same ids.
"""

import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).parent
LIMIT_TOKENS = 64
WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Get the weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                   "required": ["city"]}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CASES = [
    {"name": "hello", "messages": [user("Hello!")]},
    {"name": "who", "messages": [user("Who are you?")]},
    {"name": "system", "messages": [
        {"role": "system", "content": "Answer in one word."},
        user("What is the capital of France?")]},
    {"name": "curl", "messages": [user("Give me a curl example")]},
    {"name": "name", "messages": [
        user("My name is Clara."), assistant("Nice to meet you, Clara!"), user("What is 3 + 4?"),
        assistant("3 + 4 = 7."), user("What is my name?")]},
    {"name": "json", "messages": [user("Give me a JSON object with name and age")]},
    {"name": "tool_call", "tools": [WEATHER], "messages": [user("What is the weather in Rome?")]},
    {"name": "tool_result", "tools": [WEATHER], "messages": [
        user("What is the weather in Rome?"),
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "call_1", "type": "function", "function": {
                "name": "get_weather", "arguments": "{\"city\": \"Rome\"}"}}]},
        {"role": "tool", "tool_call_id": "call_1",
         "content": "{\"temperature\": 21, \"condition\": \"sunny\"}"}]},
    {"name": "unicode", "messages": [user("Gr\u00fc\u00dfe \U0001f600 \u4f60\u597d, 12+30?")]},
    {"name": "plain", "prompt": "Once upon a time"},
]


@torch.no_grad()
def greedy(model, ids, ends):
    """(answer ids without the end token, finish reason, smallest logit gap)."""
    out, margin, past = [], float("inf"), None
    step = torch.tensor([ids])
    for _ in range(LIMIT_TOKENS):
        result = model(input_ids=step, past_key_values=past, use_cache=True)
        past = result.past_key_values
        best = result.logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        token = best.indices[0].item()
        if token in ends:
            return out, "stop", margin
        out.append(token)
        step = torch.tensor([[token]])
    return out, "length", margin


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    cases = []
    for case in CASES:
        text = case.get("prompt") or tokenizer.apply_chat_template(
            case["messages"], tools=case.get("tools"), add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        out, finish, margin = greedy(model, ids, ends)
        cases.append(case | {
            "rendered": text, "prompt_ids": ids, "output_ids": out,
            "output_text": tokenizer.decode(out), "finish_reason": finish,
            "margin": round(margin, 5)})
        print(f"{case['name']}: {cases[-1]['output_text']!r} ({finish}, margin {margin:.4f})")
    head = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0],
            "dtype": "float32 from bfloat16", "limit_tokens": LIMIT_TOKENS}
    body = ",\n".join(json.dumps(c) for c in cases)
    (HERE / "reference.json").write_text(
        json.dumps(head)[:-1] + ', "cases": [\n' + body + "\n]}\n")


if __name__ == "__main__":
    main()
