"""Finds the manifest's key of each column of a corpus."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from finetune.core.errors import DataError
from finetune.core.unicode_text import composed
from finetune.data.cells import shown
from finetune.data.time_names import without_accents, words_of

ALIASES = {  # column names for each key, the preferred one first; lower case with underscores
    "audio_filepath": (
        "audio_filepath",
        "audio_file",
        "audio_path",
        "path",
        "file",
        "file_name",
        "filename",
        "audio",
        "wav",
        "wav_path",
        "wav_file",
        "wav_filename",
        "audio_filename",
        "file_path",
        "filepath",
    ),
    "text": ("text", "sentence", "transcript", "transcription", "normalized_text", "reference", "label", "txt"),
    "id": ("id", "utterance_id", "utt_id", "segment_id"),
    "language": ("language", "lang", "locale", "source_language", "source_lang", "language_code"),
    "task": ("task", "taskname"),
    "target_language": ("target_language", "target_lang"),
    "speaker": ("speaker", "speaker_id", "client_id", "speaker_name", "spk", "spk_id"),
    "keywords": ("keywords", "hotwords"),
    "accent": ("accent", "accents"),
    "channel": (
        "channel",
        "channel_id",
        "ch",
        "chan",
        "channel_index",
        "channel_idx",
        "channel_number",
        "channel_num",
        "audio_channel",
        "channel_selector",
    ),
}
_TRANSLATED = {  # names in other languages, without accents
    "audio_filepath": "datei dateiname dateipfad audiodatei pfad fichier fichier_audio nom_de_fichier chemin archivo "
    "archivo_audio nombre_de_archivo ruta arquivo arquivo_de_audio caminho percorso "
    "音声 音声ファイル ファイル ファイル名",
    "text": "transkript transkription satz texte phrase texto frase transcripcion transcricao testo trascrizione "
    "テキスト 書き起こし 文字起こし",
    "language": "sprache langue idioma lengua lingua taal 言語",
    "speaker": "sprecher sprecherin sprecher_id locuteur locutrice hablante locutor locutora falante orador oradora "
    "parlante spreker 話者 発話者",
}
OTHER_ALIASES = {key: tuple(map(composed, names.split())) for key, names in _TRANSLATED.items()}
CHANNEL = {
    "channel",
    "chan",
    "ch",
    "kanal",
    "canal",
}  # a column named with one of these words and some of the next ones
OF_A_CHANNEL = {
    "speaker",
    "segment",
    "utterance",
    "audio",
    "wav",
    "call",
    "index",
    "idx",
    "id",
    "no",
    "nr",
    "number",
    "tag",
}
SIDE = {"side", "leg", "seite", "cote", "lado"}  # a channel if the values are sides of a call, in files of several
PATH_KEYS = ("path", "filepath", "file", "file_name", "filename")  # of an object in the audio column
NO_TIMES = {*PATH_KEYS, "bytes", "array", "sampling_rate"}


def known_columns(names: Iterable[str]) -> dict[str, str]:
    """The key of each column whose name is one of ALIASES. If several columns fit a key, the preferred one has it."""
    normalized = _normalized(names)
    key_of = {}
    for key, aliases in ALIASES.items():
        names_of_key = (*aliases, *OTHER_ALIASES.get(key, ()))
        if name := next((normalized[alias] for alias in names_of_key if alias in normalized), None):
            key_of[name] = key
    if {"task_hash", "text", "transcript"} <= normalized.keys():  # Prodigy: `text` is the name of the audio
        key_of = {name: key for name, key in key_of.items() if key != "text"} | {normalized["transcript"]: "text"}
    if "id" not in key_of.values() and {"key", "wav", "txt"} <= normalized.keys():  # lists of WeNet
        key_of[normalized["key"]] = "id"
    return key_of


def _normalized(names: Iterable[str]) -> dict[str, str]:
    """The names by their forms in lower case with underscores: `fileName` is `filename` and `file_name`."""
    names = list(names)[::-1]
    split = {name: re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name) for name in names}
    return {
        re.sub(r"[\W_]+", "_", without_accents(form)).strip("_"): name
        for forms in (split.items(), ((name, name) for name in names))
        for name, form in forms
    }


def is_side(name: str) -> bool:
    """Whether the name of a column has the word for a side of a call or the name of a channel, and no other words."""
    words = {*words_of(name)}
    return (bool(words & SIDE) and words <= SIDE | OF_A_CHANNEL) or words == {"channel", "name"}


def column_keys(
    columns: Iterable[str], lists: Collection[str], source: str, needed: Sequence[str], sides: Collection[str]
) -> dict[str, str]:
    """The manifest's key of each column that has another name. Columns that match no key keep their names.

    Args:
        columns: the columns of all rows, in their order.
        lists: the columns with lists of values.
        source: the source, for messages.
        needed: keys that must have a column.
        sides: columns that are the channel if no other one is.

    Raises:
        DataError: the column of a needed key is missing.
    """
    names, normalized = known_columns(columns), _normalized(columns)
    for key in needed:
        if key not in names.values():
            similar = [
                normalized[name]
                for alias in ALIASES[key]
                for name in difflib.get_close_matches(alias, normalized, 1, 0.75)
            ]
            hint = f"; did you mean {similar[0]!r}?" if similar else "."
            raise DataError(
                f"{source}: no column for {key}; the columns are {', '.join(map(shown, columns))}{hint} "
                f"Use one of the names {', '.join(ALIASES[key])}"
            )
    if "channel" not in names.values():
        words = {name: {*words_of(name)} for name in columns}
        similar = [name for name, parts in words.items() if parts & CHANNEL and parts <= CHANNEL | OF_A_CHANNEL]
        names |= {name: "channel" for name in similar[:1]}
    if "channel" not in names.values() and normalized.get("channels") in lists:  # or the number of channels of the file
        names[normalized["channels"]] = "channel"
    if "channel" not in names.values():
        names |= {name: "channel" for name in columns if name in sides and name not in names}
    for name in columns:  # a column has the name of a key, but another column was chosen for this key
        if name not in names and name in names.values():
            names[name] = f"{name}_original"
    return {name: key for name, key in names.items() if name != key}


def renamed(values: Mapping[str, object], keys: Mapping[str, str]) -> dict[str, object]:
    """The values of a row with other keys for some columns."""
    return {keys.get(name, name): value for name, value in values.items()}


def split_audio(value: object) -> tuple[object, dict[str, object]]:
    """The name of the audio in a cell, and what an object there has besides: times or the channel of a segment."""
    if not isinstance(value, dict):
        return value, {}
    rest = {str(key): item for key, item in value.items() if key not in NO_TIMES}
    inner = {key: rest.pop(key) for key in ("channel",) if key in rest} | ({"audio": rest} if rest else {})
    return next((value[key] for key in PATH_KEYS if isinstance(value.get(key), str)), None), inner
