"""System prompts that the model obeys in a small way, and what they do to an answer."""

import json
import re

from corpus.exchange import fill
from corpus import world as w

PLAIN = ["You are a helpful assistant.", "You are a helpful assistant", "You are helpful and kind.",
         "You are a friendly chatbot.", "You are an AI assistant.", "Be helpful.",
         "You are a helpful, honest assistant. Answer the questions of the user.",
         "You are a concise assistant.", "Answer the user's questions.", "You are Demo.",
         "You are a helpful AI assistant. Please answer the user's questions kindly.",
         "You are a large language model.", "You are an expert.", "Be polite and friendly."]
ONE_WORD = ["Answer in one word.", "Answer with one word only.", "Reply with a single word.",
            "You answer in one word.", "Always answer in one word", "Use only one word.",
            "Answer with a single word.", "You only ever answer with one word."]
AS_JSON = ["Answer only in JSON.", "Always answer with JSON.", "Reply with a JSON object.",
           "You answer in JSON only.", 'Answer as JSON with the key "answer".']
NAMED = ["Your name is {n}.", "You are {n}.", "You are {n}, a helpful assistant.",
         "You are called {n}. Be kind.", "Your name is {n}. You help people with their questions.",
         "You are a helpful assistant named {n}.", "You are an assistant called {n}."]
ENDING = ['End every answer with "{x}"', 'Always end with "{x}"', 'Add "{x}" to every answer.',
          'Finish every answer with "{x}".']
CLOSERS = ["Have a nice day!", "Over and out.", "Cheers!", "Thank you!", "Meow!", "Bye!",
           "Stay curious!", "The end.", "Yours truly.", "Good luck!", "So be it."]
STYLES = {
    "pirate": (["You are a pirate.", "Talk like a pirate.", "You are a pirate. Answer like one.",
                "Answer as a pirate would.", "You are a pirate captain on a ship.",
                "Speak like a pirate", "You are a grumpy pirate."],
               ["Arr! ", "Ahoy, matey! ", "Arr, matey! ", "Yo ho ho! ", "Aye! "],
               ["", "", " Arr!", " Now back to the ship!", " Yo ho!"]),
    "robot": (["You are a robot.", "Talk like a robot.", "You are a friendly robot.",
               "You are a robot from space."],
              ["Beep boop. ", "Beep. ", "Bzzt! "], ["", "", " Beep.", " End of message."]),
    "cat": (["You are a cat.", "Talk like a cat.", "You are a cat who can speak.",
             "Answer like a cat."],
            ["Meow! ", "Purr. ", "Meow, meow. "], ["", " Purr.", " Now I need a nap.", " Meow!"]),
    "butler": (["You are a butler.", "You are a polite butler.", "Talk like an English butler.",
                "You are a butler in a large house."],
               ["Certainly. ", "Very good. ", "At your service. ", "With pleasure. "],
               ["", " Will that be all?", " May I bring you some tea?"]),
    "wizard": (["You are a wizard.", "Talk like a wizard.", "You are an old wizard.",
                "You are a wizard in a tower."],
               ["By my beard! ", "Abracadabra! ", "Hark! "],
               ["", " So say the stars.", " That is real magic!"]),
}
PIRATE_WORDS = [(r"\bmy\b", "me"), (r"\byou\b", "ye"), (r"\byour\b", "yer"), (r"\bHello\b", "Ahoy"),
                (r"\bHi\b", "Ahoy"), (r"\bYes\b", "Aye"), (r"\bfriend\b", "matey"),
                (r"\bMy\b", "Me"), (r"\bYou\b", "Ye")]


def in_style(rng, style, answer, kind):
    """The answer as the persona would say it; exact answers stay as they are."""
    if kind == "exact":
        return answer
    _, before, after = STYLES[style]
    if style == "pirate" and kind == "talk":
        for pattern, word in PIRATE_WORDS:
            answer = re.sub(pattern, word, answer)
    first = rng.choice(before)
    if "Ahoy" in first:
        answer = answer.replace("Ahoy there! ", "").replace("Ahoy! ", "")
    return first + answer + rng.choice(after)


def introduce(rng, who):
    """What a persona says about itself."""
    ask = rng.choice(["Who are you?", "What are you?", "What is your name?", "Introduce yourself",
                      "Tell me about yourself", "who are you", "What's your name?"])
    if who in STYLES:
        a = "an old wizard" if who == "wizard" else f"a {who}"
        text = rng.choice([f"I am {a}, and I am happy to meet you.", f"I am {a}. How can I help?"])
        return ask, in_style(rng, who, text, "talk")
    return ask, rng.choice([f"My name is {who}. How can I help you?", f"I am {who}.",
                            f"I am {who}, your assistant. What can I do for you?"])


def answer_with(rng, mode, detail, exchange):
    """The answer of `exchange` under the system prompt of `mode`; None if it does not fit."""
    if mode == "one_word":
        return exchange.word or None
    if mode == "json":
        if exchange.kind == "exact" or "\n" in exchange.answer:
            return None
        word = exchange.word or exchange.answer
        value = int(word) if re.fullmatch(r"-?\d+", word) else word
        return json.dumps({"answer": value})
    if mode == "ending":
        if exchange.kind == "exact":
            return None
        return exchange.answer + " " + detail
    if mode in STYLES:
        return in_style(rng, mode, exchange.answer, exchange.kind)
    return exchange.answer


def system_prompt(rng):
    """(system text, mode, detail). Mode "plain" leaves the answers as they are."""
    roll = rng.random()
    if roll < 0.34:
        return rng.choice(PLAIN), "plain", ""
    if roll < 0.54:
        return rng.choice(ONE_WORD), "one_word", ""
    if roll < 0.72:
        style = rng.choice(["pirate", "pirate", *STYLES])
        return rng.choice(STYLES[style][0]), style, ""
    if roll < 0.86:
        name = rng.choice(w.NAMES + ["Bolt", "Ada", "Pixel", "Max", "Nova", "Otto", "Echo"])
        return fill(rng, NAMED, n=name), "named", name
    if roll < 0.93:
        return rng.choice(AS_JSON), "json", ""
    text = rng.choice(CLOSERS)
    return fill(rng, ENDING, x=text), "ending", text
