"""The page of `finetune serve` in headless Chromium, with a stand-in for the server."""

import json
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import srt
import webvtt
from browser import open_browser
from command import noise
from conftest import VOCABULARY
from page_server import PAGE, page_server, recording
from transcription_server import Answer, TranscriptionServer

from finetune.data.audio import inspect_audio
from finetune.data.audio_suffixes import AUDIO_SUFFIXES
from finetune.data.manifest import read_manifest
from finetune.serving.correction_store import CorrectionStore, parse_corrections

CLIP = VOCABULARY / "audio" / "canary" / "canary-001-en-us-f3.opus"
VISIBLE = "button:visible, input:visible, select:visible, textarea:visible, [role=slider]:visible"
UNNAMED = """elements => elements.filter(e => {
  const name = e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent;
  return e.tabIndex >= 0 && !name.trim();
}).map(e => e.outerHTML)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A recording and the answer of the server to it."""
    path = tmp_path_factory.mktemp("audio") / "ward round.wav"
    return path, recording(path)


@pytest.fixture
def server(ward: tuple[Path, dict[str, Any]]) -> Iterator[TranscriptionServer]:
    server = page_server(ward[1])
    yield server
    server.close()


class Tab:
    """A tab with the page; messages of its console and requests to other servers are kept."""

    def __init__(self, browser: Any, server: Any, width: int = 1280, scheme: str = "light") -> None:
        self.server, self.messages, self.foreign = server, list[str](), list[str]()
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.note(request.url))
        self.page.goto(server.url)

    def note(self, url: str) -> None:
        if not url.startswith((self.server.url, "blob:", "data:")):
            self.foreign.append(url)

    def transcribe(self, path: Path) -> None:
        self.page.wait_for_selector("#dot.ok")
        self.page.set_input_files("#file", str(path))
        self.page.click("#transcribe")
        self.page.wait_for_selector("#output:not([hidden])")

    def press_for_chooser(self) -> Any:
        """The file chooser that the Enter key opens; a busy browser can drop the key, so it is pressed again."""
        opened = list[Any]()
        self.page.on("filechooser", lambda chooser: opened.append(chooser))
        for _ in range(20):
            self.page.keyboard.press("Enter")
            self.page.wait_for_timeout(500)
            if opened:
                return opened[-1]
        pytest.fail("no file chooser opens")

    def until(self, condition: str) -> None:
        """Waits for a condition in JavaScript; the policy of the page forbids `wait_for_function`."""
        for _ in range(200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never: {condition}")

    def active(self) -> str:
        """The element that has the focus: its id, or its class."""
        return str(self.page.evaluate("document.activeElement.id || document.activeElement.className"))

    def tab_to(self, name: str) -> None:
        """Presses the Tab key until an element has the focus."""
        for _ in range(40):
            if self.active() == name:
                return
            self.page.keyboard.press("Tab")
        pytest.fail(f"{name} cannot be reached with the Tab key")


@pytest.fixture
def tab(browser: Any, server: TranscriptionServer) -> Iterator[Tab]:
    tab = Tab(browser, server)
    yield tab
    tab.context.close()


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
    ],
)
def test_sizes_and_colours(
    browser: Any, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]], width: int, scheme: str
) -> None:
    from PIL import Image

    tab = Tab(browser, server, width, scheme)
    tab.transcribe(ward[0])
    tab.page.locator(".word").nth(2).click()
    assert tab.page.locator(".word").count() == len(ward[1]["words"])
    assert tab.page.locator("#overview").is_visible(), "a recording that is longer than the view"
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width, "no scroll bar for the whole page"
    assert tab.page.locator(VISIBLE).evaluate_all(UNNAMED) == []
    picture = Image.open(BytesIO(tab.page.screenshot())).convert("RGB")
    colours = picture.getcolors(1 << 20) or []
    assert len(colours) > 100 and (sum(max(colours)[1]) < 200) == (scheme == "dark")
    assert tab.messages == [] and tab.foreign == []
    tab.context.close()


