"""A catalogue of kernels as plans name them: those of the calls in families.py, for five kinds of CPU.

Nothing is run, so that the machines need not be this one. Where each generator is held to its plain
definition over odd shapes stands in HELD_BY.
"""

from __future__ import annotations

import ctypes
import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass

import llvmlite.binding as llvm
import pytest

import ingot.kernels
from ingot.codegen.kernel import Kernel
from ingot.codegen.machine import Machine
from tests.kernels.families import FAMILIES

for module in pkgutil.iter_modules(ingot.kernels.__path__):
    importlib.import_module(f"ingot.kernels.{module.name}")

#: The test, under tests/kernels, that compares a generator's results with its plain definition over random
#: or odd shapes.
HELD_BY = {
    "argreduce._argreduce": "test_argreduce.py::test_any_axis_of_any_layout",
    "arrange._running": "test_arrange.py::test_cumulative",
    "attention_row.attend_row": "test_attention.py::test_random_shapes_and_masks",
    "attention_tile.attend": "test_attention.py::test_random_shapes_and_masks",
    "contract.tile": "test_gemm.py::test_any_shape_and_strides",
    "contraction.contract": "test_contraction.py::test_any_dimensions",
    "contraction.strips_of": "test_contraction.py::test_any_dimensions",
    "conv.conv": "test_conv.py::test_any_convolution",
    "control._loop": "test_control.py::test_rounds",
    "control._branch": "test_control.py::test_branches",
    "coupling._coupling": "test_coupling.py::test_coupling",
    "interleave._interleave": "test_copy.py::test_any_order_of_dimensions",
    "runs._copy_runs": "test_copy.py::test_any_order_of_dimensions",
    "copy._transpose": "test_copy.py::test_any_order_of_dimensions",
    "depthwise.depthwise": "test_depthwise.py::test_rows_of_any_window",
    "depthwise.depthwise_block": "test_depthwise.py::test_every_block",
    "elementwise._elementwise": "test_elementwise.py::test_strides_broadcasting_and_sizes",
    "gather._indexed": "test_gather.py::test_gather",
    "gemm.gemm": "test_gemm.py::test_any_shape_and_strides",
    "interpolate.interpolate": "test_interpolate.py::test_random_shapes",
    "normalize._normalize": "test_normalize.py::test_any_axes_of_any_layout",
    "suppress._list_picks": "test_suppress.py::test_suppression",
    "boxes._roi_align": "test_boxes.py::test_roi_align",
    "boxes._roi_pool": "test_boxes.py::test_roi_pool",
    "suppress._suppress": "test_suppress.py::test_suppression",
    "few_bits._few_bits": "test_few_bits.py::test_any_product_with_few_bits",
    "few_bits_integers._few_bits_integers": "test_few_bits_integers.py::test_any_product",
    "few_bits_integers._rows_to_bytes": "test_few_bits_integers.py::test_any_product",
    "determinant._determinant": "test_determinant.py::test_determinants",
    "linear_attention._linear_attention": "test_linear_attention.py::test_linear_attention",
    "unique._find_unique": "test_unique.py::test_unique",
    "unique._take_unique": "test_unique.py::test_unique",
    "sample._deformed_columns": "test_sample.py::test_deformed_columns",
    "sample._grid_sample": "test_sample.py::test_grid_sample",
    "select._add_up": "test_select.py::test_nonzero",
    "select._coordinates": "test_select.py::test_nonzero",
    "select._count": "test_select.py::test_nonzero",
    "select._slabs": "test_select.py::test_compress",
    "loose_fused._apply": "test_loose.py::test_steps",
    "loose_elements.compress": "test_loose.py::test_steps",
    "loose_elements._concat": "test_loose.py::test_steps",
    "loose_elements.constant_of_shape": "test_loose.py::test_steps",
    "loose_elements.expand": "test_loose.py::test_steps",
    "loose_dims.flatten": "test_loose.py::test_steps",
    "loose_elements.gather": "test_loose.py::test_steps",
    "loose_elements.gather_nd": "test_loose.py::test_steps",
    "loose_elements.nonzero": "test_loose.py::test_steps",
    "loose_elements.range_of": "test_loose.py::test_steps",
    "loose_dims.reshape": "test_loose.py::test_steps",
    "loose_dims.shape_of": "test_loose.py::test_steps",
    "loose_dims.size_of": "test_loose.py::test_steps",
    "loose_elements.slice_of": "test_loose.py::test_steps",
    "loose_dims.squeeze": "test_loose.py::test_steps",
    "loose_elements.transpose": "test_loose.py::test_steps",
    "loose_dims.unsqueeze": "test_loose.py::test_steps",
    "loose_loop.append": "test_loose.py::test_steps",
    "loose_loop.branch": "test_loose.py::test_rounds",
    "loose_loop.keep": "test_loose.py::test_steps",
    "loose_loop.link": "test_loose.py::test_rounds",
    "loose_loop.once": "test_loose.py::test_steps",
    "loose_loop.only_one": "test_loose.py::test_rounds",
    "loose_loop.rounds": "test_loose.py::test_rounds",
    "loose_plan._planned": "test_loose_plan.py::test_drawn_sizes",
    "order._close_up": "test_order.py::test_topk_of_a_k_in_memory",
    "order._topk": "test_order.py::test_topk",
    "pack.pack": "test_pack.py::test_any_matrix",
    "pick._pick": "test_pick.py::test_any_tables_that_stay_near",
    "pool.pool": "test_pool.py::test_random_windows_in_rows",
    "pool.pool_lines": "test_pool.py::test_random_windows",
    "pool.pool_block": "test_pool.py::test_random_windows",
    "recurrent_integers.step_through_integers": "test_recurrent_integers.py::test_any_layer",
    "recurrent_step.step_through": "test_recurrent.py::test_random_layers",
    "reduce._reduce": "test_reduce.py::test_any_axes_of_any_layout",
    "resize.resize_channels": "test_resize.py::test_random_images",
    "resize.resize_columns": "test_resize.py::test_random_images",
    "sliced.sliced_product": "test_sliced.py::test_any_product",
    "sliced_attention.attend_sliced": "test_sliced_attention.py::test_any_shape_and_mask",
    "sliced_tile.sliced_tile": "test_sliced.py::test_any_convolution",
    "slices.slice_pixels": "test_sliced.py::test_any_convolution",
    "slices.slice_weights": "test_sliced.py::test_any_product",
    "strassen.strassen": "test_strassen.py::test_any_shape_and_epilogue",
    "strassen.sum_panels": "test_strassen.py::test_any_shape_and_epilogue",
    "strassen.sum_rows": "test_strassen.py::test_any_shape_and_epilogue",
    "softmax._softmax": "test_softmax.py::test_any_axis_of_any_layout",
    "units.pack_factor": "test_integers.py::test_any_product",
    "units.pack_units": "test_integers.py::test_any_product",
    "winograd.winograd": "test_winograd.py::test_any_size",
    "winograd_pack.filters_to_points": "test_winograd.py::test_any_size",
    "winograd_tile.from_points": "test_winograd.py::test_any_size",
    "winograd_tile.to_points": "test_winograd.py::test_any_size",
    "trees._forest": "test_trees.py::test_any_trees",
}

