"""The texts of the embedded base: normalisation, exclusion, phrase book, splits, made-up words, on small inputs."""

import gzip
import json
import random
import re
import struct
import zipfile
from pathlib import Path

import pytest

from finetune.model.ctc import to_labels
from nano.texts import corpus, formats, japanese, spoken_forms
from nano.texts.corpus import Line, own_slots, rows, split_of, write_rows
from nano.texts.excluded import Excluded, prompt_sentences, terms, test_sentences
from nano.texts.frequency import Frequencies, _table, word_list
from nano.texts.grammar import expand, many
from nano.texts.invented import CARRIERS, WordMaker, invented_sentences
from nano.texts.names import slots_of
from nano.texts.normalize import LETTERS, clean, in_words, normalize
from nano.texts.number_words import cardinal, digits
from nano.texts.phrase_book import LANGUAGES, Phrase, agree, fill, phrase_rows, phrases, with_article
from nano.texts.phrase_templates import read_phrase_templates, read_words
from nano.texts.sentences import kind_of, sentences
from nano.texts.sources import DEBIAN, PYPI, SourceError, Sources
from nano.texts.templates import read_templates

test_sentences.__test__ = False  # type: ignore[attr-defined]
NOTHING = Excluded([], [])


def text_of(written: str, language: str) -> str | None:
    spoken = clean(written, language)
    return None if spoken is None else normalize(spoken, language)


@pytest.mark.parametrize(
    ("language", "written", "text"),
    [
        ("en", "Don’t go — it's the boys' café, twenty-one!", "don't go it's the boys cafe twenty one"),
        ("es", "¿Qué  pasó, señor? ¡Ojalá…!", "qué pasó señor ojalá"),
        ("fr", "L’œuf est « là », n’est-ce pas\u00a0?", "l'oeuf est là n'est ce pas"),
        ("pt", "Não disse-me: “coração”.", "não disse me coração"),
        ("de", "Über die Straße, „bitte“!", "über die straße bitte"),
        ("it", "Perché l'acqua è già lì?", "perché l'acqua è già lì"),
        ("en", "She has 12 cats", "she has twelve cats"),
        ("en", "Since 1984", "since nineteen eighty four"),
        ("de", "Seit 1984", "seit neunzehnhundertvierundachtzig"),
        ("fr", "Il a 80 ans", "il a quatre vingts ans"),
        ("es", "el año 1984", None),  # doscientos or doscientas: hundreds are not read
        ("pt", "22 casas", None),
        ("es", "21 casas", None),
        ("en", "at 5:30", None),
        ("en", "50% off", None),
        ("en", "1.5 metres", None),
        ("en", "an MP3 file", None),
        ("en", "東京", None),
        ("de", "señor", None),
    ],
)
def test_normalize(language: str, written: str, text: str | None) -> None:
    assert text_of(written, language) == text


@pytest.mark.parametrize("language", LETTERS)
def test_all_letters_are_labels_of_the_ctc_head(language: str) -> None:
    assert to_labels(LETTERS[language] + " '")[1] == 0


