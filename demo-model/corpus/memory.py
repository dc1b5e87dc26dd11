"""What the user says about themselves, and later asks for: answered from the conversation."""

from corpus.exchange import Exchange, fill, invented, upper_first
from corpus import world as w

# key: (values, tell, acknowledge, ask, answer)
KINDS = {
    "name": (w.NAMES,
             ["My name is {v}", "I am {v}", "I'm {v}", "Hi, I am {v}", "Hello, my name is {v}.",
              "Call me {v}", "Hi! I'm {v}.", "Hello, I'm {v}", "my name is {v}, remember it",
              "Remember that my name is {v}", "Hey, {v} here"],
             ["Nice to meet you, {v}!", "Hello, {v}! How can I help you?",
              "Hi {v}! What can I do for you?", "Welcome, {v}! Nice to meet you."],
             ["What is my name?", "What's my name?", "Do you know my name?", "Who am I?",
              "Do you remember my name?", "Tell me my name", "Say my name",
              "what was my name again?"],
             ["Your name is {v}.", "You are {v}.", "Your name is {v}. I remember!"]),
    "colour": (list(w.COLORS),
               ["My favourite colour is {v}", "I love the colour {v}", "my favorite color is {v}",
                "I like {v} best of all colours"],
               ["{V} is a lovely colour!", "{V} is a good choice.", "Nice! I will remember {v}."],
               ["What is my favourite colour?", "Which colour do I like?",
                "What's my favorite color?", "Do you remember my favourite colour?"],
               ["Your favourite colour is {v}.", "You like {v}."]),
    "animal": (list(w.ANIMALS),
               ["My favourite animal is the {v}", "I love the {v}",
                "the {v} is my favorite animal"],
               ["The {v} is a wonderful animal!", "Nice! I like the {v} too."],
               ["What is my favourite animal?", "Which animal do I like?",
                "Do you remember my favorite animal?"],
               ["Your favourite animal is the {v}.", "You like the {v}."]),
    "city": (w.CITIES,
             ["I live in {v}", "I am from {v}", "I come from {v}", "My home town is {v}"],
             ["{v} sounds like a nice place!", "I have heard that {v} is beautiful.",
              "Ah, {v}! I have never been there, of course."],
             ["Where do I live?", "Where am I from?", "Which city do I live in?",
              "Do you remember where I live?"],
             ["You live in {v}.", "You are from {v}."]),
    "age": ([str(n) for n in range(6, 90)],
            ["I am {v} years old", "I'm {v} years old", "My age is {v}"],
            ["{v} is a good age!", "That is nice. I am much younger."],
            ["How old am I?", "What is my age?", "Do you remember how old I am?"],
            ["You are {v} years old."]),
    "food": (w.FOODS,
             ["My favourite food is {v}", "I like to eat {v}", "I love {v}"],
             ["{V} is delicious, I am told!", "Mmm, {v}! Good choice."],
             ["What is my favourite food?", "What do I like to eat?", "Which food do I like?"],
             ["Your favourite food is {v}.", "You like to eat {v}."]),
    "pet": (w.NAMES,
            ["My dog is called {v}", "My cat is called {v}", "I have a dog named {v}",
             "I have a cat named {v}"],
            ["{v} is a nice name for a pet!", "Say hello to {v} from me!"],
            ["What is my pet called?", "What is the name of my pet?", "Do you remember my pet?"],
            ["Your pet is called {v}."]),
    "number": ([str(n) for n in range(1, 100)],
               ["Remember the number {v}", "My lucky number is {v}", "Keep the number {v} in mind"],
               ["All right, I will remember {v}.", "{v}. I keep it in mind."],
               ["What was the number?", "Which number did I tell you?", "What is my lucky number?"],
               ["The number is {v}.", "It is {v}."]),
    "word": ([], ["Remember the word {v}", "The secret word is {v}", "The password is {v}"],
             ["All right, I will remember {v}.", "Good. I keep {v} in mind."],
             ["What was the word?", "What is the secret word?", "Which word did I tell you?",
              "What is the password?"],
             ["The word is {v}.", "It is {v}."]),
}
NOT_TOLD = {"name": "your name", "colour": "your favourite colour",
            "animal": "your favourite animal",
            "city": "where you live", "age": "how old you are", "food": "your favourite food",
            "pet": "what your pet is called", "number": "a number", "word": "a word"}


def pair(rng, kind=""):
    """(the telling exchange, the asking exchange) about one fact."""
    kind = kind or rng.choice(["name", "name", "name", "name", *KINDS])
    values, tell, reply, ask, answer = KINDS[kind]
    v = rng.choice(values) if values and not (kind in ("name", "pet") and rng.random() < 0.3) else (
        invented(rng) if kind == "word" else upper_first(invented(rng)))
    told = Exchange(fill(rng, tell, v=v), fill(rng, reply, v=v, V=upper_first(v)), kind="told")
    asked = Exchange(rng.choice(ask), fill(rng, answer, v=v), upper_first(v), "fact")
    return told, asked


def not_told(rng):
    kind = rng.choice(["name", "name", *KINDS])
    ask = rng.choice(KINDS[kind][3])
    return Exchange(ask, fill(rng, ["You have not told me {x}.", "I do not know {x} yet.",
                                    "I do not know. You have not told me {x} yet."],
                              x=NOT_TOLD[kind]), "Unknown")
