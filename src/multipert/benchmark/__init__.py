"""From a study to results on disk."""

from multipert.benchmark.held_out import HeldOutTest, Outcome, run_held_out_test

__all__ = ["HeldOutTest", "Outcome", "run_held_out_test"]
