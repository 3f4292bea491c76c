"""Which kernels may spill in innermost loops, on which machine, how much, and why."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.kernels.assembly import Spills


@dataclass(frozen=True, slots=True)
class Bound:
    """The most that a loop may spill: of those that do a kernel's work, and (stores) of its other ones."""

    work: Spills = field(default_factory=Spills)
    others: int = 0

    def joined(self, other: Bound) -> Bound:
        """The larger of each figure."""
        work = Spills(max(self.work.stores, other.work.stores), max(self.work.loads, other.work.loads))
        return Bound(work, max(self.others, other.others))

    def within(self, allowed: Bound) -> bool:
        """Whether each figure is at most what is allowed."""
        return self.joined(allowed) == allowed


#: (stores, loads) of the loops that do the work, and stores of the others, by machine and kind of variant.
ALLOWED: dict[tuple[str, str], Bound] = {
    # A head's elements of few queries and their sums, where registers or lanes are few.
    ("amx", "attention_row.attend_row"): Bound(Spills(1, 1)),
    ("avx2", "attention_row.attend_row"): Bound(Spills(1, 3)),
    ("sse", "attention_row.attend_row"): Bound(Spills(32, 58)),
    ("neon", "attention_row.attend_row"): Bound(Spills(3, 4)),
    # Mostly with a softcap or a mask (tanh's constants beside the scores), or heads of one element.
    ("amx", "attention_tile.attend"): Bound(Spills(31, 40), 5),
    ("avx512", "attention_tile.attend"): Bound(Spills(42, 42), 5),
    ("avx2", "attention_tile.attend"): Bound(Spills(24, 36), 1),
    ("sse", "attention_tile.attend"): Bound(Spills(5, 5)),
    ("neon", "attention_tile.attend"): Bound(Spills(39, 126)),
    # Constants of long epilogues, in their own loop. Without one: on AArch64 in a few of the tiles with eight
    # values in a step.
    ("neon", "contract.tile"): Bound(Spills(3, 2)),
    ("amx", "contract.tile epilogue"): Bound(Spills(0, 2)),
    ("avx512", "contract.tile epilogue"): Bound(Spills(0, 2)),
    ("avx2", "contract.tile epilogue"): Bound(Spills(2, 5)),
    ("sse", "contract.tile epilogue"): Bound(Spills(18, 19)),
    ("neon", "contract.tile epilogue"): Bound(Spills(2, 5)),
    ("amx", "contract.tile epilogue masked"): Bound(Spills(0, 2)),
    ("avx512", "contract.tile epilogue masked"): Bound(Spills(0, 2)),
    ("avx2", "contract.tile epilogue masked"): Bound(Spills(2, 7)),
    ("sse", "contract.tile epilogue masked"): Bound(Spills(10, 10)),
    ("neon", "contract.tile epilogue masked"): Bound(Spills(2, 7)),
    # Masks of eight vectors of a row, read back; integers' products where registers are few.
    ("amx", "contraction.contract"): Bound(Spills(0, 2)),
    ("avx512", "contraction.contract"): Bound(Spills(0, 2)),
    ("avx2", "contraction.contract"): Bound(Spills(1, 2)),
    # What padding is made of, kept across the call that packs.
    ("sse", "conv.conv"): Bound(Spills(1, 0)),
    # Two vectors of sums for four corners that are spread over lanes, and strides.
    ("amx", "boxes._roi_align"): Bound(Spills(0, 11)),
    ("avx512", "boxes._roi_align"): Bound(Spills(0, 11)),
    ("avx2", "boxes._roi_align"): Bound(Spills(2, 7)),
    ("sse", "boxes._roi_align"): Bound(Spills(15, 19)),
    ("sse", "boxes._roi_pool"): Bound(Spills(0, 1)),
    # The masked squares at the edges.
    ("avx2", "copy._transpose"): Bound(Spills(1, 1)),
    # Rows of large windows: LLVM moves loads of the next inputs up.
    ("amx", "depthwise.depthwise"): Bound(Spills(22, 22)),
    ("avx512", "depthwise.depthwise"): Bound(Spills(25, 26)),
    ("avx2", "depthwise.depthwise"): Bound(Spills(27, 50)),
    ("sse", "depthwise.depthwise"): Bound(Spills(24, 26)),
    ("neon", "depthwise.depthwise"): Bound(Spills(7, 9)),
    ("amx", "depthwise.depthwise epilogue"): Bound(Spills(24, 24)),
    ("avx512", "depthwise.depthwise epilogue"): Bound(Spills(27, 28)),
    ("avx2", "depthwise.depthwise epilogue"): Bound(Spills(11, 18)),
    ("sse", "depthwise.depthwise epilogue"): Bound(Spills(13, 14)),
    ("neon", "depthwise.depthwise epilogue"): Bound(Spills(5, 8)),
    ("amx", "depthwise.depthwise epilogue masked"): Bound(Spills(19, 19)),
    ("avx512", "depthwise.depthwise epilogue masked"): Bound(Spills(17, 17)),
    ("avx2", "depthwise.depthwise epilogue masked"): Bound(Spills(13, 24)),
    ("sse", "depthwise.depthwise epilogue masked"): Bound(Spills(55, 42)),
    ("neon", "depthwise.depthwise epilogue masked"): Bound(Spills(211, 147)),
    ("amx", "depthwise.depthwise masked"): Bound(Spills(18, 18)),
    ("avx512", "depthwise.depthwise masked"): Bound(Spills(17, 17)),
    ("avx2", "depthwise.depthwise masked"): Bound(Spills(14, 26)),
    ("sse", "depthwise.depthwise masked"): Bound(Spills(50, 38)),
    ("neon", "depthwise.depthwise masked"): Bound(Spills(211, 146)),
    # Loads that LLVM moves up, and what an epilogue keeps beside the sums; blocks that spill less are no
    # faster (docs/kernels/README.md). Masked on SSE and AArch64: a branch for each lane.
    ("amx", "depthwise.depthwise_block"): Bound(Spills(31, 35)),
    ("avx512", "depthwise.depthwise_block"): Bound(Spills(29, 41)),
    ("avx2", "depthwise.depthwise_block"): Bound(Spills(16, 20)),
    ("sse", "depthwise.depthwise_block"): Bound(Spills(10, 11)),
    ("neon", "depthwise.depthwise_block"): Bound(Spills(22, 25)),
    ("amx", "depthwise.depthwise_block epilogue"): Bound(Spills(150, 210)),
    ("avx512", "depthwise.depthwise_block epilogue"): Bound(Spills(157, 208)),
    ("avx2", "depthwise.depthwise_block epilogue"): Bound(Spills(111, 177)),
    ("sse", "depthwise.depthwise_block epilogue"): Bound(Spills(37, 46)),
    ("neon", "depthwise.depthwise_block epilogue"): Bound(Spills(30, 34)),
    ("amx", "depthwise.depthwise_block epilogue masked"): Bound(Spills(244, 420)),
    ("avx512", "depthwise.depthwise_block epilogue masked"): Bound(Spills(235, 420)),
    ("avx2", "depthwise.depthwise_block epilogue masked"): Bound(Spills(104, 170)),
    ("sse", "depthwise.depthwise_block epilogue masked"): Bound(Spills(228, 219)),
    ("neon", "depthwise.depthwise_block epilogue masked"): Bound(Spills(440, 322)),
    ("amx", "depthwise.depthwise_block masked"): Bound(Spills(22, 30)),
    ("avx512", "depthwise.depthwise_block masked"): Bound(Spills(24, 25)),
    ("avx2", "depthwise.depthwise_block masked"): Bound(Spills(44, 46)),
    ("sse", "depthwise.depthwise_block masked"): Bound(Spills(179, 145)),
    ("neon", "depthwise.depthwise_block masked"): Bound(Spills(422, 305)),
    # Constants of long formulas, for which sixteen registers are too few; on AArch64 read back only.
    ("amx", "elementwise._elementwise"): Bound(Spills(0, 3)),
    ("avx512", "elementwise._elementwise"): Bound(Spills(0, 3)),
    ("avx2", "elementwise._elementwise"): Bound(Spills(5, 11)),
    ("sse", "elementwise._elementwise"): Bound(Spills(5, 8)),
    ("neon", "elementwise._elementwise"): Bound(Spills(1, 23)),
    # The same beside a place for each operand.
    ("avx2", "loose_fused._apply"): Bound(Spills(0, 1)),
    ("neon", "loose_fused._apply"): Bound(Spills(0, 6)),
    # Addresses of indices in several dimensions.
    ("amx", "gather._indexed"): Bound(Spills(1, 1)),
    ("avx512", "gather._indexed"): Bound(Spills(1, 1)),
    ("avx2", "gather._indexed"): Bound(Spills(1, 13)),
    ("sse", "gather._indexed"): Bound(Spills(2, 13)),
    # Constants of an epilogue.
    ("avx2", "interpolate.interpolate epilogue"): Bound(Spills(0, 4)),
    ("sse", "interpolate.interpolate epilogue"): Bound(Spills(0, 4)),
    ("avx2", "interpolate.interpolate epilogue masked"): Bound(Spills(0, 4)),
    ("sse", "interpolate.interpolate epilogue masked"): Bound(Spills(0, 2)),
    # Places of elements that lie apart.
    ("amx", "normalize._normalize epilogue"): Bound(Spills(0, 16)),
    ("avx512", "normalize._normalize epilogue"): Bound(Spills(0, 14)),
    ("sse", "normalize._normalize epilogue"): Bound(Spills(0, 3)),
    # A square of a vector's side, turned: of each exchange both old and new vectors are alive.
    ("amx", "pack.pack"): Bound(Spills(3, 4)),
    ("avx512", "pack.pack"): Bound(Spills(3, 4)),
    ("avx2", "pack.pack"): Bound(Spills(2, 4)),
    # Windows written out over many pixels, whose inputs LLVM loads early.
    ("amx", "pool.pool"): Bound(Spills(32, 74), 31),
    ("avx512", "pool.pool"): Bound(Spills(17, 51), 14),
    ("avx2", "pool.pool"): Bound(Spills(40, 82), 37),
    ("sse", "pool.pool"): Bound(Spills(35, 44), 27),
    ("neon", "pool.pool"): Bound(Spills(19, 49), 18),
    ("avx2", "pool.pool masked"): Bound(Spills(13, 13), 8),
    ("sse", "pool.pool masked"): Bound(Spills(53, 35), 54),
    ("neon", "pool.pool masked"): Bound(Spills(12, 6), 12),
    # As depthwise_block; a maximum that keeps NaN takes a register more.
    ("amx", "pool.pool_block"): Bound(Spills(29, 29)),
    ("avx512", "pool.pool_block"): Bound(Spills(29, 29)),
    ("avx2", "pool.pool_block"): Bound(Spills(12, 12)),
    ("sse", "pool.pool_block"): Bound(Spills(18, 18)),
    ("neon", "pool.pool_block"): Bound(Spills(25, 26)),
    ("amx", "pool.pool_block masked"): Bound(Spills(36, 36)),
    ("avx512", "pool.pool_block masked"): Bound(Spills(36, 36)),
    ("avx2", "pool.pool_block masked"): Bound(Spills(34, 34)),
    ("sse", "pool.pool_block masked"): Bound(Spills(293, 230)),
    ("neon", "pool.pool_block masked"): Bound(Spills(859, 601)),
    # Sums as integers and as floats, where a product needs registers of its own.
    ("sse", "few_bits_integers._few_bits_integers"): Bound(Spills(4, 4)),
    ("sse", "few_bits_integers._few_bits_integers masked"): Bound(Spills(4, 4)),
    ("neon", "few_bits_integers._few_bits_integers"): Bound(Spills(6, 7)),
    ("neon", "few_bits_integers._few_bits_integers masked"): Bound(Spills(6, 8)),
    # What becomes of a sequence's sums, between two products.
    ("amx", "recurrent_integers.step_through_integers masked"): Bound(Spills(3, 4)),
    ("avx512", "recurrent_integers.step_through_integers masked"): Bound(Spills(2, 3)),
    ("avx2", "recurrent_integers.step_through_integers"): Bound(Spills(3, 8)),
    ("avx2", "recurrent_integers.step_through_integers masked"): Bound(Spills(5, 10)),
    ("sse", "recurrent_integers.step_through_integers"): Bound(Spills(4, 7)),
    ("sse", "recurrent_integers.step_through_integers masked"): Bound(Spills(5, 9)),
    ("neon", "recurrent_integers.step_through_integers"): Bound(Spills(3, 6)),
    ("neon", "recurrent_integers.step_through_integers masked"): Bound(Spills(4, 6)),
    # Sums of all gates fill the registers; constants of activations. On AArch64 states are broadcast into
    # registers of their own, and masked ones take a branch for each lane.
    ("avx2", "recurrent_step.step_through"): Bound(Spills(2, 4)),
    ("sse", "recurrent_step.step_through"): Bound(Spills(4, 4)),
    ("neon", "recurrent_step.step_through"): Bound(Spills(11, 11), 6),
    ("avx2", "recurrent_step.step_through masked"): Bound(Spills(3, 3), 1),
    ("sse", "recurrent_step.step_through masked"): Bound(Spills(4, 4)),
    ("neon", "recurrent_step.step_through masked"): Bound(Spills(13, 13), 5),
    # Compensated sums of several vectors at once.
    ("amx", "reduce._reduce"): Bound(Spills(3, 3)),
    ("avx512", "reduce._reduce"): Bound(Spills(3, 3)),
    ("avx2", "reduce._reduce"): Bound(Spills(7, 9)),
    ("sse", "reduce._reduce"): Bound(Spills(4, 4)),
    ("neon", "reduce._reduce"): Bound(Spills(7, 35)),
    # Sixteen products of half precision in registers.
    ("sse", "reduce._reduce epilogue"): Bound(Spills(11, 11)),
    # Weights of sixteen taps, broadcast before the loop over channels.
    ("avx2", "resize.resize_channels"): Bound(Spills(0, 1)),
    ("sse", "resize.resize_channels"): Bound(Spills(0, 2)),
    ("avx2", "resize.resize_channels masked"): Bound(Spills(0, 6)),
    ("sse", "resize.resize_channels masked"): Bound(Spills(0, 16)),
    ("neon", "resize.resize_channels masked"): Bound(Spills(0, 2)),
    # Offsets (64 bits) and weights of the twelve neighbours of cubic interpolation in three dimensions.
    ("amx", "sample._grid_sample"): Bound(Spills(278, 439)),
    ("avx512", "sample._grid_sample"): Bound(Spills(278, 426)),
    ("avx2", "sample._grid_sample"): Bound(Spills(316, 752)),
    ("sse", "sample._grid_sample"): Bound(Spills(470, 857)),
    ("neon", "sample._grid_sample"): Bound(Spills(270, 388)),
    # Corners and their weights.
    ("avx2", "sample._deformed_columns"): Bound(Spills(0, 2)),
    ("avx2", "sample._deformed_columns masked"): Bound(Spills(0, 3)),
    ("sse", "sample._deformed_columns"): Bound(Spills(0, 6)),
    ("sse", "sample._deformed_columns masked"): Bound(Spills(0, 7)),
    # A constant of the exponential, read back.
    ("amx", "sliced_attention.attend_sliced"): Bound(Spills(0, 1)),
    # Constants of a long epilogue, read back.
    ("amx", "sliced_tile.sliced_tile epilogue"): Bound(Spills(0, 6)),
    # Rows of up to sixteen vectors in registers: faster than three passes all the same
    # (docs/kernels/rows.md).
    ("amx", "softmax._softmax"): Bound(Spills(31, 31)),
    ("avx512", "softmax._softmax"): Bound(Spills(31, 31)),
    ("avx2", "softmax._softmax"): Bound(Spills(6, 7)),
    ("sse", "softmax._softmax"): Bound(Spills(3, 4)),
    ("neon", "softmax._softmax"): Bound(Spills(35, 72)),
    ("amx", "softmax._softmax epilogue"): Bound(Spills(20, 20)),
    ("avx512", "softmax._softmax epilogue"): Bound(Spills(22, 22)),
    ("avx2", "softmax._softmax epilogue"): Bound(Spills(3, 3)),
    ("sse", "softmax._softmax epilogue"): Bound(Spills(1, 1)),
    ("neon", "softmax._softmax epilogue"): Bound(Spills(25, 38)),
    # Weights are packed once; float64 values of a tile are more than the registers (most with 5×5 taps).
    ("amx", "winograd_pack.filters_to_points"): Bound(Spills(56, 164)),
    ("avx512", "winograd_pack.filters_to_points"): Bound(Spills(57, 162)),
    ("avx2", "winograd_pack.filters_to_points"): Bound(Spills(62, 206)),
    ("sse", "winograd_pack.filters_to_points"): Bound(Spills(223, 349)),
    ("neon", "winograd_pack.filters_to_points"): Bound(Spills(69, 271)),
    # Sixteen outputs at once; an epilogue's operands and conversions come on top.
    ("amx", "winograd_tile.from_points"): Bound(Spills(8, 8)),
    ("avx512", "winograd_tile.from_points"): Bound(Spills(7, 7)),
    ("neon", "winograd_tile.from_points"): Bound(Spills(3, 4)),
    ("amx", "winograd_tile.from_points epilogue"): Bound(Spills(50, 51)),
    ("avx512", "winograd_tile.from_points epilogue"): Bound(Spills(52, 53)),
    ("avx2", "winograd_tile.from_points epilogue"): Bound(Spills(13, 15)),
    ("sse", "winograd_tile.from_points epilogue"): Bound(Spills(6, 7)),
    ("neon", "winograd_tile.from_points epilogue"): Bound(Spills(20, 20)),
    ("amx", "winograd_tile.from_points epilogue masked"): Bound(Spills(50, 51)),
    ("avx512", "winograd_tile.from_points epilogue masked"): Bound(Spills(52, 53)),
    ("avx2", "winograd_tile.from_points epilogue masked"): Bound(Spills(3, 7)),
    ("sse", "winograd_tile.from_points epilogue masked"): Bound(Spills(43, 51)),
    ("neon", "winograd_tile.from_points epilogue masked"): Bound(Spills(11, 11)),
    ("amx", "winograd_tile.from_points masked"): Bound(Spills(8, 8)),
    ("avx512", "winograd_tile.from_points masked"): Bound(Spills(7, 7)),
    ("neon", "winograd_tile.from_points masked"): Bound(Spills(4, 4)),
    # Half precision: lanes that are gathered, scattered or masked one by one, where the CPU has no
    # instruction for that on 16 bits; rows of large windows as in float32.
    ("amx", "winograd_tile.to_points half"): Bound(Spills(1, 1)),
    ("amx", "winograd_tile.from_points half"): Bound(Spills(23, 23)),
    ("amx", "winograd_tile.from_points masked half"): Bound(Spills(23, 23)),
    ("amx", "depthwise.depthwise_block half"): Bound(Spills(15, 21)),
    ("amx", "depthwise.depthwise_block masked half"): Bound(Spills(14, 23)),
    ("amx", "depthwise.depthwise half"): Bound(Spills(24, 24)),
    ("amx", "depthwise.depthwise masked half"): Bound(Spills(21, 21)),
    ("amx", "pool.pool_block half"): Bound(Spills(56, 60)),
    ("amx", "pool.pool_block masked half"): Bound(Spills(47, 51)),
    ("amx", "pool.pool half"): Bound(Spills(60, 86)),
    ("avx512", "winograd_tile.to_points half"): Bound(Spills(1, 1)),
    ("avx512", "winograd_tile.from_points half"): Bound(Spills(23, 23)),
    ("avx512", "winograd_tile.from_points masked half"): Bound(Spills(23, 23)),
    ("avx512", "depthwise.depthwise_block half"): Bound(Spills(29, 29)),
    ("avx512", "depthwise.depthwise_block masked half"): Bound(Spills(14, 23)),
    ("avx512", "depthwise.depthwise half"): Bound(Spills(20, 20)),
    ("avx512", "depthwise.depthwise masked half"): Bound(Spills(23, 23)),
    ("avx512", "pool.pool_block half"): Bound(Spills(49, 54)),
    ("avx512", "pool.pool_block masked half"): Bound(Spills(47, 51)),
    ("avx512", "pool.pool half"): Bound(Spills(64, 73)),
    ("avx2", "winograd_tile.from_points half"): Bound(Spills(1, 1)),
    ("avx2", "depthwise.depthwise_block half"): Bound(Spills(5, 5)),
    ("avx2", "depthwise.depthwise_block masked half"): Bound(Spills(7, 9)),
    ("avx2", "depthwise.depthwise half"): Bound(Spills(16, 23)),
    ("avx2", "depthwise.depthwise masked half"): Bound(Spills(52, 48)),
    ("avx2", "pool.pool_block half"): Bound(Spills(4, 5)),
    ("avx2", "pool.pool_block masked half"): Bound(Spills(12, 14)),
    ("avx2", "pool.pool half"): Bound(Spills(46, 63)),
    ("avx2", "pool.pool masked half"): Bound(Spills(70, 55)),
    ("sse", "winograd_tile.to_points"): Bound(Spills(0, 1)),
    ("sse", "winograd_tile.to_points half"): Bound(Spills(10, 27)),
    ("sse", "winograd_tile.from_points half"): Bound(Spills(47, 54)),
    ("sse", "winograd_tile.from_points masked half"): Bound(Spills(18, 19)),
    ("sse", "depthwise.depthwise_block half"): Bound(Spills(12, 16)),
    ("sse", "depthwise.depthwise_block masked half"): Bound(Spills(93, 85)),
    ("sse", "depthwise.depthwise half"): Bound(Spills(51, 58)),
    ("sse", "depthwise.depthwise masked half"): Bound(Spills(70, 83)),
    ("sse", "pool.pool_block half"): Bound(Spills(130, 154)),
    ("sse", "pool.pool_block masked half"): Bound(Spills(114, 112)),
    ("sse", "pool.pool half"): Bound(Spills(16, 73)),
    ("neon", "winograd_tile.from_points half"): Bound(Spills(7, 7)),
    ("neon", "winograd_tile.from_points masked half"): Bound(Spills(6, 6)),
    ("neon", "depthwise.depthwise_block half"): Bound(Spills(1, 2)),
    ("neon", "depthwise.depthwise_block masked half"): Bound(Spills(204, 162)),
    ("neon", "depthwise.depthwise half"): Bound(Spills(17, 16)),
    ("neon", "depthwise.depthwise masked half"): Bound(Spills(189, 160)),
    ("neon", "pool.pool_block half"): Bound(Spills(8, 11)),
    ("neon", "pool.pool_block masked half"): Bound(Spills(446, 307)),
    ("neon", "pool.pool half"): Bound(Spills(17, 60)),
    ("neon", "pool.pool masked half"): Bound(Spills(6, 5)),
}
