"""PyTorch in, ONNX graph out: the only folder that imports torch. Not imported by `import ingot`."""
