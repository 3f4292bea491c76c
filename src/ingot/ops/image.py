"""ImageDecoder: the pixels of an encoded image, by Pillow (the extra `images`)."""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# Pillow is an extra.

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ingot.errors import InputError, MissingExtraError, ModelError
from ingot.ops.registry import Array, Op, attr_str, label, present, register

_MODES = {"RGB": "RGB", "BGR": "RGB", "Grayscale": "L"}


@register("ImageDecoder", since=20)
class ImageDecoder(Op):
    """The bytes of a file (uint8 [n]) to pixels (uint8 [height, width, channels])."""

    def evaluate(self, node: ir.Node, inputs: Sequence[Array | None]) -> list[Array]:
        """Pillow's decoder; the format is found out from the bytes."""
        pixels = attr_str(node, "pixel_format", "RGB")
        if pixels not in _MODES:
            raise ModelError(
                f"{label(node)}: pixel_format {pixels!r} is not one of {', '.join(_MODES)}. Use one of them."
            )
        try:
            import PIL.Image
        except ImportError as error:
            raise MissingExtraError(
                f"{label(node)}: images are decoded by Pillow, which is not installed. "
                "Run `pip install 'ingot[images]'`."
            ) from error
        try:
            with PIL.Image.open(io.BytesIO(present(inputs, 0).tobytes())) as image:
                array = np.array(image.convert(_MODES[pixels]), np.uint8)
        except (OSError, ValueError, SyntaxError) as error:
            raise InputError(f"{label(node)}: not an image that can be decoded: {error}") from error
        if pixels == "Grayscale":
            return [array[:, :, None]]
        return [np.ascontiguousarray(array[:, :, ::-1]) if pixels == "BGR" else array]
