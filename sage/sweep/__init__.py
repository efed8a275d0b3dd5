"""Many runs of one question: their plan, their workers, and what the best of them is worth."""
