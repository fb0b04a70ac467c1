"""Layers and kernels for CPUs, each with its slow twin."""
