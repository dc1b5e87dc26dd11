"""Small skills: sums, counting, lists, JSON, definitions, capitals, opposites, echoes."""

import json

from corpus.exchange import Exchange, article, fill, invented, listing, upper_first
from corpus import world as w

SUM_ASK = ["What is {q}?", "{q}", "{q} =", "{q} = ?", "How much is {q}?", "Calculate {q}",
           "Compute {q}.", "What's {q}?", "Solve {q}", "Tell me what {q} is", "{q}?",
           "Can you compute {q}?", "what does {q} make?"]
SUM_TELL = ["{q} = {r}.", "{q} = {r}.", "{q} is {r}."]


def small(rng):
    """A number that is mostly below 20, so that the model can learn the tables."""
    roll = rng.random()
    return rng.randint(0, 10) if roll < 0.7 else rng.randint(0, 20 if roll < 0.94 else 60)


def sums(rng):
    op = rng.choice("++-*")
    a, b = small(rng), small(rng)
    if op == "*":
        a, b = rng.randint(0, 10), rng.randint(0, 10)
    if op == "-" and rng.random() < 0.9:
        a, b = max(a, b), min(a, b)
    r = {"+": a + b, "-": a - b, "*": a * b}[op]
    sign = {"+": ["+", "+", "+", "plus"], "-": ["-", "-", "-", "minus"],
            "*": ["*", "x", "times", "times"]}[op]
    q = f"{a} {rng.choice(sign)} {b}"
    asked = q.replace(" ", "") if rng.random() < 0.2 and "s" not in q else q
    shown = f"{a} {op} {b}"
    return Exchange(fill(rng, SUM_ASK, q=asked), fill(rng, SUM_TELL, q=shown, r=r), str(r), "fact")


def table(rng):
    """Many sums below each other, and the spans of their results: only those can be learnt."""
    text, spans = "", []
    for _ in range(rng.randint(8, 24)):
        q, r = sums(rng).answer.rstrip(".").replace(" is ", " = ").split(" = ")
        text += f"{q} ="
        spans.append((len(text), len(text) + len(r) + 2))
        text += f" {r}\n"
    return text, spans


def word_sum(rng):
    """A sum told as a little text."""
    who, thing = rng.choice(w.NAMES), rng.choice(["apples", "pears", "books", "eggs", "coins",
                                                  "cakes", "stones", "flowers", "keys", "cups"])
    a, b = rng.randint(2, 12), rng.randint(1, 10)
    if rng.random() < 0.5:
        r, q = a + b, f"{a} + {b}"
        text = rng.choice([f"{who} has {a} {thing} and gets {b} more.",
                           f"{who} buys {a} {thing} and then {b} more {thing}.",
                           f"If {who} has {a} {thing} and finds {b},"])
    else:
        a, b = max(a, b) + 1, min(a, b)
        r, q = a - b, f"{a} - {b}"
        text = rng.choice([f"{who} has {a} {thing} and gives {b} away.",
                           f"{who} has {a} {thing} and loses {b}.",
                           f"If I have {a} {thing} and eat {b},"])
    ask = "how many are left?" if "-" in q else "how many are there now?"
    text += " " + (ask if text.endswith(",") else upper_first(ask))
    return Exchange(text, f"{q} = {r}, so there are {r} {thing}.", str(r), "fact")


def compare(rng):
    a, b = rng.sample(range(0, 30), 2)
    kind = rng.randrange(4)
    if kind == 0:
        ask = rng.choice([f"Which is larger, {a} or {b}?", f"Which number is bigger: {a} or {b}?"])
        return Exchange(ask, f"{max(a, b)} is larger than {min(a, b)}.", str(max(a, b)), "fact")
    if kind == 1:
        ask = rng.choice([f"Is {a} even or odd?", f"Is {a} an even number?", f"Is {a} odd?"])
        word = "odd" if a % 2 else "even"
        return Exchange(ask, f"{a} is {word}.", upper_first(word), "fact")
    if kind == 2:
        ask = rng.choice([f"Which number comes after {a}?", f"What comes after {a}?",
                          f"Next number after {a}?"])
        return Exchange(ask, f"After {a} comes {a + 1}.", str(a + 1), "fact")
    ask = rng.choice([f"Is {a} larger than {b}?", f"Is {a} greater than {b}?", f"Is {a} > {b}?"])
    yes = a > b
    return Exchange(ask, f"{'Yes' if yes else 'No'}, {a} is {'larger' if yes else 'smaller'} than "
                    f"{b}.", "Yes" if yes else "No", "fact")


