"""A `ModelRunner` on onnxruntime, for decoders that the onnxruntime-genai builder exports."""
