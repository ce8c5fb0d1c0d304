"""Annotations in transcripts: all are named; those that are certain are removed, and no spoken word is lost."""

import pytest

from finetune.data.tags import find_tags, is_known, strip_tags, without_tags


@pytest.mark.parametrize(
    ("text", "tags", "stripped"),
    [
        ("we went <unk> to the park", ["<unk>"], "we went to the park"),
        ("[noise] please close the door", ["[noise]"], "please close the door"),
        ("my brother <COMMA> works <PERIOD>", ["<COMMA>", "<PERIOD>"], "my brother works"),
        ("(laughs) in a small shop", ["(laughs)"], "in a small shop"),
        ("%HESITATION the man at the door", ["%HESITATION"], "the man at the door"),
        ("uh{noise} where have you been", ["{noise}"], "uh where have you been"),
        ("*cough* all this time", ["*cough*"], "all this time"),
        ("plain words here", [], "plain words here"),
        ("naïve café 5 mg", [], "naïve café 5 mg"),
        ("~ silence ~ and then", ["~ silence ~"], "and then"),
        ("+noise+ ++breath++ yes", ["+noise+", "++breath++"], "yes"),
        ("#ah no", ["#ah"], "ah no"),
        ("%uh no", ["%uh"], "uh no"),
        ("((unintelligible)) so", ["((unintelligible))"], "so"),
        ("((i think)) so", ["((i think))"], "i think so"),
        ("(door noise) (clears throat) x", ["(door noise)", "(clears throat)"], "x"),
        ("（笑）そう［拍手］です", ["（笑）", "［拍手］"], "そう です"),
        ("&=laughs &-uh yes", ["&=laughs", "&-uh"], "uh yes"),
        ("[laughter-yeah] ok", ["[laughter-yeah]"], "yeah ok"),
        ("{F uh, } {D you know} yes", ["{F uh, }", "{D you know}"], "uh, you know yes"),
        ("the(2) cat", ["(2)"], "the cat"),
        ("!SIL >> ♪ la ♪", ["!SIL", ">>", "♪", "♪"], "la"),
        ("AT&amp;T <b>bold</b> caf&#233;", ["&amp;", "<b>", "</b>", "&#233;"], "AT&T bold café"),
        ("&lt;unk&gt; x", ["&lt;", "&gt;"], "x"),
        ("a &amp;lt;unk&amp;gt; x", ["&amp;", "&amp;"], "a x"),
        ('<a href="x y">link</a> < unk > <|en|>', ['<a href="x y">', "</a>", "< unk >", "<|en|>"], "link"),
        ("yes [noise], no [noise].", ["[noise]", "[noise]"], "yes, no."),
        ("*all* of *it*", ["*all*", "*it*"], "all of it"),
    ],
)
def test_annotations_are_named_and_removed(text: str, tags: list[str], stripped: str) -> None:
    assert [tag.text for tag in find_tags(text)] == tags
    assert strip_tags(text) == stripped


@pytest.mark.parametrize(
    "text",
    ["he said (well, shouted) no", "(both) of them", "(speaks French) oui", "th[e]- thing", "SIL hello", "+foo+ bar"],
)
def test_what_may_be_spoken_is_named_and_kept(text: str) -> None:
    assert find_tags(text) and strip_tags(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c > d",
        "<3 you",
        "a -> b",
        "C++ and C++ or C#",
        "2 * 3 * 4",
        "a + b + c",
        "and/or/not",
        "5% of 100 %",
        "snake_case_name",
        "R&D; salt & pepper; AT&T",
        "~~ ** #",
        "it's 7 o'clock",
    ],
)
def test_plain_text_has_no_annotations(text: str) -> None:
    assert find_tags(text) == [] and strip_tags(text) == text


def test_extra_annotations() -> None:
    extra = ["xxx", "(speaks French)"]
    assert strip_tags("XXX (speaks french) oui xxxy", extra) == "oui xxxy"
    assert [tag.text for tag in find_tags("a xxx b [noise]", extra)] == ["xxx", "[noise]"]
    assert without_tags("a(both) b") == "a  b"


def test_a_known_annotation_has_an_event() -> None:
    assert is_known("[Background_NOISE 2]") and not is_known("(both people)") and not is_known("(noise of the city)")
