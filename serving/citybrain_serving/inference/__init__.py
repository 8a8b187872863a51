"""Open Inference Protocol v2: the networks themselves, for callers that bring their own features.

https://github.com/open-inference/open-inference-protocol: HTTP/REST, with the binary data extension.
"""
