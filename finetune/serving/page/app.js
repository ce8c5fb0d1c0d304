// The page of `finetune serve`: a recording becomes text with word times, which can be heard, corrected and saved.

import { get, post, ServerError, setKey } from "./api.js";
import * as recorder from "./recorder.js";
import { srt, vtt } from "./subtitles.js";
import { Transcript } from "./transcript.js";
import { peaksOf, time, Waveform } from "./waveform.js";
import { readSegments } from "./words.js";

const $ = (id) => document.getElementById(id);
const PLAY = "M4 2.5v11l9-5.5z", STOP = "M4 3h3v10H4zM9 3h3v10H9z";
const audio = $("audio");
const state = { file: null, loads: 0, models: [], server: {}, duration: 0, running: null, stop: null, sent: null };
const transcript = new Transcript($("transcript"), play, changed);
const wave = new Waveform($("wave"), $("overview"), seek);

// The server

async function connect() {
  try {
    state.models = (await get("v1/models")).data;
    state.server = await get("v1/server").catch((error) => (error.status === 404 ? {} : Promise.reject(error)));
  } catch (error) {
    $("dot").className = "dot bad";
    $("server").textContent = error.status === 401 ? "A key is needed" : "Not connected";
    if (error.status === 401) {
      if (!$("key-box").hidden) fail(error);
      $("key-box").hidden = false;
      $("key").focus();
    } else fail(error);
    return;
  }
  $("key-box").hidden = true;
  fail(null);
  $("dot").className = "dot ok";
  fill($("model"), state.models.filter((model) => !model.parent).map((model) => [model.id, model.id]));
  fillAdapters();
  options($("language"), state.server.languages);
  options($("target"), state.server.translation_targets, (name) => `Translation: ${name}`);
  update();
}

function fill(select, entries) {
  select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
}

function options(select, names, label = (name) => name) {
  if (!names) return;
  const first = select.options[0];
  fill(select, Object.entries(names).map(([code, name]) => [code, label(name)]));
  select.prepend(first);
  select.selectedIndex = 0;
}

function fillAdapters() {
  const adapters = state.models.filter((model) => model.parent === $("model").value);
  fill($("adapter"), [["", "None"], ...adapters.map((model) => [model.id, model.id])]);
  $("adapter-row").hidden = !adapters.length;
  $("server").textContent = $("adapter").value || $("model").value || "No model";
}

function fail(error) {
  $("error").hidden = !error;
  $("error").textContent = error?.message ?? "";
}

// The recording

async function load(file) {
  if (!file || state.running) return;
  const largest = state.server.max_upload;
  if (largest && file.size > largest)
    return fail(new Error(`${file.name} has ${megabytes(file.size)}; this server takes ${megabytes(largest)}.`));
  fail(null);
  audio.pause();
  URL.revokeObjectURL(audio.src);
  const number = ++state.loads;
  Object.assign(state, { file, duration: 0, sent: null });
  $("chosen").textContent = `${file.name}, ${megabytes(file.size)}`;
  $("name").textContent = file.name;
  $("output").hidden = true;
  $("empty").hidden = false;
  $("status").textContent = "";
  audio.src = URL.createObjectURL(file);
  wave.set({ peaks: null, words: [], duration: 0, position: 0, left: 0 });
  update();
  const seconds = await metadata();
  const decoded = await peaksOf(file, seconds);
  if (number !== state.loads) return;
  state.duration ||= decoded?.duration ?? seconds;
  const note = !seconds && !decoded ? "This browser cannot play this file. The text is not affected." : "";
  const noteOfLong = !decoded && seconds ? "No waveform for this recording. Its words show where speech is." : "";
  $("wave-note").textContent = note || noteOfLong;
  $("wave-note").hidden = !(note || noteOfLong);
  $("play").disabled = !seconds && !decoded;
  $("player").hidden = false;
  wave.set({ peaks: decoded?.peaks ?? null, duration: state.duration });
  follow();
}

