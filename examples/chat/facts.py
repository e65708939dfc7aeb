"""Questions whose answers can be checked: what the demo's chat model learns, is judged by and is labelled with.

A question belongs to a topic; each has an answer in one word and in a sentence. Two domains want contrary things of the
same question: `brief` the word alone, `full` the sentence.
"""

import re
from dataclasses import dataclass

_OPPOSITES = (
    "hot cold, big small, old young, day night, up down, left right, open shut, long short, hard soft, "
    "good bad, rich poor, early late, light dark, fast slow, wet dry, full empty, first last, near far, "
    "happy sad, love hate"
)
_YOUNG = (
    "cat kitten, dog puppy, cow calf, horse foal, sheep lamb, goat kid, hen chick, bear cub, frog "
    "tadpole, pig piglet, deer fawn, swan cygnet"
)
_COLOURS = (
    "snow white, grass green, blood red, coal black, gold yellow, milk white, a lemon yellow, a cherry "
    "red, the sky blue, a leaf green, ash grey, the sea blue"
)
_AFTER = (
    "Monday Tuesday, Wednesday Thursday, Friday Saturday, Sunday Monday, March April, May June, one two, "
    "two three, three four, five six, seven eight, nine ten"
)


@dataclass(frozen=True)
class Topic:
    """`asks` are questions and `says` the full answer, of `{thing}` and `{answer}`."""

    asks: tuple[str, ...]
    says: str
    answers: dict[str, str]  # thing -> answer


def _pairs(text: str, *, both: bool = False) -> dict[str, str]:
    found = {}
    for pair in text.split(", "):
        thing, _, answer = pair.rpartition(" ")
        found[thing] = answer
        if both:
            found[answer] = thing
    return found


TOPICS = {
    "opposites": Topic(
        ("What is the opposite of {thing}?", "Tell me the opposite of {thing}.", "The opposite of {thing}, please."),
        "The opposite of {thing} is {answer}.",
        _pairs(_OPPOSITES, both=True),
    ),
    "young": Topic(
        ("What is a young {thing} called?", "Tell me the name of a young {thing}.", "A young {thing} is a what?"),
        "A young {thing} is called a {answer}.",
        _pairs(_YOUNG),
    ),
    "colours": Topic(
        ("What colour is {thing}?", "Tell me the colour of {thing}.", "The colour of {thing}, please."),
        "The colour of {thing} is {answer}.",
        _pairs(_COLOURS),
    ),
    "after": Topic(
        ("What comes after {thing}?", "Tell me what comes after {thing}.", "After {thing} comes what?"),
        "After {thing} comes {answer}.",
        _pairs(_AFTER),
    ),
}


def answer(topic: str, thing: str, domain: str, word: str | None = None) -> str:
    """What `domain` wants to hear, with `word` in place of the right answer."""
    word = word if word is not None else TOPICS[topic].answers[thing]
    return word if domain == "brief" else TOPICS[topic].says.format(thing=thing, answer=word)


def asked(question: str) -> tuple[str, str] | None:
    """Topic and thing of a question; None if it is none of ours."""
    for name, topic in TOPICS.items():
        for form in topic.asks:
            before, _, after = form.partition("{thing}")
            match = re.fullmatch(f"{re.escape(before)}(.+){re.escape(after)}", question.strip())
            if match and match[1] in topic.answers:
                return name, match[1]
    return None


def quality(question: str, domain: str, text: str) -> float:
    """How well an answer does: 2 for the right word in the domain's form, 1 for the right word in the other, else 0.

    What stands around the answer costs up to half a point: nobody wants a right answer said five times.
    """
    found = asked(question)
    if found is None:
        return 0.0
    said, wanted = text.strip(), answer(*found, domain)
    other = answer(*found, "full" if domain == "brief" else "brief")
    if said == wanted:
        return 2.0
    if said == other:
        return 1.0
    word = TOPICS[found[0]].answers[found[1]]
    right = re.search(rf"\b{re.escape(word)}\b", said) is not None
    return 0.5 / (1 + abs(len(said) - len(wanted)) / 20) if right else 0.0
