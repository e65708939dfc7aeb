"""The machine underneath: what stands in for torch.cuda where there is none, and Megatron-core's first import.

Megatron-core speaks to `torch.cuda` even when it computes on a CPU. `install()` makes the same code run there; with a
CUDA device it leaves torch as it is. Call it before anything of `trainwright.runtime.train` is imported.
"""

import functools
import importlib
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.utils._device import _device_constructors

_CPU = torch.device("cpu")

# Everything that `install()` replaces, and nothing else (tests/runtime/test_host.py compares).
REPLACED: dict[str, tuple[str, ...]] = {
    "torch": ("empty", "empty_like", "ones", "tensor", "zeros"),
    "torch.Tensor": ("cuda", "record_stream", "type"),
    "torch.nn.Module": ("cuda",),
    "torch.cuda": (
        "BFloat16Tensor", "BoolTensor", "ByteTensor", "DoubleTensor", "Event", "FloatTensor", "HalfTensor",
        "IntTensor", "LongTensor", "Stream", "_lazy_call", "_lazy_init", "current_device", "current_stream",
        "default_generators", "default_stream", "empty_cache", "get_device_capability", "get_device_properties",
        "get_rng_state", "manual_seed", "max_memory_allocated", "memory_allocated", "set_device", "set_rng_state",
        "stream", "synchronize",
    ),
    "torch.cuda.nvtx": ("range_pop", "range_push"),
    "torch.cuda.random": ("get_rng_state", "set_rng_state"),
}  # fmt: skip

# What Megatron-core says while it is imported without Apex and Transformer Engine (we bring our own of all that they
# would add), and of its own deprecated modules, which it still imports itself.
_EXPECTED = (
    "Apex is not installed",
    "Transformer Engine and Apex are not installed",
    "The following imports from `dynamic_context.py` will be removed",
    "The 'megatron.core.transformer.custom_layers.transformer_engine'",
    "`torch.jit.script",
)

# What Megatron-core says or provokes while it builds, trains, saves and loads; all of it is its own.
_EXPECTED_IN_USE = (
    "If you are using transformer_engine as the transformer implementation",  # of recomputed attention; we do not
    "`torch.distributed",  # names that torch 2.13 calls deprecated
    "The .grad attribute of a Tensor that is not a leaf",  # its sharded optimizer zeroes gradients of views
    "Please use DTensor instead",
    "`load_state_dict` is deprecated",
)

_installed = False


def device() -> torch.device:
    """This process's device: the current CUDA device, or the CPU where there is none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else _CPU


def backend() -> Literal["nccl", "gloo"]:
    """The collective back-end that fits the device."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def install() -> None:
    """Megatron-core is imported and can be used on this machine. Idempotent."""
    global _installed
    if _installed:
        return
    compile_ = torch.compile
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message)
        if not torch.cuda.is_available():
            _stand_in()
            # Decorators of fused GPU kernels call it at import, which would load all of inductor for nothing.
            torch.compile = lambda function=None, **options: function or (lambda f: f)  # type: ignore[assignment]
        try:
            for name in ("models.gpt.gpt_layer_specs", "optimizer", "dist_checkpointing", "pipeline_parallel"):
                importlib.import_module(f"megatron.core.{name}")
        finally:
            torch.compile = compile_
    if not torch.cuda.is_available():
        # It would advise CUDA_DEVICE_MAX_CONNECTIONS=1 at the first tensor-parallel product: there is no such device.
        layers = importlib.import_module("megatron.core.tensor_parallel.layers")
        layers.linear_with_grad_accumulation_and_async_allreduce.warned = True
    # It warns of every MLP that is not its own class, ours included.
    layer = logging.getLogger("megatron.core.transformer.transformer_layer")
    layer.addFilter(lambda record: "Unknown MLP type" not in record.getMessage())
    # It reads its own default, fp8=False, as "fp8 is on", and then wants Transformer Engine (0.16.1).
    random = importlib.import_module("megatron.core.tensor_parallel.random")
    random.CheckpointWithoutOutput.__init__.__defaults__ = (None,)
    _installed = True


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Inside the block, the warnings that Megatron-core is known to provoke in use are not shown."""
    with warnings.catch_warnings():
        for message in _EXPECTED_IN_USE:
            warnings.filterwarnings("ignore", message)
        yield


class _Inert:
    """Stands for streams and events: everything on a CPU has already happened."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __enter__(self) -> "_Inert":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "_Inert") -> float:
        return 0.0

    def wait_stream(self, stream: "_Inert") -> None:
        pass

    def wait_event(self, event: "_Inert") -> None:
        pass

    def record_event(self, event: "_Inert | None" = None) -> "_Inert":
        return self

    def record(self, stream: "_Inert | None" = None) -> None:
        pass

    def wait(self, stream: "_Inert | None" = None) -> None:
        pass

    def synchronize(self) -> None:
        pass


