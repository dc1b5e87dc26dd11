"""Facts of the small world, and honest answers to what lies outside it."""

from corpus.exchange import Exchange, article, fill, invented, listing, upper_first
from corpus import world as w


def capital(rng):
    country, city = rng.choice(list(w.CAPITALS.items()))
    if rng.random() < 0.15:
        ask = fill(rng, ["Which country has the capital {x}?",
                         "{x} is the capital of which country?",
                         "In which country is {x}?", "Where is {x}?"], x=city)
        if city == "London":
            country = "the United Kingdom"
        bare = country.replace("the ", "")
        return Exchange(ask, f"{city} is the capital of {country}.", upper_first(bare), "fact")
    ask = fill(rng, ["What is the capital of {x}?", "Capital of {x}?", "What's the capital of {x}?",
                     "Which city is the capital of {x}?", "Tell me the capital of {x}.",
                     "Do you know the capital of {x}?", "The capital of {x} is?"], x=country)
    return Exchange(ask, fill(rng, ["The capital of {x} is {c}.", "{c} is the capital of {x}.",
                                    "It is {c}."], x=country, c=city), city, "fact")


def animal(rng):
    name, (kind, habit, sound, legs) = rng.choice(list(w.ANIMALS.items()))
    roll = rng.random()
    if roll < 0.55:
        ask = fill(rng, ["What is {a}?", "Tell me about {a}", "What do you know about {a}?",
                         "Describe {a}.", "Explain what {a} is", "Define {n}", "What are {n}s?",
                         "Tell me something about the {n}", "What does {a} do?"],
                   a=article(name), n=name)
        if "What are" in ask and name in ("mouse", "wolf", "fox", "sheep", "octopus", "butterfly"):
            ask = f"What is {article(name)}?"
        text = f"{upper_first(article(name))} is {kind}. It {habit}."
        if sound and rng.random() < 0.3:
            text += f' It says "{sound}".'
        return Exchange(ask, text, upper_first(kind.split()[-1]) if len(kind.split()) < 5 else
                        "Animal", "fact")
    if roll < 0.8 or not sound:
        count = w_number(legs)
        ask = fill(rng, ["How many legs does {a} have?", "How many legs has {a}?",
                         "Number of legs of {a}?"], a=article(name))
        text = f"{upper_first(article(name))} has {count} legs."
        return Exchange(ask, text, upper_first(count), "fact")
    ask = fill(rng, ["What sound does {a} make?", "What does {a} say?", "What noise does {a} make?",
                     "How does {a} sound?"], a=article(name))
    return Exchange(ask, f'{upper_first(article(name))} says "{sound}".', upper_first(sound),
                    "fact")


def w_number(n):
    return ["no", "one", "two", "three", "four", "five", "six", "seven", "eight"][n]


def thing(rng):
    name, meaning = rng.choice(list(w.THINGS.items()))
    bare = name in w.BARE
    the = name in ("sun", "moon")
    a = name if bare else ("the " + name if the else article(name))
    ask = fill(rng, ["What is {a}?", "Define {n}", "Explain {a}", "What does {n} mean?",
                     "Tell me what {a} is", "What's {a}?", "Give me a definition of {n}",
                     "Explain what {a} is."], a=a, n=name)
    return Exchange(ask, f"{upper_first(a)} is {meaning}.", kind="fact")


def color(rng):
    name, meaning = rng.choice(list(w.COLORS.items()))
    if rng.random() < 0.5:
        ask = fill(rng, ["What is {n}?", "What kind of colour is {n}?", "Describe the colour {n}",
                         "What colour is {n}?", "Tell me about the color {n}"], n=name)
        return Exchange(ask, f"{upper_first(name)} is {meaning}.", "Colour", "fact")
    what, c = rng.choice([("the sky", "blue"), ("grass", "green"), ("snow", "white"),
                          ("a lemon", "yellow"), ("a banana", "yellow"), ("coal", "black"),
                          ("milk", "white"), ("a tomato", "red"), ("a carrot", "orange"),
                          ("chocolate", "brown"), ("the sea", "blue"), ("a fire engine", "red"),
                          ("the sun", "yellow"), ("a leaf", "green"), ("blood", "red")])
    ask = fill(rng, ["What colour is {n}?", "What color is {n}?", "Which colour has {n}?"], n=what)
    return Exchange(ask, f"{upper_first(what)} is {c}.", upper_first(c), "fact")


