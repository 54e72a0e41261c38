"""Synthetic images with four independent labelings, rendered on the accelerator."""
