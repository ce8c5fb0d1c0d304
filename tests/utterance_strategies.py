"""Utterances of every kind for tests with hypothesis."""

from hypothesis import strategies as st

from finetune.data.manifest import KEYS, VERSION_KEY, Utterance

SECONDS = st.floats(0.001, 1e6)
WORDS = st.text(st.characters(), max_size=30)  # every character, lone surrogates and line separators too
VALUES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
UTTERANCES = st.lists(
    st.builds(
        Utterance,
        id=WORDS.filter(bool),
        audio_filepath=WORDS,
        duration=SECONDS,
        text=WORDS,
        offset=st.just(0.0) | SECONDS,
        language=WORDS,
        speaker=WORDS,
        keywords=st.lists(WORDS, max_size=3).map(tuple),
        extra=st.dictionaries(
            WORDS.filter(lambda key: key not in (*KEYS, VERSION_KEY)), VALUES | st.lists(VALUES), max_size=3
        ),
        channel=st.none() | st.integers(0, 9),
        audio_digest=WORDS,
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda utterance: utterance.id,
)
