"""Makes bf16 right in Triton's interpreter, which runs kernels on a CPU when TRITON_INTERPRET=1.

The interpreter keeps bf16 as uint16 and, up to Triton 3.9, computes and compares those bits as if they were numbers,
and cuts fp32 instead of rounding it to the nearest even (triton-lang/triton issue 11584). Here operands are widened to
fp32 first and results rounded, as the hardware does.
"""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter

_Builder = interpreter.InterpreterBuilder
_Handle = interpreter.TensorHandle


def _wide(bits: Any) -> Any:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _bf16(values: Any) -> Any:
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def _is_bf16(handle: Any) -> bool:
    return bool(handle.dtype.scalar == tl.bfloat16)


def _fp32(handle: Any) -> Any:
    return _Handle(_wide(handle.data), tl.float32) if _is_bf16(handle) else handle


def install() -> None:
    """bf16 is right from now on in this process. Calling it again changes nothing."""
    if getattr(_Builder, "rounds_bf16", False):
        return
    dot, binary, unary = _Builder.create_dot, _Builder.binary_op, _Builder.unary_op
    cast, convert = _Builder.cast_impl, _Builder.create_fp_to_fp

    def create_dot(self: Any, a: Any, b: Any, d: Any, *rest: Any) -> Any:
        return dot(self, _fp32(a), _fp32(b), d, *rest)

    def binary_op(self: Any, a: Any, b: Any, op: Any) -> Any:
        if not (_is_bf16(a) and _is_bf16(b)):
            return binary(self, a, b, op)
        out = op(_wide(a.data), _wide(b.data))
        return _Handle(out, tl.int1) if out.dtype == np.bool_ else _Handle(_bf16(out), tl.bfloat16)

    def unary_op(self: Any, a: Any, op: Any) -> Any:
        return _Handle(_bf16(op(_wide(a.data))), tl.bfloat16) if _is_bf16(a) else unary(self, a, op)

    def cast_impl(self: Any, source: Any, to: Any) -> Any:
        if source.dtype.scalar == to.scalar:
            return cast(self, source, to)
        if _is_bf16(source):
            wide = _fp32(source)
            return wide if to.scalar == tl.float32 else cast(self, wide, to)
        if to.scalar == tl.bfloat16:
            return _Handle(_bf16(source.data), tl.bfloat16)
        return cast(self, source, to)

    def create_fp_to_fp(self: Any, source: Any, to: Any, mode: Any) -> Any:
        if _is_bf16(source) or to.scalar == tl.bfloat16:
            return cast_impl(self, source, to)
        return convert(self, source, to, mode)

    _Builder.create_dot, _Builder.binary_op, _Builder.unary_op = create_dot, binary_op, unary_op
    _Builder.cast_impl, _Builder.create_fp_to_fp = cast_impl, create_fp_to_fp
    _Builder.rounds_bf16 = True
