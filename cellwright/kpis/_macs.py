"""Counting multiply-accumulates with PyTorch's FLOP counter."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any


def count_macs(call: Callable[[], Any]) -> int:
    """Multiply-accumulates of what `call` computes with torch: matrix products and convolutions, no element-wise work.

    Recurrent layers and attention run as fused kernels that the counter cannot see into, so they are run here as the plain
    matrix products they are made of: oneDNN off, attention in its textbook form, gradients on (without them the transformer
    layers of torch take a fused path).
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a switch of oneDNN warns of Intel GPUs that are not there
        plain = (torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH), torch.enable_grad())
        with plain[0], plain[1], plain[2], FlopCounterMode(display=False) as counter:
            call()
    return int(counter.get_total_flops()) // 2
