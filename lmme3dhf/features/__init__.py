"""The store of frozen features: what a frozen model makes of a clip is computed once.

A feature belongs to the clip's bytes, the choice of its frames, the decoder, the weights that made
it, and their type. All but the clip is the recipe, which names the store's folder; the clip's bytes
are its key. So another clip under an old name, another resolution or another model never meets a
stale feature, and a copied data set finds its own.
"""
