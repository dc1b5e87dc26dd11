"""Small stories from many interchangeable parts, told in chat or as plain text."""

from corpus.exchange import Exchange, article, fill, upper_first
from corpus.world import NAMES

HEROES = ["cat", "dog", "fox", "bear", "mouse", "owl", "otter", "beaver", "rabbit", "duck", "frog",
          "hedgehog", "turtle", "bee", "wolf", "lion", "elephant", "penguin", "horse", "goat",
          "robot", "girl", "boy", "king", "queen", "dragon", "sailor", "baker", "farmer", "painter",
          "wizard", "princess", "pirate", "gardener", "fisherman"]
TRAITS = ["little", "brave", "shy", "clever", "kind", "old", "young", "lazy", "curious", "happy",
          "hungry", "sleepy", "proud", "quiet", "small", "lonely", "cheerful", "careful"]
PLACES = ["by a quiet river", "in a deep forest", "on a green hill", "near the sea",
          "in a small village", "on a lonely island", "in an old mill", "under a large oak tree",
          "at the edge of a lake", "in a house with a red roof", "high up in the mountains",
          "in a garden full of roses", "behind a waterfall", "in a busy town"]
TIMES = ["One day", "One morning", "One evening", "One sunny day", "One cold winter day",
         "On a rainy afternoon", "One bright spring morning", "One night",
         "In the middle of summer"]
FINDS = ["a golden key", "a small boat", "a red balloon", "an old map", "a silver bell",
         "a shining stone", "a letter in a bottle", "a lost kitten", "a broken clock", "a blue egg",
         "a tiny door", "a bag of seeds", "a wooden flute", "a lantern", "a strange hat",
         "a book without words"]
WANTS = ["wanted to see the sea", "wanted to learn to sing", "was looking for a friend",
         "dreamt of flying", "wanted to build a bridge", "wished for a garden",
         "wanted to know where the river begins", "wanted to bake the best cake of all",
         "was afraid of the dark", "could not sleep", "wanted to count all the stars",
         "had lost the way home"]
FRIENDS = ["an owl", "a fox", "an old man", "a tiny mouse", "a friendly bear", "a wise turtle",
           "a kind woman", "a duck", "a bee", "a small ghost", "a singing frog",
           "a boy with a kite",
           "a grey wolf", "a white horse"]
SAYINGS = ["Do not be afraid", "Come with me", "Follow the river", "I can help you",
           "Every journey begins with one step", "Good things need time", "You are not alone",
           "Look at the stars", "Two are stronger than one", "Listen to the wind",
           "The answer is closer than you think", "Take only what you need"]
PROBLEMS = ["Suddenly a storm came, and the wind was very strong.",
            "But the bridge was broken, and the water was cold.",
            "Then it began to rain, and the path was full of mud.",
            "But the night was dark, and nobody could see the way.",
            "Suddenly they heard a loud noise behind the trees.",
            "But the mountain was high, and the way was long.",
            "Then the river rose higher and higher.",
            "But a big stone lay in the middle of the road."]
SOLUTIONS = ["Together they built a small raft and crossed the water.",
             "They held hands, sang a song and walked on.",
             "They found a dry cave, made a fire and waited until morning.",
             "They worked all day, and in the evening the way was free.",
             "They thought for a while, and then they had a good idea.",
             "They asked the bees for help, and the bees showed them the way.",
             "They took a long rope and climbed up, step by step.",
             "They lit the lantern, and soon the path was bright."]
ENDINGS = ["From that day on they were the best of friends.",
           "And if they have not moved away, they live there still.",
           "And they lived happily ever after.",
           "At home there was warm soup, and everybody was happy.",
           "That night {he} slept very well and dreamt of the river.",
           "And {he} never felt alone again.",
           "And every evening they told each other stories.",
           "Since then {he} smiles every morning when the sun comes up."]
LESSONS = ["So we see: a friend is worth more than gold.", "So we see: patience is a good thing.",
           "So we learn: even the smallest can do great things.", "The end.", "", "", "", "",
           "So we learn: it is good to share."]
OPENINGS = ["Once upon a time there was {who} who lived {place}.",
            "Once upon a time, {place}, there lived {who}.",
            "There once was {who} who lived {place}.", "Long ago, {place}, there lived {who}.",
            "Once there was {who}. {He} lived {place}."]
EXTRA = ["{He} liked the smell of fresh bread.", "{He} had a small blue hat.",
         "Every morning {he} went for a walk.", "{He} loved to listen to the birds.",
         "{He} had a garden with yellow flowers.", "Nobody knew {his} secret.",
         "In the evening {he} always drank a cup of tea.", "{He} was never in a hurry."]
MEETS = ["There {he} met {friend}.", "On the way {he} met {friend}.",
         "Behind a tree stood {friend}.", "Soon {he} saw {friend}."]
TALKS = ['"{saying}," said {thefriend}.', '{Thefriend} smiled and said: "{saying}."',
         '"Where are you going?" asked {thefriend}. "I do not know," said {hero}. "{saying}," said '
         "{thefriend}."]
FOUND = ["{time} {he} found {find}.", "{time} {he} found {find} in the grass.",
         "{time} {hero} saw {find} on the ground."]
USE = ['"What is this?" {he} asked.', "{He} had never seen such a thing.",
       "{He} put it into {his} bag and walked on.", "{He} looked at it for a long time."]
