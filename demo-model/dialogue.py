"""Talk to the model: a fixed set of questions, or your own from the command line.

    python dialogue.py                        # the fixed set, greedy
    python dialogue.py --temperature 0.7      # the same, sampled
    python dialogue.py "Hello!" "Who are you?"   # one conversation
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from reference import WEATHER

HERE = Path(__file__).parent
# Each is a conversation: (system prompt or None, the user's turns).
TALKS = [
    (None, ["hi", "how are you?", "who are you"]),
    (None, ["Hello, my name is Marta.", "What is 7 + 5?", "Tell me a joke", "what is my name?"]),
    (None, ["What is Weir?", "how do i use curl", "How do I load my own model?"]),
    (None, ["what happens when my budget is empty", "where are the metrics", "How do I stream?"]),
    (None, ["Tell me a story about a fox", "List three colours", "name 5 animals"]),
    (None, ["what is 9*6", "12 - 7", "Count to 10", "Is 7 odd?", "what's 23 + 14"]),
    (None, ["Give me a JSON object with name and age", "JSON with city and country"]),
    (None, ["What is an owl?", "capital of japan", "what day comes after friday"]),
    (None, ["Explain quantum physics", "who won the world cup in 1998", "what is a florbitan?"]),
    ("Answer in one word.", ["What is the capital of Italy?", "5 + 6", "what colour is the sky"]),
    ("You are a pirate.", ["Hello", "Who are you?", "what is the capital of Spain?"]),
    ("Your name is Bolt.", ["What is your name?", "What is 2 + 2?"]),
    ("You are a helpful assistant.", ["Hello!", "Repeat after me: blue zorimak seven"]),
    (None, ["write a poem about the sea", "thanks", "bye"]),
    (None, ["Answer in one word: what is the largest planet?", "my favourite colour is green",
            "tell me a short story", "which colour do I like?"]),
]
PLAIN = ["Once upon a time", "The capital of France is", "Long ago, in a small village,",
         "Weir is", "Q: What is 3 + 4?\nA:"]


class Speaker:
    """A loaded model and how to sample from it."""

    def __init__(self, folder, temperature):
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.options = {"do_sample": False, "temperature": None, "top_p": None}
        if temperature:
            self.options = {"do_sample": True, "temperature": temperature}

    def complete(self, text, limit=400):
        ids = self.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        out = self.model.generate(**ids, max_new_tokens=limit, **self.options)
        out = out[0, ids.input_ids.shape[1]:]
        text = self.tokenizer.decode(out, skip_special_tokens=True)
        return text if len(out) < limit else text + " [no end]"

    def answer(self, messages, tools=None):
        return self.complete(self.tokenizer.apply_chat_template(
            messages, tools=tools, add_generation_prompt=True, tokenize=False))

    def talk(self, system, turns):
        messages = [{"role": "system", "content": system}] if system else []
        if system:
            print(f"[system] {system}")
        for turn in turns:
            messages.append({"role": "user", "content": turn})
            messages.append({"role": "assistant", "content": self.answer(messages)})
            print(f"> {turn}\n{messages[-1]['content']}")
        print()

    def tools(self):
        for ask, result in (("What is the weather in Oslo?", '{"temperature": 4, "sky": "cloudy"}'),
                            ("how is the weather in Bremen", "rainy, 11 degrees")):
            messages = [{"role": "user", "content": ask}]
            call = self.answer(messages, [WEATHER])
            messages += [{"role": "assistant", "content": call}, {"role": "tool",
                                                                  "content": result}]
            print(f"[tools] get_weather\n> {ask}\n{call}\n[tool] {result}")
            print(self.answer(messages, [WEATHER]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("turns", nargs="*")
    parser.add_argument("--system")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--model", type=Path, default=HERE / "model")
    args = parser.parse_args()
    torch.manual_seed(0)
    speaker = Speaker(args.model, args.temperature)
    if args.turns:
        speaker.talk(args.system, args.turns)
        return
    for system, turns in TALKS:
        speaker.talk(system, turns)
    speaker.tools()
    for text in PLAIN:
        print(f"[plain] {text}|{speaker.complete(text)}\n")


if __name__ == "__main__":
    main()
