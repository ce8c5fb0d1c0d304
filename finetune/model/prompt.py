"""What the language model reads around the audio, as token ids."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.errors import ModelError
from finetune.model.granite import AUDIO_TOKEN


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the audio positions."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def around(self, audio_token_id: int, num_audio_tokens: int) -> list[int]:
        """The whole prompt for a clip of `num_audio_tokens`."""
        return [*self.prefix, *[audio_token_id] * num_audio_tokens, *self.suffix]


def render(tokenizer: Tokenizer, instruction: str, keywords: tuple[str, ...] = ()) -> Prompt:
    """Renders the chat template around `<|audio|>` + instruction.

    Keywords are appended as the model card asks: `... Keywords: a, b`.

    Raises:
        ModelError: the instruction or a keyword holds a control token such as `<|audio|>`, or the tokenizer
            has no chat template that keeps the audio.
    """
    found = [mark for mark in tokenizer.get_added_vocab() if any(mark in part for part in (instruction, *keywords))]
    if found:
        raise ModelError(f"the instruction or a keyword holds {found[0]}, which the model would read as a command")
    request = f"{AUDIO_TOKEN}{instruction}"
    if keywords:
        request += f" Keywords: {', '.join(keywords)}"
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
        )
    except ValueError as error:
        raise ModelError(f"the base model's tokenizer has no chat template: {error}") from error
    before, mark, after = str(text).partition(AUDIO_TOKEN)
    if not mark or AUDIO_TOKEN in after:
        raise ModelError(f"the prompt must hold {AUDIO_TOKEN} exactly once, got {text!r}")
    # Not verbose: whether the prompt is too long is for those to say who know how long the audio is.
    return Prompt(
        tuple(tokenizer.encode(before, add_special_tokens=False, verbose=False)),
        tuple(tokenizer.encode(after, add_special_tokens=False, verbose=False)),
    )


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a transcript as the model writes it; markers of special tokens stay plain text."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