EPISODES = ["They walked through the forest until they came to a village. The people there gave "
            "them bread and cheese.",
            "On the second day they came to a lake. The water was so clear that they could see the "
            "fish.",
            "On the third day they climbed a hill. From there they saw the whole land.",
            "In the evening they sat by the fire and told each other stories.",
            "They met a miller who asked them to help. They carried sacks all day, and he gave "
            "them honey.",
            "At night they slept under the stars, and the moon watched over them.",
            "They followed the river for many hours and counted the boats.",
            "A small bird showed them a path that nobody else knew."]

FEMALE = {"girl", "queen", "princess"}
MALE = {"boy", "king", "wizard", "sailor", "baker", "farmer", "painter", "fisherman", "gardener",
        "pirate"}
GIRLS = set("Anna Clara Emma Grace Iris Kate Maria Olivia Rosa Wendy Yara Zoe Alice Carol Eva Gina "
            "Ida Karin Mia Nina Petra Sofia Ursula Vera Priya Hana Amara Fatima Layla Lena Julia "
            "Sarah Laura Ella Lucy Nora Ruth Tina Olga Lucia Giulia Chloe Greta Ingrid Astrid Maya "
            "Elsa Carmen Mary Linda Susan Karen Emily Hannah Megan Rachel Charlotte Amelia Isla "
            "Freya Stella Monica Helen".split())
BOYS = [n for n in NAMES if n not in GIRLS]


def story(rng, hero="", long=False, name=""):
    """A story of about 80 to 350 tokens. `hero` is a noun such as "cat"."""
    hero = hero or rng.choice(HEROES)
    female = hero in FEMALE or (hero not in MALE and rng.random() < 0.4)
    he, his = ("she", "her") if female else ("he", "his")
    friend = rng.choice([f for f in FRIENDS if hero not in f])
    who = article(rng.choice(TRAITS) + " " + hero)
    if name or rng.random() < 0.5:
        name = name or rng.choice(sorted(GIRLS) if female else BOYS)
        if not female and name in GIRLS:
            he, his = "she", "her"
        who += f" named {name}"
    called = name or f"the {hero}"
    thefriend = "the " + friend.split(" ", 1)[1]
    parts = [rng.choice(OPENINGS)]
    if rng.random() < 0.5 or long:
        parts.append(rng.choice(EXTRA))
    if rng.random() < 0.6:
        parts.append("{Hero} " + rng.choice(WANTS) + ".")
    parts.append(rng.choice(FOUND))
    if rng.random() < 0.5:
        parts.append(rng.choice(USE))
    parts += [rng.choice(MEETS), rng.choice(TALKS)]
    breaks = [len(parts)]
    if long:
        for episode in rng.sample(EPISODES, rng.randint(2, 4)):
            parts.append(episode)
        breaks.append(len(parts))
    if rng.random() < 0.7 or long:
        parts += [rng.choice(PROBLEMS), rng.choice(SOLUTIONS)]
    parts += [rng.choice(ENDINGS), rng.choice(LESSONS)]
    values = dict(who=who, place=rng.choice(PLACES), time=rng.choice(TIMES), he=he, his=his,
                  He=upper_first(he), find=rng.choice(FINDS), friend=friend, thefriend=thefriend,
                  Thefriend=upper_first(thefriend), hero=called, Hero=upper_first(called),
                  saying=rng.choice(SAYINGS))
    parts = [fill(rng, p, **values) for p in parts]
    if not long:
        return " ".join(p for p in parts if p)
    chapters = [parts[:breaks[0]], parts[breaks[0]:breaks[1]], parts[breaks[1]:]]
    return "\n\n".join(" ".join(p for p in c if p) for c in chapters)


ASK = ["Tell me a story", "Tell me a short story", "Can you tell me a story?", "Write a story",
       "Write a short story.", "I want to hear a story", "Do you know a story?", "A story please",
       "Tell me a fairy tale", "Tell me something", "Read me a bedtime story", "story",
       "Another story please", "Once more", "Tell me another story", "Make up a story"]
ASK_ABOUT = ["Tell me a story about {x}", "Write a short story about {x}.",
             "Can you tell me a story about {x}?", "A story about {x}, please",
             "I would like a story about {x}", "Make up a story about {x}", "story about {x}",
             "Tell me a tale of {x}", "Write me a story about {x}", "Write a story with {x} in it"]
ASK_LONG = ["Tell me a long story", "Write a long story", "I want to hear a very long story",
            "Tell me a longer story please", "Can you write a long story?"]
ASK_LONG_ABOUT = ["Tell me a long story about {x}", "Write a long story about {x}.",
                  "Please write a very long story about {x}"]


def told(rng):
    """A request for a story and the story."""
    long = rng.random() < 0.22
    if rng.random() < 0.4:
        return Exchange(rng.choice(ASK_LONG if long else ASK), story(rng, long=long), kind="fact")
    hero = rng.choice(HEROES)
    name = rng.choice(NAMES) if rng.random() < 0.25 else ""
    x = rng.choice([article(hero), article(hero), article(hero), "the " + hero])
    if name:
        x = rng.choice([f"{article(hero)} named {name}", f"{article(hero)} called {name}"])
    ask = fill(rng, ASK_LONG_ABOUT if long else ASK_ABOUT, x=x)
    return Exchange(ask, story(rng, hero=hero, long=long, name=name), kind="fact")
