"""Protocols: each module reads one API's requests and writes its answers.

Pure translation between wire formats and `snapllm.params` / `snapllm.outputs`; no
HTTP and no engine in here.
"""
