"""Finds the links of a chained Ogg file: complete streams that follow each other, of which libsndfile reads one."""

from finetune.data.audio_source import AudioSource

BEGIN = 0x02  # flag of the first page of a logical stream


def find_links(source: AudioSource) -> list[tuple[int, int]]:
    """Start and end of each link. Streams that are interleaved, such as video and audio, begin together in one link."""
    starts, begun = list[int](), False
    with source.buffer() as data:
        position = data.find(b"OggS")
        while position >= 0:
            header = data[position : position + 27]
            if len(header) < 27:
                break
            begins = bool(header[5] & BEGIN)
            if begins and not begun:
                starts.append(position)
            begun = begins
            stop = position + 27 + header[26]
            position = data.find(b"OggS", stop + sum(data[position + 27 : stop]))
        return list(zip(starts, [*starts[1:], len(data)], strict=True))
