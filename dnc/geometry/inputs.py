"""Whatever holds an array, as a plain NumPy array: the one conversion that every public entry uses.

No value changes on the way: what NumPy would alter or lose (missing values, digits of integers) is refused, with what
to do instead. Libraries are known by the objects that come from them; none is imported here.
"""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST_CODE = np.iinfo(np.int32).max


def converted(**roles: Callable[[Any, str], Any]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Convert arguments of a function, often a jitted one: argument name -> `as_numbers`, `as_codes` or `each` of them.

    JAX arrays and tracers pass as they are: nothing is gathered from devices, and the function can be traced.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def with_arrays(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            for name, role in roles.items():
                value = bound.arguments.get(name)
                if value is not None and not isinstance(value, jax.Array):
                    bound.arguments[name] = role(value, name)
            return function(*bound.args, **bound.kwargs)

        return with_arrays

    return decorate


def each(role: Callable[[Any, str], Any]) -> Callable[[Any, str], Any]:
    """The role of a sequence of arrays."""
    return lambda values, name: [
        value if isinstance(value, jax.Array) else role(value, f"{name}[{i}]") for i, value in enumerate(values)
    ]


def as_numbers(value: Any, name: str) -> np.ndarray:
    """`as_array`, and TypeError unless it holds real numbers or booleans."""
    array = as_array(value, name)
    if array.dtype.kind in "fiub":
        return array
    remedy = "convert them to float32"
    if array.dtype.kind == "c":
        remedy = "take np.abs of them, or put real and imaginary parts side by side"
    elif array.dtype.kind == "O" and array.ndim == 1:
        remedy = f"they are one {type(array[0]).__name__} per row, so give np.stack(list({name}))"
    elif array.dtype.kind == "O":
        remedy = f"give {name}.astype(np.float64)"
    elif array.dtype == np.dtype("V2"):
        remedy = "if they were bfloat16, which npy files cannot hold, give them with .view(ml_dtypes.bfloat16)"
    raise TypeError(f"{name} must be real numbers, got dtype {array.dtype}: {remedy}")


def as_codes(value: Any, name: str) -> np.ndarray:
    """`as_array` in int32; TypeError or ValueError unless it holds one-dimensional integers or booleans that fit."""
    array = as_array(value, name)
    if array.ndim != 1 or array.dtype.kind not in "iub":
        remedy = shape_remedy(array, name) or "map them with dnc.geometry.validation.encode_labels"
        raise TypeError(f"{name} must be one-dimensional integers, got {array.dtype} of shape {array.shape}: {remedy}")
    if array.size and max(int(array.max()), -int(array.min())) > _LARGEST_CODE:
        raise ValueError(
            f"{name} range over {array.min()}..{array.max()}, which are not class numbers 0..k-1: "
            "map them with dnc.geometry.validation.encode_labels"
        )
    return array.astype(np.int32, copy=False)


def shape_remedy(array: np.ndarray, name: str) -> str:
    """What to do about labels that are not one-dimensional."""
    if array.ndim != 2:
        return "" if array.ndim == 1 else "give one label per row"
    if array.shape[1] == 1:
        return f"give {name}[:, 0]"
    if array.dtype.kind in "fiub" and np.isin(array, (0, 1)).all() and (array.sum(axis=1) == 1).all():
        return f"they look one-hot, so give {name}.argmax(axis=1)"
    return "for several labelings give a dict, name -> labels; of a pandas DataFrame, dict(frame.items())"


def as_array(value: Any, name: str) -> np.ndarray:
    """`value` as a NumPy array in native byte order.

    Takes NumPy, JAX, PyTorch (any device, with or without gradients), pandas, Arrow and Polars, lists, and whatever
    has `__array__`. bfloat16 and float8 become float32, bytes become str, and one-dimensional objects become integers,
    floats or str where all are of one kind; other objects stay objects.

    Raises ValueError for missing values (masked, NaN among objects, None, NA, NaT, nulls), with their number and first
    rows, and for lists of unequal rows; TypeError for what does not hold an array. Errors call the value `name`.
    """
    if isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name} is {str(value)!r}, not an array: read files with dnc.features.files.read_features")
    if isinstance(value, np.ma.MaskedArray):
        refuse_missing(np.ma.getmaskarray(value), name)
        array = np.ma.getdata(value)
    elif _is(value, "torch", "Tensor"):
        array = _of_torch(value, name)
    elif _is(value, "pandas", "Series", "DataFrame", "Index", "api.extensions.ExtensionArray"):
        array = _of_pandas(value, name)
    elif _is(value, "polars", "Series", "DataFrame"):
        array = _of_arrow(value.to_arrow(), name)
    elif _is(value, "pyarrow", "Array", "ChunkedArray", "Table", "RecordBatch"):
        array = _of_arrow(value, name)
    elif isinstance(value, (list, tuple)):
        array = _of_list(value, name)
    else:
        array = _of_anything(value, name)
    return _plain(array, name)


def refuse_missing(missing: np.ndarray, name: str) -> None:
    """Raises ValueError where any entry of `missing` is True, with their number and the first rows that hold them."""
    if count := int(np.count_nonzero(missing)):
        by_row = np.atleast_1d(missing.reshape(missing.shape[0] if missing.ndim else 1, -1).any(axis=1))
        rows = np.flatnonzero(by_row)
        raise ValueError(
            f"{name} hold {count} missing values (masked, NaN, None or NA) in {len(rows)} of {len(by_row)} rows "
            f"(first rows: {', '.join(map(str, rows[:5]))}): drop these rows"
        )


def _is(value: Any, library: str, *names: str) -> bool:
    """Whether the value is of one of these types; a library that is not loaded made no objects."""
    module = sys.modules.get(library)
    types: list[Any] = [functools.reduce(getattr, name.split("."), module) for name in names] if module else []
    return isinstance(value, tuple(types))


def _of_torch(tensor: Any, name: str) -> np.ndarray:
    if tensor.device.type == "meta":
        raise TypeError(f"{name} are on the meta device, which holds no values: load them on a real device")
    if str(tensor.layout) != "torch.strided":
        raise TypeError(f"{name} are a sparse tensor: give {name}.to_dense()")
    foreign = tensor.is_floating_point() and str(tensor.dtype) not in ("torch.float16", "torch.float64")
    try:
        return (tensor.detach().float() if foreign else tensor).numpy(force=True)  # float32 holds bfloat16 and float8
    except RuntimeError as error:  # a tensor of a kind of its own, such as a masked one
        raise TypeError(f"{name} of type {type(tensor).__name__} cannot be read as an array: {error}") from error


def _of_pandas(value: Any, name: str) -> np.ndarray:
    refuse_missing(np.asarray(value.isna()), name)
    array = value.to_numpy()
    if array.ndim == 2 and array.dtype == object:
        return _columns(((key, value.iloc[:, place]) for place, key in enumerate(value.columns)), name)
    return array


def _of_arrow(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "column_names"):
        return _columns(zip(value.column_names, value.columns, strict=True), name)
    if value.null_count:
        refuse_missing(np.asarray(value.is_null()), name)
    return np.asarray(value)


def _columns(columns: Iterable[tuple[Any, Any]], name: str) -> np.ndarray:
    arrays = {place: (key, as_array(column, f"{name} column {key!r}")) for place, (key, column) in enumerate(columns)}
    others = [key for key, array in arrays.values() if array.ndim != 1 or array.dtype.kind not in "fiub"]
    if others:
        raise TypeError(f"{name} have columns that are not numbers, {others[:5]}: leave them out")
    return np.column_stack([array for _, array in arrays.values()])


def _of_list(rows: Sequence[Any], name: str) -> np.ndarray:
    nested = [as_array(row, f"{name}[{i}]") if _holds_arrays(row) else row for i, row in enumerate(rows)]
    try:
        array = np.asarray(nested)
    except ValueError as error:
        shapes = sorted({str(np.shape(row)) for row in nested if isinstance(row, np.ndarray)})
        found = f" of shapes {', '.join(shapes[:3])}" if shapes else ""
        raise ValueError(
            f"{name} are a list of unequal rows{found}: of batches give np.concatenate({name}), otherwise equal rows"
        ) from error
    if array.dtype.kind in "USO" or (array.dtype.kind == "f" and array.ndim == 1):
        return np.asarray(nested, object)  # NumPy has made strings or floats of whatever stood beside one
    return array


def _holds_arrays(row: Any) -> bool:
    if isinstance(row, (list, tuple)):
        return any(map(_holds_arrays, row))
    return hasattr(row, "__array__") and not isinstance(row, np.generic)


def _of_anything(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "toarray"):
        raise TypeError(f"{name} are a sparse {type(value).__name__}: give {name}.toarray()")
    try:
        array = np.asanyarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{name} of type {type(value).__name__} cannot be read as an array: {error}") from error
    if isinstance(array, np.ma.MaskedArray):
        return as_array(array, name)
    if array.ndim == 0 and array.dtype == object:
        raise TypeError(f"{name} are a {type(value).__name__}, not an array: give an array with one row per sample")
    return array


def _plain(array: np.ndarray, name: str) -> np.ndarray:
    """In native byte order, of a dtype that NumPy, JAX and labels have in common."""
    kind = array.dtype.kind
    if array.dtype.type.__module__.startswith("ml_dtypes"):
        return array.astype(np.float32)
    if array.dtype == np.longdouble:
        return array.astype(np.float64)
    if kind in "OT":
        return _of_objects(array.astype(object), name)
    if kind == "S":
        return _decoded(array.ravel().tolist(), name).reshape(array.shape)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _of_objects(array: np.ndarray, name: str) -> np.ndarray:
    flat = array.ravel().tolist()
    refuse_missing(np.fromiter(map(_is_missing, flat), bool, len(flat)).reshape(array.shape), name)
    kinds = set(map(type, flat))

    def all_are(*types: type) -> bool:
        return array.ndim == 1 and all(issubclass(kind, types) for kind in kinds)

    if all_are(str):
        return np.array(flat, str)
    if all_are(bytes):
        return _decoded(flat, name)
    if all_are(int, np.integer, np.bool_):
        return _exact_integers([int(item) for item in flat])
    if all_are(int, float, np.integer, np.floating, np.bool_):
        return array.astype(np.float64)
    return array


def _exact_integers(values: list[int]) -> np.ndarray:
    """In the first of int64, uint64 and object that holds them all."""
    for dtype in (np.int64, np.uint64):
        bounds = np.iinfo(dtype)
        if all(bounds.min <= value <= bounds.max for value in values):
            return np.array(values, dtype)
    return np.array(values, object)


def _decoded(values: list[bytes], name: str) -> np.ndarray:
    try:
        return np.array([value.decode("utf-8") for value in values], str)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} hold bytes that are not UTF-8, {error.object!r}: decode them to str first") from error


def _is_missing(item: Any) -> bool:
    if isinstance(item, (float, np.floating)):
        return bool(item != item)
    return item is None or item is np.ma.masked or type(item).__name__ in ("NAType", "NaTType")
