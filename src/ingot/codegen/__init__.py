"""Python to machine code: the builder that emits LLVM IR, vector mathematics, facts of the CPU, the object
cache.

Nothing here knows a graph, a plan or an operator.
"""