class _Generators:
    """The CPU generator under every index."""

    def __getitem__(self, index: int) -> torch.Generator:
        return torch.default_generator


class _Properties:
    major = 0
    minor = 0
    multi_processor_count = 1
    total_memory = 0


# torch.compile refuses one function behind two of torch's names, so each name gets a function of its own.
def _giving(value: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: value()


def _itself() -> Callable[..., Any]:
    return lambda self, *args, **kwargs: self


def _get_rng_state() -> Callable[..., torch.Tensor]:
    return lambda *args, **kwargs: torch.get_rng_state()


def _set_rng_state() -> Callable[..., None]:
    return lambda state, *args, **kwargs: torch.set_rng_state(state)


def _on_cpu(factory: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The factory, with `device="cuda"` read as the CPU."""

    @functools.wraps(factory)
    def create(*args: Any, **kwargs: Any) -> torch.Tensor:
        if kwargs.get("device") == "cuda":
            kwargs["device"] = _CPU
        return factory(*args, **kwargs)

    return create


def _stand_in() -> None:
    """Every name of REPLACED is replaced."""
    cuda = torch.cuda
    # `with torch.device(...)` knows the factories by identity, from a set it makes once: it must hold the originals.
    _device_constructors()
    nothing, inert, zero = (lambda: None), _Inert, (lambda: 0)
    values: dict[str, dict[str, Any]] = {
        "torch": {name: _on_cpu(getattr(torch, name)) for name in REPLACED["torch"]},
        "torch.Tensor": {"cuda": _itself(), "record_stream": _giving(nothing), "type": _type(torch.Tensor.type)},
        "torch.nn.Module": {"cuda": _itself()},
        "torch.cuda": {
            **{name: getattr(torch, name) for name in REPLACED["torch.cuda"] if name.endswith("Tensor")},
            **{name: _giving(nothing) for name in ("empty_cache", "set_device", "synchronize", "_lazy_init")},
            **{name: _giving(inert) for name in ("current_stream", "default_stream", "stream")},
            **{name: _giving(zero) for name in ("memory_allocated", "max_memory_allocated")},
            "Event": type("Event", (_Inert,), {}),
            "Stream": type("Stream", (_Inert,), {}),
            "_lazy_call": lambda call, **kwargs: call(),
            "current_device": _giving(lambda: _CPU),
            "default_generators": _Generators(),
            "get_device_capability": _giving(lambda: (0, 0)),
            "get_device_properties": _giving(_Properties),
            "get_rng_state": _get_rng_state(),
            "manual_seed": lambda seed: torch.manual_seed(seed),
            "set_rng_state": _set_rng_state(),
        },
        "torch.cuda.nvtx": {name: _giving(nothing) for name in REPLACED["torch.cuda.nvtx"]},
        "torch.cuda.random": {"get_rng_state": _get_rng_state(), "set_rng_state": _set_rng_state()},
    }
    owners = {
        "torch": torch,
        "torch.Tensor": torch.Tensor,
        "torch.nn.Module": torch.nn.Module,
        "torch.cuda": cuda,
        "torch.cuda.nvtx": cuda.nvtx,
        "torch.cuda.random": cuda.random,
    }
    for owner, names in REPLACED.items():
        for name in names:
            setattr(owners[owner], name, values[owner][name])


def _type(original: Callable[..., Any]) -> Callable[..., Any]:
    """Tensor.type, which names a CPU tensor as Megatron's optimizers expect it: `torch.cuda.FloatTensor`."""

    @functools.wraps(original)
    def type_(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        return result.replace("torch.", "torch.cuda.", 1) if isinstance(result, str) else result

    return type_
