"""Conversations with tools: a definition, a call as JSON, a result, an answer from it."""

import json

from corpus.exchange import fill, invented, upper_first
from corpus import world as w

CONDITIONS = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear"]


def schema(name, description, required=True, /, **properties):
    """An OpenAI tool definition; each property is (type, description)."""
    props = {k: {"type": t} | ({"description": d} if d else {})
             for k, (t, d) in properties.items()}
    parameters = {"type": "object", "properties": props}
    if required:
        parameters["required"] = list(props)
    return {"type": "function", "function": {
        "name": name, "description": description, "parameters": parameters}}


def place(rng):
    return rng.choice(w.CITIES) if rng.random() < 0.8 else upper_first(invented(rng))


def weather(rng):
    city, t, c = place(rng), rng.randint(-5, 33), rng.choice(CONDITIONS)
    key = rng.choice(["city", "city", "location"])
    name = rng.choice(["get_weather", "get_weather", "get_current_weather", "weather"])
    extra = {"unit": ("string", "")} if rng.random() < 0.15 else {}
    tool = schema(name, rng.choice(["Get the weather of a city", "Get the current weather",
                                    "Returns the weather for a place", "Get weather"]),
                  rng.random() < 0.8, **{key: ("string", rng.choice(["", "The city",
                                                                     "City name"]))},
                  **extra)
    args = {key: city}
    if extra:
        args["unit"] = "celsius"
    ask = fill(rng, ["What is the weather in {c}?", "What's the weather like in {c}?",
                     "How is the weather in {c} today?", "weather in {c}", "Is it cold in {c}?",
                     "Tell me the weather in {c}", "Will it rain in {c}?"], c=city)
    result = rng.choice([json.dumps({"temperature": t, "condition": c}), f"{c}, {t} degrees",
                         json.dumps({key: city, "temperature": t, "condition": c}),
                         json.dumps({"temp_c": t, "sky": c}), f"{t} C, {c}"])
    answer = rng.choice([f"In {city} it is {c}, with {t} degrees.",
                         f"The weather in {city} is {c} with {t} degrees.",
                         f"It is {c} in {city}, and the temperature is {t} degrees."])
    return tool, ask, args, result, answer


def calculator(rng):
    a, b = rng.randint(2, 999), rng.randint(2, 99)
    op = rng.choice("+-*")
    r = {"+": a + b, "-": a - b, "*": a * b}[op]
    ask = fill(rng, ["What is {q}?", "Calculate {q}", "Compute {q}.", "{q}", "How much is {q}?"],
               q=f"{a} {op} {b}")
    result = rng.choice([str(r), json.dumps({"result": r})])
    answer = rng.choice([f"{a} {op} {b} = {r}.", f"The result is {r}."])
    if rng.random() < 0.75:
        tool = schema(rng.choice(["calculator", "calculate", "compute"]),
                      rng.choice(["Evaluate an expression", "Do a calculation", "A calculator"]),
                      expression=("string", ""))
        return tool, ask, {"expression": f"{a} {op} {b}"}, result, answer
    name = {"+": "add", "-": "subtract", "*": "multiply"}[op]
    tool = schema(name, upper_first(name) + " two numbers", a=("number", ""), b=("number", ""))
    return tool, ask, {"a": a, "b": b}, result, answer


def clock(rng):
    city, t = place(rng), f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
    key = rng.choice(["city", "location", "timezone"])
    tool = schema(rng.choice(["get_time", "get_current_time", "clock"]),
                  rng.choice(["Get the time in a city", "Get the current time"]),
                  **{key: ("string", "")})
    ask = fill(rng, ["What time is it in {c}?", "Tell me the time in {c}", "time in {c}?"], c=city)
    return (tool, ask, {key: city}, rng.choice([t, json.dumps({"time": t})]),
            rng.choice([f"It is {t} in {city}.", f"The time in {city} is {t}."]))


def simple(rng):
    """Tools with one or two arguments copied from the question."""
    who, n = rng.choice(w.NAMES), rng.randint(1, 60)
    item, c = rng.choice(w.FRUITS + w.FOODS), rng.choice(list(w.COLORS))
    word = invented(rng)
    return rng.choice([
        (schema("get_price", "Get the price of an item", item=("string", "")),
         f"What does {item} cost?", {"item": item}, json.dumps({"price": n}),
         f"The price of {item} is {n}."),
        (schema("set_timer", "Start a timer", minutes=("integer", "")),
         rng.choice([f"Set a timer for {n} minutes", f"Start a timer of {n} minutes"]),
         {"minutes": n}, "ok", f"The timer is set to {n} minutes."),
        (schema("find_user", "Find a user by name", name=("string", "")),
         rng.choice([f"Find the user {who}", f"Look up {who}"]), {"name": who},
         json.dumps({"id": n, "name": who}), f"I found {who}. The id is {n}."),
        (schema("set_light", "Set the colour of the light", color=("string", "")),
         rng.choice([f"Make the light {c}", f"Turn the light {c}"]), {"color": c}, "done",
         f"The light is {c} now."),
        (schema("search", "Search the web", query=("string", "")),
         rng.choice([f"Search for {word}", f"Search the web for {word}", f"Look for {word}"]),
         {"query": word}, f"{word}: a small village by a river", f"I found this: {word} is a small "
         "village by a river."),
        (schema("send_message", "Send a message to a person", to=("string", ""),
                text=("string", "")),
         f"Send {who} the message: {word}", {"to": who, "text": word}, "sent",
         f"I sent the message to {who}."),
        (schema(rng.choice(["roll_dice", "random_number"]), "Get a random number",
                sides=("integer", "")),
         rng.choice([f"Roll a dice with {n} sides", f"Give me a random number up to {n}"]),
         {"sides": n}, str(max(1, n // 2)), f"The number is {max(1, n // 2)}."),
    ])


MAKERS = [weather, weather, weather, calculator, calculator, clock, simple, simple]


def tool_messages(rng, small_exchange):
    """(tools, messages). Sometimes the question needs no tool; sometimes there are several."""
    tool, ask, args, result, answer = rng.choice(MAKERS)(rng)
    tools = [tool]
    while rng.random() < 0.35 and len(tools) < 3:
        other = rng.choice(MAKERS)(rng)[0]
        if other["function"]["name"] not in [t["function"]["name"] for t in tools]:
            tools.insert(rng.randint(0, len(tools)), other)
    name = tool["function"]["name"]
    call = {"role": "assistant", "content": None, "tool_calls": [
        {"type": "function", "function": {"name": name, "arguments": json.dumps(args)}}]}
    messages = []
    roll = rng.random()
    if roll < 0.25:
        e = small_exchange(rng)
        messages += [{"role": "user", "content": e.user}, {"role": "assistant",
                                                           "content": e.answer}]
        if roll < 0.12:
            return tools, messages
    if rng.random() < 0.3:
        ask = ask.lower().rstrip("?.") if ask.lower() == ask else ask.rstrip("?.")
    messages += [{"role": "user", "content": ask}, call]
    if rng.random() < 0.75:
        messages += [{"role": "tool", "content": result}, {"role": "assistant", "content": answer}]
        if rng.random() < 0.2:
            messages += [{"role": "user", "content": rng.choice(["Thanks!", "Thank you"])},
                         {"role": "assistant", "content": rng.choice(
                             ["You are welcome!", "My pleasure!", "Gladly!"])}]
    return tools, messages
