"""The one place where a foreign decoder's exception becomes a sentence."""

import errno

import pytest

from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.storage.decoding import check_expanded, decoding, inside


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LookupError("unknown encoding: x"), "LookupError: unknown encoding: x"),
        (IndexError("index\n out of range."), "IndexError: index out of range"),
        (MemoryError(), "it asks for more memory than there is"),
        (RecursionError("maximum depth"), "it is nested too deeply"),
        (NotImplementedError(), "NotImplementedError"),
        (OSError("image file is truncated"), "image file is truncated"),
        (OSError(errno.EINVAL, "Invalid argument"), "Invalid argument"),
    ],
)
def test_what_a_decoder_raises_is_one_sentence(error: Exception, reason: str) -> None:
    sentence = f"cannot read list x .*{reason}.*; write it again"
    with pytest.raises(InputError, match=sentence) as caught, decoding("list x", "write it again"):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EIO, "I/O error"), PermissionError(errno.EACCES, "no"), KeyboardInterrupt(), Interrupted(15)],
)
def test_the_disk_and_the_user_are_not_the_file(error: BaseException) -> None:
    with pytest.raises(type(error)), decoding("list x", "write it again"):
        raise error


def test_missing_files_and_own_sentences_stay() -> None:
    gone = decoding("list x", "write it again", "look elsewhere")
    with pytest.raises(InputError, match="list x does not exist; look elsewhere"), gone:
        raise FileNotFoundError(errno.ENOENT, "No such file")
    with pytest.raises(InputError, match=r"^mine\.$"), decoding("list x", "write it again"):
        raise InputError("mine.")


def test_few_values_may_not_stand_for_many() -> None:
    bomb: list[object] = [0]
    for _ in range(9):
        bomb = [bomb] * 10
    with pytest.raises(InputError, match=r"again and again, 2\d+ in all"):
        check_expanded(bomb, inside)
    shared = list(range(100))
    check_expanded({name: shared for name in range(1000)}, inside)  # as one list of labels for many images
    bomb.append(bomb)
    with pytest.raises(InputError, match="contains itself"):
        check_expanded(bomb, inside)
