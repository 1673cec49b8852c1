"""sentence-transformers with each of its backends for a CPU, the 8-bit ones made as its manual says.

The packages of the backends want an older transformers, so they live in an environment of their own (README.md).
"""

from pathlib import Path
from typing import Any

import torch

BACKENDS = ("torch", "onnx", "openvino", "onnx-int8", "openvino-int8")
CALIBRATION_SENTENCES = 300


def prepare_peer(folder: Path, backend: str, sentences: list[str]) -> Path:
    """The folder that `load_peer` loads: this one, or an 8-bit model made of it, once, beside it."""
    if not backend.endswith("-int8"):
        return folder
    made = folder.with_name(f"{folder.name}-{backend}")
    if not made.exists():
        from sentence_transformers import SentenceTransformer

        kind = backend.removesuffix("-int8")
        model: Any = SentenceTransformer(str(folder), device="cpu", backend=kind, model_kwargs={"export": True})
        if kind == "onnx":
            from sentence_transformers import export_dynamic_quantized_onnx_model

            model.save_pretrained(str(made))
            export_dynamic_quantized_onnx_model(model, onnx_recipe(), str(made))
        else:
            quantise_openvino(model, sentences[:CALIBRATION_SENTENCES])
            model.save_pretrained(str(made))
    return made


def onnx_recipe() -> str:
    """The recipe of sentence-transformers that suits this processor."""
    flags = Path("/proc/cpuinfo").read_text()
    return "avx512_vnni" if "avx512_vnni" in flags else "avx512" if "avx512f" in flags else "avx2"


def quantise_openvino(model: Any, sentences: list[str]) -> None:
    """Static quantisation with optimum's defaults; sentence-transformers' own function needs the package `datasets`."""
    import nncf
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer

    network = model.transformers_model
    names = {port.get_any_name() for port in network.model.inputs}
    encoded = [model.tokenizer([text], return_tensors="np") for text in sentences]
    inputs = [{name: value for name, value in row.items() if name in names} for row in encoded]
    quantizer = OVQuantizer.from_pretrained(network)
    quantizer.quantize(nncf.Dataset(inputs), ov_config=OVConfig(quantization_config=OVQuantizationConfig()))


def load_peer(folder: Path, backend: Any, device: str, dtype: torch.dtype) -> Any:
    """A SentenceTransformer of a folder that `prepare_peer` returned; `dtype` is for the backend torch."""
    from sentence_transformers import SentenceTransformer

    options: dict[str, Any] = {"dtype": dtype} if backend == "torch" else {"export": True}
    if backend == "onnx-int8":
        recipe = onnx_recipe()
        weights = "quint8" if recipe == "avx2" else "qint8"  # as the recipes of sentence-transformers have it
        options = {"file_name": f"model_{weights}_{recipe}.onnx"}
    if backend == "openvino-int8":
        options = {}
    return SentenceTransformer(str(folder), device=device, backend=backend.removesuffix("-int8"), model_kwargs=options)
