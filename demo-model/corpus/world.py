"""What the model knows: names, things, and short facts about them."""

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul
Quinn Rosa Sam Tom Uma Victor Wendy Xavier Yara Zoe Alice Bob Carol Dan Eva Frank Gina Hugo Ida
Jonas Karin Lukas Mia Nina Oscar Petra Robert Sofia Theo Ursula Vera Walter Amir Priya Chen Wei
Yuki Hana Kofi Amara Fatima Omar Layla Ravi Anil Lena Max Julia Peter Sarah Michael Laura Simon
Ella Adam Lucy Mark Nora Otto Ruth Stefan Tina Ivan Olga Pedro Lucia Marco Giulia Pierre Chloe
Hans Greta Lars Ingrid Sven Astrid Finn Aoife Liam Maya Kai Nils Elsa Igor Diego Carmen Jose
Alex Chris Robin Jamie Taylor Jordan Casey Morgan Daniel James John Mary Linda Susan Karen Tim
Steve Andrew Kevin Brian Emily Hannah Megan Rachel Rebecca Joseph Matthew Luke Charlotte Amelia
Isla Ava Freya Arthur George Harry Oliver Jasmine Stella Martin Philip Monica Helen""".split()

COLORS = {
    "red": "the colour of ripe tomatoes and fire engines", "blue": "the colour of a clear sky",
    "green": "the colour of grass and leaves", "yellow": "the colour of lemons and sunflowers",
    "orange": "the colour of carrots and autumn leaves", "purple": "a mix of red and blue",
    "black": "the darkest colour, like a night without a moon",
    "white": "the colour of fresh snow and milk", "pink": "a mix of red and white",
    "brown": "the colour of wood and chocolate", "grey": "a mix of black and white",
    "gold": "a shiny yellow, like a medal", "silver": "a shiny grey, like a spoon",
    "turquoise": "a blend of blue and green", "violet": "a bluish purple, like the flower",
}

# animal: (kind, what it does, sound, legs)
ANIMALS = {
    "cat": ("a small furry pet", "likes to sleep and to chase mice", "meow", 4),
    "dog": ("a loyal pet", "guards the house and loves to play", "woof", 4),
    "cow": ("a large farm animal", "eats grass and gives milk", "moo", 4),
    "horse": ("a strong animal with a mane", "runs fast and carries riders", "neigh", 4),
    "sheep": ("a farm animal with thick wool", "lives in a flock", "baa", 4),
    "pig": ("a clever farm animal", "likes to roll in the mud", "oink", 4),
    "duck": ("a water bird", "swims on ponds", "quack", 2),
    "hen": ("a farm bird", "lays eggs", "cluck", 2),
    "frog": ("a small green animal", "jumps and lives near ponds", "ribbit", 4),
    "lion": ("a big wild cat", "lives in Africa and roars", "roar", 4),
    "tiger": ("a big wild cat with stripes", "hunts in the forest", "growl", 4),
    "elephant": ("the largest land animal", "has a long trunk and a good memory", "trumpet", 4),
    "mouse": ("a tiny animal with a long tail", "loves cheese and hides from cats", "squeak", 4),
    "owl": ("a bird of the night", "sees very well in the dark", "hoot", 2),
    "bee": ("a small flying insect", "makes honey from flowers", "buzz", 6),
    "fox": ("a clever wild animal with a bushy tail", "hunts at night", "yip", 4),
    "bear": ("a large animal with thick fur", "sleeps through the winter", "growl", 4),
    "wolf": ("a wild relative of the dog", "lives in a pack", "howl", 4),
    "rabbit": ("a soft animal with long ears", "eats carrots and digs holes", "", 4),
    "snake": ("a long animal without legs", "moves by bending its body", "hiss", 0),
    "spider": ("a small animal that spins webs", "catches flies", "", 8),
    "whale": ("the largest animal in the sea", "breathes air and sings", "song", 0),
    "dolphin": ("a clever animal of the sea", "jumps out of the water", "click", 0),
    "penguin": ("a black and white bird", "cannot fly but swims very well", "", 2),
    "giraffe": ("the tallest animal", "eats leaves from high trees", "", 4),
    "zebra": ("a wild animal with black and white stripes", "lives in Africa", "", 4),
    "monkey": ("a playful animal", "climbs trees and eats fruit", "", 4),
    "otter": ("a playful animal of the river", "floats on its back and eats fish", "", 4),
    "beaver": ("an animal with strong teeth", "builds dams from branches", "", 4),
    "turtle": ("a slow animal with a hard shell", "can live for a very long time", "", 4),
    "ant": ("a tiny insect", "lives in a large colony and carries heavy loads", "", 6),
    "eagle": ("a large bird with sharp eyes", "flies high above the mountains", "", 2),
    "goat": ("a farm animal with horns", "climbs steep rocks", "bleat", 4),
    "crocodile": ("a large reptile with many teeth", "waits in the river", "", 4),
    "shark": ("a big fish with sharp teeth", "swims in the ocean", "", 0),
    "camel": ("a desert animal with humps", "can walk for days without water", "", 4),
    "kangaroo": ("an animal from Australia", "hops and carries its baby in a pouch", "", 2),
    "butterfly": ("an insect with colourful wings", "was once a caterpillar", "", 6),
    "hedgehog": ("a small animal with spikes", "rolls into a ball when it is afraid", "", 4),
    "octopus": ("a sea animal with eight arms", "can change its colour", "", 8),
}

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid",
    "Portugal": "Lisbon", "Austria": "Vienna", "Switzerland": "Bern", "Poland": "Warsaw",
    "Sweden": "Stockholm", "Norway": "Oslo", "Denmark": "Copenhagen", "Finland": "Helsinki",
    "Iceland": "Reykjavik", "Ireland": "Dublin", "England": "London",
    "the United Kingdom": "London", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
    "Greece": "Athens", "Hungary": "Budapest", "the Czech Republic": "Prague",
    "Romania": "Bucharest", "Bulgaria": "Sofia", "Croatia": "Zagreb", "Ukraine": "Kyiv",
    "Turkey": "Ankara", "Egypt": "Cairo", "Kenya": "Nairobi", "Morocco": "Rabat",
    "Nigeria": "Abuja", "Ghana": "Accra", "Japan": "Tokyo", "China": "Beijing",
    "South Korea": "Seoul", "India": "New Delhi", "Thailand": "Bangkok", "Vietnam": "Hanoi",
    "Indonesia": "Jakarta", "Australia": "Canberra", "New Zealand": "Wellington",
    "Canada": "Ottawa", "the United States": "Washington", "Mexico": "Mexico City",
    "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima",
    "Colombia": "Bogota", "Cuba": "Havana", "Russia": "Moscow",
}

PLANETS = {
    "Mercury": "the smallest planet and the closest to the Sun",
    "Venus": "the hottest planet, covered in thick clouds",
    "Earth": "our home, the only planet known to have life",
    "Mars": "a cold red desert with two small moons",
    "Jupiter": "the largest planet, with a great red spot",
    "Saturn": "the planet with the bright rings",
    "Uranus": "a cold blue planet that lies on its side",
    "Neptune": "the farthest planet from the Sun, with strong winds",
}

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December"]
SEASONS = {"spring": "flowers bloom and the days get longer",
           "summer": "it is warm and the sun shines long",
           "autumn": "the leaves turn red and fall",
           "winter": "it is cold and sometimes snow falls"}

FRUITS = """apple banana cherry pear plum grape orange lemon peach mango strawberry melon kiwi
blueberry""".split()
VEGETABLES = "carrot potato tomato onion cabbage pea bean spinach cucumber pumpkin leek".split()
FOODS = """bread cheese soup pizza rice pasta salad cake honey pancakes chocolate noodles
porridge eggs""".split()
DRINKS = "water tea coffee milk juice lemonade cocoa".split()
INSTRUMENTS = "piano guitar violin flute drum trumpet cello harp".split()
SPORTS = "football tennis swimming running cycling chess basketball skiing".split()
SHAPES = {"triangle": 3, "square": 4, "rectangle": 4, "pentagon": 5, "hexagon": 6, "circle": 0}
FLOWERS = "rose tulip daisy sunflower lily violet orchid".split()
TREES = "oak pine birch maple willow apple cherry".split()
CITIES = sorted(set(CAPITALS.values())) + ["Hamburg", "Milan", "Boston", "Kyoto", "Geneva"]
JOBS = "baker teacher doctor farmer sailor painter gardener nurse pilot cook engineer".split()
LANGUAGES = "Rust Python C Java Go JavaScript Haskell Ruby".split()

LISTS = {
    "colours": list(COLORS), "colors": list(COLORS), "animals": list(ANIMALS),
    "fruits": FRUITS, "vegetables": VEGETABLES, "drinks": DRINKS, "planets": list(PLANETS),
    "days of the week": DAYS, "months": MONTHS, "seasons": list(SEASONS),
    "countries": [c for c in CAPITALS if not c.startswith("the")], "cities": CITIES,
    "musical instruments": INSTRUMENTS, "instruments": INSTRUMENTS, "sports": SPORTS,
    "shapes": list(SHAPES), "flowers": FLOWERS, "trees": TREES, "names": NAMES, "jobs": JOBS,
    "farm animals": ["cow", "horse", "sheep", "pig", "hen", "goat", "duck"],
    "pets": ["cat", "dog", "rabbit", "mouse", "turtle"],
    "wild animals": ["lion", "tiger", "elephant", "bear", "wolf", "fox", "zebra", "giraffe"],
    "birds": ["duck", "hen", "owl", "penguin", "eagle"], "foods": FOODS,
    "programming languages": LANGUAGES, "insects": ["bee", "ant", "butterfly"],
}
SINGULAR = {"colours": "colour", "colors": "color", "cities": "city", "countries": "country",
            "days of the week": "day of the week", "foods": "food"}

OPPOSITES = [("hot", "cold"), ("big", "small"), ("up", "down"), ("left", "right"),
             ("day", "night"), ("black", "white"), ("fast", "slow"), ("happy", "sad"),
             ("old", "young"), ("open", "closed"), ("full", "empty"), ("hard", "soft"),
             ("rich", "poor"), ("light", "dark"), ("early", "late"), ("near", "far"),
             ("high", "low"), ("long", "short"), ("wet", "dry"), ("true", "false"),
             ("loud", "quiet"), ("good", "bad"), ("yes", "no"), ("strong", "weak"),
             ("clean", "dirty"), ("begin", "end"), ("first", "last"), ("easy", "difficult")]

RHYMES = [["cat", "hat", "mat", "bat", "rat"], ["dog", "log", "fog", "frog"],
          ["sun", "fun", "run", "bun"], ["tree", "sea", "bee", "key"], ["night", "light", "bright"],
          ["house", "mouse"], ["rain", "train", "plane"], ["moon", "spoon", "soon", "noon"],
          ["star", "car", "far"], ["blue", "shoe", "two"], ["cake", "lake", "snake"],
          ["bread", "red", "bed", "head"], ["ring", "king", "sing", "spring"]]

# thing: definition (after "is" or "are")
THINGS = {
    "sun": "the star at the centre of our solar system; it gives us light and warmth",
    "moon": "a ball of rock that travels around the Earth and lights up the night",
    "star": "a huge ball of hot gas that shines in the sky",
    "river": "a long stream of water that flows to the sea",
    "mountain": "a very high part of the land", "forest": "a large place full of trees",
    "ocean": "a very large body of salt water", "rainbow": "an arc of colours in the sky, "
    "seen when the sun shines through rain", "cloud": "a lot of tiny water drops in the sky",
    "island": "a piece of land with water all around it",
    "bridge": "a structure that carries a road over a river or a valley",
    "dam": "a wall that holds back the water of a river",
    "weir": "a low dam across a river that regulates its flow and measures it",
    "house": "a building where people live", "book": "a set of pages with words to read",
    "computer": "a machine that follows instructions and works with numbers and text",
    "robot": "a machine that can do tasks by itself", "clock": "a device that shows the time",
    "car": "a machine with four wheels that carries people on roads",
    "bicycle": "a vehicle with two wheels that you move with your feet",
    "train": "a long vehicle that runs on rails", "ship": "a large boat that crosses the sea",
    "language model": "a program that has learnt to predict the next word of a text",
    "token": "a small piece of text, often a word or a part of a word; models read and write "
    "tokens", "server": "a computer or program that answers requests from others",
    "friend": "a person you like and trust", "school": "a place where children learn",
    "music": "sounds put together so that they are nice to hear",
    "water": "a clear liquid that all living things need",
    "bread": "a food baked from flour and water", "number": "something we use to count",
    "week": "seven days in a row", "year": "the time the Earth needs to travel once around the Sun",
    "GPU": "a chip that does many calculations at once, which makes language models fast",
    "CPU": "the main chip of a computer, which follows the instructions of programs",
    "prompt": "the text that you give to a language model so that it can answer",
}
BARE = {"music", "water", "bread"}