/** Seconds of the chosen file; 0 if the browser cannot play it, 1 if the file does not state them, as a recording. */
function metadata() {
  return new Promise((resolve) => {
    audio.onloadedmetadata = () => resolve(Number.isFinite(audio.duration) ? audio.duration : 1);
    audio.onerror = () => resolve(0);
  });
}

function megabytes(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

async function record() {
  if (state.stop) {
    const stop = state.stop;
    state.stop = null;
    const file = await stop();
    $("record").classList.remove("recording");
    $("record-text").textContent = "Record";
    $("level").hidden = true;
    await load(file);
    return;
  }
  try {
    state.stop = await recorder.start((level, seconds) => {
      $("level").value = level;
      $("record-text").textContent = `Stop ${time(seconds)}`;
    });
  } catch (error) {
    return fail(new Error(`The microphone cannot be used: ${error.message}.`));
  }
  fail(null);
  $("record").classList.add("recording");
  $("record-text").textContent = "Stop";
  $("level").hidden = false;
}

// Playing

function play(seconds) {
  seek(seconds);
  if (!$("play").disabled) audio.play().catch((error) => fail(error));
}

function seek(seconds) {
  audio.currentTime = seconds;
  follow(seconds);
}

function follow(seconds = audio.currentTime) {
  $("clock").textContent = `${time(seconds, 1)} / ${time(state.duration, 1)}`;
  wave.moveTo(seconds);
  transcript.moveTo(seconds);
}

function frame() {
  follow();
  if (!audio.paused) requestAnimationFrame(frame);
}

function showPlaying() {
  $("play").setAttribute("aria-label", audio.paused ? "Play" : "Pause");
  $("play-icon").setAttribute("d", audio.paused ? PLAY : STOP);
  if (!audio.paused) frame();
}

// The text

function form() {
  const content = new FormData(), target = $("target").value;
  content.append("file", state.file, state.file.name);
  content.append("model", $("adapter").value || $("model").value);
  content.append("response_format", "verbose_json");
  if ($("language").value) content.append("language", $("language").value);
  if (target) content.append("target_language", target);
  else for (const kind of ["word", "segment"]) content.append("timestamp_granularities[]", kind);
  for (const word of $("keywords").value.split(/[,\n]/)) if (word.trim()) content.append("keywords[]", word.trim());
  return content;
}

async function transcribe(event) {
  event.preventDefault();
  if (!state.file || state.running) return;
  fail(null);
  const { file } = state, controller = (state.running = new AbortController()), started = performance.now();
  const content = form(), translated = $("target").value !== "", model = content.get("model");
  let sent = 0;
  const tick = () => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    $("status").textContent = sent < 1 ? `Sending, ${Math.floor(100 * sent)} %` : `Transcribing, ${time(seconds)}`;
    if (sent < 1) $("progress").value = sent;
    else $("progress").removeAttribute("value");
  };
  const timer = setInterval(tick, 500);
  update();
  tick();
  try {
    const path = `v1/audio/${translated ? "translations" : "transcriptions"}`;
    const answer = await post(path, content, (part) => ((sent = part), tick()), controller.signal);
    show(answer, { file, model, translated, language: $("language").value });
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    $("status").textContent = `Done in ${seconds} s.${answer.warning && ` Note: ${answer.warning}.`}`;
  } catch (error) {
    $("status").textContent = error.name === "AbortError" ? "Cancelled." : "";
    if (error.name !== "AbortError") fail(error);
  } finally {
    clearInterval(timer);
    state.running = null;
    update();
  }
}

