"""Configuration, tokenizer and other files of the embedded model, in hub layout; the weights are random."""

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

VOCAB = 1024
PAD, EOS, AUDIO = "<|pad|>", "<|end_of_text|>", "<|audio|>"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {{ message['content'] }}\n"
    " ASSISTANT:{% else %}{{ message['content'] }}<|end_of_text|>{% endif %}{% endfor %}"
)
PROMPT = "USER: can you transcribe the speech into a written format?\n ASSISTANT:"


def config() -> GraniteSpeechConfig:
    """The configuration of granite-4.0-1b-speech with fewer layers, smaller widths and a smaller vocabulary."""
    return GraniteSpeechConfig(
        encoder_config={
            "model_type": "granite_speech_encoder",
            "num_layers": 6,
            "hidden_dim": 160,
            "num_heads": 5,
            "dim_head": 32,
            "input_dim": 160,
            "output_dim": 348,
            "context_size": 200,
            "max_pos_emb": 512,
            "conv_kernel_size": 15,
            "conv_expansion_factor": 2,
            "feedforward_mult": 4,
            "dropout": 0.1,
        },
        projector_config={
            "model_type": "blip_2_qformer",
            "num_hidden_layers": 2,
            "hidden_size": 160,
            "intermediate_size": 640,
            "num_attention_heads": 5,
            "encoder_hidden_size": 160,
            "cross_attention_frequency": 1,
            "layer_norm_eps": 1e-12,
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "vocab_size": 30522,
        },
        text_config={
            "model_type": "granite",
            "num_hidden_layers": 5,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "vocab_size": VOCAB,
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "embedding_multiplier": 12.0,
            "logits_scaling": 8.0,
            "attention_multiplier": 1 / 32,
            "residual_multiplier": 0.22,
            "tie_word_embeddings": False,
            "bos_token_id": VOCAB - 2,
            "eos_token_id": VOCAB - 2,
            "pad_token_id": VOCAB - 3,
        },
        audio_token_index=VOCAB - 1,
        downsample_rate=5,
        window_size=15,
        has_lora_adapter=False,
        tie_word_embeddings=False,
        dtype="float32",
        architectures=["GraniteSpeechForConditionalGeneration"],
    )


def build_tokenizer(texts: list[str], folder: Path) -> None:
    """Trains the byte-level BPE on `texts` and writes all files except config and weights to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 3, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator([*texts, *[PROMPT] * 300], trainer)
    bpe.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (PAD, EOS, AUDIO)])
    bpe.save(str(folder / "tokenizer.json"))
    contents = {
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "add_prefix_space": False,
            "bos_token": EOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "padding_side": "left",
            "model_max_length": 4096,
            "clean_up_tokenization_spaces": False,
        },
        "preprocessor_config.json": {
            "feature_extractor_type": "GraniteSpeechFeatureExtractor",
            "processor_class": "GraniteSpeechProcessor",
            "melspec_kwargs": {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80},
            "sampling_rate": 16000,
            "projector_window_size": 15,
            "projector_downsample_rate": 5,
        },
        "processor_config.json": {"processor_class": "GraniteSpeechProcessor", "audio_token": AUDIO},
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def build_model() -> GraniteSpeechForConditionalGeneration:
    """The model with random weights; call `torch.manual_seed` first."""
    model = GraniteSpeechForConditionalGeneration(config())
    # The default of 0.02 suits wide models; this narrow model trains faster with larger embeddings.
    model.model.language_model.embed_tokens.weight.data.normal_(0.0, 0.08)
    return model
