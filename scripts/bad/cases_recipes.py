"""Bad recipes and overrides."""

import os
from collections.abc import Iterator

from bad.case import ANY, USAGE, Case
from bad.material import Material

GOOD = "model: {base: MODEL}\ndata: {train: [TRAIN], valid: [VALID], test: [TEST]}\n"
WRONG = {  # values by key
    "model": ("17", "[a]", "null"),
    "data": ("x", "[x]"),
    "data.train": ("{a: 1}", "[[a]]", "[{a: b}]"),
    "data.test": ("[]", "", "['']"),
    "data.max_duration": ("-1", "nan", ".inf", "long", "1e999", "[1]"),
    "data.max_bad_fraction": ("2", "-0.1"),
    "train.epochs": ("0", "-1", "1.5", "many", "9" * 400),
    "train.learning_rate": ("0", "2", "nan", "abc", "-1e-4"),
    "train.batch_seconds": ("0", "nan"),
    "train.goal": ("fame",),
    "train.interpolate": ("[2]", "[a]", "1.5"),
    "parts.lora.rank": ("-1", "x", "1e3"),
    "parts.lora.modules": ("[]",),
    "parts.lora.alpha": ("nan", "inf", "0"),
    "decode.max_new_tokens": ("0", "-5", "x"),
    "decode.decoder": ("beams",),
    "evaluate.replicas": ("1", "x"),
    "evaluate.keyword_lists": ("[-1]", "x"),
    "export.dtype": ("int8",),
    "machine.trackers": ("[mlflow]",),
    "seed": ("x", "1.5"),
    "name": ("a/b", "..", "''", ".hidden"),
}


