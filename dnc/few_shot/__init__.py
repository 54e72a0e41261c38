"""The nearest-center rule: its random supports and its measured few-shot error."""