def test_by_keyboard_alone(tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]]) -> None:
    page, keys = tab.page, tab.page.keyboard
    page.wait_for_selector("#dot.ok")
    tab.tab_to("file")
    tab.press_for_chooser().set_files(str(ward[0]))
    page.wait_for_selector("#player:not([hidden])")
    tab.tab_to("keywords")
    keys.type("valsartan\nword two, three")
    tab.tab_to("transcribe")
    keys.press("Enter")
    page.wait_for_selector(".word")
    (request,) = server.requests
    assert request.form["keywords[]"] == ["valsartan", "word two", "three"]
    tab.tab_to("wave")
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    assert page.get_attribute("#wave", "aria-valuenow") == "2.0"
    assert page.get_attribute("#wave", "aria-valuetext").startswith("0:02.0 of 0:")
    tab.tab_to("word")
    texts = [segment["text"].split() for segment in ward[1]["segments"]]
    assert page.evaluate("document.activeElement.textContent") == texts[0][0]
    keys.press("ArrowDown")
    keys.press("ArrowRight")
    assert page.evaluate("document.activeElement.textContent") == texts[1][1]
    keys.press("Enter")
    tab.until("!document.getElementById('audio').paused")
    started = next(w["start"] for w in ward[1]["words"][len(texts[0]) + 1 :])
    assert started <= page.evaluate("document.getElementById('audio').currentTime") < started + 2
    keys.press("e")
    assert page.evaluate("getSelection().toString()") == texts[1][1], "the word is selected"
    keys.type("new words")
    keys.press("Control+Enter")
    assert page.evaluate("document.activeElement.textContent") == "new"
    keys.press("ArrowUp")
    keys.press("c")
    assert page.locator(".segment.checked").count() == 2
    tab.tab_to("save")
    keys.press("Enter")
    page.locator("#save-hint", has_text="Saved").wait_for()
    assert server.requests[-1].path == "/v1/corrections"
    assert tab.messages == [] and tab.foreign == []


def test_what_is_sent(tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]]) -> None:
    page = tab.page
    page.wait_for_selector("#dot.ok")
    assert page.locator("#model option").all_text_contents() == ["granite", "other"]
    assert page.locator("#adapter option").all_text_contents() == ["None", "medical"]
    page.select_option("#language", "es")
    page.select_option("#adapter", "medical")
    tab.transcribe(ward[0])
    assert server.requests[0].path == "/v1/audio/transcriptions"
    assert server.requests[0].form == {
        "model": ["medical"],
        "response_format": ["verbose_json"],
        "language": ["es"],
        "timestamp_granularities[]": ["word", "segment"],
    }
    assert (server.requests[0].file_name, server.requests[0].content) == ("ward round.wav", ward[0].read_bytes())
    page.select_option("#model", "other")
    assert page.locator("#adapter-row").is_hidden()
    page.select_option("#target", "en")
    page.click("#transcribe")
    page.locator("#summary", has_text="Translation").wait_for()
    assert server.requests[1].path == "/v1/audio/translations"
    assert server.requests[1].form["target_language"] == ["en"] and server.requests[1].form["model"] == ["other"]
    assert page.locator("#save-box").is_hidden(), "a translation is no transcript to train with"


