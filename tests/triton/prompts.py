"""Sixteen requests in several languages and lengths, each for at most 48 tokens."""

from tests.triton.text_client import Body, chat, prompt

LONG = " ".join(
    f"On day {day} the expedition walked {day * 3} kilometres along the river and met {day % 4} bears."
    for day in range(9)
)
_QUESTIONS = (
    chat("Tell me a short story about a lighthouse keeper and a whale."),
    prompt("The three primary colours are"),
    chat("Explain how a bicycle stays upright."),
    prompt("def fibonacci(n):\n    "),
    chat("Write a letter to my landlord about a leaking tap."),
    prompt("Once upon a time, in a village at the edge of the forest,"),
    chat("¿Cuáles son los planetas del sistema solar?"),
    prompt("In 1969, Neil Armstrong"),
    chat("List ten animals that live in the sea, and say a little about each."),
    prompt(LONG),
    chat("Was ist der Unterschied zwischen Wetter und Klima?"),
    prompt("Dear diary, today I learned that"),
    chat("Give me a recipe for pancakes."),
    prompt("The quick brown fox jumps over the lazy dog. The quick brown fox"),
    chat("Summarise this:\n" + LONG),
    prompt("SELECT name, price FROM products WHERE"),
)
QUESTIONS: tuple[Body, ...] = tuple({**question, "max_tokens": 48} for question in _QUESTIONS)
