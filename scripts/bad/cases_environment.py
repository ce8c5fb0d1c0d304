"""Bad environments: variables, standard streams, encodings, full disks."""

from collections.abc import Iterator, Mapping

from bad.case import ANY, FAILED, USAGE, Case
from bad.material import Material, write_jsonl


def cases(material: Material) -> Iterator[Case]:
    yield from _variables(material)
    yield from _encodings(material)
    yield from _disks(material)


def _variables(material: Material) -> Iterator[Case]:
    """Left-over and impossible variables."""
    variables: dict[str, tuple[Mapping[str, str | None], tuple[int, ...], str]] = {
        "rank-garbage": ({"RANK": "abc"}, USAGE, "RANK"),
        "world-garbage": ({"WORLD_SIZE": "two"}, USAGE, "WORLD_SIZE"),
        "world-zero": ({"WORLD_SIZE": "0"}, USAGE, "WORLD_SIZE"),
        "world-negative": ({"WORLD_SIZE": "-1"}, USAGE, "WORLD_SIZE"),
        "world-empty": ({"WORLD_SIZE": "", "RANK": ""}, ANY, ""),
        "world-superscript": ({"WORLD_SIZE": "²"}, USAGE, "WORLD_SIZE"),
        "world-left": ({"WORLD_SIZE": "2"}, USAGE, "WORLD_SIZE|RANK"),
        "rank-left": ({"RANK": "1"}, (0, 1, 2), ""),
        "rank-beyond": ({"RANK": "5", "WORLD_SIZE": "2", "LOCAL_RANK": "5"}, USAGE, "RANK"),
        "rank-without-address": ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}, USAGE, "MASTER|WORLD_SIZE"),
        "local-rank-garbage": ({"LOCAL_RANK": "x"}, (0, 2), ""),
        "port-garbage": (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"},
            USAGE,
            "MASTER_PORT",
        ),
        "no-home": ({"HOME": None}, (0,), ""),
        "home-nowhere": ({"HOME": "/nowhere"}, (0,), ""),
        "tmp-nowhere": ({"TMPDIR": "/nowhere"}, (0,), ""),
        "hub-nowhere": ({"HF_HOME": "/proc/nowhere"}, (0,), ""),
        "columns-one": ({"COLUMNS": "1", "LINES": "1"}, (0,), ""),
        "columns-garbage": ({"COLUMNS": "x"}, (0,), ""),
        "key-garbage": ({"OPENAI_API_KEY": "\x01"}, (0,), ""),
    }
    for name, (environment, codes, says) in variables.items():
        folder = material.folder(f"environment-{name}")
        argv = ["train", material.recipe, "--set", "runs=runs"]
        yield Case(f"environment-{name}: train", folder, argv, codes, says, environment=environment)
        argv = ["score", material.recipe, "--set", "runs=runs", "--set", "name=score"]
        yield Case(f"environment-{name}: score", folder, argv, (0, *codes), environment=environment)
    folder = material.folder("environment-endpoint")
    argv = ["compare", "openai:x", str(material.good / "hyp_a.jsonl"), "--manifest", material.test]
    for number, environment in enumerate(
        (
            {"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "k"},
            {"OPENAI_BASE_URL": "not a url", "OPENAI_API_KEY": "k"},
            {"OPENAI_BASE_URL": "file:///etc/passwd", "OPENAI_API_KEY": "k"},
            {"OPENAI_BASE_URL": None, "OPENAI_API_KEY": None},
            {"OPENAI_BASE_URL": "http://[::1", "OPENAI_API_KEY": "k"},
            {"OPENAI_BASE_URL": "http://127.0.0.1:99999999/v1", "OPENAI_API_KEY": "k"},
        )
    ):
        yield Case(f"environment-endpoint-{number}", folder, argv, (1,), "openai:x", environment=environment)


def _encodings(material: Material) -> Iterator[Case]:
    """Streams that cannot show every character, that are closed, or that are full; each in a new interpreter."""
    folder = material.folder("encoding")
    name = "ça 東京 é.wav"
    (folder / name).symlink_to(material.good / "test0.wav")
    write_jsonl(folder / "tëst.jsonl", [{"id": "東京", "audio_filepath": name, "text": "naïve 東京 one"}])
    write_jsonl(folder / "hyp.jsonl", [{"id": "東京", "pred_text": "naïve 東京"}])
    write_jsonl(folder / "hyp2.jsonl", [{"id": "東京", "pred_text": "東京 ß"}])
    (folder / "é.yaml").write_text("mödel: {base: 東京}\n", encoding="utf-8")
    compare = ["compare", "hyp.jsonl", "hyp2.jsonl", "--manifest", "tëst.jsonl", "--json", "RESULT"]
    transcribe = ["transcribe", name, "nöwhere.wav", "--model", str(material.model), "--format", "json"]
    plain: dict[str, str | None] = {"LANG": "C", "LC_ALL": "C"}
    for encoding, environment in {
        "latin-1": {"PYTHONIOENCODING": "latin-1"},
        "ascii": {"PYTHONIOENCODING": "ascii"},
        "locale-c": plain,
    }.items():
        argv = [word.replace("RESULT", f"{encoding}.json") for word in compare]
        yield Case(f"encoding-{encoding}: compare", folder, argv, (0,), environment=environment, process=True)
        yield Case(
            f"encoding-{encoding}: check",
            folder,
            ["check", "é.yaml"],
            USAGE,
            "unknown key",
            environment=environment,
            process=True,
        )
        argv = material.on_test("prepare", "tëst.jsonl") + ["--set", f"name={encoding}"]
        yield Case(f"encoding-{encoding}: prepare", folder, argv, (0,), environment=environment, process=True)
        yield Case(
            f"encoding-{encoding}: transcribe",
            folder,
            transcribe,
            (1,),
            "tokens|audio",
            environment=environment,
            process=True,
        )
    quick = ["check", material.recipe]
    failing = ["check", "nowhere.yaml"]
    for number, (shell, argv, codes, environment) in enumerate(
        (
            ("<&-", ["transcribe", "-", "--model", str(material.model)], (1, 2), {}),
            (">&-", quick, ANY, {}),
            ("2>&-", failing, USAGE, {}),
            (">&- 2>&- <&-", transcribe, ANY, {}),
            (">/dev/full", quick, FAILED, {}),
            (">/dev/full 2>/dev/full", failing, ANY, {}),
            (">/dev/full", transcribe, FAILED, {}),
            ("| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", quick, (0, 141), {}),
            ("", transcribe, (1,), {"OMP_NUM_THREADS": "abc"}),
            ("</dev/zero", failing, USAGE, {"PYTHONWARNINGS": "error"}),
        )
    ):
        yield Case(f"stream-{number}", folder, argv, codes, environment=environment, process=True, shell=shell)


def _disks(material: Material) -> Iterator[Case]:
    """A disk that fills while a stage writes."""
    for limit in (1_000, 30_000, 200_000):
        for command in ("prepare", "train", "evaluate", "report", "export"):
            folder = material.folder(f"disk-{limit}-{command}")
            material.copy_run(folder)
            for marker in (folder / "runs" / "done").glob("*.done.json"):
                stages = ["prepare", "train", "evaluate", "report", "export"]
                if stages.index(marker.name.split(".")[0]) >= stages.index(command):
                    marker.unlink()
            argv = ["report", "runs/done"] if command == "report" else [command, material.recipe, "--set", "runs=runs"]
            yield Case(f"disk-{limit}: {command}", folder, argv, ANY, max_file=limit)
    block = 4096
    size = sum(block * (1 + path.stat().st_size // block) for path in material.run.rglob("*"))
    for extra in (8_192, 100_000):
        for command in ("evaluate", "export", "train"):
            folder = material.folder(f"disk-full-{extra}-{command}")
            run = material.copy_run(folder)
            markers = {"train": 4, "evaluate": 2, "export": 1}[command]
            for name in ("export", "report", "evaluate", "train")[:markers]:
                (run / f"{name}.done.json").unlink()
            argv = [command, material.recipe, "--set", "runs=runs"]
            yield Case(f"disk-full-{extra}: {command}", folder, argv, (0, 1), disk=size + extra)
