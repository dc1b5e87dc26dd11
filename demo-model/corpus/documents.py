"""Puts the parts together: an endless, seeded stream of conversations and plain texts."""

import random

from corpus import knowledge as k
from corpus import memory, persona, skills, stories, talk, toolcalls, variety, weir
from corpus.exchange import typed, upper_first
from corpus.world import CAPITALS

MAKERS = [
    (talk.greeting, 5), (talk.smalltalk, 9), (talk.identity, 6), (talk.joke, 2), (talk.poem, 2),
    (weir.weir_question, 17), (stories.told, 6), (skills.sums, 15), (skills.word_sum, 2),
    (skills.compare, 3), (skills.counting, 3), (skills.lists, 8), (skills.one_of, 3),
    (skills.as_json, 6), (skills.spelled, 1), (skills.echo, 6), (k.capital, 6), (k.animal, 5),
    (k.thing, 4), (k.color, 3), (k.planet, 3), (k.calendar, 3), (k.shape, 1), (k.opposite, 2),
    (k.rhyme, 1), (k.common_sense, 3), (k.unknown, 8), (memory.not_told, 1),
    (variety.follow_up, 3), (variety.compound, 3), (variety.fun_fact, 2), (variety.sentence, 1),
    (variety.more_sums, 2), (variety.other_hero, 2), (variety.other_poem, 1), (variety.opening, 1),
    (variety.long_nonsense, 1),
]
LONG = (stories.told, talk.poem, skills.counting, variety.other_hero, variety.opening,
        variety.other_poem, variety.long_nonsense)
SHORT = [m for m, _ in MAKERS if m not in LONG]
WITH_WORD = [talk.greeting, talk.identity, skills.sums, skills.compare, skills.one_of, k.capital,
             k.animal, k.color, k.planet, k.calendar, k.opposite, k.rhyme, k.common_sense,
             skills.word_sum, k.shape, k.unknown, skills.sums, k.capital]
INLINE_WORD = ["Answer in one word: ", "In one word: ", "One word answer: "]
INLINE_WORD_END = [" Answer in one word.", " One word only.", " Just one word, please."]


def exchange(rng):
    makers, weights = zip(*MAKERS)
    return rng.choices(makers, weights)[0](rng)


def short_exchange(rng):
    return rng.choice(SHORT)(rng)


def fitting(rng, mode):
    """An exchange whose answer makes sense under the persona."""
    pool = WITH_WORD if mode in ("one_word", "json") else None
    while True:
        e = rng.choice(pool)(rng) if pool else exchange(rng)
        if mode in ("one_word", "json") and not e.word:
            continue
        if mode in persona.STYLES and e.kind == "talk" and "demo model" in e.answer:
            continue
        if mode == "named" and "Demo" in e.answer:
            continue
        return e


def one_turn(rng, mode, detail):
    """One exchange in the given mode as (user, assistant)."""
    if mode in persona.STYLES and rng.random() < 0.25:
        return persona.introduce(rng, mode)
    if mode == "named" and rng.random() < 0.55:
        return persona.introduce(rng, detail)
    e = fitting(rng, mode)
    if mode == "plain" and e.word and rng.random() < 0.06:
        if rng.random() < 0.5:
            return rng.choice(INLINE_WORD) + e.user, e.word + rng.choice(["", "."])
        return e.user.rstrip(" ?.") + "?" + rng.choice(INLINE_WORD_END), e.word
    keep_case = e.kind in ("exact", "told") and ("epeat" in e.user or "ay" in e.user[:8])
    answer = persona.answer_with(rng, mode, detail, e)
    return typed(rng, e.user, keep_case), answer if answer is not None else e.answer


