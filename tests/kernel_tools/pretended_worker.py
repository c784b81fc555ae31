"""A worker whose kernels are right, wrong, illegal, hanging or absent, as a file says.

The file has what each kernel does in a configuration ("outputs warps=8 stages=2": "wrong"), and
gets a line a task that was begun in `<file>.log`.
"""

import json
import os
import signal
import sys
import time

CONFIGS = ("T=64 warps=8 stages=2", "T=64 warps=4 stages=2", "T=32 warps=2 stages=1")


def answer(task, does):
    if task["do"] == "plan":
        name = task["case"]["mechanism"]
        if name == "unsupported":
            return {"plan": []}
        states = "anchor" if name == "alike" else name  # has one kernel in common with it
        return {"plan": [[f"{states} e32", "states", CONFIGS], [f"{name} e32", "outputs", CONFIGS]]}
    if task["do"] == "time":
        configs = task["configs"]
        lengths = {str(n): n / (1 + len(text)) for n in (1024, 8192) for text in ("a",)}
        key = f"{task['case']['mechanism']} e32"
        warps = {t: int(t.split("warps=")[1][0]) for texts in configs.values() for t in texts}
        return {
            "times": {
                key: {
                    kernel: {
                        text: {n: ms / warps[text] for n, ms in lengths.items()} for text in texts
                    }
                    for kernel, texts in configs.items()
                }
            }
        }
    hows = []
    for kernel, text in task["configs"].items():
        hows += [does.get(f"{kernel} {text}"), does.get(f"{task['case']['dtype']} {kernel} {text}")]
    for how in hows:
        misbehave(how)
    bad = "wrong" in hows
    return {"wrong": "y by 0.5 (allowed 0.01)"} if bad else {"right": True}


def misbehave(how):
    if how == "illegal":
        print("CUDA error: an illegal memory access was encountered", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "aborting":
        os.abort()
    elif how == "hanging":
        time.sleep(600)
    elif how == "leaving":
        sys.exit(3)
    elif how == "slow":
        time.sleep(0.3)


def main():
    path = sys.argv[1]
    for line in sys.stdin:
        with open(path) as file:
            does = json.load(file)
        task = json.loads(line)
        with open(f"{path}.log", "a") as log:
            print(os.getpid(), json.dumps(task, sort_keys=True), file=log)
        if does.get("all") == "absent":
            print(json.dumps({"absent": "No module named 'triton'"}), flush=True)
        else:
            print(json.dumps(answer(task, does)), flush=True)


main()
