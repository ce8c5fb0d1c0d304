"""Corpus readers: valid corpora in every format give rows, invalid ones give one clear error."""

import gzip
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from finetune.core.errors import DataError
from finetune.data.audit import audit
from finetune.data.corpora import has_audio_file, preview_rows, read_corpus
from finetune.data.row import Row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the audio files a.wav and b.wav."""
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, np.full(8000, 0.1, np.float32), 16_000)
    return tmp_path


def read(source: Path | str) -> Sequence[Row]:
    media = Path(source if os.path.isdir(source) else os.path.dirname(source) or ".") / "media"
    return read_corpus(str(source), media)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(rows: Sequence[Row]) -> list[object]:
    return [row.values["text"] for row in rows]


def test_json_lines_have_line_numbers(folder: Path) -> None:
    lines = [
        '{"audio_filepath": "a.wav", "text": "line\u2028one", "dialect": "x"}',
        "",
        '{"audio_filepath": "b.wav", "text": "two"}',
        "",
    ]
    rows = read(write(folder / "m.json", b"\xef\xbb\xbf" + "\r\n".join(lines).encode()))
    assert [row.where.rsplit(":")[-1] for row in rows] == ["1", "3"]
    assert rows[0].values == {"audio_filepath": str(folder / "a.wav"), "text": "line\u2028one", "dialect": "x"}


def test_json_list_has_item_numbers(folder: Path) -> None:
    rows = read(write(folder / "m.json", json.dumps([{"path": "a.wav", "sentence": "one"}], indent=2)))
    assert texts(rows) == ["one"] and rows[0].where.endswith("item 1")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_dialects(folder: Path, delimiter: str, end: str, encoding: str) -> None:
    lines = ["Path;Sentence;Locale", 'a.wav;"says ""no""; never, | or";de', "", 'b.wav;"two\nlines";de']
    table = end.join(lines).replace("\n", end if end in lines[3] else "\n")
    quoted = '"says ""no""; never, | or"'
    table = table.replace(quoted, "\0").replace(";", delimiter).replace("\0", quoted)
    if delimiter in "\t|":
        table = table.replace('"two\nlines"', "two").replace('"two\r\nlines"', "two")
    rows = read(write(folder / "m.csv", table.encode(encoding)))
    assert rows[0].values == {
        "audio_filepath": str(folder / "a.wav"),
        "text": 'says "no"; never, | or',
        "language": "de",
    }
    assert str(rows[1].values["text"]).split()[0] == "two"
    assert [row.where.rsplit(":")[-1] for row in rows] == ["2", "4"]


def test_the_delimiter_line_of_excel_is_read(folder: Path) -> None:
    rows = read(write(folder / "m.csv", "sep=;\r\nfile;text\r\na.wav;one, two\r\n"))
    assert texts(rows) == ["one, two"] and rows[0].where.endswith(":3")


@pytest.mark.parametrize("title", ["Calls of March;;", "Calls of March", "# exported, by a tool\n;;", "Calls\n\n"])
def test_lines_above_the_header_are_not_read(folder: Path, title: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rows = read(write(folder / "m.csv", f"{title}\nfile;text;language\na.wav;one, two;en\n"))
    number = title.count("\n") + 2
    assert texts(rows) == ["one, two"] and rows[0].where.endswith(f":{number + 1}")
    assert f"the header is in line {number}" in caplog.text


@pytest.mark.parametrize("quoted", [True, False])
def test_texts_that_a_spreadsheet_wrote_as_formulas_are_texts(folder: Path, quoted: bool) -> None:
    """Without quotes a delimiter cannot be in a text, so a table with tabs keeps them as they are."""
    lines = ["path\ttext", 'a.wav\t="007"', '="b.wav"\t="say ""hi"" = x"', "b.wav\t=b"]
    if quoted:
        lines = [",".join('"' + cell.replace('"', '""') + '"' for cell in line.split("\t")) for line in lines]
    rows = read(write(folder / ("m.csv" if quoted else "m.tsv"), "\n".join(lines)))
    assert texts(rows) == ["007", 'say "hi" = x', "=b"] and all(map(has_audio_file, rows))


@pytest.mark.parametrize("raw", ['"Hello," he said.', '"Hello', '5" pipe', '"a" "b"'])
def test_quotation_marks_in_tab_separated_files_are_text(folder: Path, raw: str) -> None:
    rows = read(write(folder / "m.tsv", f"path\tsentence\na.wav\t{raw}\nb.wav\ttwo\n"))
    assert texts(rows) == [raw, "two"]


def test_audio_in_the_clips_folder_of_common_voice(folder: Path) -> None:
    (folder / "clips").mkdir()
    (folder / "a.wav").rename(folder / "clips" / "c.wav")
    rows = read(write(folder / "m.tsv", "client_id\tpath\tsentence\tup_votes\n7\tc.wav\thi\t2\n"))
    assert rows[0].values == {
        "speaker": "7",
        "audio_filepath": str(folder / "clips" / "c.wav"),
        "text": "hi",
        "up_votes": "2",
    }


@pytest.mark.parametrize("header", ["audio_filepath,text", "Path,Normalized Text", "FILE-NAME,transcript", "wav,Label"])
def test_column_aliases(folder: Path, header: str) -> None:
    assert texts(read(write(folder / "m.csv", f"{header}\na.wav,one\n"))) == ["one"]


def test_two_columns_for_one_key_are_both_kept(folder: Path) -> None:
    path = write(folder / "m.csv", "path,Text,text\na.wav,One.,one\n")
    assert read(path)[0].values == {"audio_filepath": str(folder / "a.wav"), "text": "One.", "text_original": "one"}


def test_a_row_with_missing_cells_is_kept_for_the_audit(folder: Path) -> None:
    assert texts(read(write(folder / "m.csv", "path,text\na.wav\nb.wav,two,,\n"))) == [None, "two"]


def test_relative_paths_start_at_the_table_or_the_cwd(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lists").mkdir()
    path = write(folder / "lists" / "m.csv", "path,text\na.wav,one\nnone.wav,two\n")
    with pytest.raises(DataError, match=r"0 of 2 audio files exist; tried .*lists/a.wav and .*m.csv:2"):
        read(path)
    monkeypatch.chdir(folder)
    rows = read(path)
    assert rows[0].values["audio_filepath"] == str(folder / "a.wav")
    assert rows[1].values["audio_filepath"] == str(folder / "lists" / "none.wav")  # for the audit to report


def test_paths_with_spaces_unicode_backslashes_and_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["with space.wav", "u\u0308ber.wav", "sub/x.wav", "home.wav"]
    (folder / "sub").mkdir()
    for name in names:
        (folder / name).write_bytes((folder / "a.wav").read_bytes())
    monkeypatch.setenv("HOME", str(folder))
    table = "path,text\nwith space.wav,a\n\u00fcber.wav,b\nsub\\x.wav,c\n~/home.wav,d\n"
    rows = read(write(folder / "m.csv", table))
    assert [row.values["audio_filepath"] for row in rows] == [str(folder / name) for name in names]


def test_folder_of_audio_and_text_files(folder: Path) -> None:
    write(folder / "a.txt", "one\n")
    write(folder / "sole.txt", "no audio\n")
    rows = read(folder)
    assert [(Path(str(row.values["audio_filepath"])).name, row.values["text"]) for row in rows] == [
        ("a.wav", "one\n"),
        ("b.wav", None),
        ("sole.wav", None),
    ]
    (folder / "a.txt").unlink()
    with pytest.raises(DataError, match="2 audio files, but none has a transcript"):
        read(folder)
    write(folder / "metadata.csv", "file_name,transcription\na.wav,one\n")
    assert texts(read(folder)) == ["one"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.jsonl", "", "the corpus has no rows"),
        ("m.csv", "", "the corpus has no rows"),
        ("m.csv", "path,text\n", "the corpus has no rows"),
        ("m.jsonl", '{"text": "a"}\n{broken\n', r"m.jsonl:2: not JSON"),
        ("m.jsonl", "{\n" * 5, r"and 2 more lines"),
        ("m.jsonl", "audio_filepath: a.wav\ntext: yes\n", r"m.jsonl:1: not JSON"),
        (
            "m.json",
            '{"data": [{"path": "a.wav", "text": "a"}]}',
            "one JSON object with the keys 'data', not a list of rows; write one",
        ),
        ("m.json", "[1, 2]", "item 1: not a JSON object"),
        ("m.json", "[1, 2", "neither JSON Lines nor"),
        ("m.jsonl", "3\n", "m.jsonl:1: not a JSON object"),
        ("m.yaml", "path: a.wav\n", "unknown format .yaml"),
        ("m.zip", "PK", "unpack"),
        ("m.wav", "RIFF", r"m.wav: an audio file; give its transcript, such as .*m.srt, the folder of both"),
        ("m", "x", "no suffix"),
        ("m.csv", b"path,text\na.wav,one\nb.wav,caf\xe9\n", "m.csv:3: not UTF-8"),
        ("m.csv", b"PK\x03\x04\0\0\0", "binary file"),
        ("m.csv", "path,text\na.wav,one, two\n", "m.csv:2: 3 cells, but the header has 2"),
        ("m.csv", 'path,text\nb.wav,x\na.wav,"one" two\n', "m.csv:3: not a well-formed"),
        ("m.csv", 'path,text\na.wav,"one\n', "m.csv:2: not a well-formed"),
        ("m.csv", "path,text,text\na.wav,one,two\n", "'text' occur more than once; .* no header, add one"),
        ("m.csv", "path,language\na.wav,de\n", "no column for text; the columns are 'path', 'language'"),
        ("m.csv", "path,sentense\na.wav,one\n", "did you mean 'sentense'"),
        ("m.jsonl", '{"text": "a", "audio_filepath": ""}', "0 of 1 audio files exist"),
        ("m.parquet", "no parquet", "the Parquet file cannot be loaded"),
    ],
)
def test_an_invalid_source_is_an_error(folder: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(write(folder / name, content))
    assert name in str(caught.value)


@pytest.mark.parametrize(("name", "sign"), [("m.csv", ","), ("m.csv", ";"), ("m.tsv", "\t")])
def test_a_missing_cell_is_no_empty_transcript(folder: Path, name: str, sign: str) -> None:
    table = ["path,text,speaker", "a.wav,one,Ann", "a.wav", "a.wav,", "a.wav,,Ann", "a.wav,two"]
    rows = read(write(folder / name, "\n".join(table).replace(",", sign)))
    assert [row.values["text"] for row in rows] == ["one", None, "", "", "two"]


@pytest.mark.parametrize(("column", "kept_as"), [("id", "id_original"), ("segment_id", "segment_id")])
def test_a_column_that_repeats_in_other_clips_is_no_id(
    folder: Path, caplog: pytest.LogCaptureFixture, column: str, kept_as: str
) -> None:
    rows = [{"path": f"{name}.wav", "text": "one", column: number} for name, number in (("a", 1), ("b", 1), ("a", 2))]
    found = read(write(folder / "m.jsonl", "\n".join(map(json.dumps, rows))))
    assert [row.values.get("id") for row in found] == [None] * 3
    assert [row.values[kept_as] for row in found] == [1, 1, 2]
    assert f"m.jsonl: in column '{column}', 1 of 3 rows have the value of another clip, so it is no id" in caplog.text


@pytest.mark.parametrize(
    "ids",
    [
        ["1", "1", "3"],  # the same clip twice: a copy
        ["1", "", "1"],  # an id is missing, so they were given by hand
        ["1", "2", "3"],
    ],
)
def test_a_column_of_ids_with_copies_or_gaps_is_kept(folder: Path, ids: list[str]) -> None:
    names = ["a.wav", "a.wav", "b.wav"]
    table = "".join(f"{name},one,{row_id}\n" for name, row_id in zip(names, ids, strict=True))
    assert [row.values["id"] for row in read(write(folder / "m.csv", f"path,text,id\n{table}"))] == ids


def test_a_few_repeated_ids_are_left_to_the_audit(folder: Path) -> None:
    table = "".join(f"{'ab'[number % 2]}.wav,{number},{max(1, number)}\n" for number in range(20))
    rows = read(write(folder / "m.csv", f"path,text,id\n{table}"))
    assert [row.values["id"] for row in rows][:3] == ["1", "1", "2"]


def test_the_preview_of_parquet_finds_columns_that_are_no_ids(folder: Path) -> None:
    rows = [{"id": number // 3, "audio": {"bytes": b"x", "path": None}, "transcription": "one"} for number in range(6)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "m.parquet")
    preview = preview_rows(str(folder / "m.parquet"))
    assert preview is not None and [row.values.get("id") for row in preview] == [None] * 6


def test_a_missing_source_is_an_error(folder: Path) -> None:
    write(folder / "train.csv", "path,text\na.wav,one\n")
    with pytest.raises(DataError, match=r"no such file or folder; did you mean .*train\.csv"):
        read(folder / "trian.csv")
    with pytest.raises(DataError, match=r"the folder org does not exist in /.*; .* hf:NAME:SPLIT"):
        read("org/corpus")
    with pytest.raises(DataError, match="hf:org/corpus: write hf:NAME:SPLIT"):
        preview_rows("hf:org/corpus")
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="no audio files in this folder"):
        read(folder / "empty")


def dataset(folder: Path, embed: bool) -> object:
    """Two rows with an Audio column, which has bytes or paths."""
    datasets = pytest.importorskip("datasets")
    audio = [
        {"bytes": (folder / name).read_bytes() if embed else None, "path": name if embed else str(folder / name)}
        for name in ("a.wav", "b.wav")
    ]
    data = datasets.Dataset.from_dict({"audio": audio, "sentence": ["one", "two"], "lang": [1, 0]})
    data = data.cast_column("lang", datasets.ClassLabel(names=["de", "en"]))
    return data.cast_column("audio", datasets.Audio())  # the default: decoding on, which needs torchcodec


@pytest.mark.parametrize("embed", [True, False])
@pytest.mark.parametrize("form", ["disk", "parquet"])
def test_saved_and_parquet_datasets(folder: Path, embed: bool, form: str) -> None:
    source = folder / ("saved" if form == "disk" else "m.parquet")
    data = dataset(folder, embed)
    getattr(data, "save_to_disk" if form == "disk" else "to_parquet")(str(source))
    for _ in range(2):  # the second time, the files exist
        rows = read_corpus(str(source), folder / "media")
        assert texts(rows) == ["one", "two"] and [row.values["language"] for row in rows] == ["en", "de"]
        for row, name in zip(rows, ("a.wav", "b.wav"), strict=True):
            path = Path(str(row.values["audio_filepath"]))
            assert path.read_bytes() == (folder / name).read_bytes()
            if embed or form == "disk":  # `save_to_disk` always embeds the bytes
                assert path.parent == folder / "media" and path.name.startswith(name[0])
            else:
                assert path == folder / name
    assert len(list((folder / "media").glob("*.wav"))) in (0, 2)


def test_a_dataset_with_several_splits_is_an_error(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.DatasetDict({"train": dataset(folder, True)}).save_to_disk(str(folder / "saved"))
    with pytest.raises(DataError, match=r"has the splits train; choose one, such as .*saved/train"):
        read(folder / "saved")
    assert len(read(folder / "saved" / "train")) == 2


def test_invalid_hub_sources(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    for source in ("hf:org/corpus", "hf:org/corpus:", "hf:a:b:c:d"):
        with pytest.raises(DataError, match="hf:NAME:SPLIT"):
            read_corpus(source, tmp_path)

    def refuse(*args: str, split: str) -> None:
        assert (*args, split) == ("org/c", "en", "train")
        raise RuntimeError("Dataset scripts are no longer supported")

    with pytest.raises(DataError, match=r"hf:org/c:en:train: RuntimeError: Dataset scripts .*\n.*Parquet"):
        read_corpus("hf:org/c:en:train", tmp_path, load_dataset=refuse)


def test_hub_rows(folder: Path) -> None:
    def load_dataset(name: str, split: str) -> object:
        assert (name, split) == ("org/c", "train")
        return dataset(folder, True)

    rows = read_corpus("hf:org/c:train", folder / "media", load_dataset=load_dataset)
    assert texts(rows) == ["one", "two"] and rows[1].where == "hf:org/c:train: row 1"
    assert str(rows[0].values["audio_filepath"]).startswith(str(folder / "media" / "a-"))


@pytest.mark.parametrize(
    "header",
    [
        "Datei,Transkript,Sprache,Sprecher",
        "Fichier audio,Texte,Langue,Locuteur",
        "archivo,Transcripción,idioma,hablante",
        "Arquivo,Transcrição,Idioma,Falante",
        "percorso,Trascrizione,Lingua,parlante",
        "音声ファイル,テキスト,言語,話者",
        "wav_filename,transcript,lang,speaker_name",
    ],
)
def test_column_names_in_other_languages(folder: Path, header: str) -> None:
    rows = read(write(folder / "m.csv", f"{header}\na.wav,one,de,Mary\nb.wav,two,de,Bob\n"))
    assert texts(rows) == ["one", "two"]
    assert [(row.values["language"], row.values["speaker"]) for row in rows] == [("de", "Mary"), ("de", "Bob")]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("as_list", [False, True])
def test_a_key_that_an_object_has_twice_is_an_error(folder: Path, as_list: bool, compressed: bool) -> None:
    first = '{"audio": "a.wav", "text": "text", "more": {"text": "x"}, "audio": "a.wav"}'  # no two values
    second = '{"audio": "b.wav", "text": "one", "id": "2", "text": "two"}'
    content = f"[{first},\n{second}]" if as_list else f"{first}\n{second}\n"
    path = folder / ("m.json" if as_list else "m.jsonl")
    path.write_text(content)
    if compressed:
        path = path.with_name(f"{path.name}.gz")
        path.write_bytes(gzip.compress(content.encode()))
    where = "item 2: an object has" if as_list else "2: the key"
    with pytest.raises(DataError, match=rf"{where}.*'text'.* twice, with different values"):
        read(path)
    content = content.replace('"two"', '"one"')
    path.write_bytes(gzip.compress(content.encode()) if compressed else content.encode())
    assert texts(read(path)) == ["text", "one"]


def test_the_key_of_lists_of_wenet_is_the_id(folder: Path) -> None:
    lines = ['{"key": "u1", "wav": "a.wav", "txt": "one"}', '{"key": "u2", "wav": "b.wav", "txt": "two"}']
    rows = read(write(folder / "m.jsonl", "\n".join(lines)))
    assert [row.values["id"] for row in rows] == ["u1", "u2"]
    rows = read(write(folder / "m.jsonl", '{"key": "c minor", "path": "a.wav", "text": "one"}'))
    assert rows[0].values["key"] == "c minor" and "id" not in rows[0].values


def test_segments_of_whisper_beside_a_text_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = [{"start": 0.0, "end": 0.5, "text": " one"}, {"start": 0.5, "end": 1.0, "text": " two"}]
    rows = read(write(folder / "m.jsonl", json.dumps({"audio": "a.wav", "text": "one two", "segments": parts})))
    assert texts(rows) == ["one two"] and "offset" not in rows[0].values
    assert "column 'segments' has parts with times and texts of their own" in caplog.text
    caplog.clear()
    read(write(folder / "m.jsonl", json.dumps({"audio": "a.wav", "text": "one two", "segments": 3})))
    assert not caplog.text


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_quote_in_one_cell_and_one_in_a_later_cell_are_text(folder: Path, suffix: str) -> None:
    """As in Common Voice, whose tables have no quoting."""
    lines = [
        "client_id\tpath\tsentence\tup_votes\tage\tlocale",
        'c1\ta.wav\t"Er kam nicht\t2\t"zwanziger\tde',
        'c2\tb.wav\tSie sagte "nein".\t0\t"\tde',
        'c3\ta.wav\t"\t1\t\tde',
        'c4\tb.wav\t"Alles gut"\t1\t""\tde',
        "c5\ta.wav\tEnde\t0\t\tde",
    ]
    rows = read(write(folder / f"m{suffix}", "\n".join(lines)))
    assert texts(rows) == ['"Er kam nicht', 'Sie sagte "nein".', '"', '"Alles gut"', "Ende"]
    assert [row.values["up_votes"] for row in rows] == ["2", "0", "1", "1", "0"]
    assert [row.values["language"] for row in rows] == ["de"] * 5


def test_quotes_that_form_a_cell_with_a_tab_do_not_merge_two_cells(folder: Path) -> None:
    lines = ["path\tsentence\tage\tlocale", 'a.wav\t"Er kam\tteens"\tde', "b.wav\tEnde\t\tde"]
    rows = read(write(folder / "m.tsv", "\n".join(lines)))
    assert texts(rows) == ['"Er kam', "Ende"]
    assert [row.values["language"] for row in rows] == ["de", "de"]


def test_quoted_cells_of_a_tsv_that_has_tabs_in_its_texts(folder: Path) -> None:
    """As spreadsheets and pandas write it."""
    rows = read(write(folder / "m.tsv", 'path\tsentence\na.wav\t"one\ttwo"\nb.wav\t"say ""no"""\n'))
    assert texts(rows) == ["one\ttwo", 'say "no"']


