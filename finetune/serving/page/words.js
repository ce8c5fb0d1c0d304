// Segments of a transcript with their words: reads an answer, edits a text, keeps the times of unchanged words.

// In Japanese and Chinese each character is a word, as in the times of the server.
const UNSPACED = "\\u3000-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\uff00-\\uffef";
const CLOSING = "、。，．・！？）」』】ー";
const WORD = new RegExp(`[${UNSPACED}][${CLOSING}]*|[^\\s${UNSPACED}]+`, "gu");

/** The words of a text, each with what stands between it and the word before. */
export function split(text) {
  const words = [];
  let end = 0;
  for (const match of text.matchAll(WORD)) {
    words.push({ text: match[0], gap: words.length && match.index > end ? " " : "" });
    end = match.index + match[0].length;
  }
  return words;
}

/**
 * The segments of a verbose_json answer.
 * Words have `start` and `end` only if the server gave times for all words of the segment.
 */
export function readSegments(answer) {
  const timed = answer.words ?? [];
  let next = 0;
  const parts = answer.segments ?? [{ start: 0, end: answer.duration, text: answer.text }];
  return parts
    .filter((part) => part.text.trim())
    .map((part) => {
      const words = split(part.text);
      const inside = timed.slice(next, next + words.length);
      if (inside.length === words.length && words.every((word, i) => word.text === inside[i].word.trim())) {
        words.forEach((word, i) => Object.assign(word, { start: inside[i].start, end: inside[i].end }));
        next += words.length;
      }
      const text = part.text.trim();
      return { start: part.start, end: part.end, text, machineText: text, words, checked: false };
    });
}

/** Gives a segment another text. Unchanged words keep their times; the others share the time between these. */
export function setText(segment, text) {
  const words = split(text);
  const hasTimes = segment.words.length > 0 && segment.words.every((word) => word.start !== undefined);
  const pairs = common(segment.words, words);
  for (const [from, to] of pairs) {
    const { start, end, changed } = segment.words[from];
    Object.assign(words[to], { start, end, changed });
  }
  const edges = [[-1, -1], ...pairs, [segment.words.length, words.length]];
  for (let i = 1; i < edges.length; i++) {
    const run = words.slice(edges[i - 1][1] + 1, edges[i][1]);
    const replaced = segment.words.slice(edges[i - 1][0] + 1, edges[i][0]);
    run.forEach((word) => (word.changed = true));
    if (hasTimes) spread(run, replaced, words[edges[i - 1][1]]?.end ?? segment.start, words[edges[i][1]]?.start ?? segment.end);
  }
  segment.words = words;
  segment.text = words.map((word) => word.gap + word.text).join("");
}

/** Times of new words: those of as many replaced words, or shares of their time by length. */
function spread(run, replaced, before, after) {
  if (run.length === replaced.length) {
    run.forEach((word, i) => Object.assign(word, { start: replaced[i].start, end: replaced[i].end }));
    return;
  }
  const start = replaced[0]?.start ?? before;
  const end = Math.max(start, replaced.at(-1)?.end ?? after);
  const total = run.reduce((sum, word) => sum + word.text.length, 0);
  let at = start;
  for (const word of run) {
    word.start = at;
    at += ((end - start) * word.text.length) / total;
    word.end = at;
  }
}

/** Pairs of equal words in the longest common subsequence. */
function common(left, right) {
  const lengths = Array.from({ length: left.length + 1 }, () => new Uint16Array(right.length + 1));
  for (let i = left.length - 1; i >= 0; i--)
    for (let j = right.length - 1; j >= 0; j--)
      lengths[i][j] =
        left[i].text === right[j].text ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const pairs = [];
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    if (left[i].text === right[j].text) pairs.push([i++, j++]);
    else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return pairs;
}
