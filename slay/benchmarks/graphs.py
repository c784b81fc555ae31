"""CUDA graphs of calls, to time the GPU's work without Python and launch overhead."""

from __future__ import annotations

from collections.abc import Callable

import torch


class Graph:
    """A call captured as a CUDA graph; calling it replays the graph.

    A graph stores addresses but does not own its inputs. `call` is therefore kept as long as the
    graph, and with it every tensor, parameter and state that it reads; otherwise the next capture,
    which empties the allocator's cache, would return their memory to the device. The graph's own
    memory comes from a private pool, so that the order of replays does not matter.
    """

    def __init__(self, call: Callable[[], object], device: torch.device):
        """Capture a call. Raises RuntimeError if it synchronises with the GPU."""
        self.call = call
        stream = torch.cuda.Stream(device)
        current = torch.cuda.current_stream(device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            call()  # makes one-time allocations, such as a stream's workspace, before the capture
        current.wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=stream):
            self.result = call()

    def __call__(self) -> None:
        self.graph.replay()