@pytest.mark.parametrize(
    "table",
    [
        'sentence,path\n"hello,a.wav\nworld,b.wav\nfoo",a.wav\nbar,b.wav\n',
        'id,path,sentence\n1,a,"hello\n2,b,world\n3,a,x"\n4,b,y\n',
    ],
)
def test_a_quote_that_swallows_rows_in_any_column_is_an_error(folder: Path, table: str) -> None:
    (folder / "swallowed.csv").write_text(table)
    with pytest.raises(DataError, match=r"swallowed.csv:2: a quote that opens here closes only in a later row"):
        read_corpus(str(folder / "swallowed.csv"), folder)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("lines.tsv", 'path\tsentence\na.wav\t"hello\nworld"\nb.wav\tx\n'),
        ("commas.csv", 'path,sentence\na.wav,"hello\nworld, or so"\nb.wav,x\n'),
        ("lines.csv", 'sentence,path,speaker\n"hello,\nworld",a.wav,s1\nx,b.wav,s2\n'),
    ],
)
def test_a_quoted_text_of_two_lines_is_one_cell(folder: Path, name: str, table: str) -> None:
    (folder / name).write_text(table)
    texts = [str(row.values["text"]).split() for row in read_corpus(str(folder / name), folder)]
    first = "hello world, or so" if name == "commas.csv" else "hello, world" if name == "lines.csv" else "hello world"
    assert texts == [first.split(), ["x"]]


