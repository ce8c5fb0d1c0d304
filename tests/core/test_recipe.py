"""Recipes as YAML and `--set`: conversion, refusals, and the line or override that a message names."""

from pathlib import Path

import pytest
from recipe_helpers import RECIPE

from finetune.core.config import Recipe
from finetune.core.errors import RecipeError
from finetune.core.files import read_json
from finetune.core.recipe import (
    REQUIRED,
    ResolvedRecipe,
    Setting,
    get_setting,
    known_keys,
    load_recipe,
    read_recipe,
    save_recipe,
)
from finetune.version import __version__


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tmp_path / "recipe.yaml"


def load(path: Path, text: str, *overrides: str) -> Recipe:
    path.write_text(text)
    return load_recipe(path, list(overrides))[0]


def refusal(path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        load(path, text, *overrides)
    return str(caught.value)


def test_every_setting_is_listed_once_with_its_origin(recipe: Path) -> None:
    recipe.write_text(RECIPE + "train:\n  epochs: 3\n  learning_rate: 3e-5\n")
    loaded, settings = load_recipe(recipe, ["train.learning_rate=5e-5"])
    assert [setting.key for setting in settings] == known_keys()
    by_key = {setting.key: setting for setting in settings}
    assert by_key["train.epochs"] == Setting("train.epochs", 3, f"{recipe}:6")
    assert by_key["train.learning_rate"] == Setting("train.learning_rate", 5e-5, "--set train.learning_rate=5e-5")
    assert by_key["train.warmup"] == Setting("train.warmup", 0.1, "default")
    assert by_key["data.train"] == Setting("data.train", ["a.jsonl"], f"{recipe}:2")
    assert by_key["name"] == Setting("name", "recipe", "default")
    assert loaded.train.learning_rate == 5e-5


@pytest.mark.parametrize(
    ("line", "key", "expected"),
    [
        ("train:\n  learning_rate: 1e-5", "train.learning_rate", 1e-5),  # YAML 1.1: a string
        ("machine:\n  cache_encoder: no", "machine.cache_encoder", False),
        ("machine:\n  cache_encoder: On", "machine.cache_encoder", True),
        ("name: no", "name", "no"),  # YAML 1.1: False
        ("name: 007", "name", "007"),  # YAML 1.1: 7
        ("name: 12:30", "name", "12:30"),  # YAML 1.1: 750
        ("data.terms: null", "data.terms", None),
        ("data.terms: ~", "data.terms", None),
        ("data.terms:", "data.terms", None),
        ("data.terms: None", "data.terms", None),
        ("data.terms: 'null'", "data.terms", "null"),
        ("evaluate:\n  normalizer: none", "evaluate.normalizer", "none"),
        ("train:\n  epochs: 1_000", "train.epochs", 1000),
        ("parts:\n  lora:\n    rank: 8", "parts.lora.rank", 8),
        ("parts:\n  lora.rank: 8", "parts.lora.rank", 8),
        ("parts:\n  projector:\n  # frozen", "parts.projector.mode", "frozen"),
        ("parts.encoder.learning_rate: none", "parts.encoder.learning_rate", None),
        ("machine:\n  trackers: [wandb, trackio]", "machine.trackers", ["wandb", "trackio"]),
        ("data.canary: d.jsonl, e.csv", "data.canary", ["d.jsonl", "e.csv"]),
        ("data.replay:\n- path: d\n  weight: 2\n- e", "data.replay", [{"path": "d", "weight": 2.0}, "e"]),
        (
            "data.replay:\n- {path: d, task: translate, target_language: en, tags: {kind: no}}",
            "data.replay",
            [{"path": "d", "task": "translate", "target_language": "en", "tags": {"kind": "no"}}],
        ),
        ("data.canary:\n- d.jsonl\n- hf:org/set:test", "data.canary", ["d.jsonl", "hf:org/set:test"]),
        ("data.canary:", "data.canary", []),
        ("augment:\n  # all off", "augment.speed", 0.0),  # a section without settings
    ],
)
def test_values_are_converted_by_their_fields_type(recipe: Path, line: str, key: str, expected: object) -> None:
    assert get_setting(load(recipe, RECIPE + line + "\n"), key) == expected


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("train.learning_rate=1e-5", "train.learning_rate", 1e-5),
        ("data.train=x.jsonl,y.csv", "data.train", ["x.jsonl", "y.csv"]),
        ("data.train=[x.jsonl, y.csv]", "data.train", ["x.jsonl", "y.csv"]),
        ("data.train={a,b}.jsonl,c.jsonl", "data.train", ["{a,b}.jsonl", "c.jsonl"]),
        ('data.train=[{"path":"x.jsonl","weight":2}]', "data.train", [{"path": "x.jsonl", "weight": 2.0}]),
        ("data.train=[{a,b}.jsonl]", "data.train", ["{a,b}.jsonl"]),
        (
            "data.train=[x.jsonl, {path: 'y,z.jsonl', max_clips: 6, tags: {set: a}}]",
            "data.train",
            ["x.jsonl", {"path": "y,z.jsonl", "max_clips": 6, "tags": {"set": "a"}}],
        ),
        ("data.canary=", "data.canary", []),
        ("data.terms=none", "data.terms", None),
        ("model.instruction=a=b", "model.instruction", "a=b"),
        (" train.epochs =2", "train.epochs", 2),
    ],
)
def test_set_overrides_the_file(recipe: Path, override: str, key: str, expected: object) -> None:
    assert get_setting(load(recipe, RECIPE + "model:\n  instruction: x\n", override), key) == expected


