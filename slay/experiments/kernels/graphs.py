"""Calls as CUDA graphs: their work on the GPU alone, without Python and launches."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Graph:
    """A call as a CUDA graph, to be called again and again.

    A graph knows addresses and owns no inputs: `call` is kept as long as the graph is, and with it
    every tensor, parameter and state that it reads; else the next graph's capture, which empties
    the allocator's cache, would give their memory back to the device. Memory of its own comes from
    a pool that no other graph shares, so that the order of replays does not matter.
    """

    def __init__(self, call: Callable[[], object], device: torch.device):
        """Raises RuntimeError for a call that waits for the GPU."""
        self.call = call
        stream = torch.cuda.Stream(device)
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            call()  # what is made once, a stream's workspace too, is made before the capture
        current.wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.result = call()

    def __call__(self) -> None:
        self.graph.replay()
