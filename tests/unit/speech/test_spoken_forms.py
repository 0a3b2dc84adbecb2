"""Addresses, amounts, numbers and ranges are read as the words that a person would say."""

import time

import pytest

from backends.speech.text.phonemizers import AMERICAN, HibariPhonemizer
from backends.speech.text.readings import prepare


@pytest.fixture(scope="module")
def phonemizer() -> HibariPhonemizer:
    return HibariPhonemizer((AMERICAN,))


def read(phonemizer: HibariPhonemizer, text: str) -> str:
    phonemes = phonemizer(prepare(text, phonemizer.known_letters), AMERICAN)
    return phonemes.replace("pˈYnt", "pYnt")  # the library stresses the word, and not the point of a number


SAME: dict[str, str] = {
    # addresses
    "www.openai.com": "W W W dot openai dot com",
    "http://bbc.co.uk/": "H T T P, B B C dot co dot U K",
    "See https://example.com/docs?page=2 now.": (
        "See H T T P S, example dot com slash docs question mark page equals two now."
    ),
    "(see example.org/about-us)": "(see example dot org slash about dash us)",
    "http://localhost:8080/v1": "H T T P, localhost colon eight zero eight zero slash V one",
    "https://example.com/a_(b).": "H T T P S, example dot com slash a underscore ( b ).",
    "Mail john.doe_99@example.co.uk, please.": (
        "Mail john dot doe underscore ninety nine at example dot co dot U K, please."
    ),
    "info@openai.com": "info at openai dot com",
    "Open main.py and README.md.": "Open main dot P Y and README dot M D.",
    "track01.mp3": "track zero one dot M P three",
    "in /etc/nginx.conf": "in slash etc slash nginx dot conf",
    r"C:\Users\me.txt": "C colon backslash Users backslash me dot T X T",
    "192.168.0.1": "one hundred ninety two dot one hundred sixty eight dot zero dot one",
    # money
    "£4.20": "four pounds and twenty pence",
    "¥500": "five hundred yen",
    "5€": "five euros",
    "20 £": "twenty pounds",
    "1.50 €": "one euro and fifty cents",
    "-$5": "minus five dollars",
    "$3.5bn": "three point five billion dollars",
    "€2tn": "two trillion euros",
    "US$5": "five U.S. dollars",
    "C$20": "twenty Canadian dollars",
    "100 EUR": "one hundred euros",
    "1 GBP": "one pound",
    "USD 20 million": "twenty million U.S. dollars",
    "CHF 5": "five Swiss francs",
    "$10-$20": "ten to twenty dollars",
    "£5–10 million": "five to ten million pounds",
    "£1bn–£2bn": "one billion pounds to two billion pounds",
    "$5/month": "five dollars per month",
    # telephone numbers
    "+1 (555) 123-4567": "plus one, five five five, one two three, four five six seven",
    "Call 555-123-4567.": "Call five five five, one two three, four five six seven.",
    "(555) 123-4567": "five five five, one two three, four five six seven",
    "1-800-555-1234": "one, eight zero zero, five five five, one two three four",
    "+44 20 7946 0958": "plus four four, two zero, seven nine four six, zero nine five eight",
    "0800 123 456": "zero eight zero zero, one two three, four five six",
    "030/1234567": "zero three zero, one two three four five six seven",
    "ISBN 978-3-16-148410-0": "ISBN nine seven eight, three, one six, one four eight four one zero, zero",
    "9-1-1": "nine, one, one",
    "Call 555-1234.": "Call five five five, one two three four.",
    # units
    "2.5 GB": "two point five gigabytes",
    "2.1 km": "two point one kilometers",
    "9.8 m/s²": "nine point eight meters per second squared",
    "5 m/s": "five meters per second",
    "3 GB/s": "three gigabytes per second",
    "20 m²": "twenty square meters",
    "1 m³": "one cubic meter",
    "5 mL": "five milliliters",
    "60 W": "sixty watts",
    "230V": "two hundred thirty volts",
    "30 dB": "thirty decibels",
    "24 h": "twenty four hours",
    "98.6°F": "ninety eight point six degrees Fahrenheit",
    "5'10\" tall": "five feet ten inches tall",
    "60km/h": "sixty kilometers per hour",
    # ordinals
    "21st": "twenty first",
    "112th": "one hundred twelfth",
    # ranges
    "pages 10-15.": "pages ten to fifteen.",
    "10-15%": "ten to fifteen percent",
    "2.5-3.5 km": "two point five to three point five kilometers",
    "5–7 pm": "five to seven P.M.",
    "9am-5pm": "nine A.M. to five P.M.",
    "10:00–11:30": "ten o'clock to eleven thirty",
    # fractions and other numbers
    "5 1/2 cups": "five and one half cups",
    "3/4 full": "three quarters full",
    "3/100": "three one hundredths",
    "24/7": "twenty four seven",
    '"7.75"': '"seven point seven five"',
    "3.14, .5": "three point one four, point five",
    "0.05%": "zero point zero five percent",
    "2024.5": "two thousand twenty four point five",
    "v2.0.1": "version two point zero point one",
    "2.5e-3": "two point five times ten to the power of minus three",
    "1920x1080": "nineteen twenty by ten eighty",
    "2*3": "two times three",
    "16:9": "sixteen to nine",
    "007": "zero zero seven",
    "the 10 000 people": "the ten thousand people",
    "1 250 000 votes": "1,250,000 votes",
    "rated 9.5/10": "rated nine point five out of ten",
    "2024/03/05": "2024-03-05",
    "C# and F#": "C sharp and F sharp",
}


@pytest.mark.parametrize(("text", "words"), SAME.items(), ids=SAME)
def test_a_form_is_read_as_its_words(phonemizer: HibariPhonemizer, text: str, words: str) -> None:
    assert read(phonemizer, text) == read(phonemizer, words)


@pytest.mark.parametrize(
    "text",
    [
        "I like this.it is good.",
        "U.S.A., e.g. this, i.e. that",
        "John 3:16 at 7:45am",
        "the 1980s, the '80s",
        "350 W 34th Street",
        "2024-03-05 and 3/4/2021",
        "5m users, 1.5M more, 3.5x",
        "a 10-year-old, 3rd-party, twenty-one",
        "0x1F, A4, B2B, H2O",
        "1,234,567 people",
        "$4.20, £3.50 and €1,250.50",
        "He said: no.",
        "@openai #AI",
    ],
)
def test_other_texts_are_left_to_the_library(phonemizer: HibariPhonemizer, text: str) -> None:
    assert prepare(text, phonemizer.known_letters) == text


@pytest.mark.parametrize(
    "text",
    ["1-" * 5000, "1.1" * 3000, "a.b" * 3000, "a@a." * 2500, "+1 " * 3000, "www." * 2500, "9 9" * 3000, "$1-" * 3000],
)
def test_no_form_takes_long(phonemizer: HibariPhonemizer, text: str) -> None:
    started = time.process_time()
    prepare(text, phonemizer.known_letters)
    assert time.process_time() - started < 1