def downloaded(tab: Tab, button: str) -> str:
    with tab.page.expect_download() as download:
        tab.page.click(button)
    assert download.value.suggested_filename.startswith("ward round.")
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_downloads_have_the_words_and_their_times(tab: Tab, ward: tuple[Path, dict[str, Any]]) -> None:
    tab.transcribe(ward[0])
    tab.page.locator(".word").first.focus()
    tab.page.keyboard.press("e")
    tab.page.keyboard.type("<Mr> & co")
    tab.page.keyboard.press("Control+Enter")
    words = ["<Mr>", "&", "co", *ward[1]["text"].split()[1:]]
    cues = list(srt.parse(downloaded(tab, "#srt")))
    assert " ".join(cue.content for cue in cues).split() == ["‹Mr>", *words[1:]]  # SRT has no escapes
    assert cues[0].start.total_seconds() == pytest.approx(ward[1]["words"][0]["start"], abs=0.001)
    for cue in cues:
        assert cue.start < cue.end and all(len(line) <= 42 for line in cue.content.split("\n"))
    assert all(a.end <= b.start for a, b in pairwise(cues))
    content = downloaded(tab, "#vtt")
    assert "&lt;Mr&gt; &amp; co" in content
    assert len(webvtt.from_string(content)) == len(cues)
    assert downloaded(tab, "#txt").split() == words


def test_a_recording_is_sent_as_the_browser_made_it(tab: Tab, server: TranscriptionServer, tmp_path: Path) -> None:
    page = tab.page
    page.wait_for_selector("#dot.ok")
    page.click("#record")
    page.locator("#record-text", has_text="Stop 0:01").wait_for()
    page.click("#record")
    page.wait_for_selector("#player:not([hidden])")
    page.click("#transcribe")
    page.wait_for_selector("#output:not([hidden])")
    request = server.requests[0]
    assert request.file_name == "recording.webm"
    path = tmp_path / "recording"
    path.write_bytes(request.content)
    assert 0.5 < inspect_audio(path).duration < 10


def test_corrections_can_be_saved_by_the_server(
    tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    tab.transcribe(ward[0])
    tab.page.locator(".segment").nth(1).get_by_role("checkbox").check()
    tab.page.locator(".segment").nth(2).get_by_role("button", name="Edit").click()
    tab.page.keyboard.press("Control+a")
    tab.page.keyboard.type("quite another text")
    tab.page.get_by_role("button", name="Keep").click()
    assert tab.page.text_content("#save") == "Save 2 segments"
    tab.page.click("#save")
    tab.page.locator("#save-hint", has_text="Saved").wait_for()
    request, segments = server.requests[-1], ward[1]["segments"]
    sent = json.loads(request.form["corrections"][0])
    assert sent["model"] == "granite"
    assert [part["text"] for part in sent["segments"]] == [segments[1]["text"], "quite another text"]
    assert [part["machine_text"] for part in sent["segments"]] == [part["text"] for part in segments[1:3]]
    store, path = CorrectionStore(tmp_path / "corrections"), tmp_path / "upload"
    path.write_bytes(request.content)
    assert store.save(path, parse_corrections(request.form["corrections"][0])).saved == 2
    assert {saved.suffix for saved in (store.folder / "audio").iterdir()} == {".wav"}


def test_with_the_server_itself(browser: Any, serve: Any, tmp_path: Path) -> None:
    """From a file to a row of a manifest, on the embedded model."""
    with serve(corrections=str(tmp_path / "saved")) as running:
        tab = Tab(browser, running)
        text = running.post(files={"file": ("a.opus", CLIP.read_bytes())}, data={"language": "en"}).json()["text"]
        tab.page.wait_for_selector("#dot.ok")
        tab.page.select_option("#language", "en")
        tab.transcribe(CLIP)
        assert tab.page.locator(".word").all_text_contents() == text.split()
        assert "0:0" in tab.page.locator(".word").first.get_attribute("title")
        tab.page.locator(".word").last.focus()
        tab.page.keyboard.press("e")
        tab.page.keyboard.type("another")
        tab.page.keyboard.press("Control+Enter")
        tab.page.click("#save")
        tab.page.locator("#save-hint", has_text="Saved 1 segment").wait_for()
        assert tab.messages == [] and tab.foreign == []
        tab.context.close()
    (row,) = read_manifest(tmp_path / "saved" / "manifest.jsonl")
    assert (row.text, row.language) == (f"{text.rpartition(' ')[0]} another", "en")
    assert row.extra["machine_text"] == text and row.extra["corrected_model"] == "nano"


def test_without_corrections_on_the_server_none_are_offered(
    tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]]
) -> None:
    server.pages["/v1/server"] = Answer(404, {"error": {"message": "no such route"}})  # another server
    tab.page.reload()
    tab.transcribe(ward[0])
    assert tab.page.locator("#save-box").is_hidden() and tab.page.get_by_role("checkbox").count() == 0


