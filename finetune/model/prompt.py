"""Encodes prompts and transcripts as token ids."""

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase as Tokenizer

from finetune.core.errors import ModelError
from finetune.core.prompts import DEFAULT_PROFILE, PromptProfile
from finetune.model.granite import AUDIO_TOKEN


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the audio tokens."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def around(self, audio_token_id: int, num_audio_tokens: int) -> list[int]:
        """The complete prompt (L,) with `num_audio_tokens` audio tokens between prefix and suffix."""
        return [*self.prefix, *[audio_token_id] * num_audio_tokens, *self.suffix]


def user_request(instruction: str, keywords: tuple[str, ...], profile: PromptProfile) -> str:
    """The user's turn after the audio. Keywords are in the format of the model card: `... Keywords: a, b`."""
    if not keywords:
        return instruction
    return f"{profile.with_keywords(instruction)} Keywords: {', '.join(keywords)}"


def render_text(
    tokenizer: Tokenizer, instruction: str, keywords: tuple[str, ...] = (), profile: PromptProfile = DEFAULT_PROFILE
) -> str:
    """Renders the chat template for the system turn of the profile, and `<|audio|>` followed by `user_request`.

    Args:
        tokenizer: of the model.
        instruction: the instruction.
        keywords: expected words.
        profile: the prompts of the model, which can state another instruction for keywords.

    Raises:
        ModelError: the instruction or a keyword contains a special token such as `<|audio|>`, or the chat template is
            missing or does not contain the audio token exactly once.
    """
    written = "\n".join((instruction, *keywords))
    special = [token for token in tokenizer.get_added_vocab() if token in written]
    if special:
        raise ModelError(f"the instruction or a keyword contains the special token {special[0]}; remove it")
    content = AUDIO_TOKEN + profile.separator + user_request(instruction, keywords, profile)
    turns = [{"role": "system", "content": profile.system}] if profile.system else []
    turns.append({"role": "user", "content": content})
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except Exception as error:  # a template is a program: it can fail in any way
        raise ModelError(
            f"the model's chat template is missing or invalid ({type(error).__name__}: {str(error)[:300]})"
        ) from error
    if text.count(AUDIO_TOKEN) != 1:
        raise ModelError(f"the chat template must contain {AUDIO_TOKEN} exactly once, but it gives {text!r}")
    return text


def render(
    tokenizer: Tokenizer, instruction: str, keywords: tuple[str, ...] = (), profile: PromptProfile = DEFAULT_PROFILE
) -> Prompt:
    """Token ids of `render_text`. Raises ModelError as it does."""
    prefix, _, suffix = render_text(tokenizer, instruction, keywords, profile).partition(AUDIO_TOKEN)
    # verbose=False: the length is checked by the caller, which knows the length of the audio.
    return Prompt(
        tuple(tokenizer.encode(prefix, add_special_tokens=False, verbose=False)),
        tuple(tokenizer.encode(suffix, add_special_tokens=False, verbose=False)),
    )


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a transcript. The text of a special token such as `<|audio|>` is encoded as plain text."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
