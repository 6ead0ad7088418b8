"""Networks whose images are shared among threads."""

import threading

import numpy as np
import pytest

from segmitos.detection.runtimes import in_batches


class Network:
    """Gives each image's mean; notes what it was given, and how many calls ran at once."""

    def __init__(self, wait_for: int = 1) -> None:
        self.sizes: list[int] = []
        self._together = threading.Barrier(wait_for)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.sizes.append(len(images))
        self._together.wait(timeout=20)
        return images.mean(axis=(1, 2, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("images", "size", "threads", "sizes"),
    [
        (1, 8, 2, [1]),
        (2, 8, 2, [1, 1]),
        (3, 8, 2, [2, 1]),
        (5, 8, 1, [5]),
        (16, 8, 1, [8, 8]),
        (17, 8, 2, [8, 8, 1]),
        (64, 8, 16, [4] * 16),
    ],
)
def test_every_image_goes_through_once_and_in_order(images, size, threads, sizes):
    given = np.random.default_rng(0).integers(0, 255, (images, 4, 4, 3), np.uint8)
    network = Network()
    found = in_batches(network, size, threads)(given)
    np.testing.assert_array_equal(found, given.mean(axis=(1, 2, 3)).astype(np.float32))
    assert sorted(network.sizes, reverse=True) == sizes


def test_batches_run_at_once():
    # Each call waits for the other: one after the other they would never end.
    given = np.zeros((8, 4, 4, 3), np.uint8)
    assert len(in_batches(Network(wait_for=2), 4, 2)(given)) == 8


def test_one_thread_is_that_of_the_caller():
    # So that callers which each have a stream of a runtime do not wait for one another.
    seen = []

    def network(images: np.ndarray) -> np.ndarray:
        seen.append(threading.current_thread())
        return np.zeros(len(images), np.float32)

    in_batches(network, 2, 1)(np.zeros((5, 4, 4, 3), np.uint8))
    assert seen == [threading.current_thread()] * 3


def test_what_a_network_raises_is_raised():
    def broken(images: np.ndarray) -> np.ndarray:
        raise ValueError("no memory")

    with pytest.raises(ValueError, match="no memory"):
        in_batches(broken, 2, 2)(np.zeros((4, 4, 4, 3), np.uint8))