def memory_turns(rng):
    """The telling, some other turns, the asking."""
    told, asked = memory.pair(rng)
    others = rng.choice([0, 0, 0, 1, 1, 2, 3])
    turns = [(told.user, told.answer)]
    if rng.random() < 0.3:
        more_told, more_asked = memory.pair(rng, rng.choice(["colour", "city", "age", "food"]))
        turns.append((more_told.user, more_told.answer))
    else:
        more_asked = None
    for _ in range(others):
        e = short_exchange(rng)
        turns.append((typed(rng, e.user, True), e.answer))
    turns.append((typed(rng, asked.user), asked.answer))
    if more_asked and more_asked.user != asked.user and rng.random() < 0.7:
        turns.append((more_asked.user, more_asked.answer))
    return turns


def conversation(rng):
    """A chat as {"messages": [...], "tools": [...] or None}."""
    if rng.random() < 0.08:
        tools, messages = toolcalls.tool_messages(rng, short_exchange)
        if rng.random() < 0.3:
            messages.insert(0, {"role": "system", "content": rng.choice(persona.PLAIN)})
        return {"messages": messages, "tools": tools}
    messages, mode, detail = [], "plain", ""
    if rng.random() < 0.45:
        text, mode, detail = persona.system_prompt(rng)
        if mode == "plain" and rng.random() < 0.3:
            text = variety.system_text(rng)
        messages.append({"role": "system", "content": text})
    count = rng.choices([1, 2, 3, 4, 6, 9], [58, 20, 12, 6, 3, 1])[0]
    turns = [one_turn(rng, mode, detail) for _ in range(count)]
    if mode == "plain" and rng.random() < 0.17:
        turns = turns[:rng.choice([0, 0, 0, 1, 2])] + memory_turns(rng)
    for user, answer in turns:
        messages.append({"role": "user", "content": user})
        messages.append({"role": "assistant", "content": answer})
    return {"messages": messages, "tools": None}


def questions_and_answers(rng):
    lines = []
    for _ in range(rng.randint(2, 6)):
        e = rng.choice(WITH_WORD)(rng)
        lines.append(f"Q: {e.user}\nA: {e.answer}")
    return rng.choice(["\n", "\n\n"]).join(lines)


def facts(rng):
    """A paragraph of facts of the small world."""
    makers = [k.capital, k.animal, k.thing, k.color, k.planet, k.calendar, k.opposite]
    answers = [rng.choice(makers)(rng).answer for _ in range(rng.randint(2, 5))]
    answers = [upper_first(a) for a in answers if not a.startswith("It is")]
    if rng.random() < 0.25:
        answers += ["The capital of {} is {}.".format(*rng.choice(list(CAPITALS.items())))]
    return " ".join(answers) or "The river is quiet today."


def about_weir(rng):
    answers = []
    while len(answers) < 2:
        e = weir.weir_question(rng)
        if e.kind != "exact":
            answers.append(e.answer)
    return "Weir is a server for open language models. " + " ".join(answers)


def plain_text(rng):
    """A text without roles, so that plain completions work too."""
    roll = rng.random()
    if roll < 0.66:
        return {"text": stories.story(rng, long=rng.random() < 0.3)}
    if roll < 0.80:
        return {"text": facts(rng)}
    if roll < 0.88:
        return {"text": questions_and_answers(rng)}
    if roll < 0.93:
        return {"text": about_weir(rng)}
    e = rng.choice([skills.counting, talk.poem, skills.sums])(rng)
    return {"text": e.answer}


def documents(seed, count, copying=0.06, tables=0.1):
    """`count` documents; the same seed gives the same documents.

    `copying` is the share of those that only teach to copy, `tables` of those that only do sums.
    """
    rng = random.Random(seed)
    for _ in range(count):
        roll = rng.random()
        if roll < copying:
            text, start = variety.copied(rng)
            yield {"text": text, "spans": [(start, len(text))]}
        elif roll < copying + tables:
            text, spans = skills.table(rng)
            yield {"text": text, "spans": spans}
        else:
            yield plain_text(rng) if rng.random() < 0.11 else conversation(rng)
