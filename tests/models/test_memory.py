"""Work in parts that fit in memory."""

import pytest
import torch

from lmme3dhf.models.memory import in_parts

CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you "
    "tried to allocate 17592186044416 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError(CPU),
    RuntimeError("[enforce fail at alloc_cpu.cpp:80] data. DefaultCPUAllocator: not enough memory"),
    MemoryError(),
)


def limited(most: int, tried: list[int], error: BaseException = ERRORS[0]):
    """Gives each number's double; parts whose sum is more than `most` do not fit."""

    def run(part):
        tried.append(len(part))
        if sum(part) > most:
            raise error
        return [2 * number for number in part]

    return run


@pytest.mark.parametrize("error", ERRORS)
def test_a_part_that_does_not_fit_is_halved(error):
    """Eight ones where three fit: 8, 4, then twos. Catches results that are lost, doubled or out of
    order, an allocator's words that are not known, and a size that is looked for again each time.
    """
    tried = []
    results, fitted = in_parts([1] * 8, limited(3, tried, error))
    assert results == [2] * 8
    assert (tried, fitted) == ([8, 4, 2, 2, 2, 2], 2)


def test_what_fits_is_not_divided():
    """Catches parts that are smaller than they need be."""
    tried = []
    assert in_parts([1, 2, 3], limited(6, tried)) == ([2, 4, 6], None)
    assert tried == [3]


@pytest.mark.parametrize(("place", "largest"), [(0, 4), (1, 3), (2, 2), (3, 2), (4, 2)])
def test_one_that_does_not_fit_alone_takes_no_other_with_it(place, largest):
    """By hand: five, two, one, and after the large one the rest at once. Catches neighbours that
    fail with it, and batches that stay small because of it.
    """
    numbers = [1] * 4
    numbers.insert(place, 100)
    results, fitted = in_parts(numbers, limited(10, []))
    assert results == [None if number == 100 else 2 for number in numbers]
    assert fitted == largest


def test_nothing_is_learnt_where_nothing_fits():
    """Catches a size of zero."""
    assert in_parts([100, 100, 100], limited(10, [])) == ([None] * 3, None)


@pytest.mark.parametrize("error", [RuntimeError("shape mismatch"), ValueError("memory")])
def test_other_errors_go_up_as_they_are(error):
    """Catches a fault of the code that is taken for a small memory and tried again."""
    tried = []
    with pytest.raises(type(error)) as caught:
        in_parts([1, 2, 3, 4], limited(0, tried, error))
    assert caught.value is error
    assert tried == [4]


def test_the_allocators_own_words_are_known():
    """What torch says on this machine when it gets no memory: four exabytes. Catches a wording that
    changes with torch.
    """
    results, fitted = in_parts([1], lambda part: [torch.empty(2**62, dtype=torch.uint8)])
    assert (results, fitted) == ([None], None)
