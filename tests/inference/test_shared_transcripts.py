"""Files are dealt to processes, and processes to GPUs."""

from finetune.inference.shared_transcripts import place


def test_processes_share_gpus_if_there_are_fewer() -> None:
    assert [place(number, 3, 2) for number in range(4)] == [(0, 0), (1, 1), (2, 0), (0, 0)]
    assert [place(number, 2, 1)[1] for number in range(4)] == [0, 0, 0, 0]
    assert [place(number, 2, 0) for number in range(2)] == [(0, 0), (1, 0)]
