"""Find the correct configurations of a call's kernels in as few trials as possible.

Trial i first uses the i-th configuration of every kernel. The configurations of a failed trial
are retried one by one, with the other kernels in configurations known to be correct, to identify
the faulty one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from slay.ops.triton.verified import config

Trial = dict[str, str]  # one configuration per kernel


class Search:
    """Trials of one case: get `trials`, run them all, `note` each outcome, and repeat."""

    def __init__(self, candidates: Mapping[str, Sequence[str]]):
        self.candidates = {name: list(texts) for name, texts in candidates.items()}
        self.right: dict[str, list[str]] = {name: [] for name in candidates}
        self.wrong: dict[str, dict[str, str]] = {name: {} for name in candidates}
        self.made: set[frozenset[tuple[str, str]]] = set()
        self.failures: list[tuple[Trial, str]] = []

    def trials(self) -> list[Trial]:
        """Return the next trials; none when nothing more can be determined."""
        if not all(self.candidates.values()):
            return []
        rounds = max(map(len, self.candidates.values()), default=0)
        together = [
            {name: texts[min(i, len(texts) - 1)] for name, texts in self.candidates.items()}
            for i in range(rounds)
        ]
        new = self._new(together)
        if new:
            return new
        base = {name: self._base(name) for name in self.candidates}
        return self._new([{**base, name: text} for name, text in self._open()])

    def note(self, trial: Trial, wrong: str | None) -> None:
        """Record the outcome of a trial: what was wrong, or None."""
        self.made.add(frozenset(trial.items()))
        if wrong is not None:
            self.failures.append((trial, wrong))
        else:
            for name, text in trial.items():
                if text not in self.right[name] and text not in self.wrong[name]:
                    self.right[name].append(text)
        for failed, why in self.failures:
            guilty = [name for name, text in failed.items() if text not in self.right[name]]
            if len(guilty) == 1:
                self.wrong[guilty[0]].setdefault(failed[guilty[0]], why)

    def finish(self) -> None:
        """Mark configurations that no trial decided as wrong."""
        for name, text in self._open():
            whys = [why for trial, why in self.failures if trial[name] == text]
            if whys:
                self.wrong[name][text] = f"{whys[-1]}, or another kernel's fault"

    def _open(self) -> list[tuple[str, str]]:
        return [
            (name, text)
            for name, texts in self.candidates.items()
            for text in texts
            if text not in self.right[name] and text not in self.wrong[name]
        ]

    def _base(self, name: str) -> str:
        """A correct configuration if one is known, else the one with the fewest warps."""
        known = [text for text in self.candidates[name] if text in self.right[name]]
        return known[0] if known else min(self.candidates[name], key=lambda t: config(t).warps)

    def _new(self, trials: list[Trial]) -> list[Trial]:
        distinct = {frozenset(trial.items()): trial for trial in trials}
        return [trial for mark, trial in distinct.items() if mark not in self.made]
