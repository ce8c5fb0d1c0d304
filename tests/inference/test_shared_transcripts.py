"""Files are dealt to processes as these become free."""

from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event

from finetune.inference.shared_transcripts import deal

PATHS = ["long", *(f"short {number}" for number in range(6))]


def test_a_long_file_delays_no_other_and_the_order_is_kept() -> None:
    rest_done, places = Event(), dict[str, int]()

    def transcribe(process: int, path: str) -> str:
        places[path] = process
        if path == PATHS[-1]:
            rest_done.set()
        assert path != "long" or rest_done.wait(30)
        return path.upper()

    with ThreadPoolExecutor(3) as pool:

        def submit(process: int, path: str) -> "Future[str]":
            return pool.submit(transcribe, process, path)

        assert list(deal(PATHS, 3, submit)) == [(path, path.upper()) for path in PATHS]
    assert Counter(places.values())[places["long"]] == 1
    assert list(deal([], 3, submit)) == []