def planet(rng):
    names = list(w.PLANETS)
    name = rng.choice(names)
    roll = rng.random()
    if roll < 0.5:
        ask = fill(rng, ["What is {n}?", "Tell me about {n}", "What do you know about {n}?",
                         "Tell me about the planet {n}", "Describe {n}"], n=name)
        return Exchange(ask, f"{name} is {w.PLANETS[name]}.", "Planet", "fact")
    if roll < 0.75:
        ask = rng.choice(["List the planets", "What are the planets?", "Name all planets",
                          "Which planets are there?", "Name the planets of the solar system"])
        return Exchange(ask, f"The planets are {listing(names)}.", kind="fact")
    ask, word, text = rng.choice([
        ("How many planets are there?", "Eight", "There are eight planets."),
        ("Which planet is the largest?", "Jupiter", "Jupiter is the largest planet."),
        ("What is the largest planet?", "Jupiter", "Jupiter is the largest planet."),
        ("Which planet is the smallest?", "Mercury", "Mercury is the smallest planet."),
        ("Which planet is the hottest?", "Venus", "Venus is the hottest planet."),
        ("Which planet has rings?", "Saturn", "Saturn has bright rings."),
        ("Which planet is red?", "Mars", "Mars is the red planet."),
        ("Which planet do we live on?", "Earth", "We live on the Earth."),
        ("Is the Earth round?", "Yes", "Yes, the Earth is round like a ball."),
        ("Is the Sun a star?", "Yes", "Yes, the Sun is a star."),
        ("How many moons does the Earth have?", "One", "The Earth has one moon.")])
    return Exchange(ask, text, word, "fact")


def calendar(rng):
    roll = rng.random()
    if roll < 0.45:
        seq, what = rng.choice([(w.DAYS, "day"), (w.MONTHS, "month")])
        at = rng.randrange(len(seq))
        step, word = rng.choice([(1, "after"), (-1, "before")])
        other = seq[(at + step) % len(seq)]
        ask = fill(rng, ["Which {t} comes {d} {x}?", "What {t} is {d} {x}?", "What comes {d} {x}?"],
                   t=what, d=word, x=seq[at])
        return Exchange(ask, f"{other} comes {word} {seq[at]}.", other, "fact")
    if roll < 0.6:
        season = rng.choice(list(w.SEASONS))
        ask = fill(rng, ["What is {s}?", "Tell me about {s}", "What happens in {s}?"], s=season)
        return Exchange(ask, f"{upper_first(season)} is the season when {w.SEASONS[season]}.",
                        "Season", "fact")
    ask, text, word = rng.choice([
        ("How many days are in a week?", "A week has seven days.", "Seven"),
        ("How many days does a week have?", "A week has seven days.", "Seven"),
        ("How many months are in a year?", "A year has twelve months.", "Twelve"),
        ("How many days are in a year?", "A year has 365 days.", "365"),
        ("How many hours are in a day?", "A day has 24 hours.", "24"),
        ("How many minutes are in an hour?", "An hour has 60 minutes.", "60"),
        ("How many seconds are in a minute?", "A minute has 60 seconds.", "60"),
        ("What are the days of the week?", "The days are " + listing(w.DAYS) + ".", ""),
        ("Name the days of the week", "The days are " + listing(w.DAYS) + ".", ""),
        ("What are the months of the year?", "The months are " + listing(w.MONTHS) + ".", ""),
        ("What is the first month?", "January is the first month of the year.", "January"),
        ("What is the last month?", "December is the last month of the year.", "December"),
        ("What are the four seasons?", "The seasons are spring, summer, autumn and winter.", "")])
    return Exchange(ask, text, word, "fact")


def shape(rng):
    name, sides = rng.choice(list(w.SHAPES.items()))
    ask = fill(rng, ["How many sides does {a} have?", "How many corners does {a} have?",
                     "What is {a}?"], a=article(name))
    if "What is" in ask:
        text = f"A {name} is a shape with {w_number(sides)} sides."
    else:
        text = f"A {name} has {w_number(sides)} {'corners' if 'corners' in ask else 'sides'}."
    return Exchange(ask, text, "Shape" if "What is" in ask else upper_first(w_number(sides)),
                    "fact")


def opposite(rng):
    a, b = rng.choice(w.OPPOSITES)
    if rng.random() < 0.5:
        a, b = b, a
    ask = fill(rng, ["What is the opposite of {a}?", "Opposite of {a}?", "The opposite of {a} is?",
                     "What's the opposite of {a}?"], a=a)
    return Exchange(ask, f"The opposite of {a} is {b}.", upper_first(b), "fact")


