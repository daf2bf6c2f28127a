"""A child of `fork` computes on one thread: those of the parent are not there, and waiting for them would never end."""

import multiprocessing
import warnings

import pytest
import torch

import scellm.models  # noqa: F401  registers what happens in a child


def work(queue):
    torch.ones(2000, 2000) @ torch.ones(2000, 2000)
    queue.put(torch.get_num_threads())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_child_does_not_wait_for_threads_of_its_parent():
    before = torch.get_num_threads()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    torch.set_num_threads(2)
    try:
        torch.ones(2000, 2000).exp().sum()  # starts the threads
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking with threads
            child = context.Process(target=work, args=(queue,))
            child.start()
        child.join(60)
        hangs = child.is_alive()
        if hangs:
            child.kill()
        assert not hangs
        assert queue.get() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