def test_a_quote_that_swallows_the_next_row_is_an_error(folder: Path) -> None:
    with pytest.raises(DataError, match=r"m.csv:2: a quote that opens here closes only in a later row"):
        read(write(folder / "m.csv", 'path,text\na.wav,"one\nb.wav,two"\n'))


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("m.csv", ["a|One, two, and three.|one, two, and three", "b|Mr. 5.|mister five"]),
        ("m.csv", ['a.wav,"one, two, and three"', "b.wav,mister five"]),
        ("m.csv", ["a.wav;one, two, and three", "b.wav;mister five"]),
        ("m.tsv", ["a.wav\tone, two, and three", "b.wav\tmister five"]),
    ],
)
def test_tables_without_a_header(folder: Path, name: str, lines: list[str]) -> None:
    rows = read(write(folder / name, "\n".join(lines)))
    assert texts(rows) == ["one, two, and three", "mister five"]
    assert [Path(str(row.values["audio_filepath"])).name for row in rows] == ["a.wav", "b.wav"]
    assert [row.where.rsplit(":")[-1] for row in rows] == ["1", "2"]


def test_ljspeech_without_a_header_or_suffixes(folder: Path) -> None:
    (folder / "wavs").mkdir()
    for number in range(4):
        (folder / "wavs" / f"LJ-{number}.wav").write_bytes((folder / "a.wav").read_bytes())
    (folder / "metadata.csv").write_text("".join(f"LJ-{n}|Text {n}.|text number {n}\n" for n in range(4)))
    rows = read(folder)
    assert texts(rows) == [f"text number {n}" for n in range(4)] and rows[0].values["raw_text"] == "Text 0."
    assert rows[3].values["audio_filepath"] == str(folder / "wavs" / "LJ-3.wav")