def contents() -> Iterator[tuple[str, bytes, str]]:
    """Each bad recipe: name, content, what the message must contain."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30))
    map_bomb = "a0: &a0 {x: 1}\n" + "".join(
        f"a{n}: &a{n} {{" + ", ".join(f"k{k}: *a{n - 1}" for k in range(10)) + "}\n" for n in range(1, 30)
    )
    yield "alias-bomb", bomb.encode(), r"bad.yaml:\d+"
    yield "alias-bomb-mappings", map_bomb.encode(), r"bad.yaml:\d+"
    yield "alias-bomb-in-train", (GOOD + "train:\n" + map_bomb.replace("\na", "\n  a")).encode(), r"bad.yaml:\d+"
    yield "alias-recursive", b"data: &d\n  train: *d\n", r"bad.yaml:\d+"
    yield "alias-recursive-list", b"data:\n  test: &d [*d]\n", r"bad.yaml:\d+"
    yield "alias-recursive-key", b"&a {*a : 1}\n", r"bad.yaml"
    yield "alias-unknown", b"data: *nowhere\n", "bad.yaml:1"
    yield "merge-key", (GOOD + "x: &x {epochs: 2}\ntrain:\n  <<: *x\n").encode(), "bad.yaml:3"
    yield "deep-lists", b"data: " + b"[" * 20_000 + b"]" * 20_000, "bad.yaml:1"
    yield "deep-mappings", b"{a: " * 20_000 + b"1" + b"}" * 20_000, "bad.yaml:1"
    yield "deep-open", b"[" * 1_000_000, "bad.yaml:1"
    yield "deep-blocks", b"".join(b" " * n + b"a:\n" for n in range(500)), r"bad.yaml:\d+"
    yield "deep-dashes", b"- " * 20_000, r"bad.yaml:\d+"
    yield "tag-python", b"model: {base: !!python/object/apply:os.system ['touch /tmp/bad_ran']}\n", "bad.yaml"
    yield "tag-python-name", b"name: !!python/name:os.system\n" + GOOD.encode(), "bad.yaml:1|tag"
    yield "tag-binary", b"name: !!binary AAAA\n" + GOOD.encode(), "bad.yaml:1|tag"
    yield "key-twice", (GOOD + "name: a\nname: b\n").encode(), "twice"
    yield "section-twice", (GOOD + "train: {epochs: 1}\ntrain: {epochs: 2}\n").encode(), "twice"
    yield "key-list", b"[a, b]: 1\n" + GOOD.encode(), "bad.yaml:1"
    yield "key-unknown", (GOOD + "trian: {epochs: 1}\n").encode(), "unknown key"
    yield "key-control", b'"\\x1b[31m": 1\n', "unknown key"
    yield "key-long", b"k" * 1_000_000 + b": 1\n", "unknown key|YAML|long"
    yield "keys-many", b"".join(b"k%d: 1\n" % n for n in range(20_000)), "more than"
    yield "empty", b"", "empty"
    yield "comments", b"# nothing\n", "empty"
    yield "null", b"null\n", "mapping|empty"
    yield "number", b"17\n", "mapping"
    yield "list", b"- a\n- b\n", "mapping"
    yield "documents", GOOD.encode() + b"---\nname: b\n", "bad.yaml:3"
    yield "tabs", b"model:\n\tbase: x\n", "bad.yaml:2.*spaces"
    yield "latin1", b"name: caf\xe9\n" + GOOD.encode(), "UTF-8"
    yield "utf16", GOOD.encode("utf-16"), "UTF-8"
    yield "nul", b"name: a\0b\n", "bad.yaml"
    yield "control", b"name: \x1b[31m\n", "bad.yaml"
    yield "binary", bytes(range(256)) * 100, "UTF-8"
    yield "open-quote", b'name: "abc\n' + GOOD.encode(), r"bad.yaml:\d"
    yield "open-brace", b"model: {base: x\n", r"bad.yaml:\d"
    yield "huge", b"# " + b"x" * 50_000_000, "large|long|MB"
    yield "huge-list", b"data: {test: [" + b"x, " * 300_000 + b"x]}\n", "large|long|bad.yaml|MB"
    yield "huge-value", b"name: " + b"x" * 2_000_000, "large|long|bad.yaml|MB"
    yield from _wrong_values()


def _wrong_values() -> Iterator[tuple[str, bytes, str]]:
    """A recipe for each value of WRONG, as in `contents`."""
    for key, values in WRONG.items():
        for number, value in enumerate(values):
            *sections, last = key.split(".")
            text = f"{last}: {value}"
            for section in reversed(sections):
                text = f"{section}: {{{text}}}"
            kept = "" if key.startswith(("model", "data")) else GOOD
            if key.startswith("data."):
                kept = GOOD.replace(
                    "test: [TEST]", f"test: [TEST], {last}: {value}" if last != "test" else f"test: {value}"
                )
                kept = kept.replace("train: [TRAIN], ", "") if last == "train" else kept
                text = ""
            yield f"value-{key}-{number}", (kept + text + "\n").encode(), "bad.yaml"


def cases(material: Material) -> Iterator[Case]:
    for number, (name, content, says) in enumerate(contents()):
        folder = material.folder(f"recipe-{name}")
        for mark, value in (("MODEL", material.model), ("TRAIN", material.good / "train.jsonl")):
            content = content.replace(mark.encode(), str(value).encode())
        for mark in ("VALID", "TEST"):
            content = content.replace(mark.encode(), str(material.good / f"{mark.lower()}.jsonl").encode())
        (folder / "bad.yaml").write_bytes(content)
        for command in ("check", *(("run", "score", "train", "evaluate", "export")[number % 5 :][: number % 3 == 0])):
            yield Case(f"recipe-{name}: {command}", folder, [command, "bad.yaml"], USAGE, says)
    yield from _paths(material)
    yield from _overrides(material)


def _paths(material: Material) -> Iterator[Case]:
    folder = material.folder("recipe-paths")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    for name, says in {
        "pipe.yaml": "regular",
        "zero.yaml": "regular",
        "loop.yaml": "no such|loop|symbolic",
        ".": "directory",
        "": "director|no such|name",
        "nowhere.yaml": "no such",
        "n" * 400: "long",
        "a\0b": "null|valid|no such",
        "~nobody-here/x.yaml": "no such",
    }.items():
        yield Case(f"recipe-path-{name[:20]!a}", folder, ["check", name], USAGE, says)


def _overrides(material: Material) -> Iterator[Case]:
    folder = material.folder("override")
    (folder / "huge.txt").write_text("a term\n" * 3_000_000)
    (folder / "binary.txt").write_bytes(bytes(range(256)))
    (folder / "empty.txt").write_text("")
    os.mkfifo(folder / "pipe.txt")
    (folder / "zero.txt").symlink_to("/dev/zero")
    for number, (text, says) in enumerate(
        {
            "train.epochs": "KEY=VALUE",
            "=": "unknown key",
            "": "KEY=VALUE",
            "trian.epochs=1": "unknown key",
            "train=1": "section",
            "train.epochs=" + "9" * 5000: "epochs",
            "train.epochs=x": "epochs",
            "x" * 100_000 + "=1": "unknown key",
            "name=" + "n" * 100_000: "name",
            "name=a\0b": "name",
            "name=../up": "name",
            "data.test=" + "," * 100_000: "data.test",
            "model.instruction=" + "a" * 200_000: "instruction",
            "model.instruction=\ud800": "instruction|UTF-8|Unicode",
        }.items()
    ):
        yield Case(f"override-{number}", folder, ["check", material.recipe, "--set", text], USAGE, says)
    yield Case("override-runs-long", folder, ["prepare", material.recipe, "--set", "runs=" + "n" * 300], (1, 2), "long")
    for name in ("huge", "binary", "empty", "pipe", "zero", "missing"):
        path = str(folder / f"{name}.txt")
        argv = [*material.on_test("prepare", material.test), "--set", f"data.terms={path}", "--set", f"name={name}"]
        yield Case(f"terms-{name}: prepare", folder, argv, (1,), f"{name}.txt")
        argv = [
            "compare",
            *(str(material.good / f"hyp_{letter}.jsonl") for letter in "ab"),
            "--manifest",
            material.test,
        ]
        yield Case(f"terms-{name}: compare", folder, [*argv, "--terms", path], (1,), f"{name}.txt")
        argv = ["transcribe", str(material.good / "test0.wav"), "--model", str(material.model), "--keywords-file", path]
        codes = ANY if name == "empty" else (1, 2)
        yield Case(
            f"keywords-{name}: transcribe", folder, argv, codes, "" if name == "empty" else f"{name}.txt|keyword"
        )