def test_a_tilde_in_a_path_is_the_home_directory(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "terms.txt").write_text("stent\n")
    paths = "runs: ~/runs\ndata.terms: ~/terms.txt\ndecode.terms: ~/terms.txt\n"
    read = load(recipe, RECIPE + paths, "model.base=~/model")
    assert (read.runs, read.model.base) == (f"{tmp_path}/runs", f"{tmp_path}/model")
    assert (read.data.terms, read.decode.terms) == (f"{tmp_path}/terms.txt", ("stent",))


def test_terms_of_decoding_are_a_list_or_a_file_whose_lines_the_recipe_keeps(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("stent\r\n\n New York \nstent\n", encoding="utf-8-sig")
    terms = ("stent", "New York")
    assert load(recipe, RECIPE + "decode:\n  terms: [stent, New York]\n").decode.terms == terms
    assert load(recipe, RECIPE + f"decode:\n  terms: {tmp_path / 'terms.txt'}\n").decode.terms == terms
    read = load(recipe, RECIPE, f"decode.terms={tmp_path / 'terms.txt'}")
    save_recipe(tmp_path / "resolved.json", read)
    (tmp_path / "terms.txt").unlink()
    assert load_recipe(tmp_path / "resolved.json")[0] == read and read.decode.terms == terms
    assert load(recipe, RECIPE + "decode:\n  terms: [stent]\n", "decode.terms=").decode.terms == ()
    assert "gone.txt: cannot be read (No such file or directory); give a file" in refusal(
        recipe, RECIPE + "decode:\n  terms: gone.txt\n"
    )
    assert f"[a, b]; relative paths start in {Path.cwd()}" in refusal(recipe, RECIPE + "decode:\n  terms: gone.txt\n")
    assert "relative" not in refusal(recipe, RECIPE + "decode:\n  terms: /gone/terms.txt\n")
    table = recipe.with_name("table.txt")
    table.write_text("term;group\nlosartan;a\n")
    assert f"{table}:1: 'term;group' has a semicolon" in refusal(recipe, RECIPE + f"decode:\n  terms: {table}\n")
    assert load(recipe, RECIPE + "decode:\n  terms: ['a,b']\n").decode.terms == ("a,b",)
    assert "keyword 'a;b' contains ';'; give each keyword" in refusal(recipe, RECIPE + "decode:\n  terms: ['a;b']\n")
    assert "keyword 'a\\tb' contains '\\t'" in refusal(recipe, RECIPE + 'decode:\n  terms: ["a\\tb"]\n')
    assert load(recipe, RECIPE, "decode.terms=[stent, New York]").decode.terms == terms
    long = [f"word{number}" for number in range(900)]  # longer than a path can be
    assert load(recipe, RECIPE, f"decode.terms=[{', '.join(long)}]").decode.terms == tuple(long)
    assert "or a list such as [a, b]" in refusal(recipe, RECIPE, f"decode.terms={', '.join(long)}")


def test_a_list_after_set_can_have_quotes(recipe: Path) -> None:
    lists = {"['a, b', c]": ["a, b", "c"], '["a","b"]': ["a", "b"], "[it's, 'b']": ["it's", "b"]}
    for text, items in {**lists, "[it's, b's]": ["it's", "b's"], '["a': ['["a']}.items():
        assert load(recipe, RECIPE, f"parts.lora.modules={text}").parts.lora.modules == items
        assert [entry.path for entry in load(recipe, RECIPE, f"data.train={text}").data.train] == items


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("\n \n", "is empty; give a file"),
        (
            "\n".join(f"word{number}" for number in range(2001)),
            "has 2,001 terms; the CTC head searches for at most 2,000",
        ),
        ("stent\n<|audio|>\n", "contains <|audio|>, which is a command"),
        ("stent, aorta, New York\n", "all terms are on one line with commas; write one term per line"),
        ("# heart\nstent\n", ":1: '# heart' has a comment; a list of terms has terms only"),
        ('stent\n{"term": "a"}\n', ':2: \'{"term": "a"}\' is JSON; write one term per line'),
        ("C#\nstent # metal\n", ":2: 'stent # metal' has a comment"),
    ],
)
def test_terms_with_which_the_export_could_not_transcribe_are_refused(
    recipe: Path, tmp_path: Path, lines: str, problem: str
) -> None:
    (tmp_path / "terms.txt").write_text(lines)
    message = refusal(recipe, RECIPE + f"decode:\n  terms: {tmp_path / 'terms.txt'}\n")
    assert problem in message and "terms" in message


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("[{path: a.jsonl, max_clip: 6}]", "data.train: unknown key 'max_clip' of a corpus; did you mean 'max_clips'?"),
        ("[{path: a.jsonl", "invalid YAML"),
        ("[{path: a.jsonl, max_clips: many}]", "max_clips"),
    ],
)
def test_set_refuses_corpora_that_are_not_right(recipe: Path, value: str, problem: str) -> None:
    message = refusal(recipe, RECIPE, f"data.train={value}")
    assert message.startswith("--set data.train=[{path: a.jsonl") and problem in message


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("train.learning_rte", "train.learning_rate"),
        ("train.learningrate", "train.learning_rate"),
        ("learning_rate", "train.learning_rate"),
        ("train.max_new_tokens", "decode.max_new_tokens"),
        ("train.lora_rank", "parts.lora.rank"),
        ("train.encoder_blocks", "parts.encoder.blocks"),
        ("train.workers", "machine.workers"),
        ("encoder.mode", "parts.encoder.mode"),
        ("decode.batch_second", "decode.batch_seconds"),
        ("nam", "name"),
        ("lr", "train.learning_rate"),
        ("train.batch_size", "train.batch_seconds"),
        ("decode.batch_size", "decode.batch_seconds"),
        ("parts.lora.lr", "parts.lora.learning_rate"),
        ("train.max_steps", "train.epochs"),
        ("train.num_workers", "machine.workers"),
        ("augment.babble", "augment.noise"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_key(recipe: Path, key: str, near: str) -> None:
    assert refusal(recipe, RECIPE + f"{key}: 1\n") == f"{recipe}:5: unknown key '{key}'; did you mean '{near}'?"
    assert refusal(recipe, RECIPE, f"{key}=1") == f"--set {key}=1: unknown key '{key}'; did you mean '{near}'?"


def test_an_unknown_key_unlike_any_other_is_refused_without_a_suggestion(recipe: Path) -> None:
    for key in ("zzz", "augment.pitch", "train.deepspeed", "train.betas", "data.speakers"):
        assert refusal(recipe, RECIPE + f"{key}: 1\n") == f"{recipe}:5: unknown key '{key}'"
    for key in ("machine.device", "train.gpus", "device"):
        message = refusal(recipe, RECIPE, f"{key}=cuda")
        assert "CUDA_VISIBLE_DEVICES=1" in message and "did you mean" not in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train:\n  epochs: many",
            "6: train.epochs: Input should be a valid integer, unable to parse string as an integer, got 'many'",
        ),
        ("train:\n  epochs: 0", "6: train.epochs: Input should be greater than or equal to 1, got '0'"),
        ("train:\n  epochs: 2.5", "6: train.epochs: Input should be a valid integer"),
        ("train:\n  epochs:", "6: train.epochs: Input should be a valid integer, got None"),
        ("train:\n  epochs: [1, 2]", "6: train.epochs: Input should be a valid integer, got ['1', '2']"),
        ("machine:\n  cache_encoder: perhaps", "6: machine.cache_encoder: Input should be a valid boolean"),
        ("train:\n  learning_rate: nan", "6: train.learning_rate: Input should be"),
        (
            "decode:\n  decoder: beams",
            "6: decode.decoder: Input should be 'greedy', 'speculative', 'relaxed' or 'beam', got 'beams'",
        ),
        ("data.canary:\n- a: b", "6: data.canary: unknown key 'a' of a corpus"),
        (
            "data.canary:\n- path: b\n  max_clip: 2",
            "7: data.canary: unknown key 'max_clip' of a corpus; did you mean 'max_clips'?",
        ),
        ("data.canary:\n- [a]", "5: data.canary: must be a list of plain values"),
        ("evaluate.groups:\n- path: b", "5: evaluate.groups: must be a list of plain values"),
        ("train:\n- epochs: 2", "5: train: must be a list of plain values; the settings of a section have no dashes"),
        ("data.canary: {path: b}", "5: data.canary: must be a list, such as [{path: clips.jsonl, "),
        ("decode.terms: gone.txt", "5: decode.terms: gone.txt: cannot be read"),
        ("data.replay:\n- path: b\n  weight: 0", "5: data.replay: weight: Input should be greater than 0, got '0'"),
        ("data.replay:\n- weight: 2", "5: data.replay: path: Field required, got {'weight': '2'}"),
        (
            "data.replay:\n- path: b\n  task: translate\n  language: es\n  target_language: es",
            "5: data.replay: b: task translate: target_language 'es' is the spoken language",
        ),
        (
            "data.replay:\n- path: b\n  target_language: nl",
            "5: data.replay: b: no prompt is known for target_language 'nl'; use one of en, fr, de, es, pt, ja, it, "
            "zh, or give an `instruction`",
        ),
        (
            "data.replay:\n- {path: b, task: transcribe, language: es, target_language: en}",
            "5: data.replay: b: target_language 'en' has no effect on task transcribe; remove one of the two",
        ),
        (
            "data.canary:\n- path: b\n  weight: 2",
            "5: data.canary: b: weight has no effect on clips that are only scored",
        ),
        ("data.replay:\n- path: b\n  language: jp", "5: data.replay: b: language 'jp' must be a language code"),
        ("train: 3", "5: 'train' is a section; put its settings below it, indented"),
        ("parts:\n  lora: 8", "6: 'parts.lora' is a section; put its settings below it, indented"),
        (
            "parts:\n  encoder:\n    mode: some",
            "7: parts.encoder.mode: Input should be 'frozen', 'full' or 'lora', got",
        ),
        (
            "machine:\n  trackers: [wandb, tensorbord]",
            "6: machine.trackers: Input should be 'wandb', 'tensorboard' or 'trackio', got 'tensorbord'",
        ),
        (
            "train:\n  goal: accents",
            "6: train.goal: Input should be 'vocabulary', 'accent', 'domain', 'language' or 'full', got 'accents'",
        ),
        ("train:\n  goal: [accent]", "6: train.goal: Input should be"),
        (
            "parts:\n  encoder:\n    blocks: 0",
            "7: parts.encoder.blocks: Input should be greater than or equal to 1 or Input should be 'all', got '0'",
        ),
        # Numpy has no negative seeds. A seed of torch has 64 bits, and the number of the step is a part of it.
        ("seed: -1", "5: seed: Input should be greater than or equal to 0, got '-1'"),
        ("data.replay_weight: 1e9", "5: data.replay_weight: Input should be less than or equal to 1000, got '1e9'"),
        ("seed: 20261125120000", "5: seed: Input should be less than or equal to 4294967295, got '20261125120000'"),
        ("train:\n  epochs: 1\ntrain:\n  epochs: 2", "8: train.epochs is set twice"),
        ("train:\n\tepochs: 1", "6: invalid YAML: found character '\\t' that cannot start any token (indent with "),
        (
            "train:\n  epochs:\t1",
            "6: invalid YAML: found character '\\t' that cannot start any token (indent with spaces,",
        ),
        ("train: {epochs: 1", "6: invalid YAML: "),
        ("--- {}\n{}", "6: invalid YAML: expected '<document start>', but found '{' (a recipe is one YAML document"),
        (
            "train:\n  epochs: 1\n seed: 2",
            "7: invalid YAML: expected <block end>, but found '<block mapping start>' (indent ",
        ),
        ("runs: a: b", "5: invalid YAML: mapping values are not allowed here (wrong indentation, or "),
    ],
)
def test_an_invalid_value_is_refused_with_its_line(recipe: Path, line: str, message: str) -> None:
    assert refusal(recipe, RECIPE + line + "\n").startswith(f"{recipe}:{message}")