@pytest.mark.parametrize("line", ["a.wav|some words here|17", "a|one|two|three", "one|a.wav", "17|a.wav|one"])
def test_unknown_columns_without_a_header_are_an_error(folder: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"m.csv:1: the table has no header, .* add a first line"):
        read(write(folder / "m.csv", f"{line}\n{line}\n"))


def test_ids_without_a_suffix_name_audio(folder: Path) -> None:
    rows = read(write(folder / "m.csv", "file,text\na,one\nb.wav,two\nv1.5,three\n"))
    assert [Path(str(row.values["audio_filepath"])).name for row in rows] == ["a.wav", "b.wav", "v1.5"]


@pytest.mark.parametrize("name", ["~nobody-here/x.wav", "a\0.wav", "x" * 400, "x/" * 3000, "sub", 7, ["a.wav"], ""])
def test_an_impossible_path_is_a_problem_of_its_row(folder: Path, name: object) -> None:
    (folder / "sub").mkdir()
    path = write(folder / "m.json", json.dumps([{"path": "a.wav", "text": "a"}, {"path": name, "text": "b"}]))
    rows = read(path)
    limits = {"min_duration": 0, "max_duration": 60, "max_chars_per_second": 99}
    result = audit(rows, **limits, special_tokens=(), workers=1)
    assert [item.text for item in result.kept] == ["a"]
    assert [has_audio_file(row) for row in preview_rows(str(path)) or []] == [True, False]
    assert result.dropped[0].kind in ("missing audio", "unreadable audio") and len(str(result.dropped[0])) < 1200
    with pytest.raises(DataError, match="0 of 1 audio files exist") as caught:
        read(write(folder / "n.json", json.dumps([{"path": name, "text": "b"}])))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["c.wav", r"C:\rec\c.wav", "/mnt/other/c.wav"])
