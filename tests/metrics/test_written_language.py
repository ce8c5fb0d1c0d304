"""Texts in another language than asked for are found; short, mixed and unknown ones are not called wrong."""

import pytest

from finetune.metrics.hallucination import FLAGS, flags, written_language
from finetune.metrics.written_language import PROFILES, other_language

SENTENCES = {
    "en": "I am sorry but the person you are calling is not available at this time, leave a message after the tone",
    "fr": "Je suis désolé, la personne que vous appelez n'est pas disponible, veuillez laisser un message après le bip",
    "de": "Es tut mir leid, die Person, die Sie anrufen, ist nicht erreichbar, bitte sprechen Sie nach dem Signal",
    "es": "Lo siento pero no se ha podido encontrar a la persona que usted busca, deje un mensaje con su nombre",
    "pt": "Desculpe, mas a pessoa que você está a chamar não está disponível, deixe uma mensagem depois do sinal",
    "it": "Mi dispiace ma la persona che sta chiamando non è disponibile, lasci un messaggio dopo il segnale con nome",
    "ja": "申し訳ありませんが、おかけになった電話は現在つながりません",
    "zh": "对不起，您拨打的电话暂时无法接通，请稍后再拨，我们会为您服务",
}
LATIN = sorted(PROFILES)


@pytest.mark.parametrize("asked", SENTENCES)
@pytest.mark.parametrize("written", SENTENCES)
def test_sentences_in_each_language(asked: str, written: str) -> None:
    found = other_language(SENTENCES[written], asked)
    assert bool(found) == (asked != written)
    assert found in ("", written, "han")


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("", "en"),
        ("Contraseña incorrecta", "en"),  # too short
        ("maria de la cruz", "en"),  # one or two words of Spanish are a name
        ("he moved from Los Angeles to La Paz and then to El Paso with his son", "en"),
        ("d l n c j t s m", "en"),  # spelled letters
        ("NHK ニュース", "ja"),
        ("Windows Update Service を開く", "ja"),
        ("Windows", "ja"),
        ("東京都港区芝公園四丁目二番八号", "ja"),  # no kana, but no simplified characters
        ("der Spiegel", "en"),
        ("a man with a black hat came in", "en"),
        ("El que da primero, da dos veces", "es"),
        ("de la de la de la", "it"),  # in several languages
        ("the and of to", ""),  # no language is asked for
        ("the and of to is that", "xx"),
        ("the and of to is that", "nl"),  # no profile: unknown is not wrong
        ("Иван", "ru"),
        ("5 10 %", "en"),
    ],
)
def test_unknown_is_not_wrong(text: str, asked: str) -> None:
    assert other_language(text, asked) == ""


@pytest.mark.parametrize(
    ("text", "asked", "found"),
    [
        ("はい", "en", "ja"),
        ("Здравствуйте, это тест", "en", "cyrillic"),
        ("안녕하세요", "ja", "ko"),
        ("this is only foo bar baz", "ja", "en"),
        ("lorem ipsum dolor amet", "ja", "latin"),
        ("こんにちは元気ですか", "zh", "ja"),
        ("por favor ingrese su numero de agente seguido por la tecla", "en", "es"),  # without accents
    ],
)
def test_scripts_and_short_texts(text: str, asked: str, found: str) -> None:
    assert other_language(text, asked) == found


def test_profiles_have_folded_words_of_two_letters_or_more() -> None:
    assert set(LATIN) == {"de", "en", "es", "fr", "it", "pt"}
    for words in PROFILES.values():
        assert all(len(word) > 1 and word.isascii() and word.islower() for word in words)


def test_the_flag_needs_a_language_and_a_reference_in_it() -> None:
    def found(reference: str, hypothesis: str, language: str) -> tuple[str, ...]:
        common = {"duration": 60.0, "instruction": "", "keywords": (), "truncated": False, "preset": "basic@2"}
        return flags(reference, hypothesis, language=language, **common)

    assert "language" in FLAGS
    assert found(SENTENCES["en"], SENTENCES["es"], "en") == ("language",)
    assert found(SENTENCES["en"], SENTENCES["es"], "") == ()
    assert found(SENTENCES["es"], SENTENCES["es"], "en") == ()  # the row states a wrong language
    assert written_language(SENTENCES["en"], SENTENCES["es"], "en") == "es"
