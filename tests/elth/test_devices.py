"""What errors of GPUs mean, by errors as PyTorch 2.13 raises them."""

from __future__ import annotations

import pytest
import torch

from elth import devices

ILLEGAL = (
    "CUDA error: an illegal memory access was encountered\n"
    "Search for `cudaErrorIllegalAddress' in the documentation of CUDA for more information.\n"
    "CUDA kernel errors might be asynchronously reported at some other API call.\n"
)
ECC = "CUDA error: uncorrectable ECC error encountered"
CUBLAS = "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm( handle, ...)`"
CUDNN = "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"
TRITON = "Triton Error [CUDA]: an illegal memory access was encountered"
NONE = "No CUDA GPUs are available"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.AcceleratorError(ILLEGAL), ILLEGAL.splitlines()[0]),
        (torch.AcceleratorError(ECC), ECC),
        (torch.AcceleratorError("of some other device"), "of some other device"),
        (torch.AcceleratorError(""), "AcceleratorError"),
        (RuntimeError(CUBLAS), CUBLAS),
        (RuntimeError(CUDNN), CUDNN),
        (RuntimeError(f"while it ran:\n  {TRITON}"), TRITON),
        (RuntimeError(NONE), NONE),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (64x8 and 9x8)"), ""),
        (ValueError(f"a name with {ECC} in it"), ""),
    ],
    ids=repr,
)
def test_a_lost_gpu(error: Exception, said: str) -> None:
    assert devices.lost(error) == said
    assert not devices.ran_out(error)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'"),
        RuntimeError("CUDA driver error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("InductorError: OutOfMemoryError: CUDA out of memory. Tried to allocate"),
    ],
    ids=repr,
)
def test_too_little_memory_is_no_lost_gpu(error: Exception) -> None:
    assert devices.ran_out(error)
    assert not devices.lost(error)


@pytest.mark.parametrize("full", [True, False])
def test_no_algorithm_of_cudnn_is_a_lack_of_memory_where_the_gpu_is_full(
    full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says the same of what it cannot do at all."""
    gb = 2**30
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (40 * gb, 80 * gb))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: (19 if full else 9) * gb)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 19 * gb)
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda: 0.25)
    error = RuntimeError("GET was unable to find an engine to execute this computation")
    assert devices.ran_out(error) is full


def test_too_little_memory_of_a_processor_is_none_of_a_gpu() -> None:
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 8")):
        assert not devices.ran_out(error)
        assert not devices.lost(error)


def _raised(first: Exception, then: Exception, *, named: bool) -> Exception:
    try:
        try:
            raise first
        except Exception as error:
            if named:
                raise then from error
            raise then  # noqa: B904
    except Exception as error:
        return error


@pytest.mark.parametrize("named", [True, False])
def test_it_is_found_behind_another_error(named: bool) -> None:
    short = torch.OutOfMemoryError("CUDA out of memory")
    broken = torch.AcceleratorError("CUDA error: operation failed due to a previous error")
    assert devices.ran_out(_raised(short, broken, named=named))
    assert not devices.lost(_raised(short, broken, named=named))
    assert devices.lost(_raised(torch.AcceleratorError(ECC), ValueError("no"), named=named)) == ECC
