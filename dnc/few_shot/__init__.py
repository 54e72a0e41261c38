"""The nearest-center rule: what it draws, and its measured few-shot error."""