@pytest.mark.parametrize(
    ("number", "western", "japanese_words"),
    [
        (0, "zero|cero|zéro|zero|null|zero", "ゼロ"),
        (16, "sixteen|dieciséis|seize|dezesseis|sechzehn|sedici", "ジュウロク"),
        (21, "twenty-one|veintiuno|vingt et un|vinte e um|einundzwanzig|ventuno", "ニジュウイチ"),
        (71, "seventy-one|setenta y uno|soixante et onze|setenta e um|einundsiebzig|settantuno", "ナナジュウイチ"),
        (80, "eighty|ochenta|quatre-vingts|oitenta|achtzig|ottanta", "ハチジュウ"),
        (91, "ninety-one|noventa y uno|quatre-vingt-onze|noventa e um|einundneunzig|novantuno", "キュウジュウイチ"),
        (100, "one hundred|cien|cent|cem|einhundert|cento", "ヒャク"),
        (
            203,
            "two hundred and three|doscientos tres|deux cent trois|duzentos e três|zweihundertdrei|duecentotré",
            "ニヒャクサン",
        ),
        (1001, "one thousand and one|mil uno|mille un|mil e um|eintausendeins|milleuno", "センイチ"),
        (80_000, "eighty thousand|ochenta mil|quatre-vingt mille|oitenta mil|achtzigtausend|ottantamila", "ハチマン"),
        (
            21_000,
            "twenty-one thousand|veintiún mil|vingt et un mille|vinte e um mil|einundzwanzigtausend|ventunomila",
            "ニマンセン",
        ),
        (2_000_000, "two million|dos millones|deux millions|dois milhões|zwei Millionen|due milioni", "ニヒャクマン"),
    ],
)
def test_cardinal_numbers(number: int, western: str, japanese_words: str) -> None:
    assert "|".join(cardinal(number, language) for language in ("en", "es", "fr", "pt", "de", "it")) == western
    assert cardinal(number, "ja") == japanese_words


def test_numbers_have_limits_and_digits_one_name_each() -> None:
    with pytest.raises(ValueError, match="999999999"):
        cardinal(10**9, "en")
    assert digits("+40-7", "de") == ["vier", "null", "sieben"]
    assert in_words("room 007", "en") is None


@pytest.mark.parametrize("language", ["en", "es", "fr", "pt", "de", "it"])
def test_forms_of_numbers_are_plain_words(language: str) -> None:
    rng = random.Random(0)
    names = ("phone", "time", "date", "price", "year", "large", "letters", "digit_string")
    forms = [getattr(spoken_forms, name) for name in names] + [spoken_forms.small(2, 99)]
    said = {text_of(form(language, rng), language) for form in forms for _ in range(60)}
    assert None not in said and "" not in said and len(said) > 200
    assert {len(spoken_forms.digit_string(language, rng, 4).split()) for _ in range(9)} == {4}


def test_portuguese_and_italian_times_join_the_preposition() -> None:
    said = {spoken_forms.at_time(language, random.Random(seed)) for seed in range(80) for language in ("pt", "it")}
    assert all(text.startswith(("à uma", "às ", "all'una", "alle ")) for text in said)
    assert any(text.startswith("à uma") for text in said) and any(text.startswith("all'una") for text in said)
    assert not any("às uma" in text or "alle l" in text or "alle le" in text for text in said)


def test_excluded_sentences_in_any_case_and_accents() -> None:
    forbidden = Excluded(["Marque el número, por favor. Después espere.", "no"], ["Lisinopril"])
    assert "marque el numero por favor" in forbidden and "después espere" not in forbidden
    assert "ahora marque el número por favor y nada más" in forbidden
    assert "no" in forbidden and "no lo sé" not in forbidden
    assert "toma lisinopril" in forbidden and "toma lisinoprils" not in forbidden
    assert "vaya mierda" in forbidden


def test_the_sentences_of_the_test_sets_are_excluded(tmp_path: Path) -> None:
    known = test_sentences()
    assert len(known) > 2000 and len(terms()) == 123
    forbidden = Excluded(known, terms())
    assert all(text in forbidden for text in known[::50])
    listing = tmp_path / "core-sounds-xx.txt.gz"
    listing.write_bytes(gzip.compress(b"; remark: no\nvm-one: Tiene un mensaje: nuevo\n\n"))
    assert prompt_sentences(listing) == ["Tiene un mensaje: nuevo"]


TABLES = {
    "en": {word: 5.0 for word in ["we", "are", "at", "home", "the", "music", "is", "good", "no", "cafe"]}
    | {"solenoid": 2.5},
    "pt": {"mão": 5.5, "mao": 2.0, "a": 6.5, "é": 6.6, "grande": 5.4, "é assim": 0.0},
    "fr": {"l": 6.0, "eau": 5.0, "est": 6.0, "bonne": 5.0, "no": 4.0},
}


