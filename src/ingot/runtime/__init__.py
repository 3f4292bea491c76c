"""Sessions: the public surface, providers, threads, and the driver that runs plans. Compiles nothing while
running a plan.
"""