@pytest.mark.parametrize("place", ["lists/recordings", "recordings"])
def test_audio_in_another_folder_is_named(folder: Path, name: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "lists").mkdir()
    (folder / place).mkdir()
    (folder / "a.wav").rename(folder / place / "c.wav")
    monkeypatch.chdir(folder)
    table = write(folder / "lists" / "n.json", json.dumps([{"path": name, "text": "b"}]))
    with pytest.raises(DataError, match=f"; correct the paths: '{place}/c.wav' has this name, and paths start"):
        read(table)


@pytest.mark.parametrize("source", ["~nobody-here/m.csv", "m\0.csv", "x" * 400])
def test_an_impossible_source_is_an_error(source: str, tmp_path: Path) -> None:
    for function in (lambda: preview_rows(source), lambda: read_corpus(source, tmp_path)):
        with pytest.raises(DataError, match="not a valid path|no such file"):
            function()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".jsonl", ".parquet"])
def test_only_an_empty_cell_is_empty(folder: Path, suffix: str) -> None:
    words = ["eins", "null", "nan", "none", "null null", "None", "NA", None]
    values = [{"path": "a.wav", "sentence": word} for word in words]
    path = folder / f"m{suffix}"
    if suffix == ".parquet":
        pytest.importorskip("datasets").Dataset.from_list(values).to_parquet(str(path))
    elif suffix in (".json", ".jsonl"):
        path.write_text(json.dumps(values) if suffix == ".json" else "\n".join(map(json.dumps, values)))
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[suffix]
        path.write_text("\n".join([f"path{delimiter}sentence", *(f"a.wav{delimiter}{word or ''}" for word in words)]))
    result = audit(read(path), min_duration=0, max_duration=9, max_chars_per_second=99, special_tokens=(), workers=1)
    assert [item.text for item in result.kept] == words[:-1]
    assert [problem.kind for problem in result.dropped] == ["empty transcript"]


