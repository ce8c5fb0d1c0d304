"""The report of a run: its content, hostile text in it, and its display in a real browser (Chromium, offline).

The run is evaluated by the real code on given hypotheses.
"""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from browser import open_browser
from conftest import embedded

from bench.synthetic_run import synthetic_run
from finetune.cli import main as cli
from finetune.core.files import read_json, write_json
from finetune.core.run_dir import RunDir
from finetune.core.wording import count
from finetune.data.manifest import Utterance
from finetune.data.style import SplitStyle, StyleFile, read_style
from finetune.data.text_rules import NumberLeft, RuleUse, TextChange
from finetune.metrics.mapsswe import Mapsswe
from finetune.metrics.scores import Comparison, TermRow
from finetune.report import tables
from finetune.report.clips import cells, direction
from finetune.report.page import visible
from finetune.report.wording import percent, points
from finetune.report.write_report import write_report

SCRIPT = "<script>window.hacked = true</script>"
TURNED = "safe \u202egnp.exe\u202c \u2066x\u2069 bell\x07"
ARABIC = "مرحبا بالعالم"
HOSTILE = [
    SCRIPT,
    "</style></pre>--><img src=https://example.com/x onerror=window.hacked=true>",
    TURNED,
    ARABIC,
    "{{ 7 * 7 }} {% raw %} `|*_ & \"quotes\" 'and' more",
    "漢字 かな",
    "word " * 120,
]
SECTIONS = (
    "verdict",
    "advice",
    "scores",
    "changes",
    "terms",
    "keywords",
    "words",
    "groups",
    "probes",
    "suspicious",
    "transcripts",
    "training",
    "provenance",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Twelve clips with audio, and one without audio for each hostile text."""
    folder = tmp_path_factory.mktemp("runs")
    real = [
        Utterance(item.id, item.audio_filepath, item.duration, item.text, speaker=item.speaker)
        for item in embedded("test", 12)
    ]
    hostile = [
        Utterance(
            f'"><b>{number}',
            f"/gone/{number}\"'><script>.wav",
            1.0 + number,
            text,
            speaker="<img src=x onerror=window.hacked=true>",
            extra={"accent": f"{SCRIPT}\u202e{number}"},
        )
        for number, text in enumerate(HOSTILE)
    ]
    terms = folder / "terms.txt"
    terms.write_text(f"{real[0].text.split()[-1]}\n<b>bold</b> term\nword\n", encoding="utf-8")
    hypotheses = {
        system: {item.id: change(item.text) for item in [*real, *hostile]}
        for system, change in (("base", lambda text: " ".join(text.split()[::2])), ("adapted", lambda text: text))
    }
    for system in hypotheses:
        hypotheses[system][real[3].id] = f"something {SCRIPT} else"  # the reference is suspicious
    hypotheses["adapted"][real[4].id], hypotheses["base"][real[4].id] = "nothing of it", real[4].text  # broken
    canary = [Utterance(f"c{number}", f"/gone/{number}", 2.0, "some general words here") for number in range(30)]
    for system in hypotheses:
        hypotheses[system] |= {item.id: item.text for item in canary}
    train = [Utterance("t", "/gone/t", 1.0, real[1].text, speaker=real[0].speaker)]
    return synthetic_run(
        folder / "hostile",
        {"train": train, "test": [*real, *hostile], "canary": canary},
        hypotheses,
        {
            "data": {"terms": str(terms)},
            "model": {"base": "base", "instruction": f"write {SCRIPT}"},
            "evaluate": {"groups": ["accent", "speaker"], "replicas": 200, "keyword_lists": [0, 5]},
        },
    )


@pytest.fixture(scope="module")
def page(run: RunDir) -> str:
    result = write_report(run)
    assert Path(result.page) == run.page and result.size == run.page.stat().st_size
    return run.page.read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Tags with their attributes, and the text between them, as a browser reads them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_hostile_text_is_text(page: str) -> None:
    elements = Elements(page)
    assert [tag for tag, _ in elements.tags].count("script") == 1, "its own"
    assert not {"b>0", "img", "iframe", "object", "link"} & {tag for tag, _ in elements.tags}
    for tag, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href"):
            address = attributes.get(name) or ""
            assert not re.match(r"[a-z]+:(?!audio/mpeg)", address, re.I), address[:80]
    assert SCRIPT in elements.text and "{{ 7 * 7 }} {% raw %}" in elements.text and ARABIC in elements.text
    assert "safe ⟨U+202E⟩gnp.exe⟨U+202C⟩ ⟨U+2066⟩x⟨U+2069⟩ bell⟨U+0007⟩" in elements.text
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", page)


def test_sections_are_in_order(page: str) -> None:
    ids = [attributes["id"] for tag, attributes in Elements(page).tags if tag == "section"]
    assert ids == list(SECTIONS)
    anchors = {attributes["href"] for tag, attributes in Elements(page).tags if tag == "a" and attributes.get("href")}
    everything = {f"#{attributes['id']}" for _, attributes in Elements(page).tags if "id" in attributes}
    assert {f"#{name}" for name in SECTIONS[1:]} <= anchors <= everything


def test_numbers_are_those_of_the_evaluation(run: RunDir, page: str) -> None:
    text, metrics = Elements(page).text, read_json(run.scores)
    for name in ("test", "canary"):
        for system in ("base", "adapted"):
            assert f"{100 * metrics['scores'][name][system]['wer']:.1f}" in text
    assert "1 test clip with a training sentence" in text
    assert f"finetune run {run.resolved} --set name=hostile-again" in text
    for value in (*read_json(run.marker("prepare"))["hashes"].values(), metrics["provenance"]["device"]):
        assert value in text


def test_audio_is_in_the_page_once(page: str) -> None:
    sources = [attributes["src"] for tag, attributes in Elements(page).tags if tag == "audio"]
    assert len(sources) > 5 and len(sources) == len(set(sources))
    assert all(str(source).startswith("data:audio/mpeg;base64,") for source in sources)
    assert "The audio file was missing" in page


def test_audio_beyond_the_limit_is_linked(run: RunDir) -> None:
    write_report(run, embedded_bytes=1)
    sources = [
        str(attributes["src"])
        for tag, attributes in Elements(run.page.read_text(encoding="utf-8")).tags
        if tag == "audio"
    ]
    assert [source.startswith("data:") for source in sources] == [True] + [False] * (len(sources) - 1)
    path = (run.report / sources[1].partition("#")[0]).resolve()
    assert path.is_file() and sources[1].partition("#")[2].startswith("t=0,")


def test_the_summary_is_short_and_agrees_with_the_page(run: RunDir, page: str) -> None:
    write_report(run)
    text = run.digest.read_text(encoding="utf-8")
    title = re.search(r"<title>(.*?)</title>", page)
    assert title and text.startswith(f"## {title[1]}")
    assert len(text.splitlines()) < 60 and "<" not in text and "| test |" in text and "| canary |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.replace("\\|", "").count("|") for line in rows}) == 1


def test_a_path_that_is_not_a_run_gets_no_lock_and_a_suggestion(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inner, plain, root = run.root / "export", tmp_path / "folder", run.root
    inner.mkdir(exist_ok=True)
    plain.mkdir()
    for path, message in [
        (inner, f"{inner}: not a run directory; did you mean {root}?"),  # a lock there would block the next export
        (plain, f"{plain}: not a run directory; pass one, such as runs/quickstart"),
        (Path("my.yaml"), "my.yaml: a recipe; pass its run directory, such as runs/my"),
        (Path(f"{root}x"), f"{root}x: no such run directory; did you mean {root}?"),
    ]:
        assert cli.main(["report", str(path)]) == 1
        assert message in capsys.readouterr().err
        assert not (path / "lock").exists()


def test_the_report_command_and_its_errors(run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.page.unlink(missing_ok=True)
    assert cli.main(["report", str(run.root)]) == 0 and run.page.is_file()
    assert cli.main(["report", str(tmp_path / "nothing")]) == 1
    assert "no such run directory" in capsys.readouterr().err
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    shutil.copy(run.resolved, unfinished)
    assert cli.main(["report", str(unfinished)]) == 1
    assert "this run has not been evaluated; run `finetune evaluate RECIPE` first" in capsys.readouterr().err
    other = shutil.copytree(run.root, tmp_path / "other")
    write_json(RunDir(other).scores, {**read_json(run.scores), "schema_version": 1})
    assert cli.main(["report", str(other)]) == 1
    assert "has schema 1, but this version of finetune reads schema 5. Run `finetune evaluate RECIPE` again" in (
        capsys.readouterr().err
    )


def test_a_report_with_missing_sections(tmp_path: Path) -> None:
    clips = [Utterance(f"u{number}", f"/gone/{number}", 2.0, "all is said") for number in range(3)]
    same = {item.id: item.text for item in clips}
    little = synthetic_run(
        tmp_path / "little",
        {"train": clips[:1], "test": clips},
        {"base": same, "adapted": same},
        {"evaluate": {"replicas": 200, "probes": False}},
    )
    little.metrics.unlink()
    little.style.unlink()  # a run of an earlier version
    write_report(little)
    elements = Elements(little.page.read_text(encoding="utf-8"))
    ids = [attributes["id"] for tag, attributes in elements.tags if tag == "section"]
    assert not {"terms", "keywords", "probes", "suspicious", "transcripts"} & set(ids)
    for reason in ("no data.canary", "evaluate.probes is off", "no data.terms, and no column"):
        assert reason in elements.text
    assert "No significant difference" in elements.text and "only 3 clips" in elements.text.lower()


def test_groups_with_equal_rates_have_no_worst_one(run: RunDir, page: str, tmp_path: Path) -> None:
    other = RunDir(shutil.copytree(run.root, tmp_path / "run"))
    scores = read_json(other.scores)
    for gap, shown in ((0.05, True), (0.0, False)):
        for table in scores["groups"]["test"]:
            table["worst"], table["gap"] = {"adapted": "north"}, {"adapted": gap}
        write_json(other.scores, scores)
        write_report(other)
        assert ("highest WER: north, gap 5.0 points" in Elements(other.page.read_text()).text) == shown
        assert ("highest WER" in other.page.read_text()) == shown


def test_scores_with_a_list_of_terms_say_so(run: RunDir, page: str, tmp_path: Path) -> None:
    """Also if keywords of rows were written too, so that the WER without the list is not known."""
    listed = "Both models had a list of 2 terms (decode.terms)."
    assert listed not in page
    other = RunDir(shutil.copytree(run.root, tmp_path / "run"))
    settings = read_json(other.resolved)
    settings["decode"]["terms"] = ["stent", "aorta"]
    write_json(other.resolved, settings)
    write_report(other)
    for path in (other.page, other.digest):
        assert listed in path.read_text() and "Without them" not in path.read_text()
    scores = read_json(other.scores)
    write_json(other.scores, scores | {"without_terms": {"test": {"base": 0.5, "adapted": 0.25}}})
    write_report(other)
    for path in (other.page, other.digest):
        assert f"{listed} Without them the WER of test is 50.0 % (base) and 25.0 % (adapted)." in path.read_text()
    japanese = read_json(other.scores)
    for system in ("base", "adapted"):
        japanese["scores"]["test"][system]["normalizer"] = "ja-cer@2"
    write_json(other.scores, japanese)
    write_report(other)
    for path in (other.page, other.digest):
        assert "Without them the CER of test is 50.0 %" in path.read_text()
    charts = Elements(other.page.read_text()).text
    assert "CER by duration" in charts and "CER against speed" in charts and "valid CER (%)" in charts
    assert "WER by duration" not in charts and "WER against speed" not in charts and "valid WER (%)" not in charts


def test_intervals_that_are_limited_say_so(run: RunDir, page: str, tmp_path: Path) -> None:
    other = RunDir(shutil.copytree(run.root, tmp_path / "run"))
    scores = read_json(other.scores)
    unit = scores["scores"]["test"]["base"]["blocks"]["unit"]
    blocks = scores["differences"]["test"]["blocks"]
    assert f"intervals over {blocks} {unit}s (test); " in " ".join(page.replace("&nbsp;", " ").split())
    scores["scores"]["test"]["base"]["interval"]["note"] = "only 3 <blocks>"
    write_json(other.scores, scores)
    write_report(other)
    assert "Interval of test, base: only 3 <blocks>." in Elements(other.page.read_text()).text


def test_the_style_of_the_transcripts_and_the_rules_are_shown(run: RunDir, page: str) -> None:
    text = Elements(page).text
    assert "The base model writes lower case words, numbers in words and no punctuation." in text
    style = read_style(run.style)
    assert style is not None
    tags = next(item for item in style.splits["test"].features if item.feature == "tags")
    rows = {row.name: row for row in tables.transcripts(style)}
    assert rows["tags"].counts == [0, tags.rows, 0] and rows["tags"].example == tags.examples[0].text
    rule = RuleUse("case: lower", 3, [TextChange("u", "Up", "up")])
    left = NumberLeft("no usual reading", 2, [TextChange("u", "take 5mg", "5mg")])
    changed = StyleFile(splits={"train": SplitStyle(4, [], [rule], [left], 0), "test": SplitStyle(2, [], [], [], 0)})
    assert tables.transcripts(changed) == [
        tables.StyleRow("changed by case: lower", [3, 0], "Up → up"),
        tables.StyleRow("numbers left: no usual reading", [2, 0], "5mg"),
    ]


def test_words_on_empty_references_are_listed(tmp_path: Path) -> None:
    clips = [
        Utterance(f"u{n}", f"/gone/{n}", 2.0, "" if n < 2 else f"all is said {n}", language="en") for n in range(12)
    ]
    base = {item.id: item.text for item in clips}
    adapted = base | {"u0": "some made up words", "u1": "more"}
    little = synthetic_run(
        tmp_path / "quiet",
        {"train": [Utterance("t", "/gone/t", 1.0, "other")], "test": clips},
        {"base": base, "adapted": adapted},
        {"evaluate": {"replicas": 200, "probes": False, "groups": ["language"]}},
    )
    scores = read_json(little.scores)["scores"]["test"]["adapted"]
    assert scores["empty_references"] == {"utterances": 2, "with_words": 2, "words": 5, "ids": ["u0", "u1"]}
    assert (scores["insertions"], scores["reference_words"], scores["wer"]) == (5, 40, 5 / 40)
    write_report(little)
    text = " ".join(Elements(little.page.read_text(encoding="utf-8")).text.split())
    assert "insertion: base 0 words on 0 clips, adapted 5 words on 2 clips." in text
    assert "Words without speech 2" in text and "unspoken: has words although the reference is empty" in text
    reference, hypothesis = (
        little.transcripts("test", name, "trn").read_text().splitlines() for name in ("ref", "adapted")
    )
    assert reference[0] == " (unknown-u0)" and hypothesis[0] == "some made up words (unknown-u0)"
    assert little.transcripts("test", "ref", "stm").read_text().splitlines()[0] == "unknown-u0 1 unknown 0.000 2.000"


def test_a_test_set_without_words_has_no_wer(tmp_path: Path) -> None:
    clips = [Utterance(f"u{n}", f"/gone/{n}", 2.0, "", language="en") for n in range(12)]
    silent = synthetic_run(
        tmp_path / "silent",
        {"train": [Utterance("t", "/gone/t", 1.0, "other")], "test": clips},
        {"base": {item.id: "made up words" for item in clips}, "adapted": {item.id: "um" for item in clips}},
        {"evaluate": {"replicas": 200, "probes": False, "groups": ["language"]}},
    )
    write_report(silent)
    text = " ".join(Elements(silent.page.read_text(encoding="utf-8")).text.split())
    assert "inserted words" in text and "Inserted words 36 → 12 in 12 clips without speech" in text
    assert "100.0" not in text.partition("Scores by set")[0].partition("Next steps")[0]
    assert "| test, inserted words | 36 | 12 | -24 | – | 0 |" in silent.digest.read_text(encoding="utf-8")


def test_a_group_without_words_has_no_wer(tmp_path: Path) -> None:
    texts = {f"u{n}": "some words" if n < 6 else "" for n in range(12)}
    clips = [
        Utterance(name, f"/gone/{name}", 2.0, text, extra={"kind": "speech" if text else "noise"})
        for name, text in texts.items()
    ]
    mixed = synthetic_run(
        tmp_path / "mixed",
        {"train": [Utterance("t", "/gone/t", 1.0, "other")], "test": clips},
        {"base": dict.fromkeys(texts, "some"), "adapted": texts},
        {"evaluate": {"replicas": 200, "probes": False, "groups": ["kind"]}},
    )
    write_report(mixed)
    text = "".join(Elements(mixed.page.read_text(encoding="utf-8")).text.split())
    assert "noise600–––––" in text and "speech601250.00.0" in text


def test_formats_of_numbers() -> None:
    assert (percent(0.2144), percent(None)) == ("21.4", "–")
    assert (points(-0.595), points(0.018), points(-0.0001), points(0.0)) == ("−59.5", "+1.8", "0.0", "0.0")
    assert (count(1, "clip"), count(10_000, "clip")) == ("1 clip", "10,000 clips")


def test_invisible_characters_are_shown() -> None:
    assert visible("a\u200bb\ud800\U000e0041") == "a⟨U+200B⟩b⟨U+D800⟩⟨U+E0041⟩"
    assert visible("क्\u200dष 👩\u200d👧 nbsp\u00a0 tab\t") == "क्\u200dष 👩\u200d👧 nbsp\u00a0 tab\t"


def test_states_of_aligned_words() -> None:
    assert cells(("take", "take", "make")) == (("take", "correct"), ("take", "correct"), ("make", "wrong"))
    assert cells(("take", "", "take")) == (("take", "correct"), ("", "missing"), ("take", "correct"))
    assert cells(("", "the", "")) == (("", "gap"), ("the", "inserted"), ("", "gap"))


def test_direction_of_scripts() -> None:
    assert [direction(text) for text in ("12 " + ARABIC, "a " + ARABIC, "漢字", "123", "")] == [
        "rtl",
        "ltr",
        "ltr",
        "ltr",
        "ltr",
    ]


def test_tables_of_both_models() -> None:
    base = [TermRow("a", 3, 1, 0, seen=True), TermRow("b", 0, 0, 2, seen=False)]
    rows = tables.terms(base, [TermRow("a", 3, 3, 0, seen=True)])
    assert [(row.term, row.base, row.adapted, row.false_base) for row in rows] == [("a", 1, 3, 0), ("b", 0, 0, 2)]
    difference = Comparison(
        difference=-0.1,
        low=-0.2,
        high=-0.05,
        probability_better=1.0,
        p_value=0.01,
        detectable=0.1,
        blocks=20,
        mapsswe=Mapsswe(0, 0.0, None, None, ""),
        scope="other speakers",
        speakers=20,
    )
    scale = tables.scale(difference)
    assert 0 < scale.left < scale.value < scale.left + scale.width < scale.zero < 100


# A real browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.mark.parametrize(
    ("width", "scheme", "scripts"),
    [(1280, "light", True), (390, "light", True), (1280, "dark", True), (390, "dark", False)],
)
def test_the_page_in_a_browser(browser: Any, run: RunDir, page: str, width: int, scheme: str, scripts: bool) -> None:
    from PIL import Image

    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, java_script_enabled=scripts
    )
    tab, messages, requests = context.new_page(), list[str](), list[str]()
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.on("request", lambda request: requests.append(request.url))
    tab.goto(run.page.as_uri())
    assert requests == [run.page.as_uri()], "the page sends no request"
    for name in SECTIONS:
        assert tab.locator(f"#{name}").is_visible(), name
    assert tab.locator(".filter").is_visible() == scripts
    assert tab.locator("figure svg").count() == 3
    picture = Image.open(BytesIO(tab.screenshot()))
    colours = picture.convert("RGB").getcolors(1 << 20) or []
    assert len(colours) > 100 and max(number for number, _ in colours) < 0.98 * width * 900, "not blank"
    background = max(colours)[1]
    assert (sum(background) < 200) == (scheme == "dark")
    if scripts:
        tab.evaluate("document.querySelectorAll('details').forEach(part => { part.open = true; })")
        wide, seen = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert wide <= seen == width, "no scroll bar for the whole page"
        assert tab.evaluate("window.hacked") is None
        tab.locator(".filter input").fill("not there at all")
        assert tab.locator(".clip:visible").count() == 0
        tab.locator(".filter input").fill("")
        head = tab.locator("#terms table.sortable th.n button").first
        head.click()
        cells = tab.locator("#terms table.sortable tbody td:nth-child(3)").all_inner_texts()
        assert [int(cell) for cell in cells] == sorted(map(int, cells), reverse=True)
        assert (
            tab.evaluate("""() => new Promise(done => { const sound = document.querySelector('audio');
            sound.onloadedmetadata = () => done(sound.duration > 0.5); sound.onerror = () => done('error');
            sound.preload = 'auto'; sound.load(); })""")
            is True
        )
    assert messages == []
    context.close()


def test_the_page_prints(browser: Any, run: RunDir, page: str) -> None:
    tab = browser.new_page()
    tab.goto(run.page.as_uri())
    assert tab.pdf(format="A4").startswith(b"%PDF")
    tab.close()


def test_the_size_of_the_page_is_limited(page: str) -> None:
    assert len(page) < 2_000_000
