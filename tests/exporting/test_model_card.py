"""The model card of an export: front matter of the hub, results, data, prompt; results on benchmarks; engines."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_facts import metrics, recipe, results

from finetune.core.errors import ModelError, RecipeError
from finetune.core.model_limits import ModelLimits
from finetune.core.options import DecodingOptions
from finetune.core.prompts import INSTRUCTION, PROFILES
from finetune.core.run_dir import RunDir
from finetune.data.manifest import Utterance, write_manifest
from finetune.exporting.base_facts import BaseFacts, base_facts, front_matter
from finetune.exporting.card.model_card import CardFacts, CardFormat, model_card, valid_in_characters
from finetune.exporting.card.usage import engine_section, llamacpp_prompt, prompt_section, update_engines, usage
from finetune.exporting.card.write import write_merged_card
from finetune.exporting.data_facts import other_prompts, split_facts
from finetune.exporting.engine_checks import FILE, EngineCheck, add_check, read_checks
from finetune.exporting.eval_results import Benchmark, benchmark_of, eval_result, parse_benchmark
from finetune.metrics.results import write_model
from finetune.report.facts import Overlap
from finetune.training.state import TrainRecord

HUB = BaseFacts("ibm-granite/x", hub="ibm-granite/x", revision="abc", license="apache-2.0")
FORM = CardFormat("transformers", "finetune", "", "HOW TO RUN\n")
RECORD = TrainRecord(
    best_epoch=2, best_alpha=0.9, best_valid_wer=0.1, base_valid_wer=0.3, best_canary_wer=0.06, base_canary_wer=0.05,
    within_canary_limit=True, steps=12, skipped_steps=0, padding=0.0, clips_per_second=1.0, trained_parameters=10,
    total_parameters=100, seconds=7200.0, inputs="",
)  # fmt: skip
ROWS = [
    {"duration": 1800, "language": "de", "speaker": "a", "text": "x", "synthetic": True},
    {"duration": 1800, "language": "de", "speaker": "b", "text": "x", "pseudo_label": True},
    {"duration": 900, "language": "fr", "speaker": "a", "text": "x", "task": "translate"},
    {"duration": 900, "text": "x"},
]


@pytest.fixture
def facts(tmp_path: Path) -> CardFacts:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = recipe(
        data={"canary": ["/data/secret/c.jsonl"], "train": ["hf:org/set:en:train"]},
        parts={"projector": {"mode": "full"}},
    )
    data, separate = {"train": split_facts(path)}, Overlap(0, 0, 0, 0)
    return CardFacts(settings, HUB, data, RECORD, results(), ModelLimits(), PROFILES["4.0"], separate)


def header(card: str) -> dict[str, Any]:
    return dict(yaml.safe_load(card.split("---\n")[1]))


def test_data_facts(facts: CardFacts) -> None:
    data = facts.data["train"]
    assert (data.clips, data.hours, data.speakers) == (4, 1.5, 2)
    assert data.languages == {"de": 1.0, "fr": 0.25, "": 0.25}
    assert (data.synthetic, data.pseudo_labels, data.translations) == (1, 1, 1)


def test_the_front_matter_is_that_of_the_hub(facts: CardFacts) -> None:
    content = header(model_card(facts, FORM))
    assert content["license"] == "apache-2.0" and content["library_name"] == "transformers"
    assert content["base_model"] == "ibm-granite/x" and content["base_model_relation"] == "finetune"
    assert content["pipeline_tag"] == "automatic-speech-recognition"
    assert content["language"] == ["de", "fr"] and content["datasets"] == ["org/set"]
    (index,) = content["model-index"]
    assert index["results"][0]["metrics"] == [{"type": "wer", "value": 10.0, "name": "WER (%), basic@2"}]
    assert [item["dataset"]["name"] for item in index["results"]] == ["test", "canary"]


def test_test_speakers_of_the_training_limit_the_verdict(facts: CardFacts) -> None:
    assert "- **Domain: Better.**" in model_card(facts, FORM) and "separate" not in model_card(facts, FORM)
    card = model_card(replace(facts, overlap=Overlap(0, 0, 0, speakers=9)), FORM)
    assert "- **Domain: Better on these 20 speakers; other speakers not shown.**" in card
    (domain,) = (line for line in card.splitlines() if line.startswith("- **Domain"))
    assert "for other speakers like these" not in domain
    assert "9 of 20 test speakers are in the training data" in card
    leaking = model_card(replace(facts, overlap=Overlap(3, 3, 0, 0)), FORM)
    assert "3 test clips with a training sentence: the test scores are too good." in leaking


def test_scores_of_characters_are_named_cer(facts: CardFacts) -> None:
    content = metrics()
    for system in ("base", "adapted"):
        content["scores"]["test"][system]["normalizer"] = "ja-cer@2"
    card = model_card(replace(facts, results=results(content)), FORM)
    (index,) = header(card)["model-index"]
    assert index["results"][0]["metrics"] == [{"type": "cer", "value": 10.0, "name": "CER (%), ja-cer@2"}]
    assert header(card)["metrics"] == ["cer", "wer"]  # test and canary
    assert "| test | 100 | 1 | CER | 20.0 | 10.0 |" in card and "| canary | 100 | 1 | WER |" in card
    assert "CER 20.0 % → 10.0 %" in card
    _, text = eval_result(Benchmark("o/d", "t"), results(content).scores["test"].adapted)
    assert "CER (%), normalizer ja-cer@2" in text


def test_intervals_name_their_units_and_limits(facts: CardFacts) -> None:
    assert "intervals and tests over 20 speakers. " in model_card(facts, FORM)
    content = metrics()
    content["differences"]["canary"]["blocks"] = 80
    for system in ("base", "adapted"):
        content["scores"]["canary"][system]["blocks"]["unit"] = "utterance"
        content["scores"]["test"][system]["interval"]["note"] = f"only 3 blocks of {system}"
    card = model_card(replace(facts, results=results(content)), FORM)
    assert "intervals and tests over 20 speakers (test); 80 utterances (canary). " in card
    assert "\nInterval of `test`: only 3 blocks of adapted.\n" in card and "blocks of base" not in card


def test_a_test_set_without_words_has_no_wer(facts: CardFacts) -> None:
    content = metrics()
    for system, words in (("base", 1200), ("adapted", 3)):
        content["scores"]["test"][system] |= {"reference_words": 0, "insertions": words, "wer": 1.0}
    card = model_card(replace(facts, results=results(content)), FORM)
    assert "| test | 100 | 1 | inserted words | 1,200 | 3 | – | −1,197 | – | – |" in card
    (index,) = header(card)["model-index"]
    assert [item["dataset"]["name"] for item in index["results"]] == ["canary"]
    content["scores"] = {"test": content["scores"]["test"]}
    content["differences"] = {"test": content["differences"]["test"]}
    assert "model-index" not in header(model_card(replace(facts, results=results(content)), FORM))


def test_the_sections_have_what_a_reader_asks_for(facts: CardFacts) -> None:
    card = model_card(facts, FORM)
    for text in (
        "| test | 100 | 1 | WER | 20.0 | 10.0 | 8.0 to 12.0 | −10.0 | −15.0 to −5.0 | 0.001 |",
        "| canary | 100 | 1 | WER | 20.0 | 10.0 | 8.0 to 12.0 | +0.1 | −0.4 to +0.6 | 0.600 |",
        "- **General speech: No significant loss.**",
        "- **Recall of terms**: that occur in the training texts 95.0 % → 95.0 % (90.0 to 100.0)",
        "`ibm-granite/x`, revision `abc`; licence: apache-2.0",
        "| train | 4 | 1.5 | German 1, French 0.25, not stated 0.25 | 2 | 1 | 1 | 1 |",
        "lora of rank 16 in the language model, projector (10 of 100 parameters)",
        "12 steps; best epoch 2",
        "alpha 0.9",
        "Training time: 2.0 hours;",
        "`<|audio|>can you transcribe the speech into a written format?`",
        "HOW TO RUN",
        "Data sets of the hub: `org/set`",
        "torch 2",
        "@software",
        "At most 30 s",
        "(de, fr)",
    ):
        assert text in card, text
    assert "secret" not in card and "TODO" not in card.upper()


@pytest.mark.parametrize(
    ("decode", "how", "plain"),
    [
        ({"decoder": "beam"}, "beam search (`decode.decoder: beam`, 8 texts), which", "With greedy decoding, as in"),
        (
            {"decoder": "beam", "terms": ["stent"]},
            "beam search (`decode.decoder: beam`, 8 texts) and a list of 1 term (`decode.terms`), which",
            "With greedy decoding without the list, as in",
        ),
        (
            {"max_window": 7},
            "clips longer than 7 s cut at pauses, which",
            "With greedy decoding of each clip in one piece, as in",
        ),
        (
            {"decoder": "beam", "terms": ["stent"], "max_window": 7},
            "beam search (`decode.decoder: beam`, 8 texts), a list of 1 term (`decode.terms`) and clips longer than "
            "7 s cut at pauses, which",
            "With greedy decoding without the list of each clip in one piece, as in",
        ),
    ],
)
def test_the_card_says_what_engines_without_our_decoding_reach(
    facts: CardFacts, decode: dict[str, Any], how: str, plain: str
) -> None:
    found = metrics()
    found["decoders"]["engine_wer"] = 0.3
    card = model_card(replace(facts, recipe=recipe(decode=decode), results=results(found)), FORM)
    assert f"Both models wrote with {how} `finetune transcribe` and `finetune serve` use" in card
    assert f"{plain} other engines, this model has a WER of 30.0." in card
    for system in ("base", "adapted"):
        found["scores"]["test"][system]["normalizer"] = "ja-cer@2"
    card = model_card(replace(facts, recipe=recipe(decode=decode), results=results(found)), FORM)
    assert "this model has a CER of 30.0." in card
    found["scores"]["test"]["adapted"]["chrf"] = 0.5  # translations
    card = model_card(replace(facts, recipe=recipe(decode=decode), results=results(found)), FORM)
    assert "as in other engines" not in card and f"Both models wrote with {how}" in card
    found = metrics()  # results of an earlier version
    card = model_card(replace(facts, recipe=recipe(decode=decode), results=results(found)), FORM)
    assert "as in other engines" not in card


def test_scores_with_a_list_of_terms_say_so_and_what_they_are_without(facts: CardFacts) -> None:
    told = metrics() | {"without_terms": {"test": {"base": 0.5, "adapted": 0.25}}}
    settings = recipe(decode={"terms": ["stent", "aorta"]})
    card = model_card(replace(facts, recipe=settings, results=results(told)), FORM)
    assert "Both models wrote with a list of 2 terms" in card
    assert "Without the list, the WER of `test` is 50.0 (base) and 25.0 (this model)." in card
    names = [row["metrics"][0]["name"] for row in header(card)["model-index"][0]["results"]]
    assert len(names) == 2 and all(name.endswith("with a list of terms") for name in names)
    assert "list of" not in model_card(facts, FORM)
    with_keywords = model_card(replace(facts, recipe=settings), FORM)  # of the rows: no WER without the list
    assert "Both models wrote with a list of 2 terms" in with_keywords and "Without the list" not in with_keywords
    names = [row["metrics"][0]["name"] for row in header(with_keywords)["model-index"][0]["results"]]
    assert all(name.endswith("with a list of terms") for name in names)
    _, text = eval_result(Benchmark("o/d", "t"), results().scores["test"].adapted, with_terms=True)
    assert yaml.safe_load(text)[0]["notes"].endswith("100 clips, with a list of terms")


def test_a_run_that_was_not_evaluated_says_so(facts: CardFacts) -> None:
    card = model_card(replace(facts, results=None), FORM)
    assert "Not evaluated on test data" in card and "base 30.0 %, this model 10.0 %" in card
    assert "base 5.0 %, this model 6.0 %" in card and "model-index" not in header(card)
    assert ". WER of the validation clips" in card
    valid = facts.data["train"].model_copy(update={"translations": 1})
    translated = model_card(replace(facts, results=None, data={**facts.data, "valid": valid}), FORM)
    assert ". Error (1 - chrF of translations, WER of the others) of the validation clips" in translated
    characters = model_card(replace(facts, results=None, valid_in_characters=True), FORM)
    assert (
        ". CER of the validation clips" in characters and "WER" not in characters.split("## Results")[1].split("##")[0]
    )
    assert header(characters)["metrics"] == ["cer"]
    assert "Not evaluated." in model_card(replace(facts, results=None, record=None), FORM)


def test_the_prompts_of_other_tasks_and_styles_are_in_the_card(facts: CardFacts, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert other_prompts(run, INSTRUCTION, PROFILES["4.0"]) == {}, "there is no manifest"
    run.manifest("train").parent.mkdir(parents=True)
    clip = Utterance("a", "x.wav", 1.0, "x", language="de")
    french = replace(clip, task="translate", target_language="fr")
    styled = replace(clip, text_style="punctuated")
    plain = replace(clip, text_style="raw")  # the instruction of the recipe
    own = [replace(clip, instruction=f"task\n{number}") for number in range(8)]
    items = [clip, plain, french, french, french, styled, styled]
    write_manifest(run.manifest("train"), [replace(item, id=f"{n}") for n, item in enumerate(items)])
    write_manifest(run.manifest("replay"), [replace(item, id=f"{n}") for n, item in enumerate([french, *own])])
    prompts = other_prompts(run, INSTRUCTION, PROFILES["4.0"])
    card = model_card(replace(facts, prompts=prompts), FORM)
    assert (
        "Training clips also had other instructions in its place: `translate the speech to French.` (4 clips), "
        "`transcribe the speech with proper punctuation and capitalization.` (2 clips), `task 0` (1 clip), " in card
    )
    assert "`task 5` (1 clip) and 2 more.\n" in card and "task 6" not in card
    assert "other instructions" not in model_card(facts, FORM)


@pytest.mark.parametrize(
    ("texts", "normalizer", "characters"),
    [
        ({"ja": "今日は晴れ"}, "basic@2", True),
        ({"": "今日は晴れ"}, "basic@2", True),
        ({"ja": "今日は晴れ", "en": "a word"}, "basic@2", False),
        ({"en": "a word"}, "basic@2", False),
        ({"en": "a word"}, "ja-cer@2", True),
    ],
)
def test_validation_of_japanese_is_scored_in_characters(
    tmp_path: Path, texts: dict[str, str], normalizer: str, characters: bool
) -> None:
    run = RunDir(tmp_path)
    assert not valid_in_characters(run, normalizer), "there is no manifest"
    run.manifest("valid").parent.mkdir()
    items = [Utterance(f"v{code}", "x.wav", 1.0, text, language=code) for code, text in texts.items()]
    translated = Utterance("t", "x.wav", 1.0, "a word", language="ja", task="translate", target_language="en")
    write_manifest(run.manifest("valid"), [*items, translated])
    assert valid_in_characters(run, normalizer) == characters


def test_translations_are_scored_by_chrf(facts: CardFacts) -> None:
    content = metrics()
    for system in ("base", "adapted"):
        content["scores"]["test"][system] |= {"chrf": 0.5, "translation": {}}
    card = model_card(replace(facts, results=results(content)), FORM)
    assert "| test | 100 | 1 | chrF | 50.0 | 50.0 | – | +10.0 | +5.0 to +15.0 | 0.001 |" in card
    assert [item["dataset"]["name"] for item in header(card)["model-index"][0]["results"]] == ["canary"]


def test_a_base_without_a_licence_or_a_hub_name(facts: CardFacts) -> None:
    card = model_card(replace(facts, base=BaseFacts("my-model")), FORM)
    assert not {"license", "base_model"} & header(card).keys()
    assert "`my-model`; licence: not stated by the base model" in card


def test_base_facts(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "0123"
    folder.mkdir(parents=True)
    known = base_facts("ibm-granite/granite-4.0-1b-speech", None, folder)
    assert known == BaseFacts(known.name, known.name, "0123", "apache-2.0")
    assert base_facts("other/model", "77", folder) == BaseFacts("other/model", "other/model", "77", "")
    assert base_facts("other/model", None, tmp_path / "export").revision == "", "the folder of an export is no commit"
    assert base_facts("/srv/gone/base", None, tmp_path / "export") == BaseFacts("base"), "a folder that was deleted"
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# x\n---\nlicense: no\n---\n")
    assert base_facts("other/model", "77", folder).license == "mit"
    assert base_facts(str(folder), None, folder) == BaseFacts("0123", license="mit")
    (folder / "adaptation.json").write_text(json.dumps({"base": "org/first", "revision": "9"}))
    assert base_facts(str(folder), None, folder) == BaseFacts("org/first", "org/first", "9", "mit", "0123")
    (folder / "adaptation.json").write_text(json.dumps({"base": "/srv/base"}))
    assert base_facts(str(folder), None, folder) == BaseFacts("0123", license="mit")


def test_a_licence_that_the_hub_does_not_know_keeps_its_name_and_link(facts: CardFacts, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(
        b"---\r\nlicense: other\r\nlicense_name: acme-1\r\nlicense_link: LICENSE.md\r\n---\r\n"
    )
    base = base_facts("acme/speech", "77", tmp_path)
    link = "https://huggingface.co/acme/speech/blob/77/LICENSE.md"
    card = model_card(replace(facts, base=base), FORM)
    stated = {key: value for key, value in header(card).items() if key.startswith("license")}
    assert stated == {"license": "other", "license_name": "acme-1", "license_link": link}
    assert f"licence: other (acme-1, {link})." in card
    assert base_facts(str(tmp_path), None, tmp_path).license_link == "LICENSE.md", "copied with the model"
    (tmp_path / "README.md").write_text("---\nlicense: [mit, apache-2.0]\n---\n")
    both = model_card(replace(facts, base=base_facts("acme/speech", "77", tmp_path)), FORM)
    assert header(both)["license"] == ["mit", "apache-2.0"] and "licence: mit, apache-2.0." in both


@pytest.mark.parametrize(
    "text", ["# no front matter", "---\nlicense: [\n---\n", "---\nlicense: mit\n", "x\n---\na: 1\n---\n"]
)
def test_a_damaged_front_matter_is_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert front_matter(tmp_path / "README.md") == {}


def test_the_prompt_of_each_version() -> None:
    plain, system = (prompt_section("write", PROFILES[name], keywords=True) for name in ("4.0", "4.1-plus"))
    assert "`<|audio|>write Keywords: a, b`" in plain and "system" not in plain
    assert "`<|audio|> write`" in system and "The system turn is `Knowledge Cutoff" in system
    assert "Keywords" not in prompt_section("write", PROFILES["4.0"], keywords=False)
    assert "'role': 'system'" in usage("write", PROFILES["4.1-plus"], 30, 200)


def test_the_arguments_of_llamacpp_have_the_whole_prompt(tmp_path: Path) -> None:
    assert llamacpp_prompt("write it?", PROFILES["4.0"]) == '-p "write it?"'
    profile = PROFILES["4.1-plus"]
    text = llamacpp_prompt('say "$x" `now`', profile)
    output = subprocess.run(["bash", "-c", f"printf '%s|' {text}"], capture_output=True, text=True, check=True).stdout
    assert output.split("|") == ["-sys", profile.system, "-p", ' say "$x" `now`', ""]
    (tmp_path / "README.md").write_text(engine_section({}, "", 0))
    assert update_engines(tmp_path, {"llamacpp": CHECK, "mlx": CHECK}, "écris", 200, profile)
    card = (tmp_path / "README.md").read_text()
    assert '-p " écris"' in card and '-sys "Knowledge Cutoff' in card and 'prompt="écris"' in card


def test_benchmarks_of_the_hub() -> None:
    content = metrics()["scores"]["test"]["adapted"]
    name, text = eval_result(Benchmark("org/set", "en"), results().scores["test"].adapted, "2026-01-01T00:00:00+00:00")
    assert name == ".eval_results/set-en.yaml"
    assert yaml.safe_load(text) == [
        {
            "dataset": {"id": "org/set", "task_id": "en"},
            "value": 100 * content["wer"],
            "date": "2026-01-01T00:00:00+00:00",
            "notes": "WER (%), normalizer basic@2, 95 % interval 8.0 to 12.0, 100 clips",
        }
    ]
    assert benchmark_of(recipe(data={"test": ["hf:org/set:en:test"]}).data.test) == Benchmark("org/set", "en")
    assert benchmark_of(recipe(data={"test": ["hf:org/set:test"]}).data.test) == Benchmark("org/set", "default")
    assert benchmark_of(recipe(data={"test": ["hf:org/a:test", "hf:org/b:test"]}).data.test) is None
    assert benchmark_of(recipe(data={"test": [{"path": "hf:org/a:test", "max_clips": 5}]}).data.test) is None
    assert benchmark_of(recipe(data={"test": ["my.jsonl"]}).data.test) is None
    assert parse_benchmark("org/set:a.b") == Benchmark("org/set", "a.b")
    with pytest.raises(RecipeError, match="OWNER/DATASET:TASK"):
        parse_benchmark("set")


def test_the_written_card_has_no_path_and_the_result_of_a_benchmark(nano: Path, tmp_path: Path) -> None:
    run, folder = RunDir(tmp_path / "run"), tmp_path / "export"
    folder.mkdir()
    content = metrics()
    content["scores"][f"canary: {tmp_path}/c.jsonl"] = content["scores"]["canary"]
    content["differences"][f"canary: {tmp_path}/c.jsonl"] = content["differences"]["canary"]
    write_model(run.scores, results(content))
    settings = recipe(data={"canary": ["c"], "test": ["hf:org/set:test"]}).model_copy(
        update={"model": recipe().model.model_copy(update={"base": str(nano)})}
    )
    write_merged_card(folder, settings, run, nano, ModelLimits())
    card = (folder / "README.md").read_text()
    assert "c.jsonl" not in card and "| canary: corpus 1 |" in card and "name: 'canary: corpus 1'" in card
    assert "finetune transcribe call.wav --model MODEL" in card and "AutoModelForSpeechSeq2Seq" in card
    assert (folder / ".eval_results" / "set-default.yaml").is_file()


CHECK = EngineCheck(versions={"vllm": "0.32"}, format="hf", clips=40, equal=39, wer=0.2, toolkit_wer=0.19)


def test_verified_engines_are_added_to_the_card(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("before\n" + engine_section({}, "", 0) + "after\n")
    checks = add_check(tmp_path, "vllm", CHECK)
    assert update_engines(tmp_path, checks, "write", 200)
    checks = add_check(tmp_path, "llamacpp", replace_equal(40))
    assert update_engines(tmp_path, checks, "write", 200)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("before\n") and card.endswith("after\n") and "No other engine" not in card
    assert "| vllm | vllm 0.32 | hf | 39 of 40 | 20.0 | 19.0 |" in card and "| llamacpp |" in card
    assert "vllm serve MODEL" in card and '-p "write"' in card and "mlx_audio" not in card
    assert set(read_checks(tmp_path)) == {"vllm", "llamacpp"}
    add_check(tmp_path, "vllm", replace_equal(1))
    assert read_checks(tmp_path)["vllm"].equal == 1


def test_the_table_of_engines_says_what_they_do_not_use() -> None:
    assert "those of the toolkit:\n" in engine_section({"vllm": CHECK}, "write", 200)
    decode = DecodingOptions(decoder="beam", terms=("stent", "aorta"), max_window=7)
    text = engine_section({"vllm": CHECK}, "write", 200, decode=decode)
    assert (
        "with those of the toolkit. Both sides wrote without the list of 2 terms (`decode.terms`), beam search and "
        "cuts at pauses (`decode.max_window`), which the section Results has:\n"
    ) in text


def replace_equal(number: int) -> EngineCheck:
    return CHECK.model_copy(update={"equal": number})


def test_a_card_of_the_user_is_not_changed(tmp_path: Path) -> None:
    assert not update_engines(tmp_path, {"vllm": CHECK}, "write", 200)
    (tmp_path / "README.md").write_text("mine")
    assert not update_engines(tmp_path, {"vllm": CHECK}, "write", 200)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_damaged_checks_are_an_error(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"engines": {"vllm": {}}}')
    with pytest.raises(ModelError, match="engines.json: damaged"):
        read_checks(tmp_path)