def test_kinds_of_sentences() -> None:
    frequencies = Frequencies(TABLES)
    assert kind_of("we are at home", "en", frequencies) == "common"
    assert kind_of("the solenoid is good", "en", frequencies) == "rare"
    assert kind_of("the zzyzx is good", "en", frequencies) is None
    assert kind_of("home", "en", frequencies) is None
    assert kind_of("l'eau est bonne", "fr", frequencies) == "common"
    assert kind_of("a mao é grande", "pt", frequencies) is None and kind_of("a mão é grande", "pt", frequencies)
    assert kind_of("no no", "fr", frequencies) is None  # more frequent in English


def test_word_lists_are_read(tmp_path: Path) -> None:
    def packed(words: list[str]) -> bytes:
        return bytes([0x90 + len(words)]) + b"".join(bytes([0xA0 + len(w.encode())]) + w.encode() for w in words)

    header = b"\x82" + b"\xa6format\xa2cB" + b"\xa7version\x01"
    data = gzip.compress(b"\xdc\x00\x04" + header + packed([]) + packed(["été"]) + packed(["a", "b"]))
    assert _table(data) == pytest.approx({"été": 8.99, "a": 8.98, "b": 8.98})
    with zipfile.ZipFile(tmp_path / "wordfreq.whl", "w") as archive:
        archive.writestr("wordfreq/data/small_ja.msgpack.gz", data)
    assert word_list(tmp_path / "wordfreq.whl", "ja") == ["a", "b", "été"]


def test_sentences_are_cut_and_filtered() -> None:
    text = "He came home. See e.g. the list! It's on <b>sale</b>; nobody knew (yet). Did NASA know? She said: fine, Bob"
    assert list(sentences(text, "en")) == ["He came home.", "It's on sale", "She said", "fine, Bob"]
    long = ", ".join(["one two three four five six seven"] * 5)
    parts = list(sentences(long, "en"))
    assert len(parts) > 1 and all(len(part.split()) <= 20 for part in parts)
    assert " ".join(normalize(part, "en") for part in parts) == normalize(long, "en")


def test_templates_expand() -> None:
    slots = {"who": ["{first} Smith"], "first": lambda rng: "Ann", "x": ["a", "b"]}
    assert expand("[call|call] {who} , please", slots, random.Random(0)) == "Call Ann Smith, please"
    assert set(many(["{x} [c|d|]"], slots, 9, random.Random(0))) == {"A c", "A d", "A", "B c", "B d", "B"}
    with pytest.raises(KeyError, match="nobody"):
        expand("{nobody}", slots, random.Random(0))


@pytest.mark.parametrize("language", ["en", "es", "fr", "pt", "de", "it"])
def test_own_templates_use_known_slots_and_letters(language: str) -> None:
    by_kind, words = read_templates(language)
    slots = own_slots(words, slots_of(["Anna"], ["Berg"], ["Paris"], language), language)
    assert set(by_kind) == {"commands", "telephone", "numbers", "names"}
    for templates in by_kind.values():
        for template in templates:
            for seed in range(4):
                sentence = expand(template, slots, random.Random(seed))
                assert clean(sentence, language), sentence


def test_made_up_words_are_new_and_look_like_the_language() -> None:
    words = ["banana", "bandana", "cabana", "canasta", "manana", "savanna", "ananas"]
    maker = WordMaker(words, order=2)
    made = {maker.word(random.Random(seed)) for seed in range(60)}
    assert len(made) > 5 and not made & set(words) and all(4 <= len(word) <= 13 for word in made)
    pairs = {word[i : i + 2] for word in words for i in range(len(word) - 1)}
    assert all(word[i : i + 2] in pairs for word in made for i in range(len(word) - 1))
    assert set(CARRIERS) == {"en", "es", "fr", "pt", "de", "it"}
    plain = ["The green door stays open, mostly."]
    found = invented_sentences(plain, maker, ["quixotic"], "en", 30, random.Random(0))
    changed = [text for text in found if text.endswith((" mostly.", "open, mostly.")) or "door" in text]
    assert len(set(found)) == 30 and changed and plain[0] not in found
    assert any("quixotic" in text.lower() for text in found)
    with pytest.raises(ValueError, match="too few"):
        WordMaker(["abcd"]).word(random.Random(0))


