"""Models of scikit-learn, trained on drawn data, as ONNX."""

from __future__ import annotations

import warnings
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx.helper


def learned(model: Any, **wanted: Any) -> Any:
    """The model, trained on 500 rows of ten features and three classes. wanted: of skl2onnx.to_onnx."""
    import skl2onnx
    from sklearn import datasets

    drawn: Any = datasets.make_classification(500, 10, n_informative=6, n_classes=3, random_state=0)
    x, y = drawn[0].astype(np.float32), drawn[1]
    make_attribute = onnx.helper.make_attribute

    def plain(key: str, value: Any, *rest: Any, **options: Any) -> Any:
        """skl2onnx hands NumPy's truth values to onnx, which wants integers."""
        if isinstance(value, list) and any(isinstance(v, (bool, np.bool_)) for v in value):
            value = [int(v) for v in value]
        return make_attribute(key, value, *rest, **options)

    with warnings.catch_warnings(), patch.object(onnx.helper, "make_attribute", plain):
        warnings.simplefilter("ignore")
        return skl2onnx.to_onnx(model.fit(x, y), x[:1], **wanted)
