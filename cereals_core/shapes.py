"""Types of arrays that tell dtype and axes, as `Float32[np.ndarray, "rows columns"]`, from jaxtyping.

Axes of one name are equally long in all of a signature. The tests load jaxtyping and check every call; elsewhere these
are annotations that nothing reads, and jaxtyping, which takes longer to import than most of this package, stays out.
"""

import sys
from typing import TYPE_CHECKING, Annotated

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float16, Float32, Float64, Int16, Int64, Integer, Real, Shaped, UInt8
else:
    Bool = Float = Float16 = Float32 = Float64 = Int16 = Int64 = Integer = Real = Shaped = UInt8 = Annotated

__all__ = ["Bool", "Float", "Float16", "Float32", "Float64", "Int16", "Int64", "Integer", "Real", "Shaped", "UInt8"]