def test_rows_depend_on_their_text_only() -> None:
    lines = [Line(f"Number {cardinal(n, 'en')}.", "common", "own") for n in range(1500)]
    whole, half = rows(lines, "en", {}), rows(lines[::-2], "en", {})
    assert [row for row in whole if row in half] == half
    assert [row["split"] for row in whole] == sorted(
        (row["split"] for row in whole), key=["train", "held_out", "dev"].index
    )
    shares = [sum(row["split"] == split for row in whole) / 1500 for split in ("dev", "held_out")]
    assert 0.01 < shares[0] < 0.03 and 0.003 < shares[1] < 0.02
    assert len({row["id"] for row in whole}) == 1500
    assert {row["text"] == normalize(row["spoken"], "en") for row in whole} == {True}
    assert whole[0]["split"] == split_of(whole[0]["text"], "en") == "train"


def test_a_phrase_keeps_the_split_of_its_book(tmp_path: Path) -> None:
    found = rows([Line("hello there", "phrase", "own", "p1"), Line("Hi you", "common", "own")], "en", {"p1": "dev"})
    assert [(row["split"], row.get("phrase"), "spoken" in row) for row in found] == [
        ("train", None, True),
        ("dev", "p1", False),
    ]
    write_rows(found, tmp_path / "texts" / "en.jsonl")
    assert [json.loads(line) for line in (tmp_path / "texts" / "en.jsonl").read_text().splitlines()] == found
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["en.jsonl"]


@pytest.mark.parametrize(
    ("form", "language", "noun", "said"),
    [
        ("the", "fr", "f:école", "l'école"),
        ("to", "fr", "m:hôpital", "à l'hôpital"),
        ("from", "fr", "m:marché", "du marché"),
        ("my", "fr", "m:oncle", "mon oncle"),
        ("to", "es", "m:banco", "al banco"),
        ("from", "es", "f:playa", "de la playa"),
        ("in", "pt", "f:casa", "na casa"),
        ("from", "pt", "m:rio", "do rio"),
        ("acc", "de", "m:Zug", "den Zug"),
        ("an", "de", "n:Buch", "ein Buch"),
        ("withmy", "de", "f:Mutter", "mit meiner Mutter"),
        ("to", "de", "f:Schule", "zur Schule"),
        ("a", "en", "umbrella", "an umbrella"),
    ],
)
def test_articles_and_prepositions(form: str, language: str, noun: str, said: str) -> None:
    assert with_article(form, noun, language) == said


def test_adjectives_agree() -> None:
    assert agree("abierto/abierta", "f:puerta", "es") == "abierta" and agree("grande", "f:casa", "es") == "grande"
    assert agree("offen", "f:Tür", "de") == "offen"
    assert fill("{the x} ist {y of x} {z}", {"x": "f:Tür", "y": "zu", "z": "heute"}, "de") == "Die Tür ist zu heute"


VALUES_SMALL = {
    "x": [("door", "f:puerta", "f:porte", "f:porta", "f:Tür"), ("wine", "m:vino", "m:vin", "m:vinho", "m:Wein")],
    "y": [("red", "rojo/roja", "rouge", "vermelho/vermelha", "rot")],
}
IS = (
    "{the x} is {y of x}",
    "{the x} es {y of x}",
    "{the x} est {y of x}",
    "{the x} é {y of x}",
    "{the x} ist {y of x}",
)


