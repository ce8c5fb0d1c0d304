"""Kana as phonemes of Kokoro. The model was trained on these symbols; espeak-ng's for Japanese are others."""

VOWELS = "aiueo"
ROWS = {  # the phonemes before the five vowels
    "アイウエオ": ("", "", "", "", ""),
    "カキクケコ": ("k", "kʲ", "k", "k", "k"),
    "ガギグゲゴ": ("ɡ", "ɡʲ", "ɡ", "ɡ", "ɡ"),
    "サシスセソ": ("s", "ɕ", "s", "s", "s"),
    "ザジズゼゾ": ("ʣ", "ʥ", "z", "ʣ", "ʣ"),
    "タチツテト": ("t", "ʨ", "ʦ", "t", "t"),
    "ダヂヅデド": ("d", "ʥ", "z", "d", "d"),
    "ナニヌネノ": ("n", "ɲ", "n", "n", "n"),
    "ハヒフヘホ": ("h", "ç", "ɸ", "h", "h"),
    "バビブベボ": ("b", "bʲ", "b", "b", "b"),
    "パピプペポ": ("p", "pʲ", "p", "p", "p"),
    "マミムメモ": ("m", "mʲ", "m", "m", "m"),
    "ラリルレロ": ("ɾ", "ɾʲ", "ɾ", "ɾ", "ɾ"),
}
SOUNDS = {"a": "a", "i": "i", "u": "ɯ", "e": "e", "o": "o"}
CENTRAL = "ʦzs"  # after these, u is central
MORAS: dict[str, tuple[str, str]] = {  # consonant and vowel
    kana: (consonant, vowel)
    for row, consonants in ROWS.items()
    for kana, consonant, vowel in zip(row, consonants, VOWELS, strict=True)
} | {"ヤ": ("j", "a"), "ユ": ("j", "u"), "ヨ": ("j", "o"), "ワ": ("β", "a"), "ヲ": ("", "o"), "ヴ": ("v", "u")}
GLIDES = {"ャ": "a", "ュ": "u", "ョ": "o"}
SMALL = {"ァ": "a", "ィ": "i", "ゥ": "u", "ェ": "e", "ォ": "o"}
LONG, STOP, NASAL = "ー", "ッ", "ン"
PAUSES = {"、": ", ", "。": ". ", "？": "? ", "！": "! ", "・": " ", " ": " "}
NASALS = (("mpb", "m"), ("kɡ", "ŋ"), ("ɲʨʥ", "ɲ"), ("ntdɾz", "n"))  # first phoneme of the next mora: sound of the nasal


def to_phonemes(text: str) -> str:
    """Phonemes of kana; a う after o and an い after e lengthen the vowel. Other characters are left out."""
    parts, vowel = list[str](), ""
    for kana in _katakana(text):
        if kana in GLIDES or kana in SMALL:
            vowel = GLIDES.get(kana) or SMALL[kana]
            parts[-1:] = [_glide(parts[-1] if parts else "", kana, vowel)]
        elif kana == LONG or (vowel + kana in ("oウ", "eイ")):
            parts.append("ː")
        elif kana in MORAS:
            consonant, vowel = MORAS[kana]
            parts.append(_mora(consonant, vowel))
        elif kana in (STOP, NASAL):
            parts.append("ʔ" if kana == STOP else NASAL)
            vowel = ""
        elif kana in PAUSES:
            parts.append(PAUSES[kana])
            vowel = ""
    after = [*parts[1:], ""]
    return "".join(_nasal(next_part) if part == NASAL else part for part, next_part in zip(parts, after, strict=True))


def _katakana(text: str) -> str:
    return "".join(chr(ord(char) + 0x60) if "ぁ" <= char <= "ゖ" else char for char in text)


def _mora(consonant: str, vowel: str) -> str:
    return consonant + ("ɨ" if vowel == "u" and consonant and consonant in CENTRAL else SOUNDS[vowel])


def _glide(before: str, kana: str, vowel: str) -> str:
    """The mora before a small kana with the vowel of that kana: キャ, ファ, ティ."""
    consonant = before[:-1]
    if kana in GLIDES:
        soft = consonant if consonant.endswith("ʲ") or consonant in "ɕʥʨɲç" else f"{consonant}ʲ"
        return (soft if consonant else "j") + ("ɨ" if vowel == "u" else SOUNDS[vowel])
    if not consonant:  # ウィ, イェ
        consonant = "β" if before == SOUNDS["u"] else "j" if before == "i" else ""
    return consonant + SOUNDS[vowel]


def _nasal(next_part: str) -> str:
    return next((sound for firsts, sound in NASALS if next_part[:1] and next_part[0] in firsts), "ɴ")
