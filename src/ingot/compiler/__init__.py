"""From a graph and the shapes of its inputs to a plan: a flat list of kernel calls, and where in memory each
value lives.

index.py    the graph as lists and tables, made once a session facts.py    dtype and shape of every value, and
the values that are known before running lower.py    nodes to calls of kernels; elementwise nodes wait and
become one kernel, or another kernel's epilogue memory.py   offsets in the arena, from when each buffer is
first written and last read plan.py     calls and offsets to the tables that the native loop reads
"""
