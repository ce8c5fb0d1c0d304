"""Detects a text that is certainly written in another language than the one asked for.

The script decides first: kana, Han characters, Latin and other letters. English, French, German, Spanish, Portuguese
and Italian are told apart by their function words (Grefenstette, "Comparing two language identification schemes", JADT
1995). A text with too few of these words, and any other language in Latin letters, is unknown: unknown is not wrong.
"""

import re
import unicodedata
from collections import Counter
from functools import lru_cache

from finetune.metrics.scripts import SCRIPTS, script

MIN_LETTERS = 2  # of another script
LATIN_WORDS = 4  # in Latin letters, where another script is asked for: fewer can be a name
MIN_EVIDENCE = 3  # function words of the other language only
MIN_DISTINCT = 2  # of these, different ones
RATIO = 3  # of these words, over the function words of the expected language only
MIN_SHARE = 0.2  # of these words, among all words
SIMPLIFIED = frozenset("这们吗呢吧么谁说过还让从为个开关问请话见长门马车东书写对给进")  # not written in Japanese
_KANA = frozenset(("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"))
_NAMES = {"CJK": "han", "IDEOGRAPHIC": "han", "HANGUL": "ko"}
_WORD = re.compile(r"[^\W\d_]+")

# Frequent words, mostly function words, without accents and without single letters, which are spelled in any language.
# English has some that look like those of others: man, hat, die, car, pour.
_FUNCTION_WORDS = {
    "en": "the and of to is that it was for on are with as his they be at this have from or had by but not what all "
    "were we when your can said there use an each which she do how their if will up other about out many then "
    "them these so some her would make like him into has look more go see no could than been who its now did "
    "get come made may you he please am does where why because should our us here just only over also my "
    "after before again very until while cannot don isn ve ll re any most such those own same too off down "
    "under both few being having in me one say know take year good think back work first well way want day "
    "give new even came time man hat war die son plus car comment pour",
    "fr": "le la les de des du un une et est au aux en dans que qui ne pas pour par sur avec ce cette ces il elle "
    "ils elles on nous vous je tu se son sa ses leur leurs mon ma mes votre vos notre nos mais ou donc car si "
    "plus moins tres bien tout tous toute toutes comme qu etre avoir sont ont etait ete fait faire peut sans "
    "sous entre aussi meme quand apres avant chez vers depuis alors ici rien jamais encore deja quoi quel "
    "quelle lui",
    "de": "der die das den dem des ein eine einen einem einer eines und ist nicht ich du er sie es wir ihr mit auf "
    "fur von zu im in an am aus bei nach uber unter vor durch um gegen ohne bis als wie wenn dass oder aber "
    "auch nur noch schon so sich mir mich dich uns euch ihm ihn ihnen mein dein sein seine ihre unser haben "
    "hat hatte war waren sind wird werden wurde kann konnen muss mussen soll sollen will mehr sehr hier dort "
    "da dann was wer wo warum kein keine zum zur vom beim diese dieser dieses jetzt immer wieder bitte man",
    "es": "el la los las lo un una unos unas de del al en con por para que se su sus no es son fue era ser esta "
    "estan estaba este estos estas ese esa eso le les me te nos mi mis tu tus si sin sobre entre hasta desde "
    "como mas pero muy ya tambien cuando donde porque quien cual todo todos toda todas hay ha han he sido "
    "hacer tiene tienen puede pueden usted ustedes yo ella ellos nosotros cada otro otra otros siempre ahora "
    "aqui nada algo dos da tres tal quiere",
    "pt": "os as um uma uns umas de do da dos das em no na nos nas ao aos com por para pelo pela que se seu sua "
    "seus suas nao sao foi era ser esta estao este estes esse essa isso isto ele ela eles elas eu voce voces "
    "me te lhe meu minha meus minhas sem sobre entre ate desde como mais mas muito ja tambem quando onde "
    "porque quem qual tudo todo todos toda todas ha tem tinha foram fazer pode podem num numa cada outro "
    "outra outros sempre agora aqui nada algo depois ainda so bem favor tal",
    "it": "il lo la gli le un uno una di del dello della dei degli delle al allo alla ai agli alle da dal dalla dai "
    "in nel nello nella nei nelle con su sul sulla per tra fra ed che chi non si se ma come piu anche ci ne "
    "mi ti vi io tu lui lei noi voi loro mio mia suo sua sono sei siamo era erano ho hai ha abbiamo hanno "
    "essere avere stato stata questo questa questi queste quello quella quando dove perche cosa molto tutto "
    "tutti tutta gia ancora sempre ora qui qua poi ogni altro altra altri senza prima dopo fare puo",
}
PROFILES = {language: frozenset(words.split()) for language, words in _FUNCTION_WORDS.items()}


def other_language(text: str, language: str) -> str:
    """The language of a text that is certainly not written in `language`; "" if it can be.

    Args:
        text: the text.
        language: a two-letter code; a language without known script, such as "", is not checked.

    Returns:
        A two-letter code, or the name of a script (`latin`, `han`, `cyrillic`) if the language is not known.
    """
    expected = SCRIPTS.get(language, ())
    letters = Counter(script(char) for char in text if char.isalpha())
    foreign = Counter({name: count for name, count in letters.items() if name not in expected})
    if not expected or not letters:
        return ""
    if 2 * foreign.total() > letters.total():
        return _other_script(text, foreign, complete=foreign == letters)
    if language == "zh" and sum(letters[name] for name in _KANA) >= MIN_LETTERS:
        return "ja"
    if language == "ja" and not _KANA & letters.keys():
        return "zh" if sum(char in SIMPLIFIED for char in text) >= MIN_LETTERS else ""
    return _other_latin_language(text, language) if language in PROFILES else ""


def _other_script(text: str, foreign: Counter[str], complete: bool) -> str:
    """The language of a text with most letters in the scripts `foreign`; `complete` if these are all letters."""
    most = foreign.most_common(1)[0][0]
    if most == "LATIN":  # names are often written in Latin letters
        return (_latin_language(text) or "latin") if complete and len(_words(text)) >= LATIN_WORDS else ""
    if foreign.total() < MIN_LETTERS:
        return ""
    return "ja" if _KANA & foreign.keys() else _NAMES.get(most, most.lower())


def _latin_language(text: str) -> str:
    """The language with most function words, or "" if they are few or two languages have equally many."""
    words = _words(text)
    word_counts = Counter({language: sum(word in profile for word in words) for language, profile in PROFILES.items()})
    (best, most), (_, second) = word_counts.most_common(2)
    return best if most > second and most >= max(MIN_EVIDENCE, MIN_SHARE * len(words)) else ""


def _other_latin_language(text: str, language: str) -> str:
    """The language for which the function words of a text speak, against `language`; "" without enough of them."""
    words, own = _words(text), PROFILES[language]
    best, most = "", 0
    for other, profile in PROFILES.items():
        evidence = [word for word in words if word in profile and word not in own]
        against = sum(word in own and word not in profile for word in words)
        enough = len(evidence) >= max(MIN_EVIDENCE, RATIO * against, MIN_SHARE * len(words))
        if enough and len({*evidence}) >= MIN_DISTINCT and len(evidence) > most:
            best, most = other, len(evidence)
    return best


@lru_cache(maxsize=1 << 12)
def _words(text: str) -> tuple[str, ...]:
    """The words in lower case without accents."""
    letters = (char for char in unicodedata.normalize("NFD", text.casefold()) if not unicodedata.combining(char))
    return tuple(_WORD.findall("".join(letters)))
