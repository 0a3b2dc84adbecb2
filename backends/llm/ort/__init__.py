"""The forward pass on onnxruntime, over what the onnxruntime-genai builder exports."""
