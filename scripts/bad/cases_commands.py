"""Command lines that are wrong, for every command."""

from collections.abc import Iterator

from bad.case import ANY, USAGE, Case
from bad.material import Material

Wrong = tuple[list[str], tuple[int, ...], str]  # command line, exit codes, what the message must contain


def cases(material: Material) -> Iterator[Case]:
    folder = material.folder("commands")
    (folder / "list.txt").write_text("nowhere.wav\n" * 5000)
    (folder / "zero.txt").symlink_to("/dev/zero")
    wrong = [*_stages(material), *_scoring(material), *_transcribing(material), *_others(material)]
    for number, (argv, codes, says) in enumerate(wrong):
        yield Case(f"command-{number}-{argv[0][:10]!a}" if argv else "command-none", folder, argv, codes, says)


def _stages(material: Material) -> list[Wrong]:
    """No command, and the commands that read a recipe or a run."""
    audio, model, test = str(material.good / "test0.wav"), str(material.model), material.test
    return [
        ([], USAGE, "COMMAND"),
        ([""], USAGE, "invalid choice"),
        (["nothing"], USAGE, "invalid choice"),
        (["\x1b[31m"], USAGE, ""),
        (["check"], USAGE, "RECIPE"),
        (["check", material.recipe, "extra"], USAGE, "unrecognized"),
        (["check", material.recipe, "--set"], USAGE, "set"),
        (["check", audio], USAGE, "test0.wav"),
        (["run", test], USAGE, "test.jsonl"),
        (["score", model], USAGE, "directory"),
        (["report"], USAGE, "RUN_DIR"),
        (["report", material.recipe], (1, 2), "run directory"),
        (["demo"], USAGE, "DIR"),
    ]


def _scoring(material: Material) -> list[Wrong]:
    """`compare` and `calibrate`."""
    model, test = str(material.model), material.test
    hypotheses = [str(material.good / f"hyp_{letter}.jsonl") for letter in "ab"]
    compare = ["compare", *hypotheses, "--manifest", test]
    calibrate = ["calibrate", "--model", model, "--manifest", test, "--max-wer-loss"]
    return [
        (["compare", hypotheses[0], "--manifest", test], USAGE, "two"),
        (["compare", hypotheses[0], hypotheses[0], "--manifest", test], USAGE, "different"),
        (["compare", *hypotheses], USAGE, "manifest"),
        (["compare", *hypotheses, "--manifest", ""], (1, 2), ""),
        (["compare", *hypotheses, "--manifest", "nowhere.jsonl"], (1, 2), "nowhere"),
        (["compare", *hypotheses, "--manifest", model], (1, 2), ""),
        (["compare", "whisper:", hypotheses[0], "--manifest", test], USAGE, "whisper"),
        (["compare", "whisper:../../x", hypotheses[0], "--manifest", test], (1, 2), "whisper|hub"),
        (["compare", "openai:", hypotheses[0], "--manifest", test], USAGE, "openai"),
        ([*compare, "--normalizer", "no"], USAGE, "normalizer"),
        ([*compare, "--replicas", "1"], USAGE, "replicas"),
        ([*compare, "--replicas", "x"], USAGE, "replicas"),
        ([*compare, "--replicas", "9" * 30], (1, 2), "replicas|memory"),
        ([*compare, "--fail-if", "wer >"], USAGE, "fail-if|condition"),
        ([*compare, "--fail-if", "wer > base + " + "9" * 500], (1, 2), "fail-if|condition|wer"),
        ([*compare, "--fail-if", "__import__('os')"], USAGE, "fail-if|condition"),
        ([*compare, "--fail-if", "recall < base"], USAGE, "recall"),
        ([*calibrate, "-1"], USAGE, "max-wer-loss"),
        ([*calibrate, "nan"], USAGE, "max-wer-loss"),
        ([*calibrate, "x"], USAGE, "max-wer-loss"),
        (["calibrate", "--model", model, "--manifest", "nowhere", "--max-wer-loss", "1"], (1, 2), "nowhere"),
    ]


