"""Terms, templates, sentences, pronunciations and the plan: what is read, refused, and spoken by whom."""

import json
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from json_server import JsonServer

from finetune.core.errors import DataError, ModelError, RecipeError
from finetune.core.openai_client import KEY, URL
from finetune.core.options import SynthesisOptions
from finetune.curation.clip_check import general_errors, reason_against
from finetune.curation.lexicon import pronounce, read_lexicon
from finetune.curation.sentence_writer import usable_sentences, write_sentences
from finetune.curation.spoken_texts import (
    TEMPLATES,
    UNSPACED_LETTERS,
    Sentence,
    fill_templates,
    read_sentences,
    read_templates,
    read_term_list,
    term_sentences,
)
from finetune.curation.synthesis_plan import plan_clips
from finetune.curation.voices.command_line import CommandVoice
from finetune.curation.voices.voice import Part
from finetune.metrics.scripts import is_unspaced


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no term; write one on each line"),
        (" \n\n", "has no term"),
        ("aspirin\nfoo <|audio|>\n", "terms.txt:2: <|audio|> is a command for the model"),
        ("aspirin\n< | end_of_text | >\n", "terms.txt:2:"),
        ("aspirin\n---\n", "terms.txt:2: '---' has no letter or digit"),
        (b"asp\xff\n", "not UTF-8 text"),
        ("this line is a sentence with many words\n", "for sentences add --kind sentences"),
    ],
)
def test_a_term_list_that_cannot_be_used(content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read_term_list(write(tmp_path / "terms.txt", content))
    assert message in str(error.value)


def test_a_missing_list_and_a_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "no", tmp_path):
        with pytest.raises(DataError, match="cannot be read"):
            read_term_list(path)


def test_terms_are_folded_and_used_once(tmp_path: Path) -> None:
    path = write(tmp_path / "t", "\ufeffNew  York\n\nNew York\nC++\n")
    assert read_term_list(path) == ["New York", "C++"]


