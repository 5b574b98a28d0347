"""Exported programs (ONNX, TorchScript, torch.export): checking, vetting and loading them."""
