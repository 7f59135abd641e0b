"""The model: Qwen2.5-VL with a score head and a saliency decoder, its configuration, its tiny base,
and merging.
"""