function show(answer, request) {
  state.duration = answer.duration || state.duration;
  state.sent = request;
  const segments = readSegments(answer);
  const canSave = !!state.server.corrections && !request.translated;
  $("empty").hidden = true;
  $("output").hidden = false;
  $("save-box").hidden = !canSave;
  $("keys").hidden = !segments.length;
  const words = segments.reduce((sum, segment) => sum + segment.words.length, 0);
  const kind = request.translated ? "Translation" : "Transcript";
  $("summary").textContent = words ? `${kind}, ${words} ${words === 1 ? "word" : "words"}` : "No speech was found";
  transcript.show(segments, canSave);
  wave.set({ duration: state.duration });
  changed();
  follow();
}

function changed() {
  const words = transcript.segments.flatMap((segment) => segment.words);
  wave.set({ words: words.filter((word) => word.start !== undefined) });
  const marked = transcript.segments.filter((segment) => segment.checked).length;
  $("save").disabled = !marked;
  $("save").textContent = marked ? `Save ${marked} ${marked === 1 ? "segment" : "segments"}` : "Save corrections";
}

// Files and corrections

function text() {
  return transcript.segments.map((segment) => segment.text).filter(Boolean).join("\n");
}

function download(suffix, content, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = `${(state.sent?.file.name ?? "transcript").replace(/\.[^.]*$/, "") || "transcript"}.${suffix}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

async function save() {
  const marked = transcript.segments.filter((segment) => segment.checked);
  const content = new FormData(), { file, model, language } = state.sent;
  content.append("file", file, file.name);
  const segments = marked.map(({ start, end, text, machineText }) => ({ start, end, text, machine_text: machineText }));
  content.append("corrections", JSON.stringify({ segments, model, language, file_name: file.name }));
  $("save").disabled = true;
  try {
    const { saved } = await post("v1/corrections", content);
    fail(null);
    $("status").textContent = `Saved ${saved} ${saved === 1 ? "segment" : "segments"}.`;
    $("save-hint").textContent = $("status").textContent;
  } catch (error) {
    fail(error instanceof ServerError ? error : new Error(String(error)));
    $("error").scrollIntoView({ block: "nearest" });
  } finally {
    $("save").disabled = false;
  }
}

function update() {
  const busy = !!state.running;
  $("transcribe").disabled = busy || !state.file || !$("model").value;
  $("cancel").hidden = $("progress").hidden = !busy;
  $("file").disabled = busy;
  $("record").disabled = busy || recorder.problem() !== "";
  $("record").title = recorder.problem();
}

// Events

$("key-set").onclick = () => {
  setKey($("key").value.trim());
  connect();
};
$("key").onkeydown = (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  $("key-set").click();
};
$("file").onchange = () => load($("file").files[0]).finally(() => ($("file").value = ""));
$("record").onclick = record;
$("model").onchange = fillAdapters;
$("adapter").onchange = () => ($("server").textContent = $("adapter").value || $("model").value);
$("form").onsubmit = transcribe;
$("cancel").onclick = () => state.running?.abort();
$("play").onclick = () => (audio.paused ? play(audio.ended ? 0 : audio.currentTime) : audio.pause());
// A new file plays at the default rate.
$("speed").onchange = () => (audio.defaultPlaybackRate = audio.playbackRate = Number($("speed").value));
for (const name of ["play", "pause", "ended"]) audio.addEventListener(name, showPlaying);
audio.addEventListener("seeked", () => follow());
$("srt").onclick = () => download("srt", srt(transcript.segments, state.duration), "application/x-subrip");
$("vtt").onclick = () => download("vtt", vtt(transcript.segments, state.duration), "text/vtt");
$("txt").onclick = () => download("txt", `${text()}\n`, "text/plain");
$("copy").onclick = async () => {
  try {
    await navigator.clipboard.writeText(text());
    $("status").textContent = "Copied.";
  } catch {
    fail(new Error("This browser does not allow copying here; download the text."));
  }
};
$("save").onclick = save;

// A file can be dropped anywhere; otherwise the browser would leave the page.
addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  load(event.dataTransfer.files[0]);
});

update();
if (recorder.problem()) $("formats").append(` ${recorder.problem()}`);
connect();
