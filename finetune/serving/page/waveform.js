// The waveform with its words, the overview of a long recording, and the position in it.

const RATE = 8000; // samples a second for drawing
const BIN = 80; // samples a peak
const LONGEST = 3600; // seconds that are decoded for drawing; a longer recording shows where its words are
const LARGEST = 300e6; // bytes
const PIXELS = 92; // a second
const STEP = 1, LEAP = 10; // seconds of a key

/** Peaks of a recording at 100 a second and its length in seconds; null if the browser cannot decode it. */
export async function peaksOf(blob, seconds) {
  if (seconds > LONGEST || blob.size > LARGEST) return null;
  try {
    const context = new OfflineAudioContext(1, 1, RATE);
    const decoded = await context.decodeAudioData(await blob.arrayBuffer());
    const samples = decoded.getChannelData(0);
    const peaks = new Float32Array(Math.ceil(samples.length / BIN));
    for (let i = 0; i < samples.length; i++) {
      const value = Math.abs(samples[i]), bin = Math.floor(i / BIN);
      if (value > peaks[bin]) peaks[bin] = value;
    }
    const loudest = peaks.reduce((most, value) => Math.max(most, value), 0.02);
    return { peaks: peaks.map((value) => value / loudest), duration: decoded.duration };
  } catch {
    return null;
  }
}