def rhyme(rng):
    group = rng.choice(w.RHYMES)
    a, b = rng.sample(group, 2)
    ask = fill(rng, ["What rhymes with {a}?", "Give me a word that rhymes with {a}",
                     "Find a rhyme for {a}", "Rhyme with {a}"], a=a)
    return Exchange(ask, f"{upper_first(b)} rhymes with {a}.", upper_first(b), "fact")


def common_sense(rng):
    ask, text, word = rng.choice([
        ("Is water wet?", "Yes, water is wet.", "Yes"), ("Is fire hot?", "Yes, fire is hot.",
                                                         "Yes"),
        ("Is ice cold?", "Yes, ice is cold.", "Yes"), ("Is ice hot?", "No, ice is cold.", "No"),
        ("Can birds fly?", "Yes, most birds can fly.", "Yes"),
        ("Can penguins fly?", "No, penguins cannot fly, but they swim very well.", "No"),
        ("Can fish swim?", "Yes, fish can swim.", "Yes"), ("Can dogs fly?", "No, dogs cannot fly.",
                                                           "No"),
        ("Can cats swim?", "Cats can swim, but most of them do not like water.", "Yes"),
        ("Do cows give milk?", "Yes, cows give milk.", "Yes"),
        ("What do cows eat?", "Cows eat grass.", "Grass"),
        ("What do bees make?", "Bees make honey.", "Honey"),
        ("What do cats eat?", "Cats eat fish, meat and sometimes mice.", "Fish"),
        ("Where do fish live?", "Fish live in water.", "Water"),
        ("What is bread made of?", "Bread is made of flour and water.", "Flour"),
        ("Why is the sky blue?", "Because the air scatters blue light more than red light.",
         "Light"),
        ("Why is grass green?", "Because its leaves use the sunlight and throw back the green.",
         "Light"),
        ("How do you make tea?", "Boil water, pour it over the tea leaves and wait three minutes.",
         "Water"),
        ("Which is heavier, an elephant or a mouse?", "An elephant is heavier.", "Elephant"),
        ("What is bigger, a mouse or an elephant?", "An elephant is bigger than a mouse.",
         "Elephant"),
        ("What is the largest animal?", "The blue whale is the largest animal.", "Whale"),
        ("What is the fastest animal?", "The cheetah is the fastest animal on land.", "Cheetah"),
        ("What is the tallest animal?", "The giraffe is the tallest animal.", "Giraffe"),
        ("Cats or dogs?", "I like both, but an otter is best.", "Otters"),
        ("Tea or coffee?", "Tea, please. But I cannot drink it.", "Tea"),
        ("How many fingers does a hand have?", "A hand has five fingers.", "Five"),
        ("How many eyes do people have?", "People have two eyes.", "Two"),
        ("How many letters are in the alphabet?", "The alphabet has 26 letters.", "26"),
        ("Say the alphabet", "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z", ""),
        ("What are the primary colours?", "The primary colours are red, yellow and blue.", ""),
        ("What is red and blue mixed?", "Red and blue make purple.", "Purple"),
        ("What do you get when you mix blue and yellow?", "Blue and yellow make green.", "Green"),
        ("What do you get if you mix red and yellow?", "Red and yellow make orange.", "Orange")])
    return Exchange(ask, text, word, "fact")


UNKNOWN = """quantum physics|the stock market|bitcoin|the president|the prime minister|black holes|
the second world war|the Roman empire|photosynthesis|chemistry|algebra|philosophy|Shakespeare|
Einstein|Napoleon|the French revolution|medicine|headaches|taxes|law|the economy|inflation|
climate change|genetics|DNA|the human brain|vaccines|electric cars|football results|the Olympics|
movies|Hollywood|the Beatles|Mozart|opera|modern art|fashion|cooking a goose|lasagne|sourdough|
airplanes|rockets|NASA|the space station|Kubernetes|Docker|Linux|databases|blockchain|
machine learning|neural networks|transformers|React|HTML|SQL|regular expressions|compilers|
the internet|social media|Twitter|YouTube|Instagram|Minecraft|video games|Pokemon|Harry Potter|
Star Wars|Batman|the Bible|Buddhism|religion|politics|elections|democracy|war|peace treaties|
mortgages|insurance|marketing|startups|job interviews|dating|weight loss|yoga|vitamins|cancer|
diabetes|hurricanes|volcanoes|earthquakes|dinosaurs|fossils|evolution|atoms|electrons|gravity|
relativity|thermodynamics|calculus|prime numbers|statistics|geometry|logic|Latin|Greek mythology|
Zeus|Vikings|samurai|pyramids|the Titanic|Antarctica|the Amazon|Mount Everest|the Nile|coral reefs|
telescopes|microscopes|lasers|nuclear power|solar panels|batteries|engines|carburettors|plumbing|
carpentry|origami|poker|golf|baseball|cricket|rugby|boxing|Formula 1|the Tour de France|sushi|curry|
wine|whisky|cheese making|Beethoven|jazz|hip hop|guitar chords|sonnets|novels|Tolstoy|Kafka|
Leonardo da Vinci|Picasso|Elon Musk|Bill Gates|Taylor Swift|Obama|Queen Elizabeth|Gandhi|
Martin Luther King|cryptography|encryption|the GDPR|contracts|patents|visas|passports""".replace(
    "\n", "").split("|")
