"""The GPU's bidirectional scan: on a GPU where there is one, else in Triton's interpreter and by its compiler."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton comes for Linux only")


def test_it_agrees_with_the_loop_forward_and_backward():
    interpreted = "0" if torch.cuda.is_available() else "1"
    program = [sys.executable, Path(__file__).with_name("triton_agreement.py")]
    run = subprocess.run(
        program, env={**os.environ, "TRITON_INTERPRET": interpreted}, capture_output=True, text=True, timeout=200
    )
    assert run.returncode == 0, run.stderr
    cases = json.loads(run.stdout)
    assert set(cases) == {"short", "ragged", "long", "half"}
    for case, errors in cases.items():
        for name, error in errors.items():
            # bfloat16 has 8 bits, and the low-rank step sizes are rounded to them on the way.
            assert error < (3e-2 if case == "half" else 2e-6), (case, name)


@pytest.mark.parametrize("capability", [80, 90])
def test_its_kernels_compile_for_real_gpus(monkeypatch, tmp_path, capability):
    """The interpreter takes more than the compiler does: here it makes the programs of an A100 and an H100."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rs4d_core.ops import bidirectional_scan_triton as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = {
        "N": 16,
        "CHUNK": kernels.CHUNK,
        "CHANNELS": kernels.CHANNELS,
        "WALK": kernels._WALK,
        "PAIRS": kernels._PAIRS,
    }
    integers = {"length", "channels", "chunks", "batch", "pairs", "against"}
    half = {"u", "dt", "b", "c", "z", "y", "grad", "grad_u", "grad_dt", "grad_z"}
    for name in ("_end_states", "_walk", "_outputs", "_state_gradients", "_gradients"):
        kernel = getattr(kernels, name)
        signature = {argument: "*bf16" if argument in half else "*fp32" for argument in kernel.arg_names}
        signature.update({argument: "i32" for argument in kernel.arg_names if argument in integers})
        constants = {argument: size for argument, size in sizes.items() if argument in kernel.arg_names}
        signature.update(dict.fromkeys(constants, "constexpr"))
        source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
        options = {"num_warps": kernels._WARPS}
        assert triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]
