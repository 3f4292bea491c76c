"""Kernels: generators of code, and for each the function that turns views of memory into calls of it.

Knows no graph and no operator; imports only `ingot.codegen`.
"""
