"""The rooms below under duress: measured and judged."""
