"""Benchmarks: the product and what people would use instead, in the same run."""