def test_errors_of_the_server_are_shown(
    tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]]
) -> None:
    tab.page.wait_for_selector("#dot.ok")
    busy = Answer(429, {"error": {"message": "the queue is full <b>"}}, headers={"Retry-After": "7"})
    server.respond = lambda _: busy
    tab.page.set_input_files("#file", str(ward[0]))
    tab.page.click("#transcribe")
    tab.page.wait_for_selector("#error:not([hidden])")
    assert tab.page.text_content("#error") == "The queue is full <b>. Try again in 7 s."
    server.respond = lambda _: Answer(502, b"<html>", "text/html")
    tab.page.click("#transcribe")
    tab.page.locator("#error", has_text="502").wait_for()
    assert tab.page.locator("#transcribe").is_enabled(), "it can be tried again"
    warned = Answer(body={"text": "a", "duration": 1}, headers={"X-Finetune-Warning": "no keywords in training"})
    server.respond = lambda _: warned
    tab.page.click("#transcribe")
    tab.page.locator("#status", has_text="Note: no keywords in training.").wait_for()
    assert tab.page.locator("#error").is_hidden()


def test_a_key_is_asked_for_and_sent(tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]]) -> None:
    open_page = server.pages["/v1/models"]
    server.pages["/v1/models"] = Answer(401, {"error": {"message": "wrong key"}})
    tab.page.reload()
    tab.page.wait_for_selector("#key-box:not([hidden])")
    assert tab.active() == "key"
    server.pages["/v1/models"] = open_page
    tab.page.keyboard.type("sk-1")
    tab.page.keyboard.press("Enter")
    tab.transcribe(ward[0])
    assert server.requests[0].headers["authorization"] == "Bearer sk-1"
    assert tab.page.locator("#key-box").is_hidden()


def test_texts_are_never_markup(tab: Tab, server: TranscriptionServer, ward: tuple[Path, dict[str, Any]]) -> None:
    text = "<img src=x onerror=window.hacked=1> <script>window.hacked=1</script>"
    server.respond = lambda _: Answer(body={"text": text, "duration": 3.0})
    tab.transcribe(ward[0])
    assert tab.page.locator("#transcript img, #transcript script").count() == 0
    assert "".join(tab.page.locator(".words").all_text_contents()) == text
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.locator(".word").first.get_attribute("title") == "", "no times are invented"


def test_a_file_that_the_browser_cannot_play_is_transcribed(tab: Tab, tmp_path: Path) -> None:
    path = tmp_path / "call.wma"
    path.write_bytes(noise(tmp_path / "noise.wav").read_bytes()[100:])
    tab.transcribe(path)
    tab.page.wait_for_selector("#wave-note:not([hidden])")
    assert "cannot play" in str(tab.page.text_content("#wave-note"))
    assert tab.page.locator(".word").count() > 5


def test_another_file_has_its_own_length_and_the_chosen_speed(tab: Tab, tmp_path: Path) -> None:
    tab.page.wait_for_selector("#dot.ok")
    for seconds, speed in ((3.0, "1.5"), (2.0, "")):
        tab.page.set_input_files("#file", str(noise(tmp_path / f"{seconds}.wav", seconds)))
        tab.until(f"document.getElementById('clock').textContent === '0:00.0 / 0:0{seconds}'")
        if speed:
            tab.page.select_option("#speed", speed)
    assert tab.page.evaluate("document.getElementById('audio').playbackRate") == 1.5