@pytest.mark.parametrize(
    ("text", "timed"),
    [
        ("0.000000\t2.160000\tthe soldiers\nand more\n", True),
        ("the story\n00:00:00,000 --> 00:00:02,160\nthe soldiers\n", True),
        ("[00:01] the soldiers\n[00:04] came home\n", True),
        ("[00:01.2 - 00:04.5] the soldiers\n", True),
        ("Speaker 1 0:00\nthe soldiers\nSpeaker 2 0:04\ncame home\n", True),
        ("Ann Lee  0:00\nthe soldiers\n\nSpeaker 2  0:04\ncame home\n", True),
        ("Ann Lee (00:00:00):\nthe soldiers\nBob [00:04]\ncame home\n", True),
        ("0:00\nthe soldiers\n0:04\ncame home\n", True),
        ("Speaker 1\n00:00\nthe soldiers\nSpeaker 2\n00:04.5\ncame home\n", True),
        ("0:00:00.000,0:00:02.160\nthe soldiers\n", True),
        ("[ti:x]\n[00:00.00]the soldiers\n[00:02.16]came home\n", True),
        ("sw2001A-0001 0.0 0.98 [silence]\nsw2001A-0002 0.98 2.5 the soldiers\n", True),
        ("talk 1 Mary 0.0 2.16 the soldiers\ntalk 1 Mary 2.16 4 came home\n", True),
        ("it rose 1.5 2.5 times\nand fell\n", False),
        ("1,5 or 2,5 percent\nof all\n", False),
        ("we left at 7:30\nand came back at 8:30\n", False),
        ("we left at 7:30\nand ate\nand came back at 6:30\nand slept\n", False),
        ("we left at 7:30\nand ate\nand came back at 8:30\nand slept\n", False),
        ("we left\nand ate\nat 6:30\nand slept\nat 7:30\nagain\n", False),
        ("it is 10:15\nand cold\n", False),
        ("10:15 is the time\n", False),
        ("it costs 1.50 2.50 or more\n", False),
        ("3.5 percent\nof all\n", False),
        ("the soldiers\ncame home\n", False),
    ],
)
def test_a_transcript_with_times_is_a_fault_of_its_row(tmp_path: Path, text: str, timed: bool) -> None:
    (tmp_path / "a.wav").touch()
    (tmp_path / "a.txt").write_text(text)
    (row,) = read_corpus(str(tmp_path), tmp_path)
    assert (row.fault is not None and row.fault.kind == "times in transcript") == timed


