// The list of segments: words that play, an editor for the text, a mark for each segment that is right.

import { setText } from "./words.js";
import { time } from "./waveform.js";

export class Transcript {
  /**
   * @param list the element for the segments.
   * @param onPlay called with the seconds of a word or segment.
   * @param onChange called after an edit or a mark.
   */
  constructor(list, onPlay, onChange) {
    this.list = list;
    this.onPlay = onPlay;
    this.onChange = onChange;
    this.segments = [];
    this.now = null;
    this.timed = null; // the words with times, in their order
    list.addEventListener("keydown", (event) => this.key(event));
    list.addEventListener("focusin", (event) => this.rove(event.target));
  }

  /** Shows segments. `canMark` adds the marks of correct segments. */
  show(segments, canMark) {
    this.segments = segments;
    this.canMark = canMark;
    this.timed = null;
    this.list.replaceChildren(...segments.map((segment) => this.row(segment)));
    this.rove(this.list.querySelector(".word"));
  }

  row(segment) {
    const item = element("li", { className: "segment" });
    const when = element("button", { type: "button", className: "time", textContent: time(segment.start) });
    when.setAttribute("aria-label", `Play from ${time(segment.start)}`);
    when.onclick = () => this.onPlay(segment.start);
    const words = element("div", { className: "words", dir: "auto" });
    const edit = element("button", { type: "button", textContent: "Edit" });
    edit.setAttribute("aria-label", `Edit the segment at ${time(segment.start)}`);
    edit.onclick = () => this.edit(item);
    const tools = element("div", { className: "tools" });
    tools.append(edit);
    if (this.canMark) {
      const mark = element("input", { type: "checkbox" });
      mark.setAttribute("aria-label", `The segment at ${time(segment.start)} is correct`);
      mark.onchange = () => this.mark(item, mark.checked);
      const label = element("label");
      label.append(mark, "Correct");
      tools.append(label);
    }
    item.append(when, words, tools);
    item.segment = segment;
    this.fill(item);
    return item;
  }

  /** Writes the words of a segment and its mark. */
  fill(item) {
    const { segment } = item, words = item.querySelector(".words");
    this.timed = null;
    words.replaceChildren();
    for (const word of segment.words) {
      const button = element("button", { type: "button", className: "word", textContent: word.text, tabIndex: -1 });
      button.classList.toggle("changed", !!word.changed);
      button.title = word.start === undefined ? "" : `${time(word.start, 2)} to ${time(word.end, 2)}`;
      button.onclick = () => this.onPlay(word.start ?? segment.start);
      button.word = word;
      words.append(word.gap, button);
    }
    item.classList.toggle("checked", segment.checked);
    const mark = item.querySelector("input");
    if (mark) {
      mark.checked = segment.checked;
      mark.disabled = !segment.words.length;
    }
  }

  mark(item, checked) {
    item.segment.checked = checked && item.segment.words.length > 0;
    item.classList.toggle("checked", item.segment.checked);
    item.querySelector("input").checked = item.segment.checked;
    this.onChange();
  }

  /** Puts an editor in place of the words, with `word` selected. */
  edit(item, word = null) {
    if (item.querySelector(".editor")) return item.querySelector("textarea").focus();
    const { segment } = item;
    const box = element("div", { className: "editor" });
    const area = element("textarea", { value: segment.text, rows: Math.min(8, 2 + Math.ceil(segment.text.length / 70)), dir: "auto" });
    area.setAttribute("aria-label", `Text of the segment at ${time(segment.start)}`);
    const keep = element("button", { type: "button", className: "primary", textContent: "Keep" });
    const drop = element("button", { type: "button", textContent: "Cancel" });
    keep.title = "Ctrl and Enter";
    drop.title = "Escape";
    const close = (kept) => {
      const changed = kept && area.value.trim() !== segment.text;
      if (changed) setText(segment, area.value);
      if (changed && this.canMark) segment.checked = segment.words.length > 0;
      box.remove();
      item.querySelector(".words").hidden = item.querySelector(".tools").hidden = false;
      this.fill(item);
      const words = [...item.querySelectorAll(".word")];
      (words.find((button) => button.word.changed) ?? words[0] ?? item.querySelector(".tools button")).focus();
      if (changed) this.onChange();
    };
    keep.onclick = () => close(true);
    drop.onclick = () => close(false);
    area.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) close(true);
      if (event.key === "Escape") close(false);
    };
    const pair = element("div", { className: "pair" });
    pair.append(keep, drop);
    box.append(area, pair);
    item.querySelector(".words").hidden = item.querySelector(".tools").hidden = true;
    item.append(box);
    area.focus();
    if (word) {
      const before = segment.words.slice(0, segment.words.indexOf(word));
      const start = before.reduce((sum, other) => sum + other.gap.length + other.text.length, 0) + word.gap.length;
      area.setSelectionRange(start, start + word.text.length);
    }
  }

  /** Marks the word that is spoken now. */
  moveTo(seconds) {
    this.timed ??= [...this.list.querySelectorAll(".word")].filter(({ word }) => word.start !== undefined);
    let low = 0, high = this.timed.length; // the last word that has started is before `low`
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.timed[middle].word.start <= seconds) low = middle + 1;
      else high = middle;
    }
    const last = this.timed[low - 1], found = last && seconds < last.word.end ? last : null;
    if (found === this.now) return;
    this.now?.classList.remove("now");
    found?.classList.add("now");
    this.now = found;
  }

  key(event) {
    const button = event.target;
    if (!button.classList?.contains("word") || event.ctrlKey || event.metaKey || event.altKey) return;
    const item = button.closest("li"), all = [...this.list.querySelectorAll(".word")], at = all.indexOf(button);
    const key = event.key.toLowerCase();
    if (key === "e" || key === "f2") this.edit(item, button.word);
    else if (key === "c" && this.canMark) this.mark(item, !item.segment.checked);
    else if (key === "arrowright") all[at + 1]?.focus();
    else if (key === "arrowleft") all[at - 1]?.focus();
    else if (key === "arrowdown") neighbour(item, "nextElementSibling")?.focus();
    else if (key === "arrowup") neighbour(item, "previousElementSibling")?.focus();
    else if (key === "home") all[0].focus();
    else if (key === "end") all.at(-1).focus();
    else return;
    event.preventDefault();
  }

  /** One word is in the order of the Tab key: the last one that had the focus. */
  rove(target) {
    if (!target?.classList.contains("word")) return;
    for (const word of this.list.querySelectorAll('.word[tabindex="0"]')) word.tabIndex = -1;
    target.tabIndex = 0;
  }
}

/** The first word of the next segment that has one. */
function neighbour(item, direction) {
  let other = item[direction];
  while (other && !other.querySelector(".word")) other = other[direction];
  return other?.querySelector(".word");
}

function element(name, values = {}) {
  return Object.assign(document.createElement(name), values);
}
