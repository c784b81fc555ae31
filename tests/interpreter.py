"""The interpreter patches Triton's language whenever a function of a kernel is called.

Doing so once a kernel and module is enough, and takes most of the time from a test.
"""

try:
    from triton.runtime import interpreter
except ImportError:  # tests of kernels are skipped then
    interpreter = None
patched = set()  # namespaces of functions that the running kernel has called


def run(kernel, *args, **kwargs):
    patched.clear()
    return launch(kernel, *args, **kwargs)


def call(function, *args, **kwargs):
    namespace = id(function.fn.__globals__)
    if namespace not in patched:
        interpreter._patch_lang(function.fn)
        patched.add(namespace)
    return function.rewrite()(*args, **kwargs)


if interpreter is not None:
    launch = interpreter.GridExecutor.__call__
    interpreter.GridExecutor.__call__ = run
    interpreter.InterpretedFunction.__call__ = call