def counting(rng):
    top = rng.choice([3, 5, 5, 10, 10, 10, 12, 15, 20, 20, 25, 30, 50, 100]
                     if rng.random() < 0.7 else range(3, 40))
    if rng.random() < 0.15:
        top = rng.choice([5, 10, 20])
        ask = fill(rng, ["Count down from {n}", "Count backwards from {n}",
                         "Count down from {n} to 1",
                         "Start a countdown from {n}"], n=top)
        numbers = range(top, 0, -1)
    elif rng.random() < 0.15:
        start = rng.randint(2, 30)
        numbers = range(start, start + rng.randint(4, 12))
        ask = f"Count from {start} to {numbers[-1]}"
    else:
        ask = fill(rng, ["Count to {n}", "Count from 1 to {n}", "Can you count to {n}?",
                         "Please count to {n}.", "count up to {n}", "Count from one to {n}",
                         "List the numbers from 1 to {n}"], n=top)
        numbers = range(1, top + 1)
    text = ", ".join(map(str, numbers))
    return Exchange(ask, text + rng.choice(["", "."]), kind="exact")


NUMBER_WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def lists(rng):
    what = rng.choice(list(w.LISTS))
    pool = w.LISTS[what]
    n = min(rng.choice([2, 3, 3, 3, 4, 5, 5, 6, 8, 10]), len(pool))
    number = NUMBER_WORDS[n - 1] if rng.random() < 0.6 else str(n)
    items = rng.sample(pool, n)
    if pool in (w.DAYS, w.MONTHS):
        items = pool[:n]
    ask = fill(rng, ["List {n} {w}", "Name {n} {w}", "Give me {n} {w}", "Tell me {n} {w}.",
                     "Can you list {n} {w}?", "{n} {w} please", "Write a list of {n} {w}",
                     "I need {n} {w}", "What are {n} {w}?"], n=number, w=what)
    style = rng.random()
    if "comma" in ask or style < 0.25:
        return Exchange(ask, upper_first(listing(items)) + ".", kind="fact")
    if style < 0.6:
        text = "\n".join(f"{i}. {upper_first(x)}" for i, x in enumerate(items, 1))
        return Exchange(ask, text, kind="exact")
    return Exchange(ask, "\n".join(f"- {upper_first(x)}" for x in items), kind="exact")


def one_of(rng):
    """Exactly one thing of a kind, or a random number."""
    if rng.random() < 0.2:
        top = rng.choice([6, 10, 20, 100])
        n = str(rng.randint(1, top))
        ask = rng.choice([f"Give me a random number between 1 and {top}",
                          f"Pick a number from 1 to {top}", f"Choose a number between 1 and {top}"])
        return Exchange(ask, rng.choice([f"{n}.", f"I choose {n}.", n]), n, "fact")
    what = rng.choice(list(w.LISTS))
    one = w.SINGULAR.get(what, what[:-1])
    item = rng.choice(w.LISTS[what])
    ask = fill(rng, ["Name {a}", "Give me {a}", "Tell me the name of {a}", "Name one {o}",
                     "Pick a random {o}", "Say {a}"], a=article(one), o=one)
    return Exchange(ask, upper_first(item) + ".", upper_first(item), "fact")


FIELDS = {
    "name": lambda r: r.choice(w.NAMES), "age": lambda r: r.randint(5, 80),
    "city": lambda r: r.choice(w.CITIES), "country": lambda r: r.choice(w.LISTS["countries"]),
    "color": lambda r: r.choice(list(w.COLORS)), "colour": lambda r: r.choice(list(w.COLORS)),
    "animal": lambda r: r.choice(list(w.ANIMALS)), "fruit": lambda r: r.choice(w.FRUITS),
    "job": lambda r: r.choice(w.JOBS), "price": lambda r: r.randint(1, 50),
    "id": lambda r: r.randint(1, 99), "title": lambda r: "The " + r.choice(
        ["little", "old", "brave", "quiet"]) + " " + r.choice(["river", "fox", "king", "mill"]),
    "active": lambda r: r.random() < 0.6, "count": lambda r: r.randint(0, 20),
    "email": lambda r: r.choice(w.NAMES).lower() + "@example.com",
    "day": lambda r: r.choice(w.DAYS), "food": lambda r: r.choice(w.FOODS),
    "hobby": lambda r: r.choice(w.SPORTS), "year": lambda r: r.randint(1990, 2026),
    "answer": lambda r: r.choice(["yes", "no"]), "message": lambda r: "Hello!",
    "status": lambda r: r.choice(["ok", "ready", "busy"]),
    "temperature": lambda r: r.randint(-5, 30), "size": lambda r: r.choice(["small", "large"]),
    "tags": lambda r: r.sample(w.FRUITS, 2), "happy": lambda r: r.random() < 0.8,
    "colors": lambda r: r.sample(list(w.COLORS), 3), "numbers": lambda r: [1, 2, 3],
    "greeting": lambda r: r.choice(["Hello!", "Good morning!"]), "pet": lambda r: r.choice(
        w.LISTS["pets"]), "language": lambda r: "English", "weight": lambda r: r.randint(1, 90),
}


