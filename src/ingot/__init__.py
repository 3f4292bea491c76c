"""Ingot: PyTorch models to standard ONNX files, and a native session that runs ONNX files fast.

Public names are imported when first used, so `import ingot` costs nothing and needs neither torch nor llvmlite.
"""