@pytest.mark.parametrize("line", ["no slot", "{term} and {term}"])
def test_a_template_has_the_term_once(line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t:2: has [02] places \{term\} instead of one"):
        read_templates(write(tmp_path / "t", f"say {{term}}\n{line}\n"), "en")


def test_built_in_templates() -> None:
    lines = read_templates(None, "en")
    assert lines == TEMPLATES["en"].splitlines() and len(set(lines)) == len(lines) >= 30
    assert all(line.count("{term}") == 1 and line == line.lower() for line in lines)
    with pytest.raises(RecipeError, match="--language de: there are built-in sentences for en only; add --templates"):
        read_templates(None, "de")


def test_each_term_has_other_templates_and_the_seed_decides() -> None:
    templates = read_templates(None, "en")
    first = fill_templates(["foo", "bar"], templates, 5, 0)
    assert {len(set(texts)) for texts in first.values()} == {5}
    assert [text.replace("foo", "bar") for text in first["foo"]] != first["bar"]
    assert first == fill_templates(["foo", "bar"], templates, 5, 0) != fill_templates(["foo", "bar"], templates, 5, 1)
    assert len(fill_templates(["foo"], templates, 99, 0)["foo"]) == len(templates)


def test_sentences_know_their_terms(tmp_path: Path) -> None:
    path = write(tmp_path / "s", "Take Aspirin now.\ntake aspirins\ntake aspirin with vitamin c+\nTake Aspirin now.\n")
    assert read_sentences(path, ["aspirin", "vitamin c+"]) == [
        Sentence("Take Aspirin now.", ("aspirin",)),
        Sentence("take aspirins", ()),
        Sentence("take aspirin with vitamin c+", ("aspirin", "vitamin c+")),
    ]


def test_terms_in_scripts_without_spaces(tmp_path: Path) -> None:
    path = write(tmp_path / "s", "明日は東京に行きます\nNHKを見ます\nXNHKを見ます\n")
    found = [sentence.terms for sentence in read_sentences(path, ["東京", "NHK"])]
    assert found == [("東京",), ("NHK",), ()]
    spoken = pronounce("明日は東京に行きます", {"東京": [Part("とうきょう")]}, 0, True)
    assert [part.text for part in spoken] == ["明日は", "とうきょう", "に行きます"]


def test_the_letters_of_unspaced_scripts() -> None:
    class_of = re.compile(f"[{UNSPACED_LETTERS}]")
    letters = [char for char in map(chr, range(0x10000)) if char.isalpha() and char.isprintable()]
    unlike = [char for char in letters if is_unspaced(char) != bool(class_of.match(char))]
    assert all(
        unicodedata.name(char).startswith(
            ("CJK COMPATIBILITY", "MYANMAR", "KATAKANA", "HANGUL", "HALFWIDTH", "BOPOMOFO", "KHMER", "TIBETAN")
        )
        for char in unlike
    ), unlike


def test_a_lexicon_has_respellings_and_ipa(tmp_path: Path) -> None:
    lexicon = read_lexicon(write(tmp_path / "l", "Nguyen\twin\nNguyen\t/ŋwiən/\nxeljanz\t/ˈzɛldʒænz/\n"))
    text = "ask Nguyen about XELJANZ"
    assert pronounce(text, lexicon, 0, True) == (
        Part("ask "),
        Part("win"),
        Part(" about "),
        Part("ˈzɛldʒænz", ipa=True),
    )
    assert pronounce(text, lexicon, 1, True)[1] == Part("ŋwiən", ipa=True)
    without = [pronounce(text, lexicon, variant, False) for variant in (0, 1)]
    assert [part.text for part in without[0]] == ["ask ", "win", " about ", "XELJANZ"] and without[0] == without[1]
    longer = {"new york": [Part("nuyork")], "new york times": [Part("times")]}
    assert pronounce("the New York Times", longer, 0, True) == (Part("the "), Part("times"))
    assert pronounce("nguyens", lexicon, 0, True) == (Part("nguyens"),)
    assert pronounce(text, {}, 0, True) == (Part(text),)


def test_a_lexicon_finds_letters_without_a_simple_lower_case(tmp_path: Path) -> None:
    lexicon = read_lexicon(write(tmp_path / "l", "Groß\tgrohs\nKS\tkay ess\ncafe\u0301\tka fay\n"))
    assert pronounce("der groß ſ kſ café", lexicon, 0, False) == (
        Part("der "), Part("grohs"), Part(" ſ "), Part("kay ess"), Part(" "), Part("ka fay"),
    )  # fmt: skip


@pytest.mark.parametrize("line", ["no tab", "term\t", "\tspoken"])
def test_a_line_of_a_lexicon_has_two_parts(line: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=":2: write a term, a tab and its pronunciation"):
        read_lexicon(write(tmp_path / "l", f"a\tb\n{line}\n"))


def voices(count: int) -> list[CommandVoice]:
    return [CommandVoice(f"v{number}", "say {text}") for number in range(count)]


def test_a_term_is_spoken_by_as_many_voices_as_possible() -> None:
    sentences = term_sentences(fill_templates(["foo", "bar"], read_templates(None, "en"), 6, 0))
    plan = plan_clips(sentences, voices(5), {}, SynthesisOptions(voices_per_sentence=2))
    used = defaultdict[str, Counter[str]](Counter)
    for clip in plan:
        used[clip.sentence.terms[0]][clip.voice.name] += 1
    assert {max(counts.values()) - min(counts.values()) for counts in used.values()} == {1}
    assert [len(counts) for counts in used.values()] == [5, 5]
    assert used["foo"] != used["bar"]  # the terms begin with different voices
    assert len(plan_clips(sentences, voices(1), {}, SynthesisOptions(voices_per_sentence=3))) == len(sentences)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_each_voice_speaks_each_variant(count: int) -> None:
    sentences = [Sentence(f"say foo {number}", ("foo",)) for number in range(6)]
    lexicon = {"foo": [Part("fu"), Part("fow")]}
    plan = plan_clips(sentences, voices(count), lexicon, SynthesisOptions(voices_per_sentence=1))
    assert {(clip.voice.name, clip.line.parts[1].text) for clip in plan} == {
        (f"v{number}", spoken) for number in range(count) for spoken in ("fu", "fow")
    }


def test_the_id_depends_on_what_decides_the_audio_only() -> None:
    def ids(text: str = "say foo", speed: float = 0.1, template: str = "say {text}", others: int = 0) -> list[str]:
        sentences = [*(Sentence(f"more {n}", ()) for n in range(others)), Sentence(text, ("Foo Bär",))]
        plan = plan_clips(sentences, [CommandVoice("v", template)], {}, SynthesisOptions(speed=speed))
        return [clip.id for clip in plan]

    assert ids() == ids() and ids()[0] == ids(others=2)[-1]
    assert len({*ids(), *ids("say foo!"), *ids(speed=0.2), *ids(template="speak {text}")}) == 4
    assert ids()[0].startswith("foo-bar-")


def test_speed_and_pitch_stay_in_their_range_and_vary() -> None:
    sentences = [Sentence(f"say {number}", ()) for number in range(200)]
    plan = plan_clips(sentences, voices(2), {}, SynthesisOptions(speed=0.2, pitch=0.05))
    speeds, pitches = ([getattr(clip.line, name) for clip in plan] for name in ("speed", "pitch"))
    assert 0.8 <= min(speeds) < 0.82 and 1.18 < max(speeds) <= 1.2
    assert 0.95 <= min(pitches) < 0.955 and 1.045 < max(pitches) <= 1.05
    still = plan_clips(sentences, voices(1), {}, SynthesisOptions(speed=0, pitch=0))
    assert {(clip.line.speed, clip.line.pitch) for clip in still} == {(1.0, 1.0)}


@pytest.mark.parametrize(
    ("heard", "expected"),
    [
        ("please check see cello kox again", (0, 3)),
        ("please check", (1, 3)),
        ("cease chick sell again", (2, 3)),
        ("", (3, 3)),
        ("Please, check celecoxib twelve again and again", (0, 3)),
    ],
)
def test_only_words_around_the_term_count(heard: str, expected: tuple[int, int]) -> None:
    assert general_errors("please check Celecoxib twelve again", ["celecoxib twelve"], heard, "basic@1") == expected


def test_a_clip_is_set_aside_above_the_limit_only() -> None:
    assert reason_against("please check foo again", ["foo"], "please foo", "basic@1", 0.5) == (
        "the model misses 2 of 3 general words"
    )
    assert not reason_against("please check foo again", ["foo"], "please foo again", "basic@1", 0.5)
    assert not reason_against("foo", ["foo"], "bar", "basic@1", 0.0)  # no general words
    assert reason_against("東京の天気", ["東京"], "大阪の天気", "ja-cer@2", 0.0) == ""


def answer(*lines: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": "\n".join(lines)}}]}).encode()


def test_lines_of_a_writer_are_cleaned_and_checked() -> None:
    content = '1. We gave Foo today.\n- "foo was late"\n* foo and foo\nfoods\n\n2) <|audio|> foo\n• give foo now'
    assert usable_sentences(content, "foo") == ["We gave foo today.", "foo was late", "give foo now"]


def test_a_writer_is_asked_again_and_its_sentences_are_kept(
    json_server: JsonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, json_server.url)
    monkeypatch.delenv(KEY, raising=False)
    replies = [answer("foo is here"), answer("foo is here", "where is foo", "no foo"), answer("a bar", "my bar")]
    json_server.respond = lambda number: (200, replies[number])
    kept = tmp_path / "sentences.json"
    expected = {"foo": ["foo is here", "where is foo"], "bar": ["a bar", "my bar"]}
    assert write_sentences("openai:gpt", ["foo", "bar"], 2, "en", kept) == expected
    path, body = json_server.requests[1]
    assert path == "/v1/chat/completions" and '"foo"' in json.loads(body)["messages"][0]["content"]
    assert write_sentences("openai:gpt", ["foo", "bar"], 2, "en", kept) == expected and len(json_server.requests) == 3


def test_kept_sentences_belong_to_a_model_and_a_language(
    json_server: JsonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, json_server.url)
    json_server.respond = lambda number: (200, answer(f"foo {number // 3}"))
    kept = tmp_path / "sentences.json"

    def write(model: str, count: int, language: str) -> list[str]:
        return write_sentences(f"openai:{model}", ["foo"], count, language, kept)["foo"]

    assert write("a", 2, "en") == ["foo 0"] and len(json_server.requests) == 3  # asked three times for two
    assert write("a", 2, "en") == ["foo 0"] and len(json_server.requests) == 3  # the same call gives the same
    assert write("b", 1, "en") == ["foo 1"] and write("a", 1, "de") == ["foo 1"] and write("a", 1, "fr") == ["foo 1"]
    assert "German" in json.loads(json_server.requests[4][1])["messages"][0]["content"]
    assert write("a", 2, "en") == ["foo 0"] and len(json_server.requests) == 6
    assert write("a", 3, "en") == ["foo 0", "foo 2"] and len(json_server.requests) == 9
    for damage in ('{"openai:a en": {"foo": ["foo"', '{"openai:a en": {"foo": ["foo 0"]}}', "[1]"):
        kept.write_text(damage)
        with pytest.raises(DataError, match=r"sentences.json: cannot be read; delete this file"):
            write("a", 2, "en")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (answer("nothing"), "wrote no sentence that contains 'foo'"),
        (b"{}", "has no `choices`: {}"),
        (b"[" * 10**5, "has no `choices`: [["),
    ],
)
def test_a_writer_that_fails(
    body: bytes, message: str, json_server: JsonServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URL, json_server.url)
    json_server.respond = lambda _: (200, body)
    with pytest.raises(ModelError) as error:
        write_sentences("openai:gpt", ["foo"], 2, "en", tmp_path / "s.json")
    assert message in str(error.value)


def test_a_writer_has_an_engine_and_a_model(tmp_path: Path) -> None:
    for writer in ("gpt", "openai:", "vllm:x"):
        with pytest.raises(RecipeError, match="must have the form openai:MODEL"):
            write_sentences(writer, ["foo"], 2, "en", tmp_path / "s.json")
