"""The string that names a member of an archive."""

from hypothesis import given
from hypothesis import strategies as st

from finetune.data.byte_range import ByteRange, is_url, parse_byte_range

NAMES = st.text(st.characters(exclude_categories=["Cs"]))
FILES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


def test_the_range_is_that_of_http_with_the_last_byte_included() -> None:
    member = ByteRange("/data/shard-000001.tar", "clip.flac", 1536, 512)
    assert str(member) == "/data/shard-000001.tar::clip.flac?bytes=1536-2047"
    assert parse_byte_range(str(member)) == member


@given(FILES, NAMES, st.integers(1, 2**50), st.integers(0, 2**40))
def test_every_member_is_read_as_it_was_written(file: str, name: str, start: int, length: int) -> None:
    member = ByteRange(file, name, start, length)
    assert parse_byte_range(str(member)) == member


def test_a_name_that_is_not_utf_8() -> None:
    member = ByteRange("a.tar", b"caf\xe9.wav".decode(errors="surrogateescape"), 512, 4)
    assert str(member) == "a.tar::caf%E9.wav?bytes=512-515" and parse_byte_range(str(member)) == member


def test_a_whole_file_is_not_a_member() -> None:
    for path in ("/data/clip.flac", "C:/clips/a::b.wav", "s3://bucket/clip.flac", "/a.tar::b?bytes=9-3", ""):
        assert parse_byte_range(path) is None


def test_urls() -> None:
    assert is_url("s3://bucket/shard.tar::a.flac?bytes=0-1") and is_url("https://host/a.flac") and is_url("memory://a")
    assert not is_url("/data/a.flac") and not is_url("clips/a://b.flac") and not is_url("C:\\clips\\a.flac")
