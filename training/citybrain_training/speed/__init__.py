"""What the network costs: against its size, and run by ONNX Runtime beside torch."""