def test_phrases_are_aligned_and_excluded_together() -> None:
    book = phrases([IS], VALUES_SMALL, NOTHING)
    assert sorted(row["de"] for row in phrase_rows(book)) == ["der wein ist rot", "die tür ist rot"]
    assert {row["es"] for row in phrase_rows(book)} == {"la puerta es roja", "el vino es rojo"}
    assert phrases([IS, IS], VALUES_SMALL, NOTHING) == book  # no repetitions
    left = phrases([IS], VALUES_SMALL, Excluded(["A porta é vermelha."], []))
    assert [phrase.texts["en"] for phrase in left] == ["The wine is red"]
    with pytest.raises(ValueError, match="characters"):
        phrases([("a",) * 4 + ("é ñ",)], {}, NOTHING)


def test_the_phrase_book() -> None:
    templates, values = read_phrase_templates(), read_words()
    book = phrases(templates, values, NOTHING, each=8)
    assert len({phrase.id for phrase in book}) == len(book) > 400
    assert {phrase.split for phrase in book} == {"train", "dev", "held_out"}
    assert sum(phrase.split != "train" for phrase in book) < 0.15 * len(book)
    for phrase in book:
        assert tuple(phrase.texts) == LANGUAGES
        assert not any(mark in "".join(phrase.texts.values()) for mark in "{}/|")
        wrong = re.search(
            r"\b(de el|a el|de le|à le|de o|em o|em a|le [aeéêio]\w|la [aeéêio]\w+e est|an dem)\b", phrase.texts["fr"]
        )
        assert not wrong, phrase
        assert not re.search(r"\b(de el|a el)\b", phrase.texts["es"]), phrase
        assert not re.search(r"\b(de o|de a|em o|em a|a o)\b", phrase.texts["pt"]), phrase


def test_catalogues_and_dictionaries_are_read(tmp_path: Path) -> None:
    pairs = [("", "header"), ("menu\x04Go now.", "Ve ya."), ("%d man\0%d men", "un hombre\0hombres")]
    blobs = [[text.encode() for text in column] for column in zip(*pairs, strict=True)]
    tables, strings, start = [b"", b""], b"", 28 + 2 * 8 * len(pairs)
    for number, column in enumerate(blobs):
        for blob in column:
            tables[number] += struct.pack("<2I", len(blob), start + len(strings))
            strings += blob + b"\0"
    head = struct.pack("<7I", 0x950412DE, 0, len(pairs), 28, 28 + 8 * len(pairs), 0, 0)
    (tmp_path / "a.mo").write_bytes(head + tables[0] + tables[1] + strings)
    assert list(formats.gettext_catalogue(tmp_path / "a.mo")) == [("Go now.", "Ve ya."), ("%d man", "un hombre")]
    (tmp_path / "ding").write_text("gehen {vi} | Ich gehe. [ugs.] | er :: to go | I am going. | he\n", encoding="utf-8")
    assert list(formats.ding_examples(tmp_path / "ding")) == [("Ich gehe.", "I am going.")]
    (tmp_path / "fortunes").write_text("A wise\nword.\n\t\t-- Somebody\n%\nRoses are\nRed and\nViolets so\nBlue\n%\n")
    assert [text.strip() for text in formats.fortunes(tmp_path / "fortunes")] == ["A wise\nword."]


def test_home_assistant_templates_become_commands() -> None:
    templates = ["start a {hours:timer_hours} (hour|hours) timer", "[please ]stop", "open <door>", "light {area}"]
    slots = {"few": ["three"], "room": ["the hall"]}
    found = {line.spoken for line in corpus._home_assistant(templates, slots, "en")}
    assert found == {"Start a three hours timer", "Please stop", "Stop", "Light the hall"}
    assert not any("hall" in line.spoken for line in corpus._home_assistant(templates, slots, "fr"))