_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
_WIDE = "-prefer-256-bit"  # as codegen.machine has it
_VECTOR_BYTES = "+avx512vbmi,+avx512vnni"  # what is done with single ones
_CACHES = (32 << 10, 1 << 20)
#: One CPU of each kind, the same ones wherever the tests run. What they have of features follows from their
#: names.
MACHINES = {
    "amx": Machine(
        _X86, "sapphirerapids", f"+avx512f,{_VECTOR_BYTES},{_WIDE}", 64, 32, True, 48 << 10, 2 << 20, True
    ),
    "avx512": Machine(_X86, "skylake-avx512", f"+avx512f,{_WIDE}", 64, 32, True, *_CACHES),
    "avx2": Machine(_X86, "haswell", "+avx2,+fma,+f16c", 32, 16, True, *_CACHES),
    "sse": Machine(_X86, "x86-64-v2", "+ssse3", 16, 16, False, *_CACHES),
    "neon": Machine(_ARM, "neoverse-n1", "", 16, 32, True, *_CACHES),
}


def lacks(machine: Machine) -> str | None:
    """Why this LLVM cannot emit code for a machine; None: it can."""
    try:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        machine.target()
    except RuntimeError as error:
        return f"this LLVM emits no code for {machine.triple}: {error}"
    return None


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel, and the family whose calls name it."""

    family: str
    kernel: Kernel


def variants(machine: Machine) -> list[Variant]:
    """All of the catalogue's kernels for a machine, each once."""
    found: dict[Kernel, Variant] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, family in FAMILIES.items():
            packing: list[Kernel] = []
            _pack_nothing(patch, packing)
            for call in family(machine):
                for kernel in (call.kernel, *(a for a in call.args if isinstance(a, Kernel))):
                    found.setdefault(kernel, Variant(name, kernel))
            for kernel in packing:
                found.setdefault(kernel, Variant(name, kernel))
    return list(found.values())


def _pack_nothing(patch: pytest.MonkeyPatch, kernels: list[Kernel]) -> None:
    """Constants are not packed: the machine may be another one. What would pack them joins `kernels`."""

    def run_now(kernel: Kernel, arguments: Sequence[int], tiles: int, machine: Machine) -> None:
        del machine
        kernels.append(kernel)
        if kernel.generator.endswith("slice_weights"):  # its scales are looked at
            scales = (ctypes.c_float * (tiles * 32)).from_address(arguments[-1])
            scales[:] = [1.0] * len(scales)

    for module in pkgutil.iter_modules(ingot.kernels.__path__):
        patch.setattr(f"ingot.kernels.{module.name}.run_now", run_now, raising=False)