def test_all_invalid_values_are_named_at_once(recipe: Path) -> None:
    lines = refusal(recipe, "train:\n  epochs: x\n", "seed=y").splitlines()
    assert [line.split(": Input")[0] for line in lines] == [
        "--set seed=y: seed",
        f"{recipe}: model.base: {REQUIRED['model.base']}",
        f"{recipe}: data: Field required",
        f"{recipe}:2: train.epochs",
    ]


def test_a_contradiction_is_refused_with_the_override_that_caused_it(recipe: Path) -> None:
    assert refusal(recipe, RECIPE, "parts.lora.rank=0").startswith(
        "--set parts.lora.rank=0: parts.lora.rank: nothing would be trained"
    )
    assert refusal(recipe, RECIPE, "train.epochs") == "--set train.epochs: must be KEY=VALUE"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the recipe is empty"),
        (b"# only words\n", "the recipe is empty"),
        (b"- a\n- b\n", "a recipe must be a mapping"),
        (b"just words\n", "a recipe must be a mapping"),
        (b"name: \xff\n", "not UTF-8 text"),
        (b"name: a\x01b\n", "invalid YAML"),
    ],
)
def test_a_file_that_is_not_a_recipe_is_refused(recipe: Path, content: bytes, message: str) -> None:
    recipe.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(recipe)
    assert str(caught.value).startswith(str(recipe))


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: no such file"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"a directory; pass a recipe file, such as recipes/quickstart\.yaml$"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match=r"none\.yaml: no such file; pass a recipe"):
        load_recipe(tmp_path / "folder" / "none.yaml")


