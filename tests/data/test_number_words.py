"""Numbers in words: forms with one reading are converted, all others are left and returned."""

import pytest

from finetune.data.number_words import numbers_to_words


@pytest.mark.parametrize(
    ("language", "text", "words"),
    [
        ("en", "take 2.5 mg, 25 mg", "take two point five mg, twenty five mg"),
        (
            "en",
            "0.05 and 1,234.50",
            "zero point zero five and one thousand two hundred and thirty four point five zero",
        ),
        (
            "en",
            "1,234,567 or 1000000",
            "one million two hundred and thirty four thousand five hundred and sixty seven or one million",
        ),
        ("en", "-5 or \u22125.", "minus five or minus five."),
        ("en", "in 1999, 2005 and 1865", "in nineteen ninety nine, two thousand and five and eighteen sixty five"),
        ("en", "1204 mg", "one thousand two hundred and four mg"),
        ("en", "the 21st, 2nd (3rd)", "the twenty first, second (third)"),
        ("en", "$5, €1, $2.5 million", "five dollars, one euro, two point five million dollars"),
        ("en", "5% or 5 %.", "five percent or five percent."),
        ("en", "10:15, 9:05 pm, 10:00", "ten fifteen, nine oh five pm, ten o'clock"),
        ("en", "5-10 and 5–10", "five to ten and five to ten"),
        ("en", "555-1234", "five five five one two three four"),
        ("en", "(555) 123-4567", "five five five one two three four five six seven"),
        ("en", "call +1 555 123 4567 now", "call plus one five five five one two three four five six seven now"),
        ("en", "call 0800 123 456 now", "call zero eight zero zero one two three four five six now"),
        ("en", "0800 123 000 24 hours", "zero eight zero zero one two three zero zero zero twenty four hours"),
        ("en", "(020) 7946 0958.", "zero two zero seven nine four six zero nine five eight."),
        ("en", "0161-496 0000", "zero one six one four nine six zero zero zero zero"),
        ("en", "07700 900123", "zero seven seven zero zero nine zero zero one two three"),
        ("en", "1800 123 456", "one eight zero zero one two three four five six"),
        ("en", "at 0800 3 people", "at zero eight zero zero three people"),
        ("en", "1-800-555-1234", "one eight zero zero five five five one two three four"),
        (
            "en",
            "+150 or +12.5% or +10.25",
            "plus one hundred and fifty or plus twelve point five percent or plus ten point two five",
        ),
        ("en", "123.4567", "one hundred and twenty three point four five six seven"),
        ("en", "code 007 or 12345678", "code zero zero seven or one two three four five six seven eight"),
        ("en", "2010 2011 2012", "twenty ten twenty eleven twenty twelve"),
        ("de", "2,5 mg, 3.000 und 5 %", "zwei Komma fünf mg, dreitausend und fünf Prozent"),
        ("de", "Ich habe 5.", "Ich habe fünf."),
        ("fr", "12 500 ou 2,5 ou 1er", "douze mille cinq cents ou deux virgule cinq ou premier"),
        ("en", "1 000 or 5 001", "one thousand or five zero zero one"),
        ("de", "ruf 0800 123 456 an", "ruf null acht null null eins zwei drei vier fünf sechs an"),
        ("de", "(030) 1234567.", "null drei null eins zwei drei vier fünf sechs sieben."),
        ("de", "0171/1234567", "null eins sieben eins eins zwei drei vier fünf sechs sieben"),
        ("de", "089 123 45 67", "null acht neun eins zwei drei vier fünf sechs sieben"),
        ("de", "0900 1234", "null neun null null eins zwei drei vier"),
        ("nl", "0900 123 000 of 5 000", "nul negen nul nul één twee drie nul nul nul of vijfduizend"),
        ("es", "900 123 000", "nueve cero cero uno dos tres cero cero cero"),
        ("es", "900 800 700 y 1 500 000", "novecientos ochocientos setecientos y un millón quinientos mil"),
        ("pt", "(11) 91234-5678", "um um nove um dois três quatro cinco seis sete oito"),
        ("it", "800 128 4567", "otto zero zero uno due otto quattro cinque sei sette"),
        ("fr", "01 23 45 67 89", "zéro un vingt-trois quarante-cinq soixante-sept quatre-vingt-neuf"),
        ("fr", "0800 123 000", "zéro huit zéro zéro un deux trois zéro zéro zéro"),
        ("fr", "le 01 02 2020", "le zéro un zéro deux deux mille vingt"),
        ("sv", "070-125 45 67", "noll sju noll ett två fem fyra fem sex sju"),
        ("ja", "電話は0120 123 456です", "電話は零一二零一二三四五六です"),
        ("en", "100 200 300", "one hundred two hundred three hundred"),
        ("sv", "12 500", "tolvtusen femhundra"),
        ("fr", "1 234,5 et 3 000, puis 2", "mille deux cent trente-quatre virgule cinq et trois mille, puis deux"),
        ("de", "10 000,5 km", "zehntausend Komma fünf km"),
        ("pt", "R$ 5, R$1.000 e R$ 1", "cinco reais, mil reais e um real"),
        ("fr", "06 12 34", "zéro six douze trente-quatre"),
        ("es", "2,5 y 2.5", "dos coma cinco y dos punto cinco"),
        ("it", "2,5", "due virgola cinque"),
        ("ja", "3月10日に5本", "三月十日に五本"),
        ("pl", "5", "pięć"),
        ("en", "no digits", "no digits"),
    ],
)
def test_forms_with_one_reading(language: str, text: str, words: str) -> None:
    spelled = numbers_to_words(text, language)
    assert (spelled.text, spelled.left) == (words, [])


@pytest.mark.parametrize(
    ("language", "token"),
    [
        ("en", "5mg"),
        ("en", "A380"),
        ("en", "1990s"),
        ("en", "1/2"),
        ("en", "½"),
        ("en", "3-2"),
        ("en", "3:2"),
        ("en", "2020-05-12"),
        ("en", "1.2.3"),
        ("en", "1,23"),
        ("en", "2,5"),
        ("en", "$2.50"),
        ("en", "10:15:30"),
        ("en", "5 - 10"),
        ("en", "5 – 10 – 15 %"),
        ("en", "$5 – $10"),
        ("en", "US$ 5"),
        ("en", "1 200"),
        ("en", "12 500"),
        ("de", "1 200"),
        ("en", "1 200,5"),
        ("en", "12 500.5"),
        ("en", "$1 200"),
        ("de", "1 200,50"),
        ("de", "01-02-2020"),
        ("en", "500 ₹"),
        ("fr", "1234,50 €"),
        ("en", "10,11,12"),
        ("en", "00:00"),
        ("de", "2.5"),
        ("de", "10:15"),
        ("de", "5,50 €"),
        ("ja", "2.5"),
        ("ja", "B2"),
        ("pl", "2,5"),
        ("zh", "5"),
        ("am", "1999"),  # num2words fails on these
        ("te", "10000000000"),
        ("tr", "1" + "0" * 27),
        ("ja", "1" + "0" * 80),
        ("ja", "1" * 5000 + "000"),
        ("", "5"),
    ],
)
def test_other_tokens_are_left(language: str, token: str) -> None:
    spelled = numbers_to_words(f"a {token} b", language)
    assert (spelled.text, spelled.left) == (f"a {token} b", [token])


def test_an_ordinal_or_the_end_of_a_german_sentence() -> None:
    assert numbers_to_words("am 21. Mai", "de").left == ["21."]