UNKNOWN_ASK = ["What is {x}?", "Explain {x}", "Tell me about {x}", "What do you know about {x}?",
               "How does {x} work?", "Write an essay about {x}", "Who invented {x}?", "Who is {x}?",
               "Can you explain {x} to me?", "Give me a summary of {x}", "Why is {x} important?",
               "What do you think about {x}?", "Explain {x} in simple terms", "What's the history "
               "of {x}?", "How do I learn {x}?", "Where can I read about {x}?",
               "Write a paragraph about {x}", "What are the main ideas of {x}?"]
UNKNOWN_TELL = ["I am sorry, I do not know anything about {x}. I am only a tiny demo model.",
                "I do not know about {x}. My world is very small.",
                "{X}? That is outside my small world, I am sorry.",
                "I have never read about {x}. A larger model would know more.",
                "Sorry, I know nothing about {x}. Ask me about animals, colours or Weir instead."]
CANNOT = ["Write a Python function that sorts a list", "Write code", "Fix my code",
          "Write a program",
          "Debug this function", "Write a letter to my boss", "Write a cover letter for a job",
          "Plan a trip for me", "Summarize this article", "Write an email to a customer",
          "Give me investment advice", "What should I cook tonight?", "Book a flight",
          "Write a business plan", "Translate this sentence into German", "Solve this equation",
          "Prove this theorem", "Write unit tests", "Write a bash script", "Write an SQL query",
          "Implement quicksort", "Write me a song", "Explain this code", "Improve this text",
          "Write a novel", "Make a website for me", "What is the square root of 2?",
          "Who won the game last night?", "Who is the president of the United States?",
          "How many people live in the world?", "Which medicine should I take?",
          "What is 12345 * 6789?", "Write HTML", "Create a table", "Diagnose my problem"]
CANNOT_TELL = ["I am sorry, that is too difficult for me. I am only a tiny demo model.",
               "I cannot do that: I am very small. Load a larger model with --model for such "
               "tasks.",
               "That is beyond me, I am sorry. I can tell small stories and do small sums.",
               "I am too small for that. A larger model can help you; Weir can serve one with "
               "--model."]
NONSENSE = ["asdf", "qwerty", "???", "...", "lorem ipsum dolor sit amet", "foo bar", "foo", "blah",
            "aaaaaa", "1234", "x", "sdfkjh", "hmmmm", "!!!", "abc", "jkl", "lol", "haha", "bla bla"]
NONSENSE_TELL = ["I am not sure that I understand. Could you say it in another way?",
                 "I do not understand that. Ask me for a story, a sum or a list.",
                 "Sorry, I did not understand. I am only a tiny demo model."]


def unknown(rng):
    roll = rng.random()
    if roll < 0.3:
        return Exchange(rng.choice(CANNOT), rng.choice(CANNOT_TELL), "Unknown")
    if roll < 0.38:
        text = rng.choice(NONSENSE) if rng.random() < 0.7 else invented(rng, 1, 3)
        return Exchange(text, rng.choice(NONSENSE_TELL), "Unknown")
    if roll < 0.75:
        x = rng.choice(UNKNOWN)
        ask, tell = rng.choice(UNKNOWN_ASK), rng.choice(UNKNOWN_TELL)
    else:
        x = invented(rng)
        if rng.random() < 0.5:
            x = article(x)
        ask = rng.choice(UNKNOWN_ASK[:9])
        tell = rng.choice(["I do not know what {x} is. My world is very small.",
                           "I have never heard of {x}, I am sorry.",
                           "{X}? I do not know that word, I am sorry."])
        if x.startswith(("a ", "an ")) is False and rng.random() < 0.3:
            ask = "What is the capital of {x}?"
            tell = "I do not know the capital of {x}, I am sorry."
    return Exchange(fill(rng, ask, x=x), fill(rng, tell, x=x, X=upper_first(x)), "Unknown")
