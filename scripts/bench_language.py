"""How often a text in another language than asked for is found, and how often a right one is called wrong.

  for code in es fr it ru; do scripts/fetch_prompts $code; done
  python scripts/bench_language.py data/prompts-*/*.jsonl

Reads the texts of manifests; the language of a text is its `target_language`, else its `language`. Each different text
is asked for in its own language, and in the others that are known (`finetune.metrics.written_language`).
"""

import sys
from collections import Counter
from pathlib import Path

from finetune.data.manifest import read_manifest
from finetune.metrics.written_language import PROFILES, other_language

BINS = {"1 to 3 words": (1, 3), "4 to 7": (4, 7), "8 and more": (8, 10**6)}


def main(paths: list[str]) -> None:
    texts = {(item.text_language, item.text) for path in paths for item in read_manifest(Path(path))}
    own = Counter(language for language, text in texts if other_language(text, language))
    print(f"own language: {own.total()} of {len(texts)} texts flagged {dict(own) or ''}")
    print(f"{'asked for':12}" + "".join(f"{name:>22}" for name in BINS))
    for asked in sorted({*PROFILES, "ja", "ru"}):
        cells = []
        for low, high in BINS.values():
            others = [text for language, text in texts if language != asked and low <= len(text.split()) <= high]
            found = sum(bool(other_language(text, asked)) for text in others)
            cells.append(f"{found} of {len(others)} ({100 * found / max(1, len(others)):.0f} %)")
        print(f"{asked:12}" + "".join(f"{cell:>22}" for cell in cells))


if __name__ == "__main__":
    main(sys.argv[1:])
