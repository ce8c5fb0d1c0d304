// SRT and WebVTT from segments: at most two lines of 42 columns and 7 seconds a cue, as `finetune transcribe` writes.

const COLUMNS = 42, LINES = 2, LONGEST = 7, SHORTEST = 1, PAUSE = 1.5;
const SENTENCE = /[.!?。！？…]["'”’」』)）]*$/;

export function srt(segments, duration) {
  const neutral = (line) => line.replaceAll("-->", "--›").replace(/<(?=[a-z/!])/gi, "‹"); // the format has no escapes
  return cues(segments, duration)
    .map((cue, i) => `${i + 1}\n${clock(cue.start, ",")} --> ${clock(cue.end, ",")}\n${cue.lines.map(neutral).join("\n")}\n`)
    .join("\n");
}

export function vtt(segments, duration) {
  const escape = (line) => line.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const blocks = cues(segments, duration).map(
    (cue) => `\n${clock(cue.start, ".")} --> ${clock(cue.end, ".")}\n${cue.lines.map(escape).join("\n")}\n`,
  );
  return `WEBVTT\n${blocks.join("")}`;
}

function cues(segments, duration) {
  const found = segments.flatMap((segment) => groups(fragments(segment)));
  return found.map((group, i) => {
    const start = group[0].start;
    const next = i + 1 < found.length ? found[i + 1][0].start : duration;
    const end = Math.min(Math.max(group.at(-1).end, start + SHORTEST), start + LONGEST, Math.max(next, start + 0.001));
    return { start, end, lines: lines(group) };
  });
}

/** Words with times; without word times, in proportion to their widths. A word that is too wide is cut. */
function fragments(segment) {
  const total = segment.words.reduce((sum, word) => sum + width(word.text), 0) || 1;
  const scale = (segment.end - segment.start) / total;
  let at = segment.start;
  return segment.words.flatMap((word) => {
    const end = at + width(word.text) * scale;
    const times = word.start === undefined ? { start: at, end } : { start: word.start, end: word.end };
    at = end;
    const parts = word.text.match(new RegExp(`.{1,${COLUMNS / 2}}`, "gu"));
    const whole = width(word.text) <= COLUMNS ? [word.text] : parts;
    return whole.map((text, i) => ({ text, gap: i ? "" : word.gap, ...times }));
  });
}

function groups(words) {
  const result = [];
  let group = [];
  for (const word of words) {
    const last = group.at(-1);
    const full = last && (lines([...group, word]).length > LINES || word.end - group[0].start > LONGEST);
    if (last && (full || word.start - last.end > PAUSE || (SENTENCE.test(last.text) && width(join(group)) > COLUMNS / 2))) {
      result.push(group);
      group = [];
    }
    group.push(word);
  }
  return group.length ? [...result, group] : result;
}

function lines(group) {
  const result = [];
  for (const word of group) {
    const longer = result.length ? result.at(-1) + word.gap + word.text : "";
    if (longer && width(longer) <= COLUMNS) result[result.length - 1] = longer;
    else result.push(word.text);
  }
  return result;
}

function join(words) {
  return words.map((word) => word.gap + word.text).join("");
}

/** Columns; a character of Chinese or Japanese is two wide. */
function width(text) {
  return [...text].reduce((sum, char) => sum + (/[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]/u.test(char) ? 2 : 1), 0);
}

function clock(seconds, mark) {
  const ms = Math.round(1000 * seconds);
  const two = (value) => String(Math.floor(value)).padStart(2, "0");
  return `${two(ms / 3600000)}:${two((ms / 60000) % 60)}:${two((ms / 1000) % 60)}${mark}${String(ms % 1000).padStart(3, "0")}`;
}