def test_the_word_that_is_spoken_is_marked(tab: Tab, server: TranscriptionServer, tmp_path: Path) -> None:
    """Also in a transcript of more than an hour, whose waveform the browser does not decode."""
    words = [{"word": f"w{n}", "start": n / 2, "end": n / 2 + 0.4} for n in range(9000)]
    segments = [
        {"start": n / 2, "end": n / 2 + 30, "text": " ".join(word["word"] for word in words[n : n + 60])}
        for n in range(0, 9000, 60)
    ]
    server.respond = lambda _: Answer(body={"text": "", "duration": 4500, "words": words, "segments": segments})
    path = tmp_path / "call.amr"
    path.write_bytes(b"#!AMR\n")
    tab.transcribe(path)
    assert tab.page.locator(".segment").count() == 150 and tab.page.locator("#overview").is_visible()
    for seconds, found in ((0.1, ["w0"]), (4400.2, ["w8800"]), (4400.45, []), (7.0, ["w14"])):
        tab.page.evaluate(
            "seconds => { const a = document.getElementById('audio'); Object.defineProperty(a, 'currentTime',"
            " { value: seconds, configurable: true, writable: true }); }",
            seconds,
        )
        tab.page.evaluate("document.getElementById('audio').dispatchEvent(new Event('pause'))")
        tab.page.evaluate("document.getElementById('audio').dispatchEvent(new Event('seeked'))")
        assert tab.page.locator(".word.now").all_text_contents() == found, seconds


def test_an_edit_keeps_the_times_of_other_words(browser: Any, server: TranscriptionServer) -> None:
    tab = Tab(browser, server)
    times = tab.page.evaluate(
        """async () => {
          const { readSegments, setText } = await import('/words.js');
          const words = ['a', 'b', 'c', 'd'].map((word, i) => ({ word, start: i, end: i + 0.5 }));
          const edit = (text) => {
            const [segment] = readSegments({ words, duration: 4, segments: [{ start: 0, end: 4, text: 'a b c d' }] });
            setText(segment, text);
            return segment.words.map((word) => [word.text, word.start, word.end, !!word.changed]);
          };
          return ['a x c d', 'a c d', 'a b new c d', 'a long yy d', ''].map(edit);
        }"""
    )
    assert times[0] == [["a", 0, 0.5, False], ["x", 1, 1.5, True], ["c", 2, 2.5, False], ["d", 3, 3.5, False]]
    assert times[1] == [["a", 0, 0.5, False], ["c", 2, 2.5, False], ["d", 3, 3.5, False]]
    assert times[2][2] == ["new", 1.5, 2, True], "between its neighbours"
    assert times[3][1:3] == [["long", 1, 1.5, True], ["yy", 2, 2.5, True]], "as many words: their times"
    assert times[4] == []
    tab.context.close()


def test_japanese_is_joined_without_spaces(browser: Any, server: TranscriptionServer) -> None:
    tab = Tab(browser, server)
    found = tab.page.evaluate(
        """async () => {
          const { readSegments } = await import('/words.js');
          const { srt } = await import('/subtitles.js');
          const words = [...'東京で会う。'].join(' ').replace(' 。', '。').split(' ');
          const timed = words.map((word, i) => ({ word, start: 3600 + i / 10, end: 3600 + (i + 1) / 10 }));
          const segments = [{ start: 3600, end: 3601, text: '東京で会う。' }];
          return srt(readSegments({ words: timed, duration: 3602, segments }), 3602);
        }"""
    )
    (cue,) = srt.parse(found)
    assert cue.content == "東京で会う。" and cue.start.total_seconds() == 3600
    tab.context.close()


def test_the_page_names_the_files_that_are_read() -> None:
    """The file dialog offers what the server decodes."""
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert set(AUDIO_SUFFIXES) <= set(page.partition('accept="')[2].partition('"')[0].split(","))


def test_the_page_needs_no_other_server() -> None:
    for path in PAGE.iterdir():
        content = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in content and "https://" not in content.replace("needs https or", ""), path.name
        assert "innerHTML" not in content and "eval(" not in content, path.name
