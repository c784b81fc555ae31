"""The interpreter patches Triton's language whenever a function of a kernel is called.

Doing so once a kernel and module is enough, and takes most of the time from a test.
"""

import pytest

interpreter = pytest.importorskip("triton.runtime.interpreter")
patched = set()  # namespaces of functions that the running kernel has called
launch = interpreter.GridExecutor.__call__


def run(kernel, *args, **kwargs):
    patched.clear()
    return launch(kernel, *args, **kwargs)


def call(function, *args, **kwargs):
    namespace = id(function.fn.__globals__)
    if namespace not in patched:
        interpreter._patch_lang(function.fn)
        patched.add(namespace)
    return function.rewrite()(*args, **kwargs)


interpreter.GridExecutor.__call__ = run
interpreter.InterpretedFunction.__call__ = call