def test_a_path_beside_a_recipe_gets_a_suggestion(recipe: Path, tmp_path: Path) -> None:
    recipe.write_text(RECIPE)
    with pytest.raises(RecipeError, match=rf"no such file; did you mean {recipe}\?$"):
        load_recipe(recipe.with_suffix(".yml"))
    run = tmp_path / "runs" / "my"
    (run / "export").mkdir(parents=True)
    (run / "resolved.json").write_text("{}")
    for folder in (run, run / "export"):
        with pytest.raises(RecipeError, match=rf"a directory; pass a recipe file, such as {run / 'resolved.json'}$"):
            load_recipe(folder)
    corpus = tmp_path / "my clips.jsonl"
    corpus.write_text("{}\n{}\n")
    with pytest.raises(RecipeError, match=f"a corpus and not a recipe; `finetune init '{corpus}'` writes a recipe"):
        load_recipe(corpus)


@pytest.mark.parametrize(("key", "new"), [("train.shrink", "train.interpolate"), ("augment.join", "augment.concat")])
def test_a_renamed_key_is_refused_with_its_new_name(recipe: Path, key: str, new: str) -> None:
    assert refusal(recipe, RECIPE + f"{key}: 0.5\n") == f"{recipe}:5: '{key}' was renamed to '{new}'"
    assert refusal(recipe, RECIPE, f"{key}=0.5") == f"--set {key}=0.5: '{key}' was renamed to '{new}'"
    assert new in known_keys() and key not in known_keys()