def test_tables_in_a_folder_of_audio_without_transcripts_are_named(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp3").touch()
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text("path\tsentence\na.mp3\thello\n")
    with pytest.raises(DataError, match=r"tables dev.tsv, train.tsv; give one of them, such as .*dev.tsv"):
        read_corpus(str(tmp_path), tmp_path)
    (tmp_path / "dev.tsv").unlink()
    with pytest.raises(DataError, match=r"the table train.tsv; give .*/train.tsv$"):
        read_corpus(str(tmp_path), tmp_path)


@pytest.mark.parametrize("indent", [None, 2])
def test_one_json_object_is_no_table(tmp_path: Path, indent: int | None) -> None:
    """As GigaSpeech.json, and the results of speech recognizers."""
    source = tmp_path / "talk.json"
    source.write_text(
        json.dumps({"jobName": "talk", "results": {"transcripts": [{"transcript": "one"}]}}, indent=indent)
    )
    with pytest.raises(DataError, match="one JSON object with the keys 'jobName, results', not a list of rows; write"):
        read_corpus(str(source), tmp_path)


@pytest.mark.parametrize(("key", "cure"), [("audios", "lhotse prepare gigaspeech"), ("utts", "the folder of Kaldi")])
def test_a_folder_with_one_json_object_is_not_sent_to_it(tmp_path: Path, key: str, cure: str) -> None:
    (tmp_path / "data.json").write_text(json.dumps({key: [{}]}, indent=1))
    with pytest.raises(DataError, match=f"data.json: one JSON object with the keys '{key}', .*{cure}"):
        read_corpus(str(tmp_path), tmp_path)


def test_a_spreadsheet_is_to_be_saved_as_csv(tmp_path: Path) -> None:
    (tmp_path / "clips.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match="a spreadsheet; save it as CSV UTF-8"):
        read_corpus(str(tmp_path / "clips.xlsx"), tmp_path)


def test_audio_in_the_folder_of_the_split_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of SPGISpeech: train.csv, and its audio in train/."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train" / "00bf").mkdir(parents=True)
    soundfile.write(tmp_path / "train" / "00bf" / "1.wav", np.full(1600, 0.1, np.float32), 16_000)
    (tmp_path / "train.csv").write_text("wav_filename|wav_filesize|transcript\n00bf/1.wav|44|one\n")
    with pytest.raises(DataError, match="; correct the paths: 'train/00bf/1.wav' has this name"):
        read_corpus(str(tmp_path / "train.csv"), tmp_path)


@pytest.mark.parametrize("name", ["/home/me/a.wav", r"C:\me\a.wav"])
def test_audio_beside_the_table_or_with_another_suffix_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(folder)
    for place in ("another", "tables"):
        (folder / place).mkdir()
        (folder / place / "a.wav").write_bytes((folder / "b.wav").read_bytes())
    (folder / "a.wav").unlink()
    with pytest.raises(DataError, match="; correct the paths: 'tables/a.wav' has this name"):
        read(write(folder / "tables" / "m.jsonl", json.dumps({"audio": name, "text": "one"})))
    with pytest.raises(DataError, match="; correct the paths: 'tables/a.wav' has another suffix"):
        read(write(folder / "tables" / "m.csv", "file,text\na.WAV,one\n"))


def test_rows_that_were_rejected_in_prodigy_are_not_used(folder: Path) -> None:
    """Its `text` is the name of the audio."""
    row = {"audio": "a.wav", "text": "a", "transcript": "one", "_task_hash": 1}
    answers = ("accept", "reject", "ignore")
    lines = "\n".join(json.dumps(row | {"answer": answer}) for answer in answers)
    for name, content in (("m.jsonl", lines), ("m.json", f"[{lines.replace(chr(10), ',')}]")):
        rows = read(write(folder / name, content))
        assert texts(rows) == ["one"] * 3
        assert [row.fault.kind if row.fault else "" for row in rows] == ["", "rejected row", "rejected row"]
    (other,) = read(write(folder / "m.jsonl", json.dumps({"audio": "a.wav", "text": "one", "answer": "reject"})))
    assert other.fault is None
    with pytest.raises(DataError, match=r"audio inside the rows \(data:audio/...\) is not read; write files"):
        read(write(folder / "m.jsonl", json.dumps(row | {"audio": "data:audio/wav;base64,UklGRiQ"})))
    with pytest.raises(DataError, match=r"audio inside the rows \(base64\) is not read; write files"):
        read(write(folder / "m.jsonl", json.dumps(row | {"audio": "UklGRiQ" * 1000})))


@pytest.mark.parametrize(
    ("column", "values", "note"),
    [
        ("status", ("done", "rejected"), "column 'status' has the values 'done', 'rejected', but it is not read"),
        ("is_skipped", (False, True), "column 'is_skipped' has the values 'False', 'True', but"),
        ("reviewStatus", ("ok", "ok"), ""),
        ("statuses", ("ok", "bad"), ""),
    ],
)
def test_columns_about_rejected_rows_are_named(
    folder: Path, column: str, values: Sequence[object], note: str, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.dumps({"audio": "a.wav", "text": "one", column: value}) for value in values]
    read(write(folder / "m.jsonl", "\n".join(lines)))
    assert note in caplog.text if note else not caplog.records


def test_audio_of_a_table_can_be_in_a_folder_audios(tmp_path: Path) -> None:
    """The layout of Common Voice Spontaneous Speech."""
    (tmp_path / "audios").mkdir()
    soundfile.write(tmp_path / "audios" / "1.wav", np.full(1600, 0.1, np.float32), 16_000)
    (tmp_path / "ss-corpus-en.tsv").write_text("client_id\taudio_file\ttranscription\nx\t1.wav\tone\n")
    (row,) = read_corpus(str(tmp_path / "ss-corpus-en.tsv"), tmp_path)
    assert row.values["audio_filepath"] == str(tmp_path / "audios" / "1.wav")


@pytest.mark.parametrize("name", ["rows.json", "rows.csv"])
def test_regions_of_label_studio_are_a_warning(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(1600, 0.1, np.float32), 16_000)
    regions = [{"start": 0.01, "end": 0.05, "channel": 0, "labels": ["Speech"]}]
    if name.endswith("json"):
        content = json.dumps([{"audio": "a.wav", "id": 1, "label": regions, "transcription": "one"}])
    else:
        quoted = json.dumps(regions).replace('"', '""')
        content = f'audio,id,label,transcription\na.wav,1,"{quoted}",one\n'
    (tmp_path / name).write_text(content)
    assert len(read_corpus(str(tmp_path / name), tmp_path)) == 1
    assert "column 'label' has regions of Label Studio with times; they are not used" in caplog.text


def test_parts_with_times_in_a_later_row_are_a_warning(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    regions = [{"start": 0.01, "end": 0.05, "channel": 0, "labels": ["Speech"]}]
    first = {"audio": "a.wav", "text": "one"}
    read(write(folder / "m.json", json.dumps([first, {"audio": "b.wav", "text": "two", "regions": regions}])))
    assert "column 'regions' has regions of Label Studio with times" in caplog.text
    caplog.clear()
    parts = [{"start": 0.0, "end": 0.5, "text": " one"}]
    read(write(folder / "m.json", json.dumps([first, {"audio": "b.wav", "text": "two", "segments": parts}])))
    assert "column 'segments' has parts with times" in caplog.text


def test_another_column_that_could_be_the_text_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rows = read(write(folder / "m.csv", "file,sentence,label,transcript\na.wav,one,yes,one\n"))
        assert texts(rows) == ["one"]
        assert "column 'sentence' is the text, and not 'label'; rename them to change it" in caplog.text
        caplog.clear()
        read(write(folder / "m.csv", "file,sentence,normalized_text\na.wav,one,\n"))
    assert "is the text" not in caplog.text
