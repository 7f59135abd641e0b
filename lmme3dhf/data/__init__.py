"""From files to samples: the released lists, the splits, the clips, and what the stages make of
them.
"""
