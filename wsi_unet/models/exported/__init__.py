"""Networks that come as programs (ONNX, TorchScript, torch.export) or as modules."""