def _transcribing(material: Material) -> list[Wrong]:
    """`transcribe`."""
    audio, model = str(material.good / "test0.wav"), str(material.model)
    transcribe = ["transcribe", audio, "--model", model]
    return [
        (["transcribe", "--model", model], USAGE, "no audio files"),
        (["transcribe", audio], USAGE, "model"),
        (["transcribe", "", "--model", model], (1, 2), ""),
        (["transcribe", "a\0b.wav", "--model", model], (1, 2), "null|no such"),
        (["transcribe", "n" * 5000, "--model", model], (1, 2), "no such|long"),
        (["transcribe", ".", "--model", model], (1, 2), "director|audio|file"),
        (["transcribe", "/dev/zero", "--model", model], (1, 2), "zero"),
        (["transcribe", "~nobody-here/a.wav", "--model", model], (1, 2), "no such"),
        (["transcribe", "\udcff.wav", audio, "--model", model], (1,), "no such"),
        (["transcribe", "--files-from", "list.txt", "--model", model], (1, 2), "no such"),
        (["transcribe", "--files-from", "zero.txt", "--model", model], (1, 2), "zero.txt"),
        (["transcribe", "--files-from", audio, "--model", model], (1, 2), "test0.wav"),
        ([*transcribe, "--format", "docx"], USAGE, "docx"),
        ([*transcribe, "--language", "klingon"], USAGE, "klingon"),
        ([*transcribe, "--translate-to", "xx"], USAGE, "xx"),
        ([*transcribe, "--keywords", "<|audio|>"], (1, 2), "audio"),
        ([*transcribe, "--keywords", "a\nb"], ANY, ""),
        ([*transcribe, "--keywords", ",".join(f"word{n}" for n in range(5000))], (1, 2), "keywords"),
        ([*transcribe, "--max-entropy", "nan", "--decoder", "relaxed"], USAGE, "entropy"),
        ([*transcribe, "--max-entropy", "1"], USAGE, "relaxed"),
        ([*transcribe, "--min-probability", "7", "--decoder", "relaxed"], USAGE, "probability"),
        ([*transcribe, "--batch-seconds", "0"], USAGE, "batch"),
        ([*transcribe, "--batch-seconds", "nan"], USAGE, "batch"),
        ([*transcribe, "--batch-seconds", "-inf"], USAGE, "batch"),
        ([*transcribe, "--max-new-tokens", "0"], USAGE, "tokens"),
        ([*transcribe, "--max-new-tokens", "1000000000"], (1, 2), "tokens|positions"),
        ([*transcribe, "--decoder", "x"], USAGE, "decoder"),
        (["transcribe", audio, audio, "--model", model, "--format", "srt"], USAGE, "output"),
        ([*transcribe, "--processes", "-1"], USAGE, "processes"),
        ([*transcribe, "--processes", "x"], USAGE, "processes"),
    ]


def _others(material: Material) -> list[Wrong]:
    """The other commands."""
    audio, model, test = str(material.good / "test0.wav"), str(material.model), material.test
    return [
        (["doctor", "extra"], USAGE, "unrecognized"),
        (["recipes"], USAGE, "ACTION"),
        (["recipes", "show"], USAGE, "NAME"),
        (["recipes", "show", "../README"], (1,), "quickstart"),
        (["recipes", "show", "a\0b"], (1,), "quickstart"),
        (["recipes", "copy", "quickstart", "no/such/folder/x.yaml"], (1,), "written"),
        (["recipes", "copy", "quickstart", "a\0b"], (1,), "a"),
        (["recipes", "copy", "quickstart", "n" * 5000], (1,), "n"),
        (["init"], (1,), "corpus"),
        (["init", "--yes"], (1,), "corpus"),
        (["init", ""], (1,), "corpus"),
        (["init", "nowhere", "--yes"], (1,), "nowhere"),
        (["init", audio, "--yes"], (1, 2), "test0"),
        (["init", "a\0b", "--yes"], (1, 2), ""),
        (["init", test, "--goal", "no"], USAGE, "goal"),
        (["init", test, "--yes", "--name", "../x"], (1,), "name"),
        (["init", test, "--yes", "--name", "n" * 5000], (1,), "name|long"),
        (["init", test, "--yes", "--name", "y", "--terms", "nowhere.txt"], (1,), "nowhere.txt"),
        (["init", test, "--yes", "--name", "y", "--terms", "."], (1,), "terms"),
        (["push"], USAGE, "EXPORT"),
        (["push", "nowhere", "a/b", "--dry-run"], (1, 2), "nowhere"),
        (["push", model, "not a name", "--dry-run"], (1, 2), "not a name|OWNER"),
        (["push", model, "a/b/c", "--dry-run"], (1, 2), "a/b/c|OWNER"),
        (["push", audio, "a/b", "--dry-run"], (1, 2), "test0"),
        (["serve"], USAGE, "MODEL"),
        (["serve", "nowhere"], (1, 2), "nowhere"),
        (["serve", model, "--port", "99999999"], (1, 2), "port"),
        (["serve", model, "--port", "x"], USAGE, "port"),
        (["serve", model, "--adapter", "nothing"], (1, 2), "adapter|NAME"),
        (["serve", model, "--adapter", "a=nowhere"], (1, 2), "nowhere"),
        (["bench-serve"], USAGE, "URL"),
        (["bench-serve", "http://127.0.0.1:9", "nowhere", "--rate", "1"], (1, 2), "nowhere|answer"),
        (["bench-serve", "not a url", test, "--rate", "1"], (1, 2), "url|address|http"),
        (["bench-serve", "http://127.0.0.1:9", test, "--rate", "0"], (1, 2), "rate"),
        (["bench-serve", "http://127.0.0.1:9", test, "--rate", "nan"], (1, 2), "rate"),
    ]