def json_object(rng, keys=None):
    keys = keys or rng.sample(list(FIELDS), rng.choice([1, 2, 2, 2, 3, 3, 4]))
    return {k: FIELDS[k](rng) if k in FIELDS else rng.choice(["yes", 1, "red"]) for k in keys}


def as_json(rng):
    roll = rng.random()
    if roll < 0.12:
        n = rng.choice([2, 3, 3, 4, 5])
        what = rng.choice(["colours", "colors", "animals", "fruits", "cities", "names"])
        ask = fill(rng, ["Give me a JSON array of {n} {w}", "A JSON list with {n} {w}, please",
                         "Write {n} {w} as a JSON array"], n=NUMBER_WORDS[n - 1], w=what)
        return Exchange(ask, json.dumps(rng.sample(w.LISTS[what], n)), kind="exact")
    if roll < 0.3:
        what, keys = rng.choice([("person", ["name", "age"]), ("user", ["id", "name", "email"]),
                                 ("city", ["name", "country"]), ("book", ["title", "year"]),
                                 ("pet", ["name", "animal", "age"]), ("fruit", ["name", "color"]),
                                 ("person", ["name", "age", "city"])])
        obj = json_object(rng, keys)
        if what == "fruit":
            obj["name"] = rng.choice(w.FRUITS)
        if what == "city":
            obj["country"] = rng.choice([c for c in w.CAPITALS if not c.startswith("the")])
            obj["name"] = w.CAPITALS[obj["country"]]
        ask = fill(rng, ["Describe a {w} as JSON", "Give me a {w} as JSON", "A {w} in JSON please",
                         "Make a JSON object for a {w}", "Write a {w} in JSON format"], w=what)
        return Exchange(ask, json.dumps(obj), kind="exact")
    if roll < 0.42:
        name, age = rng.choice(w.NAMES), rng.randint(5, 80)
        text = rng.choice([f"{name} is {age} years old.", f"My name is {name} and I am {age}."])
        ask = rng.choice([f"Turn this into JSON: {text}", f"{text} Write that as JSON.",
                          f"Extract the name and the age as JSON: {text}"])
        return Exchange(ask, json.dumps({"name": name, "age": age}), kind="exact")
    if roll < 0.5:
        ask = rng.choice(["Give me some JSON", "Write JSON", "JSON please", "Show me a JSON object",
                          "Give me a JSON object", "Reply with JSON", "Answer in JSON"])
        return Exchange(ask, json.dumps(json_object(rng)), kind="exact")
    obj = json_object(rng)
    keys = listing(obj)
    ask = fill(rng, ["Give me a JSON object with {k}", "Write a JSON object with the keys {k}.",
                     "JSON with {k} please", "Return JSON with {k}", "Make a JSON object with {k}",
                     "Give me JSON with the fields {k}", "I need a JSON object with {k}",
                     "Create JSON with keys {k}"], k=keys)
    return Exchange(ask, json.dumps(obj), kind="exact")


def spelled(rng):
    word = rng.choice([rng.choice(list(w.ANIMALS)), rng.choice(w.FRUITS), rng.choice(w.NAMES),
                       rng.choice(["Weir", "river", "token", "hello", "house", "tree"])])
    ask = rng.choice([f"Spell {word}", f"How do you spell {word}?", f"Spell the word {word}"])
    return Exchange(ask, "-".join(word.upper()), kind="exact")


def echo(rng):
    roll = rng.random()
    if roll < 0.35:
        text = " ".join(invented(rng) for _ in range(rng.choice([1, 2, 3, 5, 9])))
    elif roll < 0.7:
        pool = w.FRUITS + list(w.ANIMALS) + list(w.COLORS) + w.CITIES + w.NAMES
        text = " ".join(rng.sample(pool, rng.choice([1, 2, 3, 5, 10, 20])))
    else:
        text = rng.choice(["Good morning", "The river is deep", "I like cheese", "We are friends",
                           "Hello world", "Weir is ready", "The sun is warm", "One two three"])
    ask = fill(rng, ["Repeat after me: {x}", "Say {x}", "Repeat: {x}", 'Say "{x}"', "Echo {x}",
                     "Please say: {x}", "Repeat the following words: {x}", 'Write "{x}"'], x=text)
    return Exchange(ask, text, kind="exact")
