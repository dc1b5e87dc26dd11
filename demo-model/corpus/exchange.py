"""One question and its answer, and the ways people type a question."""

from dataclasses import dataclass


@dataclass
class Exchange:
    """A user's message and the answer. `word` is the answer in one word, where there is one.

    `kind` says how far a persona may rewrite the answer: "talk" freely, "fact" by framing it,
    "exact" (code, JSON, echoes) not at all.
    """

    user: str
    answer: str
    word: str = ""
    kind: str = "talk"


def fill(rng, template, **values):
    """Pick one variant if `template` is a list, then put the values in."""
    text = rng.choice(template) if isinstance(template, (list, tuple)) else template
    for key, value in values.items():
        text = text.replace("{" + key + "}", str(value))
    return text


def upper_first(text):
    return text[:1].upper() + text[1:]


def article(noun):
    """"a cat", "an owl"."""
    return ("an " if noun[0].lower() in "aeiou" else "a ") + noun


def listing(items, last="and"):
    """"red, green and blue"."""
    items = list(items)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f" {last} " + items[-1]


LEADS = ["please ", "hey, ", "ok, ", "so, ", "can you tell me: ", "hi, ", "hello! ", "um, ",
         "quick question: ", "Please ", "now ", "well, ", "and "]
TRAILS = [" please", ", please", " thanks", "?", "!", " :)", " ", "  ", "...", " now"]


def typed(rng, text, keep_case=False):
    """The same question as somebody in a hurry might type it."""
    roll = rng.random()
    if roll < 0.5:
        return text
    if not keep_case and rng.random() < 0.6:
        text = text.lower()
    if rng.random() < 0.5:
        text = text.rstrip(".?!")
    if rng.random() < 0.15:
        text = text.replace("'", "")
    if rng.random() < 0.12 and not keep_case:
        text = rng.choice(LEADS) + text[:1].lower() + text[1:]
    if rng.random() < 0.10:
        text += rng.choice(TRAILS)
    if rng.random() < 0.06 and len(text) > 12 and not keep_case:
        at = rng.randrange(4, len(text) - 2)
        text = text[:at] + text[at + 1] + text[at] + text[at + 2:]
    return text


SYLLABLES = ("ba be bo ca co da de di do el en fa fi ga go ha hi ja jo ka ke ki ko la le li lo lu "
             "ma me mi mo na ne ni no nu or pa pe pi po ra re ri ro ru sa se shi so ta te ti to "
             "tu va ve vi wa ya yo za ze zo").split()
ENDINGS = ["", "", "n", "r", "s", "l", "x", "th", "ck", "m", "nd"]


def invented(rng, low=2, high=4):
    """A word that does not exist, such as "zorimak"; it teaches copying and not knowing."""
    count = rng.randint(low, high)
    return "".join(rng.choice(SYLLABLES) for _ in range(count)) + rng.choice(ENDINGS)
