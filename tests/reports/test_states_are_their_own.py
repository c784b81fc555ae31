"""A state owns what it holds, and nothing that is given is written to."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from contract import either_order, every_mechanism, heads, qkv

import slay
from slay.errors import SlayError


def tensors(state):
    return [t for t in (*state.memory, state.length, state.recent) if t is not None]


def storages(ts):
    return {t.untyped_storage().data_ptr() for t in ts if t.numel()}


@every_mechanism
@pytest.mark.parametrize("padded", [False, True])
def test_a_state_does_not_change_with_its_inputs(name, padded):
    """A carried state changes when the keys that it was made of are overwritten."""
    q, k, v = qkv(5)
    mask = torch.zeros(2, 5, dtype=torch.bool)
    given = {"key_padding_mask": mask} if padded else {}
    _, state = heads(name).attend(q, k, v, output_final_state=True, **given)
    assert not storages(tensors(state)) & storages([q, k, v, mask])
    kept = [t.clone() for t in tensors(state)]
    for t in (q, k, v):
        t.zero_()
    mask.fill_(True)
    assert all(torch.equal(a, b) for a, b in zip(tensors(state), kept, strict=True))


@every_mechanism
def test_an_empty_call_hands_on_a_copy(name):
    """An empty call with a state, and then one that may overwrite it, changes the older state."""
    mechanism = heads(name)
    _, first = mechanism.attend(*qkv(5), output_final_state=True)
    kept = [t.clone() for t in tensors(first)]
    _, second = mechanism.attend(*qkv(0), initial_state=first, output_final_state=True)
    assert not storages(tensors(first)) & storages(tensors(second))
    mechanism.attend(*qkv(1), initial_state=second._replace(expendable=True))
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), kept, strict=True))


@every_mechanism
@either_order
@pytest.mark.parametrize("grad", [False, True])
def test_nothing_that_is_given_is_written_to(name, causal, grad):
    """Attention changes its inputs, or the state that it starts from, in place."""
    mechanism = heads(name, causal=causal, chunk_size=2)
    inputs = [t.requires_grad_(grad) for t in qkv(5)]
    state = None
    if causal:
        with torch.no_grad():
            _, state = mechanism.attend(*qkv(3), output_final_state=True)
    given = [*inputs, *(tensors(state) if state else [])]
    kept = [t.detach().clone() for t in given]
    y = mechanism.attend(*inputs, initial_state=state)
    if grad:
        y.sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@every_mechanism
def test_a_convolution_keeps_no_more_than_it_needs(name):
    """The state of a layer with a short convolution holds the memory of its whole input."""
    layer = slay.get_attention_class(name)(12, 2, short_conv=3)
    _, state = layer(torch.randn(2, 50, 12), output_final_state=True)
    assert state.recent.untyped_storage().nbytes() == state.recent.nbytes


@every_mechanism
def test_no_sequences_and_a_state(name):
    """A batch of no sequences that goes on from a state ends in an error of `max`."""
    layer = slay.get_attention_class(name)(12, 2)
    _, state = layer(torch.randn(0, 3, 12), output_final_state=True)
    y, state = layer(torch.randn(0, 2, 12), initial_state=state, output_final_state=True)
    assert y.shape == (0, 2, 12)
    assert layer.step(torch.randn(0, 12), state)[0].shape == (0, 12)


@pytest.mark.parametrize("name", ["linear", "standard", "yat-spherical", "cosformer"])
@pytest.mark.parametrize("bounds", [[0, 0, 5], [0, 2, 2, 5], [0, 5, 5]])
def test_empty_sequences_are_refused(name, bounds):
    """Boundaries with an empty sequence are refused without a word of which it is."""
    q, k, v = qkv(5, batch=1)
    for given in (bounds, torch.tensor(bounds)):
        with pytest.raises(SlayError, match=r"cu_seqlens = .*: sequence \d is empty; leave"):
            heads(name).attend(q, k, v, cu_seqlens=given)


def test_every_grid_has_one_axis():
    """Kernels fail to launch at more than 65,535 sequences times heads."""
    triton = pytest.importorskip("triton", reason="the kernels need Triton")
    from slay.ops.triton import configs

    grids, run = [], triton.runtime.interpreter.GridExecutor.__call__

    def noted(kernel, *args, **kwargs):
        grid = kernel.grid
        grids.append(grid(kwargs) if callable(grid) else grid)
        return run(kernel, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.runtime.interpreter.GridExecutor, "__call__", noted)
        for name in ("linear", "yat-spherical"):
            mechanism = heads(name, 4, backend="triton")
            inputs = [t.requires_grad_() for t in qkv(3, head_dim=4)]
            mechanism.kernel_chunk_size = 128
            mechanism.attend(*inputs).sum().backward()
        with torch.no_grad():
            mechanism = heads("linear", 4, backend="triton")
            _, state = mechanism.attend(*qkv(2, head_dim=4), output_final_state=True)
            mechanism.attend(*qkv(1, head_dim=4), initial_state=state)
    assert len(grids) > len(configs.KERNELS) // 2
    assert all(len(grid) == 1 or set(grid[1:]) == {1} for grid in grids)


@every_mechanism
def test_a_state_is_read_without_trust(name):
    """torch.load of a saved state needs weights_only=False."""
    q, k, v = qkv(5)
    _, state = slay.attend(q, k, v, name, output_final_state=True)
    file = io.BytesIO()
    torch.save((state,), file)
    file.seek(0)
    (read,) = torch.load(file, weights_only=True)
    found = slay.attend(q, k, v, name, initial_state=read)
    assert torch.equal(found, slay.attend(q, k, v, name, initial_state=state))


@every_mechanism
def test_copies(name):
    """A mechanism cannot be copied or sent to another process."""
    q, k, v = qkv(3)
    mechanism = heads(name)
    for other in (copy.deepcopy(mechanism), pickle.loads(pickle.dumps(mechanism))):
        assert torch.equal(other.attend(q, k, v), mechanism.attend(q, k, v))