def test_the_new_values_of_a_renamed_key_are_named(recipe: Path) -> None:
    assert refusal(recipe, RECIPE, "data.lowercase=false") == (
        "--set data.lowercase=false: 'data.lowercase' was renamed to 'data.text.case': lower converts to lower case, "
        "keep (the default) changes nothing"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.text.language=jp", "data.text.language: must be a language code such as en or de; ja?"),
        ("data.text.language=xx", "data.text.language: must be a language code such as en or de"),
        ("data.text.case=upper", "data.text.case: Input should be 'keep' or 'lower', got 'upper'"),
    ],
)
def test_rules_of_transcripts_are_checked(recipe: Path, override: str, message: str) -> None:
    assert refusal(recipe, RECIPE, override) == f"--set {override}: {message}"


def test_a_recipe_without_a_base_model_is_refused_and_names_the_embedded_model(recipe: Path) -> None:
    message = refusal(recipe, "data.test: [c.jsonl]\n")
    assert message.startswith(f"{recipe}: model.base: required; set model.base to a local folder or a hub name")
    assert "data/granite-speech-nano" in message and "finetune demo DIR" in message
    assert load(recipe, "data.test: [c.jsonl]\n", "model.base=org/name").model.base == "org/name"
    assert refusal(recipe, "model.base:\ndata.test: [c.jsonl]\n").startswith(f"{recipe}:1: model.base: Input should be")


def test_a_saved_recipe_round_trips_and_has_the_toolkit_version(recipe: Path, tmp_path: Path) -> None:
    loaded = load(recipe, RECIPE, "train.epochs=7", "train.goal=accent", "model.instruction=say: 'x', no")
    save_recipe(tmp_path / "resolved.json", loaded)
    content = read_json(tmp_path / "resolved.json")
    assert ResolvedRecipe.model_validate(content) == ResolvedRecipe(**vars(loaded), toolkit_version=__version__)
    assert load_recipe(tmp_path / "resolved.json")[0] == read_recipe(tmp_path / "resolved.json") == loaded
    assert read_recipe(tmp_path / "resolved.json", ["train.epochs=2"]).train.epochs == 2


@pytest.mark.parametrize("text", ["model: &a\n  base: *a\n", "a: " + "[" * 3000 + "]" * 3000])
def test_a_yaml_file_that_nests_without_end_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=r"nested.yaml:1: invalid YAML: "):
        load_recipe(path)