def test_japanese_is_katakana_as_written_and_as_said() -> None:
    rows_of_words = (
        ("私", "名詞,代名詞", "ワタシ", "ワタシ"),
        ("は", "助詞,係助詞", "ハ", "ワ"),
        ("東京", "名詞,固有名詞", "トウキョウ", "トーキョー"),
        ("へ", "助詞,格助詞", "ヘ", "エ"),
        ("行き", "動詞,自立", "イキ", "イキ"),
        ("ます", "助動詞", "マス", "マス"),
        ("。", "記号,句点", "。", "。"),
        ("龘", "名詞", "*", "*"),
    )
    words = {surface: row for surface, *row in rows_of_words}

    def tokenize(text: str) -> list[japanese.Token]:
        return [japanese.Token(word, *words[word]) for word in re.findall("|".join(words), text)]

    (line,) = japanese.sentences("「私は東京へ行きます。」RAMは5。龘は東京。", tokenize, "own")
    assert (line.written, line.spoken, line.kind) == (
        "ワタシハトウキョウヘイキマス",
        "ワタシワ トーキョーエ イキマス。",
        "rare",
    )
    (row,) = rows([line], "ja", {})
    assert row["text"] == line.written and row["spoken"] == line.spoken


def test_template_files_with_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "xx.txt").write_text("; words\n[slots]\nx = a|b\n\n[names]\n[Hi|Ho] {x}\n", encoding="utf-8")
    assert read_templates("xx", tmp_path) == ({"names": ["[Hi|Ho] {x}"]}, {"x": ["a", "b"]})
    for text, line in (("[slots]\nx: a\n", 2), ("hello\n", 1)):
        (tmp_path / "yy.txt").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=rf"yy\.txt:{line}: "):
            read_templates("yy", tmp_path)
    (tmp_path / "phrase_templates.tsv").write_text("en\tes\tfr\tpt\tde\nyes\tsí\toui\tsim\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"phrase_templates\.tsv:2: needs 5 columns"):
        read_phrase_templates(tmp_path)


def test_japanese_templates() -> None:
    lines = japanese._own(
        ["カメラカ", "サカラメ", "アカメリカ", "メガカネラ", "カタメカナ", "ラカダメ", "カナメラ", "メカラナ"]
    )
    assert {line.kind for line in lines} == {"names", "numbers", "commands", "invented"}
    for line in lines:
        assert line.written and not set(line.written) - set(LETTERS["ja"]), line
        assert not set(line.spoken) - set(LETTERS["ja"] + " 、。？！"), line


def test_sources_are_named_and_checked(tmp_path: Path) -> None:
    card = (Path(corpus.__file__).parents[1] / "SOURCES.md").read_text(encoding="utf-8")
    for name in (*(name for name in DEBIAN if "asterisk" not in name), *(wheel.name for wheel in PYPI)):
        assert name in card, name
    assert all(wheel.version in card and len(wheel.sha256) == 64 for wheel in PYPI)
    sources = Sources(tmp_path)
    with pytest.raises(SourceError, match=r"no wheel of Faker"):
        sources.wheel("Faker")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / f"faker-{PYPI[3].version}-py3-none-any.whl").write_bytes(b"no")
    with pytest.raises(SourceError, match="is pinned"):
        sources._fetch_wheel(PYPI[3])
    assert list(sources.versions()) == [f"faker-{PYPI[3].version}-py3-none-any.whl"]


def test_phrases_are_lines_of_each_language() -> None:
    phrase = Phrase("p1", dict.fromkeys(LANGUAGES, "Hello there"), "held_out")
    kept = corpus._distinct([Line(phrase.texts["en"], "phrase", "own", "p1")] * 2, "en", NOTHING, taken := set(), 5)
    assert [line.phrase for line in kept] == ["p1"] and taken == {"hello there"}
    assert (
        corpus._distinct([Line("Hello, there!", "common", "own")], "en", Excluded(["hello there"], []), set(), 5) == []
    )