export function time(seconds, digits = 0) {
  const scale = 10 ** digits, total = Math.floor(seconds * scale + 1e-6) / scale;
  const hours = Math.floor(total / 3600), minutes = Math.floor(total / 60) % 60;
  const rest = (total % 60).toFixed(digits).padStart(digits ? 3 + digits : 2, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

export class Waveform {
  /**
   * @param box the slider with the canvas in it.
   * @param overview the canvas of the whole recording.
   * @param onSeek called with seconds.
   */
  constructor(box, overview, onSeek) {
    this.box = box;
    this.canvas = box.querySelector("canvas");
    this.overview = overview;
    this.onSeek = onSeek;
    this.peaks = null;
    this.words = [];
    this.duration = 0;
    this.position = 0;
    this.left = 0; // the first second in view
    new ResizeObserver(() => this.draw()).observe(box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.drag(this.canvas, (part) => this.left + part * this.span());
    this.drag(overview, (part) => part * this.duration);
    box.addEventListener("keydown", (event) => this.key(event));
  }

  set(values) {
    Object.assign(this, values);
    this.shown = this.peaks ?? peaksOfWords(this.words, this.duration);
    this.moved();
  }

  /** Seconds in view. */
  span() {
    return Math.max(0.1, Math.min(this.duration, this.canvas.clientWidth / PIXELS));
  }

  /** Moves the position, and the view if the position leaves it. */
  moveTo(seconds) {
    this.position = seconds;
    this.moved();
  }

  moved() {
    const span = this.span();
    if (this.position < this.left || this.position > this.left + span * 0.9) this.left = this.position - span * 0.1;
    this.left = Math.max(0, Math.min(this.left, this.duration - span));
    this.box.setAttribute("aria-valuemax", this.duration.toFixed(1));
    this.box.setAttribute("aria-valuenow", this.position.toFixed(1));
    this.box.setAttribute("aria-valuetext", `${time(this.position, 1)} of ${time(this.duration, 1)}`);
    this.draw();
  }

  key(event) {
    const moves = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP, PageDown: -LEAP, PageUp: LEAP };
    const ends = { Home: 0, End: this.duration };
    const target = event.key in ends ? ends[event.key] : this.position + (moves[event.key] ?? NaN);
    if (Number.isNaN(target) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.onSeek(Math.max(0, Math.min(this.duration, target)));
  }

  drag(canvas, secondsAt) {
    const seek = (event) => {
      const area = canvas.getBoundingClientRect();
      const part = Math.max(0, Math.min(1, (event.clientX - area.left) / area.width));
      this.onSeek(Math.min(this.duration, secondsAt(part)));
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      seek(event);
    });
    canvas.addEventListener("pointermove", (event) => canvas.hasPointerCapture(event.pointerId) && seek(event));
  }

  draw() {
    if (!this.duration || !this.canvas.clientWidth) return;
    const span = this.span(), style = getComputedStyle(document.documentElement);
    this.color = (name) => style.getPropertyValue(`--${name}`).trim();
    this.drawWave(span);
    this.overview.hidden = this.duration <= span * 1.05;
    if (!this.overview.hidden) this.drawOverview(span);
  }

  drawWave(span) {
    const { brush, width, height } = prepare(this.canvas);
    const scale = width / span, top = 18, bottom = height - 42, middle = (top + bottom) / 2;
    const x = (seconds) => (seconds - this.left) * scale;
    this.drawAxis(brush, span, x, height);
    const visible = this.words.filter((word) => word.end >= this.left && word.start <= this.left + span);
    for (const word of visible) {
      const now = word.start <= this.position && this.position < word.end;
      brush.fillStyle = this.color(now ? "accent-soft" : "soft");
      brush.beginPath();
      brush.roundRect(x(word.start), top, Math.max(2, x(word.end) - x(word.start) - 1), bottom - top, 4);
      brush.fill();
    }
    for (let pixel = 0; pixel < width; pixel += 3) {
      const at = this.left + pixel / scale;
      const half = Math.max(1, (this.peak(at, 3 / scale) * (bottom - top - 12)) / 2);
      brush.fillStyle = this.color(at <= this.position ? "accent" : "wave");
      brush.fillRect(pixel, middle - half, 2, 2 * half);
    }
    brush.font = "13px system-ui, sans-serif";
    const free = [-Infinity, -Infinity]; // where the two rows of words end
    for (const word of visible) {
      const begin = Math.max(2, x(word.start)), length = brush.measureText(word.text).width;
      const row = free.findIndex((end) => end <= begin);
      if (row < 0 || begin + length > width) continue;
      const now = word.start <= this.position && this.position < word.end;
      brush.fillStyle = this.color(now ? "accent" : "ink");
      brush.fillText(word.text, begin, height - 26 + 18 * row);
      free[row] = begin + length + 5;
    }
    brush.fillStyle = this.color("accent");
    brush.fillRect(x(this.position) - 1, top - 4, 2, bottom - top + 8);
  }

  drawAxis(brush, span, x, height) {
    const step = [0.5, 1, 2, 5, 10].find((value) => span / value <= 16) ?? 30;
    brush.font = "11px system-ui, sans-serif";
    for (let at = Math.ceil(this.left / step) * step; at <= this.left + span; at += step) {
      brush.fillStyle = this.color("line");
      brush.fillRect(x(at), 14, 1, height - 56);
      brush.fillStyle = this.color("faint");
      brush.fillText(time(at, step < 1 ? 1 : 0), x(at) + 2, 11);
    }
  }

  drawOverview(span) {
    const { brush, width, height } = prepare(this.overview);
    const scale = width / this.duration;
    brush.fillStyle = this.color("accent-soft");
    brush.fillRect(this.left * scale, 0, span * scale, height);
    for (let pixel = 0; pixel < width; pixel += 2) {
      const at = pixel / scale, half = Math.max(0.5, (this.peak(at, 2 / scale) * (height - 8)) / 2);
      brush.fillStyle = this.color(at <= this.position ? "accent" : "wave");
      brush.fillRect(pixel, height / 2 - half, 1.5, 2 * half);
    }
  }

  /** The largest peak in some seconds. */
  peak(start, seconds) {
    const first = Math.floor((start * RATE) / BIN), last = Math.max(first + 1, Math.floor(((start + seconds) * RATE) / BIN));
    let most = 0;
    for (let i = first; i < last && i < this.shown.length; i++) most = Math.max(most, this.shown[i]);
    return most;
  }
}

/** Without the samples of a recording, speech is where words are. */
function peaksOfWords(words, duration) {
  const peaks = new Float32Array(Math.ceil((duration * RATE) / BIN));
  for (const word of words) peaks.fill(0.5, Math.floor((word.start * RATE) / BIN), Math.ceil((word.end * RATE) / BIN));
  return peaks;
}

/** A canvas as sharp as the screen, empty. */
function prepare(canvas) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const brush = canvas.getContext("2d");
  brush.setTransform(ratio, 0, 0, ratio, 0, 0);
  brush.clearRect(0, 0, width, height);
  return { brush, width, height };
}
